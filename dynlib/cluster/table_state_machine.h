// A partition of a table as a replicated state machine: items in a tree, changed by logged writes.
//
// One tree holds everything that a replica needs to start again, so that it is checkpointed, copied
// and scrubbed as one: the partition's description, the group's configuration, the exactly-once
// table, and the items. Conditions are evaluated when a command is applied, in log order (rule
// R10).
//
//   key in the tree        value
//   00 'c'                 the group's configuration as of the position, as replication encodes it
//   00 'd'                 the description: wire::CreateReplicaRequest, of this replica
//   00 'e'                 how the log ended: wire::EndRecord
//   00 'i'                 a copy of another replica's tree, not whole yet
//   00 's' + session key   a record of the exactly-once table
//   00 'v'                 the version of the commands, varint, if it was ever raised (rule R10)
//   01 + storage key       an item, as item.h encodes it
//
// A split is applied in one step (rule R11): the items go over to the trees of the two children,
// which begin with a copy of the exactly-once table; what is left is the record that says so. A log
// replica, whose tree has no items, does the same. A merge's record leaves the items where they are
// until both halves have ended (replica_set.h).
//
// A scrub marker ends its step, and the version that the step makes is pinned (rule R12).
//
// Internal to the cluster.
//
// Threads: as StateMachine says; Get, Scan and the static functions from any thread where file
// calls are allowed.
#ifndef DYNLIB_CLUSTER_TABLE_STATE_MACHINE_H_
#define DYNLIB_CLUSTER_TABLE_STATE_MACHINE_H_

#include <atomic>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/scrub_pins.h"
#include "dynlib/cluster/split_faults_for_test.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::cluster {

class TableStateMachine : public replication::StateMachine {
 public:
  // `tree` outlives it.
  explicit TableStateMachine(store::Tree* tree) : tree_(tree) {}

  // Before the first command: what ending the log takes. `ended` is called on the apply executor
  // after the step that ended it. A log replica, whose position follows later, makes its heirs when
  // the end is chosen.
  void EnableEnd(store::PageFile* pages, NodeId self, bool log_replica,
                 absl::AnyInvocable<void(const wire::EndRecord&)> ended,
                 const SplitFaultsForTest& faults = {});

  // The description that the tree was made with; kDataLoss if it has none.
  static absl::StatusOr<std::string> Describe(const store::Tree& tree);
  // Of a new, empty tree.
  static absl::Status Initialise(store::Tree& tree, std::string description);
  // Of a log replica's: its log starts after `base`.
  static absl::Status InitialiseLog(store::Tree& tree, std::string description,
                                    const replication::Configuration& configuration, Slot base);
  // Of a tree that is to become a copy; until FinishCopy it IsCopying.
  static absl::Status BeginCopy(store::Tree& tree, std::string description);
  static absl::Status FinishCopy(store::Tree& tree, uint64_t position,
                                 const SplitFaultsForTest& faults = {});
  static absl::StatusOr<bool> IsCopying(const store::Tree& tree);
  // Whether the key belongs to what replicas of a partition share, and copies take over.
  static bool IsShared(std::string_view tree_key);
  // All keys of the tree that are items'.
  static std::string FirstItemKey();
  static std::string ItemKey(std::string_view storage_key);
  static std::string EndOfItemKeys();

  // How the log ended, if it did.
  static absl::StatusOr<std::optional<wire::EndRecord>> StoredEnd(const store::Tree& tree);
  // The tree of a merged partition, out of those of its halves, which have both ended. When the log
  // of one of them ended otherwise (two admins acted at once), the merged partition is what the
  // other half was: what is chosen stays, and each replica sees the same two ends. kNotFound: the
  // node has no part in it.
  static absl::Status Join(store::PageFile& pages, NodeId self, const store::Tree& left,
                           const store::Tree& right, const SplitFaultsForTest& faults = {});
  static absl::Status TakeOver(store::PageFile& pages, NodeId self, const store::Tree& half,
                               const SplitFaultsForTest& faults = {});

  // The group's configuration as of the tree's position, if one was published.
  static absl::StatusOr<std::optional<replication::Configuration>> StoredConfiguration(
      const store::Tree& tree);

  // The encoded item. kNotFound, here and in Scan: the log ended, and the items are others'.
  absl::StatusOr<std::optional<std::string>> Get(std::string_view storage_key) const;
  // Visits items with storage keys in [first, end), an empty end being none.
  absl::Status Scan(
      std::string_view first, std::string_view end, bool reverse,
      absl::FunctionRef<bool(std::string_view key, std::string_view item)> visit) const;

  // Of scrubs: what was pinned at their markers.
  ScrubPins& scrub_pins() { return scrub_pins_; }
  // Proposed as a command; the result is a wire::WriteResult with the slot.
  static std::string ScrubMarker(uint64_t scrub);

  // Reads what version() gives: of a tree that was there before.
  absl::Status LoadVersion();

  Slot applied() const override { return tree_->position(); }
  uint64_t version() const override { return version_.load(); }
  absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) override;
  bool EndsStep(std::string_view command) const override;
  absl::Status Evaluate(std::span<const replication::AppliedCommand> commands,
                        std::vector<std::string>* results) override;
  absl::Status Publish(const replication::PublishedStep& step) override;

 private:
  absl::StatusOr<std::optional<std::string>> Current(const std::string& key) const;
  absl::StatusOr<std::string> EvaluateOne(std::string_view command);
  absl::Status CheckHasItems() const;
  static absl::StatusOr<uint64_t> StoredVersion(const store::Tree& tree);
  static void PutVersion(uint64_t version, store::WriteBatch& batch);
  absl::Status PublishEnd(const replication::PublishedStep& step);
  absl::Status PublishSplit(const replication::PublishedStep& step, const wire::EndRecord& record);
  store::WriteBatch Metadata(const replication::PublishedStep& step) const;
  void TakePending(store::WriteBatch& batch);

  static constexpr std::string_view kVersionKey{"\0v", 2};

  store::Tree* const tree_;
  std::atomic<uint64_t> version_ = 1;
  store::PageFile* pages_ = nullptr;
  NodeId self_{};
  bool log_replica_ = false;
  absl::AnyInvocable<void(const wire::EndRecord&)> ended_;
  SplitFaultsForTest faults_;
  // Evaluated and not yet published: by key, the new item or its absence.
  std::map<std::string, std::optional<std::string>> pending_;
  std::optional<wire::EndRecord> pending_end_;
  struct Mark {
    uint64_t scrub;
    Slot slot;
  };
  std::optional<Mark> pending_mark_;
  ScrubPins scrub_pins_;
  // Set before the items go: who looked before and finds it unset saw them.
  std::atomic<bool> items_go_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_STATE_MACHINE_H_
