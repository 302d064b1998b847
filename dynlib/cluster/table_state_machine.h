// A partition of a table as a replicated state machine: items in a tree, changed by logged writes.
//
// One tree holds everything that a replica needs to start again, so that it is checkpointed, copied
// and scrubbed as one: the partition's description, the exactly-once table, and the items.
// Conditions are evaluated when a command is applied, in log order (rule R10).
//
//   key in the tree        value
//   00 'd'                 the description: wire::CreateReplicaRequest
//   00 'c'                 the group's newest configuration, as replication encodes it
//   00 's' + session key   a record of the exactly-once table
//   01 + storage key       an item, as item.h encodes it
//
// Threads: as StateMachine says; Get, Scan and Describe from any thread where file calls are
// allowed.
#ifndef DYNLIB_CLUSTER_TABLE_STATE_MACHINE_H_
#define DYNLIB_CLUSTER_TABLE_STATE_MACHINE_H_

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {

class TableStateMachine : public replication::StateMachine {
 public:
  // `tree` outlives it.
  explicit TableStateMachine(store::Tree* tree) : tree_(tree) {}

  // The description that the tree was made with; kDataLoss if it has none.
  static absl::StatusOr<std::string> Describe(const store::Tree& tree);
  // Of a new, empty tree.
  static absl::Status Initialise(store::Tree& tree, std::string description);

  // The group's configuration as of the tree's position, if one was published.
  static absl::StatusOr<std::optional<replication::Configuration>> StoredConfiguration(
      const store::Tree& tree);

  // The encoded item.
  absl::StatusOr<std::optional<std::string>> Get(std::string_view storage_key) const;
  // Visits items with storage keys in [first, end), an empty end being none.
  absl::Status Scan(
      std::string_view first, std::string_view end, bool reverse,
      absl::FunctionRef<bool(std::string_view key, std::string_view item)> visit) const;

  Slot applied() const override { return tree_->position(); }
  absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) override;
  absl::Status Evaluate(std::span<const replication::AppliedCommand> commands,
                        std::vector<std::string>* results) override;
  absl::Status Publish(const replication::PublishedStep& step) override;

 private:
  absl::StatusOr<std::optional<std::string>> Current(const std::string& key) const;
  absl::StatusOr<std::string> EvaluateOne(std::string_view command);

  store::Tree* const tree_;
  // Evaluated and not yet published: by key, the new item or its absence.
  std::map<std::string, std::optional<std::string>> pending_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_STATE_MACHINE_H_
