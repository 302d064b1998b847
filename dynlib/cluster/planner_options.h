// When the auto admin splits and merges partitions, and how much it moves at a time.
//
// Threads: values.
#ifndef DYNLIB_CLUSTER_PLANNER_OPTIONS_H_
#define DYNLIB_CLUSTER_PLANNER_OPTIONS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace dynlib::cluster {

struct PlannerOptions {
  uint64_t split_bytes = 1ull << 30;  // a partition larger than this is split; at least 64 KiB
  // Neighbours that together hold less than this, and serve less than merge_units a second, are
  // merged; 0: never. At most a quarter of split_bytes.
  uint64_t merge_bytes = 0;
  uint64_t merge_units = 10;
  bool split_for_heat = true;
  // A lost replica is covered by a log replica while its tree is copied (rule R9). Off: commits are
  // on one disk less until the copy is there; to compare with.
  bool log_replicas = true;
  // Partitions whose members are being changed at a time: by copying trees, which takes disks and
  // the network, and to cover a loss by a log replica, which must not wait for that. 1 to 10,000.
  size_t moves_max = 16;
  size_t log_moves_max = 1000;
};
absl::Status Validate(const PlannerOptions& options);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_PLANNER_OPTIONS_H_
