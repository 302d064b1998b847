// What flows between the groups of a node, its log and the other nodes.
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/replication/group_host_impl.h"

namespace dynlib::replication {
namespace {

// What groups say to a node goes in messages of about this much: those that catch up together may
// have more to say than one can carry.
constexpr size_t kMessageBytes = 8 << 20;
constexpr size_t kMessageReserveMax = 1 << 20;
// So many groups hear of a peer in one turn of the executor.
constexpr size_t kGroupsATurn = 4096;

}  // namespace

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
  // A group's effects may mark others, or itself again. One that was marked may be gone, and
  // another in its place.
  std::vector<GroupTable::Index> dirty;
  dirty.swap(dirty_);
  flushing_ = dirty.size();
  for (const GroupTable::Index index : dirty) {
    AwakeGroup* group = table_.Awake(index);
    if (group == nullptr || !std::exchange(group->dirty, false)) continue;
    TakeGroupEffects(*group, now);
    if (options_.rest_after == Duration(0)) TryRest(*group, now);
  }
  WakeSome(now);
  TakeLivenessEffects(now);  // A promise may have ended support.
  SendOutbox();              // First: others wait for it.
  AppendBatch();
  for (ApplyBatch& applies : batches_) PostBatch(applies);
  ArmTimer();
}

// After an input to which the turn will hardly add: while the group is in the processor's cache.
void GroupHost::Impl::TakeGroupEffectsNow(AwakeGroup& group, Instant now) {
  if (group.dirty || options_.rest_after == Duration(0)) return MarkDirty(group);
  RequestFlush();
  if (!HasNothingToTake(group)) return TakeGroupEffects(group, now);
  group.last_input = now;
}

// So it is with most answers to a leader: the one before them made the quorum.
bool GroupHost::Impl::HasNothingToTake(const AwakeGroup& group) const {
  const HostedGroup& hosted = *group.hosted;
  const GroupCore& core = hosted.core();
  return !hosted.HasWork() && core.nodes_version() == group.nodes_version &&
         core.released() <= group.released && hosted.next_deadline() >= group.deadline &&
         !group.woken_unasked && group.seen == AwakeGroup::See(hosted);
}

void GroupHost::Impl::AppendBatch() {
  if (!batch_.frames.empty()) queue_->Append(std::exchange(batch_, {}));
}

void GroupHost::Impl::TakeGroupEffects(AwakeGroup& group, Instant now) {
  group.last_input = now;
  HostedGroup& hosted = *group.hosted;
  if (hosted.lost() || halted_) return;
  const PartitionId id = hosted.core().group();
  hosted.Pump(now);
  if (std::optional<ApplyStep> step = hosted.TakeStep(now)) AddToBatch(hosted, *std::move(step));
  // Damage concerns this replica alone, and so does a version that it cannot read; who can read its
  // other trees goes on with them.
  const absl::Status& failure = hosted.failure();
  if (!failure.ok() && !absl::IsDataLoss(failure) && !absl::IsUnimplemented(failure)) {
    ReportFatal(failure);
  }
  GroupCore::Effects& effects = effects_;
  hosted.core().TakeEffects(now, effects);
  if (batch_.frames.empty()) batch_.frames.reserve(std::max(effects.records.size(), flushing_));
  for (GroupCore::Record& record : effects.records)
    batch_.frames.push_back(ToFrame(id, std::move(record)));
  if (!effects.records.empty()) batch_.marks.emplace_back(id, effects.last_record);
  for (const GroupMessage& message : effects.messages) Say(message);
  if (hosted.core().nodes_version() != group.nodes_version) {
    SetNodes(group, hosted.core().nodes_version(), hosted.core().Nodes(), now);
  }
  if (effects.deposed) hosted.OnDeposed();
  for (const GroupCore::Event& event : effects.events) events_.Of(id, event);
  effects.Clear();  // What it says is not to stay in memory until the next.
  const Slot released = hosted.core().released();
  if (released > group.released) {
    group.released = released;
    log_->Release(id, released);
    hosted.OnReleased();
  }
  // Under load it moves on with each answer: one that is too early is looked at when it is due.
  if (const Instant deadline = hosted.next_deadline(); deadline < group.deadline) {
    SetDeadline(group, deadline);
  }
  TellOfChange(id, group);
  CountWoken(group);
}

void GroupHost::Impl::SetDeadline(AwakeGroup& group, Instant deadline) {
  const PartitionId id = group.hosted->core().group();
  if (group.deadline != Instant::Infinite()) deadlines_.erase({group.deadline, id});
  group.deadline = deadline;
  if (deadline != Instant::Infinite()) deadlines_.insert({deadline, id});
}

void GroupHost::Impl::TellOfChange(PartitionId id, AwakeGroup& group) {
  const AwakeGroup::Seen now = AwakeGroup::See(*group.hosted);
  if (group.seen == now) return;
  if (now.failed && (!group.seen.has_value() || !group.seen->failed)) {
    events_.ReplicaFailed(id, group.hosted->failure());
  }
  group.seen = now;
  if (on_change_ == nullptr) return;
  executor_->Post([self = shared_from_this(), id] {
    if (!self->stopped_) self->on_change_(id);
  });
}

void GroupHost::Impl::TakeLivenessEffects(Instant now) {
  Liveness::Effects effects = liveness_->TakeEffects();
  for (auto& [node, message] : effects.messages) outbox_[node].liveness.push_back(message);
  for (NodeId node : effects.fast_clocks) events_.ClockIsFast(node);
  for (const Liveness::Event& event : effects.events) {
    events_.OfPeer(event);
    const bool lost = event.kind == Liveness::Event::Kind::kPeerLost ||
                      event.kind == Liveness::Event::Kind::kPeerRestarted;
    if (lost) table_.WakeFollowersOf(event.peer);
    news_.push_back({event, awake_, 0});
  }
  SpreadNews(now);
}

// So many groups a turn, so that a turn stays short however many are awake.
void GroupHost::Impl::SpreadNews(Instant now) {
  for (size_t told = 0; !news_.empty() && told < kGroupsATurn;) {
    PeerNews& news = news_.front();
    for (; news.next < news.groups.size() && told < kGroupsATurn; ++told) {
      AwakeGroup* group = table_.Awake(news.groups[news.next++]);
      if (group == nullptr || group->hosted->lost()) continue;
      group->hosted->core().OnPeerEvent(news.event, now);
      MarkDirty(group->hosted->core().group());
    }
    if (news.next == news.groups.size()) news_.pop_front();
  }
  if (!news_.empty()) RequestFlush();
}

// Encoded at once, while its entries are at hand.
void GroupHost::Impl::Say(const GroupMessage& message) {
  Outgoing& outgoing = outbox_[message.to_node];
  std::vector<std::string>& parts = outgoing.parts;
  if (parts.empty()) parts.emplace_back();
  const size_t before = parts.back().size();
  AppendEncoded(parts.back(), message);
  if (before == 0) {
    // The other groups of the flush will have as much to say.
    parts.back().reserve(std::min(flushing_ * parts.back().size(), kMessageReserveMax));
  } else if (parts.back().size() > kMessageBytes) {
    parts.push_back(parts.back().substr(before));
    parts[parts.size() - 2].resize(before);
  }
}

void GroupHost::Impl::SendOutbox() {
  for (auto& [node, outgoing] : std::exchange(outbox_, {})) {
    if (halted_) continue;
    if (outgoing.parts.empty()) outgoing.parts.emplace_back();
    AppendEncoded(outgoing.parts.front(), outgoing.liveness);
    for (std::string& part : outgoing.parts) transport_->Send(node, channel_, std::move(part));
  }
}

void GroupHost::Impl::OnDurable(const LogQueue::Marks& marks) {
  const Instant now = clock_->Now();
  flushing_ = marks.size();
  for (const auto& [id, record] : marks) {
    AwakeGroup* group = FindAwake(id);
    if (group == nullptr) continue;
    group->hosted->core().Persisted(record, now);
    TakeGroupEffectsNow(*group, now);
  }
}

// The log is closed for good (L3): what is in flight may be durable or not, and this node may vote
// no more.
void GroupHost::Impl::Halt(const absl::Status& why) {
  halted_ = true;
  liveness_->SetLogHealthy(false);
  events_.LogClosed(why);
  halt_status_ = absl::UnavailableError(Cat("the node's log is closed: ", ToStd(why.message())));
  for (const GroupTable::Index group : awake_) {
    HostedGroup& hosted = *table_.Awake(group)->hosted;
    hosted.OnDeposed();
    hosted.Close(halt_status_);
  }
  ReportFatal(why);
}

void GroupHost::Impl::ReportFatal(absl::Status why) {
  if (on_fatal_ == nullptr) return;
  executor_->Post([callback = std::exchange(on_fatal_, nullptr), why = std::move(why)]() mutable {
    callback(why);
  });
}

void GroupHost::Impl::OnMessage(NodeId from, std::string bytes) {
  if (stopped_ || halted_) return;
  absl::StatusOr<NodeMessage> message = DecodeNodeMessage(std::move(bytes));
  if (!message.ok()) {
    metrics_->Count("replication.bad_messages", 1);
    return;
  }
  const Instant now = clock_->Now();
  for (const LivenessMessage& liveness : message->liveness) liveness_->Step(from, liveness, now);
  if (!message->liveness.empty()) RequestFlush();
  flushing_ = message->groups.size();
  for (GroupMessage& body : message->groups) {
    AwakeGroup* group = Find(body.group);
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
    group->hosted->Step(body, now);
    TakeGroupEffectsNow(*group, now);
  }
}

// For a replica that lost its ballots (R3), or is not here, or no more: it does not lead at this
// ballot and never will, since a ballot of an earlier boot is never led again. Its node lives, and
// without that word its group would wait for it (R5).
void GroupHost::Impl::AnswerForAbsent(NodeId from, const GroupMessage& message) {
  if (!std::holds_alternative<HealthQuery>(message.body)) return;
  Say({.from_node = self_,
       .to_node = from,
       .group = message.group,
       .from = message.to,
       .to = message.from,
       .epoch = message.epoch,
       .ballot = message.ballot,
       .body =
           HealthReply{.healthy = false, .abandoned = message.ballot.proposer() == message.to}});
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
    AwakeGroup& group = *FindAwake(deadlines_.begin()->second);
    const Instant deadline = group.hosted->next_deadline();
    SetDeadline(group, deadline > now ? deadline : Instant::Infinite());
    if (deadline > now) continue;
    group.hosted->core().Tick(now);
    MarkDirty(group);
  }
  RestWhoMay(now);
  Flush();
}

// R8: a hung disk must show even when nobody writes.
void GroupHost::Impl::ProbeLog(Instant now) {
  const std::optional<Instant> pending = log_->OldestPendingSince();
  liveness_->SetLogHealthy(!queue_->blocked() &&
                           (!pending.has_value() || now - *pending <= options_.log_overdue));
  events_.LogHealthIs(liveness_->log_healthy());
  if (!queue_->idle() || now - queue_->last_append() < options_.log_probe) return;
  LogQueue::Batch probe;
  probe.frames.push_back(NodeFrame(node_state_));
  queue_->Append(std::move(probe));
}

}  // namespace dynlib::replication
