// GroupHost: reads by lease and by quorum (R7).
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replication/group_host_fixture.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(GroupHostTest, AReadWaitsForWhatWasAnsweredBefore) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.apply.Hold();
  auto write = Propose(leader, 2, "b");
  world_.RunFor(milliseconds(100));
  EXPECT_FALSE(write->done());
  auto read = Read(leader);
  world_.RunFor(milliseconds(100));
  EXPECT_FALSE(read->done());
  leader.apply.LetGo();
  ASSERT_TRUE(Await(read));
  DYNLIB_EXPECT_OK(read->results[0]);
  EXPECT_EQ(read->seen, (std::vector<std::string>{"a", "b"}));
}

TEST_F(GroupHostTest, AReadThatIsNotReadyInTimeIsUnavailable) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.apply.Hold();
  auto write = Propose(leader, 2, "b");
  world_.RunFor(milliseconds(50));
  const Instant asked_at = world_.Now();
  auto read = Read(leader);
  ASSERT_TRUE(Await(read));
  EXPECT_THAT(read->results[0], StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(read->seen.empty());
  EXPECT_GE(world_.Now() - asked_at, options_.read_wait);
  EXPECT_LE(world_.Now() - asked_at, options_.read_wait + milliseconds(50));
  leader.apply.LetGo();
}

TEST_F(GroupHostTest, AReadWithoutAQuorumIsUnavailableAfterReadWait) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  const NodeId id{LeaderId()};
  std::set<NodeId> others;
  for (uint64_t i = 1; i <= 3; ++i) {
    if (NodeId{i} != id) others.insert(NodeId{i});
  }
  world_.network().Partition({id}, others);
  world_.RunUntil([&] { return !leader.Status().holds_lease; }, seconds(20));
  ASSERT_EQ(leader.Status().role, Role::kLeader);
  const Instant asked_at = world_.Now();
  auto read = Read(leader);
  ASSERT_TRUE(Await(read));
  EXPECT_THAT(read->results[0], StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(read->seen.empty());
  EXPECT_GE(world_.Now() - asked_at, options_.read_wait);
}

TEST_F(GroupHostTest, R7WithoutLeasesReadsGoByAQuorum) {
  options_.lease_reads = false;
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  std::vector<std::shared_ptr<AskedRead>> reads;
  for (int i = 0; i < 100; ++i) reads.push_back(Read(leader));
  for (auto& read : reads) {
    ASSERT_TRUE(Await(read, milliseconds(50)));
    DYNLIB_EXPECT_OK(read->results[0]);
    EXPECT_EQ(read->seen, (std::vector<std::string>{"a"}));
  }
}

// Longer than the lease, while the others elect and write: the lease is over before anything is
// read, and so is the leadership, which the quorum denies.
TEST_F(GroupHostTest, R7APauseLongerThanTheLeaseReadsNothingStale) {
  for (const bool lease_reads : {true, false}) {
    options_.lease_reads = lease_reads;
    if (servers_.empty()) {
      Boot(3);
    } else {
      for (uint64_t id = 1; id <= 3; ++id) Kill(id);
      for (uint64_t id = 1; id <= 3; ++id) Reopen(id);
    }
    MustPropose(lease_reads ? 1 : 3, "old");
    const uint64_t old_id = LeaderId();
    Server& old = *servers_[old_id];
    world_.node(NodeId{old_id})->Pause(seconds(3));
    // Nor does anybody tell it, when it wakes, that it is deposed.
    for (uint64_t id = 1; id <= 3; ++id) world_.network().Block(NodeId{id}, NodeId{old_id});
    ASSERT_TRUE(world_.RunUntil(
        [&] {
          const uint64_t id = LeaderId();
          return id != 0 && id != old_id;
        },
        seconds(2)));
    MustPropose(lease_reads ? 2 : 4, "new");
    auto read = Read(old);  // Asked of it while it slept.
    world_.node(NodeId{old_id})->EndPause();
    ASSERT_TRUE(Await(read));
    EXPECT_FALSE(read->results[0].ok());
    world_.network().Heal();
  }
}

TEST_F(GroupHostTest, ALeaseThatRunsOutDuringTheReadIsNoAnswer) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  const NodeId id{LeaderId()};
  leader.apply.Hold();
  auto read = Read(leader);
  for (uint64_t i = 1; i <= 3; ++i) {
    world_.network().Block(id, NodeId{i});
    world_.network().Block(NodeId{i}, id);
  }
  world_.RunUntil([&] { return !leader.Status().holds_lease; }, seconds(20));
  leader.apply.LetGo();
  ASSERT_TRUE(Await(read));
  EXPECT_FALSE(read->results[0].ok());
}

}  // namespace
}  // namespace dynlib::replication
