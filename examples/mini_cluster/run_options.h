// What a run is to do.
//
// Threads: values.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_OPTIONS_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "examples/mini_cluster/data_set.h"
#include "examples/mini_cluster/events.h"
#include "examples/mini_cluster/switches.h"

namespace dynlib::mini_cluster {

struct RunOptions {
  std::string directory;
  uint64_t nodes = 9;
  uint64_t partitions = 4;  // of the data set's table
  DataSetOptions data;
  uint64_t seed = 1;
  uint64_t in_flight = 256;  // writes of the load, 1 to 4,000
  // How long the figures of the stages are measured, in all about; 0: neither a mixed load nor
  // stages.
  uint64_t mixed_load_seconds = 6;
  Stages stages;
  Switches switches;
  bool reload = false;  // write all items even if they are there
  bool verify = true;
  std::string journal;        // empty: none
  std::string counters_file;  // for a verification: what the counters must be; empty: not checked
  Events* events = nullptr;   // what the cluster reports
  // How to start this program for the verification: itself, and its arguments.
  std::vector<std::string> command;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_RUN_OPTIONS_H_
