// A whole cluster in one process: storage nodes in three zones, on real files with real syncs, each
// on a disk that can lose what was not synced; and metadata nodes, one a zone, in memory.
//
//   DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<MiniCluster> cluster,
//                           MiniCluster::Start({.directory = "data", .nodes = 9}));
//   Client client(cluster.get(), NodeId{1000}, options);
//   ...
//   cluster->PowerOff(NodeId{2});                       // unsynced writes are gone
//   DYNLIB_RETURN_IF_ERROR(cluster->Restart(NodeId{2}));
//   DYNLIB_RETURN_IF_ERROR(cluster->Stop());            // checkpoints, and a clean end
//
// Node i keeps its files in `<directory>/node-<i>`. Each has four threads: one for the protocol,
// which never waits for a file, and one each for the log, for checkpoints, and for applying and
// reading. A metadata node has one. Destroying the cluster without Stop is the end of a process:
// nothing is synced.
//
// Threads: one, which may block; PowerOffAll from any.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_MINI_CLUSTER_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_MINI_CLUSTER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/local/local_network.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "examples/mini_cluster/switches.h"

namespace dynlib::mini_cluster {

// What one partition may serve a second before it is throttled. The loads of the demonstration on
// the data set stay below, those on its hot partition do not.
inline constexpr double kPartitionReadUnits = 4000;
inline constexpr double kPartitionWriteUnits = 20'000;

struct ClusterOptions {
  std::string directory;
  size_t nodes = 9;           // storage nodes: a multiple of 3, up to 30
  size_t metadata_nodes = 3;  // 0 to 3
  uint64_t seed = 1;          // of election jitter
  Switches switches = {};     // blocks that do their work
};

class MiniCluster {
 public:
  // Makes what is missing, recovers what is there, and starts every node.
  static absl::StatusOr<std::unique_ptr<MiniCluster>> Start(
      const ClusterOptions& options, MetricsSink* metrics = MetricsSink::None());
  ~MiniCluster();

  const cluster::ClusterConfig& config() const { return config_; }
  LocalNetwork* network() { return &network_; }
  const Clock* clock() const { return &clock_; }

  // Of storage nodes.
  void PowerOff(NodeId node);
  absl::Status Restart(NodeId node);
  bool IsUp(NodeId node) const { return nodes_.contains(node); }
  // Writes what the node's trees hold to its page file.
  absl::Status Checkpoint(NodeId node);
  // The page file, for damage.
  std::string PagesPath(NodeId node) const;

  // All metadata nodes at once. They forget everything.
  void StopMetadata();
  absl::Status StartMetadata();

  // Every disk at once; the nodes are left to find out. For what ends the process right after.
  void PowerOffAll();

  // Stops the nodes that are up. The first thing that went wrong.
  absl::Status Stop();

 private:
  class Node;
  class Metadata;

  MiniCluster(const ClusterOptions& options, MetricsSink* metrics);

  const ClusterOptions options_;
  MetricsSink* const metrics_;
  const SystemClock clock_;
  const cluster::ClusterConfig config_;
  LocalNetwork network_;
  std::mutex mutex_;  // taken by who changes nodes_, and by PowerOffAll
  std::map<NodeId, std::unique_ptr<Node>> nodes_;  // those that are up
  std::vector<std::unique_ptr<Metadata>> metadata_;
};

absl::Status ValidateNodes(size_t nodes);

// Three zones; node i is in zone i mod 3, each with a rack and a power feed of its own.
cluster::ClusterConfig ConfigOf(size_t nodes, size_t metadata_nodes);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_MINI_CLUSTER_H_
