#include "dynlib/cluster/table_state_machine.h"

#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/store/page.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::cluster {
namespace {

constexpr std::string_view kDescriptionKey("\0d", 2);
constexpr std::string_view kConfigurationKey("\0c", 2);
constexpr std::string_view kSessionPrefix("\0s", 2);
constexpr std::string_view kSessionEnd("\0t", 2);
constexpr char kItemPrefix = 1;

std::string ItemKey(std::string_view storage_key) {
  std::string key(1, kItemPrefix);
  key.append(storage_key);
  return key;
}

}  // namespace

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
  return tree_->snapshot().Get(ItemKey(storage_key));
}

absl::Status TableStateMachine::Scan(
    std::string_view first, std::string_view end, bool reverse,
    absl::FunctionRef<bool(std::string_view key, std::string_view item)> visit) const {
  const std::string end_key = end.empty() ? std::string(1, kItemPrefix + 1) : ItemKey(end);
  return tree_->snapshot().Scan(
      ItemKey(first), end_key, reverse ? store::ScanOrder::kReverse : store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) { return visit(key.substr(1), value); });
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

absl::Status TableStateMachine::Evaluate(std::span<const replication::AppliedCommand> commands,
                                         std::vector<std::string>* results) {
  pending_.clear();
  for (const replication::AppliedCommand& command : commands) {
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
  store::WriteBatch batch;
  for (auto& [key, value] : std::exchange(pending_, {})) {
    if (value.has_value()) {
      batch.Put(key, *std::move(value));
    } else {
      batch.Delete(key);
    }
  }
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
  return tree_->Apply(batch, step.through);
}

}  // namespace dynlib::cluster
