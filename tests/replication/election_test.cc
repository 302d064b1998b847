// How elections start, what they decide, and when they end in nothing.
#include <string>

#include "gtest/gtest.h"
#include "tests/replication/solo_core.h"

namespace dynlib::replication {
namespace {

using Kind = GroupCore::Event::Kind;

Promise Granted(Ballot ballot, Slot from_slot) {
  return {.granted = true,
          .promised = ballot,
          .support_epoch = Epoch(1, 1),
          .from_slot = from_slot,
          .through = UINT64_MAX};
}

// Replica 1 of three, a candidate at ballot 6.1 that recovered what it was given.
SoloCore Candidate(GroupCore::Recovered recovered) {
  recovered.promised = std::max(recovered.promised, At(5, 1));
  SoloCore solo({.recovered = std::move(recovered)});
  solo.Pass(Ms(55));  // It asks about its own ballot ...
  solo.Persist();
  solo.Receive(2, solo->promised(), HealthReply{});
  solo.Receive(3, solo->promised(), HealthReply{});
  solo.Persist();
  EXPECT_EQ(solo->role(), Role::kCandidate);
  solo.sent.clear();
  return solo;
}

TEST(ElectionTest, FreshGroupIsLedByItsFirstMember) {
  SoloCore first({.self = 1});
  first.Pass(Ms(1));
  EXPECT_EQ(first->role(), Role::kCandidate);
  SoloCore second({.self = 2});
  second.Pass(Ms(190));
  EXPECT_EQ(second->role(), Role::kFollower);
  second.Pass(Ms(100));  // Not for ever, though.
  EXPECT_EQ(second->role(), Role::kCandidate);
}

TEST(ElectionTest, GroupOfOneLeadsWhenItsVoteIsDurable) {
  SoloCore solo({.members = 1});
  solo.Pass(Ms(1));
  EXPECT_EQ(solo->role(), Role::kCandidate);
  solo.Persist();
  EXPECT_EQ(solo->role(), Role::kLeader);
  EXPECT_EQ(solo->chosen(), 0u);
  solo.Persist();
  EXPECT_EQ(solo->chosen(), 1u);
  EXPECT_TRUE(solo->HoldsLease(solo.now));
}

TEST(ElectionTest, R1PrepareLeavesOnlyWhenTheOwnVoteIsDurable) {
  SoloCore solo;
  solo.Pass(Ms(1));
  EXPECT_TRUE(solo.Sent<Prepare>().empty());
  solo.Persist();
  EXPECT_EQ(solo.Sent<Prepare>().size(), 2u);
}

TEST(ElectionTest, R1OwnVoteCountsOnlyWhenDurable) {
  SoloCore solo;
  solo.Pass(Ms(1));
  solo.Receive(2, At(1, 1), Granted(At(1, 1), 1));
  EXPECT_EQ(solo->role(), Role::kCandidate);
  solo.Persist();
  EXPECT_EQ(solo->role(), Role::kLeader);
}

// Otherwise a ballot given up, then forgotten in a crash, could be led after all.
TEST(ElectionTest, R1GivingUpIsSaidOnlyWhenTheBallotIsDurable) {
  SoloCore solo;
  solo.Pass(Ms(1000));  // The log does not sync; phase 1 ends in nothing.
  EXPECT_NE(solo->role(), Role::kCandidate);
  EXPECT_TRUE(solo.Sent<HealthReply>().empty());
  EXPECT_TRUE(solo.Sent<HealthQuery>().empty());
  solo.Persist();
  EXPECT_FALSE(solo.Sent<HealthReply>().empty());
}

TEST(ElectionTest, R8OneWayLinkFollowerAsksFirst) {
  SoloCore solo({.self = 2});
  solo.SupportPeer(1);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  solo.Persist();
  solo.sent.clear();
  solo.Pass(Ms(760));  // Nothing is heard of the leader.
  EXPECT_EQ(solo->role(), Role::kAskingHealth);
  EXPECT_EQ(solo.Sent<HealthQuery>().size(), 2u);
  solo.Receive(3, At(1, 1), HealthReply{.healthy = true});
  EXPECT_EQ(solo->role(), Role::kFollower);
  EXPECT_EQ(solo->promised(), At(1, 1));
  EXPECT_TRUE(solo.Saw(Kind::kLeaderHealthy));
}

TEST(ElectionTest, R8LeaderThatNobodyFindsHealthyIsReplaced) {
  SoloCore solo({.self = 2});
  solo.SupportPeer(1);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  solo.Persist();
  solo.Pass(Ms(760));
  solo.Receive(3, At(1, 1), HealthReply{.healthy = false});
  EXPECT_EQ(solo->role(), Role::kCandidate);
  EXPECT_EQ(solo->promised(), At(2, 2));
}

TEST(ElectionTest, MemberThatIsCutOffRaisesNoBallot) {
  SoloCore solo({.self = 2, .recovered = {.promised = At(3, 1)}});
  solo.Pass(std::chrono::seconds(60));
  EXPECT_EQ(solo->promised(), At(3, 1));
  EXPECT_LT(solo.Sent<HealthQuery>().size(), 250u);  // It asks, and seldom.
}

TEST(ElectionTest, HealthAnswersSlowerThanTheTimeoutCount) {
  SoloCore solo({.self = 2, .recovered = {.promised = At(3, 1)}});
  solo.Pass(Ms(450));
  ASSERT_EQ(solo->role(), Role::kAskingHealth);
  solo.Receive(3, At(3, 1), HealthReply{});
  EXPECT_EQ(solo->role(), Role::kCandidate);
}

// Its disk hangs, so that it asks for no support; its process lives, and says that it leads.
TEST(ElectionTest, R8ALeaderThatIsNotSupportedTalksInVain) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  solo.Persist();
  solo.SupportPeer(1);
  solo.Pass(Ms(800));  // The support runs out.
  ASSERT_EQ(solo->role(), Role::kAskingHealth);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  solo.Receive(1, At(1, 1), HealthReply{.healthy = false});
  EXPECT_EQ(solo->role(), Role::kAskingHealth);
  solo.Receive(3, At(1, 1), HealthReply{.healthy = false});
  EXPECT_TRUE(solo.Saw(Kind::kElectionStarted));
}

TEST(ElectionTest, R8HealthIsAskedOfWhoeverLeadsNow) {
  SoloCore solo({.self = 2});
  solo.SupportPeer(3);
  solo.Receive(3, At(4, 3), Accept{.first_slot = 1});
  solo.Receive(1, At(2, 1), HealthQuery{});  // It has not heard of leader 3 yet.
  EXPECT_TRUE(solo.Sent<HealthReply>().back().second.healthy);
  solo.Receive(1, At(5, 1), HealthQuery{});  // It can not follow leader 3.
  EXPECT_FALSE(solo.Sent<HealthReply>().back().second.healthy);
}

TEST(ElectionTest, R8LeaderOfUnchosenEntriesIsNotHealthy) {
  SoloCore solo({.self = 2});
  solo.SupportPeer(1);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1, .entries = {Value("a")}});
  for (int i = 0; i < 11; ++i) {
    solo.SupportPeer(1);
    solo.Pass(Ms(100));
  }
  solo.Receive(3, At(1, 1), HealthQuery{});
  EXPECT_FALSE(solo.Sent<HealthReply>().back().second.healthy);
}

// It restarted, or gave up: a follower that did not notice must not vouch for it.
TEST(ElectionTest, R8ProposerThatAsksAboutItsOwnBallotDoesNotLead) {
  SoloCore solo({.self = 2});
  solo.SupportPeer(1);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  solo.Receive(1, At(1, 1), HealthQuery{});
  EXPECT_FALSE(solo.Sent<HealthReply>().back().second.healthy);
  EXPECT_EQ(solo->leader(), std::nullopt);
  EXPECT_NE(solo->next_deadline(), Instant::Infinite());
  // A proposal that it sent before does not bring it back.
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  EXPECT_EQ(solo->leader(), std::nullopt);
}

TEST(ElectionTest, OwnerOfABallotSaysThatItWasGivenUp) {
  SoloCore solo({.recovered = {.promised = At(5, 1)}});
  solo.Receive(2, At(5, 1), HealthQuery{});
  EXPECT_TRUE(solo.Sent<HealthReply>().back().second.abandoned);
  SoloCore candidate = Candidate({});
  candidate.Receive(2, candidate->promised(), HealthQuery{});
  EXPECT_FALSE(candidate.Sent<HealthReply>().back().second.abandoned);
}

TEST(ElectionTest, ValueOfTheHighestBallotIsProposedAgain) {
  SoloCore solo =
      Candidate({.entries = {{1, At(2, 2), Value("old")}, {2, At(4, 1), Value("own")}}});
  Promise promise = Granted(solo->promised(), 1);
  promise.entries = {
      {1, At(3, 3), Value("new")}, {2, At(3, 3), Value("other")}, {4, At(1, 2), Value("late")}};
  solo.Receive(2, solo->promised(), promise);
  ASSERT_EQ(solo->role(), Role::kLeader);
  solo.AcceptedBy(2, 5);
  solo.Persist();
  ASSERT_EQ(solo->chosen(), 5u);
  EXPECT_EQ(*solo->ChosenEntry(1), "new");
  EXPECT_EQ(*solo->ChosenEntry(2), "own");
  EXPECT_EQ(*solo->ChosenEntry(3), "");  // Nobody accepted anything there.
  EXPECT_EQ(*solo->ChosenEntry(4), "late");
  EXPECT_EQ(*solo->ChosenEntry(5), "");  // The no-op of this ballot.
}

TEST(ElectionTest, R4UnknownCountsTowardNoQuorum) {
  SoloCore solo = Candidate({});
  Promise promise = Granted(solo->promised(), 1);
  promise.unknown = {{1, At(4, 2)}};
  solo.Receive(2, solo->promised(), promise);
  EXPECT_EQ(solo->role(), Role::kCandidate);  // Replica 3 may hold what was chosen.
  Promise third = Granted(solo->promised(), 1);
  third.entries = {{1, At(4, 2), Value("chosen")}};
  solo.Receive(3, solo->promised(), third);
  ASSERT_EQ(solo->role(), Role::kLeader);
  solo.AcceptedBy(3, 2);
  solo.Persist();
  EXPECT_EQ(*solo->ChosenEntry(1), "chosen");
}

TEST(ElectionTest, R4UnknownBelowAReadableBallotDoesNotMatter) {
  SoloCore solo = Candidate({});
  Promise promise = Granted(solo->promised(), 1);
  promise.unknown = {{1, At(3, 2)}};
  promise.entries = {{1, At(4, 3), Value("newer")}};
  solo.Receive(2, solo->promised(), promise);
  EXPECT_EQ(solo->role(), Role::kLeader);
}

TEST(ElectionTest, R4WhatNobodyCanReadWasNeverAcknowledged) {
  SoloCore solo = Candidate({.unknown = {{1, At(4, 2)}}});
  Promise promise = Granted(solo->promised(), 1);
  promise.unknown = {{1, At(4, 2)}};
  solo.Receive(2, solo->promised(), promise);
  EXPECT_EQ(solo->role(), Role::kCandidate);
  solo.Receive(3, solo->promised(), Granted(solo->promised(), 1));
  EXPECT_EQ(solo->role(), Role::kLeader);
  EXPECT_TRUE(solo.Saw(Kind::kUnknownDecidedEmpty));
}

TEST(ElectionTest, R4WhatIsKnownToBeChosenIsNeverDecidedEmpty) {
  SoloCore solo({.members = 1,
                 .recovered = {.promised = At(5, 1),
                               .chosen = 2,
                               .entries = {{2, At(5, 1), Value("b")}},
                               .unknown = {{1, At(5, 1)}}}});
  for (int i = 0; i < 20; ++i) {
    solo.Pass(Ms(100));
    solo.Persist();
  }
  EXPECT_NE(solo->role(), Role::kLeader);
  EXPECT_FALSE(solo.Saw(Kind::kUnknownDecidedEmpty));
}

TEST(ElectionTest, PromiseInPartsIsAskedForToItsEnd) {
  SoloCore solo = Candidate({});
  Promise part = Granted(solo->promised(), 1);
  part.entries = {{1, At(2, 2), Value("a")}};
  part.through = 1;
  solo.Receive(2, solo->promised(), part);
  EXPECT_EQ(solo->role(), Role::kCandidate);
  EXPECT_EQ(solo.Sent<Prepare>().back().second.from_slot, 2u);
  solo.Receive(2, solo->promised(), part);  // Repeated: not an answer to what was asked.
  EXPECT_EQ(solo->role(), Role::kCandidate);
  Promise rest = Granted(solo->promised(), 2);
  rest.entries = {{2, At(2, 2), Value("b")}};
  solo.Receive(2, solo->promised(), rest);
  EXPECT_EQ(solo->role(), Role::kLeader);
  EXPECT_EQ(solo->last_slot(), 3u);
}

// Each slot up to the last costs an entry, and a slot is quickly said.
TEST(ElectionTest, SlotsThatNoLogCanHoldAreIgnored) {
  const uint64_t window = 4 * GroupOptions().peer_window_entries_max;
  for (const Slot beyond : {3 + window, Slot{1} << 60, Slot{UINT64_MAX}}) {
    SoloCore solo = Candidate({});
    Promise promise = Granted(solo->promised(), 1);
    promise.entries = {{1, At(2, 2), Value("a")}, {beyond, At(2, 2), Value("z")}};
    promise.unknown = {{2, At(2, 2)}, {beyond, At(3, 2)}};
    solo.Receive(2, solo->promised(), promise);
    solo.Receive(3, solo->promised(), Granted(solo->promised(), 1));
    ASSERT_EQ(solo->role(), Role::kLeader);
    EXPECT_EQ(solo->last_slot(), 3u);  // Its no-op.
    EXPECT_TRUE(solo.Saw(Kind::kSlotsIgnored));
  }
}

TEST(ElectionTest, SlotsWithinTheWindowCountWhateverLiesBefore) {
  const uint64_t window = 4 * GroupOptions().peer_window_entries_max;
  SoloCore solo = Candidate({});
  Promise promise = Granted(solo->promised(), 1);
  promise.entries = {{2 + window, At(2, 2), Value("z")}};
  promise.unknown = {{1, At(2, 2)}, {2, At(2, 2)}};
  solo.Receive(2, solo->promised(), promise);
  solo.Receive(3, solo->promised(), Granted(solo->promised(), 1));
  ASSERT_EQ(solo->role(), Role::kLeader);
  EXPECT_EQ(solo->last_slot(), 3 + window);
  EXPECT_FALSE(solo.Saw(Kind::kSlotsIgnored));
}

TEST(ElectionTest, AnswersToAnEarlierCandidacyAreIgnored) {
  SoloCore solo = Candidate({});
  solo.Receive(2, At(4, 1), Granted(At(4, 1), 1));
  solo.Receive(3, At(5, 1), Granted(At(5, 1), 1));
  EXPECT_EQ(solo->role(), Role::kCandidate);
}

TEST(ElectionTest, HigherBallotEndsTheCandidacy) {
  SoloCore solo = Candidate({});
  const Ballot mine = solo->promised();
  solo.Receive(2, mine, Promise{.granted = false, .promised = At(20, 3)});
  EXPECT_EQ(solo->role(), Role::kFollower);
  auto given_up = solo.Sent<HealthReply>();
  ASSERT_EQ(given_up.size(), 2u);
  EXPECT_TRUE(given_up[0].second.abandoned);
}

TEST(ElectionTest, CandidateThatPromisesAnotherGivesUpItsOwnBallot) {
  SoloCore solo = Candidate({});
  solo.Receive(3, At(20, 3), Prepare{.from_slot = 1});
  solo.Persist();
  EXPECT_EQ(solo.Sent<HealthReply>().size(), 2u);
  EXPECT_EQ(solo.Sent<Promise>().size(), 1u);
}

TEST(ElectionTest, MemberThatLacksDroppedLogDoesNotLead) {
  SoloCore solo = Candidate({});
  Promise promise = Granted(solo->promised(), 1);
  promise.released = 7;
  solo.Receive(2, solo->promised(), promise);
  EXPECT_TRUE(solo.Saw(Kind::kTooFarBehind));
  EXPECT_EQ(solo->role(), Role::kFollower);
  const Ballot mine = solo->promised();
  solo.Receive(3, At(30, 3), Prepare{.from_slot = 1});
  solo.Persist();
  solo.Receive(3, At(30, 3), HealthReply{.abandoned = true});
  solo.Pass(Ms(1000));  // However others fare, it leaves the field to them for a while.
  EXPECT_EQ(solo->promised(), At(30, 3));
  EXPECT_LT(mine, At(30, 3));
}

TEST(ElectionTest, R6LeaseThatAnAcceptorStillOwesIsWaitedFor) {
  SoloCore solo = Candidate({});
  solo.Receive(3, solo->promised(),
               Promise{.granted = false, .promised = At(2, 2), .lease_remaining = Ms(400)});
  solo.Receive(2, solo->promised(), Granted(solo->promised(), 1));
  ASSERT_EQ(solo->role(), Role::kLeader);
  solo.GrantedBy(2, Epoch(1, 1));
  solo.Pass(Ms(399));
  solo.GrantedBy(2, Epoch(1, 1));
  EXPECT_FALSE(solo->HoldsLease(solo.now));
  solo.Pass(Ms(10));
  EXPECT_TRUE(solo->HoldsLease(solo.now));
}

TEST(ElectionTest, R6NoClaimOfALeaseIsWaitedForLongerThanAnyGrant) {
  SoloCore solo = Candidate({});
  solo.Receive(3, solo->promised(),
               Promise{.granted = false, .promised = At(2, 2), .lease_remaining = Duration::max()});
  solo.Receive(2, solo->promised(), Granted(solo->promised(), 1));
  ASSERT_EQ(solo->role(), Role::kLeader);
  solo.Pass(std::chrono::minutes(3));
  solo.GrantedBy(2, Epoch(1, 1));
  EXPECT_TRUE(solo->HoldsLease(solo.now));
}

TEST(ElectionTest, R5NoElectionWhileThisNodeSupportsTheLeader) {
  SoloCore solo({.self = 2, .recovered = {.promised = At(3, 1)}});
  solo.SupportPeer(1);
  solo.Pass(Ms(60));
  solo.Receive(3, At(3, 1), HealthReply{});
  solo.Receive(1, At(3, 1), HealthReply{});
  EXPECT_EQ(solo->promised(), At(3, 1));
  solo.Pass(Ms(1500));
  solo.Receive(3, At(3, 1), HealthReply{});
  solo.Pass(Ms(60));
  EXPECT_EQ(solo->role(), Role::kCandidate);
}

TEST(ElectionTest, RestartOfTheLeadersNodeIsNoticed) {
  SoloCore solo({.self = 2});
  solo.SupportPeer(1);
  solo.Receive(1, At(1, 1), Accept{.first_slot = 1});
  ASSERT_EQ(solo->next_deadline(), Instant::Infinite());
  solo.SupportPeer(1, /*peer_boot=*/2);
  EXPECT_EQ(solo->leader(), std::nullopt);
  EXPECT_LE(solo->next_deadline(), solo.now + Ms(50));
}

}  // namespace
}  // namespace dynlib::replication
