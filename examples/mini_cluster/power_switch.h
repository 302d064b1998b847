// A cluster that a timer can cut the power of, wherever the program is then.
//
// Threads: PowerOffAfter from any; a PoweredCluster as MiniCluster. One at a time in a process.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_POWER_SWITCH_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_POWER_SWITCH_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "examples/mini_cluster/mini_cluster.h"

namespace dynlib::mini_cluster {

class PoweredCluster {
 public:
  static absl::StatusOr<std::unique_ptr<PoweredCluster>> Start(const ClusterOptions& options,
                                                               MetricsSink* metrics);
  ~PoweredCluster();
  MiniCluster& operator*() { return *cluster_; }
  MiniCluster* operator->() { return cluster_.get(); }

 private:
  explicit PoweredCluster(std::unique_ptr<MiniCluster> cluster);
  const std::unique_ptr<MiniCluster> cluster_;
};

// Powers off the disks of all nodes after that time, counted from the call, and ends the process
// with status kPoweredOffStatus.
inline constexpr int kPoweredOffStatus = 42;
void PowerOffAfter(uint64_t milliseconds);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_POWER_SWITCH_H_
