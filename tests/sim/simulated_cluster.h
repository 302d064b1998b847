// The processes of a simulated cluster: storage nodes and metadata nodes that are opened, crash and
// come back, and an observer that asks them what they have.
#ifndef TESTS_SIM_SIMULATED_CLUSTER_H_
#define TESTS_SIM_SIMULATED_CLUSTER_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/metadata_node.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/fault_injector.h"
#include "dynlib/sim/world.h"
#include "tests/sim/cluster_simulation.h"

namespace dynlib {

// What the nodes that answered say of themselves.
using ClusterView = std::map<NodeId, cluster::wire::NodeStatusReply>;

class SimulatedCluster {
 public:
  SimulatedCluster(const SimulationOptions& options, const ClusterShape& shape, sim::World* world,
                   Random* random, MetricsSink* metrics);

  const cluster::ClusterConfig& config() const { return config_; }
  sim::FaultInjector& injector() { return *injector_; }

  // The node's process ends, and another begins soon after.
  void Restart(NodeId node) { injector_->RequestRestart(node); }
  // Without power for `duration`, if as many nodes as may be are not down already.
  void PowerOff(NodeId node, Duration duration);
  // All storage nodes at once.
  void PowerOffAll(sim::UnsyncedFate fate);

  // A slot for which replicas learned different values, or nothing. All replicas of all partitions
  // count, log replicas too, over all their boots.
  const std::string& Disagreement() const { return disagreement_; }

  bool AllUp() const;
  // Its disk is damaged beyond what a node may go on with (R3); it stays down.
  bool IsDead(NodeId node) const { return storage_.at(node).dead; }
  bool AnyDead() const;
  std::vector<NodeId> StorageNodes() const;
  const std::string& ZoneOf(NodeId node) const;
  // Why not every node is up and which groups they have, for people.
  std::string Describe() const;

  // Asks every node that is up; those that do not answer soon are left out.
  void Observe(std::function<void(ClusterView)> done);
  // Asks one node for something; `done` gets the encoded reply.
  void Call(NodeId node, Rpc::Method method, std::string request,
            std::function<void(absl::StatusOr<std::string>)> done);

 private:
  struct Storage {
    sim::Node* node = nullptr;
    std::unique_ptr<cluster::StorageNode> storage;
    bool dead = false;
    bool made = false;      // its directory, and with it the first replica of the catalogue
    int damaged_opens = 0;  // in a row
  };
  struct Metadata {
    sim::Node* node = nullptr;
    std::unique_ptr<cluster::MetadataNode> metadata;
  };

  cluster::StorageNodeOptions NodeOptions(NodeId id);
  void OnChosen(NodeId node, PartitionId partition, Slot slot, std::string_view payload);
  void OnDown(NodeId id);
  void OnRestart(NodeId id);
  void ComeBackIn(Duration duration, NodeId id);
  void OpenStorage(NodeId id);
  void OnOpened(NodeId id, absl::StatusOr<std::unique_ptr<cluster::StorageNode>> opened);
  void OpenMetadata(NodeId id);

  const SimulationOptions& options_;
  const ClusterShape shape_;
  sim::World* const world_;
  MetricsSink* const metrics_;
  cluster::ClusterConfig config_;
  std::map<NodeId, Storage> storage_;
  std::map<NodeId, Metadata> metadata_;
  struct Chosen {
    uint64_t checksum;
    NodeId node;  // that said so first
  };
  std::map<std::pair<PartitionId, Slot>, Chosen> chosen_;
  std::string disagreement_;
  std::unique_ptr<sim::FaultInjector> injector_;
  Executor* observer_executor_ = nullptr;
  std::unique_ptr<Rpc> observer_;
};

}  // namespace dynlib

#endif  // TESTS_SIM_SIMULATED_CLUSTER_H_
