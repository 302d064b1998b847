#include "dynlib/replication/group_host.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/replication/group_host_impl.h"

namespace dynlib::replication {

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
  for (const auto& [node, uses] : node_uses_) liveness_->AddPeer(node, clock_->Now());
  for (const auto& [id, spec] : std::exchange(unstarted_, {})) MakeGroup(id, spec);
  transport_->Listen(channel_, executor_,
                     [weak = weak_from_this()](NodeId from, std::string bytes) {
                       if (auto self = weak.lock()) self->OnMessage(from, std::move(bytes));
                     });
  RequestFlush();
}

absl::Status GroupHost::Impl::CheckSetup(PartitionId id, const GroupSetup& setup,
                                         Slot applied) const {
  if (absl::Status status = Validate(setup.configuration); !status.ok()) return status;
  const size_t frame_max = options_.group.proposal_bytes_max + 2 * ReplicaLog::kFrameOverheadBytes;
  if (frame_max > log_->append_bytes_max()) {
    return absl::FailedPreconditionError(
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
  if (applied > kSlotMax) {
    return absl::InvalidArgumentError(
        Cat("the state machine's position is ", applied, "; allowed: up to ", kSlotMax));
  }
  // Rule R2: a proposer knows exactly the configuration of the slot after its chosen ones.
  if (setup.configuration.epoch > applied) {
    return absl::InvalidArgumentError(
        Cat("configuration.epoch is ", setup.configuration.epoch,
            "; allowed: up to the state machine's position, which is ", applied));
  }
  return absl::OkStatus();
}

absl::Status GroupHost::Impl::AddGroup(PartitionId id, const GroupSetup& setup,
                                       StateMachine* state_machine, Executor* apply_executor,
                                       const RecoveredStream& recovered) {
  const Slot applied = state_machine->applied();
  if (absl::Status status = CheckSetup(id, setup, applied); !status.ok()) return status;
  if (unstarted_.contains(id) || table_.Find(id) != GroupTable::kNone)
    return absl::AlreadyExistsError(Cat("partition ", id, " is here"));
  if (removing_.contains(id))
    return absl::AlreadyExistsError(Cat("partition ", id, " is being removed"));
  std::optional<RestingMember> rests = RestsFromStart(setup, applied, recovered);
  // One that cannot read its tree is to say so.
  if (rests.has_value() && state_machine->version() <= options_.reads_version) {
    UseNodes(NodesOf(rests->configuration), clock_->Now());
    table_.Rest(table_.Add(id, state_machine, apply_executor),
                {.self = setup.self, .member = *std::move(rests), .next_expiry = {}},
                setup.wake_in_turn);
    if (setup.wake_in_turn && liveness_ != nullptr) RequestFlush();
    return absl::OkStatus();
  }
  Unstarted spec{setup, state_machine, apply_executor, recovered};
  if (liveness_ == nullptr) {
    unstarted_.emplace(id, std::move(spec));
  } else {
    MakeGroup(id, spec);
    RequestFlush();
  }
  return absl::OkStatus();
}

void GroupHost::Impl::MakeGroup(PartitionId id, const Unstarted& spec) {
  const Instant now = clock_->Now();
  const Slot applied = spec.state_machine->applied();
  GroupCore::Recovered recovered = RecoverGroup(spec.recovered, applied);
  if (spec.setup.ended) recovered.ended = recovered.applied;
  bool lost = spec.recovered.lost;
  if (!GroupCore::InReach(recovered)) {
    lost = true;
    recovered.entries.clear();
    recovered.unknown.clear();
  }
  auto core = std::make_unique<GroupCore>(
      options_.group, id, Member{spec.setup.self, self_, spec.setup.kind}, spec.setup.learner,
      spec.setup.configuration, std::move(recovered),
      options_.seed * 0x9e3779b97f4a7c15 + ToUint(id), liveness_.get(), now);
  auto group = std::make_unique<AwakeGroup>();
  SetNodes(*group, core->nodes_version(), core->Nodes(), now);
  const HostedGroup::Begin begin{.lost = lost,
                                 .applied = applied,
                                 .stored_epoch = spec.setup.configuration.epoch,
                                 .next_expiry = {}};
  group->hosted =
      std::make_shared<HostedGroup>(options_, std::move(core), begin, spec.state_machine, executor_,
                                    spec.apply_executor, clock_, slabs_);
  SetAwake(table_.Add(id, spec.state_machine, spec.apply_executor), std::move(group));
  if (lost) {
    // Its ballots may be gone, and with them what it promised (R3): it says nothing until it is
    // replaced.
    events_.ReplicaLost(id);
  }
  MarkDirty(id);
}

void GroupHost::Impl::MarkDirty(PartitionId id) {
  // Of a group that was removed meanwhile there is nothing to do.
  if (AwakeGroup* group = FindAwake(id); group != nullptr) MarkDirty(*group);
}

void GroupHost::Impl::MarkDirty(AwakeGroup& group) {
  if (std::exchange(group.dirty, true)) return;
  dirty_.push_back(group.index);
  RequestFlush();
}

absl::Status GroupHost::Impl::NotHere(PartitionId id) const {
  if (stopped_) return absl::CancelledError("shut down");
  return absl::FailedPreconditionError(Cat("partition ", id, " is not here"));
}

void GroupHost::Impl::Propose(PartitionId id, Command command, bool ends, ProposeCallback done) {
  AwakeGroup* group = Find(id);
  if (group == nullptr || stopped_) {
    ProposalResult result;
    result.status = NotHere(id);
    executor_->Post([done = std::move(done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
    return;
  }
  group->hosted->Propose(std::move(command), ends, std::move(done));
  MarkDirty(*group);
}

void GroupHost::Impl::Read(PartitionId id, absl::AnyInvocable<void()> read, ReadCallback done) {
  AwakeGroup* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post(
        [done = std::move(done), status = NotHere(id)]() mutable { done(std::move(status)); });
    return;
  }
  group->hosted->Read(std::move(read), std::move(done));
  MarkDirty(*group);
}

void GroupHost::Impl::AddLearner(PartitionId id, const Member& learner, Slot from,
                                 LearnerCallback done) {
  AwakeGroup* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post([done = std::move(done), status = NotHere(id)]() mutable { done(status); });
    return;
  }
  group->hosted->AddLearner(learner, from, std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::ChangeMembers(PartitionId id, uint64_t expected_epoch,
                                    std::vector<Member> members, ChangeCallback done) {
  AwakeGroup* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post([done = std::move(done), status = NotHere(id)]() mutable { done(status); });
    return;
  }
  group->hosted->ChangeMembers(
      expected_epoch, std::move(members), [this](NodeId node) { return ReadsVersion(node); },
      std::move(done));
  MarkDirty(id);
}

uint64_t GroupHost::Impl::ReadsVersion(NodeId node) const {
  return node == self_ ? options_.reads_version : liveness_->ReadsVersion(node, clock_->Now());
}

void GroupHost::Impl::RaiseVersion(PartitionId id, uint64_t version, ProposeCallback done) {
  AwakeGroup* group = Find(id);
  if (group == nullptr || stopped_) {
    executor_->Post([done = std::move(done), status = NotHere(id)]() mutable {
      done({.status = std::move(status), .result = {}, .leader_hint = {}});
    });
    return;
  }
  group->hosted->RaiseVersion(
      version, [this](NodeId node) { return ReadsVersion(node); }, std::move(done));
  MarkDirty(id);
}

void GroupHost::Impl::TransferLeadership(PartitionId id) {
  AwakeGroup* group = Find(id);
  if (group == nullptr || stopped_ || halted_) return;
  group->hosted->core().TransferLeadership(clock_->Now());
  MarkDirty(id);
}

// First it falls silent; what its state machine and the log are at is awaited. What its core holds
// back is never said (R1).
void GroupHost::Impl::RemoveGroup(PartitionId id, absl::AnyInvocable<void(absl::Status)> done) {
  if (unstarted_.erase(id) > 0) {
    executor_->Post([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  const GroupTable::Index group = table_.Find(id);
  if (group == GroupTable::kNone || stopped_) {
    absl::Status status = stopped_ ? absl::CancelledError("shut down")
                                   : absl::NotFoundError(Cat("partition ", id, " is not here"));
    executor_->Post(
        [done = std::move(done), status = std::move(status)]() mutable { done(status); });
    return;
  }
  Executor* apply_executor = table_.ApplyExecutorOf(group);
  if (AwakeGroup* awake = table_.Awake(group); awake != nullptr) {
    awake->hosted->Close(absl::CancelledError("the group was removed from this node"));
    LeaveNodes(awake->nodes);
    ForgetAwake(*awake);
  } else {
    LeaveNodes(NodesOf(table_.Look(group).member.configuration));
  }
  table_.Remove(group);
  removing_.insert(id);
  AppendBatch();  // With what was taken of the group.
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
  if (stopped_) return;
  const GroupTable::Index index = table_.Find(id);
  if (index == GroupTable::kNone || liveness_ == nullptr) return;
  // One at rest was told already.
  if (table_.Awake(index) == nullptr && slot <= table_.Look(index).member.chosen) return;
  Find(id)->hosted->Checkpointed(slot);
  MarkDirty(id);
}

std::optional<GroupStatus> GroupHost::Impl::Status(PartitionId id) const {
  const GroupTable::Index group = table_.Find(id);
  if (group == GroupTable::kNone || liveness_ == nullptr) return std::nullopt;
  const Instant now = clock_->Now();
  if (const AwakeGroup* awake = table_.Awake(group); awake != nullptr) {
    return awake->hosted->Status(now);
  }
  const GroupTable::Rested rested = table_.Look(group);
  return HostedGroup::StatusOf(*CoreOf(id, rested, now), rested.member.chosen,
                               table_.StateMachineOf(group)->version(), now);
}

std::vector<GroupStatus> GroupHost::Impl::AllStatus() const {
  std::vector<PartitionId> ids;
  for (GroupTable::Index group = 0; group < table_.end(); ++group) {
    if (table_.Has(group)) ids.push_back(table_.IdOf(group));
  }
  std::sort(ids.begin(), ids.end());
  std::vector<GroupStatus> all;
  for (PartitionId id : ids) {
    if (std::optional<GroupStatus> status = Status(id)) all.push_back(*std::move(status));
  }
  return all;
}

HostStatus GroupHost::Impl::Status() const {
  HostStatus status{.node = self_,
                    .incarnation = node_state_.incarnation,
                    .log_closed = halted_,
                    .groups = table_.size() + unstarted_.size(),
                    .awake = awake_.size(),
                    .deadlines = deadlines_.size(),
                    .leads = table_.leaders(),
                    .table_bytes = table_.bytes(),
                    .elections = events_.elections()};
  const Instant now = clock_->Now();
  if (liveness_ != nullptr) {
    status.log_healthy = liveness_->log_healthy();
    status.peers = liveness_->Peers(now);
  }
  for (const GroupTable::Index group : awake_) {
    status.leads += table_.Awake(group)->hosted->core().role() == Role::kLeader;
  }
  return status;
}

void GroupHost::Impl::Stop() {
  if (stopped_) return;
  stopped_ = true;
  queue_->Stop();
  transport_->StopListening(channel_);
  if (timer_ != Executor::kNoTimer) executor_->Cancel(timer_);
  for (const GroupTable::Index group : awake_) {
    table_.Awake(group)->hosted->Close(absl::CancelledError("shut down"));
  }
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
  impl_->CheckOnExecutor();
  impl_->RemoveGroup(group, std::move(done));
}
void GroupHost::Propose(PartitionId group, Command command, ProposeCallback done) {
  impl_->CheckOnExecutor();
  impl_->Propose(group, std::move(command), /*ends=*/false, std::move(done));
}
void GroupHost::ProposeEnd(PartitionId group, Command command, ProposeCallback done) {
  impl_->CheckOnExecutor();
  impl_->Propose(group, std::move(command), /*ends=*/true, std::move(done));
}
void GroupHost::AddLearner(PartitionId group, const Member& learner, Slot from,
                           LearnerCallback done) {
  impl_->CheckOnExecutor();
  impl_->AddLearner(group, learner, from, std::move(done));
}
void GroupHost::ChangeMembers(PartitionId group, uint64_t expected_epoch,
                              std::vector<Member> members, ChangeCallback done) {
  impl_->CheckOnExecutor();
  impl_->ChangeMembers(group, expected_epoch, std::move(members), std::move(done));
}
void GroupHost::RaiseVersion(PartitionId group, uint64_t version, ProposeCallback done) {
  impl_->CheckOnExecutor();
  impl_->RaiseVersion(group, version, std::move(done));
}
void GroupHost::TransferLeadership(PartitionId group) {
  impl_->CheckOnExecutor();
  impl_->TransferLeadership(group);
}
void GroupHost::OnChange(absl::AnyInvocable<void(PartitionId)> callback) {
  impl_->OnChange(std::move(callback));
}
void GroupHost::Read(PartitionId group, absl::AnyInvocable<void()> read, ReadCallback done) {
  impl_->CheckOnExecutor();
  impl_->Read(group, std::move(read), std::move(done));
}
void GroupHost::CheckLead(PartitionId group) {
  impl_->CheckOnExecutor();
  impl_->CheckLead(group);
}
void GroupHost::Checkpointed(PartitionId group, Slot slot) {
  impl_->CheckOnExecutor();
  impl_->Checkpointed(group, slot);
}
std::optional<GroupStatus> GroupHost::Status(PartitionId group) const {
  return impl_->Status(group);
}
std::vector<GroupStatus> GroupHost::AllStatus() const { return impl_->AllStatus(); }
HostStatus GroupHost::Status() const { return impl_->Status(); }
bool GroupHost::Hears(NodeId node) const { return impl_->Hears(node); }
void GroupHost::OnFatal(absl::AnyInvocable<void(absl::Status)> callback) {
  impl_->OnFatal(std::move(callback));
}
void GroupHost::Stop() { impl_->Stop(); }

}  // namespace dynlib::replication
