// Damage to a node's log, told apart and mended from peers (rules R4, L2), through GroupHost over a
// real NodeLog: a torn tail, corruption in the middle, lost ballots.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "dynlib/base/strings.h"
#include "gtest/gtest.h"
#include "tests/replication/log_cluster.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class DamagedLogTest : public testing::Test {
 protected:
  DamagedLogTest() {
    for (int i = 0; i < 30; ++i) EXPECT_TRUE(cluster_.Put(Cat("k", i), Value(i)));
    cluster_.world().RunFor(seconds(1));
    leader_ = cluster_.Leader();
    follower_ = leader_ % 3 + 1;
  }
  // Nothing else in a log looks like it.
  static std::string Value(int i) { return Cat("needle-", i, "-", std::string(300, 'v')); }

  // Where in the log of the node the value is written.
  std::pair<std::string, uint64_t> Find(uint64_t node, const std::string& text) {
    for (const std::string& path : cluster_.disk(node).Paths()) {
      const std::string bytes = cluster_.disk(node).ReadRaw(path);
      if (const size_t at = bytes.find(text); at != std::string::npos) return {path, at};
    }
    ADD_FAILURE() << text << " is not on the disk of node " << node;
    return {};
  }
  void Damage(uint64_t node, int i) {
    const auto [path, at] = Find(node, Cat("needle-", i, "-"));
    cluster_.disk(node).FlipBit(path, at * 8);
  }
  store::NodeLog::RecoveredStream Found(uint64_t node) {
    const auto& streams = cluster_.found(node).streams;
    const auto it = streams.find(cluster::StreamOf(LogCluster::kGroup));
    return it == streams.end() ? store::NodeLog::RecoveredStream() : it->second;
  }
  void AwaitUp(uint64_t node) {
    EXPECT_TRUE(cluster_.Run([&] { return cluster_.Up(node); }, seconds(5)));
  }

  LogCluster cluster_{{.seed = 5}};
  uint64_t leader_ = 0;
  uint64_t follower_ = 0;
};

TEST_F(DamagedLogTest, R4ADamagedFrameInTheMiddleIsFetchedFromPeers) {
  cluster_.PowerOff(follower_);
  Damage(follower_, 12);
  cluster_.Reopen(follower_);
  AwaitUp(follower_);
  ASSERT_EQ(Found(follower_).unknown.size(), 1u);
  EXPECT_FALSE(Found(follower_).lost_batch);
  EXPECT_EQ(cluster_.Check(), "");
  EXPECT_EQ(cluster_.metrics(follower_)["replication.slot_repaired"], 2);  // Counted and told.
  // It was written again: the next start finds the log whole.
  cluster_.world().RunFor(seconds(1));
  cluster_.PowerOff(follower_);
  cluster_.Reopen(follower_);
  AwaitUp(follower_);
  EXPECT_TRUE(Found(follower_).unknown.empty());
  EXPECT_EQ(cluster_.Check(), "");
}

TEST_F(DamagedLogTest, R4ALeaderThatRestartsWithDamageIsMendedToo) {
  cluster_.PowerOff(leader_);
  for (int i = 5; i < 25; i += 3) Damage(leader_, i);
  cluster_.Reopen(leader_);
  AwaitUp(leader_);
  EXPECT_EQ(Found(leader_).unknown.size(), 7u);
  EXPECT_EQ(cluster_.Check(), "");
}

// Different slots on each of the three: two of three still have each of them.
TEST_F(DamagedLogTest, R4DamageOnEveryNodeIsMendedWhereAnyCopyIsLeft) {
  for (uint64_t id = 1; id <= 3; ++id) cluster_.PowerOff(id);
  for (uint64_t id = 1; id <= 3; ++id) Damage(id, static_cast<int>(id) * 5);
  for (uint64_t id = 1; id <= 3; ++id) cluster_.Reopen(id);
  EXPECT_EQ(cluster_.Check(), "");
}

// The last batch of a node whose power failed in the middle of it.
TEST_F(DamagedLogTest, L2ATornTailIsNotCorruption) {
  for (const sim::UnsyncedFate fate :
       {sim::UnsyncedFate::kTorn, sim::UnsyncedFate::kRandomSubset}) {
    for (int round = 0; round < 20; ++round) {
      cluster_.disk(follower_).FailCall(1 + round % 4, sim::DiskFault::kPowerOff, fate);
      cluster_.world().OnPowerFailure([&](NodeId id) {
        cluster_.world().After(milliseconds(10), [this, id] { cluster_.Restarted(ToUint(id)); });
      });
      for (int i = 0; i < 5; ++i) {
        ASSERT_TRUE(cluster_.Put(Cat("t", static_cast<int>(fate), round, i), Value(100 + i)));
      }
      AwaitUp(follower_);
      EXPECT_EQ(cluster_.found(follower_).damaged_batches, 0u);
      EXPECT_EQ(cluster_.found(follower_).lost_batches, 0u);
      ASSERT_EQ(cluster_.Check(), "");
    }
  }
}

// A batch of which not even a listing is left: ballots may have been in it, and the node's boot
// count. The node does not take part again under its id, and nobody counts on it; the others go on.
TEST_F(DamagedLogTest, R3LostBallotsAreNeitherATornTailNorAnUnreadableFrame) {
  cluster_.PowerOff(follower_);
  const auto [path, at] = Find(follower_, "needle-12-");
  const auto [next_path, next_at] = Find(follower_, "needle-13-");
  ASSERT_EQ(path, next_path);
  // Blocks are of 512 bytes: the whole batch of 12, header and trailer.
  const uint64_t start = at / 512 * 512;
  cluster_.disk(follower_).WriteRaw(path, start, std::string(next_at / 512 * 512 - start, 'X'));
  cluster_.Reopen(follower_);
  EXPECT_FALSE(cluster_.Run([&] { return cluster_.Up(follower_); }, seconds(5)));
  EXPECT_GT(cluster_.lost_batches(follower_), 0u);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(cluster_.Put(Cat("after", i), Value(i)));
  // It votes for nobody: with one of the others away there is no quorum.
  const uint64_t other = 6 - follower_ - cluster_.Leader();
  cluster_.PowerOff(other);
  EXPECT_FALSE(cluster_.Put("never", "x", seconds(5)));
  cluster_.Reopen(other);
  EXPECT_TRUE(cluster_.Put("again", "x"));
}

}  // namespace
}  // namespace dynlib::replication
