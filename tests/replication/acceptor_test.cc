// What an acceptor promises, accepts, says and learns, rule by rule.
#include <string>

#include "gtest/gtest.h"
#include "tests/replication/solo_core.h"

namespace dynlib::replication {
namespace {

using Kind = GroupCore::Event::Kind;

// Replica 2, which accepted "a" and "b" from leader 1 at ballot 1.1 and supports its node.
SoloCore FollowerOfOne() {
  SoloCore solo({.self = 2});
  solo.SupportPeer(1);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1, .entries = {Value("a"), Value("b")}});
  solo.Persist();
  solo.sent.clear();
  return solo;
}

TEST(AcceptorTest, R1PromiseLeavesOnlyWhenDurable) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Prepare{.from_slot = 1});
  EXPECT_TRUE(solo.Sent<Promise>().empty());
  ASSERT_EQ(solo.records.size(), 1u);
  EXPECT_EQ(solo.records[0].ballot, At(1, 1));
  solo.Persist();
  auto promises = solo.Sent<Promise>();
  ASSERT_EQ(promises.size(), 1u);
  EXPECT_TRUE(promises[0].second.granted);
}

TEST(AcceptorTest, R1AcceptedLeavesOnlyWhenDurable) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1, .entries = {Value("a")}});
  EXPECT_TRUE(solo.Sent<Accepted>().empty());
  solo.PersistTo(solo.last_record - 1);  // The promise, but not yet the entry.
  EXPECT_TRUE(solo.Sent<Accepted>().empty());
  solo.Persist();
  auto answers = solo.Sent<Accepted>();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].second.stable, 1u);
}

TEST(AcceptorTest, R1OneAnswerToABatchOfProposals) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1, .entries = {Value("a")}});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 2});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 2});
  solo.Persist();
  EXPECT_EQ(solo.Sent<Accepted>().size(), 1u);
}

TEST(AcceptorTest, R1SupersededEntryIsDurableOnlyWithItsOwnRecord) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1, .entries = {Value("a")}});
  const uint64_t old_entry = solo.last_record;
  solo.Receive(3, At(2, 3), Accept{.first_slot = 1, .entries = {Value("b")}});
  solo.PersistTo(old_entry);
  solo.Receive(3, At(2, 3), Accept{.first_slot = 2});
  EXPECT_TRUE(solo.Sent<Accepted>().empty());  // Neither to the old leader nor to the new one.
  solo.Persist();
  for (const auto& [to, answer] : solo.Sent<Accepted>()) {
    EXPECT_EQ(to, 3u);
    EXPECT_EQ(answer.stable, 1u);
  }
}

TEST(AcceptorTest, R2MessagesOfOtherConfigurationsAndStrangersAreIgnored) {
  SoloCore solo({.self = 2});
  GroupMessage message{.group = PartitionId{1},
                       .from = ReplicaId{1},
                       .to = ReplicaId{2},
                       .epoch = 9,
                       .ballot = At(5, 1),
                       .body = Prepare{.from_slot = 1}};
  solo->Step(message, solo.now);
  message.epoch = 0;
  message.from = ReplicaId{8};
  message.ballot = At(5, 8);
  solo->Step(message, solo.now);
  EXPECT_EQ(solo->promised(), Ballot());
}

TEST(AcceptorTest, StaleBallotsAreRefusedWithTheNewer) {
  SoloCore solo({.self = 2});
  solo.Receive(3, At(4, 3), Prepare{.from_slot = 1});
  solo.Persist();
  solo.sent.clear();
  solo.Receive(1, At(3, 1), Prepare{.from_slot = 1});
  solo.Receive(1, At(3, 1), Accept{.first_slot = 1, .entries = {Value("a")}});
  auto promises = solo.Sent<Promise>();
  ASSERT_EQ(promises.size(), 1u);
  EXPECT_FALSE(promises[0].second.granted);
  EXPECT_EQ(promises[0].second.promised, At(4, 3));
  auto answers = solo.Sent<Accepted>();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_FALSE(answers[0].second.granted);
  EXPECT_EQ(solo->last_slot(), 0u);
}

TEST(AcceptorTest, ProposersSpeakForTheirOwnBallotsOnly) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(4, 3), Prepare{.from_slot = 1});
  solo.Receive(1, At(4, 3), Accept{.first_slot = 1, .entries = {Value("a")}});
  EXPECT_EQ(solo->promised(), Ballot());
}

TEST(AcceptorTest, PrepareHeardTwiceIsAnsweredTwice) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Prepare{.from_slot = 1});
  solo.Receive(1, At(1, 1), Prepare{.from_slot = 1});
  solo.Persist();
  EXPECT_EQ(solo.Sent<Promise>().size(), 2u);
  EXPECT_EQ(solo.records.size(), 1u);
}

TEST(AcceptorTest, R5NoPromiseWhileSupportIsOwedAndTheEpochEndsBeforeOne) {
  SoloCore solo = FollowerOfOne();
  const uint64_t epoch = solo.liveness.EpochFor(NodeOf(1));
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  auto refusals = solo.Sent<Promise>();
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_FALSE(refusals[0].second.granted);
  EXPECT_GT(refusals[0].second.lease_remaining, Ms(500));
  EXPECT_EQ(solo.liveness.EpochFor(NodeOf(1)), epoch);

  solo.Pass(Ms(700));
  solo.sent.clear();
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  solo.Persist();
  auto promises = solo.Sent<Promise>();
  ASSERT_EQ(promises.size(), 1u);
  EXPECT_TRUE(promises[0].second.granted);
  EXPECT_GT(solo.liveness.EpochFor(NodeOf(1)), epoch);
}

TEST(AcceptorTest, R5NamedEpochEndsWithAPromiseEvenIfNoneWasSupported) {
  SoloCore solo({.self = 2});  // Has not supported node 1 yet.
  solo.Receive(1, At(1, 1), Prepare{.from_slot = 1});
  solo.Persist();
  const uint64_t named = solo.Sent<Promise>()[0].second.support_epoch;
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->promised(), At(2, 3));
  solo.SupportPeer(1);
  EXPECT_GT(solo.liveness.EpochFor(NodeOf(1)), named);
}

TEST(AcceptorTest, R5NoPromiseBeforeTheBootWaitIsOver) {
  SoloCore solo({.self = 2, .recovered = {.promised = At(1, 1)}, .boot = 2, .boot_wait = Ms(600)});
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  auto refusals = solo.Sent<Promise>();
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_FALSE(refusals[0].second.granted);
  EXPECT_GT(refusals[0].second.lease_remaining, Ms(500));
  solo.Pass(Ms(610));
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->promised(), At(2, 3));
}

// That it proposes shows that a quorum ended its support for all earlier leaders.
TEST(AcceptorTest, R5ElectedLeaderIsFollowedWhateverIsOwed) {
  SoloCore solo = FollowerOfOne();
  ASSERT_TRUE(solo.liveness.Supports(NodeOf(1), solo.now));
  solo.Receive(3, At(2, 3), Accept{.first_slot = 3});
  EXPECT_EQ(solo->promised(), At(2, 3));
  solo.Persist();
  auto answers = solo.Sent<Accepted>();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(answers[0].second.granted);
  EXPECT_EQ(answers[0].second.stable, 0u);  // What is held is of another ballot.
}

TEST(AcceptorTest, R5ProposerThatGaveUpIsNotWaitedFor) {
  SoloCore solo = FollowerOfOne();
  solo.Receive(1, At(1, 1), HealthReply{.healthy = false, .abandoned = true});
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->promised(), At(2, 3));
}

TEST(AcceptorTest, R5OnlyTheProposerItselfCanGiveUpItsBallot) {
  SoloCore solo = FollowerOfOne();
  solo.Receive(3, At(1, 1), HealthReply{.healthy = false, .abandoned = true});
  solo.Receive(1, At(0, 1), HealthReply{.healthy = false, .abandoned = true});
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->promised(), At(1, 1));
}

TEST(AcceptorTest, R5ProposersNextBallotNeedsNoWait) {
  SoloCore solo = FollowerOfOne();
  solo.Receive(1, At(2, 1), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->promised(), At(2, 1));
}

TEST(AcceptorTest, R3RecoveredVoteIsKept) {
  SoloCore solo(
      {.self = 2, .recovered = {.promised = At(3, 3), .entries = {{1, At(4, 1), Value("a")}}}});
  EXPECT_EQ(solo->promised(), At(4, 1));  // An accepted ballot was promised too.
  solo.Receive(3, At(3, 3), Prepare{.from_slot = 1});
  EXPECT_FALSE(solo.Sent<Promise>()[0].second.granted);
}

TEST(AcceptorTest, R4UnknownSlotsAreNamedAndTheirBallotsKept) {
  SoloCore solo({.self = 2,
                 .recovered = {.promised = At(1, 1),
                               .entries = {{1, At(1, 1), Value("a")}, {3, At(1, 1), Value("c")}},
                               .unknown = {{2, At(5, 1)}}}});
  EXPECT_EQ(solo->promised(), At(5, 1));
  solo.Receive(3, At(6, 3), Prepare{.from_slot = 1});
  solo.Persist();
  const Promise promise = solo.Sent<Promise>()[0].second;
  ASSERT_EQ(promise.unknown.size(), 1u);
  EXPECT_EQ(promise.unknown[0].slot, 2u);
  EXPECT_EQ(promise.unknown[0].ballot, At(5, 1));
  EXPECT_EQ(promise.entries.size(), 2u);
}

TEST(AcceptorTest, R4UnknownSlotIsFetchedFromTheLeader) {
  SoloCore solo({.self = 2,
                 .recovered = {.promised = At(1, 1),
                               .chosen = 3,
                               .entries = {{1, At(1, 1), Value("a")}, {3, At(1, 1), Value("c")}},
                               .unknown = {{2, At(1, 1)}}}});
  EXPECT_EQ(solo->chosen(), 1u);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 4, .chosen = 3});
  EXPECT_EQ(solo.Sent<Accepted>()[0].second.stable, 1u);  // From here the leader goes on.
  solo.Receive(1, At(1, 1),
               Accept{.first_slot = 2, .entries = {Value("b"), Value("c")}, .chosen = 3});
  solo.Persist();
  EXPECT_EQ(solo.Sent<Accepted>()[0].second.stable, 3u);
  EXPECT_EQ(solo->chosen(), 3u);
  EXPECT_EQ(*solo->ChosenEntry(2), "b");
}

// The log in memory has a cell for each slot from where it starts.
TEST(AcceptorTest, AShortLogFarFromTheBeginningIsShortInMemory) {
  const Slot far = Slot{1} << 50;
  SoloCore solo({.self = 2,
                 .recovered = {.promised = At(3, 1),
                               .chosen = far + 1,
                               .applied = far,
                               .entries = {{7, At(1, 1), Value("left over")},
                                           {far - 1, At(2, 1), Value("a")},
                                           {far, At(2, 1), Value("b")},
                                           {far + 1, At(3, 1), Value("c")},
                                           {far + 3, At(3, 1), Value("d")}},
                               .unknown = {{5, At(1, 1)}, {far + 2, At(3, 1)}}}});
  EXPECT_EQ(solo->released(), far - 2);
  EXPECT_EQ(solo->chosen(), far + 1);
  EXPECT_EQ(solo->last_slot(), far + 3);
}

TEST(AcceptorTest, WhatNoMemberAcceptsSoFarAheadIsOutOfReach) {
  GroupCore::Recovered recovered{.applied = 10,
                                 .entries = {{3, At(1, 1), Value("a")}, {11, At(1, 1), Value("b")}},
                                 .unknown = {{12, At(1, 1)}, {4'000'012, At(1, 1)}}};
  EXPECT_TRUE(GroupCore::InReach(recovered));
  recovered.unknown[1].slot = 4'000'013;
  EXPECT_FALSE(GroupCore::InReach(recovered));
  recovered.unknown.clear();
  recovered.entries.push_back({Slot{1} << 60, At(1, 1), Value("z")});
  EXPECT_FALSE(GroupCore::InReach(recovered));
  EXPECT_FALSE(GroupCore::InReach({.applied = kSlotMax + 1}));
}

TEST(AcceptorTest, L4ReplayStopsAtTheChosenWatermark) {
  SoloCore solo({.self = 2,
                 .recovered = {.promised = At(1, 1),
                               .chosen = 1,
                               .entries = {{1, At(1, 1), Value("a")}, {2, At(1, 1), Value("b")}}}});
  EXPECT_EQ(solo->chosen(), 1u);
  EXPECT_EQ(solo->last_slot(), 2u);
}

TEST(AcceptorTest, ChosenIsLearntFromEntriesOfTheLeadersBallotOnly) {
  SoloCore solo = FollowerOfOne();
  // Leader 3 calls slots 1 and 2 chosen; those held here are of ballot 1.1 and may be others.
  solo.Receive(3, At(2, 3), Accept{.first_slot = 3, .chosen = 2});
  EXPECT_EQ(solo->chosen(), 0u);
  solo.Receive(3, At(2, 3),
               Accept{.first_slot = 1, .entries = {Value("x"), Value("b")}, .chosen = 2});
  EXPECT_EQ(solo->chosen(), 2u);
  EXPECT_EQ(*solo->ChosenEntry(1), "x");
}

TEST(AcceptorTest, ProposalsInAnyOrderMakeOneLog) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 3, .entries = {Value("c")}, .chosen = 3});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 2, .entries = {Value("b")}});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 3, .entries = {Value("c")}});
  solo.Persist();
  EXPECT_EQ(solo.Sent<Accepted>().back().second.stable, 0u);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1, .entries = {Value("a")}, .chosen = 3});
  solo.Persist();
  EXPECT_EQ(solo.Sent<Accepted>().back().second.stable, 3u);
  EXPECT_EQ(solo->chosen(), 3u);
  EXPECT_EQ(solo.records.size(), 4u);  // The promise, and each entry once.
}

TEST(AcceptorTest, ProposalsFarAheadAreDropped) {
  SoloCore solo({.self = 2, .options = {.peer_window_entries_max = 10}});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 40, .entries = {Value("x"), Value("y")}});
  EXPECT_EQ(solo->last_slot(), 40u);
  solo.Receive(1, At(1, 1), Accept{.first_slot = uint64_t{1} << 60, .entries = {Value("z")}});
  EXPECT_EQ(solo->last_slot(), 40u);
}

TEST(AcceptorTest, PromiseComesInPartsOfBoundedSize) {
  SoloCore solo({.self = 2, .options = {.message_bytes_max = 10}});
  const std::string text(8, 'x');
  solo.Receive(1, At(1, 1),
               Accept{.first_slot = 1, .entries = {Value(text), Value(text), Value(text)}});
  solo.Persist();
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 1});
  solo.Persist();
  Promise part = solo.Sent<Promise>().back().second;
  EXPECT_EQ(part.entries.size(), 2u);
  EXPECT_EQ(part.through, 2u);
  solo.Receive(3, At(2, 3), Prepare{.from_slot = 3});
  part = solo.Sent<Promise>().back().second;
  EXPECT_EQ(part.entries.size(), 1u);
  EXPECT_EQ(part.through, UINT64_MAX);
}

TEST(AcceptorTest, LogIsReleasedBehindTheCheckpointsOfAllMembers) {
  SoloCore solo = FollowerOfOne();
  solo.Receive(1, At(1, 1), Accept{.first_slot = 3, .chosen = 2, .held_by_all = 1});
  EXPECT_EQ(solo->released(), 0u);
  solo->SetCheckpoint(2, solo.now);
  EXPECT_EQ(solo->released(), 1u);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 3, .chosen = 2, .held_by_all = 2});
  EXPECT_EQ(solo->released(), 2u);
}

TEST(AcceptorTest, FollowerOfALivingLeaderIsAtRest) {
  SoloCore solo = FollowerOfOne();
  EXPECT_EQ(solo->next_deadline(), Instant::Infinite());
  EXPECT_EQ(solo->leader()->replica, ReplicaId{1});
}

// The boot wait is no support: nothing would wake the group when such a "grant" ends.
TEST(AcceptorTest, FollowerHeardDuringTheBootWaitIsNotAtRest) {
  SoloCore solo({.self = 2, .recovered = {.promised = At(1, 1)}, .boot = 2, .boot_wait = Ms(600)});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  EXPECT_NE(solo->next_deadline(), Instant::Infinite());
  solo.Pass(Ms(650));
  solo.SupportPeer(1);
  EXPECT_EQ(solo->next_deadline(), Instant::Infinite());
}

}  // namespace
}  // namespace dynlib::replication
