#include "dynlib/cluster/admin_planner.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/cluster/admin_planner_impl.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

PartitionId DrawId(std::string_view what, uint64_t a, uint64_t b) {
  std::string seed(what);
  PutFixed64(seed, a);
  PutFixed64(seed, b);
  return PartitionId{Checksum(seed) | uint64_t{1} << 63};
}

std::map<PartitionId, GroupView> ViewGroups(const AdminView& view) {
  std::map<PartitionId, GroupView> groups;
  for (const auto& [id, node] : view.nodes) {
    if (!node.alive) continue;
    for (const wire::ReplicaStatus& status : node.status.replicas()) {
      GroupView& group = groups[PartitionId{status.partition()}];
      group.replicas.push_back({id, &status});
      if (!status.leads() || status.removed()) continue;
      if (group.leader != nullptr && group.leader->epoch() > status.epoch()) continue;
      group.leader = &status;
      group.leader_node = id;
    }
  }
  return groups;
}

PartitionInfo ToInfo(const wire::ReplicaStatus& status) {
  PartitionInfo info{.id = PartitionId{status.partition()},
                     .first = status.first(),
                     .end = status.end(),
                     .members = {},
                     .generation = status.generation()};
  for (const wire::Member& member : status.members()) {
    info.members.push_back(
        {ReplicaId{member.replica()}, NodeId{member.node()}, member.kind() == wire::LOG});
  }
  return info;
}

}  // namespace

bool CannotBeFed(const wire::ReplicaStatus& member, const wire::ReplicaStatus& leader) {
  return member.kind() == wire::STORAGE && member.applied() < leader.released();
}

Planner::Planner(const PlannerOptions& options, const AdminView& view)
    : options_(options),
      view_(view),
      groups_(ViewGroups(view)),
      nodes_(PlacementNodes(*view.config, view.nodes)) {}

std::vector<AdminAction> Planner::Run() {
  for (const auto& [id, plan] : view_.plans) CountMove(plan);
  PlanCatalogue();
  for (const TableInfo& table : view_.tables) {
    if (table.deleting) {
      DeleteTable(table);
    } else {
      PlanTable(table);
    }
  }
  DropEnded();
  ForgetPlans();
  // What puts commits back on three disks goes before all else.
  urgent_.insert(urgent_.end(), std::make_move_iterator(actions_.begin()),
                 std::make_move_iterator(actions_.end()));
  return std::move(urgent_);
}

// A move that goes on takes a place; that of a partition which ended, or has no leader, does not.
void Planner::CountMove(const PartitionPlan& plan) {
  const GroupView* group = Led(plan.partition);
  if (!plan.move.has_value() || group == nullptr || group->leader->ended() != 0) return;
  ++(plan.move->learner.log ? log_moves_ : moves_);
}

const GroupView* Planner::Led(PartitionId partition) const {
  const auto it = groups_.find(partition);
  return it == groups_.end() || it->second.leader == nullptr ? nullptr : &it->second;
}

std::optional<PartitionInfo> Planner::Describe(PartitionId partition) const {
  const GroupView* group = Led(partition);
  if (group == nullptr) return std::nullopt;
  return ToInfo(*group->leader);
}

// Of a partition whose log ended, somebody who knows it: it may have no leader any more.
const wire::ReplicaStatus* Planner::FindEnded(PartitionId partition) const {
  const auto it = groups_.find(partition);
  if (it == groups_.end()) return nullptr;
  for (const GroupView::Replica& replica : it->second.replicas) {
    if (replica.status->ended() != 0) return replica.status;
  }
  return nullptr;
}

// What ended gives way to its successors, once each of them is led or gave way itself. False if the
// partition is not led.
bool Planner::AppendCurrent(PartitionId partition, std::set<PartitionId>& seen,
                            std::vector<PartitionInfo>& out) const {
  // Of two that were merged the second finds the successor there, or what came of it.
  if (!seen.insert(partition).second) return true;
  const wire::ReplicaStatus* ended = FindEnded(partition);
  if (ended == nullptr) {
    std::optional<PartitionInfo> info = Describe(partition);
    if (info.has_value()) out.push_back(*std::move(info));
    return info.has_value();
  }
  std::set<PartitionId> seen_with = seen;
  std::vector<PartitionInfo> with = out;
  if (std::all_of(ended->successors().begin(), ended->successors().end(),
                  [&](uint64_t id) { return AppendCurrent(PartitionId{id}, seen_with, with); })) {
    seen = std::move(seen_with);
    out = std::move(with);
  } else {
    out.push_back(Describe(partition).value_or(ToInfo(*ended)));
  }
  return true;
}

std::vector<PartitionInfo> Planner::Current(const TableInfo& table) const {
  std::vector<PartitionInfo> current;
  std::set<PartitionId> seen;
  for (const PartitionInfo& partition : table.partitions) {
    if (!AppendCurrent(partition.id, seen, current)) current.push_back(partition);
  }
  // A merge of which only one half is seen, say: wait for the rest.
  std::string_view reached;
  for (size_t i = 0; i < current.size(); ++i) {
    const bool last = i + 1 == current.size();
    if (current[i].first != reached || current[i].end.empty() != last) return table.partitions;
    reached = current[i].end;
  }
  return current;
}

// It has no entry in itself, and stays on the nodes that all nodes and routers know: a replica that
// is lost makes room there for one with a new id.
void Planner::PlanCatalogue() {
  if (const std::optional<PartitionInfo> partition = Describe(kCataloguePartition))
    PlanPartition(CatalogueTable(view_.config->catalogue_nodes), *partition);
}

void Planner::PlanTable(const TableInfo& table) {
  const std::vector<PartitionInfo> current = Current(table);
  if (current != table.partitions) {
    TableInfo updated = table;
    updated.partitions = current;
    ++updated.version;
    Add(UpdateTable{std::move(updated)});
  }
  for (size_t i = 0; i < current.size(); ++i) {
    PlanPartition(table, current[i]);
    if (i + 1 < current.size()) Merge(current[i], current[i + 1]);
  }
}

PartitionPlan Planner::PlanOf(const TableInfo& table, PartitionId partition,
                              const GroupView& group) const {
  PartitionPlan plan{.partition = partition, .table = table.id};
  if (auto it = view_.plans.find(partition); it != view_.plans.end()) plan = it->second;
  for (const wire::Member& member : group.leader->members())
    plan.last_replica = std::max(plan.last_replica, ReplicaId{member.replica()});
  return plan;
}

void Planner::Write(PartitionPlan plan, std::optional<PartitionPlan::Move> move) {
  const bool urgent = move.has_value() && move->learner.log;
  plan.move = std::move(move);
  ++plan.version;
  Add(WritePlan{std::move(plan)}, urgent);
}

void Planner::PlanPartition(const TableInfo& table, const PartitionInfo& partition) {
  const GroupView* group = Led(partition.id);
  if (group == nullptr || group->leader->ended() != 0) return;
  const PartitionPlan plan = PlanOf(table, partition.id, *group);
  DropStrays(*group, plan);
  if (plan.move.has_value()) return DriveMove(table, partition, *group, plan);
  const bool divisible = partition.id != kCataloguePartition;
  if (divisible && MaySplit(*group) && Split(partition, *group)) return;
  StartMove(table, partition, *group, plan);
}

std::vector<AdminAction> PlanAdmin(const PlannerOptions& options, const AdminView& view) {
  return Planner(options, view).Run();
}

PartitionId ChildOf(PartitionId parent, bool right) {
  return DrawId("split", ToUint(parent), right ? 1 : 0);
}

PartitionId MergedOf(PartitionId left, PartitionId right) {
  return DrawId("merge", ToUint(left), ToUint(right));
}

std::vector<PlacementNode> PlacementNodes(const ClusterConfig& config,
                                          const std::map<NodeId, NodeView>& nodes) {
  std::vector<PlacementNode> result;
  for (const NodeInfo& info : config.nodes) {
    PlacementNode node{.info = info, .alive = false};
    if (auto it = nodes.find(info.id); it != nodes.end()) {
      const wire::NodeStatusReply& status = it->second.status;
      node.alive = it->second.alive;
      node.used_bytes = status.used_bytes();
      node.replicas = static_cast<size_t>(status.replicas_size());
      for (const wire::ReplicaStatus& replica : status.replicas())
        node.used_units += (replica.read_milliunits() + replica.write_milliunits()) / 1000;
    }
    result.push_back(std::move(node));
  }
  return result;
}

}  // namespace dynlib::cluster
