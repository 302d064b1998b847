// What administrators do to a simulated cluster while faults happen: partitions are split and
// merged, by request to whoever leads them, twice and against one another too; nodes lose their
// power for so long that they are called dead.
#ifndef TESTS_SIM_CLUSTER_EVENTS_H_
#define TESTS_SIM_CLUSTER_EVENTS_H_

#include <functional>
#include <map>
#include <string>

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/sim/world.h"
#include "tests/sim/cluster_load.h"
#include "tests/sim/cluster_simulation.h"
#include "tests/sim/simulated_cluster.h"

namespace dynlib {

// A partition that somebody leads, and who.
struct LedPartition {
  NodeId node{};
  cluster::wire::ReplicaStatus status;
};
// Of one table, by first key; of two that claim to lead, the one that knows the newer members.
// Partitions that ended are not among them.
std::map<std::string, LedPartition> LedPartitions(const ClusterView& view, uint64_t table);

class ClusterEvents {
 public:
  ClusterEvents(const ClusterShape& shape, uint64_t table, SimulatedCluster* cluster,
                ClusterLoad* load, sim::World* world, Random* random)
      : shape_(shape),
        table_(table),
        cluster_(cluster),
        load_(load),
        world_(world),
        random_(random) {}

  void Start();
  void Stop() { running_ = false; }

 private:
  void Repeat(double per_minute, const std::function<void()>& action);
  void Split();
  void SplitOne(const LedPartition& leader);
  void Merge();
  void Outage();

  const ClusterShape shape_;
  const uint64_t table_;
  SimulatedCluster* const cluster_;
  ClusterLoad* const load_;
  sim::World* const world_;
  Random* const random_;
  bool running_ = false;
};

}  // namespace dynlib

#endif  // TESTS_SIM_CLUSTER_EVENTS_H_
