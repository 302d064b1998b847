// The inside of GroupHost, in four files: what is asked of it (group_host.cc), what flows between
// its groups, the log and the other nodes (group_host_flow.cc), how chosen entries are applied
// (group_host_apply.cc), and how groups are put to rest and woken (group_host_rest.cc).
#ifndef DYNLIB_REPLICATION_GROUP_HOST_IMPL_H_
#define DYNLIB_REPLICATION_GROUP_HOST_IMPL_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/applier.h"
#include "dynlib/replication/awake_group.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/group_table.h"
#include "dynlib/replication/host_events.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/liveness.h"
#include "dynlib/replication/log_queue.h"
#include "dynlib/replication/log_records.h"
#include "dynlib/replication/message.h"
#include "dynlib/replication/message_codec.h"
#include "dynlib/replication/payload_blocks.h"
#include "dynlib/replication/replica_log.h"
#include "dynlib/replication/resting.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::replication {

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
        slabs_(std::make_shared<PayloadSlabs>(options_.entry_memory_kept,
                                              options_.entry_memory_at_start)),
        executor_(executor),
        clock_(clock),
        metrics_(metrics),
        events_(metrics, self) {
    DYNLIB_CHECK(Validate(options_).ok());
    options_.group.faults = options_.faults;
    options_.liveness.faults = options_.faults;
    options_.liveness.reads_version = options_.reads_version;
  }

  void Start(const RecoveredStream& node_stream, absl::AnyInvocable<void(absl::Status)> done);
  absl::Status AddGroup(PartitionId id, const GroupSetup& setup, StateMachine* state_machine,
                        Executor* apply_executor, const RecoveredStream& recovered);
  void RemoveGroup(PartitionId id, absl::AnyInvocable<void(absl::Status)> done);
  void Propose(PartitionId id, Command command, bool ends, ProposeCallback done);
  void AddLearner(PartitionId id, const Member& learner, Slot from, LearnerCallback done);
  void ChangeMembers(PartitionId id, uint64_t expected_epoch, std::vector<Member> members,
                     ChangeCallback done);
  void RaiseVersion(PartitionId id, uint64_t version, ProposeCallback done);
  void TransferLeadership(PartitionId id);
  void Read(PartitionId id, absl::AnyInvocable<void()> read, ReadCallback done);
  void CheckLead(PartitionId id);
  void Checkpointed(PartitionId id, Slot slot);
  std::optional<GroupStatus> Status(PartitionId id) const;
  std::vector<GroupStatus> AllStatus() const;
  HostStatus Status() const;
  bool Hears(NodeId node) const {
    return liveness_ != nullptr && liveness_->Hears(node, clock_->Now());
  }
  void Stop();
  // Before the start nothing runs that a caller could meet.
  void CheckOnExecutor() const { DYNLIB_CHECK(liveness_ == nullptr || executor_->IsCurrent()); }
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback) { on_fatal_ = std::move(callback); }
  void OnChange(absl::AnyInvocable<void(PartitionId)> callback) {
    on_change_ = std::move(callback);
  }

 private:
  struct Unstarted {
    GroupSetup setup;
    StateMachine* state_machine;
    Executor* apply_executor;
    RecoveredStream recovered;
  };
  // A step of a group's state machine, and what came of it.
  struct Apply {
    std::shared_ptr<HostedGroup> group;
    ApplyStep step;
    ApplyOutcome outcome;
  };
  // Steps of groups whose apply executor is the same.
  struct ApplyBatch {
    Executor* executor;
    std::vector<Apply> applies;
    size_t bytes = 0;
  };
  // What is to be sent to a node, in as many messages.
  struct Outgoing {
    std::vector<std::string> parts;
    std::vector<LivenessMessage> liveness;
  };
  // Word of liveness that not all of those awake have heard yet.
  struct PeerNews {
    Liveness::Event event;
    std::vector<GroupTable::Index> groups;
    size_t next = 0;
  };

  // group_host.cc, group_host_flow.cc.
  absl::Status CheckSetup(PartitionId id, const GroupSetup& setup, Slot applied) const;
  void FinishStart();
  void MakeGroup(PartitionId id, const Unstarted& spec);
  absl::Status NotHere(PartitionId id) const;
  // The highest version of commands that the node said lately that it reads; 0: it said nothing.
  uint64_t ReadsVersion(NodeId node) const;
  void MarkDirty(PartitionId id);
  void MarkDirty(AwakeGroup& group);
  void RequestFlush();
  void Flush();
  void TakeGroupEffects(AwakeGroup& group, Instant now);
  void TakeGroupEffectsNow(AwakeGroup& group, Instant now);
  bool HasNothingToTake(const AwakeGroup& group) const;
  void AppendBatch();
  void SetDeadline(AwakeGroup& group, Instant deadline);
  void TellOfChange(PartitionId id, AwakeGroup& group);
  void TakeLivenessEffects(Instant now);
  void SpreadNews(Instant now);
  void Say(const GroupMessage& message);
  void SendOutbox();
  void OnDurable(const LogQueue::Marks& marks);
  void Halt(const absl::Status& why);
  void ReportFatal(absl::Status why);
  void OnMessage(NodeId from, std::string bytes);
  void AnswerForAbsent(NodeId from, const GroupMessage& message);
  void OnTimer();
  void ProbeLog(Instant now);
  void ArmTimer();

  // group_host_apply.cc.
  void AddToBatch(HostedGroup& group, ApplyStep step);
  void PostBatch(ApplyBatch& batch);
  static void RunBatch(std::weak_ptr<Impl> host, Executor* home, std::vector<Apply> applies);
  void FinishApplies(std::vector<Apply> applies);

  // group_host_rest.cc. Find gives the group for an input, and wakes it if need be. Null: not here.
  AwakeGroup* Find(PartitionId id);
  AwakeGroup* FindAwake(PartitionId id);
  AwakeGroup& SetAwake(GroupTable::Index group, std::unique_ptr<AwakeGroup> awake);
  void ForgetAwake(AwakeGroup& group);
  AwakeGroup& Wake(GroupTable::Index index);
  std::unique_ptr<GroupCore> CoreOf(PartitionId id, const GroupTable::Rested& rested,
                                    Instant now) const;
  std::optional<RestingMember> RestsFromStart(const GroupSetup& setup, Slot applied,
                                              const RecoveredStream& recovered) const;
  bool TryRest(AwakeGroup& group, Instant now);
  void RestWhoMay(Instant now);
  void RepeatCheckpoint(AwakeGroup& group, Instant now);
  void WakeSome(Instant now);
  void CountWoken(AwakeGroup& group);
  void SetNodes(AwakeGroup& group, uint64_t version, std::vector<NodeId> nodes, Instant now);
  void UseNodes(const std::vector<NodeId>& nodes, Instant now);
  void LeaveNodes(const std::vector<NodeId>& nodes);
  std::vector<NodeId> NodesOf(const Configuration& configuration) const;

  HostOptions options_;
  const NodeId self_;
  Transport* const transport_;
  const Channel channel_;
  ReplicaLog* const log_;
  const std::shared_ptr<LogQueue> queue_;
  const std::shared_ptr<PayloadSlabs> slabs_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  HostEvents events_;

  absl::AnyInvocable<void(absl::Status)> on_fatal_;
  absl::AnyInvocable<void(PartitionId)> on_change_;
  bool stopped_ = false;
  bool halted_ = false;
  NodeState node_state_;
  std::unique_ptr<Liveness> liveness_;
  std::map<PartitionId, Unstarted> unstarted_;
  GroupTable table_;
  std::vector<GroupTable::Index> awake_;
  size_t rest_cursor_ = 0;  // In awake_: who is looked at next.
  std::deque<PeerNews> news_;
  size_t woken_ = 0;                                         // Groups that are woken_unasked,
  std::deque<std::pair<Instant, PartitionId>> woken_until_;  // and until when they count as such.
  absl::Status halt_status_;
  std::set<PartitionId> removing_;
  std::map<NodeId, size_t> node_uses_;  // By how many groups.
  std::vector<GroupTable::Index> dirty_;
  size_t flushing_ = 0;         // Groups that are looked at one after the other.
  GroupCore::Effects effects_;  // Of the one that is looked at.
  bool flush_posted_ = false;
  // What the next flush sends: to the log, to the apply executors, to other nodes.
  LogQueue::Batch batch_;
  std::vector<ApplyBatch> batches_;  // An executor each.
  std::map<NodeId, Outgoing> outbox_;

  std::set<std::pair<Instant, PartitionId>> deadlines_;
  Executor::TimerId timer_ = Executor::kNoTimer;
  Instant timer_at_ = Instant::Infinite();
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_GROUP_HOST_IMPL_H_
