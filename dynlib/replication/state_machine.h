// What a replicated service supplies: a deterministic function of the log, with durable results.
#ifndef DYNLIB_REPLICATION_STATE_MACHINE_H_
#define DYNLIB_REPLICATION_STATE_MACHINE_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

// One command to apply: what was proposed, of which only the first occurrence comes here (rule
// R10).
struct AppliedCommand {
  Slot slot = 0;
  std::string_view command;
  // Proposed by ProposeEnd: the group's last command; nothing comes after its slot. It comes to log
  // replicas too, whose other commands do not.
  bool ends = false;
  // In force at its slot: what the command means (rule R10). See StateMachine::version.
  uint64_t version = 1;
};

// A small record of the exactly-once table. It is replicated state like any other: the state
// machine stores it under `key` (at most 9 bytes) together with the effects of the commands; an
// empty value deletes it.
struct SessionRecord {
  std::string key;
  std::string value;
};

// What a step leaves behind, all at once.
struct PublishedStep {
  std::span<const SessionRecord> sessions;
  Slot through = 0;
  // Not null: the group's configuration from now on. It is kept with the position, so that a
  // restart never begins with a configuration older than its position (rule R2); the owner hands it
  // back in GroupSetup.
  const Configuration* configuration = nullptr;
  // Not 0: the version of the commands from now on, kept with the position too.
  uint64_t version = 0;
};

// Called on the group's apply executor, where file calls may block; one call at a time. A step is
// an Evaluate followed by a Publish. An error of either stops this replica from applying and
// leading, and nothing of the step may be visible.
class StateMachine {
 public:
  // Small, since a client may have thousands of results that it has not acknowledged, all in one
  // record.
  static constexpr size_t kResultBytesMax = 128;

  virtual ~StateMachine() = default;

  // The slot through which the recovered state is applied, durably.
  virtual Slot applied() const = 0;

  // The version of the commands in force at applied(), as of the last Publish that named one; 1
  // before. Cheap; from any thread while no step is under way.
  //
  // What a command means may change only with it. It is raised by an entry of the log
  // (GroupHost::RaiseVersion), so that a command means the same on every replica, whenever it is
  // applied. A replica whose node reads less (HostOptions::reads_version) neither applies nor
  // leads.
  virtual uint64_t version() const { return 1; }

  // Gives every stored session record, as of the last Publish, in any order. Called before the
  // first Evaluate, and again before the next one after the group was at rest.
  virtual absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) = 0;

  // Whether the step in which the command is applied must end with it, so that what Publish shows
  // then is the state at just the command's slot. Called on the node's executor: cheap, and a
  // function of the command alone.
  virtual bool EndsStep(std::string_view command) const { return false; }

  // Works out the commands in order, each seeing the effects of those before, without showing them
  // to readers. Appends one result of at most kResultBytesMax a command: what the proposer is told,
  // also when it asks again. A function of the state and the commands alone (rule R10).
  virtual absl::Status Evaluate(std::span<const AppliedCommand> commands,
                                std::vector<std::string>* results) = 0;

  // Shows the evaluated effects, stores the session records and the configuration, and moves
  // applied() to `through`, all at once.
  //
  // A log replica's state machine only moves its position, to what all storage replicas hold in
  // durable trees: it is given no commands, but the one that ends the group. That is evaluated as
  // soon as it is chosen, and published with its slot like any other position: perhaps much later,
  // and then not without having been evaluated once more if the process restarted in between.
  virtual absl::Status Publish(const PublishedStep& step) = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_STATE_MACHINE_H_
