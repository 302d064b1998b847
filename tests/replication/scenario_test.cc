// Whole groups in situations that have names, without other faults.
#include <string>

#include "gtest/gtest.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Three nodes; node 0 leads and holds the lease.
class ScenarioTest : public testing::Test {
 protected:
  explicit ScenarioTest(HarnessOptions options = {}) : harness_(options) {
    EXPECT_TRUE(harness_.RunUntil([this] { return harness_.LeaseHolder() == 0; }, seconds(5)));
  }
  ~ScenarioTest() override { EXPECT_EQ(harness_.violation(), ""); }

  // One more value is chosen everywhere, by whoever leads.
  void ExpectProgress(Duration within = seconds(5)) {
    Slot slot = 0;
    EXPECT_TRUE(harness_.RunUntil(
        [&] {
          const int leader = harness_.LeaseHolder();
          if (slot == 0 && leader >= 0) slot = harness_.Propose(leader);
          return slot != 0 && harness_.ChosenEverywhere(slot);
        },
        within));
  }
  void ProposeMany(int node, int count) {
    for (int i = 0; i < count; ++i) EXPECT_NE(harness_.Propose(node), 0u);
    harness_.RunFor(milliseconds(500));
  }
  int Elections() const { return harness_.Events(GroupCore::Event::Kind::kElectionStarted); }

  CoreHarness harness_;
};

TEST_F(ScenarioTest, IdleGroupHasNoDeadlineAndSendsNothing) {
  ExpectProgress();
  harness_.RunFor(seconds(2));
  EXPECT_TRUE(harness_.AtRest());
  const uint64_t sent = harness_.GroupMessagesSent();
  harness_.RunFor(seconds(60));
  EXPECT_EQ(harness_.GroupMessagesSent(), sent);
  EXPECT_EQ(harness_.LeaseHolder(), 0);
}

TEST_F(ScenarioTest, LeaderThatCrashesIsReplaced) {
  harness_.Crash(0);
  ExpectProgress();
  harness_.Restart(0);
  ExpectProgress();
  EXPECT_EQ(Elections(), 2);  // One for each of two leaders: the old one asked, and followed.
}

TEST_F(ScenarioTest, LeadershipIsHandedOverAtOnce) {
  ExpectProgress();
  harness_.TransferLeadership(0);
  EXPECT_TRUE(harness_.RunUntil([&] { return harness_.LeaseHolder() > 0; }, milliseconds(150)));
  ExpectProgress();
}

TEST_F(ScenarioTest, LeaderThatRestartsAtOnceIsReplacedOrComesBack) {
  harness_.Crash(0);
  harness_.Restart(0);
  ExpectProgress();
}

TEST_F(ScenarioTest, ThreeNodesRestartTogether) {
  ProposeMany(0, 20);
  for (int node = 0; node < 3; ++node) harness_.Crash(node);
  for (int node = 0; node < 3; ++node) harness_.Restart(node);
  ExpectProgress();
  EXPECT_GE(harness_.Core(0).chosen(), 21u);
}

TEST_F(ScenarioTest, PeerThatWasAwayCatchesUp) {
  harness_.Crash(2);
  ProposeMany(0, 100);
  harness_.Restart(2);
  ExpectProgress();
}

TEST_F(ScenarioTest, GroupWithADeadPeerComesToRest) {
  harness_.Crash(2);
  ExpectProgress();
  harness_.RunFor(seconds(5));
  EXPECT_TRUE(harness_.AtRest());
  harness_.Restart(2);
  ExpectProgress();
}

TEST_F(ScenarioTest, R8OneWayLinkCausesNoElection) {
  harness_.Cut(0, 2);  // Follower 2 no longer hears the leader; the leader hears it.
  harness_.RunFor(seconds(10));
  EXPECT_EQ(harness_.LeaseHolder(), 0);
  EXPECT_EQ(Elections(), 1);
  EXPECT_GT(harness_.Events(GroupCore::Event::Kind::kLeaderHealthy), 0);
  harness_.HealLinks();
  ExpectProgress();
  EXPECT_EQ(Elections(), 1);
}

TEST_F(ScenarioTest, R8LeaderThatHearsNobodyLosesSupport) {
  harness_.Cut(1, 0);
  harness_.Cut(2, 0);  // It is still heard by all.
  EXPECT_TRUE(harness_.RunUntil([this] { return harness_.LeaseHolder() > 0; }, seconds(5)));
}

TEST_F(ScenarioTest, R8LeaderWhoseDiskHangsIsReplaced) {
  harness_.HangDisk(0, true);
  EXPECT_TRUE(harness_.RunUntil([this] { return harness_.LeaseHolder() > 0; }, seconds(5)));
  harness_.HangDisk(0, false);
  ExpectProgress();
}

// The other two are a quorum without its disk, and follow it as long as it proposes.
TEST_F(ScenarioTest, R8LeaderWhoseDiskHangsIsReplacedWhileItCommits) {
  harness_.HangDisk(0, true);
  const bool replaced = harness_.RunUntil(
      [this] {
        harness_.RunFor(std::chrono::milliseconds(20));
        harness_.Propose(0);
        return harness_.LeaseHolder() > 0;
      },
      seconds(3));
  EXPECT_TRUE(replaced);
  harness_.HangDisk(0, false);
  ExpectProgress();
}

TEST_F(ScenarioTest, MemberThatWasCutOffDoesNotDeposeTheLeader) {
  harness_.Isolate(2);
  harness_.RunFor(seconds(20));
  harness_.Isolate(2, false);
  ExpectProgress();
  EXPECT_EQ(harness_.LeaseHolder(), 0);
  EXPECT_EQ(Elections(), 1);
}

TEST_F(ScenarioTest, R5LeaderThatWasCutOffReadsNothingStale) {
  ProposeMany(0, 3);
  harness_.Isolate(0);
  EXPECT_TRUE(harness_.RunUntil([this] { return harness_.LeaseHolder() > 0; }, seconds(5)));
  ProposeMany(harness_.LeaseHolder(), 3);  // The harness looks at all leases after each step.
  harness_.Isolate(0, false);
  ExpectProgress();
}

TEST_F(ScenarioTest, R4DamagedSlotIsFetchedFromPeers) {
  ProposeMany(0, 10);
  harness_.Crash(2);
  harness_.Damage(2, 5);
  harness_.Restart(2);
  EXPECT_LT(harness_.Core(2).chosen(), 5u);
  ExpectProgress();
  EXPECT_EQ(harness_.Events(GroupCore::Event::Kind::kUnknownDecidedEmpty), 0);
}

// Slot 5 is chosen by nodes 0 and 2. Node 2 comes back with it damaged; nodes 1 and 2 are a quorum,
// and must not decide without node 0.
TEST_F(ScenarioTest, R4DamagedSlotIsNotDecidedByAQuorumThatCannotReadIt) {
  ProposeMany(0, 3);
  harness_.Isolate(1);
  ProposeMany(0, 3);
  harness_.Crash(0);
  harness_.Crash(2);
  harness_.Damage(2, 6);
  harness_.Isolate(1, false);
  harness_.Restart(2);
  harness_.RunFor(seconds(20));
  EXPECT_EQ(harness_.LeaseHolder(), -1);
  harness_.Restart(0);
  ExpectProgress(seconds(10));
}

TEST_F(ScenarioTest, MemberThatFailedNeitherLeadsNorHoldsTheOthersUp) {
  harness_.SetMayLead(0, false);
  EXPECT_TRUE(harness_.RunUntil([this] { return harness_.LeaseHolder() > 0; }, seconds(2)));
  ExpectProgress();
}

TEST_F(ScenarioTest, LogIsReleasedWhenAllHaveIt) {
  ProposeMany(0, 10);
  for (int node = 0; node < 3; ++node) harness_.Checkpoint(node, 8);
  ExpectProgress();
  for (int node = 0; node < 3; ++node) EXPECT_EQ(harness_.Core(node).released(), 8u);
}

TEST_F(ScenarioTest, StateBehindACheckpointSurvivesRestart) {
  ProposeMany(0, 10);
  for (int node = 0; node < 3; ++node) harness_.Checkpoint(node, 8);
  ExpectProgress();
  for (int node = 0; node < 3; ++node) harness_.Crash(node);
  for (int node = 0; node < 3; ++node) harness_.Restart(node);
  ExpectProgress();
}

}  // namespace
}  // namespace dynlib::replication
