#include "dynlib/cluster/table_state_machine.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/replication/session_table.h"
#include "dynlib/store/page.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::cluster {
namespace {

constexpr std::string_view kDescriptionKey("\0d", 2);
constexpr std::string_view kConfigurationKey("\0c", 2);
constexpr std::string_view kEndKey("\0e", 2);
constexpr std::string_view kCopyingKey("\0i", 2);
constexpr std::string_view kSessionPrefix("\0s", 2);
constexpr std::string_view kSessionEnd("\0t", 2);
constexpr char kItemPrefix = 1;

// Field 5 of wire::WriteCommand, and nothing before it: writes begin with their key.
constexpr char kScrubMarkTag = (5 << 3) | 2;

// The scrub of a marker; nothing for other commands.
std::optional<uint64_t> ScrubOf(std::string_view command) {
  if (command.empty() || command[0] != kScrubMarkTag) return std::nullopt;
  wire::WriteCommand parsed;
  if (!parsed.ParseFromArray(command.data(), static_cast<int>(command.size())) ||
      !parsed.has_scrub_mark() || parsed.change_case() != wire::WriteCommand::CHANGE_NOT_SET) {
    return std::nullopt;
  }
  return parsed.scrub_mark().scrub();
}

// The exactly-once table of a tree, as records of another.
absl::Status CopySessions(const store::Tree& tree, store::WriteBatch& batch) {
  return tree.snapshot().Scan(kSessionPrefix, kSessionEnd, store::ScanOrder::kForward,
                              [&](std::string_view key, std::string_view value) {
                                batch.Put(std::string(key), std::string(value));
                                return true;
                              });
}

// Of two trees into a third: a client of a partition that was split may be in both.
absl::Status JoinSessions(const store::Tree& left, const store::Tree& right,
                          store::WriteBatch& batch) {
  const store::Snapshot others = right.snapshot();
  DYNLIB_RETURN_IF_ERROR(CopySessions(right, batch));
  absl::Status status;
  DYNLIB_RETURN_IF_ERROR(left.snapshot().Scan(
      kSessionPrefix, kSessionEnd, store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        const absl::StatusOr<std::optional<std::string>> theirs = others.Get(key);
        status = theirs.status();
        if (!status.ok()) return false;
        std::string merged(value);
        if (theirs->has_value()) {
          absl::StatusOr<std::string> both =
              replication::MergeSessionRecords(key.substr(kSessionPrefix.size()), value, **theirs);
          status = both.status();
          if (!status.ok()) return false;
          merged = *std::move(both);
        }
        batch.Put(std::string(key), std::move(merged));
        return true;
      }));
  return status;
}

absl::StatusOr<wire::CreateReplicaRequest> ParsedDescription(const store::Tree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(const std::string bytes, TableStateMachine::Describe(tree));
  wire::CreateReplicaRequest description;
  if (!description.ParseFromString(bytes))
    return absl::DataLossError(Cat("tree ", tree.id(), ": its description does not parse"));
  return description;
}

// What the description of a partition that came of others says.
struct Heir {
  uint64_t partition;
  std::string first;
  std::string end;
  uint64_t generation;
};

// Nothing if this node is not among the members.
std::optional<std::string> DescribeHeir(
    const wire::CreateReplicaRequest& parent, const Heir& heir, NodeId self,
    const google::protobuf::RepeatedPtrField<wire::Member>& members) {
  wire::CreateReplicaRequest description;
  wire::Partition& partition = *description.mutable_partition();
  partition.set_id(heir.partition);
  partition.set_table(parent.partition().table());
  partition.set_first(heir.first);
  partition.set_end(heir.end);
  partition.set_generation(heir.generation);
  *partition.mutable_members() = members;
  description.set_schema(parent.schema());
  for (const wire::Member& member : members) {
    if (NodeId{member.node()} != self) continue;
    description.set_replica(member.replica());
    description.set_kind(member.kind());
    return description.SerializeAsString();
  }
  return std::nullopt;
}

}  // namespace

std::string TableStateMachine::ItemKey(std::string_view storage_key) {
  std::string key(1, kItemPrefix);
  key.append(storage_key);
  return key;
}

std::string TableStateMachine::FirstItemKey() { return std::string(1, kItemPrefix); }
std::string TableStateMachine::EndOfItemKeys() { return std::string(1, kItemPrefix + 1); }

bool TableStateMachine::IsShared(std::string_view tree_key) {
  return tree_key == kConfigurationKey || tree_key == kVersionKey ||
         tree_key.starts_with(kSessionPrefix) || tree_key >= std::string_view(&kItemPrefix, 1);
}

void TableStateMachine::EnableEnd(store::PageFile* pages, NodeId self, bool log_replica,
                                  absl::AnyInvocable<void(const wire::EndRecord&)> ended,
                                  const SplitFaultsForTest& faults) {
  pages_ = pages;
  self_ = self;
  log_replica_ = log_replica;
  ended_ = std::move(ended);
  faults_ = faults;
}

absl::StatusOr<std::string> TableStateMachine::Describe(const store::Tree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> found, tree.snapshot().Get(kDescriptionKey));
  if (!found.has_value())
    return absl::DataLossError(Cat("tree ", tree.id(), " has no description of its partition"));
  return *std::move(found);
}

absl::Status TableStateMachine::Initialise(store::Tree& tree, std::string description) {
  store::WriteBatch batch;
  batch.Put(std::string(kDescriptionKey), std::move(description));
  return tree.Apply(batch, 0);
}

absl::Status TableStateMachine::InitialiseLog(store::Tree& tree, std::string description,
                                              const replication::Configuration& configuration,
                                              Slot base) {
  store::WriteBatch batch;
  batch.Put(std::string(kDescriptionKey), std::move(description));
  batch.Put(std::string(kConfigurationKey), replication::EncodeConfiguration(configuration));
  return tree.Apply(batch, base);
}

absl::Status TableStateMachine::BeginCopy(store::Tree& tree, std::string description) {
  store::WriteBatch batch;
  batch.Put(std::string(kDescriptionKey), std::move(description));
  batch.Put(std::string(kCopyingKey), "");
  return tree.Apply(batch, 0);
}

absl::Status TableStateMachine::FinishCopy(store::Tree& tree, uint64_t position,
                                           const SplitFaultsForTest& faults) {
  store::WriteBatch batch;
  if (faults.sessions_not_copied) {
    DYNLIB_RETURN_IF_ERROR(tree.snapshot().Scan(kSessionPrefix, kSessionEnd,
                                                store::ScanOrder::kForward,
                                                [&](std::string_view key, std::string_view) {
                                                  batch.Delete(std::string(key));
                                                  return true;
                                                }));
  }
  batch.Delete(std::string(kCopyingKey));
  return tree.Apply(batch, position);
}

absl::StatusOr<bool> TableStateMachine::IsCopying(const store::Tree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<std::string> found, tree.snapshot().Get(kCopyingKey));
  return found.has_value();
}

absl::StatusOr<std::optional<wire::EndRecord>> TableStateMachine::StoredEnd(
    const store::Tree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<std::string> found, tree.snapshot().Get(kEndKey));
  if (!found.has_value()) return std::nullopt;
  wire::EndRecord record;
  if (!record.ParseFromString(*found) || record.has_split() == record.has_merge())
    return absl::DataLossError(Cat("tree ", tree.id(), ": how its log ended does not parse"));
  return record;
}

absl::StatusOr<std::optional<replication::Configuration>> TableStateMachine::StoredConfiguration(
    const store::Tree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> found, tree.snapshot().Get(kConfigurationKey));
  if (!found.has_value()) return std::nullopt;
  DYNLIB_ASSIGN_OR_RETURN(replication::Configuration configuration,
                          replication::DecodeConfiguration(*found));
  return configuration;
}

absl::StatusOr<std::optional<std::string>> TableStateMachine::Get(
    std::string_view storage_key) const {
  absl::StatusOr<std::optional<std::string>> item = tree_->snapshot().Get(ItemKey(storage_key));
  DYNLIB_RETURN_IF_ERROR(CheckHasItems());
  return item;
}

absl::Status TableStateMachine::CheckHasItems() const {
  if (!items_go_.load()) return absl::OkStatus();
  return absl::NotFoundError(Cat("partition ", tree_->id(), " gave way to others"));
}

absl::Status TableStateMachine::Scan(
    std::string_view first, std::string_view end, bool reverse,
    absl::FunctionRef<bool(std::string_view key, std::string_view item)> visit) const {
  const std::string end_key = end.empty() ? std::string(1, kItemPrefix + 1) : ItemKey(end);
  DYNLIB_RETURN_IF_ERROR(tree_->snapshot().Scan(
      ItemKey(first), end_key, reverse ? store::ScanOrder::kReverse : store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) { return visit(key.substr(1), value); }));
  return CheckHasItems();
}

absl::Status TableStateMachine::LoadSessions(
    absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) {
  return tree_->snapshot().Scan(kSessionPrefix, kSessionEnd, store::ScanOrder::kForward,
                                [&](std::string_view key, std::string_view value) {
                                  visit(key.substr(kSessionPrefix.size()), value);
                                  return true;
                                });
}

absl::StatusOr<std::optional<std::string>> TableStateMachine::Current(
    const std::string& key) const {
  if (auto it = pending_.find(key); it != pending_.end()) return it->second;
  return tree_->snapshot().Get(key);
}

std::string TableStateMachine::ScrubMarker(uint64_t scrub) {
  wire::WriteCommand command;
  command.mutable_scrub_mark()->set_scrub(scrub);
  return command.SerializeAsString();
}

bool TableStateMachine::EndsStep(std::string_view command) const {
  return ScrubOf(command).has_value();
}

absl::Status TableStateMachine::Evaluate(std::span<const replication::AppliedCommand> commands,
                                         std::vector<std::string>* results) {
  pending_.clear();
  pending_end_.reset();
  pending_mark_.reset();
  for (const replication::AppliedCommand& command : commands) {
    if (command.ends) {
      wire::WriteCommand end;
      if (!end.ParseFromArray(command.command.data(), static_cast<int>(command.command.size())) ||
          end.has_split() == end.has_merge()) {
        return absl::DataLossError(Cat("tree ", tree_->id(), ": the end of its log, at slot ",
                                       command.slot, ", does not parse"));
      }
      wire::EndRecord& record = pending_end_.emplace();
      record.set_slot(command.slot);
      if (end.has_split()) *record.mutable_split() = end.split();
      if (end.has_merge()) *record.mutable_merge() = end.merge();
      results->push_back(wire::WriteResult().SerializeAsString());
      // It comes again after a restart, until the position has followed.
      if (log_replica_) {
        DYNLIB_RETURN_IF_ERROR(PublishEnd({.sessions = {}, .through = tree_->position()}));
      }
      continue;
    }
    if (const std::optional<uint64_t> scrub = ScrubOf(command.command); scrub.has_value()) {
      pending_mark_ = Mark{*scrub, command.slot};
      wire::WriteResult result;
      result.set_slot(command.slot);
      results->push_back(result.SerializeAsString());
      continue;
    }
    DYNLIB_ASSIGN_OR_RETURN(std::string result, EvaluateOne(command.command));
    results->push_back(std::move(result));
  }
  return absl::OkStatus();
}

// Whoever proposed the command checked it. One that does not parse all the same changes nothing, on
// every replica.
absl::StatusOr<std::string> TableStateMachine::EvaluateOne(std::string_view bytes) {
  wire::WriteCommand command;
  wire::WriteResult result;
  result.set_condition_failed(true);
  if (!command.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return result.SerializeAsString();
  const std::string key = ItemKey(command.key());
  const bool puts = command.change_case() == wire::WriteCommand::kPut;
  if (!puts && command.change_case() != wire::WriteCommand::kErase)
    return result.SerializeAsString();
  // More than the tree takes would fail the step, and with it every replica.
  if (key.size() > store::kMaxKeyBytes || (puts && command.put().size() > store::kMaxValueBytes))
    return result.SerializeAsString();
  if (!command.condition().empty()) {
    absl::StatusOr<Condition> condition = DecodeCondition(command.condition());
    if (!condition.ok()) return result.SerializeAsString();
    DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> current, Current(key));
    std::optional<Item> item;
    if (current.has_value()) {
      DYNLIB_ASSIGN_OR_RETURN(item, DecodeItem(*current));
    }
    if (!Holds(*condition, item.has_value() ? &*item : nullptr)) return result.SerializeAsString();
  }
  if (puts) {
    pending_[key] = std::move(*command.mutable_put());
  } else {
    pending_[key] = std::nullopt;
  }
  result.set_condition_failed(false);
  return result.SerializeAsString();
}

absl::Status TableStateMachine::Publish(const replication::PublishedStep& step) {
  if (pending_end_.has_value()) return PublishEnd(step);
  store::WriteBatch batch = Metadata(step);
  TakePending(batch);
  DYNLIB_RETURN_IF_ERROR(tree_->Apply(batch, step.through));
  if (step.version != 0) version_.store(step.version);
  if (const std::optional<Mark> mark = std::exchange(pending_mark_, {}); mark.has_value()) {
    DYNLIB_CHECK(mark->slot == step.through);  // R12: EndsStep said so.
    scrub_pins_.Pin(mark->scrub, tree_->snapshot());
  }
  return absl::OkStatus();
}

void TableStateMachine::TakePending(store::WriteBatch& batch) {
  for (auto& [key, value] : std::exchange(pending_, {})) {
    scrub_pins_.Written(key);
    if (value.has_value()) {
      batch.Put(key, *std::move(value));
    } else {
      batch.Delete(key);
    }
  }
}

store::WriteBatch TableStateMachine::Metadata(const replication::PublishedStep& step) const {
  store::WriteBatch batch;
  for (const replication::SessionRecord& record : step.sessions) {
    std::string key(kSessionPrefix);
    key += record.key;
    if (record.value.empty()) {
      batch.Delete(std::move(key));
    } else {
      batch.Put(std::move(key), record.value);
    }
  }
  if (step.configuration != nullptr) {
    batch.Put(std::string(kConfigurationKey),
              replication::EncodeConfiguration(*step.configuration));
  }
  PutVersion(step.version, batch);
  return batch;
}

absl::Status TableStateMachine::PublishEnd(const replication::PublishedStep& step) {
  const wire::EndRecord record = *std::exchange(pending_end_, {});
  if (pages_ == nullptr) return absl::FailedPreconditionError("this replica's log cannot end");
  items_go_.store(true);
  if (record.has_split()) {
    DYNLIB_RETURN_IF_ERROR(PublishSplit(step, record));
  } else {
    store::WriteBatch batch = Metadata(step);
    TakePending(batch);
    batch.Put(std::string(kEndKey), record.SerializeAsString());
    DYNLIB_RETURN_IF_ERROR(tree_->Apply(batch, step.through));
  }
  ended_(record);
  return absl::OkStatus();
}

absl::Status TableStateMachine::PublishSplit(const replication::PublishedStep& step,
                                             const wire::EndRecord& record) {
  const wire::SplitCommand& split = record.split();
  DYNLIB_ASSIGN_OR_RETURN(const wire::CreateReplicaRequest parent, ParsedDescription(*tree_));
  const wire::Partition& range = parent.partition();
  if (split.at() <= range.first() || (!range.end().empty() && split.at() >= range.end())) {
    return absl::DataLossError(Cat("partition ", range.id(), " is to be split at ",
                                   Escape(split.at()), ", which is outside [",
                                   Escape(range.first()), ", ", Escape(range.end()), ")"));
  }
  const uint64_t generation = range.generation() + 1;
  const std::optional<std::string> left = DescribeHeir(
      parent, {split.left(), range.first(), split.at(), generation}, self_, split.members());
  const std::optional<std::string> right = DescribeHeir(
      parent, {split.right(), split.at(), range.end(), generation}, self_, split.members());
  store::PageFile::SplitSpec spec;
  spec.from = FirstItemKey();
  spec.at = ItemKey(split.at());
  spec.source = {.tree = tree_->id(), .batch = Metadata(step), .position = step.through};
  spec.source.batch.Put(std::string(kEndKey), record.SerializeAsString());
  // A replica that was removed from the group before it got here has no heirs on its node, nor has
  // one so late that a child was given up for lost here, and made again by a copy.
  const bool late = pages_->FindTree(store::TreeId{split.left()}) != nullptr ||
                    pages_->FindTree(store::TreeId{split.right()}) != nullptr;
  if (!left.has_value() || late) return tree_->Apply(spec.source.batch, step.through);
  for (auto [part, id, description] : {std::tuple(&spec.left, split.left(), &left),
                                       std::tuple(&spec.right, split.right(), &right)}) {
    part->tree = store::TreeId{id};
    part->batch.Put(std::string(kDescriptionKey), **description);
    PutVersion(std::max(version(), step.version), part->batch);
    if (faults_.sessions_forgotten) continue;
    DYNLIB_RETURN_IF_ERROR(CopySessions(*tree_, part->batch));
    for (const replication::SessionRecord& session : step.sessions) {
      std::string key(kSessionPrefix);
      key += session.key;
      if (session.value.empty()) {
        part->batch.Delete(std::move(key));
      } else {
        part->batch.Put(std::move(key), session.value);
      }
    }
  }
  for (auto& [key, value] : std::exchange(pending_, {})) {
    const bool goes_left = key < spec.at || faults_.last_step_goes_left;
    store::WriteBatch& batch = goes_left ? spec.left.batch : spec.right.batch;
    if (value.has_value()) {
      batch.Put(key, *std::move(value));
    } else {
      batch.Delete(key);
    }
  }
  return pages_->Split(spec);
}

absl::Status TableStateMachine::TakeOver(store::PageFile& pages, NodeId self,
                                         const store::Tree& half,
                                         const SplitFaultsForTest& faults) {
  DYNLIB_ASSIGN_OR_RETURN(const wire::CreateReplicaRequest description, ParsedDescription(half));
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<wire::EndRecord> end, StoredEnd(half));
  if (!end.has_value() || !end->has_merge())
    return absl::FailedPreconditionError(Cat("partition ", half.id(), " is no half of a merge"));
  const wire::MergeCommand& merge = end->merge();
  const wire::Partition& range = description.partition();
  const std::optional<std::string> merged = DescribeHeir(
      description, {merge.merged(), range.first(), range.end(), range.generation() + 1}, self,
      merge.members());
  if (!merged.has_value())
    return absl::NotFoundError(Cat("node ", self, " has no part in the merged partition"));
  store::PageFile::MoveSpec spec;
  spec.from = FirstItemKey();
  spec.source = {.tree = half.id(), .batch = {}, .position = half.position()};
  spec.target.tree = store::TreeId{merge.merged()};
  spec.target.batch.Put(std::string(kDescriptionKey), *merged);
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t version, StoredVersion(half));
  PutVersion(version, spec.target.batch);
  if (!faults.sessions_not_merged) {
    DYNLIB_RETURN_IF_ERROR(CopySessions(half, spec.target.batch));
  }
  return pages.Move(spec);
}

absl::Status TableStateMachine::Join(store::PageFile& pages, NodeId self, const store::Tree& left,
                                     const store::Tree& right, const SplitFaultsForTest& faults) {
  DYNLIB_ASSIGN_OR_RETURN(const wire::CreateReplicaRequest a, ParsedDescription(left));
  DYNLIB_ASSIGN_OR_RETURN(const wire::CreateReplicaRequest b, ParsedDescription(right));
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<wire::EndRecord> end, StoredEnd(left));
  if (!end.has_value() || !end->has_merge() || a.partition().end() != b.partition().first()) {
    return absl::FailedPreconditionError(
        Cat("partitions ", left.id(), " and ", right.id(), " are not two halves of a merge"));
  }
  const wire::MergeCommand& merge = end->merge();
  const uint64_t generation = std::max(a.partition().generation(), b.partition().generation()) + 1;
  const std::optional<std::string> description =
      DescribeHeir(a, {merge.merged(), a.partition().first(), b.partition().end(), generation},
                   self, merge.members());
  if (!description.has_value())
    return absl::NotFoundError(Cat("node ", self, " has no part in the merged partition"));
  store::PageFile::JoinSpec spec;
  spec.from = FirstItemKey();
  spec.left = {.tree = left.id(), .batch = {}, .position = left.position()};
  spec.right = {.tree = right.id(), .batch = {}, .position = right.position()};
  spec.target.tree = store::TreeId{merge.merged()};
  spec.target.batch.Put(std::string(kDescriptionKey), *description);
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t of_left, StoredVersion(left));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t of_right, StoredVersion(right));
  PutVersion(std::max(of_left, of_right), spec.target.batch);
  if (!faults.sessions_not_merged) {
    DYNLIB_RETURN_IF_ERROR(JoinSessions(left, right, spec.target.batch));
  }
  return pages.Join(spec);
}

}  // namespace dynlib::cluster
