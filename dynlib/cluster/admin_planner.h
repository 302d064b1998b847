// What the auto admin would do next, given what it sees: a pure function.
//
// Nothing is remembered between calls but what is in the catalogue and on the nodes, so that an
// admin can be stopped at any step and another one go on. Each action may be repeated, and may be
// carried out by two admins at once: plans are written under a condition, changes of members name
// the configuration they start from, and ids of new replicas and partitions are never drawn twice
// (a plan counts them; a child's follows from its parent's).
//
// In turn for each partition, one thing at a time:
//  - a member on a node that is dead, or that lost its log, gets a log replica in its place within
//    seconds (rule R9), so that every committed slot is on three disks again;
//  - a log replica is replaced by a storage replica, on another node of the zone that lacks one,
//    made by copying a tree from a follower;
//  - one that is too large, or too hot, is split; small and idle neighbours are merged;
//  - what no configuration names any more is dropped.
// The catalogue's own partition is kept whole in the same way, on its own nodes.
// The catalogue follows what the groups themselves have chosen.
//
// Internal to the cluster.
#ifndef DYNLIB_CLUSTER_ADMIN_PLANNER_H_
#define DYNLIB_CLUSTER_ADMIN_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/planner_options.h"

namespace dynlib::cluster {

// A node as the admin sees it. Neither alive nor dead: silent, and not for long enough.
struct NodeView {
  bool alive = false;
  bool dead = false;
  wire::NodeStatusReply status;  // the last that came
};

struct AdminView {
  const ClusterConfig* config = nullptr;
  std::vector<TableInfo> tables;
  std::map<PartitionId, PartitionPlan> plans;
  std::map<NodeId, NodeView> nodes;
  // Learners that a leader said had caught up, a moment ago.
  std::map<PartitionId, ReplicaId> caught_up;
  // Members that their nodes, though alive, have not shown for as long as it takes to call a node
  // dead, or that their leader could not feed for as long. (A child of a split may be a moment late
  // on one node, and what one node says a moment older than what another says.)
  std::set<std::pair<PartitionId, NodeId>> missing;
  // Nodes that would not make a replica of the partition, several times in a row: full, say. Others
  // are tried.
  std::set<std::pair<PartitionId, NodeId>> refused;
};

// Requests go to `node`.
template <typename Request>
struct AdminCall {
  NodeId node{};
  Request request;
};
struct WritePlan {
  PartitionPlan plan;  // under the condition that the one before it, plan.version - 1, is there
};
struct UpdateTable {
  TableInfo table;  // under the condition that the one before it, table.version - 1, is there
};
struct RemoveTable {
  TableInfo table;
};
struct RemovePlan {
  PartitionPlan plan;
};
using AdminAction =
    std::variant<AdminCall<wire::CreateReplicaRequest>, AdminCall<wire::AddLearnerRequest>,
                 AdminCall<wire::ChangeMembersRequest>, AdminCall<wire::SplitRequest>,
                 AdminCall<wire::MergeRequest>, AdminCall<wire::DropReplicaRequest>, WritePlan,
                 UpdateTable, RemoveTable, RemovePlan>;

// `options` must be valid.
std::vector<AdminAction> PlanAdmin(const PlannerOptions& options, const AdminView& view);

// A storage member that is behind the beginning of its leader's log, which the leader has from a
// copied tree on: nothing but a copy brings it up to date.
bool CannotBeFed(const wire::ReplicaStatus& member, const wire::ReplicaStatus& leader);

// The partitions that a split or a merge makes: the same whoever asks, and never one drawn for a
// table's first partitions but by chance of 2^-63.
PartitionId ChildOf(PartitionId parent, bool right);
PartitionId MergedOf(PartitionId left, PartitionId right);

// Nodes as placement sees them.
std::vector<PlacementNode> PlacementNodes(const ClusterConfig& config,
                                          const std::map<NodeId, NodeView>& nodes);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ADMIN_PLANNER_H_
