// What a storage node and its partitions may do a second, and when a partition counts as hot.
#ifndef DYNLIB_CLUSTER_NODE_ADMISSION_OPTIONS_H_
#define DYNLIB_CLUSTER_NODE_ADMISSION_OPTIONS_H_

#include <chrono>

#include "absl/status/status.h"
#include "dynlib/admission/heat.h"
#include "dynlib/base/time.h"

namespace dynlib::cluster {

struct NodeAdmissionOptions {
  // Off: nothing is throttled. What requests cost is counted all the same.
  bool enabled = true;
  // Of each partition, in read and write units a second: [0.0001, 400,000,000]. A partition takes
  // writes and strong reads at its leader, eventual reads at every storage replica, each within
  // these bounds.
  double partition_read_units = 3000;
  double partition_write_units = 1000;
  // A partition saves up what it does not use, for so many seconds: [1, 3600].
  double burst_seconds = 300;
  // Of the node in all: [0.0001, 400,000,000]. Only what exceeds a partition's own bound waits for
  // them.
  double node_read_units = 100'000;
  double node_write_units = 100'000;
  // Nodes that have replicas of one partition tell one another what they have left: 100 ms to 1
  // min.
  Duration peers_interval = std::chrono::seconds(1);
  // A split for heat is advised when a request was throttled so lately: 1 s to 10 min.
  Duration hot_for = std::chrono::seconds(10);
  // The heat of the partitions that the node leads. Only hashes of partition keys are told apart,
  // since a partition is split nowhere else.
  admission::HeatOptions heat = {.key_bytes_max = 8, .window = std::chrono::seconds(10)};
};

// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const NodeAdmissionOptions& options);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_NODE_ADMISSION_OPTIONS_H_
