// A storage node with all that it runs on: files, threads and, as a process of its own, sockets.
#ifndef DYNLIB_BENCHMARKS_DYNLIB_MEMBER_H_
#define DYNLIB_BENCHMARKS_DYNLIB_MEMBER_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/runtime/posix/event_loop.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::bench {

inline constexpr uint64_t kDynlibMembers = 3;
inline constexpr NodeId kDynlibClient{1000};

// Nodes 1 to 3, one a zone.
cluster::ClusterConfig DynlibConfig();

// Protocol, rpc, sockets and the log are one event loop's; checkpoints and trees have threads.
//
// Threads: one that may block. Destroying it is the end of a process: nothing is synced.
class DynlibMember {
 public:
  // `transport` is given the loop to run on.
  using MakeTransport = std::function<absl::StatusOr<std::unique_ptr<Transport>>(EventLoop*)>;
  static absl::StatusOr<std::unique_ptr<DynlibMember>> Start(NodeId id,
                                                             const std::filesystem::path& folder,
                                                             const MakeTransport& make_transport);
  ~DynlibMember();

 private:
  DynlibMember() = default;

  const SystemClock clock_;
  EventLoop loop_{{.name = "main"}};
  std::unique_ptr<PosixDisk> disk_;
  std::unique_ptr<Transport> transport_;
  ThreadExecutor checkpoint_{{.name = "checkpoint"}};
  ThreadExecutor apply_{{.name = "apply"}};
  std::unique_ptr<cluster::StorageNode> node_;
};

// A transport of node `self` on the loop, among nodes 1 to 3, whose ports come first, and the
// client, whose port is the last.
absl::StatusOr<std::unique_ptr<Transport>> LoopbackTransport(NodeId self,
                                                             const std::vector<int>& ports,
                                                             EventLoop* loop);

// The command line that makes this program a member: for ChildProcess.
std::vector<std::string> MemberArguments(NodeId id, const std::filesystem::path& folder,
                                         const std::vector<int>& ports);

// First in main: if this process was started with MemberArguments, serves until it is killed and
// never returns.
void ServeIfMember(int argc, char** argv);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_DYNLIB_MEMBER_H_
