// How the groups of a node are put to rest and woken: a million that are idle are a million small
// records (group_table.h), and cost nothing as long as nothing is asked of them.
//
// A group at rest is woken by whatever is asked of it: a message, a proposal, a read, word of a
// checkpoint. When the node of its leader is lost or restarts, those that follow it are woken too,
// some at a time, so that they elect another.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "dynlib/replication/group_host_impl.h"

namespace dynlib::replication {
namespace {

// A turn of the executor wakes, and looks at, so many.
constexpr int kWakesATurn = 64;
constexpr size_t kRestChecksATurn = 1024;
// A group that has not found a leader by then makes room for others to be woken.
constexpr Duration kWokenCounts = std::chrono::seconds(1);
// A member whose leader seems not to know that its tree holds the whole log says so again after
// this time, then after twice that, and so on: about 5 minutes in all.
constexpr Duration kCheckpointRepeat = std::chrono::seconds(5);
constexpr int kCheckpointRepeats = 6;

}  // namespace

AwakeGroup* GroupHost::Impl::FindAwake(PartitionId id) {
  const GroupTable::Index group = table_.Find(id);
  return group == GroupTable::kNone ? nullptr : table_.Awake(group);
}

AwakeGroup* GroupHost::Impl::Find(PartitionId id) {
  const GroupTable::Index group = table_.Find(id);
  if (group == GroupTable::kNone || liveness_ == nullptr) return nullptr;
  AwakeGroup* awake = table_.Awake(group);
  return awake != nullptr ? awake : &Wake(group);
}

AwakeGroup& GroupHost::Impl::SetAwake(GroupTable::Index group, std::unique_ptr<AwakeGroup> awake) {
  AwakeGroup& set = *awake;
  set.index = group;
  set.position = awake_.size();
  set.last_input = clock_->Now();
  awake_.push_back(group);
  table_.SetAwake(group, std::move(awake));
  return set;
}

void GroupHost::Impl::ForgetAwake(AwakeGroup& group) {
  deadlines_.erase({group.deadline, table_.IdOf(group.index)});
  if (group.woken_unasked) --woken_;
  table_.Awake(awake_.back())->position = group.position;
  awake_[group.position] = awake_.back();
  awake_.pop_back();
}

std::unique_ptr<GroupCore> GroupHost::Impl::CoreOf(PartitionId id, const GroupTable::Rested& rested,
                                                   Instant now) const {
  // A group that wakes again must not draw the same jitter again, against the same others.
  const uint64_t seed =
      options_.seed * 0x9e3779b97f4a7c15 + ToUint(id) + static_cast<uint64_t>(now.nanos());
  return std::make_unique<GroupCore>(options_.group, id,
                                     *rested.member.configuration.Find(rested.self), rested.member,
                                     seed, liveness_.get(), now);
}

AwakeGroup& GroupHost::Impl::Wake(GroupTable::Index index) {
  const Instant now = clock_->Now();
  const PartitionId id = table_.IdOf(index);
  const GroupTable::Rested rested = table_.Take(index);
  auto core = CoreOf(id, rested, now);
  auto group = std::make_unique<AwakeGroup>();
  group->released = core->released();
  group->nodes_version = core->nodes_version();
  group->nodes = core->Nodes();  // As at rest, and counted since.
  const HostedGroup::Begin begin{.applied = rested.member.chosen,
                                 .stored_epoch = rested.member.configuration.epoch,
                                 .next_expiry = rested.next_expiry};
  group->hosted =
      std::make_shared<HostedGroup>(options_, std::move(core), begin, table_.StateMachineOf(index),
                                    executor_, table_.ApplyExecutorOf(index), clock_, slabs_);
  if (halted_) group->hosted->Close(halt_status_);
  group->seen = AwakeGroup::See(*group->hosted);
  metrics_->Count("replication.groups_woken", 1);
  AwakeGroup& awake = SetAwake(index, std::move(group));
  MarkDirty(awake);
  return awake;
}

void GroupHost::Impl::CheckLead(PartitionId id) {
  const GroupTable::Index group = table_.Find(id);
  if (group == GroupTable::kNone || liveness_ == nullptr || stopped_ || halted_) return;
  if (table_.Awake(group) != nullptr) return;
  const GroupTable::Rested rested = table_.Look(group);
  const Instant now = clock_->Now();
  if (rested.member.leads && !CoreOf(id, rested, now)->HasSupport(now)) Wake(group);
}

// What Wake would make a core of is what GroupCore would make of the log. That it holds entries
// which others may lack, or anything unknown, or a position beyond the tree, is for GroupCore.
std::optional<RestingMember> GroupHost::Impl::RestsFromStart(
    const GroupSetup& setup, Slot applied, const RecoveredStream& recovered) const {
  const bool whole = recovered.entries.empty() && recovered.unknown.empty() && !recovered.lost;
  if (!setup.at_rest || !whole || setup.configuration.Find(setup.self) == nullptr) {
    return std::nullopt;
  }
  RestingMember member{.configuration = setup.configuration, .chosen = applied};
  member.ended = setup.ended;
  if (!recovered.state.has_value()) return member;
  const GroupCore::Recovered state = RecoverGroup(recovered, applied);
  const uint64_t epoch = setup.configuration.epoch;
  if (state.chosen > applied || state.named_in > epoch + 1 ||
      (state.configuration.has_value() && state.configuration->epoch > epoch) ||
      (state.ended != 0 && state.ended != applied)) {
    return std::nullopt;
  }
  member.promised = state.promised;
  member.ended |= state.ended != 0;
  return member;
}

// ---- Rest ----

bool GroupHost::Impl::TryRest(AwakeGroup& group, Instant now) {
  if (group.dirty || halted_ || stopped_) return false;
  if (group.hosted->next_deadline() != Instant::Infinite()) return false;
  std::optional<RestingMember> member = group.hosted->Rest(now);
  // What it posted to an executor, and was not answered yet, holds on to it.
  if (!member.has_value() || group.hosted.use_count() > 1) return false;
  if (group.nodes != NodesOf(member->configuration)) return false;
  const GroupTable::Index index = group.index;
  const GroupTable::Rested rested{.self = group.hosted->core().self(),
                                  .member = *std::move(member),
                                  .next_expiry = group.hosted->next_expiry()};
  ForgetAwake(group);
  table_.Rest(index, rested);
  return true;
}

void GroupHost::Impl::RestWhoMay(Instant now) {
  const size_t looks = std::min(awake_.size(), kRestChecksATurn);
  for (size_t i = 0; i < looks && !awake_.empty(); ++i) {
    if (rest_cursor_ >= awake_.size()) rest_cursor_ = 0;
    AwakeGroup& group = *table_.Awake(awake_[rest_cursor_]);
    // Another takes the place of one that rests.
    if (now - group.last_input >= options_.rest_after && TryRest(group, now)) continue;
    RepeatCheckpoint(group, now);
    ++rest_cursor_;
  }
}

// Its word, or the leader's answer to it, was lost: without a repetition its log would be kept, and
// it would not rest, until something is asked of the group.
void GroupHost::Impl::RepeatCheckpoint(AwakeGroup& group, Instant now) {
  const GroupCore& core = group.hosted->core();
  const bool waits = core.role() == Role::kFollower && core.AllInTree() &&
                     core.released() < core.chosen() && !group.hosted->lost() && !halted_;
  if (!waits) {
    group.checkpoint_repeats = 0;
    group.repeat_checkpoint_at = now + kCheckpointRepeat;
    return;
  }
  if (now < group.repeat_checkpoint_at || group.checkpoint_repeats == kCheckpointRepeats) return;
  group.repeat_checkpoint_at = now + kCheckpointRepeat * (2 << group.checkpoint_repeats++);
  group.hosted->Checkpointed(core.chosen());
  MarkDirty(group);
}

// ---- Those whose leader was lost ----

void GroupHost::Impl::WakeSome(Instant now) {
  while (!woken_until_.empty() && woken_until_.front().first <= now) {
    AwakeGroup* group = FindAwake(woken_until_.front().second);
    woken_until_.pop_front();
    if (group != nullptr && std::exchange(group->woken_unasked, false)) --woken_;
  }
  if (halted_) return;
  for (int i = 0; i < kWakesATurn && woken_ < options_.wakes_at_once; ++i) {
    const GroupTable::Index next = table_.NextToWake();
    if (next == GroupTable::kNone) return;
    Wake(next).woken_unasked = true;
    ++woken_;
    woken_until_.emplace_back(now + kWokenCounts, table_.IdOf(next));
  }
  if (table_.NextToWake() != GroupTable::kNone && woken_ < options_.wakes_at_once) RequestFlush();
}

// Once it has a leader, it makes room for another.
void GroupHost::Impl::CountWoken(AwakeGroup& group) {
  if (!group.woken_unasked || !group.hosted->core().leader().has_value()) return;
  group.woken_unasked = false;
  --woken_;
  if (table_.NextToWake() != GroupTable::kNone) RequestFlush();
}

// ---- Support is asked of, and given to, the nodes that some group needs ----

std::vector<NodeId> GroupHost::Impl::NodesOf(const Configuration& configuration) const {
  std::vector<NodeId> nodes;
  for (const Member& member : configuration.members) {
    if (member.node != self_) nodes.push_back(member.node);
  }
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

// Before the start, liveness has no peers yet.
void GroupHost::Impl::UseNodes(const std::vector<NodeId>& nodes, Instant now) {
  for (NodeId node : nodes) {
    if (++node_uses_[node] == 1 && liveness_ != nullptr) liveness_->AddPeer(node, now);
  }
}

void GroupHost::Impl::LeaveNodes(const std::vector<NodeId>& nodes) {
  for (NodeId node : nodes) {
    if (--node_uses_[node] > 0) continue;
    node_uses_.erase(node);
    if (liveness_ != nullptr) liveness_->RemovePeer(node);
  }
}

void GroupHost::Impl::SetNodes(AwakeGroup& group, uint64_t version, std::vector<NodeId> nodes,
                               Instant now) {
  UseNodes(nodes, now);
  LeaveNodes(group.nodes);
  group.nodes = std::move(nodes);
  group.nodes_version = version;
}

}  // namespace dynlib::replication
