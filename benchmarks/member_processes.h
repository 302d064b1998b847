// What the clusters of a benchmark share: processes of one machine that talk over its loopback
// address.
#ifndef DYNLIB_BENCHMARKS_MEMBER_PROCESSES_H_
#define DYNLIB_BENCHMARKS_MEMBER_PROCESSES_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace dynlib::bench {

// Ports of the loopback address that nobody listened on a moment ago: all are held at once, so they
// differ.
absl::StatusOr<std::vector<int>> FreePorts(int count);

// "127.0.0.1:port".
std::string LoopbackAddress(int port);

// The last 2,000 bytes of a file; empty if it cannot be read.
std::string Tail(const std::filesystem::path& path);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_MEMBER_PROCESSES_H_
