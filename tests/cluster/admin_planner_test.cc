#include "dynlib/cluster/admin_planner.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/planner_options.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/replication/types.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr PartitionId kLeft{101};
constexpr PartitionId kRight{102};

// Nine nodes in three zones, a table of two partitions on nodes 1, 2, 3, the first of which leads.
class AdminPlannerTest : public ::testing::Test {
 protected:
  AdminPlannerTest() {
    for (uint64_t i = 0; i < 9; ++i) {
      config_.nodes.push_back(
          {NodeId{i + 1}, {.zone = std::string(1, "abc"[i % 3]), .rack = {}, .power = {}}});
      view_.nodes[NodeId{i + 1}].alive = true;
    }
    view_.config = &config_;
    TableInfo table{
        .id = TableId{7}, .name = "users", .schema = CatalogueSchema(), .partitions = {}};
    table.partitions.push_back({kLeft, "", "m", Members()});
    table.partitions.push_back({kRight, "m", "", Members()});
    view_.tables.push_back(table);
    for (const PartitionInfo& partition : table.partitions) AddGroup(partition);
  }

  static std::vector<PartitionMember> Members() {
    return {{ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{2}}, {ReplicaId{3}, NodeId{3}}};
  }
  void AddGroup(const PartitionInfo& partition) {
    for (const PartitionMember& member : partition.members) {
      wire::ReplicaStatus& status = AddReplica(partition, member);
      status.set_leads(member.node == partition.members.front().node);
    }
  }
  wire::ReplicaStatus& AddReplica(const PartitionInfo& partition, const PartitionMember& member) {
    wire::ReplicaStatus& status = *view_.nodes[member.node].status.add_replicas();
    status.set_partition(ToUint(partition.id));
    status.set_table(7);
    status.set_replica(ToUint(member.replica));
    status.set_kind(member.log ? wire::LOG : wire::STORAGE);
    status.set_first(partition.first);
    status.set_end(partition.end);
    status.set_generation(partition.generation);
    status.set_epoch(5);
    status.set_durable(40 + ToUint(member.node));
    SetMembers(status, partition.members);
    return status;
  }
  static void SetMembers(wire::ReplicaStatus& status, const std::vector<PartitionMember>& members) {
    status.clear_members();
    for (const PartitionMember& member : members) {
      wire::Member& to = *status.add_members();
      to.set_replica(ToUint(member.replica));
      to.set_node(ToUint(member.node));
      to.set_kind(member.log ? wire::LOG : wire::STORAGE);
    }
  }
  wire::ReplicaStatus& Status(PartitionId partition, NodeId node) {
    for (wire::ReplicaStatus& status : *view_.nodes[node].status.mutable_replicas()) {
      if (status.partition() == ToUint(partition)) return status;
    }
    ADD_FAILURE() << "no replica";
    return AddReplica({}, {});
  }
  void Kill(NodeId node) { view_.nodes[node] = {.alive = false, .dead = true, .status = {}}; }

  std::vector<AdminAction> Plan() { return PlanAdmin(options_, view_); }
  template <typename Action>
  static std::vector<Action> Of(const std::vector<AdminAction>& actions) {
    std::vector<Action> found;
    for (const AdminAction& action : actions) {
      if (const auto* one = std::get_if<Action>(&action)) found.push_back(*one);
    }
    return found;
  }
  // As the catalogue would after the action.
  void Accept(const WritePlan& action) { view_.plans[action.plan.partition] = action.plan; }

  PlannerOptions options_;
  ClusterConfig config_;
  AdminView view_;
};

TEST_F(AdminPlannerTest, NothingIsDoneWhenAllIsWell) { EXPECT_THAT(Plan(), IsEmpty()); }

TEST_F(AdminPlannerTest, ASilentNodeIsNotYetADeadOne) {
  view_.nodes[NodeId{3}] = {.alive = false, .dead = false, .status = {}};
  EXPECT_THAT(Plan(), IsEmpty());
}

TEST_F(AdminPlannerTest, ADeadMemberGetsALogReplicaThenAStorageReplicaInItsZone) {
  Kill(NodeId{3});
  // First an intent, with a replica id that was never used.
  std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(2));
  const PartitionPlan::Move log = *plans[0].plan.move;
  EXPECT_TRUE(log.learner.log);
  EXPECT_EQ(log.learner.replica, ReplicaId{4});
  EXPECT_EQ(log.replaces, ReplicaId{3});
  EXPECT_TRUE(log.learner.node == NodeId{6} || log.learner.node == NodeId{9});
  EXPECT_EQ(plans[0].plan.version, 1u);
  Accept(plans[0]);
  Accept(plans[1]);

  // Then the replica, whose log begins behind what the others have durably.
  auto made = Of<AdminCall<wire::CreateReplicaRequest>>(Plan());
  ASSERT_THAT(made, SizeIs(2));
  EXPECT_EQ(made[0].node, log.learner.node);
  EXPECT_EQ(made[0].request.kind(), wire::LOG);
  EXPECT_EQ(made[0].request.base(), 41u);
  wire::ReplicaStatus& learner =
      AddReplica(view_.tables[0].partitions[0], {ReplicaId{4}, log.learner.node, true});
  learner.set_durable(41);

  // It is fed until it has caught up, and becomes a member in the other's place.
  auto fed = Of<AdminCall<wire::AddLearnerRequest>>(Plan());
  ASSERT_THAT(fed, SizeIs(1));
  EXPECT_EQ(fed[0].node, NodeId{1});
  EXPECT_EQ(fed[0].request.from(), 41u);
  view_.caught_up[kLeft] = ReplicaId{4};
  auto changed = Of<AdminCall<wire::ChangeMembersRequest>>(Plan());
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].request.expected_epoch(), 5u);
  std::vector<uint64_t> members;
  for (const wire::Member& member : changed[0].request.members())
    members.push_back(member.replica());
  EXPECT_THAT(members, ElementsAre(1, 2, 4));

  // Once that is chosen the plan is done, the catalogue follows, and a storage replica is next.
  const std::vector<PartitionMember> with_log = {
      {ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{2}}, {ReplicaId{4}, log.learner.node, true}};
  SetMembers(Status(kLeft, NodeId{1}), with_log);
  const std::vector<AdminAction> actions = Plan();
  EXPECT_EQ(Of<UpdateTable>(actions)[0].table.partitions[0].members, with_log);
  plans = Of<WritePlan>(actions);
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.move, std::nullopt);
  Accept(plans[0]);
  plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_FALSE(plans[0].plan.move->learner.log);
  EXPECT_EQ(plans[0].plan.move->learner.replica, ReplicaId{5});
  EXPECT_EQ(plans[0].plan.move->replaces, ReplicaId{4});
  const NodeId storage = plans[0].plan.move->learner.node;
  EXPECT_NE(storage, log.learner.node);
  EXPECT_TRUE(storage == NodeId{6} || storage == NodeId{9});
  Accept(plans[0]);
  // It copies from a follower; from before it begins the leader keeps the log that it will need.
  Status(kLeft, NodeId{1}).set_released(30);
  const std::vector<AdminAction> begin = Plan();
  made = Of<AdminCall<wire::CreateReplicaRequest>>(begin);
  const auto copy = std::find_if(made.begin(), made.end(), [](const auto& call) {
    return call.request.partition().id() == ToUint(kLeft);
  });
  ASSERT_NE(copy, made.end());
  EXPECT_EQ(copy->request.copy_from(), 2u);
  fed = Of<AdminCall<wire::AddLearnerRequest>>(begin);
  ASSERT_THAT(fed, SizeIs(1));
  EXPECT_EQ(fed[0].request.from(), 30u);
  wire::ReplicaStatus& copying = AddReplica(view_.tables[0].partitions[0], {ReplicaId{5}, storage});
  copying.set_copying(true);
  EXPECT_THAT(Of<AdminCall<wire::AddLearnerRequest>>(Plan()), SizeIs(1));
  copying.set_copying(false);
  fed = Of<AdminCall<wire::AddLearnerRequest>>(Plan());
  ASSERT_THAT(fed, SizeIs(1));
  EXPECT_EQ(fed[0].request.from(), copying.durable());
  // One that the leader has no log for begins anew, under another id.
  Status(kLeft, NodeId{1}).set_released(1000);
  plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.move, std::nullopt);
}

// What the leader alone is known to have in its tree, the new log has to hold (R9).
TEST_F(AdminPlannerTest, R9ALogReplicaWaitsForWordOfASilentMember) {
  Kill(NodeId{3});
  for (const WritePlan& plan : Of<WritePlan>(Plan())) Accept(plan);
  const NodeView known = view_.nodes[NodeId{2}];
  view_.nodes[NodeId{2}] = {.alive = false, .dead = false, .status = {}};
  EXPECT_THAT(Of<AdminCall<wire::CreateReplicaRequest>>(Plan()), IsEmpty());
  view_.nodes[NodeId{2}] = known;
  EXPECT_THAT(Of<AdminCall<wire::CreateReplicaRequest>>(Plan()), SizeIs(2));
}

TEST_F(AdminPlannerTest, WithoutLogReplicasADeadMemberGetsAStorageReplicaAtOnce) {
  options_.log_replicas = false;
  Kill(NodeId{3});
  const std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(2));
  const PartitionPlan::Move move = *plans[0].plan.move;
  EXPECT_FALSE(move.learner.log);
  EXPECT_EQ(move.replaces, ReplicaId{3});
  EXPECT_TRUE(move.learner.node == NodeId{6} || move.learner.node == NodeId{9});
}

TEST_F(AdminPlannerTest, AMemberThatComesBackInTimeKeepsItsPlace) {
  Kill(NodeId{3});
  for (const WritePlan& plan : Of<WritePlan>(Plan())) Accept(plan);
  view_.nodes[NodeId{3}] = {.alive = true, .dead = false, .status = {}};
  for (const PartitionInfo& partition : view_.tables[0].partitions)
    AddReplica(partition, {ReplicaId{3}, NodeId{3}});
  const std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(2));
  for (const WritePlan& plan : plans) {
    EXPECT_EQ(plan.plan.move, std::nullopt);
    EXPECT_EQ(plan.plan.last_replica, ReplicaId{4}) << "ids are not given out twice";
  }
}

TEST_F(AdminPlannerTest, AMemberMissingForAMomentIsNotLost) {
  view_.nodes[NodeId{3}].status.clear_replicas();
  EXPECT_THAT(Plan(), IsEmpty());
  view_.missing = {{kLeft, NodeId{3}}};
  EXPECT_THAT(Of<WritePlan>(Plan()), SizeIs(1));
}

TEST_F(AdminPlannerTest, AReplicaThatLostItsLogIsReplaced) {
  Status(kRight, NodeId{2}).set_failed(true);
  const std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.partition, kRight);
  EXPECT_EQ(plans[0].plan.move->replaces, ReplicaId{2});
}

TEST_F(AdminPlannerTest, AReplicaThatItsLeaderCannotFeedIsReplaced) {
  Status(kLeft, NodeId{1}).set_released(30);
  for (uint64_t node = 1; node <= 3; ++node) Status(kLeft, NodeId{node}).set_applied(30);
  EXPECT_THAT(Plan(), IsEmpty());
  Status(kLeft, NodeId{3}).set_applied(29);
  EXPECT_THAT(Plan(), IsEmpty()) << "it may have said so a moment before";
  view_.missing.insert({kLeft, NodeId{3}});
  const std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.move->replaces, ReplicaId{3});
}

TEST_F(AdminPlannerTest, OnThreeNodesOneThatLostItsLogMakesRoomForItself) {
  config_.nodes.resize(3);
  for (uint64_t id = 4; id <= 9; ++id) view_.nodes.erase(NodeId{id});
  Status(kRight, NodeId{2}).set_failed(true);
  const std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.move->learner.node, NodeId{2});
  EXPECT_FALSE(plans[0].plan.move->learner.log);
  Accept(plans[0]);
  const auto drops = Of<AdminCall<wire::DropReplicaRequest>>(Plan());
  ASSERT_THAT(drops, SizeIs(1));
  EXPECT_EQ(drops[0].request.replica(), 2u);
}

TEST_F(AdminPlannerTest, ACopyThatTheLogHasGoneBeyondIsToldSoOnce) {
  view_.nodes[NodeId{3}].status.mutable_replicas()->Mutable(0)->set_failed(true);
  options_.log_replicas = false;
  const std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  Accept(plans[0]);
  Status(kLeft, NodeId{1}).set_released(30);
  auto made = Of<AdminCall<wire::CreateReplicaRequest>>(Plan());
  ASSERT_THAT(made, SizeIs(1));
  EXPECT_EQ(made[0].request.log_begins(), 30u);
  wire::ReplicaStatus& learner =
      AddReplica(view_.tables[0].partitions[0], plans[0].plan.move->learner);
  learner.set_copying(true);
  learner.set_released(30);
  EXPECT_THAT(Of<AdminCall<wire::CreateReplicaRequest>>(Plan()), IsEmpty());
  EXPECT_THAT(Of<AdminCall<wire::AddLearnerRequest>>(Plan()), SizeIs(1));
  Status(kLeft, NodeId{1}).set_released(50);
  made = Of<AdminCall<wire::CreateReplicaRequest>>(Plan());
  ASSERT_THAT(made, SizeIs(1));
  EXPECT_EQ(made[0].node, plans[0].plan.move->learner.node);
  EXPECT_EQ(made[0].request.replica(), ToUint(plans[0].plan.move->learner.replica));
  EXPECT_EQ(made[0].request.log_begins(), 50u);
  EXPECT_THAT(Of<AdminCall<wire::AddLearnerRequest>>(Plan()), SizeIs(1)) << "kept from there on";
  EXPECT_THAT(Of<WritePlan>(Plan()), IsEmpty()) << "the move goes on";
  learner.set_released(50);
  EXPECT_THAT(Of<AdminCall<wire::CreateReplicaRequest>>(Plan()), IsEmpty());
}

// Routers and nodes are started with where it is: nine nodes, and no other than its own will do.
TEST_F(AdminPlannerTest, AReplicaOfTheCatalogueThatIsLostMakesRoomForItself) {
  config_.catalogue_nodes = {NodeId{1}, NodeId{2}, NodeId{3}};
  const PartitionInfo catalogue{
      .id = kCataloguePartition, .first = {}, .end = {}, .members = Members()};
  AddGroup(catalogue);
  EXPECT_THAT(Plan(), IsEmpty());
  for (uint64_t id = 1; id <= 3; ++id)
    Status(kCataloguePartition, NodeId{id}).set_bytes(UINT64_MAX);
  EXPECT_THAT(Plan(), IsEmpty()) << "it is never split";
  Status(kCataloguePartition, NodeId{3}).set_failed(true);
  std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.partition, kCataloguePartition);
  EXPECT_EQ(plans[0].plan.table, kCatalogueTable);
  EXPECT_EQ(plans[0].plan.move->learner, (PartitionMember{ReplicaId{4}, NodeId{3}, false}));
  Accept(plans[0]);
  auto drops = Of<AdminCall<wire::DropReplicaRequest>>(Plan());
  ASSERT_THAT(drops, SizeIs(1));
  EXPECT_EQ(drops[0].node, NodeId{3});
  EXPECT_EQ(drops[0].request.partition(), ToUint(kCataloguePartition));
  view_.nodes[NodeId{3}].status.mutable_replicas()->RemoveLast();
  auto made = Of<AdminCall<wire::CreateReplicaRequest>>(Plan());
  ASSERT_THAT(made, SizeIs(1));
  EXPECT_EQ(made[0].node, NodeId{3});
  EXPECT_EQ(made[0].request.schema(), EncodeSchema(CatalogueSchema()));
  // Its plan counts its replica ids, and stays.
  wire::ReplicaStatus& learner = AddReplica(catalogue, {ReplicaId{4}, NodeId{3}, false});
  std::vector<PartitionMember> members = Members();
  members[2].replica = ReplicaId{4};
  SetMembers(Status(kCataloguePartition, NodeId{1}), members);
  SetMembers(learner, members);
  plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_FALSE(plans[0].plan.move.has_value());
  Accept(plans[0]);
  EXPECT_THAT(Plan(), IsEmpty());
  // One that is dead is waited for.
  Kill(NodeId{3});
  for (const WritePlan& plan : Of<WritePlan>(Plan()))
    EXPECT_NE(plan.plan.partition, kCataloguePartition);
}

TEST_F(AdminPlannerTest, WhatNoConfigurationNamesIsDropped) {
  AddReplica(view_.tables[0].partitions[0], {ReplicaId{9}, NodeId{8}});
  const auto drops = Of<AdminCall<wire::DropReplicaRequest>>(Plan());
  ASSERT_THAT(drops, SizeIs(1));
  EXPECT_EQ(drops[0].node, NodeId{8});
  EXPECT_FALSE(drops[0].request.force()) << "the node may know better";
}

TEST_F(AdminPlannerTest, OneThatMissedItsRemovalIsDroppedAllTheSame) {
  AddReplica(view_.tables[0].partitions[0], {ReplicaId{9}, NodeId{8}}).set_epoch(4);
  const auto drops = Of<AdminCall<wire::DropReplicaRequest>>(Plan());
  ASSERT_THAT(drops, SizeIs(1));
  EXPECT_TRUE(drops[0].request.force()) << "it would wait for ever to be told";
}

TEST_F(AdminPlannerTest, OneThatKnowsANewerConfigurationIsLeftAlone) {
  AddReplica(view_.tables[0].partitions[0], {ReplicaId{9}, NodeId{8}}).set_epoch(6);
  EXPECT_THAT(Plan(), IsEmpty());
}

TEST_F(AdminPlannerTest, ALargePartitionIsSplitAndTheCatalogueFollows) {
  Status(kLeft, NodeId{1}).set_bytes(options_.split_bytes + 1);
  Status(kLeft, NodeId{1}).set_middle("g");
  const auto splits = Of<AdminCall<wire::SplitRequest>>(Plan());
  ASSERT_THAT(splits, SizeIs(1));
  EXPECT_EQ(splits[0].request.at(), "g");
  const PartitionId a{splits[0].request.left()};
  const PartitionId b{splits[0].request.right()};
  EXPECT_EQ(a, ChildOf(kLeft, false));
  for (uint64_t node = 1; node <= 3; ++node) {
    wire::ReplicaStatus& status = Status(kLeft, NodeId{node});
    status.set_ended(50);
    status.add_successors(ToUint(a));
    status.add_successors(ToUint(b));
  }
  EXPECT_THAT(Plan(), IsEmpty()) << "the children are not led yet";
  AddGroup({a, "", "g", Members(), 1});
  AddGroup({b, "g", "m", Members(), 1});
  const std::vector<UpdateTable> updates = Of<UpdateTable>(Plan());
  ASSERT_THAT(updates, SizeIs(1));
  std::vector<PartitionId> ids;
  for (const PartitionInfo& partition : updates[0].table.partitions) ids.push_back(partition.id);
  EXPECT_THAT(ids, ElementsAre(a, b, kRight));
  EXPECT_EQ(updates[0].table.version, 2u);
  // The parent goes when the catalogue no longer needs it, and every member has its end.
  EXPECT_THAT(Of<AdminCall<wire::DropReplicaRequest>>(Plan()), IsEmpty());
  view_.tables[0] = updates[0].table;
  EXPECT_THAT(Of<AdminCall<wire::DropReplicaRequest>>(Plan()), SizeIs(3));
  // Also when nobody leads it any more, and where one came too late for its end.
  Status(kLeft, NodeId{1}).set_leads(false);
  Status(kLeft, NodeId{3}).set_ended(0);
  const auto drops = Of<AdminCall<wire::DropReplicaRequest>>(Plan());
  ASSERT_THAT(drops, SizeIs(3));
  EXPECT_TRUE(drops[0].request.force());
  // But not while somebody needs its log to make a child.
  Status(b, NodeId{3}).set_copying(true);
  EXPECT_THAT(Of<AdminCall<wire::DropReplicaRequest>>(Plan()), IsEmpty());
}

TEST_F(AdminPlannerTest, NothingIsSplitWhileAMemberIsAway) {
  Status(kLeft, NodeId{1}).set_bytes(options_.split_bytes + 1);
  Status(kLeft, NodeId{1}).set_middle("g");
  view_.nodes[NodeId{3}].alive = false;
  EXPECT_THAT(Plan(), IsEmpty());
}

TEST_F(AdminPlannerTest, SmallIdleNeighboursAreMergedInTwoSteps) {
  options_.merge_bytes = 1 << 20;
  auto merges = Of<AdminCall<wire::MergeRequest>>(Plan());
  ASSERT_THAT(merges, SizeIs(2));
  const PartitionId merged{merges[0].request.merged()};
  // Cut in the middle: the other half is asked again, and nothing else is done with it.
  for (uint64_t node = 1; node <= 3; ++node) {
    Status(kLeft, NodeId{node}).set_ended(50);
    Status(kLeft, NodeId{node}).add_successors(ToUint(merged));
  }
  merges = Of<AdminCall<wire::MergeRequest>>(Plan());
  ASSERT_THAT(merges, SizeIs(1));
  EXPECT_EQ(merges[0].request.partition(), ToUint(kRight));
  for (uint64_t node = 1; node <= 3; ++node) {
    Status(kRight, NodeId{node}).set_ended(60);
    Status(kRight, NodeId{node}).add_successors(ToUint(merged));
  }
  AddGroup({merged, "", "", Members(), 1});
  const std::vector<UpdateTable> updates = Of<UpdateTable>(Plan());
  ASSERT_THAT(updates, SizeIs(1));
  ASSERT_THAT(updates[0].table.partitions, SizeIs(1));
  EXPECT_EQ(updates[0].table.partitions[0].id, merged);
}

TEST_F(AdminPlannerTest, TheCatalogueFollowsAMergeThatWasSplitAgain) {
  const PartitionId merged{200};
  const PartitionId a{201};
  const PartitionId b{202};
  AddGroup({merged, "", "", Members(), 1});
  for (uint64_t node = 1; node <= 3; ++node) {
    for (PartitionId half : {kLeft, kRight}) {
      Status(half, NodeId{node}).set_ended(50);
      Status(half, NodeId{node}).add_successors(ToUint(merged));
    }
    Status(merged, NodeId{node}).set_ended(10);
    Status(merged, NodeId{node}).add_successors(ToUint(a));
    Status(merged, NodeId{node}).add_successors(ToUint(b));
  }
  AddGroup({a, "", "g", Members(), 2});
  AddGroup({b, "g", "", Members(), 2});
  const std::vector<UpdateTable> updates = Of<UpdateTable>(Plan());
  ASSERT_THAT(updates, SizeIs(1));
  ASSERT_THAT(updates[0].table.partitions, SizeIs(2));
  EXPECT_EQ(updates[0].table.partitions[1].id, b);
}

TEST_F(AdminPlannerTest, ADeletedTableIsDroppedWholeBeforeItsEntry) {
  view_.tables[0].deleting = true;
  std::vector<AdminAction> actions = Plan();
  EXPECT_THAT(Of<AdminCall<wire::DropReplicaRequest>>(actions), SizeIs(6));
  EXPECT_THAT(Of<RemoveTable>(actions), IsEmpty());
  for (auto& [id, node] : view_.nodes) node.status.Clear();
  view_.nodes[NodeId{9}].alive = false;
  EXPECT_THAT(Of<RemoveTable>(Plan()), IsEmpty()) << "a silent node may hold some";
  view_.nodes[NodeId{9}].dead = true;
  EXPECT_THAT(Of<RemoveTable>(Plan()), SizeIs(1)) << "one that is dead is not waited for";
  view_.nodes[NodeId{9}].dead = false;
  view_.nodes[NodeId{9}].alive = true;
  EXPECT_THAT(Of<RemoveTable>(Plan()), SizeIs(1));
}

TEST_F(AdminPlannerTest, NoMoreMovesAtATimeThanAllowed) {
  options_.log_moves_max = 1;
  Kill(NodeId{3});
  EXPECT_THAT(Of<WritePlan>(Plan()), SizeIs(1));
  options_.log_replicas = false;
  EXPECT_THAT(Of<WritePlan>(Plan()), SizeIs(2));
  options_.moves_max = 1;
  EXPECT_THAT(Of<WritePlan>(Plan()), SizeIs(1));
}

TEST_F(AdminPlannerTest, APlanForAMemberThatIsWellAgainIsGivenUp) {
  config_.nodes.resize(3);
  for (uint64_t id = 4; id <= 9; ++id) view_.nodes.erase(NodeId{id});
  Status(kRight, NodeId{2}).set_failed(true);
  std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  Accept(plans[0]);
  // The node restarts before it is asked to drop the replica; what had failed was in memory.
  Status(kRight, NodeId{2}).set_failed(false);
  plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_FALSE(plans[0].plan.move.has_value());
  Accept(plans[0]);
  Status(kRight, NodeId{1}).set_bytes(uint64_t{1} << 50);
  Status(kRight, NodeId{1}).set_middle("t");
  EXPECT_THAT(Of<AdminCall<wire::SplitRequest>>(Plan()), SizeIs(1)) << "should be split";
  Status(kRight, NodeId{3}).set_failed(true);
  EXPECT_THAT(Plan(), ::testing::Not(IsEmpty())) << "node 3's replica should be replaced";
}

TEST_F(AdminPlannerTest, ALostMemberThatMayVoteStaysWhileAnotherIsAway) {
  config_.nodes.resize(3);
  for (uint64_t id = 4; id <= 9; ++id) view_.nodes.erase(NodeId{id});
  Status(kRight, NodeId{3}).set_failed(true);  // Its tree is damaged; it votes on.
  std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  Accept(plans[0]);
  Kill(NodeId{2});
  EXPECT_THAT(Of<AdminCall<wire::DropReplicaRequest>>(Plan()), IsEmpty());
}

TEST_F(AdminPlannerTest, OfTwoLostMembersTheOneThatCanBeIsReplaced) {
  // zone c: node 3 alone; zones a and b have spares.
  std::erase_if(config_.nodes,
                [](const NodeInfo& n) { return n.id == NodeId{6} || n.id == NodeId{9}; });
  view_.nodes.erase(NodeId{6});
  view_.nodes.erase(NodeId{9});
  Status(kRight, NodeId{2}).set_failed(true);
  Kill(NodeId{3});
  EXPECT_THAT(Of<WritePlan>(Plan()), ::testing::Not(IsEmpty()))
      << "member on node 2 could be replaced";
}

TEST_F(AdminPlannerTest, LogReplicasDoNotWaitForTreeCopies) {
  options_.moves_max = 1;
  Kill(NodeId{3});
  // The first partition is covered by a log replica on node 6 already.
  std::vector<PartitionMember> members = {
      {ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{2}}, {ReplicaId{4}, NodeId{6}, true}};
  PartitionInfo left{kLeft, "", "m", members};
  AddReplica(left, members[2]);
  SetMembers(Status(kLeft, NodeId{1}), members);
  SetMembers(Status(kLeft, NodeId{2}), members);
  view_.plans[kLeft] = {.partition = kLeft, .table = TableId{7}, .last_replica = ReplicaId{4}};
  std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(2));
  EXPECT_EQ(plans[0].plan.partition, kRight)
      << "its commits are on two disks, the other's on three";
  EXPECT_TRUE(plans[0].plan.move->learner.log);
  EXPECT_EQ(plans[1].plan.partition, kLeft);
  Accept(plans[1]);
  // The one tree copy that may be under way is.
  plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.partition, kRight);
}

TEST_F(AdminPlannerTest, AMoveOfAPartitionThatIsGoneTakesNoPlaceAndIsForgotten) {
  options_.moves_max = 1;
  // Of a parent that was split while a move was under way, and dropped since.
  const PartitionId parent{55};
  PartitionPlan old;
  old.partition = parent;
  old.table = TableId{7};
  old.last_replica = ReplicaId{4};
  old.move =
      PartitionPlan::Move{.learner = {ReplicaId{4}, NodeId{6}, true}, .replaces = ReplicaId{3}};
  view_.plans[parent] = old;
  const std::vector<RemovePlan> removed = Of<RemovePlan>(Plan());
  ASSERT_THAT(removed, SizeIs(1));
  EXPECT_EQ(removed[0].plan.partition, parent);
  options_.log_moves_max = 1;
  Kill(NodeId{3});
  EXPECT_THAT(Of<WritePlan>(Plan()), SizeIs(1));
}
TEST_F(AdminPlannerTest, ANodeThatRefusesToMakeAReplicaIsNotAskedForEver) {
  Kill(NodeId{3});
  for (const WritePlan& plan : Of<WritePlan>(Plan())) Accept(plan);
  const NodeId refuses = view_.plans.at(kLeft).move->learner.node;
  view_.refused.insert({kLeft, refuses});
  std::vector<WritePlan> plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_EQ(plans[0].plan.partition, kLeft);
  EXPECT_FALSE(plans[0].plan.move.has_value());
  Accept(plans[0]);
  plans = Of<WritePlan>(Plan());
  ASSERT_THAT(plans, SizeIs(1));
  EXPECT_NE(plans[0].plan.move->learner.node, refuses);
}

TEST(PlannerOptionsTest, BadOnesAreNamed) {
  EXPECT_THAT(Validate(PlannerOptions{.split_bytes = 1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Validate(PlannerOptions{.merge_bytes = 1ull << 30}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Validate(PlannerOptions{.moves_max = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(PartitionPlanTest, AnItemAndBack) {
  const PartitionPlan plan{
      .partition = kLeft,
      .table = TableId{7},
      .version = 3,
      .last_replica = ReplicaId{9},
      .move = PartitionPlan::Move{{ReplicaId{9}, NodeId{4}, true}, ReplicaId{2}}};
  EXPECT_THAT(DecodePlanItem(EncodePlanItem(plan)), IsOkAndHolds(plan));
  EXPECT_TRUE(IsPlanName(PlanName(kLeft)));
  EXPECT_FALSE(IsPlanName("users"));
  Item damaged = EncodePlanItem(plan);
  damaged["plan"] = Value::Binary("\xff");
  EXPECT_THAT(DecodePlanItem(damaged), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodePlanItem({}), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(PlacementTest, TwoStorageReplicasInAZoneAreRefused) {
  using replication::Member;
  using replication::MemberKind;
  ClusterConfig config;
  for (uint64_t i = 1; i <= 6; ++i) {
    const std::string zone = i == 6 ? "" : std::string(1, "abc"[(i - 1) % 3]);
    config.nodes.push_back({NodeId{i}, {.zone = zone, .rack = {}, .power = {}}});
  }
  const auto on = [](uint64_t node, MemberKind kind = MemberKind::kStorage) {
    return Member{ReplicaId{node}, NodeId{node}, kind};
  };
  const std::vector<Member> present = {on(1), on(2), on(3)};
  DYNLIB_EXPECT_OK(CheckZonesApart(config, present, {on(4), on(2), on(3)}));
  DYNLIB_EXPECT_OK(CheckZonesApart(config, present, {on(6), on(2), on(3)}));
  DYNLIB_EXPECT_OK(CheckZonesApart(config, present, {on(1), on(2), on(5, MemberKind::kLog)}));
  EXPECT_THAT(CheckZonesApart(config, present, {on(1), on(4), on(3)}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::HasSubstr("nodes 4 and 1, both in zone a")));
  // What is so already, since nodes were moved, is not this change's fault.
  DYNLIB_EXPECT_OK(CheckZonesApart(config, {on(1), on(4), on(3)}, {on(1), on(4), on(2)}));
}

TEST(PlacementTest, ZonesApartThenPowerThenTheEmptiest) {
  std::vector<PlacementNode> nodes;
  for (uint64_t i = 1; i <= 6; ++i) {
    nodes.push_back(
        {.info = {NodeId{i}, {.zone = i <= 3 ? "a" : "b", .rack = "r", .power = i % 2 ? "p" : "q"}},
         .alive = true});
  }
  nodes[3].used_bytes = nodes[3].info.capacity_bytes / 2;
  EXPECT_THAT(ChooseNode(nodes, {.others = {NodeId{1}}, .zone = "b"}), IsOkAndHolds(NodeId{5}));
  EXPECT_THAT(ChooseNode(nodes, {.others = {NodeId{1}}, .excluded = {NodeId{5}, NodeId{6}}}),
              IsOkAndHolds(NodeId{4}));
  for (int i = 3; i < 6; ++i) nodes[i].alive = false;
  EXPECT_THAT(ChooseNode(nodes, {.others = {NodeId{1}}}), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(ChooseNode(nodes, {.others = {NodeId{1}}, .zones_apart = false}),
              IsOkAndHolds(NodeId{2}))
      << "another power feed";
}

}  // namespace
}  // namespace dynlib::cluster
