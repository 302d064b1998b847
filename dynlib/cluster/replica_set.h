// The replicas on a storage node: found, made, ended, and taken away.
//
// Each has a tree in the page file, which keeps its description, and a stream in the node log; a
// log replica's tree has no items. A replica comes
//   - with a new partition, or as a learner that its group's leader then feeds: Create;
//   - of a parent whose log ended by a split: the step that applied the end made the children's
//     trees (rule R11), and the group of each is joined here;
//   - of two halves whose logs both ended by a merge: their trees become one here. When the log of
//     one ended otherwise, of the other alone.
// After a restart a child whose tree was not durable yet is made again by the parent's log; what
// the log had of the child itself is kept for it until then.
//
// Threads: Load and MakeDurable block on files, before the node runs; everything else on the node's
// executor.
#ifndef DYNLIB_CLUSTER_REPLICA_SET_H_
#define DYNLIB_CLUSTER_REPLICA_SET_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/cluster/split_faults_for_test.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/cluster/tree_copier.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/page_file.h"

namespace dynlib::cluster {

using ReplicaMap = std::map<PartitionId, std::shared_ptr<Replica>>;

class ReplicaSet : public std::enable_shared_from_this<ReplicaSet> {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  struct Parts {
    NodeId self{};
    store::PageFile* pages = nullptr;
    store::NodeLog* log = nullptr;
    replication::GroupHost* host = nullptr;
    Executor* executor = nullptr;
    Executor* file_executor = nullptr;
    Executor* apply_executor = nullptr;
    MetricsSink* metrics = nullptr;
    // Makes everything in the page file durable.
    absl::AnyInvocable<void(Done)> checkpoint;
    // Something about the partition's replica here changed.
    absl::AnyInvocable<void(PartitionId)> changed;
    SplitFaultsForTest faults;
  };

  explicit ReplicaSet(Parts parts) : parts_(std::move(parts)) {}

  // Reads what every tree of the page file says of its replica, and joins halves that were not
  // joined yet. One whose own records are damaged is not here: to its group the replica is lost;
  // its tree and log stay until another of the partition is made here. Event: "node.replica_lost".
  absl::Status Load();
  // Makes a replica's tree and a checkpoint with it, unless it is there.
  absl::Status MakeDurable(std::string description);
  // Lets every replica take part in its group, with what the log had of it. One that its group's
  // host refuses (kInvalidArgument) has `failed` and is to be replaced; the others go on. Event:
  // "node.replica_lost".
  absl::Status AddGroups(store::NodeLog::Recovery recovery);
  // Learners that are to begin with another's tree need it. Copies that a restart cut go on.
  void SetCopier(TreeCopier* copier);

  // Makes a replica and lets it take part once it is durable: a vote of a replica that is forgotten
  // would be a lost vote (rule R3). A storage learner copies a tree first, which goes on after
  // `done`. OK again for the same replica.
  // Asked again it may learn that the log begins later than was said: then a copy of an older
  // version is begun anew, into what is there.
  //   kInvalidArgument  the description, or it does not name this node
  //   kAlreadyExists    the partition is here with another description
  //   kUnavailable      it is being made, or dropped
  //   kCancelled        stopped meanwhile
  void Create(const std::string& description, Done done);

  // Takes a replica away, tree, log and all. OK if it is not here.
  //   kFailedPrecondition  it may still be needed: it is a member as far as it knows, and `force`
  //   is
  //                        not set; or its log ended, and the successors are not durable yet
  //   kUnavailable         it is being made, or dropped
  void Drop(PartitionId partition, ReplicaId replica, bool force, Done done);

  std::shared_ptr<Replica> Find(PartitionId partition) const;
  // The replica that has the items of a key, successors of ended ones included.
  std::shared_ptr<Replica> FindKey(TableId table, std::string_view storage_key) const;
  const ReplicaMap& replicas() const { return replicas_; }

  void Stop() { stopped_ = true; }

 private:
  absl::StatusOr<std::shared_ptr<Replica>> LoadReplica(store::Tree* tree);
  absl::StatusOr<std::shared_ptr<Replica>> MakeTree(std::string description);
  absl::Status FinishCreate(absl::StatusOr<std::shared_ptr<Replica>> made, PartitionId partition);
  void StartCopy(std::shared_ptr<Replica> replica);
  void FinishCopy(std::shared_ptr<Replica> replica, absl::StatusOr<uint64_t> position);
  absl::Status AddGroup(const std::shared_ptr<Replica>& replica, bool booting = false);
  void AddLoaded(absl::StatusOr<std::shared_ptr<Replica>> replica, PartitionId partition);
  void EnableEnd(Replica& replica);
  void OnEnded(PartitionId partition, wire::EndRecord record);
  void AddHeirs(const Replica& ended);
  void FinishMerges(PartitionId half);
  absl::Status MakeMerged(const Replica& half, const Replica& other) const;
  bool IsAwaited(const Replica& half) const;
  absl::Status MayDrop(const Replica& replica, bool force) const;
  void MakeHeirsDurable(PartitionId partition);
  void DropTree(std::shared_ptr<Replica> replica, Done done);
  void Event(std::string_view name, const Replica& replica, std::string_view why = {}) const;

  Parts parts_;
  TreeCopier* copier_ = nullptr;
  ReplicaMap replicas_;
  std::set<PartitionId> busy_;                        // being made, joined or dropped
  std::map<PartitionId, TreeCopier::CopyId> copies_;  // under way
  std::set<PartitionId> durable_ends_;                // both checkpoints have what came of them
  store::NodeLog::Recovery recovery_;                 // of replicas that are not here yet
  bool stopped_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_REPLICA_SET_H_
