// Runs a command and passes its output on, line by line.
//
// Threads: one that may block; call it when the process has no other threads that hold locks.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_PROCESS_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_PROCESS_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace dynlib::mini_cluster {

struct ProcessEnd {
  int exit_status = 0;    // 128 + the signal's number when a signal ended it
  std::string last_line;  // of its standard output
};

// command[0] is a path. `line` is called with each line of standard output but the last.
absl::StatusOr<ProcessEnd> RunProcess(const std::vector<std::string>& command,
                                      absl::FunctionRef<void(const std::string&)> line);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_PROCESS_H_
