// A storage node: replicas of partitions on one disk, served over rpc.
//
//   StorageNode::Environment environment{.disk = &disk, .transport = &transport, .clock = &clock,
//                                        .executor = &main, .log_executor = &log,
//                                        .checkpoint_executor = &checkpoint, .apply_executor =
//                                        &apply, .metrics = metrics};
//   auto node = StorageNode::Open(options, config, environment);   // blocking: reads what is on
//   the disk
//   (*node)->Start([](absl::Status status) { ... });
//   ...
//   (*node)->Stop([] { ... });   // answers everything, then writes a clean end
//
// On the disk: `LOCK`, `FORMAT`, the log's folder `log`, the page file `pages`. The log that the
// groups replicate is the write-ahead log of the trees: a commit costs one sync on each replica,
// whatever partitions it belongs to.
//
// Executors: `executor` runs the protocol and rpc and never blocks; the other three run code that
// may wait for files, each on a thread (or simulated stack) of its own: the log's writer,
// checkpoints, and applying and reading.
//
// Errors of Open: kAlreadyExists (another process has the directory), kFailedPrecondition (another
// node's directory, or another format version), kDataLoss (damage that cannot be told apart from
// lost promises: the node must rejoin under a new id, rule R3), kInvalidArgument (options), and
// what the disk says. Nothing on the disk is touched then.
//
// Threads: Open where file calls are allowed; everything else on `executor`. Destroy it after
// Stop's callback, or, as in a crash, once its executors run no more.
#ifndef DYNLIB_CLUSTER_STORAGE_NODE_H_
#define DYNLIB_CLUSTER_STORAGE_NODE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/auto_admin.h"
#include "dynlib/cluster/metadata_push.h"
#include "dynlib/cluster/node_admission_options.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/scrubber.h"
#include "dynlib/cluster/split_faults_for_test.h"
#include "dynlib/cluster/tree_copier.h"
#include "dynlib/cluster/tree_copy_service.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/page_file.h"

namespace dynlib::cluster {

// Known-bad variants, so that the checkers can be checked (rule S3). All off unless a test sets
// them.
struct ClusterFaultsForTest {
  bool condition_at_leader = false;    // R10: the leader decides a condition before it is logged.
  bool checkpoint_before_log = false;  // L4: the log is released before the tree is durable.
  bool copies_unpinned = false;        // A copy's chunks are of whatever is newest by then.
  SplitFaultsForTest split;
};

// Storage keys in [first, end); an empty end is none.
struct PartitionRange {
  std::string first;
  std::string end;
};

struct StorageNodeOptions {
  NodeId id{};
  // The cluster is being made: a catalogue node whose directory is empty makes its first replica of
  // the catalogue. To be set until each of them has started once, and never again: a catalogue node
  // whose directory is empty later has lost its votes with its disk, and gets a replica under a new
  // id from the others (rule R3; event "node.without_catalogue"). Without effect on other nodes and
  // directories.
  bool new_cluster = false;
  replication::HostOptions replication;
  store::NodeLog::Options log;
  store::PageFile::Options pages;
  Rpc::Options rpc;
  // A checkpoint begins when this much was logged, or copied to this node, since the last one, or
  // this much time passed with something logged or copied.
  uint64_t checkpoint_log_bytes = 32 << 20;
  Duration checkpoint_interval = std::chrono::seconds(30);
  NodeAdmissionOptions admission;
  TreeCopier::Options copier;             // of trees copied to this node
  TreeCopyService::Options copy_service;  // and from it
  // On the nodes of the catalogue: acts while this one leads it. Its router's client is drawn here.
  bool run_auto_admin = true;
  AutoAdminOptions auto_admin;
  ScrubberOptions scrubber;  // beside the auto admin
  MetadataPushOptions push;  // to the cluster's metadata nodes, if it has any
  ClusterFaultsForTest faults;
};

class StorageNode {
 public:
  struct Environment {
    Disk* disk = nullptr;
    Transport* transport = nullptr;
    const Clock* clock = nullptr;
    Executor* executor = nullptr;
    Executor* log_executor = nullptr;
    Executor* checkpoint_executor = nullptr;
    Executor* apply_executor = nullptr;
    MetricsSink* metrics = MetricsSink::None();
  };

  // Creates the directory's contents when it is empty. All of `environment` outlives the node.
  static absl::StatusOr<std::unique_ptr<StorageNode>> Open(const StorageNodeOptions& options,
                                                           const ClusterConfig& config,
                                                           const Environment& environment);
  ~StorageNode();

  // Takes part in its groups and serves. Not OK: it does neither.
  void Start(absl::AnyInvocable<void(absl::Status)> done);

  // Called once, when the node cannot go on: its log or page file closed after a failed write or
  // sync (rule L3). A damaged tree is no reason: its replica alone fails, and the auto admin
  // replaces it. Destroy the node and open it again; set this
  // before Start.
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback);

  // Every request that waits is answered, a last checkpoint taken, the log closed. `done` says how
  // that went.
  void Stop(absl::AnyInvocable<void(absl::Status)> done);

  // Writes what the trees hold beyond the last checkpoint. Also runs by itself.
  void Checkpoint(absl::AnyInvocable<void(absl::Status)> done);

  std::vector<replication::GroupStatus> Groups() const;
  // Compares the replicas of a partition, or of all for PartitionId{0}, and repairs what differs:
  // see scrubber.h. Where no scrubber is: kFailedPrecondition.
  void ScrubNow(PartitionId partition, absl::AnyInvocable<void(ScrubResult)> done);
  // The storage keys of a partition that is here; empty strings for one that is not.
  PartitionRange RangeOf(PartitionId partition) const;

 private:
  class Impl;
  explicit StorageNode(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_STORAGE_NODE_H_
