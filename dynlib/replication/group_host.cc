#include "dynlib/replication/group_host.h"

#include <algorithm>
#include <set>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/log_queue.h"
#include "dynlib/replication/log_records.h"
#include "dynlib/replication/message_codec.h"

namespace dynlib::replication {
namespace {

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
    case GroupCore::Event::Kind::kConfigured:
      return "replication.configured";
    case GroupCore::Event::Kind::kRemoved:
      return "replication.removed";
    case GroupCore::Event::Kind::kEnded:
      return "replication.ended";
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
        queue_(std::make_shared<LogQueue>(log, executor, clock, metrics)),
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
  void RemoveGroup(PartitionId id, absl::AnyInvocable<void(absl::Status)> done);
  void Propose(PartitionId id, Command command, bool ends, ProposeCallback done);
  void AddLearner(PartitionId id, const Member& learner, Slot from, LearnerCallback done);
  void ChangeMembers(PartitionId id, uint64_t expected_epoch, std::vector<Member> members,
                     ChangeCallback done);
  void TransferLeadership(PartitionId id);
  void Read(PartitionId id, absl::AnyInvocable<void()> read, ReadCallback done);
  void Checkpointed(PartitionId id, Slot slot);
  std::optional<GroupStatus> Status(PartitionId id) const;
  std::vector<GroupStatus> AllStatus() const;
  bool Hears(NodeId node) const {
    return liveness_ != nullptr && liveness_->Hears(node, clock_->Now());
  }
  void Stop();
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback) { on_fatal_ = std::move(callback); }
  void OnChange(absl::AnyInvocable<void(PartitionId)> callback) {
    on_change_ = std::move(callback);
  }

 private:
  // What OnChange tells of.
  struct Seen {
    Role role = Role::kFollower;
    std::optional<Member> leader;
    uint64_t epoch = 0;
    bool removed = false;
    Slot ended = 0;
    friend bool operator==(const Seen&, const Seen&) = default;
  };
  struct Group {
    std::shared_ptr<HostedGroup> hosted;
    Executor* apply_executor = nullptr;
    Instant deadline = Instant::Infinite();
    bool dirty = false;
    Slot released = 0;
    std::optional<Seen> seen;
    uint64_t nodes_version = 0;
    std::vector<NodeId> nodes;  // Peers of liveness on this group's account.
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
  absl::Status NotHere(PartitionId id) const;
  void MarkDirty(PartitionId id);
  void RequestFlush();
  void Flush();
  void TakeGroupEffects(PartitionId id, Group& group, Instant now, LogQueue::Batch& batch);
  void TellOfChange(PartitionId id, Group& group);
  void SetNodes(Group& group, uint64_t version, std::vector<NodeId> nodes, Instant now);
  void TakeLivenessEffects(Instant now);
  void SendOutbox();
  void OnDurable(const LogQueue::Marks& marks);
  void Halt(const absl::Status& why);
  void ReportFatal(absl::Status why);
  void OnMessage(NodeId from, const std::string& bytes);
  void AnswerForAbsent(NodeId from, const GroupMessage& message);
  void OnTimer();
  void ProbeLog(Instant now);
  void ArmTimer();

  HostOptions options_;
  const NodeId self_;
  Transport* const transport_;
  const Channel channel_;
  ReplicaLog* const log_;
  const std::shared_ptr<LogQueue> queue_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  absl::AnyInvocable<void(absl::Status)> on_fatal_;
  absl::AnyInvocable<void(PartitionId)> on_change_;
  bool stopped_ = false;
  bool halted_ = false;
  NodeState node_state_;
  std::unique_ptr<Liveness> liveness_;
  std::vector<Unstarted> unstarted_;
  std::map<PartitionId, Group> groups_;
  std::set<PartitionId> removing_;
  std::map<NodeId, size_t> node_uses_;  // By how many groups.
  std::vector<PartitionId> dirty_;
  bool flush_posted_ = false;
  std::map<NodeId, NodeMessage> outbox_;

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
  queue_->OnDurable([this](const LogQueue::Marks& marks) { OnDurable(marks); });
  queue_->OnClosed([this](const absl::Status& why) { Halt(why); });
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
  const bool known = self != nullptr && self->node == self_ && self->kind == setup.kind;
  // After its removal a replica is not named; that it was a member shows in the epoch.
  const bool may_be_absent = setup.learner || setup.configuration.epoch > 0;
  if (!known && (self != nullptr || !may_be_absent)) {
    return absl::InvalidArgumentError(Cat("configuration of partition ", id, " has no ",
                                          KindName(setup.kind), " replica ", setup.self,
                                          " on node ", self_));
  }
  const uint64_t replica = ToUint(setup.self);
  if (replica == 0 || replica > Ballot::kReplicaMax) {
    return absl::InvalidArgumentError(
        Cat("replica id is ", replica, "; allowed: 1 to ", Ballot::kReplicaMax));
  }
  const bool waiting = std::any_of(unstarted_.begin(), unstarted_.end(),
                                   [id](const Unstarted& u) { return u.id == id; });
  if (waiting || groups_.contains(id))
    return absl::AlreadyExistsError(Cat("partition ", id, " is here"));
  if (removing_.contains(id))
    return absl::AlreadyExistsError(Cat("partition ", id, " is being removed"));
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
  GroupCore::Recovered recovered = RecoverGroup(spec.recovered, spec.state_machine->applied());
  if (spec.setup.ended) recovered.ended = recovered.applied;
  auto core = std::make_unique<GroupCore>(
      options_.group, spec.id, Member{spec.setup.self, self_, spec.setup.kind}, spec.setup.learner,
      spec.setup.configuration, std::move(recovered),
      options_.seed * 0x9e3779b97f4a7c15 + ToUint(spec.id), liveness_.get(), now);
  Group& group = groups_[spec.id];
  group.apply_executor = spec.apply_executor;
  SetNodes(group, core->nodes_version(), core->Nodes(), now);
  group.hosted = std::make_shared<HostedGroup>(options_, std::move(core), spec.recovered.lost,
                                               spec.setup.configuration.epoch, spec.state_machine,
                                               executor_, spec.apply_executor, clock_,
                                               [this, id = spec.id] { MarkDirty(id); });
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

// Of a group that was removed meanwhile there is nothing to do.
void GroupHost::Impl::MarkDirty(PartitionId id) {
  Group* group = Find(id);
  if (group == nullptr || group->dirty) return;
  group->dirty = true;
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
  LogQueue::Batch batch;
  // By index: a group's effects may mark others, or itself again.
  std::vector<PartitionId> dirty;
  dirty.swap(dirty_);
  for (PartitionId id : dirty) {
    Group* group = Find(id);
    if (group == nullptr) continue;
    group->dirty = false;
    TakeGroupEffects(id, *group, now, batch);
  }
  TakeLivenessEffects(now);  // A promise may have ended support.
  if (!batch.frames.empty()) queue_->Append(std::move(batch));
  SendOutbox();
  ArmTimer();
}

void GroupHost::Impl::TakeGroupEffects(PartitionId id, Group& group, Instant now,
                                       LogQueue::Batch& batch) {
  HostedGroup& hosted = *group.hosted;
  if (hosted.lost() || halted_) return;
  hosted.Pump(now);
  if (!hosted.failure().ok()) ReportFatal(hosted.failure());
  GroupCore::Effects effects = hosted.core().TakeEffects(now);
  for (GroupCore::Record& record : effects.records)
    batch.frames.push_back(ToFrame(id, std::move(record)));
  if (!effects.records.empty()) batch.marks.emplace_back(id, effects.last_record);
  for (GroupMessage& message : effects.messages) {
    outbox_[message.to_node].groups.push_back(std::move(message));
  }
  if (hosted.core().nodes_version() != group.nodes_version) {
    SetNodes(group, hosted.core().nodes_version(), hosted.core().Nodes(), now);
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
  TellOfChange(id, group);
}

void GroupHost::Impl::TellOfChange(PartitionId id, Group& group) {
  const GroupCore& core = group.hosted->core();
  const Seen now{.role = core.role(),
                 .leader = core.leader(),
                 .epoch = core.configuration().epoch,
                 .removed = core.removed(),
                 .ended = core.ended()};
  if (group.seen == now) return;
  group.seen = now;
  if (on_change_ == nullptr) return;
  executor_->Post([self = shared_from_this(), id] {
    if (!self->stopped_) self->on_change_(id);
  });
}

// Support is asked of, and given to, the nodes that some group needs.
void GroupHost::Impl::SetNodes(Group& group, uint64_t version, std::vector<NodeId> nodes,
                               Instant now) {
  for (NodeId node : nodes) {
    if (++node_uses_[node] == 1) liveness_->AddPeer(node, now);
  }
  for (NodeId node : group.nodes) {
    if (--node_uses_[node] > 0) continue;
    node_uses_.erase(node);
    liveness_->RemovePeer(node);
  }
  group.nodes = std::move(nodes);
  group.nodes_version = version;
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

void GroupHost::Impl::OnDurable(const LogQueue::Marks& marks) {
  const Instant now = clock_->Now();
  for (const auto& [id, record] : marks) {
    Group* group = Find(id);
    if (group == nullptr) continue;
    group->hosted->core().Persisted(record, now);
    MarkDirty(id);
  }
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
  for (GroupMessage& body : message->groups) {
    Group* group = Find(body.group);
    if (group == nullptr) {
      AnswerForAbsent(from, body);
      metrics_->Count("replication.unknown_group_messages", 1);
      continue;
    }
    const GroupCore& core = group->hosted->core();
    const Member* sender = core.configuration().Find(body.from);
    if (body.to != core.self() || (sender != nullptr && sender->node != from)) {
      if (body.to != core.self()) AnswerForAbsent(from, body);
      metrics_->Count("replication.foreign_messages", 1);
      continue;
    }
    body.from_node = from;
    body.to_node = self_;
    if (group->hosted->lost()) {
      AnswerForAbsent(from, body);
      continue;
    }
    group->hosted->core().Step(body, now);
    MarkDirty(body.group);
  }
}

// For a replica that lost its ballots (R3), or is not here, or no more: it does not lead at this
// ballot and never will, since a ballot of an earlier boot is never led again. Its node lives, and
// without that word its group would wait for it (R5).
void GroupHost::Impl::AnswerForAbsent(NodeId from, const GroupMessage& message) {
  if (!std::holds_alternative<HealthQuery>(message.body)) return;
  GroupMessage reply{
      .from_node = self_,
      .to_node = from,
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
    Group& group = groups_.at(id);
    group.deadline = Instant::Infinite();
    group.hosted->core().Tick(now);
    MarkDirty(id);
  }
  Flush();
}

// R8: a hung disk must show even when nobody writes.
void GroupHost::Impl::ProbeLog(Instant now) {
  const std::optional<Instant> pending = log_->OldestPendingSince();
  liveness_->SetLogHealthy(!queue_->blocked() &&
                           (!pending.has_value() || now - *pending <= options_.log_overdue));
  if (!queue_->idle() || now - queue_->last_append() < options_.log_probe) return;
  LogQueue::Batch probe;
  probe.frames.push_back(NodeFrame(node_state_));
  queue_->Append(std::move(probe));
}

absl::Status GroupHost::Impl::NotHere(PartitionId id) const {
  if (stopped_) return absl::CancelledError("shut down");
  return absl::FailedPreconditionError(Cat("partition ", id, " is not here"));
}

void GroupHost::Impl::Propose(PartitionId id, Command command, bool ends, ProposeCallback done) {
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    ProposalResult result;
    result.status = NotHere(id);
    executor_->Post([done = std::move(done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
    return;
  }
  group->hosted->Propose(std::move(command), ends, std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::Read(PartitionId id, absl::AnyInvocable<void()> read, ReadCallback done) {
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post(
        [done = std::move(done), status = NotHere(id)]() mutable { done(std::move(status)); });
    return;
  }
  group->hosted->Read(std::move(read), std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::AddLearner(PartitionId id, const Member& learner, Slot from,
                                 LearnerCallback done) {
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post([done = std::move(done), status = NotHere(id)]() mutable { done(status); });
    return;
  }
  group->hosted->AddLearner(learner, from, std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::ChangeMembers(PartitionId id, uint64_t expected_epoch,
                                    std::vector<Member> members, ChangeCallback done) {
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post([done = std::move(done), status = NotHere(id)]() mutable { done(status); });
    return;
  }
  group->hosted->ChangeMembers(expected_epoch, std::move(members), std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::TransferLeadership(PartitionId id) {
  Group* group = Find(id);
  if (group == nullptr || stopped_ || halted_) return;
  group->hosted->core().TransferLeadership(clock_->Now());
  MarkDirty(id);
}

// First it falls silent; what its state machine and the log are at is awaited. What its core holds
// back is never said (R1).
void GroupHost::Impl::RemoveGroup(PartitionId id, absl::AnyInvocable<void(absl::Status)> done) {
  if (std::erase_if(unstarted_, [id](const Unstarted& u) { return u.id == id; }) > 0) {
    executor_->Post([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  Group* group = Find(id);
  if (group == nullptr || stopped_) {
    absl::Status status = stopped_ ? absl::CancelledError("shut down")
                                   : absl::NotFoundError(Cat("partition ", id, " is not here"));
    executor_->Post(
        [done = std::move(done), status = std::move(status)]() mutable { done(status); });
    return;
  }
  group->hosted->Close(absl::CancelledError("the group was removed from this node"));
  SetNodes(*group, 0, {}, clock_->Now());
  deadlines_.erase({group->deadline, id});
  Executor* apply_executor = group->apply_executor;
  groups_.erase(id);
  removing_.insert(id);
  queue_->AfterAll([self = shared_from_this(), id, apply_executor,
                    done = std::move(done)](absl::Status status) mutable {
    apply_executor->Post(
        [self = std::move(self), id, status = std::move(status), done = std::move(done)]() mutable {
          Executor* executor = self->executor_;
          executor->Post([self = std::move(self), id, status = std::move(status),
                          done = std::move(done)]() mutable {
            self->removing_.erase(id);
            done(status);
          });
        });
  });
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
  queue_->Stop();
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
void GroupHost::RemoveGroup(PartitionId group, absl::AnyInvocable<void(absl::Status)> done) {
  impl_->RemoveGroup(group, std::move(done));
}
void GroupHost::Propose(PartitionId group, Command command, ProposeCallback done) {
  impl_->Propose(group, std::move(command), /*ends=*/false, std::move(done));
}
void GroupHost::ProposeEnd(PartitionId group, Command command, ProposeCallback done) {
  impl_->Propose(group, std::move(command), /*ends=*/true, std::move(done));
}
void GroupHost::AddLearner(PartitionId group, const Member& learner, Slot from,
                           LearnerCallback done) {
  impl_->AddLearner(group, learner, from, std::move(done));
}
void GroupHost::ChangeMembers(PartitionId group, uint64_t expected_epoch,
                              std::vector<Member> members, ChangeCallback done) {
  impl_->ChangeMembers(group, expected_epoch, std::move(members), std::move(done));
}
void GroupHost::TransferLeadership(PartitionId group) { impl_->TransferLeadership(group); }
void GroupHost::OnChange(absl::AnyInvocable<void(PartitionId)> callback) {
  impl_->OnChange(std::move(callback));
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
