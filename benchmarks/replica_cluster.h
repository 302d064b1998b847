// Nodes of the replication block in this process, one after the other of which is killed, hung and
// started again, and a writer that notes when its writes are acknowledged.
#ifndef DYNLIB_BENCHMARKS_REPLICA_CLUSTER_H_
#define DYNLIB_BENCHMARKS_REPLICA_CLUSTER_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "benchmarks/replica_node.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/local/local_network.h"

namespace dynlib::bench {

// Node i of a cluster, counted from 0, is NodeId{i + 1}; its replica of each group is i + 1.
//
// Threads: one; but Propose, from any.
class ReplicaCluster {
 public:
  explicit ReplicaCluster(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Adds a node with what is in its folder, and groups 1 to `groups` as `setup` says.
  absl::Status StartNode(size_t node, uint64_t groups,
                         const std::function<replication::GroupSetup(size_t node)>& setup);
  void Kill(size_t node);
  bool Up(size_t node) const { return At(node) != nullptr; }
  // Of a node that is up.
  ReplicaNode& Node(size_t node) { return *At(node); }
  size_t size() const { return nodes_.size(); }
  CountingMetrics& metrics() { return metrics_; }

  std::optional<replication::GroupStatus> Status(size_t node, PartitionId group);
  // The node that leads the group and has settled; waits for it.
  absl::StatusOr<size_t> AwaitLeader(PartitionId group, double seconds = 20);
  // Until the node follows and holds all that was chosen when it was asked.
  absl::Status AwaitCaughtUp(size_t node, PartitionId group, double seconds = 20);
  // As if every node had just made its state machine durable: the log up to there is released.
  void Checkpoint(PartitionId group);
  // Elections of all groups by cause, those that were, and events of nodes' logs: for who finds
  // more than there should be.
  std::string Elections();

  // Waits for the answer, but not for ever: kDeadlineExceeded after `timeout`.
  replication::ProposalResult Propose(size_t node, PartitionId group, replication::Command command,
                                      std::chrono::milliseconds timeout);

 private:
  std::shared_ptr<ReplicaNode> At(size_t node) const;

  const std::filesystem::path folder_;
  LocalNetwork network_{{}};
  CountingMetrics metrics_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<ReplicaNode>> nodes_;  // Guarded by mutex_.
};

// Writes to one group, one write after the other, wherever its leader is: goes where it is sent,
// and else from node to node.
class ProbingWriter {
 public:
  ProbingWriter(ReplicaCluster* cluster, PartitionId group);
  ~ProbingWriter();

  // Until a write was acknowledged that began after `since_ns`; the longest time between two
  // acknowledgements that followed one another, from the last one before `since_ns` on.
  absl::StatusOr<double> SecondsWithoutWrites(uint64_t since_ns, double give_up_after_s = 20);

 private:
  void Run();
  void WriteOne(uint64_t sequence);

  ReplicaCluster* const cluster_;
  const PartitionId group_;
  std::atomic<bool> stop_{false};
  size_t target_ = 0;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  uint64_t last_began_ns_ = 0;
  std::vector<uint64_t> acknowledged_ns_;
  std::thread thread_;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_REPLICA_CLUSTER_H_
