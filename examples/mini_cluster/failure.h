// The mixed load with a failure in it: a node that leads a partition loses its power and comes
// back.
//
// Threads: one that may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_FAILURE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_FAILURE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/mini_cluster.h"
#include "examples/mini_cluster/mixed_load.h"

namespace dynlib::mini_cluster {

struct FailureReport {
  NodeId node{};
  PartitionId partition{};  // that it led
  Duration unavailable{};   // the longest time between acknowledged writes of that partition
  Duration down{};          // how long the node was without power
  Duration caught_up{};     // from its power's return until it had all that was chosen
  MixedLoad::Report load;
};

// Runs the load for at least `duration`, with the failure in the middle.
absl::StatusOr<FailureReport> FailUnderLoad(MiniCluster& cluster, Client& client,
                                            const cluster::TableInfo& table,
                                            std::vector<SampleItem> sample,
                                            const MixedLoad::Options& options, Duration duration);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_FAILURE_H_
