// One group on a node: the core, what waits for it, and the way from chosen entries to applied
// commands.
//
// GroupHost owns these and is the only one to call them; applications see Command, ProposalResult
// and GroupStatus.
//
// Threads: everything on the host's executor, but for the state machine, which is called on the
// apply executor.
#ifndef DYNLIB_REPLICATION_HOSTED_GROUP_H_
#define DYNLIB_REPLICATION_HOSTED_GROUP_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/applier.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/message.h"
#include "dynlib/replication/payload_blocks.h"
#include "dynlib/replication/resting.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::replication {

struct Command {
  ClientId client{};
  uint64_t sequence = 0;  // counts up from 1
  uint64_t acknowledged =
      0;            // every sequence up to here has been answered and will not be asked again
  WallTime issued;  // when the client first sent it; the same when it is sent again
  std::string command;
};

struct ProposalResult {
  absl::Status status;
  std::string result;                 // of the state machine
  std::optional<Member> leader_hint;  // with kFailedPrecondition
  // With kResourceExhausted: as long as nothing has been chosen here, 1 ms to 1 s.
  std::optional<Duration> retry_after;
};

struct GroupStatus {
  PartitionId group{};
  ReplicaId self{};
  Role role = Role::kFollower;
  Ballot promised;
  std::optional<Member> leader;
  bool supported = false;  // a leader whom a quorum supports: the one that counts
  bool holds_lease = false;
  bool failed = false;  // the state machine returned an error, or the replica's log was lost (R3)
  Slot chosen = 0;
  Slot applied = 0;
  Slot last = 0;
  Slot released = 0;
  size_t retained_bytes = 0;
  MemberKind kind = MemberKind::kStorage;
  Configuration configuration;  // the newest known to be chosen
  bool changing = false;  // of a leader: another, or the log's end, is proposed; the rest waits
  bool member = false;    // the configuration names this replica
  // A later configuration is in force without this replica: it may be dropped.
  bool removed = false;
  uint64_t version = 1;                 // of its commands, in force here (R10)
  Slot ended = 0;                       // of the group's last entry, once chosen; else 0
  std::vector<LearnerStatus> learners;  // of a leader
  std::vector<PeerStatus> peers;        // of a leader: members, learners and who left
  size_t unchosen_bytes = 0;            // of a leader: proposed and not yet chosen
  size_t waiting_proposals = 0;         // not yet answered here
  size_t waiting_reads = 0;
};

using ProposeCallback = absl::AnyInvocable<void(ProposalResult)>;
using LearnerCallback = absl::AnyInvocable<void(absl::StatusOr<LearnerStatus>)>;
using ChangeCallback = absl::AnyInvocable<void(absl::StatusOr<uint64_t>)>;
using ReadCallback = absl::AnyInvocable<void(absl::Status)>;

class HostedGroup : public std::enable_shared_from_this<HostedGroup> {
 public:
  using Answers = std::vector<std::pair<ProposeCallback, ProposalResult>>;

  // Where a group goes on.
  struct Begin {
    bool lost = false;
    Slot applied = 0;           // The state machine's position,
    uint64_t stored_epoch = 0;  // and the epoch of the configuration that it keeps.
    WallTime next_expiry;       // Of sessions, as of a group that was put to rest.
  };
  HostedGroup(const HostOptions& options, std::unique_ptr<GroupCore> core, const Begin& begin,
              StateMachine* state_machine, Executor* home, Executor* apply_executor,
              const Clock* clock, std::shared_ptr<PayloadSlabs> slabs);

  GroupCore& core() { return *core_; }
  const GroupCore& core() const { return *core_; }
  // A replica whose ballots may be lost takes no part (R3).
  bool lost() const { return lost_; }
  // Not OK once the state machine failed: the replica votes, but neither applies nor leads.
  const absl::Status& failure() const { return failure_; }

  void Step(GroupMessage& message, Instant now);
  // The log was released, as far as the core says.
  void OnReleased() {
    if (core_->retained_bytes() == 0) blocks_.Clear();
  }
  // While the members change, proposals wait here for the change to be made.
  void Propose(Command command, bool ends, ProposeCallback done);
  void AddLearner(const Member& learner, Slot from, LearnerCallback done);
  // `reads`: the highest version of commands that a node is known to read.
  using ReadsVersion = absl::FunctionRef<uint64_t(NodeId)>;
  void ChangeMembers(uint64_t expected_epoch, std::vector<Member> members, ReadsVersion reads,
                     ChangeCallback done);
  void RaiseVersion(uint64_t version, ReadsVersion reads, ProposeCallback done);
  void Read(absl::AnyInvocable<void()> read, ReadCallback done);
  // False if Pump and TakeStep have nothing to do, and the core has no effects.
  bool HasWork() const;
  // After an input to the core: lets waiting proposals and reads through.
  void Pump(Instant now);
  // What the state machine is to do next, if anything and if it is at nothing: to be run by
  // applier() on the apply executor, and what came of it to be given to FinishApply.
  std::optional<ApplyStep> TakeStep(Instant now);
  Applier& applier() { return applier_; }
  Executor* apply_executor() const { return apply_executor_; }
  // Adds whom to answer, and what: to be called last, since a callback may do anything, also
  // destroy the host. True if the group is to be looked at again, as after an input to the core.
  bool FinishApply(ApplyOutcome outcome, Answers& answers);
  void OnDeposed();
  void Checkpointed(Slot slot);
  // Everything that waits ends with `status`, and what is asked later too.
  void Close(absl::Status status);
  // What there is to be kept of a group at rest besides WallTime next_expiry(): its exactly-once
  // table is in the state machine, and read again when it is needed. Nothing if it is not at rest.
  std::optional<RestingMember> Rest(Instant now) const;
  WallTime next_expiry() const { return next_expiry_; }
  Instant next_deadline() const;
  GroupStatus Status(Instant now) const;
  static GroupStatus StatusOf(const GroupCore& core, Slot applied, uint64_t version, Instant now);

 private:
  // Not proposed yet: the members are being changed.
  struct Held {
    Command command;
    bool ends = false;
    ProposeCallback done;
  };
  struct WaitingChange {
    uint64_t epoch = 0;
    std::vector<Member> members;
    ChangeCallback done;
  };
  struct Waiting {
    Slot slot = 0;
    ProposeCallback done;
  };
  struct WaitingRead {
    absl::AnyInvocable<void()> read;
    ReadCallback done;
    Instant deadline;
    bool admitted = false;  // It is known that this replica leads, and `point` is set.
    bool by_lease = false;  // Else by a quorum, in `round`.
    uint64_t round = 0;
    Ballot ballot;
    Slot point = 0;
  };

  // Also in the moment in which it asks new members for their votes.
  bool Leads() const { return core_->role() == Role::kLeader || core_->Busy(); }
  absl::Status NotLeader() const;
  Payload PayloadOf(const LoggedCommand& logged);
  void ExpireSessionsIfDue(WallTime wall_now, Instant now);
  void Answer(ProposeCallback done, ProposalResult result);
  absl::Status CheckVersion(uint64_t version) const;
  absl::Status CheckReads(const Member& member, uint64_t version, ReadsVersion reads) const;
  void ProposeHeld();
  void EndChanges();
  bool PutsOffApply(Instant now);
  ApplyStep NextStep() const;
  ApplyStep NextLogStep();
  // False if the read must go on waiting.
  bool TryRead(WaitingRead& read, Instant now);
  // True if the read may begin once its point is applied.
  bool AdmitRead(WaitingRead& read, Instant now);
  void FinishRead(ReadCallback done, Ballot ballot, bool by_lease);
  void EndRead(ReadCallback done, absl::Status status);

  const HostOptions& options_;
  std::unique_ptr<GroupCore> core_;
  const bool lost_;
  uint64_t stored_epoch_;       // Of the newest configuration given to the state machine.
  bool end_evaluated_ = false;  // Of a log replica, in this boot.
  Executor* const home_;
  Executor* const apply_executor_;
  const Clock* const clock_;

  Applier applier_;  // The apply executor's.
  bool applying_ = false;
  Instant apply_at_ = Instant::Infinite();  // What is put off.
  absl::Status failure_;
  std::optional<absl::Status> closed_;
  Slot applied_ = 0;
  uint64_t version_;               // Of commands, as applied,
  uint64_t version_proposed_ = 0;  // or as proposed here, perhaps in vain.
  std::deque<Waiting> proposals_;  // In slot order.
  PayloadBlocks blocks_;
  std::deque<Held> held_;
  size_t held_bytes_ = 0;
  std::vector<WaitingChange> changes_;
  std::deque<WaitingRead> reads_;
  size_t reads_running_ = 0;  // On the apply executor.
  WallTime next_expiry_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_HOSTED_GROUP_H_
