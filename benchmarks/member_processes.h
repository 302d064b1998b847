// What the clusters of a benchmark share: processes of one machine that talk over its loopback
// address.
//
//   MemberProcesses members;
//   DYNLIB_RETURN_IF_ERROR(members.Start(folder, {{"/proc/self/exe", "--serve", "1"}, ...}));
//   auto result = Measure();
//   DYNLIB_RETURN_IF_ERROR(members.CheckAll(result.status()));
#ifndef DYNLIB_BENCHMARKS_MEMBER_PROCESSES_H_
#define DYNLIB_BENCHMARKS_MEMBER_PROCESSES_H_

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/cleanup.h"

namespace dynlib::bench {

// Ports of the loopback address that nobody listened on a moment ago: all are held at once, so they
// differ.
absl::StatusOr<std::vector<int>> FreePorts(int count);

// "127.0.0.1:port".
std::string LoopbackAddress(int port);

// The last 2,000 bytes of a file; empty if it cannot be read.
std::string Tail(const std::filesystem::path& path);

// What a member prints once it serves.
inline constexpr char kMemberReady[] = "ready\n";

// The members of a cluster, each a process; killed by the destructor.
class MemberProcesses {
 public:
  // Starts each command, with its output in `folder`/node-1.out and so on, and waits until all are
  // ready: 30 s at most.
  absl::Status Start(const std::filesystem::path& folder,
                     const std::vector<std::vector<std::string>>& commands);

  // What a member that ended had to say, or else `status`: a cluster that lost one is not the one
  // that was to be measured.
  absl::Status CheckAll(const absl::Status& status);

 private:
  std::filesystem::path Output(size_t member) const;
  absl::Status Ended(size_t member) const;
  absl::Status AwaitReady(size_t member);

  std::filesystem::path folder_;
  std::vector<ChildProcess> processes_;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_MEMBER_PROCESSES_H_
