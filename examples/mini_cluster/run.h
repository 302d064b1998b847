// What the program does with its options: the run, and the verification that it starts as a
// process of its own.
//
// Threads: the main one.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "examples/mini_cluster/data_set.h"

namespace dynlib::mini_cluster {

struct RunOptions {
  std::string directory;
  uint64_t nodes = 3;
  uint64_t partitions = 4;  // of the data set's table
  DataSetOptions data;
  uint64_t seed = 1;
  uint64_t in_flight = 256;  // writes of the load, 1 to 4,000
  uint64_t mixed_load_seconds =
      6;                // at least, with the failure in it; 0: no mixed load, no failure
  bool reload = false;  // write all items even if they are there
  bool verify = true;
  std::string journal;        // empty: none
  std::string counters_file;  // for a verification: what the counters must be; empty: not checked
  MetricsSink* metrics = MetricsSink::None();
  // How to start this program for the verification: itself, and its arguments.
  std::vector<std::string> command;
};

// The last line of the program's output, "OK: ..." or "FAILED: ..."; an error is a failure too.
// Everything before goes to stdout, progress to stderr.
absl::StatusOr<std::string> Run(const RunOptions& options);

// Reads the directory of an earlier run and compares it with the data set.
absl::StatusOr<std::string> RunVerification(const RunOptions& options);

// The same, but only what options.journal says was acknowledged must be there; what else is there
// must be whole.
absl::StatusOr<std::string> RunJournalVerification(const RunOptions& options);

// Powers off the disks of all nodes after that time, counted from the call, and ends the process
// with status kPoweredOffStatus.
inline constexpr int kPoweredOffStatus = 42;
void PowerOffAfter(uint64_t milliseconds);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_H_
