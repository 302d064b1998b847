// A replica that is lost is replaced: covered by a log replica, copied elsewhere, exchanged.
#include <algorithm>
#include <utility>

#include "dynlib/cluster/admin_planner_impl.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {

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

}  // namespace dynlib::cluster
