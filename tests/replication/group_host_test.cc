// GroupHost: proposals, bounds, failures of state machines, states and the end.
#include "dynlib/replication/group_host.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
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
using testing::HasSubstr;

TEST_F(GroupHostTest, AProposalIsAppliedEverywhereAndAnswered) {
  Boot(3);
  EXPECT_EQ(MustPropose(1, "a"), "1");
  EXPECT_EQ(MustPropose(2, "b"), "2");
  ASSERT_TRUE(AllApplied(2));
  for (auto& [id, server] : servers_)
    EXPECT_EQ(server->journal.commands, (std::vector<std::string>{"a", "b"}));
}

TEST_F(GroupHostTest, AFollowerNamesTheLeaderAndLogsNothing) {
  Boot(3);
  Leader();
  world_.RunFor(seconds(1));
  const uint64_t leader = LeaderId();
  Server& follower = *servers_[leader % 3 + 1];
  auto asked = Propose(follower, 1, "a");
  ASSERT_TRUE(Await(asked));
  EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_TRUE(asked->results[0].leader_hint.has_value());
  EXPECT_EQ(asked->results[0].leader_hint->node, NodeId{leader});
  auto read = Read(follower);
  ASSERT_TRUE(Await(read));
  EXPECT_THAT(read->results[0], StatusIs(absl::StatusCode::kFailedPrecondition));
  world_.RunFor(seconds(1));
  EXPECT_TRUE(follower.journal.commands.empty());
}

TEST_F(GroupHostTest, BadAndUnknownCommandsAreRefused) {
  Boot(1);
  Server& leader = Leader();
  auto no_sequence = Propose(leader, 0, "a");
  auto no_client = Propose(leader, 1, "a", /*client=*/0);
  auto too_large = Propose(leader, 1, std::string(options_.group.proposal_bytes_max + 1, 'x'));
  std::vector<absl::Status> other;
  world_.RunAs(leader.executor, [&] {
    leader.host->Propose(PartitionId{77}, {}, [&](ProposalResult r) { other.push_back(r.status); });
    leader.host->Read(
        PartitionId{77}, [] { FAIL(); },
        [&](absl::Status status) { other.push_back(std::move(status)); });
  });
  world_.RunFor(seconds(1));
  for (const auto& asked : {no_sequence, no_client, too_large}) {
    ASSERT_EQ(asked->results.size(), 1u);
    EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kInvalidArgument));
  }
  ASSERT_EQ(other.size(), 2u);
  EXPECT_THAT(other, Each(StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("77"))));
}

TEST_F(GroupHostTest, ARepeatGetsTheFirstResultAlsoAfterFailoverAndRestart) {
  Boot(3);
  EXPECT_EQ(MustPropose(1, "a"), "1");
  EXPECT_EQ(MustPropose(2, "b"), "2");
  EXPECT_EQ(MustPropose(1, "a"), "1");
  const uint64_t old_leader = LeaderId();
  Kill(old_leader);
  EXPECT_EQ(MustPropose(1, "a"), "1");
  EXPECT_NE(LeaderId(), old_leader);
  Reopen(old_leader);
  EXPECT_EQ(MustPropose(3, "c"), "3");
  for (uint64_t id = 1; id <= 3; ++id) Kill(id);
  for (uint64_t id = 1; id <= 3; ++id) Reopen(id);
  EXPECT_EQ(MustPropose(2, "b"), "2");
  EXPECT_EQ(MustPropose(4, "d"), "4");
  ASSERT_TRUE(AllApplied(4));
}

TEST_F(GroupHostTest, AStepEndsWhereACommandSaysSo) {
  Boot(3);
  MustPropose(1, "a");
  ASSERT_TRUE(AllApplied(1));
  for (auto& [id, server] : servers_) {
    server->apply.Hold();
    server->journal.shown.clear();
  }
  Server& leader = Leader();
  std::vector<std::shared_ptr<Asked>> asked;
  uint64_t sequence = 1;
  for (const char* command : {"x", "b", "cut1", "c", "cut2", "cut3", "d", "e"})
    asked.push_back(Propose(leader, ++sequence, command));
  world_.RunFor(seconds(1));
  for (auto& [id, server] : servers_) server->apply.LetGo();
  ASSERT_TRUE(AllApplied(9));
  for (auto& [id, server] : servers_) {
    // What was applied before the others were chosen, if anything, is a step of its own.
    std::vector<std::string>& shown = server->journal.shown;
    std::erase_if(shown, [](const std::string& last) { return last == "a" || last == "x"; });
    EXPECT_EQ(shown, (std::vector<std::string>{"cut1", "cut2", "cut3", "e"}));
  }
  ASSERT_TRUE(Await(asked.back()));
  EXPECT_EQ(asked.back()->results[0].result, "9");
}

using GroupHostDeathTest = GroupHostTest;

TEST_F(GroupHostDeathTest, CallsOnAnotherExecutorStopTheProcess) {
  Boot(1);
  Server& leader = Leader();
  EXPECT_DEATH(leader.host->Propose(kGroup, {}, [](ProposalResult) {}), "IsCurrent");
  EXPECT_DEATH(leader.host->Read(
                   kGroup, [] {}, [](absl::Status) {}),
               "IsCurrent");
  EXPECT_DEATH(leader.host->ProposeEnd(kGroup, {}, [](ProposalResult) {}), "IsCurrent");
  EXPECT_DEATH(leader.host->AddLearner(kGroup, {}, 0, [](const absl::StatusOr<LearnerStatus>&) {}),
               "IsCurrent");
  EXPECT_DEATH(leader.host->ChangeMembers(kGroup, 0, {}, [](const absl::StatusOr<uint64_t>&) {}),
               "IsCurrent");
  EXPECT_DEATH(leader.host->CheckLead(kGroup), "IsCurrent");
  EXPECT_DEATH(leader.host->TransferLeadership(kGroup), "IsCurrent");
  EXPECT_DEATH(leader.host->Checkpointed(kGroup, 1), "IsCurrent");
  EXPECT_DEATH(leader.host->RemoveGroup(kGroup, [](absl::Status) {}), "IsCurrent");
}

TEST_F(GroupHostTest, StatesAndEventsTellOfAFailover) {
  Boot(3);
  MustPropose(1, "a");
  world_.RunFor(seconds(1));
  const uint64_t first = LeaderId();
  ASSERT_EQ(Leader().Status().peers.size(), 2u);
  for (const PeerStatus& peer : Leader().Status().peers) {
    EXPECT_TRUE(peer.votes && peer.known);
    EXPECT_EQ(peer.match, Leader().Status().last);
    EXPECT_EQ(peer.lag + peer.in_flight_bytes + peer.in_flight_entries, 0u);
  }
  const auto fresh = static_cast<size_t>(ElectionCause::kFresh);
  const auto silent = static_cast<size_t>(ElectionCause::kLeaderSilent);
  EXPECT_EQ(Leader().host->Status().elections[fresh], 1u);
  EXPECT_EQ(Leader().host->Status().leads, 1u);
  Kill(first);
  MustPropose(2, "b");
  const HostStatus status = Leader().host->Status();
  EXPECT_EQ(status.elections[silent], 1u);
  EXPECT_TRUE(status.log_healthy);
  EXPECT_EQ(status.incarnation, 1u);
  for (const Liveness::PeerStatus& peer : status.peers) {
    EXPECT_EQ(peer.heard, peer.node != NodeId{first});
    EXPECT_EQ(peer.supports_us_for > Duration(0), peer.heard);
  }
  std::string lines;
  for (const std::string& line : Leader().trace.Take()) lines += line;
  const std::string node = "\"node\":" + std::to_string(LeaderId());
  EXPECT_THAT(lines, HasSubstr("\"event\":\"replication.peer_lost\"," + node +
                               ",\"peer\":" + std::to_string(first)));
  EXPECT_THAT(lines,
              HasSubstr("\"event\":\"replication.election_started\",\"partition\":5," + node));
  EXPECT_THAT(lines, HasSubstr("\"cause\":\"leader_silent\""));
  EXPECT_THAT(lines, HasSubstr("\"event\":\"replication.elected\""));
}

TEST_F(GroupHostTest, WhoIsFullSaysWhenToTryAgain) {
  options_.group.unchosen_bytes_max = 4 << 10;
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.log.hang = true;
  for (uint64_t i = 1; i <= 3; ++i) {
    if (i != LeaderId()) servers_[i]->log.hang = true;
  }
  std::vector<std::shared_ptr<Asked>> asked;
  for (uint64_t i = 2; i <= 4; ++i) asked.push_back(Propose(leader, i, std::string(2000, 'x')));
  ASSERT_TRUE(Await(asked[2]));
  EXPECT_THAT(asked[2]->results[0].status,
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not yet chosen")));
  ASSERT_TRUE(asked[2]->results[0].retry_after.has_value());
  EXPECT_EQ(*asked[2]->results[0].retry_after, milliseconds(1));
  world_.RunFor(milliseconds(300));  // The longer nothing moves, the later.
  auto later = Propose(leader, 5, std::string(2000, 'x'));
  ASSERT_TRUE(Await(later));
  EXPECT_GE(later->results[0].retry_after.value_or(Duration(0)), milliseconds(300));
  EXPECT_FALSE(asked[0]->done());
  EXPECT_EQ(leader.Status().waiting_proposals, 2u);
  EXPECT_GT(leader.Status().unchosen_bytes, 4000u);
}

// It puts off applying for the sake of its log, but not for ever.
TEST_F(GroupHostTest, AFollowerWhoseLogHangsAppliesWhatIsChosen) {
  Boot(3);
  MustPropose(1, "a");
  ASSERT_TRUE(AllApplied(1));
  Server& follower = *servers_[LeaderId() % 3 + 1];
  follower.log.hang = true;
  MustPropose(2, "b");
  world_.RunFor(milliseconds(100));
  EXPECT_FALSE(follower.log.hung.empty());
  EXPECT_EQ(follower.journal.commands, (std::vector<std::string>{"a", "b"}));
}

TEST_F(GroupHostTest, WaitingReadsAndProposalsAreBounded) {
  options_.waiting_reads_max = 2;
  options_.waiting_proposals_max = 2;
  Boot(1);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.apply.Hold();
  std::vector<std::shared_ptr<AskedRead>> reads;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 0; i < 3; ++i) reads.push_back(Read(leader));
  for (uint64_t i = 0; i < 3; ++i) writes.push_back(Propose(leader, 10 + i, "w"));
  world_.RunFor(milliseconds(100));
  ASSERT_TRUE(reads[2]->done());
  EXPECT_THAT(reads[2]->results[0],
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 reads wait")));
  ASSERT_TRUE(writes[2]->done());
  EXPECT_THAT(writes[2]->results[0].status, StatusIs(absl::StatusCode::kResourceExhausted));
  leader.apply.LetGo();
  world_.RunFor(milliseconds(100));
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(reads[i]->results.size(), 1u);
    DYNLIB_EXPECT_OK(reads[i]->results[0]);
    ASSERT_EQ(writes[i]->results.size(), 1u);
    DYNLIB_EXPECT_OK(writes[i]->results[0].status);
  }
  auto later = Read(leader);
  ASSERT_TRUE(Await(later));
  DYNLIB_EXPECT_OK(later->results[0]);
}

TEST_F(GroupHostTest, StopAnswersEverythingOnce) {
  Boot(1);
  MustPropose(1, "a");
  Server& server = Leader();
  std::vector<std::shared_ptr<Asked>> writes;
  std::vector<std::shared_ptr<AskedRead>> reads;
  reads.push_back(Read(server));  // On the apply executor when the host stops.
  server.apply.Hold();
  reads.push_back(Read(server));
  writes.push_back(Propose(server, 2, "chosen, not applied"));
  world_.RunFor(milliseconds(20));
  reads.push_back(Read(server));  // Waits for what is not applied.
  server.log.hang = true;
  writes.push_back(Propose(server, 3, "not durable"));
  world_.RunFor(milliseconds(20));
  writes.push_back(Propose(server, 4, "not flushed"));
  server.host->Stop();
  server.host->Stop();
  writes.push_back(Propose(server, 5, "after"));
  reads.push_back(Read(server));
  world_.RunFor(milliseconds(20));
  server.apply.LetGo();
  for (auto& done : std::exchange(server.log.hung, {})) done(absl::OkStatus());
  world_.RunFor(seconds(2));
  for (const auto& write : writes) {
    ASSERT_EQ(write->results.size(), 1u);
    EXPECT_THAT(write->results[0].status, StatusIs(absl::StatusCode::kCancelled));
  }
  ASSERT_EQ(reads[0]->results.size(), 1u);
  DYNLIB_EXPECT_OK(reads[0]->results[0]);
  for (size_t i = 1; i < reads.size(); ++i) {
    ASSERT_EQ(reads[i]->results.size(), 1u) << i;
    EXPECT_THAT(reads[i]->results[0], StatusIs(absl::StatusCode::kCancelled)) << i;
  }
  EXPECT_TRUE(server.fatal.empty());
}

TEST_F(GroupHostTest, StopBeforeTheStartIsDurable) {
  world_.AddNode(NodeId{1});
  size_ = 1;
  Open(1);
  servers_[1]->host->Stop();
  world_.RunFor(seconds(2));
  ASSERT_TRUE(servers_[1]->started.has_value());
  EXPECT_THAT(*servers_[1]->started, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(servers_[1]->host->Status(kGroup).has_value());
}

TEST_F(GroupHostTest, AddGroupSaysWhatIsWrong) {
  Boot(1);
  Server& server = Leader();
  auto add = [&](uint64_t id, std::vector<Member> members) {
    const GroupSetup setup{.configuration = {.epoch = 0, .members = std::move(members)},
                           .self = ReplicaId{1}};
    return server.host->AddGroup(PartitionId{id}, setup, &server.journal, &server.apply, {});
  };
  EXPECT_THAT(add(8, {}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(add(8, {{ReplicaId{1}, NodeId{2}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("node 1")));
  EXPECT_THAT(add(8, {{ReplicaId{1}, NodeId{1}}, {ReplicaId{1}, NodeId{2}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("share a replica id")));
  EXPECT_THAT(add(8, {{ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{1}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("or a node")));
  EXPECT_THAT(add(8, {{ReplicaId{1}, NodeId{1}}, {ReplicaId{0}, NodeId{2}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has replica id 0")));
  EXPECT_THAT(add(8, {{ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{0}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has node id 0")));
  EXPECT_THAT(add(0, {{ReplicaId{1}, NodeId{1}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("partition id is 0")));
  EXPECT_THAT(add(5, {{ReplicaId{1}, NodeId{1}}}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("5")));
  const Configuration later{.epoch = 1000, .members = {{ReplicaId{1}, NodeId{1}}}};
  EXPECT_THAT(server.host->AddGroup(PartitionId{8}, {.configuration = later, .self = ReplicaId{1}},
                                    &server.journal, &server.apply, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("epoch is 1000")));
  server.log.bytes_max = 2 << 10;  // A proposal may not fit.
  EXPECT_THAT(
      add(8, {{ReplicaId{1}, NodeId{1}}}),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("proposal_bytes_max is 2048")));
  EXPECT_EQ(server.host->AllStatus().size(), 1u);
}

TEST_F(GroupHostTest, AStateMachineThatFailsStepsDownAndIsFatal) {
  Boot(3);
  MustPropose(1, "a");
  const uint64_t id = LeaderId();
  Server& leader = *servers_[id];
  leader.journal.failure = absl::InternalError("no disk");
  auto write = Propose(leader, 2, "b");
  ASSERT_TRUE(Await(write));
  EXPECT_THAT(write->results[0].status, StatusIs(absl::StatusCode::kUnknown));
  ASSERT_TRUE(world_.RunUntil([&] { return !leader.fatal.empty(); }, seconds(5)));
  EXPECT_THAT(leader.fatal[0], StatusIs(absl::StatusCode::kInternal));
  EXPECT_TRUE(leader.Status().failed);
  EXPECT_NE(leader.Status().role, Role::kLeader);
  EXPECT_EQ(MustPropose(2, "b"), "2");  // Another one leads, and it was applied once.
  EXPECT_NE(LeaderId(), id);
  world_.RunFor(seconds(2));
  EXPECT_EQ(leader.fatal.size(), 1u);
  EXPECT_EQ(leader.journal.commands.size(), 1u);
}

TEST_F(GroupHostTest, AStateMachineWithDamageFailsItsReplicaAlone) {
  Boot(3);
  MustPropose(1, "a");
  const uint64_t id = LeaderId();
  Server& leader = *servers_[id];
  int told = 0;
  leader.host->OnChange([&](PartitionId) { told += leader.Status().failed ? 1 : 0; });
  leader.journal.failure = absl::DataLossError("a page is damaged");
  auto write = Propose(leader, 2, "b");
  ASSERT_TRUE(Await(write));
  EXPECT_THAT(write->results[0].status, StatusIs(absl::StatusCode::kUnknown));
  EXPECT_EQ(MustPropose(2, "b"), "2");
  EXPECT_NE(LeaderId(), id);
  EXPECT_TRUE(leader.fatal.empty());
  EXPECT_TRUE(leader.Status().failed);
  EXPECT_GE(told, 1);
  // It votes: without it there is no quorum.
  Kill(6 - id - LeaderId());
  EXPECT_EQ(MustPropose(3, "c"), "3");
}

TEST_F(GroupHostTest, MessagesThatAreNotForThisReplicaAreCountedAndDropped) {
  Boot(3);
  Leader();
  world_.RunFor(seconds(1));
  Server& server = *servers_[1];
  const Ballot promised = server.Status().promised;
  auto send = [&](GroupMessage message) {
    message.body = Prepare{.from_slot = 1};
    message.ballot = Ballot(1000, message.from);
    world_.node(NodeId{3})->transport()->Send(
        NodeId{1}, kChannel, Encode(NodeMessage{.groups = {message}, .liveness = {}}));
    world_.RunFor(milliseconds(5));
  };
  const GroupMessage good{.group = kGroup, .from = ReplicaId{3}, .to = ReplicaId{1}};
  GroupMessage other = good;
  other.group = PartitionId{6};
  send(other);
  EXPECT_EQ(server.metrics["replication.unknown_group_messages"], 1);
  other = good;
  other.from = ReplicaId{2};  // Lives on node 2.
  send(other);
  other = good;
  other.to = ReplicaId{2};
  send(other);
  EXPECT_EQ(server.metrics["replication.foreign_messages"], 2);
  other = good;
  other.from = ReplicaId{9};  // No member.
  send(other);
  other = good;
  other.epoch = 1;  // May know more; but the leader's lease comes first.
  send(other);
  world_.node(NodeId{3})->transport()->Send(NodeId{1}, kChannel, "\xff\xff\xff");
  world_.RunFor(milliseconds(5));
  EXPECT_EQ(server.metrics["replication.bad_messages"], 1);
  EXPECT_EQ(server.Status().promised, promised);
  EXPECT_EQ(MustPropose(1, "a"), "1");
}

}  // namespace
}  // namespace dynlib::replication
