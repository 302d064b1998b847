// Scrubs in whole simulated clusters: nothing is found where nothing is wrong, whatever goes on
// meanwhile, and what is wrong is found, named and repaired.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/scrubber.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/sim_cluster.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

std::string Id(int i) { return "i" + std::to_string(1000 + i); }

class ScrubTest : public testing::Test {
 protected:
  explicit ScrubTest(uint64_t nodes = 3, uint64_t seed = 1) : cluster_(nodes, seed) {
    cluster_.options().scrubber.enabled = false;
    cluster_.options().scrubber.retry_delay = milliseconds(50);
  }

  void Boot(int items = 400) {
    DYNLIB_ASSERT_OK(cluster_.Boot());
    DYNLIB_ASSERT_OK(cluster_.CreateTable("users", 1));
    for (int i = 0; i < items; ++i) items_[Id(i)] = "value-" + Id(i) + std::string(80, 'v');
    DYNLIB_ASSERT_OK(cluster_.PutMany("users", items_));
    table_ = cluster_.Table("users")->id;
    partition_ = cluster_.Table("users")->partitions[0].id;
    ASSERT_TRUE(cluster_.Until([&] { return cluster_.Leaders(table_).size() == 1; }));
    DYNLIB_ASSERT_OK(DurableEverywhere());
  }
  // Everything of the table's is in both checkpoints of each node.
  absl::Status DurableEverywhere() {
    cluster_.RunFor(seconds(2));
    for (int i = 0; i < 2; ++i) {
      if (absl::Status put = cluster_.Put("users", "z", "z" + std::to_string(++puts_)); !put.ok())
        return put;
      cluster_.RunFor(seconds(2));
    }
    items_["z"] = "z" + std::to_string(puts_);
    return absl::OkStatus();
  }

  // Where the scrubber acts; once it is known to.
  NodeId Admin() {
    NodeId admin{};
    cluster_.Until([&] {
      const auto leaders = cluster_.Leaders(kCatalogueTable);
      if (!leaders.empty()) admin = leaders.begin()->second.node;
      return !leaders.empty();
    });
    return admin;
  }
  ScrubResult Scrub(PartitionId partition) {
    auto result = std::make_shared<std::optional<ScrubResult>>();
    cluster_.node(Admin())->ScrubNow(partition,
                                     [result](ScrubResult r) { *result = std::move(r); });
    cluster_.RunUntil([&] { return result->has_value(); }, seconds(300));
    return result->value_or(ScrubResult{absl::DeadlineExceededError("scrub"), {}});
  }
  PartitionScrub ScrubOne(PartitionId partition) {
    ScrubResult result = Scrub(partition);
    EXPECT_THAT(result.status, IsOk());
    if (result.partitions.size() != 1) return {};
    return result.partitions[0];
  }
  void ExpectClean() {
    const PartitionScrub clean = ScrubOne(partition_);
    EXPECT_THAT(clean.status, IsOk());
    EXPECT_EQ(clean.replicas, 3u);
    EXPECT_EQ(clean.differences, 0u);
    EXPECT_EQ(clean.vanished, 0u);
    EXPECT_EQ(clean.items, items_.size());
  }
  void ExpectItems() {
    for (const auto& [id, value] : items_) ASSERT_EQ(cluster_.Get("users", id), value) << id;
  }

  static std::string KeyOf(const std::string& id) {
    return TableStateMachine::ItemKey(
        *EncodeKey(SimCluster::Schema(), {.partition = Value::String(id), .sort = {}}));
  }
  // Of all ids, the one whose item lies at this fraction of the key space.
  std::string IdAt(double fraction) const {
    std::map<std::string, std::string> by_key;
    for (const auto& [id, value] : items_) by_key[KeyOf(id)] = id;
    return std::next(by_key.begin(),
                     static_cast<ptrdiff_t>(fraction * static_cast<double>(by_key.size())))
        ->second;
  }
  NodeId Follower() {
    const SimCluster::Seen leader = cluster_.Leaders(table_).begin()->second;
    for (const wire::Member& member : leader.status.members()) {
      if (NodeId{member.node()} != leader.node) return NodeId{member.node()};
    }
    return {};
  }
  // Changes a node's tree behind the log's back, while it is down.
  void Change(NodeId node, const std::function<void(store::WriteBatch&)>& change) {
    cluster_.PowerOff(node);
    cluster_.world().node(node)->Restart();
    {
      store::PageFile::Options options;
      options.file_id = {.low = ToUint(node), .high = 1};
      auto pages = *store::PageFile::Open(options, cluster_.world().node(node)->disk(), "pages");
      store::Tree* tree = pages->FindTree(store::TreeId{ToUint(partition_)});
      store::WriteBatch batch;
      change(batch);
      ASSERT_THAT(tree->Apply(batch, tree->position()), IsOk());
      ASSERT_THAT(pages->CheckpointTwice(), IsOk());
    }
    DYNLIB_ASSERT_OK(cluster_.Open(node));
    cluster_.RunFor(seconds(2));
  }
  // Flips a bit of an item's value wherever the node's pages have it.
  void Damage(NodeId node, const std::string& id) { DamageText(node, items_.at(id).substr(0, 12)); }
  // Of what the replica keeps of itself.
  void DamageDescription(NodeId node) {
    const TableInfo table = *cluster_.Table("users");
    DamageText(node, EncodeCreateReplica(table, table.partitions[0]));
  }
  void DamageText(NodeId node, const std::string& text) {
    sim::SimDisk* disk = cluster_.world().node(node)->disk();
    const std::string bytes = disk->ReadRaw("pages");
    size_t found = 0;
    for (size_t at = bytes.find(text); at != bytes.npos; at = bytes.find(text, at + 1)) {
      disk->FlipBit("pages", (at + 3) * 8);
      ++found;
    }
    EXPECT_GT(found, 0u);
  }
  // Whether the partition has three whole replicas again, none of them the one that `node` had.
  bool Replaced(NodeId node) {
    const auto leaders = cluster_.Leaders(table_);
    if (leaders.size() != 1) return false;
    size_t whole = 0;
    for (const wire::Member& member : leaders.begin()->second.status.members()) {
      if (member.kind() != wire::STORAGE ||
          (NodeId{member.node()} == node && member.replica() <= 3))
        return false;
      for (const SimCluster::Seen& seen : cluster_.Replicas()) {
        const wire::ReplicaStatus& status = seen.status;
        whole += PartitionId{status.partition()} == partition_ && !status.failed() &&
                 !status.copying() && status.replica() == member.replica();
      }
    }
    return whole == 3;
  }
  // What was told of.
  std::vector<std::string> Events(std::string_view name) {
    std::vector<std::string> events;
    for (const std::string& line : cluster_.sink().events) {
      if (line.starts_with(std::string(name) + " ")) events.push_back(line);
    }
    return events;
  }

  SimCluster cluster_;
  std::map<std::string, std::string> items_;
  TableId table_{};
  PartitionId partition_{};
  int puts_ = 0;
};

// With two nodes in each zone: a replica that is lost can be replaced.
class ScrubLargeTest : public ScrubTest {
 protected:
  ScrubLargeTest() : ScrubTest(6) {}
};

TEST_F(ScrubTest, WithoutDamageNothingDiffers) {
  Boot();
  ExpectClean();
  // All partitions: the catalogue too.
  const ScrubResult all = Scrub(PartitionId{0});
  EXPECT_THAT(all.status, IsOk());
  ASSERT_EQ(all.partitions.size(), 2u);
  for (const PartitionScrub& one : all.partitions) {
    EXPECT_THAT(one.status, IsOk());
    EXPECT_EQ(one.differences, 0u);
    EXPECT_EQ(one.replicas, 3u);
  }
  EXPECT_THAT(Scrub(PartitionId{4711}).status, StatusIs(absl::StatusCode::kNotFound));
  auto refused = std::make_shared<ScrubResult>();
  const NodeId other{ToUint(Admin()) % 3 + 1};
  cluster_.node(other)->ScrubNow(partition_, [refused](ScrubResult r) { *refused = std::move(r); });
  cluster_.RunFor(seconds(1));
  EXPECT_THAT(refused->status, StatusIs(absl::StatusCode::kFailedPrecondition));
  // By rpc, as from a tool.
  wire::ScrubNowRequest request;
  request.set_partition(ToUint(partition_));
  const auto reply = cluster_.Call<wire::ScrubNowReply>(Admin(), kScrubNow, request);
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->reports_size(), 1);
  EXPECT_EQ(reply->reports(0).items(), items_.size());
}

TEST_F(ScrubTest, NothingDiffersWhileWritesASplitAndARestartGoOn) {
  cluster_.options().scrubber.bytes_per_second = 48 << 10;
  Boot();
  int open = 0;
  int round = 0;
  bool stop = false;
  std::function<void()> write = [&] {
    const std::string id = Id(round++ % 500);
    ++open;
    auto done = [&](const absl::Status&) {
      --open;
      if (!stop)
        cluster_.client()->RunAt(
            cluster_.world().node(SimCluster::kClient)->clock()->Now() + milliseconds(25), write);
    };
    if (round % 7 == 0) {
      cluster_.router().Delete("users", {.partition = Value::String(id), .sort = {}}, {}, done);
    } else {
      cluster_.router().Put("users", SimCluster::MakeItem(id, "w" + std::to_string(round)), {},
                            done);
    }
  };
  for (int i = 0; i < 3; ++i) cluster_.client()->Post(write);
  cluster_.RunFor(milliseconds(50));
  for (int i = 0; i < 3; ++i) {
    const PartitionScrub scrub = ScrubOne(partition_);
    EXPECT_THAT(scrub.status, IsOk());
    EXPECT_EQ(scrub.replicas, 3u);
    EXPECT_EQ(scrub.differences, 0u);
    EXPECT_GT(scrub.items, 300u);
  }
  // In the middle of one, the partition is split.
  auto result = std::make_shared<std::optional<ScrubResult>>();
  cluster_.node(Admin())->ScrubNow(partition_, [result](ScrubResult r) { *result = std::move(r); });
  cluster_.RunFor(milliseconds(100));
  const SimCluster::Seen parent = cluster_.Leaders(table_).at("");
  wire::SplitRequest split;
  split.set_partition(ToUint(partition_));
  split.set_at(HashBoundary(uint64_t{1} << 63));
  split.set_left(ToUint(ChildOf(partition_, false)));
  split.set_right(ToUint(ChildOf(partition_, true)));
  DYNLIB_ASSERT_OK(cluster_.Call<wire::SplitReply>(parent.node, kSplit, split));
  EXPECT_TRUE(cluster_.RunUntil([&] { return result->has_value(); }, seconds(100)));
  ASSERT_TRUE(cluster_.Until([&] { return cluster_.Leaders(table_).size() == 2; }));
  // In the middle of the next, a node restarts, and has lost its version.
  result->reset();
  cluster_.node(Admin())->ScrubNow(PartitionId{split.left()},
                                   [result](ScrubResult r) { *result = std::move(r); });
  cluster_.RunFor(milliseconds(200));
  const NodeId admin = Admin();
  const NodeId restarted{ToUint(admin) % 3 + 1};
  DYNLIB_ASSERT_OK(cluster_.Restart(restarted));
  EXPECT_TRUE(cluster_.RunUntil([&] { return result->has_value(); }, seconds(100)));
  const ScrubResult all = Scrub(PartitionId{0});
  for (const PartitionScrub& one : all.partitions) EXPECT_THAT(one.status, IsOk());
  EXPECT_EQ(all.partitions.size(), 3u);
  EXPECT_EQ(cluster_.sink().counts["scrub.differences"], 0);
  EXPECT_EQ(cluster_.sink().counts["scrub.vanished"], 0);
  stop = true;
  cluster_.RunUntil([&] { return open == 0; });
}

TEST_F(ScrubTest, AReplicaThatLostItsVersionTakesAnotherMarker) {
  cluster_.options().scrubber.bytes_per_second = 4 << 10;
  Boot();
  auto result = std::make_shared<std::optional<ScrubResult>>();
  cluster_.node(Admin())->ScrubNow(partition_, [result](ScrubResult r) { *result = std::move(r); });
  // The marker is in both checkpoints: a restart does not apply it again.
  DYNLIB_ASSERT_OK(DurableEverywhere());
  ASSERT_FALSE(result->has_value());
  NodeId follower = Follower();
  if (follower == Admin())
    follower = NodeId{6 - ToUint(follower) - ToUint(cluster_.Leaders(table_).begin()->second.node)};
  DYNLIB_ASSERT_OK(cluster_.Restart(follower));
  ASSERT_TRUE(cluster_.RunUntil([&] { return result->has_value(); }, seconds(300)));
  ASSERT_EQ((*result)->partitions.size(), 1u);
  EXPECT_THAT((*result)->partitions[0].status, IsOk());
  EXPECT_EQ((*result)->partitions[0].differences, 0u);
  EXPECT_EQ((*result)->partitions[0].items, items_.size()) << "none is compared twice";
  EXPECT_EQ(Events("scrub.started").size(), 2u);
  EXPECT_EQ(Events("scrub.finished").size(), 1u);
}

// The versions are those of the marker's slot, though commands before and after it are applied in
// one go.
TEST_F(ScrubTest, MarkersAreExactWhenAFollowerCatchesUpInOneGo) {
  Boot(100);
  const NodeId lagging = Follower();
  cluster_.PowerOff(lagging);
  int open = 0;
  for (int i = 0; i < 600; ++i) {
    ++open;
    cluster_.client()->Post([&, i] {
      cluster_.router().Put("users", SimCluster::MakeItem(Id(i % 100), Cat("x", i)), {},
                            [&](const absl::Status&) { --open; });
    });
    if (i == 300) {
      wire::ScrubMarkRequest mark;
      mark.set_partition(ToUint(partition_));
      mark.set_scrub(5);
      ASSERT_THAT(cluster_.Call<wire::ScrubMarkReply>(cluster_.Leaders(table_).begin()->second.node,
                                                      kScrubMark, mark),
                  IsOk());
    }
  }
  ASSERT_TRUE(cluster_.RunUntil([&] { return open == 0; }));
  const NodeId leader = cluster_.Leaders(table_).begin()->second.node;
  wire::ScrubMarkRequest again;
  again.set_partition(ToUint(partition_));
  again.set_scrub(5);
  const auto mark = cluster_.Call<wire::ScrubMarkReply>(leader, kScrubMark, again);
  ASSERT_THAT(mark, IsOk());
  DYNLIB_ASSERT_OK(cluster_.Restart(lagging));
  cluster_.RunFor(seconds(3));
  std::set<std::string> digests;
  for (uint64_t id = 1; id <= 3; ++id) {
    wire::ScrubDigestRequest digest;
    digest.set_partition(ToUint(partition_));
    digest.set_scrub(5);
    digest.set_marker(mark->slot());
    wire::ScrubQuery& query = *digest.mutable_query();
    query.set_kind(2);
    query.set_bytes_max(1 << 20);
    const auto answer = cluster_.Call<wire::ScrubDigestReply>(NodeId{id}, kScrubDigest, digest);
    ASSERT_THAT(answer, IsOk()) << id;
    ASSERT_EQ(answer->answer().parts_size(), 1);
    digests.insert(answer->answer().parts(0).digest());
    // Any other slot is not it.
    digest.set_marker(mark->slot() - 1);
    EXPECT_THAT(cluster_.Call<wire::ScrubDigestReply>(NodeId{id}, kScrubDigest, digest),
                StatusIs(absl::StatusCode::kInvalidArgument));
    digest.set_release(true);
    EXPECT_THAT(cluster_.Call<wire::ScrubDigestReply>(NodeId{id}, kScrubDigest, digest), IsOk());
    digest.set_release(false);
    EXPECT_THAT(cluster_.Call<wire::ScrubDigestReply>(NodeId{id}, kScrubDigest, digest),
                StatusIs(absl::StatusCode::kNotFound));
  }
  EXPECT_EQ(digests.size(), 1u);
}

TEST_F(ScrubTest, WrongMissingAndExtraItemsAreFoundNamedAndRepaired) {
  Boot();
  const NodeId bad = Follower();
  const std::string wrong = IdAt(0.3);
  const std::string missing = IdAt(0.5);
  const std::string overwritten = IdAt(0.7);
  Change(bad, [&](store::WriteBatch& batch) {
    batch.Put(KeyOf(wrong), EncodeItem(SimCluster::MakeItem(wrong, "wrong")));
    batch.Delete(KeyOf(missing));
    batch.Put(KeyOf("extra"), EncodeItem(SimCluster::MakeItem("extra", "e")));
    batch.Put(KeyOf(overwritten), EncodeItem(SimCluster::MakeItem(overwritten, "wrong")));
  });
  // The log has put this one right before anybody noticed.
  items_[overwritten] = "right";
  DYNLIB_ASSERT_OK(cluster_.Put("users", overwritten, "right"));
  cluster_.RunFor(seconds(1));
  const PartitionScrub scrub = ScrubOne(partition_);
  EXPECT_THAT(scrub.status, IsOk());
  EXPECT_EQ(scrub.differences, 3u);
  EXPECT_EQ(scrub.repaired, 3u);
  EXPECT_EQ(scrub.unrepaired, 0u);
  const std::vector<std::string> told = Events("scrub.difference");
  ASSERT_EQ(told.size(), 3u);
  const std::string node = Cat("node=", bad);
  EXPECT_THAT(told, Contains(AllOf(HasSubstr(wrong), HasSubstr(node), HasSubstr("why=differs"))));
  EXPECT_THAT(told, Contains(AllOf(HasSubstr(missing), HasSubstr(node), HasSubstr("why=missing"))));
  EXPECT_THAT(told,
              Contains(AllOf(HasSubstr("extra"), HasSubstr(node), HasSubstr("should not be"))));
  ExpectClean();
  ExpectItems();
  // The repair is durable.
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  cluster_.RunFor(seconds(2));
  ExpectClean();
}

TEST_F(ScrubTest, WhatIsOnlyToBeReportedIsLeft) {
  cluster_.options().scrubber.repair = false;
  Boot(50);
  Change(Follower(), [&](store::WriteBatch& batch) { batch.Delete(KeyOf(IdAt(0.5))); });
  for (int i = 0; i < 2; ++i) {
    const PartitionScrub scrub = ScrubOne(partition_);
    EXPECT_EQ(scrub.differences, 1u);
    EXPECT_EQ(scrub.unrepaired, 1u);
    EXPECT_EQ(scrub.repaired, 0u);
  }
}

TEST_F(ScrubTest, WithTwoCopiesNobodyIsBlamed) {
  Boot(50);
  const NodeId bad = Follower();
  Change(bad, [&](store::WriteBatch& batch) { batch.Delete(KeyOf(IdAt(0.5))); });
  // The third is silent.
  for (uint64_t id = 1; id <= 3; ++id) {
    const NodeId node{id};
    if (node == bad || node == cluster_.Leaders(table_).begin()->second.node) continue;
    cluster_.PowerOff(node);
    break;
  }
  cluster_.RunFor(milliseconds(500));
  const PartitionScrub scrub = ScrubOne(partition_);
  EXPECT_EQ(scrub.replicas, 2u);
  EXPECT_EQ(scrub.differences, 1u);
  EXPECT_EQ(scrub.unrepaired, 1u);
  EXPECT_THAT(Events("scrub.difference"), Contains(HasSubstr("nobody can say")));
}

// The page is good in memory, so that no reader notices.
TEST_F(ScrubTest, APageThatWentBadUnderMemoryIsWrittenAnew) {
  Boot();
  const NodeId bad = Follower();
  Damage(bad, IdAt(0.5));
  ExpectItems();
  const PartitionScrub scrub = ScrubOne(partition_);
  EXPECT_THAT(scrub.status, IsOk());
  EXPECT_GT(scrub.differences, 1u) << "all items of the page";
  EXPECT_EQ(scrub.repaired, scrub.differences);
  EXPECT_THAT(Events("scrub.difference"),
              Contains(AllOf(HasSubstr(Cat("node=", bad)), HasSubstr("why=unreadable"))));
  EXPECT_THAT(Events("scrub.damage"),
              Contains(AllOf(HasSubstr(Cat("node=", bad)), HasSubstr("pages: page at offset"))));
  ExpectClean();
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  cluster_.RunFor(seconds(2));
  ExpectClean();
}

TEST_F(ScrubTest, APageThatNobodyHasInMemoryComesFromAnotherReplica) {
  Boot();
  const NodeId bad = Follower();
  cluster_.PowerOff(bad);
  Damage(bad, IdAt(0.5));
  Damage(bad, IdAt(0.9));
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  cluster_.RunFor(seconds(2));
  const PartitionScrub scrub = ScrubOne(partition_);
  EXPECT_THAT(scrub.status, IsOk());
  EXPECT_GT(scrub.differences, 2u);
  EXPECT_EQ(scrub.repaired, scrub.differences);
  EXPECT_EQ(scrub.unrepaired, 0u);
  ExpectClean();
  ExpectItems();
  // Writes in what was lost work again.
  items_[IdAt(0.5)] = "again";
  DYNLIB_ASSERT_OK(cluster_.Put("users", IdAt(0.5), "again"));
  cluster_.RunFor(seconds(1));
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  cluster_.RunFor(seconds(2));
  ExpectClean();
  ExpectItems();
}

// Without it the replica is lost to its group, but the node serves what else it has.
TEST_F(ScrubLargeTest, AReplicaThatLostItsDescriptionIsReplaced) {
  Boot();
  const NodeId bad = Follower();
  cluster_.PowerOff(bad);
  DamageDescription(bad);
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  EXPECT_EQ(cluster_.sink().counts["node.replica_lost"], 1);
  ASSERT_TRUE(cluster_.Until([&] { return Replaced(bad); }, seconds(120)));
  ExpectClean();
  ExpectItems();
}

// Where its zone has no other node: on its own, under a new id.
TEST_F(ScrubTest, AReplicaThatLostItsDescriptionIsReplacedOnItsOwnNode) {
  Boot();
  const NodeId bad = Follower();
  cluster_.PowerOff(bad);
  DamageDescription(bad);
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  EXPECT_EQ(cluster_.sink().counts["node.replica_lost"], 1);
  ASSERT_TRUE(cluster_.Until([&] { return Replaced(bad); }, seconds(120)));
  ExpectClean();
  ExpectItems();
}

TEST_F(ScrubTest, AReplicaThatIsToWriteADamagedPageIsReplacedOnItsOwnNode) {
  Boot();
  const NodeId bad = Follower();
  cluster_.PowerOff(bad);
  const std::string id = IdAt(0.5);
  Damage(bad, id);
  items_[id] = "new";
  DYNLIB_ASSERT_OK(cluster_.Put("users", id, "new"));
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  ASSERT_TRUE(cluster_.Until([&] { return Replaced(bad); }, seconds(120)));
  ExpectClean();
  ExpectItems();
  // What it is now bears the loss of another.
  cluster_.PowerOff(cluster_.Leaders(table_).begin()->second.node);
  items_[id] = "newer";
  DYNLIB_ASSERT_OK(cluster_.Put("users", id, "newer"));
  ExpectItems();
}

TEST_F(ScrubLargeTest, AReplicaThatIsToWriteADamagedPageIsReplaced) {
  Boot();
  const NodeId bad = Follower();
  cluster_.PowerOff(bad);
  const std::string id = IdAt(0.5);
  Damage(bad, id);
  items_[id] = "new";
  DYNLIB_ASSERT_OK(cluster_.Put("users", id, "new"));
  DYNLIB_ASSERT_OK(cluster_.Restart(bad));
  ASSERT_TRUE(cluster_.Until([&] { return Replaced(bad); }, seconds(120)));
  EXPECT_EQ(cluster_.sink().counts["replication.replica_failed"], 1);
  ExpectClean();
  ExpectItems();
}

// A leader's copy, while writes race with the repair.
TEST_F(ScrubTest, RepairsAndWritesDoNotHurtEachOther) {
  Boot(300);
  const NodeId bad = cluster_.Leaders(table_).begin()->second.node;
  Damage(bad, IdAt(0.4));
  int open = 0;
  int round = 0;
  bool stop = false;
  std::function<void()> write = [&] {
    const std::string id = Id(round++ % 300);
    items_[id] = Cat("r", round);
    ++open;
    cluster_.router().Put("users", SimCluster::MakeItem(id, items_[id]), {},
                          [&](const absl::Status& status) {
                            EXPECT_THAT(status, IsOk());
                            --open;
                            if (!stop) write();
                          });
  };
  cluster_.client()->Post(write);
  const PartitionScrub scrub = ScrubOne(partition_);
  EXPECT_THAT(scrub.status, IsOk());
  stop = true;
  cluster_.RunUntil([&] { return open == 0; });
  ExpectClean();
  ExpectItems();
}

// An hour of simulated time in four runs, or as many minutes each as wanted, over tables of growing
// size: writes, splits, nodes that die and heal, and scrubs all the time. No difference is ever
// found, since there is none.
class ScrubLongTest : public testing::TestWithParam<uint64_t> {};

TEST_P(ScrubLongTest, NoFalseAlarms) {
  const char* wanted = std::getenv("DYNLIB_SCRUB_MINUTES");
  const int minutes = wanted == nullptr ? 15 : std::atoi(wanted);
  SimCluster cluster(9);
  cluster.options().scrubber.interval = seconds(20);
  cluster.options().scrubber.bytes_per_second = 64 << 10;
  cluster.options().auto_admin.planner.split_bytes = 192 << 10;
  DYNLIB_ASSERT_OK(cluster.Boot());
  DYNLIB_ASSERT_OK(cluster.CreateTable("users", 3));
  const TableId table = cluster.Table("users")->id;
  Random random(GetParam());
  const uint64_t items_min = 1000 + 2000 * (GetParam() - 1);
  uint64_t written = 0;
  std::map<std::string, std::string> items;
  const Instant end = cluster.world().Now() + std::chrono::minutes(minutes);
  NodeId dead{};
  for (int round = 1; cluster.world().Now() < end; ++round) {
    std::map<std::string, std::string> some;
    for (int i = 0; i < 60; ++i) {
      const std::string id =
          Id(static_cast<int>(random.Below(items_min + 5 * static_cast<uint64_t>(round))));
      items[id] = some[id] = Cat("r", round, std::string(random.Below(600), 'x'));
    }
    DYNLIB_ASSERT_OK(cluster.PutMany("users", some));
    written += some.size();
    cluster.RunFor(seconds(2));
    if (round % 30 == 10) {
      dead = NodeId{4 + random.Below(6)};
      cluster.PowerOff(dead);
    } else if (round % 30 == 15 + round / 30 % 10) {
      DYNLIB_ASSERT_OK(cluster.Restart(dead));
    }
  }
  std::map<std::string, int64_t>& counts = cluster.sink().counts;
  for (const char* name :
       {"scrub.partitions", "scrub.failed", "scrub.started", "scrub.items", "scrub.differences",
        "scrub.vanished", "scrub.repaired", "admin.split", "admin.move_planned",
        "admin.members_changed", "admin.node_dead", "replication.elected"}) {
    std::printf("%s %lld\n", name, static_cast<long long>(counts[name]));
  }
  std::printf("writes %llu, partitions %zu\n", static_cast<unsigned long long>(written),
              cluster.Leaders(table).size());
  EXPECT_GT(counts["scrub.partitions"], minutes);
  EXPECT_GT(counts["scrub.items"], 0);
  EXPECT_EQ(counts["scrub.differences"], 0);
  EXPECT_EQ(counts["scrub.vanished"], 0);
  for (const auto& [id, value] : items) ASSERT_EQ(cluster.Get("users", id), value) << id;
}

INSTANTIATE_TEST_SUITE_P(Runs, ScrubLongTest, testing::Range<uint64_t>(1, 5));

// By themselves, in turn.
TEST_F(ScrubTest, EveryPartitionHasItsTurn) {
  cluster_.options().scrubber.enabled = true;
  cluster_.options().scrubber.interval = seconds(4);
  DYNLIB_ASSERT_OK(cluster_.Boot());
  DYNLIB_ASSERT_OK(cluster_.CreateTable("users", 3));
  cluster_.RunFor(seconds(30));
  std::map<std::string, int> turns;
  for (const std::string& line : Events("scrub.finished")) {
    EXPECT_THAT(line, HasSubstr("differences=0"));
    ++turns[line.substr(0, line.find(' ', 16))];
  }
  EXPECT_EQ(turns.size(), 4u);
  for (const auto& [partition, times] : turns) {
    EXPECT_GE(times, 4) << partition;
    EXPECT_LE(times, 8) << partition;
  }
}

}  // namespace
}  // namespace dynlib::cluster
