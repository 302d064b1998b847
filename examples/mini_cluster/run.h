// What the program does with its options: the run, and the verification that it starts as a
// process of its own.
//
// Threads: the main one.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_H_

#include <string>

#include "absl/status/statusor.h"
#include "examples/mini_cluster/run_options.h"

namespace dynlib::mini_cluster {

// The last line of the program's output, "OK: ..." or "FAILED: ..."; an error is a failure too.
// Everything before goes to stdout, progress to stderr.
absl::StatusOr<std::string> Run(const RunOptions& options);

// Reads the directory of an earlier run and compares it with the data set.
absl::StatusOr<std::string> RunVerification(const RunOptions& options);

// The same, but only what options.journal says was acknowledged must be there; what else is there
// must be whole.
absl::StatusOr<std::string> RunJournalVerification(const RunOptions& options);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_H_
