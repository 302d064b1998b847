// What a replicated service supplies: a deterministic function of the log, with durable results.
#ifndef DYNLIB_REPLICATION_STATE_MACHINE_H_
#define DYNLIB_REPLICATION_STATE_MACHINE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"

namespace dynlib::replication {

// One command to apply. `command` is what was proposed, of which only the first occurrence comes here (rule R10).
struct AppliedCommand {
  Slot slot = 0;
  std::string_view command;
};

// A small record of the exactly-once table. It is replicated state like any other: the state machine stores it under
// `key` (9 bytes at most) in the same atomic step as the commands' effects; an empty value deletes it.
struct SessionRecord {
  std::string key;
  std::string value;
};

// Called on the group's apply executor, where file calls may block; one call at a time.
class StateMachine {
 public:
  virtual ~StateMachine() = default;

  // The slot through which the recovered state is applied, durably.
  virtual Slot applied() const = 0;

  // Gives every stored session record, in any order.
  virtual absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) = 0;

  // Applies the commands in order, stores the session records, and moves applied() to `through`, all in one step that
  // readers see whole or not at all. `results` gets one string of at most 1,024 bytes for each command: what the
  // proposer is told, also when it asks again. A function of the state and the commands alone (rule R10).
  // An error stops this replica from applying and leading; nothing of the step may then be visible.
  virtual absl::Status Apply(std::span<const AppliedCommand> commands,
                             std::span<const SessionRecord> sessions, Slot through,
                             std::vector<std::string>* results) = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_STATE_MACHINE_H_
