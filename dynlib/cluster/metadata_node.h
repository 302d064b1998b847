// A metadata node: the whole partition map in memory, asked by routers, told by storage nodes, and
// kept in step with the other metadata nodes (MemDS of Elhemali et al., "Amazon DynamoDB", USENIX
// ATC 2022, section 4.1).
//
//   DYNLIB_ASSIGN_OR_RETURN(auto node, MetadataNode::Create(
//       {.id = NodeId{901}}, config,
//       {.transport = &transport, .clock = &clock, .executor = &main}));
//   ... node->rpc()->Handle(...);   // other services of the process, on the same channel
//
// A node that starts has what its last snapshot had, if it has a disk; asks its peers at once for
// what it lacks; and hears all of it again from the storage nodes within a push period. Until
// either of the two is done it answers what it knows, and does not claim that something is absent:
// it answers UNAVAILABLE, and routers go by what another says. A peer vouches for it only when that
// peer is ready itself, so metadata nodes that all start together wait out `warm_up` (map.warm_up:
// more than two push periods).
//
// What it answers (messages of cluster.proto, methods of service.h):
//   kLookUp, kDescribeTable   OK; NOT_FOUND: there is none; UNAVAILABLE: not known here, and this
//                             node may not know everything yet
//   kLookUpBatch              up to 1,000 look-ups at once, each answered so
//   kPush                     OK, also when some records are older than what is held; INVALID_
//                             ARGUMENT when one does not parse or is refused (the others count).
//                             The incarnation in the reply is new when the node has forgotten all
//   kMetadataSync             one exchange of a session that another metadata node leads
//   kMetadataStatus           counts, the digest of the whole map, and how stale it may be
//
// It also serves global admission control (gac_service.h): kAdmissionReport, by routers.
//
// Constant work: each sync_interval, whatever changed, one session with the next peer in turn.
//
// Counted: "metadata.look_ups", "metadata.describes", "metadata.pushes", "metadata.records"
// (pushed), "metadata.records_refused", "metadata.malformed", "metadata.syncs",
// "metadata.syncs_failed", "metadata.snapshots", "metadata.snapshots_failed",
// "metadata.snapshots_unusable", "gac.reports", "gac.refused".
//
// Threads: everything on `executor`, which never blocks here. Ownership: transport, clock, executor
// and metrics outlive it.
#ifndef DYNLIB_CLUSTER_METADATA_NODE_H_
#define DYNLIB_CLUSTER_METADATA_NODE_H_

#include <chrono>
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/gac_server.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/partition_map/memds.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::cluster {

inline constexpr size_t kMetadataNodesMax = 16;

struct MetadataNodeOptions {
  NodeId id{};  // one of the configuration's metadata_nodes
  Rpc::Options rpc;
  partition_map::MemDsOptions map;
  admission::GacServer::Options admission;                 // generation 0: taken from the clock
  Duration sync_interval = std::chrono::seconds(1);        // 1 ms to 10 min
  Duration sync_timeout = std::chrono::milliseconds(500);  // of one exchange; 1 ms to 10 min
  // How often the map is saved, if there is a disk. 1 s to 1 d.
  Duration snapshot_interval = std::chrono::minutes(5);
};
// kInvalidArgument naming the field, its value and what is allowed. What `map` and `admission`
// allow is checked by Create.
absl::Status Validate(const MetadataNodeOptions& options);

class MetadataNode {
 public:
  struct Environment {
    Transport* transport = nullptr;
    const Clock* clock = nullptr;
    Executor* executor = nullptr;
    MetricsSink* metrics = MetricsSink::None();
    // To start from a snapshot, and to save one now and then; both or none. Create blocks on the
    // disk, and is called on the executor of the disk then; without a disk on `executor`.
    Disk* disk = nullptr;
    Executor* disk_executor = nullptr;
  };

  // Serves from then on. kInvalidArgument: an option, or a configuration that does not name it. A
  // snapshot that is damaged or cannot be read is counted, and the node starts without it.
  static absl::StatusOr<std::unique_ptr<MetadataNode>> Create(const MetadataNodeOptions& options,
                                                              const ClusterConfig& config,
                                                              const Environment& environment);
  ~MetadataNode();

  // For more methods on the same channel. It lives as long as the node.
  Rpc* rpc();
  // May say of what it does not have that there is none.
  bool ready() const;
  partition_map::MemDsStatus status() const;

 private:
  class Impl;
  explicit MetadataNode(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_METADATA_NODE_H_
