// Partitions are split and merged, and what no configuration names any more is dropped.
#include <algorithm>
#include <set>
#include <utility>

#include "dynlib/cluster/admin_planner_impl.h"

namespace dynlib::cluster {

bool Planner::MaySplit(const GroupView& group) const {
  for (const wire::Member& member : group.leader->members()) {
    if (member.kind() == wire::LOG) return false;
  }
  return InPlace(group);
}

bool Planner::Split(const PartitionInfo& partition, const GroupView& group) {
  const wire::ReplicaStatus& leader = *group.leader;
  std::string at;
  if (leader.bytes() > options_.split_bytes) at = leader.middle();
  if (at.empty() && options_.split_for_heat) at = leader.hot_split();
  if (at <= partition.first || (!partition.end.empty() && at >= partition.end)) return false;
  AdminCall<wire::SplitRequest> call{.node = group.leader_node, .request = {}};
  call.request.set_partition(ToUint(partition.id));
  call.request.set_at(at);
  call.request.set_left(ToUint(ChildOf(partition.id, /*right=*/false)));
  call.request.set_right(ToUint(ChildOf(partition.id, /*right=*/true)));
  Add(std::move(call));
  return true;
}

bool Planner::MayMerge(PartitionId left, PartitionId right) const {
  const GroupView* a = Led(left);
  const GroupView* b = Led(right);
  if (options_.merge_bytes == 0 || a == nullptr || b == nullptr || a->leader->ended() != 0 ||
      b->leader->ended() != 0) {
    return false;
  }
  auto nodes = [](const GroupView& group) {
    std::set<uint64_t> nodes;
    for (const wire::Member& member : group.leader->members()) nodes.insert(member.node());
    return nodes;
  };
  auto moving = [&](PartitionId id) {
    auto it = view_.plans.find(id);
    return it != view_.plans.end() && it->second.move.has_value();
  };
  const uint64_t units = (a->leader->read_milliunits() + a->leader->write_milliunits() +
                          b->leader->read_milliunits() + b->leader->write_milliunits()) /
                         1000;
  return a->leader->bytes() + b->leader->bytes() < options_.merge_bytes &&
         units < options_.merge_units && nodes(*a) == nodes(*b) && !moving(left) &&
         !moving(right) && MaySplit(*a) && MaySplit(*b);
}

// Small, idle, whole, and on the same nodes; or half merged already.
void Planner::Merge(const PartitionInfo& left, const PartitionInfo& right) {
  const PartitionId merged = MergedOf(left.id, right.id);
  auto half_merged = [&](PartitionId id) {
    const wire::ReplicaStatus* ended = FindEnded(id);
    return ended != nullptr && ended->successors_size() == 1 &&
           PartitionId{ended->successors(0)} == merged;
  };
  if (!half_merged(left.id) && !half_merged(right.id) && !MayMerge(left.id, right.id)) return;
  const wire::ReplicaStatus* members = FindEnded(left.id);
  if (const GroupView* group = Led(left.id); group != nullptr) members = group->leader;
  for (PartitionId half : {left.id, right.id}) {
    const GroupView* group = Led(half);
    if (members == nullptr || group == nullptr || group->leader->ended() != 0) continue;
    AdminCall<wire::MergeRequest> call{.node = group->leader_node, .request = {}};
    call.request.set_partition(ToUint(half));
    call.request.set_left(ToUint(left.id));
    call.request.set_right(ToUint(right.id));
    call.request.set_merged(ToUint(merged));
    *call.request.mutable_members() = members->members();
    Add(std::move(call));
  }
}

void Planner::Drop(NodeId node, const wire::ReplicaStatus& status, bool force) {
  AdminCall<wire::DropReplicaRequest> call{.node = node, .request = {}};
  call.request.set_partition(status.partition());
  call.request.set_replica(status.replica());
  call.request.set_force(force);
  Add(std::move(call));
}

// Replicas that the configuration no longer names, for good, since ids are not used again; or that
// were being made for a plan given up: the node refuses if its replica knows better.
void Planner::DropStrays(const GroupView& group, const PartitionPlan& plan) {
  for (const GroupView::Replica& replica : group.replicas) {
    const ReplicaId id{replica.status->replica()};
    if (group.HasMember(id) || replica.status->epoch() > group.leader->epoch()) continue;
    if (plan.move.has_value() && plan.move->learner.replica == id) continue;
    // Removed by what was chosen since it heard of its group: nobody needs to tell it first.
    Drop(replica.node, *replica.status,
         /*force=*/replica.status->epoch() < group.leader->epoch());
  }
}

// Every member of every partition of the table within the range has its replica, of a generation
// above `generation`.
bool Planner::Covered(const TableInfo& table, const wire::ReplicaStatus& range) const {
  for (const PartitionInfo& partition : table.partitions) {
    const bool apart = (!partition.end.empty() && partition.end <= range.first()) ||
                       (!range.end().empty() && range.end() <= partition.first);
    if (apart) continue;
    const GroupView* group = Led(partition.id);
    if (partition.generation <= range.generation() || group == nullptr ||
        group->leader->ended() != 0 || !InPlace(*group)) {
      return false;
    }
  }
  return true;
}

// What ended is kept for members that have not got so far: they need its log to make what came of
// it. So it goes when all that came of it is in place; then also where somebody has not got so far,
// whoever still leads it, and whether anybody does.
void Planner::DropEnded() {
  for (const TableInfo& table : view_.tables) {
    if (table.deleting) continue;
    for (const auto& [id, group] : groups_) {
      for (const GroupView::Replica& replica : group.replicas) {
        if (TableId{replica.status->table()} == table.id && Covered(table, *replica.status))
          Drop(replica.node, *replica.status, /*force=*/true);
      }
    }
  }
}

// Plans of partitions that are gone. While some node is silent it may still show one; a partition
// that is to go on must not lose its plan, which counts the ids of its replicas.
void Planner::ForgetPlans() {
  for (const auto& [id, node] : view_.nodes) {
    if (!node.alive) return;
  }
  std::set<PartitionId> named;
  std::set<TableId> deleting;  // theirs go with them
  for (const TableInfo& table : view_.tables) {
    if (table.deleting) deleting.insert(table.id);
    for (const PartitionInfo& partition : table.partitions) named.insert(partition.id);
  }
  for (const auto& [id, plan] : view_.plans) {
    if (!groups_.contains(id) && !named.contains(id) && !deleting.contains(plan.table))
      Add(RemovePlan{plan});
  }
}

void Planner::DeleteTable(const TableInfo& table) {
  bool any = false;
  for (const auto& [id, group] : groups_) {
    for (const GroupView::Replica& replica : group.replicas) {
      if (TableId{replica.status->table()} != table.id) continue;
      any = true;
      Drop(replica.node, *replica.status, /*force=*/true);
    }
  }
  // A silent one may hold some; what a dead one holds is dropped when it comes back
  // (orphan_replicas.h).
  for (const auto& [id, node] : view_.nodes) any = any || (!node.alive && !node.dead);
  if (any) return;
  for (const auto& [id, plan] : view_.plans) {
    if (plan.table == table.id) actions_.push_back(RemovePlan{plan});
  }
  actions_.push_back(RemoveTable{table});
}

}  // namespace dynlib::cluster
