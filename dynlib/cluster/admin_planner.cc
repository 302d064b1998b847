#include "dynlib/cluster/admin_planner.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/service.h"

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

namespace {

class Planner {
 public:
  Planner(const PlannerOptions& options, const AdminView& view)
      : options_(options),
        view_(view),
        groups_(ViewGroups(view)),
        nodes_(PlacementNodes(*view.config, view.nodes)) {}

  std::vector<AdminAction> Run() {
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

 private:
  // A move that goes on takes a place; that of a partition which ended, or has no leader, does not.
  void CountMove(const PartitionPlan& plan) {
    const GroupView* group = Led(plan.partition);
    if (!plan.move.has_value() || group == nullptr || group->leader->ended() != 0) return;
    ++(plan.move->learner.log ? log_moves_ : moves_);
  }
  void Add(AdminAction action, bool urgent = false) {
    (urgent ? urgent_ : actions_).push_back(std::move(action));
  }
  void PlanCatalogue();
  void PlanTable(const TableInfo& table);
  void PlanPartition(const TableInfo& table, const PartitionInfo& partition);
  void StartMove(const TableInfo& table, const PartitionInfo& partition, const GroupView& group,
                 const PartitionPlan& plan);
  std::optional<PartitionMember> ReplaceLost(const GroupView& group,
                                             const wire::Member& lost) const;
  std::optional<PartitionMember> ReplaceLog(const GroupView& group, const wire::Member& log) const;
  std::vector<NodeId> ExcludedFor(PartitionId partition) const;
  void DriveMove(const TableInfo& table, const PartitionInfo& partition, const GroupView& group,
                 const PartitionPlan& plan);
  bool IsNeedless(const GroupView& group, const PartitionPlan::Move& move) const;
  void MakeRoom(const GroupView& group, NodeId node, const wire::ReplicaStatus& here);
  void Feed(const GroupView& group, PartitionId partition, const PartitionPlan::Move& move,
            uint64_t from);
  void MakeLearner(const TableInfo& table, const PartitionInfo& partition, const GroupView& group,
                   const PartitionPlan::Move& move);
  bool InPlace(const GroupView& group, ReplicaId but = {}) const;
  bool MaySplit(const GroupView& group) const;
  bool Split(const PartitionInfo& partition, const GroupView& group);
  void DropStrays(const GroupView& group, const PartitionPlan& plan);
  bool MayMerge(PartitionId left, PartitionId right) const;
  void Merge(const PartitionInfo& left, const PartitionInfo& right);
  bool Covered(const TableInfo& table, const wire::ReplicaStatus& range) const;
  void DropEnded();
  void ForgetPlans();
  void DeleteTable(const TableInfo& table);
  void Drop(NodeId node, const wire::ReplicaStatus& status, bool force);

  // The partitions as the groups have them by now.
  std::vector<PartitionInfo> Current(const TableInfo& table) const;
  bool AppendCurrent(PartitionId partition, std::set<PartitionId>& seen,
                     std::vector<PartitionInfo>& out) const;
  const wire::ReplicaStatus* FindEnded(PartitionId partition) const;
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
  size_t moves_ = 0;      // that copy trees
  size_t log_moves_ = 0;  // of log replicas
  std::vector<AdminAction> urgent_;
  std::vector<AdminAction> actions_;
};

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

// A node that is dead, or says that its replica lost its log or its tree (rule R3). Or a replica
// that was away while its group went on, under a leader whose log began later, with a copied tree.
bool Planner::IsLost(const GroupView& group, const wire::Member& member) const {
  const NodeId node{member.node()};
  const auto it = view_.nodes.find(node);
  if (it == view_.nodes.end() || it->second.dead) return true;
  if (!it->second.alive) return false;
  const wire::ReplicaStatus* status = group.On(node);
  const bool shown = status != nullptr && status->replica() == member.replica();
  if (shown && status->failed()) return true;
  return view_.missing.contains({PartitionId{group.leader->partition()}, node}) &&
         (!shown || CannotBeFed(*status, *group.leader));
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
                     .excluded = ExcludedFor(PartitionId{group.leader->partition()}),
                     .zone = ZoneOf(NodeId{lost.node()})};
  wish.excluded.push_back(NodeId{lost.node()});
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
                     .excluded = ExcludedFor(PartitionId{group.leader->partition()}),
                     .zone = ZoneOf(NodeId{log.node()})};
  wish.excluded.push_back(NodeId{log.node()});
  const absl::StatusOr<NodeId> node = ChooseNode(nodes_, wish);
  if (!node.ok()) return std::nullopt;
  return PartitionMember{ReplicaId{}, *node, /*log=*/false};
}

// Of the members that are lost the first that can be replaced now.
void Planner::StartMove(const TableInfo& table, const PartitionInfo& partition,
                        const GroupView& group, const PartitionPlan& plan) {
  const wire::Member* log = nullptr;
  for (const wire::Member& member : group.leader->members()) {
    if (member.kind() == wire::LOG) log = &member;
  }
  std::optional<PartitionMember> learner;
  const wire::Member* replaced = log;
  // At most one log replica in a group; the tree is copied before anything else is mended.
  if (log != nullptr) learner = ReplaceLog(group, *log);
  for (const wire::Member& member : group.leader->members()) {
    if (log != nullptr || learner.has_value()) break;
    if (member.replica() == group.leader->replica() || !IsLost(group, member)) continue;
    replaced = &member;
    learner = ReplaceLost(group, member);
  }
  if (!learner.has_value()) return;
  size_t& moves = learner->log ? log_moves_ : moves_;
  if (moves >= (learner->log ? options_.log_moves_max : options_.moves_max)) return;
  ++moves;
  PartitionPlan next = plan;
  next.last_replica = ReplicaId{ToUint(plan.last_replica) + 1};
  learner->replica = next.last_replica;
  Write(std::move(next),
        PartitionPlan::Move{.learner = *learner, .replaces = ReplicaId{replaced->replica()}});
}

// Where no replica of the partition may be made.
std::vector<NodeId> Planner::ExcludedFor(PartitionId partition) const {
  std::vector<NodeId> nodes;
  if (partition == kCataloguePartition) {
    const std::vector<NodeId>& own = view_.config->catalogue_nodes;
    for (const PlacementNode& node : nodes_) {
      if (std::find(own.begin(), own.end(), node.info.id) == own.end())
        nodes.push_back(node.info.id);
    }
  }
  for (auto it = view_.refused.lower_bound({partition, NodeId{}});
       it != view_.refused.end() && it->first == partition; ++it) {
    nodes.push_back(it->second);
  }
  return nodes;
}

// What was to be replaced is a storage replica, and is well after all.
bool Planner::IsNeedless(const GroupView& group, const PartitionPlan::Move& move) const {
  const wire::Member* replaced = group.FindMember(move.replaces);
  if (replaced == nullptr || replaced->kind() == wire::LOG || IsLost(group, *replaced))
    return false;
  const auto node = view_.nodes.find(NodeId{replaced->node()});
  if (node == view_.nodes.end() || !node->second.alive) return false;
  const wire::ReplicaStatus* status = group.On(node->first);
  return status != nullptr && status->replica() == replaced->replica();
}

// Where the learner is to be is another replica. A stray is dropped by itself; a lost member goes,
// and votes no more under its id, so all others must be there to decide without it.
void Planner::MakeRoom(const GroupView& group, NodeId node, const wire::ReplicaStatus& here) {
  const wire::Member* member = group.FindMember(ReplicaId{here.replica()});
  const bool goes = member == nullptr
                        ? here.failed()
                        : IsLost(group, *member) && InPlace(group, ReplicaId{here.replica()});
  if (goes) Drop(node, here, /*force=*/true);
}

void Planner::DriveMove(const TableInfo& table, const PartitionInfo& partition,
                        const GroupView& group, const PartitionPlan& plan) {
  const PartitionPlan::Move& move = *plan.move;
  const bool done = group.HasMember(move.learner.replica);
  const auto node = view_.nodes.find(move.learner.node);
  const bool hopeless = node == view_.nodes.end() || node->second.dead ||
                        view_.refused.contains({partition.id, move.learner.node});
  if (done || group.FindMember(move.replaces) == nullptr || hopeless || IsNeedless(group, move))
    return Write(plan, std::nullopt);
  if (!node->second.alive) return;
  const wire::ReplicaStatus* here = group.On(move.learner.node);
  if (here == nullptr) return MakeLearner(table, partition, group, move);
  if (here->replica() != ToUint(move.learner.replica))
    return MakeRoom(group, move.learner.node, *here);
  if (here->failed()) return Write(plan, std::nullopt);
  if (here->copying()) {
    // Writes outran the copy: what the leader's log no longer has must be in the tree.
    if (here->released() < group.leader->released())
      return MakeLearner(table, partition, group, move);
    return Feed(group, partition.id, move, group.leader->released());
  }
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
  Add(std::move(call), move.learner.log);
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
  Add(std::move(call), move.learner.log);
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
    if (status == nullptr || status->failed() || status->copying()) {
      // One that is only silent may be the second that has what the log would lack (R9).
      if (move.learner.log && !IsLost(group, member)) return;
      continue;
    }
    base = std::min(base, status->durable());
    if (NodeId{member.node()} != group.leader_node) source = NodeId{member.node()};
  }
  if (base == UINT64_MAX) return;
  if (move.learner.log) {
    request.set_base(base);
  } else {
    request.set_copy_from(ToUint(source));
    request.set_log_begins(group.leader->released());
    Feed(group, partition.id, move, group.leader->released());
  }
  Add(std::move(call), move.learner.log);
}

// Every member's node, but that of `but`, is alive, and shows its replica.
bool Planner::InPlace(const GroupView& group, ReplicaId but) const {
  for (const wire::Member& member : group.leader->members()) {
    if (ReplicaId{member.replica()} == but) continue;
    const auto node = view_.nodes.find(NodeId{member.node()});
    if (node == view_.nodes.end() || !node->second.alive) return false;
    const wire::ReplicaStatus* status = group.On(node->first);
    if (status == nullptr || status->replica() != member.replica() || status->failed() ||
        status->copying()) {
      return false;
    }
  }
  return true;
}

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
