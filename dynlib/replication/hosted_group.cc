#include "dynlib/replication/hosted_group.h"

#include <algorithm>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

// One step of the state machine takes at most this much, so that reads get their turn.
constexpr size_t kApplyEntriesMax = 1024;
constexpr size_t kApplyBytesMax = 4 << 20;

using ChosenEntries = std::vector<std::pair<Slot, Payload>>;

}  // namespace

// Turns chosen entries into steps of the state machine, each command once (R10).
struct HostedGroup::Applier {
  StateMachine* state_machine;
  bool deduplicate = true;
  bool loaded = false;
  SessionTable sessions;

  ApplyOutcome Run(const ChosenEntries& entries);

 private:
  struct Plan {
    Slot slot;
    ClientId client;
    uint64_t sequence;
    SessionTable::Decision decision;
    size_t command;  // Index among those that are applied.
  };
};

HostedGroup::ApplyOutcome HostedGroup::Applier::Run(const ChosenEntries& entries) {
  ApplyOutcome outcome{.status = absl::OkStatus(), .through = entries.back().first, .results = {}};
  if (!loaded) {
    outcome.status = state_machine->LoadSessions([&](std::string_view key, std::string_view value) {
      if (outcome.status.ok()) outcome.status = sessions.Load(key, value);
    });
    if (!outcome.status.ok()) return outcome;
    loaded = true;
  }
  std::vector<AppliedCommand> commands;
  std::vector<Plan> plans;
  for (const auto& [slot, payload] : entries) {
    const LoggedCommand logged = DecodeLogged(*payload);
    if (logged.kind == LoggedCommand::Kind::kExpireSessions) sessions.Expire(logged.proposed);
    if (logged.kind != LoggedCommand::Kind::kCommand) continue;
    Plan plan{slot, logged.client, logged.sequence, sessions.Admit(logged), commands.size()};
    if (!deduplicate && plan.decision.verdict == SessionTable::Verdict::kDuplicate)
      plan.decision = {};
    if (plan.decision.verdict == SessionTable::Verdict::kApply)
      commands.push_back({slot, logged.command});
    plans.push_back(std::move(plan));
  }
  std::vector<std::string> results;
  if (!commands.empty()) outcome.status = state_machine->Evaluate(commands, &results);
  if (!outcome.status.ok()) return outcome;
  DYNLIB_CHECK(results.size() == commands.size());
  for (const Plan& plan : plans) {
    if (plan.decision.verdict != SessionTable::Verdict::kApply) continue;
    DYNLIB_CHECK(results[plan.command].size() <= StateMachine::kResultBytesMax);
    sessions.SetResult(plan.client, plan.sequence, {absl::StatusCode::kOk, results[plan.command]});
  }
  for (Plan& plan : plans) {
    SessionResult result;
    switch (plan.decision.verdict) {
      case SessionTable::Verdict::kApply:
        result.result = std::move(results[plan.command]);
        break;
      case SessionTable::Verdict::kRefused:
        result = std::move(plan.decision.refusal);
        break;
      case SessionTable::Verdict::kDuplicate:
        if (const SessionResult* known = sessions.Find(plan.client, plan.sequence)) {
          result = *known;
        } else {
          result = {absl::StatusCode::kInvalidArgument,
                    "the client acknowledged the answer already"};
        }
    }
    outcome.results.emplace_back(plan.slot, std::move(result));
  }
  outcome.status =
      state_machine->Publish({.sessions = sessions.TakeChanges(), .through = outcome.through});
  return outcome;
}

HostedGroup::HostedGroup(const HostOptions& options, std::unique_ptr<GroupCore> core, bool lost,
                         StateMachine* state_machine, Executor* home, Executor* apply_executor,
                         const Clock* clock, absl::AnyInvocable<void()> changed)
    : options_(options),
      core_(std::move(core)),
      lost_(lost),
      home_(home),
      apply_executor_(apply_executor),
      clock_(clock),
      changed_(std::move(changed)),
      applier_(std::make_shared<Applier>(Applier{.state_machine = state_machine,
                                                 .deduplicate = !options.faults.no_deduplication})),
      applied_(state_machine->applied()) {}

absl::Status HostedGroup::NotLeader() const {
  const std::optional<Member> leader = core_->leader();
  if (!leader.has_value())
    return absl::FailedPreconditionError("not the leader; no leader is known");
  return absl::FailedPreconditionError(Cat("not the leader; node ", leader->node, " may be"));
}

void HostedGroup::Answer(ProposeCallback done, ProposalResult result) {
  if (result.status.code() == absl::StatusCode::kFailedPrecondition)
    result.leader_hint = core_->leader();
  home_->Post(
      [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

void HostedGroup::EndRead(ReadCallback done, absl::Status status) {
  home_->Post(
      [done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
}

void HostedGroup::Propose(Command command, ProposeCallback done) {
  auto refuse = [&](absl::Status status) {
    Answer(std::move(done), {.status = std::move(status), .result = {}, .leader_hint = {}});
  };
  if (closed_.has_value()) return refuse(*closed_);
  if (ToUint(command.client) == 0 || command.sequence == 0) {
    return refuse(absl::InvalidArgumentError(Cat("client is ", command.client, " and sequence is ",
                                                 command.sequence, "; both must be at least 1")));
  }
  if (core_->role() != Role::kLeader) return refuse(NotLeader());
  if (proposals_.size() >= options_.waiting_proposals_max) {
    return refuse(absl::ResourceExhaustedError(
        Cat(proposals_.size(), " proposals wait; allowed: ", options_.waiting_proposals_max)));
  }
  const LoggedCommand logged{.kind = LoggedCommand::Kind::kCommand,
                             .client = command.client,
                             .sequence = command.sequence,
                             .acknowledged = command.acknowledged,
                             .issued = command.issued,
                             .proposed = clock_->WallNow(),
                             .command = command.command};
  absl::StatusOr<Slot> slot =
      core_->Propose(std::make_shared<const std::string>(EncodeLogged(logged)), clock_->Now());
  if (!slot.ok()) return refuse(slot.status());
  proposals_.emplace(*slot, Waiting{command.client, command.sequence, std::move(done)});
  ExpireSessionsIfDue();
}

void HostedGroup::ExpireSessionsIfDue() {
  const WallTime now = clock_->WallNow();
  if (now < next_expiry_) return;
  const bool first = next_expiry_ == WallTime();
  next_expiry_ = now + options_.session_expiry / 4;
  if (first) return;
  const LoggedCommand expire{.kind = LoggedCommand::Kind::kExpireSessions,
                             .proposed = now - options_.session_expiry,
                             .command = {}};
  // When it does not fit now, it will in a while.
  core_->Propose(std::make_shared<const std::string>(EncodeLogged(expire)), clock_->Now())
      .IgnoreError();
}

void HostedGroup::OnDeposed() {
  std::map<Slot, Waiting> proposals;
  proposals.swap(proposals_);
  for (auto& [slot, waiting] : proposals) {
    Answer(std::move(waiting.done),
           {.status = absl::UnknownError("leadership was lost; the command may be applied or not"),
            .result = {},
            .leader_hint = {}});
  }
}

void HostedGroup::Pump(Instant now) {
  if (closed_.has_value()) return;
  StartApply();
  std::deque<WaitingRead> reads;
  reads.swap(reads_);
  for (WaitingRead& read : reads) {
    if (!TryRead(read, now)) reads_.push_back(std::move(read));
  }
}

void HostedGroup::StartApply() {
  if (applying_ || !failure_.ok() || applied_ >= core_->chosen()) return;
  ChosenEntries entries;
  size_t bytes = 0;
  for (Slot slot = applied_ + 1; slot <= core_->chosen(); ++slot) {
    entries.emplace_back(slot, core_->ChosenEntry(slot));
    bytes += entries.back().second->size();
    if (entries.size() >= kApplyEntriesMax || bytes >= kApplyBytesMax) break;
  }
  applying_ = true;
  apply_executor_->Post(
      [self = shared_from_this(), applier = applier_, entries = std::move(entries)]() mutable {
        ApplyOutcome outcome = applier->Run(entries);
        Executor* home = self->home_;
        home->Post([self = std::move(self), outcome = std::move(outcome)]() mutable {
          self->FinishApply(std::move(outcome));
        });
      });
}

void HostedGroup::FinishApply(ApplyOutcome outcome) {
  applying_ = false;
  if (closed_.has_value()) return;
  if (!outcome.status.ok()) {
    failure_ = std::move(outcome.status);
    core_->SetMayLead(false, clock_->Now());
    changed_();
    return;
  }
  applied_ = outcome.through;
  for (auto& [slot, result] : outcome.results) {
    auto it = proposals_.find(slot);
    if (it == proposals_.end()) continue;
    ProposalResult answer;
    if (result.code == absl::StatusCode::kOk) {
      answer.result = std::move(result.result);
    } else {
      answer.status = absl::Status(result.code, result.result);
    }
    Answer(std::move(it->second.done), std::move(answer));
    proposals_.erase(it);
  }
  changed_();
}

void HostedGroup::Read(absl::AnyInvocable<void()> read, ReadCallback done) {
  if (closed_.has_value()) return EndRead(std::move(done), *closed_);
  if (core_->role() != Role::kLeader) return EndRead(std::move(done), NotLeader());
  const size_t waiting_reads = reads_.size() + reads_running_;
  if (waiting_reads >= options_.waiting_reads_max) {
    return EndRead(std::move(done),
                   absl::ResourceExhaustedError(
                       Cat(waiting_reads, " reads wait; allowed: ", options_.waiting_reads_max)));
  }
  const Instant now = clock_->Now();
  WaitingRead waiting{.read = std::move(read),
                      .done = std::move(done),
                      .deadline = now + options_.read_wait,
                      .ballot = core_->promised()};
  if (!TryRead(waiting, now)) reads_.push_back(std::move(waiting));
}

bool HostedGroup::TryRead(WaitingRead& read, Instant now) {
  if (core_->role() != Role::kLeader || core_->promised() != read.ballot) {
    EndRead(std::move(read.done), NotLeader());
    return true;
  }
  if (now >= read.deadline) {
    EndRead(std::move(read.done),
            absl::UnavailableError(Cat("no lease, or the read point was not applied, within ",
                                       ToMicros(options_.read_wait), " us")));
    return true;
  }
  if (!read.admitted) {
    if (!core_->HoldsLease(now)) {
      core_->RenewLease(now);
      return false;
    }
    read.admitted = true;
    read.point = core_->read_point();
  }
  if (applied_ < read.point && !options_.faults.reply_before_apply) return false;
  ++reads_running_;
  apply_executor_->Post([self = shared_from_this(), body = std::move(read.read),
                         done = std::move(read.done), ballot = read.ballot]() mutable {
    body();
    Executor* home = self->home_;
    home->Post([self = std::move(self), done = std::move(done), ballot]() mutable {
      self->FinishRead(std::move(done), ballot);
    });
  });
  return true;
}

// R7: only a lease that still holds makes what was read the newest state.
void HostedGroup::FinishRead(ReadCallback done, Ballot ballot) {
  --reads_running_;
  if (closed_.has_value()) return done(*closed_);
  if (core_->role() != Role::kLeader || core_->promised() != ballot) return done(NotLeader());
  if (!core_->HoldsLease(clock_->Now()))
    return done(absl::UnavailableError("the lease ran out during the read"));
  done(absl::OkStatus());
}

void HostedGroup::Checkpointed(Slot slot) { core_->SetCheckpoint(slot); }

void HostedGroup::Close(absl::Status status) {
  if (closed_.has_value()) return;
  closed_ = status;
  for (auto& [slot, waiting] : std::exchange(proposals_, {})) {
    Answer(std::move(waiting.done), {.status = status, .result = {}, .leader_hint = {}});
  }
  for (WaitingRead& read : std::exchange(reads_, {})) EndRead(std::move(read.done), status);
}

Instant HostedGroup::next_deadline() const {
  const Instant core = lost_ ? Instant::Infinite() : core_->next_deadline();
  return reads_.empty() ? core : std::min(core, reads_.front().deadline);
}

GroupStatus HostedGroup::Status(Instant now) const {
  return {.group = core_->group(),
          .self = core_->self(),
          .role = core_->role(),
          .promised = core_->promised(),
          .leader = core_->leader(),
          .holds_lease = core_->HoldsLease(now),
          .failed = lost_ || !failure_.ok(),
          .chosen = core_->chosen(),
          .applied = applied_,
          .last = core_->last_slot(),
          .released = core_->released(),
          .retained_bytes = core_->retained_bytes()};
}

}  // namespace dynlib::replication
