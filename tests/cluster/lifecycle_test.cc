// Partitions split, merged, healed and deleted, in whole simulated clusters.
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/service.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/sim_cluster.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::map<std::string, std::string> Items(int count, const std::string& value) {
  std::map<std::string, std::string> items;
  for (int i = 0; i < count; ++i) {
    std::string id = "i";
    id += std::to_string(i);
    items[id] = value + id;
  }
  return items;
}

void ExpectItems(SimCluster& cluster, const std::map<std::string, std::string>& items) {
  for (const auto& [id, value] : items) EXPECT_EQ(cluster.Get("users", id), value) << id;
}

// Whether every member of every partition is a storage replica that is up and keeps step.
bool Whole(SimCluster& cluster, TableId table, size_t partitions) {
  const std::map<std::string, SimCluster::Seen> leaders = cluster.Leaders(table);
  if (leaders.size() != partitions) return false;
  const std::vector<SimCluster::Seen> replicas = cluster.Replicas();
  for (const auto& [first, leader] : leaders) {
    for (const wire::Member& member : leader.status.members()) {
      bool found = false;
      for (const SimCluster::Seen& seen : replicas) {
        found = found || (seen.status.partition() == leader.status.partition() &&
                          seen.status.replica() == member.replica() && !seen.status.failed() &&
                          !seen.status.copying() && seen.status.kind() == wire::STORAGE &&
                          seen.status.applied() >= leader.status.chosen());
      }
      if (!found) return false;
    }
  }
  return true;
}

TEST(LifecycleTest, APartitionSplitsWhileWritesGoOnAndTheParentGoes) {
  SimCluster cluster(3);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  std::map<std::string, std::string> items = Items(300, "a");
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  const TableId table = cluster.Table("users")->id;
  const SimCluster::Seen parent = cluster.Leaders(table).at("");
  wire::SplitRequest request;
  request.set_partition(parent.status.partition());
  request.set_at(HashBoundary(uint64_t{1} << 63));
  request.set_left(ToUint(ChildOf(PartitionId{request.partition()}, false)));
  request.set_right(ToUint(ChildOf(PartitionId{request.partition()}, true)));
  // Writes of the same items are on their way all the time.
  int open = 0;
  int failed = 0;
  int round = 0;
  std::function<void()> write = [&] {
    const std::string id = "i" + std::to_string(round++ % 300);
    items[id] = "b" + std::to_string(round);
    ++open;
    cluster.router().Put("users", SimCluster::MakeItem(id, items[id]), {},
                         [&](absl::Status status) {
                           --open;
                           failed += !status.ok();
                           if (round < 900) write();
                         });
  };
  cluster.client()->Post(write);
  cluster.RunFor(milliseconds(50));
  DYNLIB_ASSERT_OK(cluster.Call<wire::SplitReply>(parent.node, kSplit, request));
  ASSERT_TRUE(cluster.RunUntil([&] { return open == 0 && round >= 900; }, seconds(120)));
  EXPECT_EQ(failed, 0);
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 2); }));
  ExpectItems(cluster, items);
  // The catalogue follows, and nothing of the parent is left on any node.
  EXPECT_TRUE(cluster.Until([&] {
    for (const SimCluster::Seen& seen : cluster.Replicas()) {
      if (seen.status.partition() == request.partition()) return false;
    }
    return cluster.Table("users")->partitions.size() == 2;
  }));
  // Again is OK where it was done, also after the power of all nodes was cut.
  for (uint64_t id = 1; id <= 3; ++id) cluster.PowerOff(NodeId{id});
  for (uint64_t id = 1; id <= 3; ++id) DYNLIB_ASSERT_OK(cluster.Restart(NodeId{id}));
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 2); }));
  ExpectItems(cluster, items);
}

TEST(LifecycleTest, APowerCutRightAfterASplitLosesNothing) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SimCluster cluster(3, seed);
    cluster.options().checkpoint_interval = seconds(600);
    DYNLIB_ASSERT_OK(cluster.Boot());
    DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
    std::map<std::string, std::string> items = Items(50, "a");
    DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
    const TableId table = cluster.Table("users")->id;
    const SimCluster::Seen parent = cluster.Leaders(table).at("");
    wire::SplitRequest request;
    request.set_partition(parent.status.partition());
    request.set_at(HashBoundary(uint64_t{1} << 63));
    request.set_left(1001);
    request.set_right(1002);
    DYNLIB_ASSERT_OK(cluster.Call<wire::SplitReply>(parent.node, kSplit, request));
    for (const auto& [id, value] : Items(10 * static_cast<int>(seed % 4), "c")) {
      items[id] = value;
      DYNLIB_ASSERT_OK(cluster.Put("users", id, value));
    }
    for (uint64_t id = 1; id <= 3; ++id) cluster.PowerOff(NodeId{id});
    for (uint64_t id = 1; id <= 3; ++id) DYNLIB_ASSERT_OK(cluster.Restart(NodeId{id}));
    ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 2); })) << seed;
    ExpectItems(cluster, items);
  }
}

TEST(LifecycleTest, TwoNeighboursMerge) {
  SimCluster cluster(3);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 2));
  std::map<std::string, std::string> items = Items(200, "a");
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 2); }));
  const std::map<std::string, SimCluster::Seen> leaders = cluster.Leaders(table);
  wire::MergeRequest request;
  const SimCluster::Seen& left = leaders.begin()->second;
  const SimCluster::Seen& right = leaders.rbegin()->second;
  request.set_left(left.status.partition());
  request.set_right(right.status.partition());
  request.set_merged(ToUint(MergedOf(PartitionId{request.left()}, PartitionId{request.right()})));
  // Planned before a member moved.
  *request.mutable_members() = left.status.members();
  request.mutable_members(1)->set_node(7);
  for (const SimCluster::Seen* half : {&left, &right}) {
    request.set_partition(half->status.partition());
    EXPECT_THAT(cluster.Call<wire::MergeReply>(half->node, kMerge, request),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is on nodes")));
  }
  request.mutable_members()->RemoveLast();
  EXPECT_THAT(cluster.Call<wire::MergeReply>(right.node, kMerge, request),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_TRUE(Whole(cluster, table, 2));
  *request.mutable_members() = left.status.members();
  // Cut after the first half: the auto admin goes on with the second.
  request.set_partition(request.left());
  DYNLIB_ASSERT_OK(cluster.Call<wire::MergeReply>(left.node, kMerge, request));
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  for (auto& [id, value] : items) {
    if (!id.ends_with("7")) continue;
    value = "after";
    DYNLIB_ASSERT_OK(cluster.Put("users", id, value));
  }
  ExpectItems(cluster, items);
  EXPECT_TRUE(cluster.Until([&] {
    size_t replicas = 0;
    for (const SimCluster::Seen& seen : cluster.Replicas())
      replicas += seen.status.table() == ToUint(table);
    return replicas == 3 && cluster.Table("users")->partitions.size() == 1;
  }));
  for (uint64_t id = 1; id <= 3; ++id) cluster.PowerOff(NodeId{id});
  for (uint64_t id = 1; id <= 3; ++id) DYNLIB_ASSERT_OK(cluster.Restart(NodeId{id}));
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  ExpectItems(cluster, items);
}

// A node that holds some of the table, but not the catalogue; none if there is none.
NodeId Victim(SimCluster& cluster, TableId table) {
  NodeId victim{};
  for (const SimCluster::Seen& seen : cluster.Replicas()) {
    if (seen.status.table() == ToUint(table) && ToUint(seen.node) > 3) victim = seen.node;
  }
  return victim;
}

// Of a table of six partitions, or one of them has no leader.
bool IsMember(SimCluster& cluster, TableId table, NodeId node) {
  const std::map<std::string, SimCluster::Seen> leaders = cluster.Leaders(table);
  if (leaders.size() != 6) return true;
  for (const auto& [first, leader] : leaders) {
    for (const wire::Member& member : leader.status.members())
      if (NodeId{member.node()} == node) return true;
  }
  return false;
}

TEST(LifecycleTest, AChangeThatPutsTwoReplicasInAZoneIsRefused) {
  SimCluster cluster(4);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  const SimCluster::Seen leader = cluster.Leaders(table).at("");
  wire::ChangeMembersRequest request;
  request.set_partition(leader.status.partition());
  request.set_expected_epoch(leader.status.epoch());
  *request.mutable_members() = leader.status.members();
  std::set<uint64_t> nodes;
  for (const wire::Member& member : request.members()) nodes.insert(member.node());
  const uint64_t unused = nodes.contains(4) ? 1 : 4;  // Both are in zone a.
  for (wire::Member& member : *request.mutable_members()) {
    if (member.node() != 2) continue;
    member.set_node(unused);
    member.set_replica(9);
  }
  EXPECT_THAT(cluster.Call<wire::ChangeMembersReply>(leader.node, kChangeMembers, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("both in zone a")));
  EXPECT_EQ(cluster.Leaders(table).at("").status.epoch(), leader.status.epoch());
}

TEST(LifecycleTest, ADeadNodeIsCoveredByLogReplicasThenRebuiltElsewhere) {
  SimCluster cluster(9);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 6));
  std::map<std::string, std::string> items = Items(600, "a");
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 6); }));
  const NodeId victim = Victim(cluster, table);
  ASSERT_NE(victim, NodeId{});
  cluster.PowerOff(victim);
  const Instant dead = cluster.world().Now();
  ASSERT_TRUE(cluster.Until([&] { return !IsMember(cluster, table, victim); }));
  EXPECT_LT(cluster.world().Now() - dead, seconds(5)) << "a second to be called dead included";
  EXPECT_GT(cluster.sink().counts["admin.move_planned"], 0);
  ASSERT_TRUE(cluster.Until(
      [&] { return !IsMember(cluster, table, victim) && Whole(cluster, table, 6); }, seconds(120)));
  ExpectItems(cluster, items);
  // Back again, it finds itself replaced, and lets go of what it had.
  DYNLIB_ASSERT_OK(cluster.Restart(victim));
  EXPECT_TRUE(cluster.Until([&] {
    for (const SimCluster::Seen& seen : cluster.Replicas()) {
      if (seen.node == victim && seen.status.table() == ToUint(table)) return false;
    }
    return true;
  }));
  items = Items(600, "b");
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  ExpectItems(cluster, items);
}

// The node to which a tree is being copied; none if there is none.
NodeId CopyTarget(SimCluster& cluster, TableId table) {
  for (const SimCluster::Seen& seen : cluster.Replicas()) {
    if (seen.status.table() == ToUint(table) && seen.status.copying()) return seen.node;
  }
  return NodeId{};
}

TEST(LifecycleTest, ACopyGoesOnWhereItWasWhenItsTargetRestarts) {
  SimCluster cluster(9);
  cluster.options().copy_service.bytes_per_second = 100'000;
  cluster.options().copier.chunk_bytes = 16 << 10;
  cluster.options().checkpoint_log_bytes = 32 << 10;
  cluster.options().checkpoint_interval = seconds(600);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  std::map<std::string, std::string> items = Items(500, std::string(1000, 'a'));
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  cluster.PowerOff(Victim(cluster, table));
  constexpr int64_t kBytes = 500 * 1000;
  int64_t& copied = cluster.sink().counts["copy.bytes"];
  ASSERT_TRUE(cluster.Until([&] { return copied > kBytes / 2; }));
  const NodeId target = CopyTarget(cluster, table);
  ASSERT_NE(target, NodeId{});
  DYNLIB_ASSERT_OK(cluster.Restart(target));
  EXPECT_EQ(CopyTarget(cluster, table), target);
  for (int i = 0; i < 10; ++i) {
    const std::string id = "i" + std::to_string(i * 7);
    items[id] = "changed";
    DYNLIB_ASSERT_OK(cluster.Put("users", id, items[id]));
  }
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  ExpectItems(cluster, items);
  // A checkpoint's worth is lost, and rows change.
  EXPECT_LT(copied, kBytes * 13 / 10);
  EXPECT_GT(cluster.sink().counts["copy.bytes_same"], kBytes / 3);
}

// Whichever superblock is lost: a checkpoint in which the replica is still copied would have it
// begin again under an id that has voted (rule R3).
TEST(LifecycleTest, R3AReplicaThatTookPartIsNeverCopiedAgainUnderItsId) {
  for (const uint64_t superblock : {0, 1}) {
    SimCluster cluster(9);
    cluster.options().checkpoint_interval = seconds(600);
    DYNLIB_ASSERT_OK(cluster.Boot());
    DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
    const std::map<std::string, std::string> items = Items(100, std::string(1000, 'a'));
    DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
    const TableId table = cluster.Table("users")->id;
    cluster.PowerOff(Victim(cluster, table));
    NodeId target{};
    ASSERT_TRUE(cluster.Until([&] {
      for (const std::string& event : cluster.sink().events) {
        if (event.starts_with("node.replica_added node="))
          target = NodeId{std::stoull(event.substr(event.find('=') + 1))};
      }
      return target != NodeId{};
    }));
    cluster.PowerOff(target);
    cluster.world().node(target)->disk()->FlipBit("pages", (superblock * 4096 + 20) * 8);
    const int64_t copies = cluster.sink().counts["node.copy_started"];
    DYNLIB_ASSERT_OK(cluster.Restart(target));
    EXPECT_EQ(CopyTarget(cluster, table), NodeId{});
    EXPECT_EQ(cluster.sink().counts["node.copy_started"], copies);
    ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
    ExpectItems(cluster, items);
  }
}

// A copy takes five seconds, and the log that is kept for it is full after two.
TEST(LifecycleTest, ACopyThatWritesOutrunCatchesUpByWhatChanged) {
  SimCluster cluster(9);
  cluster.options().copy_service.bytes_per_second = 100'000;
  cluster.options().copier.chunk_bytes = 16 << 10;
  cluster.options().replication.group.retained_bytes_max = 100 << 10;
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  std::map<std::string, std::string> items = Items(500, std::string(1000, 'a'));
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  // 50 KB a second, of few items.
  const Clock* clock = cluster.world().node(SimCluster::kClient)->clock();
  bool stopped = false;
  int open = 0;
  int round = 0;
  std::function<void()> write = [&] {
    const std::string id = "i" + std::to_string(round++ % 10);
    items[id] = std::to_string(round) + std::string(1000, 'b');
    ++open;
    cluster.router().Put(
        "users", SimCluster::MakeItem(id, items[id]), {}, [&](absl::Status status) {
          --open;
          EXPECT_TRUE(status.ok()) << status;
          if (!stopped) {
            cluster.client()->RunAt(clock->Now() + milliseconds(20), [&] { write(); });
          }
        });
  };
  const NodeId victim = Victim(cluster, table);
  cluster.PowerOff(victim);
  cluster.client()->Post(write);
  EXPECT_TRUE(cluster.Until([&] {
    const std::map<std::string, SimCluster::Seen> leaders = cluster.Leaders(table);
    if (!leaders.contains("")) return false;
    for (const wire::Member& member : leaders.at("").status.members()) {
      if (NodeId{member.node()} == victim || member.kind() == wire::LOG) return false;
    }
    return true;
  }));
  EXPECT_GT(cluster.sink().counts["node.copy_again"], 0);
  EXPECT_LT(cluster.sink().counts["copy.bytes"], 500 * 1000 * 2);
  stopped = true;
  ASSERT_TRUE(cluster.RunUntil([&] { return open == 0; }));
  cluster.RunFor(milliseconds(50));
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 1); }));
  ExpectItems(cluster, items);
}

// It answers whoever asks, and nothing becomes durable on it: all of its partitions have one copy
// less, and nobody waits for their next write to say so.
TEST(LifecycleTest, ANodeWhoseDiskHangsIsCoveredByLogReplicasAndComesBack) {
  SimCluster cluster(9);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 6));
  std::map<std::string, std::string> items = Items(600, "a");
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 6); }));
  const NodeId victim = Victim(cluster, table);
  ASSERT_NE(victim, NodeId{});
  const Instant hangs = cluster.world().Now();
  cluster.world().node(victim)->disk()->StallUntil(hangs + seconds(60));
  ASSERT_TRUE(cluster.Until([&] { return !IsMember(cluster, table, victim); }));
  EXPECT_LT(cluster.world().Now() - hangs, seconds(6));
  ExpectItems(cluster, items);
  cluster.world().RunFor(seconds(60));
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, 6); }, seconds(120)));
  EXPECT_GT(cluster.sink().counts["admin.node_back"], 0);
  EXPECT_TRUE(cluster.Until([&] { return cluster.world().node(victim)->up(); }));
  items = Items(600, "b");
  DYNLIB_ASSERT_OK(cluster.PutMany("users", items));
  ExpectItems(cluster, items);
}

// The catalogue's replica on the node, if it is a member, and whole.
ReplicaId WholeCatalogueReplica(SimCluster& cluster, NodeId node) {
  const std::map<std::string, SimCluster::Seen> leaders = cluster.Leaders(kCatalogueTable);
  if (!leaders.contains("") || !Whole(cluster, kCatalogueTable, 1)) return ReplicaId{};
  for (const wire::Member& member : leaders.at("").status.members())
    if (NodeId{member.node()} == node) return ReplicaId{member.replica()};
  return ReplicaId{};
}

TEST(LifecycleTest, AReplicaOfTheCatalogueThatIsDamagedIsMadeAnewInItsPlace) {
  SimCluster cluster(6);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  const NodeId victim{3};
  for (uint64_t replica = 4; replica <= 5; ++replica) {
    ASSERT_TRUE(cluster.Until(
        [&] { return ToUint(WholeCatalogueReplica(cluster, victim)) == (replica == 4 ? 3 : 4); }));
    cluster.RunFor(seconds(2));  // into its tree, on disk
    cluster.PowerOff(victim);
    sim::SimDisk* disk = cluster.world().node(victim)->disk();
    const std::string pages = disk->ReadRaw("pages");
    for (size_t at = pages.find("users"); at != pages.npos; at = pages.find("users", at + 1))
      disk->FlipBit("pages", at * 8);
    DYNLIB_ASSERT_OK(cluster.Restart(victim));
    EXPECT_GT(cluster.sink().counts["node.replica_lost"], 0);
    EXPECT_TRUE(cluster.Until(
        [&] { return WholeCatalogueReplica(cluster, victim) == ReplicaId{replica}; }));
  }
  // It votes: with another of the three gone nothing is decided without it.
  cluster.PowerOff(NodeId{1});
  EXPECT_TRUE(cluster.Until([&] { return cluster.Table("users").has_value(); }));
  DYNLIB_EXPECT_OK(cluster.DeleteTable("users"));
}

// With its disk it lost its votes: it may not come back as the replica that it was.
TEST(LifecycleTest, R3ANodeOfTheCatalogueWithAnotherDiskGetsAnotherReplica) {
  SimCluster cluster(6);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  const NodeId victim{3};
  ASSERT_TRUE(
      cluster.Until([&] { return WholeCatalogueReplica(cluster, victim) == ReplicaId{3}; }));
  EXPECT_EQ(cluster.sink().counts["node.without_catalogue"], 0);
  cluster.options().new_cluster = false;
  cluster.PowerOff(victim);
  cluster.world().node(victim)->disk()->Replace();
  DYNLIB_ASSERT_OK(cluster.Restart(victim));
  EXPECT_EQ(cluster.sink().counts["node.without_catalogue"], 1);
  EXPECT_TRUE(cluster.Until([&] {
    const ReplicaId replica = WholeCatalogueReplica(cluster, victim);
    EXPECT_NE(replica, ReplicaId{3}) << "it was taken for whole";
    return replica == ReplicaId{4};
  }));
  cluster.PowerOff(NodeId{1});
  EXPECT_TRUE(cluster.Until([&] { return cluster.Table("users").has_value(); }));
  DYNLIB_EXPECT_OK(cluster.DeleteTable("users"));
}

// However many they are: copies of trees take their turns, log replicas do not wait for them.
TEST(LifecycleTest, EveryPartitionOfADeadNodeIsOnThreeDisksWithinSeconds) {
  SimCluster cluster(9);
  DYNLIB_ASSERT_OK(cluster.Boot());
  constexpr size_t kPartitions = 150;
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", kPartitions));
  const TableId table = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, table, kPartitions); }));
  const NodeId victim{9};
  size_t held = 0;
  for (const SimCluster::Seen& seen : cluster.Replicas()) held += seen.node == victim;
  ASSERT_GT(held, PlannerOptions().moves_max);
  cluster.PowerOff(victim);
  ASSERT_TRUE(cluster.Until([&] { return cluster.sink().counts["admin.node_dead"] > 0; }));
  const Instant dead = cluster.world().Now();
  ASSERT_TRUE(cluster.Until([&] {
    const std::map<std::string, SimCluster::Seen> leaders = cluster.Leaders(table);
    if (leaders.size() != kPartitions) return false;
    for (const auto& [first, leader] : leaders) {
      for (const wire::Member& member : leader.status.members())
        if (NodeId{member.node()} == victim) return false;
    }
    return true;
  }));
  EXPECT_LE(cluster.world().Now() - dead, seconds(3));
}

// The tables of the replicas that are anywhere, but the catalogue.
std::set<uint64_t> TablesHeld(SimCluster& cluster) {
  std::set<uint64_t> tables;
  for (const SimCluster::Seen& seen : cluster.Replicas()) tables.insert(seen.status.table());
  tables.erase(ToUint(kCatalogueTable));
  return tables;
}

// Returns when the replicas are being made, of enough partitions that they are not soon.
void StartCreation(SimCluster& cluster, const std::string& name, size_t partitions,
                   std::optional<absl::Status>& created) {
  cluster.StartCreate(name, partitions, [&](absl::Status status) { created = std::move(status); });
  while (!created.has_value() && !cluster.Table(name).has_value()) {
  }
  ASSERT_FALSE(created.has_value());
}

TEST(LifecycleTest, TablesComeAndGoWithANodeGoneForGood) {
  SimCluster cluster(9);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 3));
  cluster.PowerOff(NodeId{9});
  cluster.RunFor(seconds(60));
  DYNLIB_ASSERT_OK(cluster.CreateTable("others", 9));
  const TableId others = cluster.Table("others")->id;
  EXPECT_TRUE(cluster.Until([&] { return Whole(cluster, others, 9); }));
  DYNLIB_ASSERT_OK(cluster.DeleteTable("users"));
  EXPECT_TRUE(cluster.Until([&] { return !cluster.Table("users").has_value(); }));
  DYNLIB_EXPECT_OK(cluster.CreateTable("users", 3));
}

TEST(LifecycleTest, ANodeThatComesBackDropsWhatWasDeletedMeanwhile) {
  SimCluster cluster(3);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 3));
  DYNLIB_ASSERT_OK(cluster.CreateTable("others", 3));
  const uint64_t others = ToUint(cluster.Table("others")->id);
  cluster.PowerOff(NodeId{3});
  DYNLIB_ASSERT_OK(cluster.DeleteTable("users"));
  ASSERT_TRUE(cluster.Until([&] { return !cluster.Table("users").has_value(); }));
  DYNLIB_ASSERT_OK(cluster.Restart(NodeId{3}));
  EXPECT_EQ(TablesHeld(cluster).size(), 2u);
  EXPECT_TRUE(cluster.Until([&] { return TablesHeld(cluster) == std::set<uint64_t>{others}; }));
  EXPECT_TRUE(cluster.Until([&] { return Whole(cluster, TableId{others}, 3); }));
}

TEST(LifecycleTest, ACreationPlacesAroundANodeThatFallsSilentAndLeavesNothingBehind) {
  SimCluster cluster(6);
  cluster.options().auto_admin.give_up_after = seconds(20);
  DYNLIB_ASSERT_OK(cluster.Boot());
  // It answers when it is asked what it has, and is gone when it is to make its replicas.
  std::optional<absl::Status> created;
  StartCreation(cluster, "users", 300, created);
  const TableId first = cluster.Table("users")->id;
  cluster.PowerOff(NodeId{6});
  ASSERT_TRUE(cluster.RunUntil([&] { return created.has_value(); }));
  DYNLIB_EXPECT_OK(*created);
  const TableInfo table = *cluster.Table("users");
  EXPECT_NE(table.id, first);
  for (const PartitionInfo& partition : table.partitions) {
    for (const PartitionMember& member : partition.members) EXPECT_NE(member.node, NodeId{6});
  }
  const std::set<uint64_t> only = {ToUint(table.id)};
  EXPECT_TRUE(cluster.Until([&] { return TablesHeld(cluster) == only; }));
  DYNLIB_ASSERT_OK(cluster.Restart(NodeId{6}));
  EXPECT_TRUE(cluster.Until([&] { return TablesHeld(cluster) == only; }));
}

TEST(LifecycleTest, ACreationThatNobodyGoesOnWithIsGivenUp) {
  SimCluster cluster(3);
  cluster.options().auto_admin.give_up_after = seconds(20);
  DYNLIB_ASSERT_OK(cluster.Boot());
  cluster.PowerOff(NodeId{3});
  cluster.RunFor(milliseconds(100));
  EXPECT_THAT(cluster.CreateTable("users", 3), StatusIs(absl::StatusCode::kDeadlineExceeded))
      << "there is no third zone";
  DYNLIB_ASSERT_OK(cluster.Restart(NodeId{3}));
  std::optional<absl::Status> created;
  StartCreation(cluster, "users", 300, created);
  cluster.PowerOff(NodeId{3});
  ASSERT_TRUE(cluster.RunUntil([&] { return created.has_value(); }));
  EXPECT_THAT(*created, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_TRUE(cluster.Table("users")->creating);
  EXPECT_TRUE(cluster.Until(
      [&] { return !cluster.Table("users").has_value() && TablesHeld(cluster).empty(); }));
}

TEST(LifecycleTest, WhatADeposedAdminDoesLateLeavesTheNextTableOfTheNameAlone) {
  SimCluster cluster(3);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  DYNLIB_ASSERT_OK(cluster.DeleteTable("users"));
  const TableInfo first = *cluster.Table("users");
  ASSERT_TRUE(cluster.Until([&] { return !cluster.Table("users").has_value(); }));
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 1));
  const TableId second = cluster.Table("users")->id;
  ASSERT_TRUE(cluster.Until([&] { return Whole(cluster, second, 1); }));
  const SimCluster::Seen leader = cluster.Leaders(second).begin()->second;
  wire::SplitRequest split;
  split.set_partition(leader.status.partition());
  split.set_at(HashBoundary(uint64_t{1} << 63));
  split.set_left(ToUint(ChildOf(PartitionId{split.partition()}, false)));
  split.set_right(ToUint(ChildOf(PartitionId{split.partition()}, true)));
  DYNLIB_ASSERT_OK(cluster.Call<wire::SplitReply>(leader.node, kSplit, split));
  ASSERT_TRUE(cluster.Until([&] { return cluster.Table("users")->version == first.version; }));
  // The removal, and a change that was on its way, of the first table.
  std::vector<absl::Status> done;
  auto note = [&](absl::Status status) { done.push_back(std::move(status)); };
  cluster.client()->Post([&] {
    cluster.router().Delete(std::string(kCatalogueName),
                            {.partition = Value::String("users"), .sort = {}},
                            TableIs(first.id, first.version), note);
    cluster.router().Put(std::string(kCatalogueName), EncodeTableItem(first),
                         TableIs(first.id, first.version), note);
  });
  ASSERT_TRUE(cluster.RunUntil([&] { return done.size() == 2; }));
  for (const absl::Status& status : done) EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
  ASSERT_TRUE(cluster.Table("users").has_value());
  EXPECT_EQ(cluster.Table("users")->id, second);
}

TEST(LifecycleTest, ADeletedTableLeavesNothing) {
  SimCluster cluster(3);
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 3));
  DYNLIB_ASSERT_OK(cluster.PutMany("users", Items(50, "a")));
  const TableId table = cluster.Table("users")->id;
  DYNLIB_ASSERT_OK(cluster.DeleteTable("users"));
  EXPECT_TRUE(cluster.Until([&] {
    for (const SimCluster::Seen& seen : cluster.Replicas()) {
      if (seen.status.table() == ToUint(table)) return false;
    }
    return !cluster.Table("users").has_value();
  }));
  // One of the same name is another table.
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 3));
  EXPECT_NE(cluster.Table("users")->id, table);
  EXPECT_EQ(cluster.Get("users", "i1"), "");
}

}  // namespace
}  // namespace dynlib::cluster
