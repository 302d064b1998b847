#include "dynlib/cluster/replica_set.h"

#include <optional>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {

absl::Status ReplicaSet::Load() {
  for (store::TreeId id : parts_.pages->Trees()) {
    auto replica = std::make_shared<Replica>(parts_.pages->FindTree(id));
    DYNLIB_ASSIGN_OR_RETURN(std::string description, TableStateMachine::Describe(*replica->tree));
    if (absl::Status status = ParseDescription(description, *replica); !status.ok()) {
      return absl::DataLossError(Cat("tree ", id, ": ", ToStd(status.message())));
    }
    replicas_[replica->partition] = std::move(replica);
  }
  return absl::OkStatus();
}

absl::Status ReplicaSet::MakeDurable(std::string description) {
  Replica parsed(nullptr);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, parsed));
  if (parts_.pages->FindTree(store::TreeId{ToUint(parsed.partition)}) != nullptr)
    return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(MakeTree(std::move(description)).status());
  return parts_.pages->Checkpoint();
}

absl::Status ReplicaSet::AddGroups(store::NodeLog::Recovery recovery) {
  for (auto& [partition, replica] : replicas_) {
    DYNLIB_RETURN_IF_ERROR(AddGroup(*replica, TakeStream(recovery, partition)));
  }
  return absl::OkStatus();
}

absl::Status ReplicaSet::AddGroup(Replica& replica, const replication::RecoveredStream& recovered) {
  DYNLIB_ASSIGN_OR_RETURN(std::optional<replication::Configuration> stored,
                          TableStateMachine::StoredConfiguration(*replica.tree));
  // The description says which replica this is, and whom it began with.
  const replication::Member* self = replica.configuration.FindNode(parts_.self);
  if (self == nullptr) {
    return absl::DataLossError(
        Cat("partition ", replica.partition, " has no member on node ", parts_.self));
  }
  const replication::GroupSetup setup{
      .configuration = stored.has_value() ? *std::move(stored) : replica.configuration,
      .self = self->replica,
      .kind = self->kind};
  return parts_.host->AddGroup(replica.partition, setup, &replica.state_machine,
                               parts_.apply_executor, recovered);
}

// A tree with its description in it; durable with the next checkpoint.
absl::StatusOr<std::shared_ptr<Replica>> ReplicaSet::MakeTree(std::string description) {
  Replica parsed(nullptr);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, parsed));
  const store::TreeId id{ToUint(parsed.partition)};
  store::Tree* tree = parts_.pages->FindTree(id);  // There already if a creation failed midway.
  if (tree == nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(tree, parts_.pages->CreateTree(id));
  }
  auto replica = std::make_shared<Replica>(tree);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, *replica));
  DYNLIB_RETURN_IF_ERROR(TableStateMachine::Initialise(*tree, std::move(description)));
  return replica;
}

void ReplicaSet::Create(const std::string& description, Done done) {
  if (stopped_) return done(absl::CancelledError("shut down"));
  Replica parsed(nullptr);
  if (absl::Status status = ParseDescription(description, parsed); !status.ok())
    return done(status);
  if (parsed.configuration.FindNode(parts_.self) == nullptr) {
    return done(absl::InvalidArgumentError(
        Cat("partition ", parsed.partition, " has no member on node ", parts_.self)));
  }
  if (const std::shared_ptr<Replica> here = Find(parsed.partition); here != nullptr) {
    if (here->description == description) return done(absl::OkStatus());
    return done(absl::AlreadyExistsError(
        Cat("partition ", parsed.partition, " is here with another description")));
  }
  if (!creating_.insert(parsed.partition).second) {
    return done(absl::UnavailableError(Cat("partition ", parsed.partition, " is being made")));
  }
  parts_.file_executor->Post([self = shared_from_this(), partition = parsed.partition, description,
                              done = std::move(done)]() mutable {
    absl::StatusOr<std::shared_ptr<Replica>> made = self->MakeTree(description);
    if (made.ok()) {
      if (absl::Status status = self->parts_.pages->Checkpoint(); !status.ok()) made = status;
    }
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), partition, made = std::move(made),
                    done = std::move(done)]() mutable {
      done(self->FinishCreate(partition, std::move(made)));
    });
  });
}

absl::Status ReplicaSet::FinishCreate(PartitionId partition,
                                      absl::StatusOr<std::shared_ptr<Replica>> made) {
  creating_.erase(partition);
  DYNLIB_RETURN_IF_ERROR(made.status());
  if (stopped_) return absl::CancelledError("shut down");
  replicas_[partition] = *made;
  return AddGroup(**made, {});
}

std::shared_ptr<Replica> ReplicaSet::Find(PartitionId partition) const {
  const auto it = replicas_.find(partition);
  return it == replicas_.end() ? nullptr : it->second;
}

}  // namespace dynlib::cluster
