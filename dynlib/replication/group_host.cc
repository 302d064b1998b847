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
  const Slot applied = state_machine->applied();
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
  bool lost = spec.recovered.lost;
  if (!GroupCore::InReach(recovered)) {
    lost = true;
    recovered.entries.clear();
    recovered.unknown.clear();
  }
  auto core = std::make_unique<GroupCore>(
      options_.group, spec.id, Member{spec.setup.self, self_, spec.setup.kind}, spec.setup.learner,
      spec.setup.configuration, std::move(recovered),
      options_.seed * 0x9e3779b97f4a7c15 + ToUint(spec.id), liveness_.get(), now);
  Group& group = groups_[spec.id];
  group.apply_executor = spec.apply_executor;
  SetNodes(group, core->nodes_version(), core->Nodes(), now);
  group.hosted = std::make_shared<HostedGroup>(
      options_, std::move(core), lost, spec.setup.configuration.epoch, spec.state_machine,
      executor_, spec.apply_executor, clock_, [this, id = spec.id] { MarkDirty(id); });
  if (lost) {
    // Its ballots may be gone, and with them what it promised (R3): it says nothing until it is
    // replaced.
    events_.ReplicaLost(spec.id);
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

HostStatus GroupHost::Impl::Status() const {
  HostStatus status{.node = self_,
                    .incarnation = node_state_.incarnation,
                    .log_closed = halted_,
                    .groups = groups_.size(),
                    .elections = events_.elections()};
  const Instant now = clock_->Now();
  if (liveness_ != nullptr) {
    status.log_healthy = liveness_->log_healthy();
    status.peers = liveness_->Peers(now);
  }
  for (const auto& [id, group] : groups_) {
    status.leads += group.hosted->core().role() == Role::kLeader;
  }
  return status;
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
