#include "dynlib/replication/hosted_group.h"

#include <algorithm>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

// One step of the state machine takes at most this much, so that reads get their turn.
constexpr size_t kApplyEntriesMax = 1024;
constexpr size_t kApplyBytesMax = 4 << 20;
// A follower under load applies after this time, or when this much is to be applied.
constexpr Duration kApplyPutOffMax = std::chrono::milliseconds(5);
constexpr Slot kApplyLagMax = 512;
constexpr size_t kWaitingChangesMax = 64;
constexpr Duration kRetryMin = std::chrono::milliseconds(1);
constexpr Duration kRetryMax = std::chrono::seconds(1);

bool SameMembers(const std::vector<Member>& a, const std::vector<Member>& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const Member& member) {
           return std::find(b.begin(), b.end(), member) != b.end();
         });
}

}  // namespace

HostedGroup::HostedGroup(const HostOptions& options, std::unique_ptr<GroupCore> core,
                         const Begin& begin, StateMachine* state_machine, Executor* home,
                         Executor* apply_executor, const Clock* clock,
                         std::shared_ptr<PayloadSlabs> slabs)
    : options_(options),
      core_(std::move(core)),
      lost_(begin.lost),
      stored_epoch_(begin.stored_epoch),
      home_(home),
      apply_executor_(apply_executor),
      clock_(clock),
      applier_(state_machine, core_->kind(), options.reads_version,
               !options.faults.no_deduplication),
      applied_(begin.applied),
      version_(state_machine->version()),
      blocks_(std::move(slabs)),
      next_expiry_(begin.next_expiry) {
  failure_ = CheckVersion(version_);
  if (!failure_.ok()) core_->SetMayLead(false, clock_->Now());
}

absl::Status HostedGroup::NotLeader() const {
  const std::optional<Member> leader = core_->leader();
  if (!leader.has_value())
    return absl::FailedPreconditionError("not the leader; no leader is known");
  return absl::FailedPreconditionError(Cat("not the leader; node ", leader->node, " may be"));
}

void HostedGroup::Answer(ProposeCallback done, ProposalResult result) {
  if (result.status.code() == absl::StatusCode::kFailedPrecondition)
    result.leader_hint = core_->leader();
  if (result.status.code() == absl::StatusCode::kResourceExhausted) {
    result.retry_after =
        std::clamp<Duration>(core_->ChoiceOverdue(clock_->Now()), kRetryMin, kRetryMax);
  }
  home_->Post(
      [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

void HostedGroup::EndRead(ReadCallback done, absl::Status status) {
  home_->Post(
      [done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
}

void HostedGroup::Propose(Command command, bool ends, ProposeCallback done) {
  auto refuse = [&](absl::Status status) {
    Answer(std::move(done), {.status = std::move(status), .result = {}, .leader_hint = {}});
  };
  if (closed_.has_value()) return refuse(*closed_);
  if (ToUint(command.client) == 0 || command.sequence == 0) {
    return refuse(absl::InvalidArgumentError(Cat("client is ", command.client, " and sequence is ",
                                                 command.sequence, "; both must be at least 1")));
  }
  if (!Leads()) return refuse(NotLeader());
  const size_t waiting = proposals_.size() + held_.size();
  if (waiting >= options_.waiting_proposals_max) {
    return refuse(absl::ResourceExhaustedError(
        Cat(waiting, " proposals wait; allowed: ", options_.waiting_proposals_max)));
  }
  if (core_->Busy()) {
    if (held_bytes_ + command.command.size() > options_.group.unchosen_bytes_max) {
      return refuse(absl::ResourceExhaustedError(
          Cat(held_bytes_, " bytes wait for a change of the group's members; allowed: ",
              options_.group.unchosen_bytes_max)));
    }
    held_bytes_ += command.command.size();
    held_.push_back({std::move(command), ends, std::move(done)});
    return;
  }
  const WallTime wall_now = clock_->WallNow();
  const LoggedCommand logged{
      .kind = ends ? LoggedCommand::Kind::kEnd : LoggedCommand::Kind::kCommand,
      .client = command.client,
      .sequence = command.sequence,
      .acknowledged = command.acknowledged,
      .issued = command.issued,
      .proposed = wall_now,
      .command = command.command};
  Payload payload = PayloadOf(logged);
  const Instant now = clock_->Now();
  absl::StatusOr<Slot> slot =
      ends ? core_->ProposeEnd(std::move(payload), now) : core_->Propose(std::move(payload), now);
  if (!slot.ok()) return refuse(slot.status());
  DYNLIB_CHECK(proposals_.empty() || proposals_.back().slot < *slot);
  proposals_.push_back({*slot, std::move(done)});
  ExpireSessionsIfDue(wall_now, now);
}

Payload HostedGroup::PayloadOf(const LoggedCommand& logged) {
  const LoggedHead head(logged);
  auto [to, payload] =
      blocks_.Take(head.bytes().size() + logged.command.size(), core_->retained_bytes());
  to = std::copy(head.bytes().begin(), head.bytes().end(), to);
  std::copy(logged.command.begin(), logged.command.end(), to);
  return payload;
}

void HostedGroup::ExpireSessionsIfDue(WallTime wall_now, Instant now) {
  if (wall_now < next_expiry_) return;
  const bool first = next_expiry_ == WallTime();
  next_expiry_ = wall_now + options_.session_expiry / 4;
  if (first) return;
  const LoggedCommand expire{.kind = LoggedCommand::Kind::kExpireSessions,
                             .proposed = wall_now - options_.session_expiry,
                             .command = {}};
  // When it does not fit now, it will in a while.
  core_->Propose(PayloadOf(expire), now).IgnoreError();
}

// Entries are taken out of the message, which may hold those of many groups: the log may have to
// keep them for long. The message's memory is at once there for the next.
void HostedGroup::Step(GroupMessage& message, Instant now) {
  if (auto* accept = std::get_if<Accept>(&message.body)) {
    for (Payload& entry : accept->entries) {
      if (entry == nullptr) continue;
      auto [to, copy] = blocks_.Take(entry->size(), core_->retained_bytes());
      std::copy(entry->begin(), entry->end(), to);
      entry = std::move(copy);
    }
  }
  core_->Step(message, now);
}

// Nothing of these was logged: who does not lead any more says no more than that.
void HostedGroup::ProposeHeld() {
  while (!held_.empty() && !core_->Busy()) {
    Held held = std::move(held_.front());
    held_.pop_front();
    held_bytes_ -= held.command.command.size();
    Propose(std::move(held.command), held.ends, std::move(held.done));
  }
}

void HostedGroup::AddLearner(const Member& learner, Slot from, LearnerCallback done) {
  absl::StatusOr<LearnerStatus> status = closed_.has_value()
                                             ? absl::StatusOr<LearnerStatus>(*closed_)
                                             : core_->AddLearner(learner, from, clock_->Now());
  home_->Post(
      [done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
}

void HostedGroup::ChangeMembers(uint64_t expected_epoch, std::vector<Member> members,
                                ReadsVersion reads, ChangeCallback done) {
  auto answer = [&](absl::StatusOr<uint64_t> result) {
    home_->Post([done = std::move(done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
  };
  if (closed_.has_value()) return answer(*closed_);
  if (!Leads()) return answer(NotLeader());
  if (changes_.size() >= kWaitingChangesMax) {
    return answer(absl::ResourceExhaustedError(Cat(
        changes_.size(), " callers wait for a change of members; allowed: ", kWaitingChangesMax)));
  }
  for (const Member& member : members) {
    if (core_->configuration().Find(member.replica) != nullptr) continue;
    absl::Status status = CheckReads(member, std::max(version_, version_proposed_), reads);
    if (!status.ok()) return answer(std::move(status));
  }
  WaitingChange waiting{core_->configuration().epoch, std::move(members), nullptr};
  auto same = std::find_if(changes_.begin(), changes_.end(), [&](const WaitingChange& other) {
    return SameMembers(other.members, waiting.members);
  });
  if (same != changes_.end()) {
    waiting.epoch = same->epoch;
  } else if (!SameMembers(core_->configuration().members, waiting.members)) {
    absl::StatusOr<Slot> slot =
        core_->ProposeMembers(expected_epoch, waiting.members, clock_->Now());
    if (!slot.ok()) return answer(slot.status());
    waiting.epoch = *slot;
  }
  waiting.done = std::move(done);
  changes_.push_back(std::move(waiting));
}

// A change was made when this leader has led on under it: then a quorum of the new members knows.
void HostedGroup::EndChanges() {
  const bool settled = core_->Settled();
  if (changes_.empty() || (!settled && Leads())) return;
  for (WaitingChange& change : std::exchange(changes_, {})) {
    absl::StatusOr<uint64_t> result = change.epoch;
    if (!settled || core_->configuration().epoch != change.epoch) {
      result = absl::UnknownError("leadership was lost; the change may be made or not");
    }
    home_->Post([done = std::move(change.done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
  }
}

void HostedGroup::OnDeposed() {
  for (Waiting& waiting : std::exchange(proposals_, {})) {
    Answer(std::move(waiting.done),
           {.status = absl::UnknownError("leadership was lost; the command may be applied or not"),
            .result = {},
            .leader_hint = {}});
  }
}

bool HostedGroup::HasWork() const {
  const bool applies = core_->kind() == MemberKind::kLog || core_->chosen() > applied_;
  const bool waits = !held_.empty() || !changes_.empty() || !reads_.empty();
  return waits || (applies && !applying_) || !failure_.ok() || core_->HasEffects();
}

void HostedGroup::Pump(Instant now) {
  if (closed_.has_value()) return;
  blocks_.EndTurn();
  ProposeHeld();
  EndChanges();
  if (reads_.empty()) return;
  std::deque<WaitingRead> reads;
  reads.swap(reads_);
  for (WaitingRead& read : reads) {
    if (!TryRead(read, now)) reads_.push_back(std::move(read));
  }
}

std::optional<ApplyStep> HostedGroup::TakeStep(Instant now) {
  if (PutsOffApply(now) || applying_ || !failure_.ok() || closed_.has_value()) return std::nullopt;
  const bool log = core_->kind() == MemberKind::kLog;
  if (!log && applied_ >= core_->chosen()) return std::nullopt;
  ApplyStep step = log ? NextLogStep() : NextStep();
  if (step.entries.empty() && !step.publish) return std::nullopt;
  if (step.publish) {
    const Configuration& configuration = core_->ConfigurationAt(step.through);
    if (configuration.epoch > stored_epoch_) step.configuration = configuration;
  }
  applying_ = true;
  return step;
}

// Somebody waits for what a follower is making durable, and nobody for what it applies. Where word
// of what was chosen comes with new entries, more will follow: it applies in a while, many in a
// step.
bool HostedGroup::PutsOffApply(Instant now) {
  const Slot lag = core_->chosen() - applied_;
  const bool may = lag > 0 && lag < kApplyLagMax && !Leads();
  if (may && !core_->all_durable()) apply_at_ = std::min(apply_at_, now + kApplyPutOffMax);
  if (may && apply_at_ != Instant::Infinite() && now < apply_at_) return true;
  apply_at_ = Instant::Infinite();
  return false;
}

ApplyStep HostedGroup::NextStep() const {
  ApplyStep step{.entries = {}, .through = applied_, .configuration = {}, .publish = false};
  size_t bytes = 0;
  step.entries.reserve(std::min<size_t>(core_->chosen() - applied_, kApplyEntriesMax));
  for (Slot slot = applied_ + 1; slot <= core_->chosen(); ++slot) {
    step.entries.emplace_back(slot, core_->ChosenEntry(slot));
    step.through = slot;
    step.publish = true;
    bytes += step.entries.back().second->size();
    if (step.entries.size() >= kApplyEntriesMax || bytes >= kApplyBytesMax) break;
    const LoggedCommand logged = DecodeLogged(*step.entries.back().second);
    if (logged.kind == LoggedCommand::Kind::kCommand && applier_.EndsStep(logged.command)) {
      break;
    }
  }
  return step;
}

// A log replica needs no command but the one that ends the log, and that as soon as it is chosen;
// its position follows what the trees of the others hold (R9).
ApplyStep HostedGroup::NextLogStep() {
  ApplyStep step{.entries = {},
                 .through = std::min(core_->chosen(), core_->held_by_storage()),
                 .configuration = {},
                 .publish = false};
  step.publish = step.through > applied_;
  const Slot ended = core_->ended();
  if (ended > applied_ && !end_evaluated_) {
    end_evaluated_ = true;
    step.entries.emplace_back(ended, core_->ChosenEntry(ended));
  }
  return step;
}

bool HostedGroup::FinishApply(ApplyOutcome outcome, Answers& answers) {
  applying_ = false;
  if (closed_.has_value()) return false;
  if (!outcome.status.ok()) {
    failure_ = std::move(outcome.status);
    core_->SetMayLead(false, clock_->Now());
    return true;
  }
  applied_ = std::max(applied_, outcome.through);
  stored_epoch_ = std::max(stored_epoch_, core_->ConfigurationAt(applied_).epoch);
  version_ = std::max(version_, outcome.version);
  for (auto& [slot, result] : outcome.results) {
    // Those of another leader's time, or of before this boot, are nobody's here.
    while (!proposals_.empty() && proposals_.front().slot < slot) proposals_.pop_front();
    if (proposals_.empty() || proposals_.front().slot != slot) continue;
    ProposalResult answer;
    if (result.code == absl::StatusCode::kOk) {
      answer.result = std::move(result.result);
    } else {
      answer.status = absl::Status(result.code, result.result);
      if (result.code == absl::StatusCode::kFailedPrecondition)
        answer.leader_hint = core_->leader();
    }
    answers.emplace_back(std::move(proposals_.front().done), std::move(answer));
    proposals_.pop_front();
  }
  return applied_ < core_->chosen() || !reads_.empty() || core_->kind() == MemberKind::kLog;
}

void HostedGroup::Read(absl::AnyInvocable<void()> read, ReadCallback done) {
  if (closed_.has_value()) return EndRead(std::move(done), *closed_);
  if (!Leads()) return EndRead(std::move(done), NotLeader());
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
  if (!Leads() || core_->promised() != read.ballot) {
    EndRead(std::move(read.done), NotLeader());
    return true;
  }
  if (now >= read.deadline) {
    EndRead(std::move(read.done),
            absl::UnavailableError(
                Cat("no lease and no quorum, or the read point was not applied, within ",
                    ToMicros(options_.read_wait), " us")));
    return true;
  }
  if (!read.admitted && !AdmitRead(read, now)) return false;
  if (applied_ < read.point && !options_.faults.reply_before_apply) return false;
  ++reads_running_;
  apply_executor_->Post([self = shared_from_this(), body = std::move(read.read),
                         done = std::move(read.done), ballot = read.ballot,
                         by_lease = read.by_lease]() mutable {
    body();
    Executor* home = self->home_;
    home->Post([self = std::move(self), done = std::move(done), ballot, by_lease]() mutable {
      self->FinishRead(std::move(done), ballot, by_lease);
    });
  });
  return true;
}

bool HostedGroup::AdmitRead(WaitingRead& read, Instant now) {
  read.by_lease = options_.lease_reads && core_->HoldsLease(now);
  if (!read.by_lease) {
    if (options_.lease_reads) core_->RenewLease(now);
    if (read.round == 0) read.round = core_->AskForConfirmation(now);
    if (!core_->Confirmed(read.round)) return false;
  }
  read.admitted = true;
  read.point = core_->read_point();
  return true;
}

// R7: only a lease that still holds makes what was read the newest state. What a quorum confirmed
// was true after the read arrived, and stays so.
void HostedGroup::FinishRead(ReadCallback done, Ballot ballot, bool by_lease) {
  --reads_running_;
  if (closed_.has_value()) return done(*closed_);
  if (!by_lease) return done(absl::OkStatus());
  if (!Leads() || core_->promised() != ballot) return done(NotLeader());
  if (!core_->HoldsLease(clock_->Now()))
    return done(absl::UnavailableError("the lease ran out during the read"));
  done(absl::OkStatus());
}

void HostedGroup::Checkpointed(Slot slot) { core_->SetCheckpoint(slot, clock_->Now()); }

void HostedGroup::Close(absl::Status status) {
  if (closed_.has_value()) return;
  closed_ = status;
  for (Waiting& waiting : std::exchange(proposals_, {})) {
    Answer(std::move(waiting.done), {.status = status, .result = {}, .leader_hint = {}});
  }
  for (Held& held : std::exchange(held_, {})) {
    Answer(std::move(held.done), {.status = status, .result = {}, .leader_hint = {}});
  }
  held_bytes_ = 0;
  for (WaitingChange& change : std::exchange(changes_, {})) {
    home_->Post([done = std::move(change.done), status]() mutable { done(status); });
  }
  for (WaitingRead& read : std::exchange(reads_, {})) EndRead(std::move(read.done), status);
}

Instant HostedGroup::next_deadline() const {
  const Instant core = lost_ ? Instant::Infinite() : core_->next_deadline();
  const Instant first = std::min(core, apply_at_);
  return reads_.empty() ? first : std::min(first, reads_.front().deadline);
}

std::optional<RestingMember> HostedGroup::Rest(Instant now) const {
  const bool waiting = applying_ || reads_running_ > 0 || !proposals_.empty() || !held_.empty() ||
                       !changes_.empty() || !reads_.empty();
  const bool well = !lost_ && failure_.ok() && !closed_.has_value();
  if (waiting || !well || applied_ != core_->chosen() ||
      stored_epoch_ != core_->configuration().epoch) {
    return std::nullopt;
  }
  return core_->Rest(now);
}

GroupStatus HostedGroup::Status(Instant now) const {
  GroupStatus status = StatusOf(*core_, applied_, version_, now);
  status.failed = lost_ || !failure_.ok();
  status.waiting_proposals = proposals_.size() + held_.size();
  status.waiting_reads = reads_.size() + reads_running_;
  return status;
}

GroupStatus HostedGroup::StatusOf(const GroupCore& core, Slot applied, uint64_t version,
                                  Instant now) {
  return {.group = core.group(),
          .self = core.self(),
          .role = core.role(),
          .promised = core.promised(),
          .leader = core.leader(),
          .supported = core.HasSupport(now),
          .holds_lease = core.HoldsLease(now),
          .chosen = core.chosen(),
          .applied = applied,
          .last = core.last_slot(),
          .released = core.released(),
          .retained_bytes = core.retained_bytes(),
          .kind = core.kind(),
          .configuration = core.configuration(),
          .changing = core.Busy(),
          .member = core.member(),
          .removed = core.removed(),
          .version = version,
          .ended = core.ended(),
          .learners = core.Learners(),
          .peers = core.Peers(),
          .unchosen_bytes = core.unchosen_bytes()};
}

}  // namespace dynlib::replication
