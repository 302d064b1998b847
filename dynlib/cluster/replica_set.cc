#include "dynlib/cluster/replica_set.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {
namespace {

store::TreeId TreeOf(PartitionId partition) { return store::TreeId{ToUint(partition)}; }

// The replica if all went well.
absl::StatusOr<std::shared_ptr<Replica>> If(const absl::Status& status,
                                            std::shared_ptr<Replica> replica) {
  if (!status.ok()) return status;
  return replica;
}

// Of a merge that ended the replica's log; else 0.
PartitionId OtherHalf(const Replica& replica) {
  if (!replica.ended.has_value() || !replica.ended->has_merge()) return PartitionId{0};
  const wire::MergeCommand& merge = replica.ended->merge();
  return PartitionId{PartitionId{merge.left()} == replica.partition ? merge.right() : merge.left()};
}

constexpr int kReadAgain = 2;

absl::Status Busy(PartitionId partition) {
  return absl::UnavailableError(Cat("partition ", partition, " is being made or dropped here"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<Replica>> ReplicaSet::LoadReplica(store::Tree* tree) {
  auto replica = std::make_shared<Replica>(tree);
  DYNLIB_ASSIGN_OR_RETURN(std::string description, TableStateMachine::Describe(*tree));
  if (absl::Status status = ParseDescription(description, parts_.self, *replica); !status.ok()) {
    return absl::DataLossError(Cat("tree ", tree->id(), ": ", ToStd(status.message())));
  }
  DYNLIB_ASSIGN_OR_RETURN(replica->copying, TableStateMachine::IsCopying(*tree));
  DYNLIB_RETURN_IF_ERROR(replica->state_machine.LoadVersion());
  DYNLIB_ASSIGN_OR_RETURN(replica->ended, TableStateMachine::StoredEnd(*tree));
  DYNLIB_ASSIGN_OR_RETURN(std::optional<replication::Configuration> stored,
                          TableStateMachine::StoredConfiguration(*tree));
  if (stored.has_value() && stored->epoch >= replica->configuration.epoch)
    replica->configuration = *std::move(stored);
  return replica;
}

absl::Status ReplicaSet::Load() {
  for (store::TreeId id : parts_.pages->Trees()) {
    absl::StatusOr<std::shared_ptr<Replica>> loaded = LoadReplica(parts_.pages->FindTree(id));
    // A replica is not given up for a device that failed to read for once.
    for (int again = 0; again < kReadAgain && absl::IsDataLoss(loaded.status()); ++again)
      loaded = LoadReplica(parts_.pages->FindTree(id));
    if (absl::IsDataLoss(loaded.status())) {
      // Not the other replicas' fault. Its node has lost it: it says nothing any more, and another
      // replica takes its place, under a new id (rule R3).
      const EventField fields[] = {{"node", Cat(parts_.self)},
                                   {"partition", Cat(id)},
                                   {"why", std::string(ToStd(loaded.status().message()))}};
      parts_.metrics->Event("node.replica_lost", fields);
      continue;
    }
    DYNLIB_RETURN_IF_ERROR(loaded.status());
    std::shared_ptr<Replica> replica = *std::move(loaded);
    replicas_[replica->partition] = std::move(replica);
  }
  const ReplicaMap loaded = replicas_;
  for (const auto& [partition, half] : loaded) {
    const std::shared_ptr<Replica> other = Find(OtherHalf(*half));
    if (other == nullptr || !other->ended.has_value()) continue;
    const store::TreeId merged{half->ended->merge().merged()};
    if (Find(PartitionId{ToUint(merged)}) != nullptr) continue;
    const absl::Status made = MakeMerged(*half, *other);
    if (absl::IsNotFound(made)) continue;  // This node has no part in it.
    DYNLIB_RETURN_IF_ERROR(made);
    DYNLIB_ASSIGN_OR_RETURN(replicas_[PartitionId{ToUint(merged)}],
                            LoadReplica(parts_.pages->FindTree(merged)));
  }
  return absl::OkStatus();
}

absl::Status ReplicaSet::MakeDurable(std::string description) {
  Replica parsed(nullptr);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, parts_.self, parsed));
  if (parts_.pages->FindTree(TreeOf(parsed.partition)) != nullptr) return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(MakeTree(std::move(description)).status());
  return parts_.pages->Checkpoint();
}

absl::Status ReplicaSet::AddGroups(store::NodeLog::Recovery recovery) {
  recovery_ = std::move(recovery);
  for (const auto& [partition, replica] : replicas_) {
    if (replica->copying) {
      // It never had a vote; what the log may have is an earlier replica's.
      TakeStream(recovery_, partition);
      parts_.log->Drop(StreamOf(partition));
      continue;
    }
    const absl::Status added = AddGroup(replica, /*booting=*/true);
    // Something is wrong with the replica, and the node has others.
    if (absl::IsInvalidArgument(added)) {
      replica->failed = added;
      Event("node.replica_lost", *replica, ToStd(added.message()));
    } else {
      DYNLIB_RETURN_IF_ERROR(added);
    }
  }
  return absl::OkStatus();
}

void ReplicaSet::SetCopier(TreeCopier* copier) {
  copier_ = copier;
  if (copier == nullptr) return;
  for (const auto& [partition, replica] : replicas_) {
    if (replica->copying) StartCopy(replica);
  }
}

// When the node starts nobody waits for most of them: they cost little, and elect their leaders,
// until their turn comes or something is asked of them. The catalogue's leader has work to do.
absl::Status ReplicaSet::AddGroup(const std::shared_ptr<Replica>& replica, bool booting) {
  EnableEnd(*replica);
  const bool at_rest = booting && replica->partition != kCataloguePartition;
  const replication::GroupSetup setup{
      .configuration = replica->configuration,
      .self = replica->self,
      .kind = replica->kind,
      .ended = replica->ended.has_value() && replica->tree->position() >= replica->ended->slot(),
      .at_rest = at_rest,
      .wake_in_turn = at_rest,
      .learner = replica->learner};
  return parts_.host->AddGroup(replica->partition, setup, &replica->state_machine,
                               parts_.apply_executor, TakeStream(recovery_, replica->partition));
}

void ReplicaSet::EnableEnd(Replica& replica) {
  replica.state_machine.EnableEnd(
      parts_.pages, parts_.self, replica.kind == replication::MemberKind::kLog,
      [weak = weak_from_this(), executor = parts_.executor,
       partition = replica.partition](const wire::EndRecord& record) {
        executor->Post([weak, partition, record] {
          if (auto self = weak.lock()) self->OnEnded(partition, record);
        });
      },
      parts_.faults);
}

// A tree with its description in it; durable with the next checkpoint.
absl::StatusOr<std::shared_ptr<Replica>> ReplicaSet::MakeTree(std::string description) {
  Replica parsed(nullptr);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, parts_.self, parsed));
  wire::CreateReplicaRequest request;
  DYNLIB_CHECK(request.ParseFromString(description));
  const store::TreeId id = TreeOf(parsed.partition);
  if (parts_.pages->FindTree(id) != nullptr)  // A creation failed midway.
    DYNLIB_RETURN_IF_ERROR(parts_.pages->DropTree(id));
  DYNLIB_ASSIGN_OR_RETURN(store::Tree * tree, parts_.pages->CreateTree(id));
  if (parsed.learner && parsed.kind == replication::MemberKind::kLog) {
    DYNLIB_RETURN_IF_ERROR(TableStateMachine::InitialiseLog(*tree, std::move(description),
                                                            parsed.configuration, request.base()));
  } else if (parsed.learner) {
    DYNLIB_RETURN_IF_ERROR(TableStateMachine::BeginCopy(*tree, std::move(description)));
  } else {
    DYNLIB_RETURN_IF_ERROR(TableStateMachine::Initialise(*tree, std::move(description)));
  }
  return LoadReplica(tree);
}

void ReplicaSet::Create(const std::string& description, Done done) {
  if (stopped_) return done(absl::CancelledError("shut down"));
  Replica parsed(nullptr);
  if (absl::Status status = ParseDescription(description, parts_.self, parsed); !status.ok())
    return done(status);
  const PartitionId partition = parsed.partition;
  if (const std::shared_ptr<Replica> here = Find(partition); here != nullptr) {
    const bool same = parsed.learner ? here->learner && here->self == parsed.self
                                     : here->description == description;
    if (same) {
      here->log_begins = std::max(here->log_begins, parsed.log_begins);
      return done(absl::OkStatus());
    }
    return done(absl::AlreadyExistsError(
        Cat("partition ", partition, " is here with another description")));
  }
  if (!busy_.insert(partition).second) return done(Busy(partition));
  // What the log may have of an earlier replica of the partition is not this one's.
  TakeStream(recovery_, partition);
  parts_.log->Drop(StreamOf(partition));
  parts_.file_executor->Post(
      [self = shared_from_this(), partition, description, done = std::move(done)]() mutable {
        absl::StatusOr<std::shared_ptr<Replica>> made = self->MakeTree(description);
        Executor* executor = self->parts_.executor;
        executor->Post([self = std::move(self), partition, made = std::move(made),
                        done = std::move(done)]() mutable {
          if (!made.ok()) return done(self->FinishCreate(std::move(made), partition));
          self->parts_.checkpoint([self, partition, made = *std::move(made),
                                   done = std::move(done)](absl::Status status) mutable {
            done(self->FinishCreate(If(status, std::move(made)), partition));
          });
        });
      });
}

absl::Status ReplicaSet::FinishCreate(absl::StatusOr<std::shared_ptr<Replica>> made,
                                      PartitionId partition) {
  busy_.erase(partition);
  DYNLIB_RETURN_IF_ERROR(made.status());
  if (stopped_) return absl::CancelledError("shut down");
  replicas_[partition] = *made;
  if ((*made)->copying) {
    StartCopy(*std::move(made));
    return absl::OkStatus();
  }
  const absl::Status added = AddGroup(*made);
  if (!added.ok()) (*made)->failed = added;
  parts_.changed(partition);
  return added;
}

// From the node that the description names, or else from any other storage member. One that is
// itself far behind is not asked twice in a row.
void ReplicaSet::StartCopy(std::shared_ptr<Replica> replica) {
  wire::CreateReplicaRequest description;
  DYNLIB_CHECK(description.ParseFromString(replica->description));
  std::vector<NodeId> sources;
  if (description.copy_from() != 0) sources.push_back(NodeId{description.copy_from()});
  for (const replication::Member& member : replica->configuration.members) {
    const bool log = member.kind == replication::MemberKind::kLog;
    if (!log && member.node != parts_.self && ToUint(member.node) != description.copy_from())
      sources.push_back(member.node);
  }
  if (sources.size() > 1) {
    std::rotate(sources.begin(),
                sources.begin() + static_cast<ptrdiff_t>(replica->copies % sources.size()),
                sources.end());
  }
  Event("node.copy_started", *replica);
  store::Tree* tree = replica->tree;
  const PartitionId partition = replica->partition;
  copies_[partition] = copier_->Copy(partition, std::move(sources), tree,
                                     [weak = weak_from_this(), replica = std::move(replica)](
                                         absl::StatusOr<uint64_t> position) mutable {
                                       if (auto self = weak.lock())
                                         self->FinishCopy(std::move(replica), std::move(position));
                                     });
}

void ReplicaSet::FinishCopy(std::shared_ptr<Replica> replica, absl::StatusOr<uint64_t> position) {
  copies_.erase(replica->partition);
  if (stopped_ || busy_.contains(replica->partition)) return;
  if (!position.ok()) {
    Event("node.copy_failed", *replica, ToStd(position.status().message()));
    replica->failed = position.status();
    return parts_.changed(replica->partition);
  }
  if (*position < replica->log_begins) {
    Event("node.copy_again", *replica,
          Cat("its version is of slot ", *position, ", and the log begins behind ",
              replica->log_begins));
    ++replica->copies;
    return StartCopy(std::move(replica));
  }
  busy_.insert(replica->partition);
  parts_.file_executor->Post(
      [self = shared_from_this(), replica = std::move(replica), position = *position]() mutable {
        // Before it has a vote there must be no checkpoint left in which it is still copied: at a
        // start from that it would forget the vote (rule R3).
        absl::Status finished =
            TableStateMachine::FinishCopy(*replica->tree, position, self->parts_.faults);
        if (finished.ok()) finished = self->parts_.pages->CheckpointTwice();
        absl::StatusOr<std::shared_ptr<Replica>> loaded = If(finished, replica);
        if (finished.ok()) loaded = self->LoadReplica(replica->tree);
        Executor* executor = self->parts_.executor;
        executor->Post([self = std::move(self), partition = replica->partition,
                        loaded = std::move(loaded)]() mutable {
          if (!loaded.ok()) return self->AddLoaded(std::move(loaded), partition);
          self->parts_.checkpoint(
              [self, partition, loaded = *std::move(loaded)](absl::Status status) mutable {
                self->AddLoaded(If(status, std::move(loaded)), partition);
              });
        });
      });
}

void ReplicaSet::AddLoaded(absl::StatusOr<std::shared_ptr<Replica>> replica,
                           PartitionId partition) {
  busy_.erase(partition);
  if (stopped_) return;
  absl::Status status = replica.status();
  if (status.ok()) {
    replicas_[partition] = *replica;
    status = AddGroup(*replica);
    Event("node.replica_added", **replica);
  }
  if (!status.ok()) {
    if (const std::shared_ptr<Replica> here = Find(partition); here != nullptr) {
      here->failed = status;
      Event("node.replica_failed", *here, ToStd(status.message()));
    }
  }
  parts_.changed(partition);
}

void ReplicaSet::OnEnded(PartitionId partition, wire::EndRecord record) {
  const std::shared_ptr<Replica> replica = Find(partition);
  if (stopped_ || replica == nullptr) return;
  replica->ended = std::move(record);
  if (replica->ended->has_split()) AddHeirs(*replica);
  FinishMerges(partition);
  parts_.changed(partition);
}

// The step that applied the split made their trees.
void ReplicaSet::AddHeirs(const Replica& ended) {
  for (PartitionId heir : ended.Successors()) {
    if (Find(heir) != nullptr || !busy_.insert(heir).second) continue;
    parts_.file_executor->Post([self = shared_from_this(), heir] {
      store::Tree* tree = self->parts_.pages->FindTree(TreeOf(heir));
      absl::StatusOr<std::shared_ptr<Replica>> loaded =
          tree == nullptr
              ? absl::NotFoundError(Cat("partition ", heir, " has no part on this node"))
              : self->LoadReplica(tree);
      Executor* executor = self->parts_.executor;
      executor->Post([self, heir, loaded = std::move(loaded)]() mutable {
        self->AddLoaded(std::move(loaded), heir);
      });
    });
  }
}

absl::Status ReplicaSet::MakeMerged(const Replica& half, const Replica& other) const {
  const bool both =
      other.ended->has_merge() && other.ended->merge().merged() == half.ended->merge().merged();
  if (!both)
    return TableStateMachine::TakeOver(*parts_.pages, parts_.self, *half.tree, parts_.faults);
  if (half.kind != other.kind) {
    // A log replica has no items: what came of the two would lack those of a half.
    return absl::NotFoundError(Cat("node ", parts_.self, " has the items of one half only"));
  }
  const bool left = PartitionId{half.ended->merge().left()} == half.partition;
  return TableStateMachine::Join(*parts_.pages, parts_.self, left ? *half.tree : *other.tree,
                                 left ? *other.tree : *half.tree, parts_.faults);
}

// Of the merge that ended this partition, and of one that waited to hear how this partition ends.
void ReplicaSet::FinishMerges(PartitionId ended) {
  for (const auto& [partition, half] : replicas_) {
    const PartitionId other_id = OtherHalf(*half);
    const std::shared_ptr<Replica> other = Find(other_id);
    if ((partition != ended && other_id != ended) || other == nullptr || !other->ended.has_value())
      continue;
    const PartitionId merged{half->ended->merge().merged()};
    if (Find(merged) != nullptr || !busy_.insert(merged).second) continue;
    // On the executor that applies, where the last step of both is over.
    parts_.apply_executor->Post([self = shared_from_this(), half = half, other, merged] {
      const absl::Status made = self->MakeMerged(*half, *other);
      absl::StatusOr<std::shared_ptr<Replica>> loaded = If(made, nullptr);
      if (made.ok()) loaded = self->LoadReplica(self->parts_.pages->FindTree(TreeOf(merged)));
      Executor* executor = self->parts_.executor;
      executor->Post([self, merged, loaded = std::move(loaded)]() mutable {
        self->AddLoaded(std::move(loaded), merged);
      });
    });
  }
}

// How it ends has to be seen by a half of a merge that is still to be made here.
bool ReplicaSet::IsAwaited(const Replica& half) const {
  for (const auto& [partition, other] : replicas_) {
    if (OtherHalf(*other) != half.partition) continue;
    const wire::MergeCommand& merge = other->ended->merge();
    const bool has_part =
        std::any_of(merge.members().begin(), merge.members().end(),
                    [&](const wire::Member& m) { return NodeId{m.node()} == parts_.self; });
    if (busy_.contains(PartitionId{merge.merged()}) || (has_part && !half.ended.has_value()))
      return true;
  }
  return false;
}

absl::Status ReplicaSet::MayDrop(const Replica& replica, bool force) const {
  if (replica.copying || replica.failed.has_value()) return absl::OkStatus();
  if (IsAwaited(replica)) {
    return absl::FailedPreconditionError(
        Cat("partition ", replica.partition, ": a half of a merge is to see how it ended"));
  }
  const std::optional<replication::GroupStatus> status = parts_.host->Status(replica.partition);
  if (replica.ended.has_value()) {
    // Both checkpoints on disk must have the successors, which the end's own step made, or, of a
    // merge, whose items lie in this tree until then. (A log replica's tree need not get so far as
    // its end for that.)
    bool durable = durable_ends_.contains(replica.partition) ||
                   replica.tree->fallback_position() >= replica.ended->slot();
    if (replica.ended->has_merge()) {
      // Not here, and asked for all the same: made elsewhere without this node.
      const std::shared_ptr<Replica> merged = Find(PartitionId{replica.ended->merge().merged()});
      durable = durable && (merged == nullptr ? force : merged->tree->fallback_position() > 0);
    }
    if (!durable) {
      return absl::FailedPreconditionError(
          Cat("partition ", replica.partition, ": its successors are not durable yet"));
    }
  }
  if (force || !status.has_value() || status->removed || !status->member) return absl::OkStatus();
  return absl::FailedPreconditionError(
      Cat("partition ", replica.partition, ": replica ", replica.self,
          " is a member as far as it knows, of the configuration chosen at slot ",
          status->configuration.epoch));
}

// Without more writes nothing else would bring the older checkpoint up to date.
void ReplicaSet::MakeHeirsDurable(PartitionId partition) {
  if (!busy_.insert(partition).second) return;
  parts_.file_executor->Post([self = shared_from_this(), partition] {
    const bool durable = self->parts_.pages->CheckpointTwice().ok();
    Executor* executor = self->parts_.executor;
    executor->Post([self, partition, durable] {
      // Otherwise it is tried again with the next Drop.
      if (durable) self->durable_ends_.insert(partition);
      self->parts_.checkpoint([self, partition](absl::Status) { self->busy_.erase(partition); });
    });
  });
}

void ReplicaSet::Drop(PartitionId partition, ReplicaId replica_id, bool force, Done done) {
  if (stopped_) return done(absl::CancelledError("shut down"));
  if (busy_.contains(partition)) return done(Busy(partition));
  std::shared_ptr<Replica> replica = Find(partition);
  if (replica == nullptr || replica->self != replica_id) return done(absl::OkStatus());
  if (absl::Status status = MayDrop(*replica, force); !status.ok()) {
    if (replica->ended.has_value()) MakeHeirsDurable(partition);
    return done(status);
  }
  busy_.insert(partition);
  Event("node.replica_dropped", *replica);
  auto next = [self = shared_from_this(), replica, done = std::move(done)](absl::Status) mutable {
    self->DropTree(std::move(replica), std::move(done));
  };
  if (auto copy = copies_.find(partition); copy != copies_.end()) {
    copier_->Cancel(copy->second, [next = std::move(next)]() mutable { next(absl::OkStatus()); });
  } else {
    parts_.host->RemoveGroup(partition, std::move(next));
  }
}

// The tree goes first, and durably: a tree whose log is gone would come back as a member that
// forgot what it promised (rule R3).
void ReplicaSet::DropTree(std::shared_ptr<Replica> replica, Done done) {
  const PartitionId partition = replica->partition;
  replicas_.erase(partition);
  durable_ends_.erase(partition);
  parts_.apply_executor->Post([self = shared_from_this(), replica = std::move(replica), partition,
                               done = std::move(done)]() mutable {
    const absl::Status dropped = self->parts_.pages->DropTree(TreeOf(partition));
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), partition, dropped, done = std::move(done)]() mutable {
      self->parts_.checkpoint(
          [self, partition, dropped, done = std::move(done)](absl::Status durable) mutable {
            self->busy_.erase(partition);
            if (durable.ok() && !self->stopped_) self->parts_.log->Drop(StreamOf(partition));
            self->parts_.changed(partition);
            done(absl::IsNotFound(dropped) || dropped.ok() ? durable : dropped);
          });
    });
  });
}

std::shared_ptr<Replica> ReplicaSet::Find(PartitionId partition) const {
  const auto it = replicas_.find(partition);
  return it == replicas_.end() ? nullptr : it->second;
}

std::shared_ptr<Replica> ReplicaSet::FindKey(TableId table, std::string_view storage_key) const {
  std::shared_ptr<Replica> best;
  for (const auto& [partition, replica] : replicas_) {
    if (replica->table != table || replica->copying || replica->failed.has_value() ||
        replica->ended.has_value()) {
      continue;
    }
    if (!replica->CheckKey(storage_key).ok()) continue;
    if (best == nullptr || best->generation < replica->generation) best = replica;
  }
  return best;
}

void ReplicaSet::Event(std::string_view name, const Replica& replica, std::string_view why) const {
  const EventField fields[] = {{"node", Cat(parts_.self)},
                               {"partition", Cat(replica.partition)},
                               {"replica", Cat(replica.self)},
                               {"why", std::string(why)}};
  parts_.metrics->Event(name, fields);
}

}  // namespace dynlib::cluster
