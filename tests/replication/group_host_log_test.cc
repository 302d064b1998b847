// GroupHost over a log that is full, closes, or lost something.
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/message.h"
#include "dynlib/replication/message_codec.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replication/group_host_fixture.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Each;

TEST_F(GroupHostTest, AFullLogIsTriedAgainInOrderAndNothingIsLost) {
  Boot(1);
  MustPropose(1, "1");
  Server& server = Leader();
  // The first of several that are at the log finds no space; those behind it do.
  server.log.full = 1;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 2; i <= 20; ++i) {
    writes.push_back(Propose(server, i, std::to_string(i)));
    world_.RunFor(std::chrono::microseconds(100));
  }
  for (const auto& write : writes) {
    ASSERT_TRUE(Await(write));
    DYNLIB_EXPECT_OK(write->results[0].status);
  }
  EXPECT_EQ(server.log.refused, 1u);
  // Given again in order: the state that counts is the newest.
  Slot chosen = 0;
  const RecoveredStream stream = Recover(stored_[1], kGroup);
  for (const Entry& entry : stream.entries) EXPECT_EQ(entry.slot, ++chosen);
  Kill(1);
  Reopen(1);
  EXPECT_EQ(MustPropose(21, "21"), "21");
  for (size_t i = 0; i < 21; ++i)
    EXPECT_EQ(servers_[1]->journal.commands[i], std::to_string(i + 1));
}

// A message may hold the entries of many groups: who keeps a small one for long must not keep all
// of them in memory. What was taken out lies end to end, as it does not in a message.
TEST_F(GroupHostTest, AFollowersLogKeepsEntriesAndNotTheMessagesThatTheyCameIn) {
  Boot(1);
  MustPropose(1, "1");
  Server& leader = Leader();
  uint64_t next = 2;
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<std::shared_ptr<Asked>> writes;
    for (int i = 0; i < 10; ++i, ++next)
      writes.push_back(Propose(leader, next, std::to_string(next)));
    for (const auto& write : writes) ASSERT_TRUE(Await(write));
  }
  world_.RunFor(seconds(1));
  for (const auto& [node, stored] : stored_) {
    size_t end_to_end = 0;
    const LogFrame* before = nullptr;
    for (const LogFrame& frame : stored) {
      if (frame.group != kGroup || frame.payload == nullptr || frame.payload->empty()) continue;
      if (before != nullptr && frame.payload.owner() == before->payload.owner()) {
        EXPECT_EQ(frame.payload->data(), before->payload->data() + before->payload->size());
        ++end_to_end;
      }
      before = &frame;
    }
    EXPECT_GE(end_to_end, 9u) << "node " << node;
  }
}

TEST_F(GroupHostTest, MoreThanTheLogsQueueHoldsGetsThroughAfterABlock) {
  Boot(1);
  MustPropose(1, "1");
  Server& server = Leader();
  server.log.queue_max = 4096;
  server.log.full = 3;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 2; i <= 40; ++i) {
    writes.push_back(Propose(server, i, std::to_string(i) + std::string(1000, 'x')));
    world_.RunFor(std::chrono::microseconds(100));
  }
  for (const auto& write : writes) {
    ASSERT_TRUE(Await(write)) << "stuck after " << server.log.refused << " refusals";
    DYNLIB_EXPECT_OK(write->results[0].status);
  }
  EXPECT_GT(server.log.refused, 3u);
  Kill(1);
  Reopen(1);
  EXPECT_EQ(MustPropose(41, "41"), "41");
}

TEST_F(GroupHostTest, WhileTheLogIsFullNothingPilesUp) {
  Boot(1);
  MustPropose(1, "1");
  Server& server = Leader();
  server.log.full = INT32_MAX;
  world_.RunFor(seconds(2));
  const size_t before = server.log.appends;
  world_.RunFor(seconds(5));
  const size_t first = server.log.appends - before;
  world_.RunFor(seconds(60));
  const size_t middle = server.log.appends;
  world_.RunFor(seconds(5));
  EXPECT_LE(server.log.appends - middle, first + 1);  // As many at a time as in the beginning.
  server.log.full = 0;
  EXPECT_EQ(MustPropose(2, "2"), "2");
}

TEST_F(GroupHostTest, ALogThatClosesIsFatalOnceAndTheNodeFallsSilent) {
  Boot(3);
  MustPropose(1, "a");
  const uint64_t id = LeaderId();
  Server& leader = *servers_[id];
  leader.apply.Hold();
  auto read = Read(leader);
  leader.log.closed = true;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 2; i < 6; ++i) writes.push_back(Propose(leader, i, "w"));
  ASSERT_TRUE(world_.RunUntil([&] { return !leader.fatal.empty(); }, seconds(5)));
  writes.push_back(Propose(leader, 6, "after"));
  auto read_after = Read(leader);
  size_t sent = 0;
  world_.network().SetFilter([&](const sim::SimNetwork::Message& message) {
    sent += message.from == NodeId{id};
    return sim::SimNetwork::Verdict::kPass;
  });
  leader.apply.LetGo();
  world_.RunFor(seconds(5));
  EXPECT_EQ(sent, 0u);
  EXPECT_EQ(leader.fatal.size(), 1u);
  for (const auto& write : writes) {
    ASSERT_EQ(write->results.size(), 1u);
    EXPECT_FALSE(write->results[0].status.ok());
  }
  for (const auto& asked : {read, read_after}) {
    ASSERT_EQ(asked->results.size(), 1u);
    EXPECT_FALSE(asked->results[0].ok());
  }
  // In flight when the log closed: nobody may say that it failed.
  EXPECT_THAT(writes[0]->results[0].status, StatusIs(absl::StatusCode::kUnknown));
  servers_[id]->host->Stop();
  servers_[id]->host->Stop();
  Kill(id);
  Reopen(id);
  EXPECT_EQ(MustPropose(7, "b").empty(), false);
}

TEST_F(GroupHostTest, ALogWithASlotThatNoneCanHoldIsLost) {
  Boot(1);
  Server& server = Leader();
  const GroupSetup setup{.configuration = {.epoch = 0, .members = {{ReplicaId{1}, NodeId{1}}}},
                         .self = ReplicaId{1}};
  Journal journal;
  RecoveredStream stream;
  stream.unknown = {{.slot = Slot{1} << 60, .ballot = Ballot(1, ReplicaId{1})}};
  DYNLIB_ASSERT_OK(server.host->AddGroup(PartitionId{8}, setup, &journal, &server.apply, stream));
  world_.RunFor(seconds(1));
  EXPECT_TRUE(server.host->Status(PartitionId{8})->failed);
  EXPECT_EQ(server.host->Status(PartitionId{8})->role, Role::kFollower);
}

TEST_F(GroupHostTest, AReplicaThatLostItsLogSaysOnlyThatItGaveUp) {
  for (uint64_t id = 1; id <= 3; ++id) world_.AddNode(NodeId{id});
  size_ = 3;
  Open(1, /*lost=*/true);
  Open(2);
  Open(3);
  std::vector<GroupMessage> said;
  world_.network().SetFilter([&](const sim::SimNetwork::Message& message) {
    if (message.from == NodeId{1}) {
      const NodeMessage decoded = *DecodeNodeMessage(message.bytes);
      said.insert(said.end(), decoded.groups.begin(), decoded.groups.end());
    }
    return sim::SimNetwork::Verdict::kPass;
  });
  EXPECT_EQ(MustPropose(1, "a"), "1");  // The other two are enough.
  EXPECT_TRUE(servers_[1]->Status().failed);
  EXPECT_EQ(servers_[1]->Status().role, Role::kFollower);
  auto asked = Propose(*servers_[1], 2, "b");
  ASSERT_TRUE(Await(asked));
  EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kFailedPrecondition));
  said.clear();
  for (uint64_t proposer : {1, 2}) {
    GroupMessage query{.group = kGroup,
                       .from = ReplicaId{3},
                       .to = ReplicaId{1},
                       .epoch = 0,
                       .ballot = Ballot(40, ReplicaId{proposer}),
                       .body = HealthQuery{}};
    world_.node(NodeId{3})->transport()->Send(
        NodeId{1}, kChannel, Encode(NodeMessage{.groups = {query}, .liveness = {}}));
    world_.RunFor(milliseconds(10));
    ASSERT_FALSE(said.empty());
    const auto* reply = std::get_if<HealthReply>(&said.back().body);
    ASSERT_NE(reply, nullptr) << said.back().body.index();
    EXPECT_FALSE(reply->healthy);
    EXPECT_EQ(reply->abandoned, proposer == 1);
    EXPECT_EQ(said.back().ballot, query.ballot);
  }
  world_.RunFor(seconds(5));
  for (const GroupMessage& message : said)
    EXPECT_TRUE(std::holds_alternative<HealthReply>(message.body)) << message.body.index();
  EXPECT_TRUE(servers_[1]->journal.commands.empty());
}

TEST_F(GroupHostTest, ALargeFlushIsSplitIntoAppendsWithinTheLogsBound) {
  Boot(1);
  Server& server = Leader();
  server.log.bytes_max = 4096;  // FakeLog checks each append.
  const size_t before = server.log.appends;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 1; i <= 20; ++i) writes.push_back(Propose(server, i, std::string(1000, 'x')));
  for (const auto& write : writes) {
    ASSERT_TRUE(Await(write));
    DYNLIB_EXPECT_OK(write->results[0].status);
  }
  EXPECT_GE(server.log.appends - before, 7u);
}

TEST_F(GroupHostTest, ANodeWhoseBootCountMayBeLostDoesNotStart) {
  world_.AddNode(NodeId{1});
  Stored stored;
  Executor* executor = world_.node(NodeId{1})->NewExecutor("main");
  FakeLog log(&stored, executor, world_.node(NodeId{1})->clock());
  GroupHost host(options_, NodeId{1}, world_.node(NodeId{1})->transport(), kChannel, &log, executor,
                 world_.node(NodeId{1})->clock());
  std::vector<absl::Status> started;
  RecoveredStream stream;
  stream.lost = true;
  host.Start(stream, [&](absl::Status status) { started.push_back(std::move(status)); });
  stream = {};
  stream.state = "\xff";
  host.Start(stream, [&](absl::Status status) { started.push_back(std::move(status)); });
  world_.RunFor(seconds(1));
  ASSERT_EQ(started.size(), 2u);
  EXPECT_THAT(started, Each(StatusIs(absl::StatusCode::kDataLoss)));
  EXPECT_EQ(log.appends, 0u);
}

}  // namespace
}  // namespace dynlib::replication
