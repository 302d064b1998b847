// What admin_planner.cc plans with: one look at the cluster, and what came of it so far.
//
// The parts are in admin_planner.cc (tables and what their groups have become), _moves.cc (replicas
// that are replaced) and _ranges.cc (partitions that are split, merged and dropped).
//
// Internal to the planner. Threads: one; lives as long as one call of PlanAdmin.
#ifndef DYNLIB_CLUSTER_ADMIN_PLANNER_IMPL_H_
#define DYNLIB_CLUSTER_ADMIN_PLANNER_IMPL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/planner_options.h"

namespace dynlib::cluster {

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

class Planner {
 public:
  Planner(const PlannerOptions& options, const AdminView& view);

  std::vector<AdminAction> Run();

 private:
  void CountMove(const PartitionPlan& plan);
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

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ADMIN_PLANNER_IMPL_H_
