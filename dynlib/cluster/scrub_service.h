// A storage node's part in scrubs: logs markers where it leads, answers for the versions pinned at
// them, and repairs its own copies.
//
//   kScrubMark    the leader proposes a marker; the answer has its slot
//   kScrubDigest  digests of the pinned version, read from disk: what went bad under a good copy in
//                 memory is found
//   kScrubRead    items of the pinned version, for repairs
//   kRepair       replaces what is wrong or damaged here by what another node pinned
//   (tree_repair.h)
// All may be repeated. UNAVAILABLE: later; NOT_FOUND: there is no such version (any more), so the
// scrub begins anew with another marker.
//
// A copy that cannot be repaired in place, since a page of its own records is lost or the loss is
// too large, is reported as failed: the auto admin then replaces the replica under a new id, with a
// copy of another's tree. Until then it votes on; a leader hands over.
//
// Counted: "scrub.digests", "scrub.bytes_read", "scrub.metadata_repaired". Event:
// "node.replica_damaged" {node, partition, replica, why}, when it is to be replaced.
//
// Internal to the cluster.
//
// Threads: everything on the node's executor.
#ifndef DYNLIB_CLUSTER_SCRUB_SERVICE_H_
#define DYNLIB_CLUSTER_SCRUB_SERVICE_H_

#include <chrono>
#include <cstddef>
#include <memory>
#include <set>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/cluster/replica_set.h"
#include "dynlib/cluster/tree_repair.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class ScrubService : public std::enable_shared_from_this<ScrubService> {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  static constexpr Duration kPinIdle = std::chrono::minutes(2);
  static constexpr size_t kReadsMax = 16;  // at a time
  static constexpr Duration kCallTimeout = std::chrono::seconds(5);
  static constexpr int kCallAttempts = 4;

  struct Parts {
    NodeId self{};
    ReplicaSet* replicas = nullptr;
    replication::GroupHost* host = nullptr;
    Executor* executor = nullptr;
    Executor* file_executor = nullptr;
    Executor* apply_executor = nullptr;
    const Clock* clock = nullptr;
    MetricsSink* metrics = nullptr;
    // Makes everything in the page file durable.
    absl::AnyInvocable<void(Done)> checkpoint;
    // Something about the partition's replica here changed.
    absl::AnyInvocable<void(PartitionId)> changed;
  };

  explicit ScrubService(Parts parts) : parts_(std::move(parts)) {}

  // `rpc` is used until Stop.
  void Register(Rpc* rpc);
  // Lets go of all versions; requests that wait are answered with CANCELLED.
  void Stop();

 private:
  // A repair under way.
  struct Repairing {
    std::shared_ptr<Replica> replica;
    uint64_t scrub = 0;
    NodeId source{};
    TreeRepair repair;
    size_t next_range = 0;  // of what it wants
    size_t asked = 0;       // ranges, from there on
    std::string next_first;
    int failures = 0;
    Rpc::Reply reply;
  };
  using RepairPtr = std::shared_ptr<Repairing>;

  template <typename Request, typename Reply>
  void Handle(Rpc::Method method,
              void (ScrubService::*handler)(const Request&, Instant deadline, Rpc::Reply));
  void Mark(const wire::ScrubMarkRequest& request, Instant deadline, Rpc::Reply reply);
  void Digest(const wire::ScrubDigestRequest& request, Instant deadline, Rpc::Reply reply);
  void Read(const wire::ScrubReadRequest& request, Instant deadline, Rpc::Reply reply);
  void Repair(const wire::RepairRequest& request, Instant deadline, Rpc::Reply reply);

  absl::StatusOr<std::shared_ptr<Replica>> Find(uint64_t partition) const;
  absl::StatusOr<store::Snapshot> FindVersion(Replica& replica, uint64_t scrub, Slot marker) const;
  absl::Status BeginRead();
  void CheckMetadata(std::shared_ptr<Replica> replica);
  void RepairMetadata(std::shared_ptr<Replica> replica);
  void Fetch(RepairPtr repair);
  void OnRows(RepairPtr repair, absl::StatusOr<std::string> result);
  void Apply(RepairPtr repair);
  void OnApplied(RepairPtr repair, TreeRepair::Outcome outcome);
  void EndRepair(RepairPtr repair, const TreeRepair::Outcome& outcome);
  void Rebuild(Replica& replica, const absl::Status& why);
  void SweepPins();

  Parts parts_;
  Rpc* rpc_ = nullptr;
  size_t reads_ = 0;
  size_t waiting_ = 0;  // requests, for the marker to be applied
  std::set<PartitionId> repairing_;
  Executor::TimerId timer_ = Executor::kNoTimer;
  bool stopped_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SCRUB_SERVICE_H_
