// Turns chosen entries of a group into steps of its state machine, each command once (rule R10).
//
//   Applier applier(&state_machine, MemberKind::kStorage);
//   ApplyOutcome outcome = applier.Run(step, scratch);
//
// The exactly-once table lives here. It is read from the state machine before the first step, and
// its changes are published together with the effects of the commands.
//
// Threads: the group's apply executor; the scratch is whoever's runs the step.
#ifndef DYNLIB_REPLICATION_APPLIER_H_
#define DYNLIB_REPLICATION_APPLIER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/session_table.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

// What the state machine is to do next.
struct ApplyStep {
  // A group among many has one at a time.
  absl::InlinedVector<std::pair<Slot, Payload>, 1> entries;
  Slot through = 0;
  std::optional<Configuration> configuration;  // in force from `through` on, if it is a new one
  bool publish = true;
};

struct ApplyOutcome {
  absl::Status status;
  Slot through = 0;      // 0: nothing was published.
  uint64_t version = 0;  // not 0: of the commands from now on
  absl::InlinedVector<std::pair<Slot, SessionResult>, 1> results;
};

class Applier {
 public:
  // What a step needs while it runs, kept by whoever runs many.
  class Scratch {
   private:
    friend class Applier;
    struct Plan {
      Slot slot;
      ClientId client;
      uint64_t sequence;
      SessionTable::Decision decision;
      size_t command;  // Index among those that are applied.
      bool raises_version = false;
    };
    std::vector<AppliedCommand> commands;
    std::vector<Plan> plans;
    std::vector<std::string> results;
  };

  // kUnimplemented, of a step: `reads_version` is less than the version that it finds or raises.
  Applier(StateMachine* state_machine, MemberKind kind, uint64_t reads_version,
          bool deduplicate = true)
      : state_machine_(state_machine),
        kind_(kind),
        reads_version_(reads_version),
        deduplicate_(deduplicate),
        version_(state_machine->version()) {}

  ApplyOutcome Run(const ApplyStep& step, Scratch& scratch);

  // As StateMachine::EndsStep; on any executor.
  bool EndsStep(std::string_view command) const { return state_machine_->EndsStep(command); }

 private:
  absl::Status LoadSessions();
  absl::Status RaiseVersion(Slot slot, uint64_t version);
  absl::Status Evaluate(const ApplyStep& step, Scratch& scratch);
  SessionResult ResultOf(Scratch::Plan& plan, Scratch& scratch) const;
  absl::Status Publish(const ApplyStep& step, const std::vector<SessionRecord>& sessions,
                       uint64_t version);
  // Of a log replica, which has neither effects nor sessions.
  ApplyOutcome RunWithoutState(const ApplyStep& step, Scratch& scratch);

  StateMachine* const state_machine_;
  const MemberKind kind_;
  const uint64_t reads_version_;
  const bool deduplicate_;
  uint64_t version_;  // of the commands
  bool loaded_ = false;
  SessionTable sessions_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_APPLIER_H_
