// Failures in which something still works (rule R8), through GroupHost over real logs, each with
// the time within which another leads, or within which nobody notices.
#include <algorithm>
#include <string>

#include "dynlib/base/strings.h"
#include "gtest/gtest.h"
#include "tests/replication/log_cluster.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A leader whose disk hangs is given up after log_overdue and the rest of a grant; one that is dead
// or cut off after the grant.
constexpr Duration kHungDiskBound = seconds(3);
constexpr Duration kLostBound = milliseconds(1500);

class GrayFailureTest : public testing::Test {
 protected:
  explicit GrayFailureTest(const GroupOptions& group = {})
      : cluster_({.seed = 11, .host = {.group = group}}) {
    EXPECT_TRUE(cluster_.Put("k", "first"));
    cluster_.world().RunFor(seconds(1));  // Leases are held, clocks compared.
    leader_ = cluster_.Leader();
    EXPECT_NE(leader_, 0u);
    follower_ = leader_ % 3 + 1;
  }
  uint64_t Other() const { return 6 - leader_ - follower_; }
  void Block(uint64_t from, uint64_t to) {
    cluster_.world().network().Block(NodeId{from}, NodeId{to});
  }
  void Hang(uint64_t node, Duration duration) {
    hang_ends_ = cluster_.world().Now() + duration;
    cluster_.disk(node).StallUntil(hang_ends_);
  }
  void AwaitEndOfHang() { cluster_.world().RunFor(hang_ends_ - cluster_.world().Now()); }
  // How long until somebody else holds the lease and has committed something.
  Duration Failover() {
    const Instant start = cluster_.world().Now();
    EXPECT_NE(cluster_.AwaitLeader(seconds(20), leader_), 0u);
    EXPECT_TRUE(cluster_.Put("k", "second"));
    return cluster_.world().Now() - start;
  }
  Duration TimeOfPut(int i) {
    const Instant start = cluster_.world().Now();
    EXPECT_TRUE(cluster_.Put(Cat("k", i), std::string(1000, 'v')));
    return cluster_.world().Now() - start;
  }
  Duration LongestPut(int count) {
    Duration longest{0};
    for (int i = 0; i < count; ++i) longest = std::max(longest, TimeOfPut(++puts_));
    return longest;
  }
  int64_t Elections() const {
    int64_t all = 0;
    for (uint64_t id = 1; id <= 3; ++id) {
      all += cluster_.metrics(id)["replication.election_started"];
    }
    return all;
  }

  LogCluster cluster_;
  uint64_t leader_ = 0;
  uint64_t follower_ = 0;
  int puts_ = 0;
  Instant hang_ends_;
};

TEST_F(GrayFailureTest, R8ALeaderWhoseDiskHangsGivesWay) {
  Hang(leader_, seconds(10));
  EXPECT_LE(Failover(), kHungDiskBound);
  EXPECT_EQ(cluster_.metrics(leader_)["replication.log_overdue"], 1);
  EXPECT_FALSE(cluster_.host(leader_).Status().log_healthy);
  AwaitEndOfHang();
  EXPECT_EQ(cluster_.Check(), "");
  cluster_.world().RunFor(seconds(1));
  EXPECT_EQ(cluster_.metrics(leader_)["replication.log_recovered"], 1);
}

TEST_F(GrayFailureTest, R8ALeaderWhoseDiskFailsGivesWay) {
  cluster_.disk(leader_).FailCall(1, sim::DiskFault::kEio);
  EXPECT_LE(Failover(), kLostBound);
  EXPECT_EQ(cluster_.metrics(leader_)["replication.log_closed"], 1);
  EXPECT_EQ(cluster_.Check(), "");
}

TEST_F(GrayFailureTest, R8ALeaderWithoutRoomGivesWayAndComesBack) {
  cluster_.disk(leader_).SetFull(true);
  // Until what was allocated is used up there is nothing to notice.
  for (int i = 0; i < 3'000 && cluster_.Leader() == leader_; ++i) {
    cluster_.Put(Cat("k", ++puts_), std::string(2'000, 'v'));
  }
  EXPECT_LE(Failover(), kHungDiskBound);
  cluster_.disk(leader_).SetFull(false);
  EXPECT_EQ(cluster_.Check(), "");
}

TEST_F(GrayFailureTest, R8ALeaderCutOffFromAQuorumGivesWay) {
  for (uint64_t other : {follower_, Other()}) {
    Block(leader_, other);
    Block(other, leader_);
  }
  EXPECT_LE(Failover(), kLostBound);
  EXPECT_FALSE(cluster_.Status(leader_).holds_lease);
  cluster_.world().network().Heal();
  EXPECT_EQ(cluster_.Check(), "");
}

TEST_F(GrayFailureTest, R8ALeaderThatIsNotHeardGivesWay) {
  for (uint64_t other : {follower_, Other()}) Block(leader_, other);
  EXPECT_LE(Failover(), kLostBound);
  cluster_.world().network().Heal();
  EXPECT_EQ(cluster_.Check(), "");
}

// It is heard by all: only that it hears nobody shows that it cannot lead.
TEST_F(GrayFailureTest, R8ALeaderThatHearsNobodyGivesWay) {
  for (uint64_t other : {follower_, Other()}) Block(other, leader_);
  EXPECT_LE(Failover(), 2 * kLostBound);
  cluster_.world().network().Heal();
  EXPECT_EQ(cluster_.Check(), "");
}

// The follower asks the others before it elects, and is told that all is well.
TEST_F(GrayFailureTest, R8AOneWayLinkToOneFollowerIsNotNoticed) {
  const int64_t before = Elections();
  const Duration usual = LongestPut(20);
  Block(leader_, follower_);
  EXPECT_LE(LongestPut(2'000), 2 * usual);
  EXPECT_GT(cluster_.world().Now().nanos(), 1'500'000'000);
  cluster_.world().RunFor(seconds(20));
  EXPECT_EQ(cluster_.Leader(), leader_);
  EXPECT_EQ(Elections(), before);
  cluster_.world().network().Heal();
  EXPECT_EQ(cluster_.Check(), "");
}

// Nor is a link that is cut both ways, while the third reaches both: whom the leader does not reach
// would be a leader that the old one does not follow, and the two would take turns without end.
TEST_F(GrayFailureTest, R8APartialPartitionElectsNobody) {
  const int64_t before = Elections();
  const Duration usual = LongestPut(20);
  Block(leader_, follower_);
  Block(follower_, leader_);
  EXPECT_LE(LongestPut(2'000), 2 * usual);
  cluster_.world().RunFor(seconds(60));
  EXPECT_LE(LongestPut(20), 2 * usual);
  EXPECT_EQ(cluster_.Leader(), leader_);
  EXPECT_EQ(Elections(), before);
  cluster_.world().network().Heal();
  EXPECT_EQ(cluster_.Check(), "");
}

TEST_F(GrayFailureTest, R8AHungDiskOnAFollowerCostsNobodyElseAnything) {
  const int64_t before = Elections();
  const Duration usual = LongestPut(20);
  Hang(follower_, seconds(30));
  const Duration longest = LongestPut(2'000);
  EXPECT_LE(longest, 2 * usual);
  cluster_.world().RunFor(seconds(20));
  EXPECT_LE(LongestPut(20), 2 * usual);
  EXPECT_EQ(cluster_.Leader(), leader_);
  EXPECT_EQ(Elections(), before);
  AwaitEndOfHang();
  EXPECT_EQ(cluster_.Check(), "");
}

// A follower that takes for ever is sent no more than its window, and holds nobody up.
class SlowFollowerTest : public GrayFailureTest {
 protected:
  explicit SlowFollowerTest(const GroupOptions& group = {}) : GrayFailureTest(group) {}

  PeerStatus SlowOne() {
    for (const PeerStatus& peer : cluster_.Status(leader_).peers) {
      if (peer.member.node == NodeId{follower_}) return peer;
    }
    return {};
  }
  struct Most {
    size_t bytes = 0;
    uint64_t entries = 0;
  };
  Most InFlightWhileItHangs() {
    const Duration usual = LongestPut(20);
    Hang(follower_, seconds(3));
    Most most;
    for (int i = 0; i < 200; ++i) {
      EXPECT_LE(LongestPut(1), 2 * usual);
      most.bytes = std::max(most.bytes, SlowOne().in_flight_bytes);
      most.entries = std::max(most.entries, SlowOne().in_flight_entries);
    }
    EXPECT_GT(SlowOne().lag, 150u);
    AwaitEndOfHang();
    EXPECT_EQ(cluster_.Check(), "");
    cluster_.world().RunFor(seconds(1));
    EXPECT_EQ(SlowOne().lag, 0u);
    return most;
  }
};

struct ByBytes : SlowFollowerTest {
  ByBytes() : SlowFollowerTest({.peer_window_bytes_max = 20'000}) {}
};
TEST_F(ByBytes, ASlowFollowerIsSentItsWindowAndHoldsNobodyUp) {
  const Most most = InFlightWhileItHangs();
  EXPECT_GE(most.bytes, 20'000u);
  EXPECT_LE(most.bytes, 20'000u + 1'200u);  // The last entry may reach beyond.
  EXPECT_LT(most.entries, 25u);
}

struct ByEntries : SlowFollowerTest {
  ByEntries() : SlowFollowerTest({.peer_window_entries_max = 16}) {}
};
TEST_F(ByEntries, ASlowFollowerIsSentItsWindowAndHoldsNobodyUp) {
  EXPECT_EQ(InFlightWhileItHangs().entries, 16u);
}

}  // namespace
}  // namespace dynlib::replication
