#include "dynlib/cluster/admin_planner.h"

#include <algorithm>
#include <set>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

PartitionId DrawId(std::string_view what, uint64_t a, uint64_t b) {
  std::string seed(what);
  PutFixed64(seed, a);
  PutFixed64(seed, b);
  return PartitionId{Checksum(seed) | uint64_t{1} << 63};
}

// What the nodes say of one partition.
struct GroupView {
  struct Replica {
    NodeId node;
    const wire::ReplicaStatus* status;
  };
  std::vector<Replica> replicas;
  const wire::ReplicaStatus* leader = nullptr;  // the one that can be asked to change something
  NodeId leader_node{};

  const wire::ReplicaStatus* On(NodeId node) const {
    for (const Replica& replica : replicas) {
      if (replica.node == node) return replica.status;
    }
    return nullptr;
  }
  bool HasMember(ReplicaId replica) const { return FindMember(replica) != nullptr; }
  const wire::Member* FindMember(ReplicaId replica) const {
    for (const wire::Member& member : leader->members()) {
      if (member.replica() == ToUint(replica)) return &member;
    }
    return nullptr;
  }
};

std::map<PartitionId, GroupView> ViewGroups(const AdminView& view) {
  std::map<PartitionId, GroupView> groups;
  for (const auto& [id, node] : view.nodes) {
    if (!node.alive) continue;
    for (const wire::ReplicaStatus& status : node.status.replicas()) {
      GroupView& group = groups[PartitionId{status.partition()}];
      group.replicas.push_back({id, &status});
      if (!status.holds_lease() || status.removed()) continue;
      if (group.leader != nullptr && group.leader->epoch() > status.epoch()) continue;
      group.leader = &status;
      group.leader_node = id;
    }
  }
  return groups;
}

class Planner {
 public:
  Planner(const PlannerOptions& options, const AdminView& view)
      : options_(options),
        view_(view),
        groups_(ViewGroups(view)),
        nodes_(PlacementNodes(*view.config, view.nodes)) {}

  std::vector<AdminAction> Run() {
    for (const auto& [id, plan] : view_.plans) moves_ += plan.move.has_value();
    for (const TableInfo& table : view_.tables) {
      if (table.deleting) {
        DeleteTable(table);
      } else {
        PlanTable(table);
      }
    }
    DropEnded();
    return std::move(actions_);
  }

 private:
  void PlanTable(const TableInfo& table);
  void PlanPartition(const TableInfo& table, const PartitionInfo& partition);
  void StartMove(const TableInfo& table, const PartitionInfo& partition, const GroupView& group,
                 const PartitionPlan& plan);
  std::optional<PartitionMember> ReplaceLost(const GroupView& group,
                                             const wire::Member& lost) const;
  std::optional<PartitionMember> ReplaceLog(const GroupView& group, const wire::Member& log) const;
  void DriveMove(const TableInfo& table, const PartitionInfo& partition, const GroupView& group,
                 const PartitionPlan& plan);
  void Feed(const GroupView& group, PartitionId partition, const PartitionPlan::Move& move,
            uint64_t from);
  void MakeLearner(const TableInfo& table, const PartitionInfo& partition, const GroupView& group,
                   const PartitionPlan::Move& move);
  bool MaySplit(const GroupView& group) const;
  bool Split(const PartitionInfo& partition, const GroupView& group);
  void DropStrays(const GroupView& group, const PartitionPlan& plan);
  void Merge(const PartitionInfo& left, const PartitionInfo& right);
  void DropEnded();
  void DeleteTable(const TableInfo& table);
  void Drop(NodeId node, const wire::ReplicaStatus& status, bool force);

  // The partitions as the groups have them by now.
  std::vector<PartitionInfo> Current(const TableInfo& table) const;
  void AppendCurrent(const PartitionInfo& partition, std::vector<PartitionInfo>& out) const;
  std::optional<PartitionInfo> Describe(PartitionId partition) const;
  const GroupView* Led(PartitionId partition) const;
  PartitionPlan PlanOf(const TableInfo& table, PartitionId partition, const GroupView& group) const;
  bool IsLost(const GroupView& group, const wire::Member& member) const;
  const std::string& ZoneOf(NodeId node) const;
  std::vector<NodeId> OtherNodes(const GroupView& group, ReplicaId but) const;
  void Write(PartitionPlan plan, std::optional<PartitionPlan::Move> move);

  const PlannerOptions& options_;
  const AdminView& view_;
  const std::map<PartitionId, GroupView> groups_;
  const std::vector<PlacementNode> nodes_;
  size_t moves_ = 0;
  std::vector<AdminAction> actions_;
};

const GroupView* Planner::Led(PartitionId partition) const {
  const auto it = groups_.find(partition);
  return it == groups_.end() || it->second.leader == nullptr ? nullptr : &it->second;
}

std::optional<PartitionInfo> Planner::Describe(PartitionId partition) const {
  const GroupView* group = Led(partition);
  if (group == nullptr) return std::nullopt;
  PartitionInfo info{.id = partition,
                     .first = group->leader->first(),
                     .end = group->leader->end(),
                     .members = {},
                     .generation = group->leader->generation()};
  for (const wire::Member& member : group->leader->members()) {
    info.members.push_back(
        {ReplicaId{member.replica()}, NodeId{member.node()}, member.kind() == wire::LOG});
  }
  return info;
}

// What ended gives way to its successors, once each of them is led.
void Planner::AppendCurrent(const PartitionInfo& partition, std::vector<PartitionInfo>& out) const {
  const auto it = groups_.find(partition.id);
  const wire::ReplicaStatus* ended = nullptr;
  if (it != groups_.end()) {
    for (const GroupView::Replica& replica : it->second.replicas) {
      if (replica.status->ended() != 0) ended = replica.status;
    }
  }
  std::vector<PartitionInfo> successors;
  if (ended != nullptr) {
    for (uint64_t id : ended->successors()) {
      if (std::optional<PartitionInfo> info = Describe(PartitionId{id})) {
        successors.push_back(*std::move(info));
      }
    }
  }
  if (ended == nullptr || static_cast<int>(successors.size()) != ended->successors_size()) {
    out.push_back(Describe(partition.id).value_or(partition));
    return;
  }
  for (PartitionInfo& successor : successors) {
    // Of two that were merged the second finds the successor there.
    if (out.empty() || out.back().id != successor.id) AppendCurrent(PartitionInfo(successor), out);
  }
}

std::vector<PartitionInfo> Planner::Current(const TableInfo& table) const {
  std::vector<PartitionInfo> current;
  for (const PartitionInfo& partition : table.partitions) AppendCurrent(partition, current);
  // A merge of which only one half is seen, say: wait for the rest.
  std::string_view reached;
  for (size_t i = 0; i < current.size(); ++i) {
    const bool last = i + 1 == current.size();
    if (current[i].first != reached || current[i].end.empty() != last) return table.partitions;
    reached = current[i].end;
  }
  return current;
}

void Planner::PlanTable(const TableInfo& table) {
  const std::vector<PartitionInfo> current = Current(table);
  if (current != table.partitions) {
    TableInfo updated = table;
    updated.partitions = current;
    ++updated.version;
    actions_.push_back(UpdateTable{std::move(updated)});
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
  plan.move = std::move(move);
  ++plan.version;
  actions_.push_back(WritePlan{std::move(plan)});
}

void Planner::PlanPartition(const TableInfo& table, const PartitionInfo& partition) {
  const GroupView* group = Led(partition.id);
  if (group == nullptr || group->leader->ended() != 0) return;
  const PartitionPlan plan = PlanOf(table, partition.id, *group);
  DropStrays(*group, plan);
  if (plan.move.has_value()) return DriveMove(table, partition, *group, plan);
  if (MaySplit(*group) && Split(partition, *group)) return;
  StartMove(table, partition, *group, plan);
}

// A node that is dead, or says that its replica lost its log or its tree (rule R3).
bool Planner::IsLost(const GroupView& group, const wire::Member& member) const {
  const NodeId node{member.node()};
  const auto it = view_.nodes.find(node);
  if (it == view_.nodes.end() || it->second.dead) return true;
  if (!it->second.alive) return false;
  const wire::ReplicaStatus* status = group.On(node);
  if (status == nullptr || status->replica() != member.replica())
    return view_.missing.contains({PartitionId{group.leader->partition()}, node});
  return status->failed();
}

const std::string& Planner::ZoneOf(NodeId node) const {
  static const std::string* const none = new std::string();
  for (const NodeInfo& info : view_.config->nodes) {
    if (info.id == node) return info.location.zone;
  }
  return *none;
}

std::vector<NodeId> Planner::OtherNodes(const GroupView& group, ReplicaId but) const {
  std::vector<NodeId> others;
  for (const wire::Member& member : group.leader->members()) {
    if (member.replica() != ToUint(but)) others.push_back(NodeId{member.node()});
  }
  return others;
}

// A log replica in the zone of the lost one, but not where the storage replica will have to go when
// that is the only place for it.
std::optional<PartitionMember> Planner::ReplaceLost(const GroupView& group,
                                                    const wire::Member& lost) const {
  PlacementWish wish{.others = OtherNodes(group, ReplicaId{lost.replica()}),
                     .excluded = {NodeId{lost.node()}},
                     .zone = ZoneOf(NodeId{lost.node()})};
  const absl::StatusOr<NodeId> storage = ChooseNode(nodes_, wish);
  if (!storage.ok()) {
    // A replica that lost its log, on a node that lives, makes room for one with a new id.
    const auto own = view_.nodes.find(NodeId{lost.node()});
    if (own == view_.nodes.end() || !own->second.alive) return std::nullopt;
    return PartitionMember{ReplicaId{}, NodeId{lost.node()}, /*log=*/false};
  }
  if (!options_.log_replicas) return PartitionMember{ReplicaId{}, *storage, /*log=*/false};
  wish.excluded.push_back(*storage);
  absl::StatusOr<NodeId> log = ChooseNode(nodes_, wish);
  if (!log.ok()) {
    // For the while that the copy takes, a log may be in a zone with another member.
    wish.zones_apart = false;
    log = ChooseNode(nodes_, wish);
  }
  if (!log.ok()) return PartitionMember{ReplicaId{}, *storage, /*log=*/false};
  return PartitionMember{ReplicaId{}, *log, /*log=*/true};
}

std::optional<PartitionMember> Planner::ReplaceLog(const GroupView& group,
                                                   const wire::Member& log) const {
  PlacementWish wish{.others = OtherNodes(group, ReplicaId{log.replica()}),
                     .excluded = {NodeId{log.node()}},
                     .zone = ZoneOf(NodeId{log.node()})};
  const absl::StatusOr<NodeId> node = ChooseNode(nodes_, wish);
  if (!node.ok()) return std::nullopt;
  return PartitionMember{ReplicaId{}, *node, /*log=*/false};
}

void Planner::StartMove(const TableInfo& table, const PartitionInfo& partition,
                        const GroupView& group, const PartitionPlan& plan) {
  if (moves_ >= options_.moves_max) return;
  const wire::Member* log = nullptr;
  const wire::Member* lost = nullptr;
  for (const wire::Member& member : group.leader->members()) {
    if (member.kind() == wire::LOG) log = &member;
    if (member.replica() != group.leader->replica() && IsLost(group, member)) lost = &member;
  }
  // At most one log replica in a group; the tree is copied before anything else is mended.
  const wire::Member* replaced = log != nullptr ? log : lost;
  if (replaced == nullptr) return;
  std::optional<PartitionMember> learner =
      log != nullptr ? ReplaceLog(group, *log) : ReplaceLost(group, *lost);
  if (!learner.has_value()) return;
  PartitionPlan next = plan;
  next.last_replica = ReplicaId{ToUint(plan.last_replica) + 1};
  learner->replica = next.last_replica;
  ++moves_;
  Write(std::move(next),
        PartitionPlan::Move{.learner = *learner, .replaces = ReplicaId{replaced->replica()}});
}

void Planner::DriveMove(const TableInfo& table, const PartitionInfo& partition,
                        const GroupView& group, const PartitionPlan& plan) {
  const PartitionPlan::Move& move = *plan.move;
  const bool done = group.HasMember(move.learner.replica);
  const wire::Member* replaced = group.FindMember(move.replaces);
  const auto node = view_.nodes.find(move.learner.node);
  const bool hopeless = node == view_.nodes.end() || node->second.dead;
  const bool needless = replaced != nullptr && move.learner.log && !IsLost(group, *replaced) &&
                        view_.nodes.at(NodeId{replaced->node()}).alive;
  if (done || replaced == nullptr || hopeless || needless) return Write(plan, std::nullopt);
  if (!node->second.alive) return;
  const wire::ReplicaStatus* here = group.On(move.learner.node);
  if (here == nullptr) return MakeLearner(table, partition, group, move);
  if (here->replica() != ToUint(move.learner.replica)) {
    // A stray is dropped by itself; a member that lost its log votes no more, and makes room.
    if (here->failed()) Drop(move.learner.node, *here, /*force=*/true);
    return;
  }
  if (here->failed()) return Write(plan, std::nullopt);
  if (here->copying()) return Feed(group, partition.id, move, group.leader->released());
  // Everything up to here it has; if the leader no longer has what follows, it begins anew.
  const uint64_t from = std::max(here->durable(), here->chosen());
  if (from < group.leader->released()) return Write(plan, std::nullopt);
  const auto ready = view_.caught_up.find(partition.id);
  if (ready == view_.caught_up.end() || ready->second != move.learner.replica)
    return Feed(group, partition.id, move, from);
  AdminCall<wire::ChangeMembersRequest> call{.node = group.leader_node, .request = {}};
  call.request.set_partition(ToUint(partition.id));
  call.request.set_expected_epoch(group.leader->epoch());
  for (const wire::Member& member : group.leader->members()) {
    wire::Member& to = *call.request.add_members();
    to = member;
    if (member.replica() != ToUint(move.replaces)) continue;
    to.set_replica(ToUint(move.learner.replica));
    to.set_node(ToUint(move.learner.node));
    to.set_kind(move.learner.log ? wire::LOG : wire::STORAGE);
  }
  actions_.push_back(std::move(call));
}

// Before the learner can be fed this keeps the log that it will need.
void Planner::Feed(const GroupView& group, PartitionId partition, const PartitionPlan::Move& move,
                   uint64_t from) {
  AdminCall<wire::AddLearnerRequest> call{.node = group.leader_node, .request = {}};
  call.request.set_partition(ToUint(partition));
  wire::Member& learner = *call.request.mutable_learner();
  learner.set_replica(ToUint(move.learner.replica));
  learner.set_node(ToUint(move.learner.node));
  learner.set_kind(move.learner.log ? wire::LOG : wire::STORAGE);
  call.request.set_from(from);
  actions_.push_back(std::move(call));
}

void Planner::MakeLearner(const TableInfo& table, const PartitionInfo& partition,
                          const GroupView& group, const PartitionPlan::Move& move) {
  AdminCall<wire::CreateReplicaRequest> call{.node = move.learner.node, .request = {}};
  wire::CreateReplicaRequest& request = call.request;
  wire::Partition& to = *request.mutable_partition();
  to.set_id(ToUint(partition.id));
  to.set_table(ToUint(table.id));
  to.set_first(partition.first);
  to.set_end(partition.end);
  to.set_generation(partition.generation);
  *to.mutable_members() = group.leader->members();
  request.set_schema(EncodeSchema(table.schema));
  request.set_replica(ToUint(move.learner.replica));
  request.set_kind(move.learner.log ? wire::LOG : wire::STORAGE);
  request.set_learner(true);
  // What every other storage member has durably in its tree need not be in the new log.
  uint64_t base = UINT64_MAX;
  NodeId source = group.leader_node;
  for (const wire::Member& member : group.leader->members()) {
    if (member.kind() == wire::LOG || member.replica() == ToUint(move.replaces)) continue;
    const wire::ReplicaStatus* status = group.On(NodeId{member.node()});
    if (status == nullptr || status->failed() || status->copying()) continue;
    base = std::min(base, status->durable());
    if (NodeId{member.node()} != group.leader_node) source = NodeId{member.node()};
  }
  if (base == UINT64_MAX) return;
  if (move.learner.log) {
    request.set_base(base);
  } else {
    request.set_copy_from(ToUint(source));
    Feed(group, partition.id, move, group.leader->released());
  }
  actions_.push_back(std::move(call));
}

bool Planner::MaySplit(const GroupView& group) const {
  for (const wire::Member& member : group.leader->members()) {
    const auto node = view_.nodes.find(NodeId{member.node()});
    if (member.kind() == wire::LOG || node == view_.nodes.end() || !node->second.alive)
      return false;
    const wire::ReplicaStatus* status = group.On(node->first);
    if (status == nullptr || status->replica() != member.replica() || status->failed() ||
        status->copying()) {
      return false;
    }
  }
  return true;
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
  actions_.push_back(std::move(call));
  return true;
}

// Small, idle, whole, and on the same nodes; or half merged already.
void Planner::Merge(const PartitionInfo& left, const PartitionInfo& right) {
  const GroupView* a = Led(left.id);
  const GroupView* b = Led(right.id);
  if (a == nullptr || b == nullptr) return;
  const PartitionId merged = MergedOf(left.id, right.id);
  auto half_merged = [&](const GroupView& group) {
    return group.leader->ended() != 0 && group.leader->successors_size() == 1 &&
           PartitionId{group.leader->successors(0)} == merged;
  };
  const bool begun = half_merged(*a) || half_merged(*b);
  if (!begun) {
    if (options_.merge_bytes == 0 || a->leader->ended() != 0 || b->leader->ended() != 0) return;
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
    if (a->leader->bytes() + b->leader->bytes() >= options_.merge_bytes ||
        units >= options_.merge_units || nodes(*a) != nodes(*b) || moving(left.id) ||
        moving(right.id) || !MaySplit(*a) || !MaySplit(*b)) {
      return;
    }
  }
  for (const GroupView* group : {a, b}) {
    if (group->leader->ended() != 0) continue;
    AdminCall<wire::MergeRequest> call{.node = group->leader_node, .request = {}};
    call.request.set_partition(group->leader->partition());
    call.request.set_left(ToUint(left.id));
    call.request.set_right(ToUint(right.id));
    call.request.set_merged(ToUint(merged));
    *call.request.mutable_members() = a->leader->members();
    actions_.push_back(std::move(call));
  }
}

void Planner::Drop(NodeId node, const wire::ReplicaStatus& status, bool force) {
  AdminCall<wire::DropReplicaRequest> call{.node = node, .request = {}};
  call.request.set_partition(status.partition());
  call.request.set_replica(status.replica());
  call.request.set_force(force);
  actions_.push_back(std::move(call));
}

// Replicas that the configuration no longer names, or that were being made for a plan given up. The
// node refuses if its replica knows better.
void Planner::DropStrays(const GroupView& group, const PartitionPlan& plan) {
  for (const GroupView::Replica& replica : group.replicas) {
    const ReplicaId id{replica.status->replica()};
    if (group.HasMember(id) || replica.status->epoch() > group.leader->epoch()) continue;
    if (plan.move.has_value() && plan.move->learner.replica == id) continue;
    Drop(replica.node, *replica.status, /*force=*/false);
  }
}

// What ended is kept for members that have not got so far. One that is dead, and has been replaced
// in every successor, will not need it.
void Planner::DropEnded() {
  std::set<PartitionId> wanted;
  for (const TableInfo& table : view_.tables) {
    if (table.deleting) continue;
    for (const PartitionInfo& partition : table.partitions) wanted.insert(partition.id);
  }
  for (const auto& [id, group] : groups_) {
    if (wanted.contains(id) || group.leader == nullptr || group.leader->ended() == 0) continue;
    bool everywhere = group.leader->ended_everywhere();
    if (!everywhere) {
      everywhere = true;
      for (const wire::Member& member : group.leader->members()) {
        const auto node = view_.nodes.find(NodeId{member.node()});
        const wire::ReplicaStatus* status = group.On(NodeId{member.node()});
        const bool has_it = status != nullptr && status->ended() != 0;
        const bool gone = node == view_.nodes.end() || node->second.dead;
        bool replaced = gone;
        for (uint64_t successor : group.leader->successors()) {
          const GroupView* next = Led(PartitionId{successor});
          if (next == nullptr) continue;
          for (const wire::Member& other : next->leader->members())
            replaced = replaced && other.node() != member.node();
        }
        everywhere = everywhere && (has_it || replaced);
      }
    }
    if (!everywhere) continue;
    for (const GroupView::Replica& replica : group.replicas) {
      if (replica.status->ended() != 0) Drop(replica.node, *replica.status, /*force=*/true);
    }
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
  for (const auto& [id, node] : view_.nodes) any = any || !node.alive;  // It may hold some.
  if (any) return;
  for (const auto& [id, plan] : view_.plans) {
    if (plan.table == table.id) actions_.push_back(RemovePlan{plan});
  }
  actions_.push_back(RemoveTable{table});
}

}  // namespace

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
