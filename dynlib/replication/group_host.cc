#include "dynlib/replication/group_host.h"

#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/log_records.h"
#include "dynlib/replication/message_codec.h"

namespace dynlib::replication {
namespace {

constexpr Duration kLogRetry = std::chrono::milliseconds(50);
// What groups say to a node goes in messages of about this much.
constexpr size_t kMessageBytes = 8 << 20;

size_t PayloadBytes(const GroupMessage& message) {
  size_t bytes = 0;
  if (const auto* accept = std::get_if<Accept>(&message.body)) {
    for (const Payload& entry : accept->entries) bytes += entry->size();
  } else if (const auto* promise = std::get_if<Promise>(&message.body)) {
    for (const Entry& entry : promise->entries) bytes += entry.payload->size();
  }
  return bytes;
}

std::string_view EventName(GroupCore::Event::Kind kind) {
  switch (kind) {
    case GroupCore::Event::Kind::kElectionStarted:
      return "replication.election_started";
    case GroupCore::Event::Kind::kElected:
      return "replication.elected";
    case GroupCore::Event::Kind::kDeposed:
      return "replication.deposed";
    case GroupCore::Event::Kind::kLeaderHealthy:
      return "replication.leader_healthy";
    case GroupCore::Event::Kind::kUnknownDecidedEmpty:
      return "replication.unknown_decided_empty";
    case GroupCore::Event::Kind::kTooFarBehind:
      return "replication.too_far_behind";
  }
  return "replication.event";
}

}  // namespace

class GroupHost::Impl : public std::enable_shared_from_this<GroupHost::Impl> {
 public:
  Impl(HostOptions options, NodeId self, Transport* transport, Channel channel, ReplicaLog* log,
       Executor* executor, const Clock* clock, MetricsSink* metrics)
      : options_(std::move(options)),
        self_(self),
        transport_(transport),
        channel_(channel),
        log_(log),
        executor_(executor),
        clock_(clock),
        metrics_(metrics) {
    DYNLIB_CHECK(Validate(options_).ok());
    options_.group.faults = options_.faults;
    options_.liveness.faults = options_.faults;
  }

  void Start(const RecoveredStream& node_stream, absl::AnyInvocable<void(absl::Status)> done);
  absl::Status AddGroup(PartitionId id, const GroupSetup& setup, StateMachine* state_machine,
                        Executor* apply_executor, const RecoveredStream& recovered);
  void Propose(PartitionId id, Command command, ProposeCallback done);
  void Read(PartitionId id, absl::AnyInvocable<void()> read, ReadCallback done);
  void Checkpointed(PartitionId id, Slot slot);
  std::optional<GroupStatus> Status(PartitionId id) const;
  std::vector<GroupStatus> AllStatus() const;
  bool Hears(NodeId node) const {
    return liveness_ != nullptr && liveness_->Hears(node, clock_->Now());
  }
  void Stop();
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback) { on_fatal_ = std::move(callback); }

 private:
  struct Group {
    std::shared_ptr<HostedGroup> hosted;
    Instant deadline = Instant::Infinite();
    bool dirty = false;
    Slot released = 0;
  };
  // Frames given to the log together, and whom to tell.
  struct Batch {
    std::vector<LogFrame> frames;
    std::vector<std::pair<PartitionId, uint64_t>> marks;
    bool durable = false;
  };
  struct Unstarted {
    PartitionId id;
    GroupSetup setup;
    StateMachine* state_machine;
    Executor* apply_executor;
    RecoveredStream recovered;
  };

  void FinishStart();
  void MakeGroup(const Unstarted& spec);
  Group* Find(PartitionId id);
  void MarkDirty(PartitionId id);
  void RequestFlush();
  void Flush();
  void TakeGroupEffects(PartitionId id, Group& group, Instant now, Batch& batch);
  void TakeLivenessEffects(Instant now);
  void SendOutbox();
  void Append(Batch batch);
  void Enqueue(Batch batch);
  void GiveToLog(uint64_t index);
  void OnAppended(uint64_t index, absl::Status status);
  void DeliverDurable();
  void RetryLog();
  void Halt(const absl::Status& why);
  void ReportFatal(absl::Status why);
  void OnMessage(NodeId from, const std::string& bytes);
  void AnswerForLost(NodeId from, const GroupMessage& message);
  void OnTimer();
  void ProbeLog(Instant now);
  void ArmTimer();

  HostOptions options_;
  const NodeId self_;
  Transport* const transport_;
  const Channel channel_;
  ReplicaLog* const log_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  absl::AnyInvocable<void(absl::Status)> on_fatal_;
  bool stopped_ = false;
  bool halted_ = false;
  NodeState node_state_;
  std::unique_ptr<Liveness> liveness_;
  std::vector<Unstarted> unstarted_;
  std::map<PartitionId, Group> groups_;
  std::vector<PartitionId> dirty_;
  bool flush_posted_ = false;
  std::map<NodeId, NodeMessage> outbox_;

  // The log answers in order; a batch that did not fit is given again with all that came after it.
  std::deque<Batch> batches_;
  uint64_t first_batch_ = 0;  // Index of batches_.front().
  size_t at_log_ = 0;         // Given to the log and not yet answered.
  bool log_blocked_ = false;
  uint64_t refused_from_ = 0;  // While blocked: the first batch that did not fit.
  bool retry_scheduled_ = false;
  Instant last_append_;

  std::set<std::pair<Instant, PartitionId>> deadlines_;
  Executor::TimerId timer_ = Executor::kNoTimer;
  Instant timer_at_ = Instant::Infinite();
};

void GroupHost::Impl::Start(const RecoveredStream& node_stream,
                            absl::AnyInvocable<void(absl::Status)> done) {
  absl::StatusOr<NodeState> recovered = RecoverNodeState(node_stream);
  if (!recovered.ok()) {
    executor_->Post(
        [done = std::move(done), status = recovered.status()]() mutable { done(status); });
    return;
  }
  const Duration boot_wait = recovered->support;
  node_state_.incarnation = recovered->incarnation + 1;
  node_state_.support = std::max(recovered->support, options_.liveness.support);
  std::vector<LogFrame> frames;
  frames.push_back(NodeFrame(node_state_));
  log_->Append(std::move(frames), [self = shared_from_this(), done = std::move(done),
                                   boot_wait](absl::Status status) mutable {
    if (self->stopped_) status = absl::CancelledError("shut down");
    if (status.ok()) {
      // The wait counts from now: whatever was granted before the boot was granted earlier.
      self->liveness_ = std::make_unique<Liveness>(
          self->options_.liveness, self->node_state_.incarnation, boot_wait, self->clock_->Now());
      self->FinishStart();
    }
    done(status);
  });
}

void GroupHost::Impl::FinishStart() {
  last_append_ = clock_->Now();
  for (const Unstarted& spec : std::exchange(unstarted_, {})) MakeGroup(spec);
  transport_->Listen(channel_, executor_,
                     [weak = weak_from_this()](NodeId from, std::string bytes) {
                       if (auto self = weak.lock()) self->OnMessage(from, bytes);
                     });
  RequestFlush();
}

absl::Status GroupHost::Impl::AddGroup(PartitionId id, const GroupSetup& setup,
                                       StateMachine* state_machine, Executor* apply_executor,
                                       const RecoveredStream& recovered) {
  if (absl::Status status = Validate(setup.configuration); !status.ok()) return status;
  const size_t frame_max = options_.group.proposal_bytes_max + 2 * ReplicaLog::kFrameOverheadBytes;
  if (frame_max > log_->append_bytes_max()) {
    return absl::InvalidArgumentError(
        Cat("group.proposal_bytes_max is ", options_.group.proposal_bytes_max,
            "; allowed here: up to ", log_->append_bytes_max(), " - ",
            2 * ReplicaLog::kFrameOverheadBytes, ", what the log takes at a time"));
  }
  if (id == kNodeStream)
    return absl::InvalidArgumentError("partition id is 0; allowed: at least 1");
  const Member* self = setup.configuration.Find(setup.self);
  if (self == nullptr || self->node != self_ || self->kind != setup.kind) {
    return absl::InvalidArgumentError(Cat("configuration of partition ", id, " has no ",
                                          KindName(setup.kind), " replica ", setup.self,
                                          " on node ", self_));
  }
  const bool waiting = std::any_of(unstarted_.begin(), unstarted_.end(),
                                   [id](const Unstarted& u) { return u.id == id; });
  if (waiting || groups_.contains(id))
    return absl::AlreadyExistsError(Cat("partition ", id, " is here"));
  Unstarted spec{id, setup, state_machine, apply_executor, recovered};
  if (liveness_ == nullptr) {
    unstarted_.push_back(std::move(spec));
  } else {
    MakeGroup(spec);
    RequestFlush();
  }
  return absl::OkStatus();
}

void GroupHost::Impl::MakeGroup(const Unstarted& spec) {
  const Instant now = clock_->Now();
  for (const Member& member : spec.setup.configuration.members) {
    if (member.node != self_) liveness_->AddPeer(member.node, now);
  }
  auto core = std::make_unique<GroupCore>(
      options_.group, spec.id, spec.setup.self, spec.setup.configuration,
      RecoverGroup(spec.recovered, spec.state_machine->applied()),
      options_.seed * 0x9e3779b97f4a7c15 + ToUint(spec.id), liveness_.get(), now);
  Group& group = groups_[spec.id];
  group.hosted = std::make_shared<HostedGroup>(options_, std::move(core), spec.recovered.lost,
                                               spec.state_machine, executor_, spec.apply_executor,
                                               clock_, [this, id = spec.id] { MarkDirty(id); });
  if (spec.recovered.lost) {
    // Its ballots may be gone, and with them what it promised (R3): it says nothing until it is
    // replaced.
    const EventField fields[] = {{"partition", Cat(spec.id)}};
    metrics_->Event("replication.replica_lost", fields);
  }
  MarkDirty(spec.id);
}

GroupHost::Impl::Group* GroupHost::Impl::Find(PartitionId id) {
  auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : &it->second;
}

void GroupHost::Impl::MarkDirty(PartitionId id) {
  Group& group = groups_[id];
  if (group.dirty) return;
  group.dirty = true;
  dirty_.push_back(id);
  RequestFlush();
}

// Inputs of one turn share a flush: one batch for the log, one message a peer.
void GroupHost::Impl::RequestFlush() {
  if (flush_posted_ || stopped_) return;
  flush_posted_ = true;
  executor_->Post([self = shared_from_this()] {
    self->flush_posted_ = false;
    self->Flush();
  });
}

void GroupHost::Impl::Flush() {
  if (stopped_ || liveness_ == nullptr) return;
  const Instant now = clock_->Now();
  TakeLivenessEffects(now);
  Batch batch;
  // By index: a group's effects may mark others, or itself again.
  std::vector<PartitionId> dirty;
  dirty.swap(dirty_);
  for (PartitionId id : dirty) {
    Group& group = groups_[id];
    group.dirty = false;
    TakeGroupEffects(id, group, now, batch);
  }
  TakeLivenessEffects(now);  // A promise may have ended support.
  if (!batch.frames.empty()) Append(std::move(batch));
  SendOutbox();
  ArmTimer();
}

void GroupHost::Impl::TakeGroupEffects(PartitionId id, Group& group, Instant now, Batch& batch) {
  HostedGroup& hosted = *group.hosted;
  if (hosted.lost() || halted_) return;
  hosted.Pump(now);
  if (!hosted.failure().ok()) ReportFatal(hosted.failure());
  GroupCore::Effects effects = hosted.core().TakeEffects(now);
  for (GroupCore::Record& record : effects.records)
    batch.frames.push_back(ToFrame(id, std::move(record)));
  if (!effects.records.empty()) batch.marks.emplace_back(id, effects.last_record);
  for (GroupMessage& message : effects.messages) {
    const Member* member = hosted.core().configuration().Find(message.to);
    outbox_[member->node].groups.push_back(std::move(message));
  }
  if (effects.deposed) hosted.OnDeposed();
  for (const GroupCore::Event& event : effects.events) {
    const EventField fields[] = {{"partition", Cat(id)},
                                 {"node", Cat(self_)},
                                 {"round", Cat(event.ballot.round())},
                                 {"slot", Cat(event.slot)}};
    metrics_->Count(EventName(event.kind), 1);
    metrics_->Event(EventName(event.kind), fields);
  }
  const Slot released = hosted.core().released();
  if (released > group.released) {
    group.released = released;
    log_->Release(id, released);
  }
  const Instant deadline = hosted.next_deadline();
  if (deadline != group.deadline) {
    deadlines_.erase({group.deadline, id});
    group.deadline = deadline;
    if (deadline != Instant::Infinite()) deadlines_.insert({deadline, id});
  }
}

void GroupHost::Impl::TakeLivenessEffects(Instant now) {
  Liveness::Effects effects = liveness_->TakeEffects();
  for (auto& [node, message] : effects.messages) outbox_[node].liveness.push_back(message);
  for (const Liveness::Event& event : effects.events) {
    for (auto& [id, group] : groups_) {
      if (group.hosted->lost()) continue;
      group.hosted->core().OnPeerEvent(event, now);
      MarkDirty(id);
    }
  }
}

void GroupHost::Impl::SendOutbox() {
  for (auto& [node, message] : std::exchange(outbox_, {})) {
    if (halted_) continue;
    // Groups that catch up together may have more to say than one message can carry.
    NodeMessage part{.groups = {}, .liveness = std::move(message.liveness)};
    size_t bytes = 0;
    for (GroupMessage& group : message.groups) {
      const size_t size = PayloadBytes(group);
      if (!part.groups.empty() && bytes + size > kMessageBytes) {
        transport_->Send(node, channel_, Encode(std::exchange(part, {})));
        bytes = 0;
      }
      bytes += size;
      part.groups.push_back(std::move(group));
    }
    transport_->Send(node, channel_, Encode(part));
  }
}

// As many appends as the log's bound asks for; what the batch makes durable is durable with the
// last.
void GroupHost::Impl::Append(Batch batch) {
  last_append_ = clock_->Now();
  const size_t bytes_max = log_->append_bytes_max();
  Batch part;
  size_t bytes = 0;
  for (LogFrame& frame : batch.frames) {
    const size_t size = ReplicaLog::kFrameOverheadBytes + frame.header.size() +
                        (frame.payload == nullptr ? 0 : frame.payload->size());
    if (!part.frames.empty() && bytes + size > bytes_max) {
      Enqueue(std::exchange(part, {}));
      bytes = 0;
    }
    bytes += size;
    part.frames.push_back(std::move(frame));
  }
  part.marks = std::move(batch.marks);
  Enqueue(std::move(part));
}

void GroupHost::Impl::Enqueue(Batch batch) {
  batches_.push_back(std::move(batch));
  if (!log_blocked_) GiveToLog(first_batch_ + batches_.size() - 1);
}

void GroupHost::Impl::GiveToLog(uint64_t index) {
  ++at_log_;
  log_->Append(batches_[index - first_batch_].frames,
               [self = shared_from_this(), index](absl::Status status) {
                 self->OnAppended(index, std::move(status));
               });
}

void GroupHost::Impl::OnAppended(uint64_t index, absl::Status status) {
  --at_log_;
  if (stopped_ || halted_) return;
  if (status.ok()) {
    // What came after one that did not fit is given again too: the newest state must be the last in
    // the log. What came before it stands, also when its answer comes later: so each round of
    // retries gets further, however much waits.
    if (!log_blocked_ || index < refused_from_) batches_[index - first_batch_].durable = true;
  } else if (status.code() == absl::StatusCode::kResourceExhausted) {
    refused_from_ = log_blocked_ ? std::min(refused_from_, index) : index;
    log_blocked_ = true;
    metrics_->Count("replication.log_full", 1);
  } else {
    Halt(status);
    return;
  }
  DeliverDurable();
  if (log_blocked_ && at_log_ == 0 && !retry_scheduled_) {
    retry_scheduled_ = true;
    executor_->RunAt(clock_->Now() + kLogRetry, [self = shared_from_this()] { self->RetryLog(); });
  }
}

void GroupHost::Impl::DeliverDurable() {
  const Instant now = clock_->Now();
  while (!batches_.empty() && batches_.front().durable) {
    for (const auto& [id, record] : batches_.front().marks) {
      groups_[id].hosted->core().Persisted(record, now);
      MarkDirty(id);
    }
    batches_.pop_front();
    ++first_batch_;
  }
}

void GroupHost::Impl::RetryLog() {
  retry_scheduled_ = false;
  if (stopped_ || halted_) return;
  log_blocked_ = false;
  const uint64_t end = first_batch_ + batches_.size();
  for (uint64_t index = first_batch_; index < end; ++index) GiveToLog(index);
}

// The log is closed for good (L3): what is in flight may be durable or not, and this node may vote
// no more.
void GroupHost::Impl::Halt(const absl::Status& why) {
  halted_ = true;
  liveness_->SetLogHealthy(false);
  const EventField fields[] = {{"node", Cat(self_)}, {"why", std::string(ToStd(why.message()))}};
  metrics_->Event("replication.log_closed", fields);
  for (auto& [id, group] : groups_) {
    group.hosted->OnDeposed();
    group.hosted->Close(
        absl::UnavailableError(Cat("the node's log is closed: ", ToStd(why.message()))));
  }
  ReportFatal(why);
}

void GroupHost::Impl::ReportFatal(absl::Status why) {
  if (on_fatal_ == nullptr) return;
  executor_->Post([callback = std::exchange(on_fatal_, nullptr), why = std::move(why)]() mutable {
    callback(why);
  });
}

void GroupHost::Impl::OnMessage(NodeId from, const std::string& bytes) {
  if (stopped_ || halted_) return;
  absl::StatusOr<NodeMessage> message = DecodeNodeMessage(bytes);
  if (!message.ok()) {
    metrics_->Count("replication.bad_messages", 1);
    return;
  }
  const Instant now = clock_->Now();
  for (const LivenessMessage& liveness : message->liveness) liveness_->Step(from, liveness, now);
  if (!message->liveness.empty()) RequestFlush();
  for (const GroupMessage& body : message->groups) {
    Group* group = Find(body.group);
    if (group == nullptr) {
      metrics_->Count("replication.unknown_group_messages", 1);
      continue;
    }
    const GroupCore& core = group->hosted->core();
    const Member* sender = core.configuration().Find(body.from);
    if (sender == nullptr || sender->node != from || body.to != core.self() ||
        body.epoch != core.configuration().epoch) {
      metrics_->Count("replication.foreign_messages", 1);
      continue;
    }
    if (group->hosted->lost()) {
      AnswerForLost(from, body);
      continue;
    }
    group->hosted->core().Step(body, now);
    MarkDirty(body.group);
  }
}

// A replica that lost its ballots says nothing but that it does not lead and never will at this
// ballot: its node lives, and without that word its group would wait for it (R3, R5).
void GroupHost::Impl::AnswerForLost(NodeId from, const GroupMessage& message) {
  if (!std::holds_alternative<HealthQuery>(message.body)) return;
  GroupMessage reply{
      .group = message.group,
      .from = message.to,
      .to = message.from,
      .epoch = message.epoch,
      .ballot = message.ballot,
      .body = HealthReply{.healthy = false, .abandoned = message.ballot.proposer() == message.to}};
  outbox_[from].groups.push_back(std::move(reply));
  RequestFlush();
}

void GroupHost::Impl::ArmTimer() {
  Instant at = halted_ ? Instant::Infinite() : liveness_->next_deadline();
  if (!deadlines_.empty()) at = std::min(at, deadlines_.begin()->first);
  if (at >= timer_at_) return;  // An early call is harmless and arms again.
  if (timer_ != Executor::kNoTimer) executor_->Cancel(timer_);
  timer_at_ = at;
  timer_ = executor_->RunAt(at, [self = shared_from_this()] { self->OnTimer(); });
}

void GroupHost::Impl::OnTimer() {
  timer_ = Executor::kNoTimer;
  timer_at_ = Instant::Infinite();
  if (stopped_ || halted_) return;
  const Instant now = clock_->Now();
  ProbeLog(now);
  liveness_->Tick(now);
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const PartitionId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    Group& group = groups_[id];
    group.deadline = Instant::Infinite();
    group.hosted->core().Tick(now);
    MarkDirty(id);
  }
  Flush();
}

// R8: a hung disk must show even when nobody writes.
void GroupHost::Impl::ProbeLog(Instant now) {
  const std::optional<Instant> pending = log_->OldestPendingSince();
  liveness_->SetLogHealthy(!log_blocked_ &&
                           (!pending.has_value() || now - *pending <= options_.log_overdue));
  if (at_log_ > 0 || log_blocked_ || now - last_append_ < options_.log_probe) return;
  Batch probe;
  probe.frames.push_back(NodeFrame(node_state_));
  Append(std::move(probe));
}

void GroupHost::Impl::Propose(PartitionId id, Command command, ProposeCallback done) {
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    ProposalResult result;
    result.status =
        stopped_
            ? absl::CancelledError("shut down")
            : absl::Status(absl::FailedPreconditionError(Cat("partition ", id, " is not here")));
    executor_->Post([done = std::move(done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
    return;
  }
  group->hosted->Propose(std::move(command), std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::Read(PartitionId id, absl::AnyInvocable<void()> read, ReadCallback done) {
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    absl::Status status =
        stopped_
            ? absl::CancelledError("shut down")
            : absl::Status(absl::FailedPreconditionError(Cat("partition ", id, " is not here")));
    executor_->Post([done = std::move(done), status = std::move(status)]() mutable {
      done(std::move(status));
    });
    return;
  }
  group->hosted->Read(std::move(read), std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::Checkpointed(PartitionId id, Slot slot) {
  if (Group* group = Find(id); group != nullptr && !stopped_) {
    group->hosted->Checkpointed(slot);
    MarkDirty(id);
  }
}

std::optional<GroupStatus> GroupHost::Impl::Status(PartitionId id) const {
  auto it = groups_.find(id);
  if (it == groups_.end()) return std::nullopt;
  return it->second.hosted->Status(clock_->Now());
}

std::vector<GroupStatus> GroupHost::Impl::AllStatus() const {
  std::vector<GroupStatus> all;
  for (const auto& [id, group] : groups_) all.push_back(group.hosted->Status(clock_->Now()));
  return all;
}

void GroupHost::Impl::Stop() {
  if (stopped_) return;
  stopped_ = true;
  transport_->StopListening(channel_);
  if (timer_ != Executor::kNoTimer) executor_->Cancel(timer_);
  for (auto& [id, group] : groups_) group.hosted->Close(absl::CancelledError("shut down"));
}

GroupHost::GroupHost(HostOptions options, NodeId self, Transport* transport, Channel channel,
                     ReplicaLog* log, Executor* executor, const Clock* clock, MetricsSink* metrics)
    : impl_(std::make_shared<Impl>(std::move(options), self, transport, channel, log, executor,
                                   clock, metrics)) {}

GroupHost::~GroupHost() { impl_->Stop(); }

void GroupHost::Start(const RecoveredStream& node_stream,
                      absl::AnyInvocable<void(absl::Status)> done) {
  impl_->Start(node_stream, std::move(done));
}
absl::Status GroupHost::AddGroup(PartitionId group, const GroupSetup& setup,
                                 StateMachine* state_machine, Executor* apply_executor,
                                 const RecoveredStream& recovered) {
  return impl_->AddGroup(group, setup, state_machine, apply_executor, recovered);
}
void GroupHost::Propose(PartitionId group, Command command, ProposeCallback done) {
  impl_->Propose(group, std::move(command), std::move(done));
}
void GroupHost::Read(PartitionId group, absl::AnyInvocable<void()> read, ReadCallback done) {
  impl_->Read(group, std::move(read), std::move(done));
}
void GroupHost::Checkpointed(PartitionId group, Slot slot) { impl_->Checkpointed(group, slot); }
std::optional<GroupStatus> GroupHost::Status(PartitionId group) const {
  return impl_->Status(group);
}
std::vector<GroupStatus> GroupHost::AllStatus() const { return impl_->AllStatus(); }
bool GroupHost::Hears(NodeId node) const { return impl_->Hears(node); }
void GroupHost::OnFatal(absl::AnyInvocable<void(absl::Status)> callback) {
  impl_->OnFatal(std::move(callback));
}
void GroupHost::Stop() { impl_->Stop(); }

}  // namespace dynlib::replication
