// What goes wrong in a simulated world, and how often: one plain struct, all zero = nothing.
//
//   World world(seed, {.network_loss = 0.01, .crashes_per_minute = 4});
//   World swarm(seed, RandomFaults(seed));
//
// Probabilities are per event (message, disk call) in [0, 1]. Rates are means over the whole
// cluster, in virtual time, and only fire while a FaultInjector runs. Durations are uniform in
// [min, max].
#ifndef DYNLIB_SIM_FAULTS_H_
#define DYNLIB_SIM_FAULTS_H_

#include <cstdint>

#include "absl/status/status.h"

namespace dynlib::sim {

struct FaultOptions {
  // Network, per message. The delay comes on top of the 100 us that every message takes; messages
  // between two nodes stay in order unless repeated or reordered.
  double network_loss = 0;
  double network_repeat = 0;
  double network_reorder = 0;
  int64_t network_reorder_us_max = 0;  // a reordered message or a repeat is late by up to this much
  int64_t network_delay_us_min = 0;
  int64_t network_delay_us_max = 0;

  // Partitions: a random set of nodes cut off from the rest, both ways or one way.
  double partitions_per_minute = 0;
  double one_way_partitions_per_minute = 0;
  int64_t partition_ms_min = 0;
  int64_t partition_ms_max = 0;

  // Disk. The latency comes on top of what a healthy call takes (20 us, a sync 200 us).
  int64_t disk_latency_us_min = 0;
  int64_t disk_latency_us_max = 0;
  double disk_eio = 0;          // a read, write or metadata call fails with kDataLoss
  double disk_failed_sync = 0;  // a Sync fails; a random part of what it covered is durable
  // What the page cache holds after a failed sync: false, what is durable; true, what was written,
  // marked clean, so that later syncs succeed without writing it (Linux's ext4 and xfs).
  bool disk_failed_sync_keeps_cache = false;
  // At power-off, beside "all unsynced writes lost" and "none lost":
  bool disk_torn_writes = false;        // a prefix of the unsynced writes, the last one torn
  bool disk_reorders_unsynced = false;  // any subset of the unsynced sectors
  double disk_bit_flips_per_minute = 0;
  double disk_misdirected_writes_per_minute = 0;
  double disk_stalls_per_minute = 0;
  int64_t disk_stall_ms_min = 0;
  int64_t disk_stall_ms_max = 0;
  double disk_full_per_minute = 0;  // no new space for a while
  int64_t disk_full_ms_min = 0;
  int64_t disk_full_ms_max = 0;

  // Object store: a call fails with kUnavailable; half of such Puts took place.
  double object_store_error = 0;

  // Clock. Each node's rate is off by a constant within +-drift; its wall clock by up to the skew.
  int64_t clock_drift_ppm_max = 0;
  int64_t clock_wall_skew_ms_max = 0;
  // A node's executors do not run for a while; its clock goes on.
  double pauses_per_minute = 0;
  int64_t pause_ms_min = 0;
  int64_t pause_ms_max = 0;

  // Nodes: the process dies (the kernel keeps what was written), or the power fails (unsynced
  // writes meet their fate). Restarted after `down`.
  double crashes_per_minute = 0;
  double power_offs_per_minute = 0;
  int64_t down_ms_min = 0;
  int64_t down_ms_max = 0;
};

// kInvalidArgument naming the field, its value and its range.
absl::Status Validate(const FaultOptions& options);

// Swarm testing (Groce et al., 2012): the seed switches each kind on or off and chooses how much of
// it, so that runs differ in kind and not in degree alone. Drift stays within
// `clock_drift_ppm_bound`, which is what the code under test declares.
FaultOptions RandomFaults(uint64_t seed, int64_t clock_drift_ppm_bound = 200);

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_FAULTS_H_
