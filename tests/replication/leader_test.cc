// What a leader proposes, counts, resends, and when it holds its lease.
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/replication/solo_core.h"

namespace dynlib::replication {
namespace {

using Kind = GroupCore::Event::Kind;

SoloCore Leader(GroupOptions options = {}) {
  SoloCore solo({.options = options});
  solo.Lead();
  EXPECT_EQ(solo->role(), Role::kLeader);
  return solo;
}

Slot MustPropose(SoloCore& solo, std::string text) {
  auto slot = solo->Propose(Value(std::move(text)), solo.now);
  EXPECT_TRUE(slot.ok());
  solo.Pass(Duration(0));
  return *slot;
}

TEST(LeaderTest, R1OwnCopyCountsOnlyWhenDurable) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  solo.AcceptedBy(2, 2);
  EXPECT_EQ(solo->chosen(), 0u);
  solo.Persist();
  EXPECT_EQ(solo->chosen(), 2u);
}

TEST(LeaderTest, QuorumOfOthersChooses) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  solo.AcceptedBy(2, 2);
  solo.AcceptedBy(3, 2);
  EXPECT_EQ(solo->chosen(), 2u);  // While the own log is slow.
}

TEST(LeaderTest, AnswersOutOfOrderAndRepeatedCountOnce) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  MustPropose(solo, "b");
  solo.Persist();
  solo.AcceptedBy(2, 3);
  solo.AcceptedBy(2, 1);
  solo.AcceptedBy(2, 3);
  EXPECT_EQ(solo->chosen(), 3u);
}

TEST(LeaderTest, PeerThatClaimsMoreThanWasProposedCountsForNoMore) {
  SoloCore solo = Leader();
  solo.AcceptedBy(2, 1'000'000);
  solo.Persist();
  EXPECT_EQ(solo->chosen(), 1u);
  const Slot slot = MustPropose(solo, "a");
  solo.Persist();
  EXPECT_EQ(solo->chosen(), slot - 1);
}

TEST(LeaderTest, R4AnswersOfAPeersEarlierBootAreIgnored) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  solo.Persist();
  solo.AcceptedBy(2, 0, Epoch(2, 1));  // Restarted, with less than it had.
  solo.sent.clear();
  solo.AcceptedBy(2, 2, Epoch(1, 1));  // Said before that.
  EXPECT_EQ(solo->chosen(), 0u);
  solo.SupportPeer(3, /*peer_boot=*/5);
  solo.AcceptedBy(3, 2, Epoch(4, 1));
  EXPECT_EQ(solo->chosen(), 0u);
  solo.AcceptedBy(3, 2, Epoch(5, 1));
  EXPECT_EQ(solo->chosen(), 2u);
}

TEST(LeaderTest, LaggingPeerIsSentWhatItMisses) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  MustPropose(solo, "b");
  solo.AcceptedBy(2, 3);
  solo.Persist();
  ASSERT_EQ(solo->chosen(), 3u);
  solo.sent.clear();
  solo.AcceptedBy(3, 1);  // Never heard of before, and has one slot.
  auto sent = solo.Sent<Accept>();
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent.back().first, 3u);
  EXPECT_EQ(sent.back().second.first_slot, 2u);
  EXPECT_EQ(sent.back().second.entries.size(), 2u);
  EXPECT_EQ(sent.back().second.chosen, 3u);
}

TEST(LeaderTest, LostProposalIsSentAgain) {
  SoloCore solo = Leader();
  solo.SupportPeer(2);
  solo.SupportPeer(3);
  solo.Persist();
  solo.sent.clear();
  solo.Pass(Ms(120));
  EXPECT_FALSE(solo.Sent<Accept>().empty());  // "Where do you stand?"
  solo.AcceptedBy(2, 0);
  auto sent = solo.Sent<Accept>();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].second.first_slot, 1u);
  EXPECT_EQ(sent[0].second.entries.size(), 1u);
}

TEST(LeaderTest, WindowBoundsWhatIsInFlight) {
  SoloCore solo = Leader({.peer_window_entries_max = 4});
  for (int i = 0; i < 10; ++i) MustPropose(solo, "x");
  size_t entries = 0;
  for (const auto& [to, accept] : solo.Sent<Accept>())
    entries += to == 2 ? accept.entries.size() : 0;
  EXPECT_EQ(entries, 4u);
  solo.AcceptedBy(2, 2);
  entries = 0;
  for (const auto& [to, accept] : solo.Sent<Accept>())
    entries += to == 2 ? accept.entries.size() : 0;
  EXPECT_EQ(entries, 2u);
}

TEST(LeaderTest, WindowBoundsBytesInFlight) {
  SoloCore solo = Leader({.peer_window_bytes_max = 100, .message_bytes_max = 50});
  for (int i = 0; i < 20; ++i) MustPropose(solo, std::string(20, 'x'));
  size_t bytes = 0;
  for (const auto& [to, accept] : solo.Sent<Accept>()) {
    size_t in_message = 0;
    for (const Payload& payload : accept.entries) in_message += payload->size();
    EXPECT_LE(in_message, 50u);
    if (to == 2) bytes += in_message;
  }
  EXPECT_GE(bytes, 100u);
  EXPECT_LT(bytes, 100u + 50u);
}

TEST(LeaderTest, TooMuchUnchosenIsRefused) {
  SoloCore solo = Leader({.proposal_bytes_max = 100, .unchosen_bytes_max = 250});
  MustPropose(solo, std::string(100, 'a'));
  MustPropose(solo, std::string(100, 'b'));
  EXPECT_EQ(solo->Propose(Value(std::string(100, 'c')), solo.now).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(solo->Propose(Value(std::string(101, 'c')), solo.now).status().code(),
            absl::StatusCode::kInvalidArgument);
  solo.Persist();
  solo.AcceptedBy(2, 3);
  MustPropose(solo, std::string(100, 'c'));
}

TEST(LeaderTest, FollowerRefusesProposals) {
  SoloCore solo({.self = 2});
  EXPECT_EQ(solo->Propose(Value("a"), solo.now).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(LeaderTest, HigherBallotDeposes) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  solo.Receive(2, At(1, 1), Accepted{.granted = false, .promised = At(9, 3)});
  EXPECT_EQ(solo->role(), Role::kFollower);
  EXPECT_TRUE(solo.deposed);
  EXPECT_NE(solo->next_deadline(), Instant::Infinite());
}

TEST(LeaderTest, R5LeaderThatHoldsItsLeaseDoesNotHelpDeposeItself) {
  SoloCore solo = Leader();
  solo.GrantedBy(2, Epoch(1, 1));
  ASSERT_TRUE(solo->HoldsLease(solo.now));
  solo.Receive(3, At(9, 3), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->role(), Role::kLeader);
  solo.Pass(Ms(700));
  solo.Receive(3, At(9, 3), Prepare{.from_slot = 1});
  EXPECT_EQ(solo->role(), Role::kFollower);
}

TEST(LeaderTest, R5LeaseNeedsTheRecordedEpochs) {
  SoloCore solo = Leader();
  EXPECT_FALSE(solo->HoldsLease(solo.now));
  solo.GrantedBy(2, Epoch(1, 2));  // Not the epoch named with the promise: it ended in between.
  EXPECT_FALSE(solo->HoldsLease(solo.now));
  solo.Pass(Duration(0));  // Support that began anew is asked after at once, at that peer.
  solo.sent.clear();
  solo->RenewLease(solo.now);
  solo.Pass(Duration(0));
  EXPECT_EQ(solo.Sent<Accept>().size(), 2u);
  solo.AcceptedBy(2, 0, Epoch(1, 2));  // It still stands by this ballot, in its new epoch.
  EXPECT_TRUE(solo->HoldsLease(solo.now));
  solo.AcceptedBy(2, 0, Epoch(1, 1));  // An older answer changes nothing.
  EXPECT_TRUE(solo->HoldsLease(solo.now));
}

TEST(LeaderTest, R5LeaseEndsBeforeTheGrantDoes) {
  SoloCore solo = Leader();
  solo.GrantedBy(2, Epoch(1, 1));
  solo.Pass(Ms(593));
  EXPECT_TRUE(solo->HoldsLease(solo.now));
  solo.Pass(Ms(2));  // 600 ms less one percent of drift.
  EXPECT_FALSE(solo->HoldsLease(solo.now));
}

TEST(LeaderTest, R7ReadPointCoversThisBallotsNoOpAndWhatIsChosen) {
  SoloCore solo = Leader();
  EXPECT_EQ(solo->read_point(), 1u);  // Not yet chosen: reads wait for it.
  EXPECT_EQ(solo->chosen(), 0u);
  MustPropose(solo, "a");
  solo.Persist();
  solo.AcceptedBy(2, 2);
  EXPECT_EQ(solo->read_point(), 2u);
}

TEST(LeaderTest, R7AQuorumThatConfirmsTheBallotStandsInForTheLease) {
  SoloCore solo = Leader();
  MustPropose(solo, "a");
  solo.Persist();
  solo.AcceptedBy(2, 2);
  solo.Sent<ConfirmQuery>();
  EXPECT_FALSE(solo->HoldsLease(solo.now));
  const uint64_t round = solo->AskForConfirmation(solo.now);
  ASSERT_NE(round, 0u);
  solo.Pass(Duration(0));
  auto asked = solo.Sent<ConfirmQuery>();
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[0].second.round, round);
  EXPECT_FALSE(solo->Confirmed(round));
  solo.Receive(9, solo->promised(), ConfirmReply{.round = round});  // A stranger.
  solo.Receive(2, At(7, 1), ConfirmReply{.round = round});          // Of another ballot.
  EXPECT_FALSE(solo->Confirmed(round));
  solo.Receive(3, solo->promised(), ConfirmReply{.round = round});
  EXPECT_TRUE(solo->Confirmed(round));
  EXPECT_EQ(solo->read_point(), 2u);
}

TEST(LeaderTest, R7ALeaderThatWasDeposedConfirmsNothing) {
  SoloCore solo = Leader();
  const uint64_t round = solo->AskForConfirmation(solo.now);
  solo.Receive(2, solo->promised(), Accepted{.granted = false, .promised = At(5, 2)});
  EXPECT_EQ(solo->role(), Role::kFollower);
  solo.Receive(3, At(1, 1), ConfirmReply{.round = round});
  EXPECT_FALSE(solo->Confirmed(round));
  EXPECT_EQ(solo->AskForConfirmation(solo.now), 0u);
}

TEST(LeaderTest, R7AMemberConfirmsItsHighestBallotAlone) {
  SoloCore solo({.self = 2});
  solo.Receive(1, At(3, 1), Accept{.first_slot = 1});
  solo.Persist();
  solo.Sent<Accepted>();
  solo.Receive(1, At(3, 1), ConfirmQuery{.round = 8});
  auto confirmed = solo.Sent<ConfirmReply>();
  ASSERT_EQ(confirmed.size(), 1u);
  EXPECT_EQ(confirmed[0].second.round, 8u);
  solo.Receive(3, At(2, 3), ConfirmQuery{.round = 9});  // It hears that it leads no more.
  auto refused = solo.Sent<Accepted>();
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_FALSE(refused[0].second.granted);
  EXPECT_EQ(refused[0].second.promised, At(3, 1));
  solo.Receive(3, At(4, 3), ConfirmQuery{.round = 9});  // Not heard of yet.
  solo.Receive(3, At(3, 1), ConfirmQuery{.round = 9});  // Not its own.
  EXPECT_TRUE(solo.Sent<ConfirmReply>().empty());
}

TEST(LeaderTest, R8LeaderWhoseLogHangsIsNotHealthy) {
  SoloCore solo = Leader();
  solo.Persist();
  solo.AcceptedBy(2, 1);
  solo.GrantedBy(2, Epoch(1, 1));
  solo.Receive(3, At(1, 1), HealthQuery{});
  EXPECT_TRUE(solo.Sent<HealthReply>().back().second.healthy);
  solo.liveness.SetLogHealthy(false);
  solo.Receive(3, At(1, 1), HealthQuery{});
  EXPECT_FALSE(solo.Sent<HealthReply>().back().second.healthy);
}

TEST(LeaderTest, R8LeaderWithoutSupportOfAQuorumIsNotHealthy) {
  SoloCore solo = Leader();
  solo.Persist();
  solo.AcceptedBy(2, 1);
  solo.Receive(3, At(1, 1), HealthQuery{});
  EXPECT_FALSE(solo.Sent<HealthReply>().back().second.healthy);
}

TEST(LeaderTest, WhoeverAsksAboutTheLeaderIsShownThatItLeads) {
  SoloCore solo = Leader();
  solo.sent.clear();
  solo.Receive(3, At(0, 2), HealthQuery{});
  auto probes = solo.Sent<Accept>();
  ASSERT_FALSE(probes.empty());
  EXPECT_EQ(probes[0].first, 3u);
}

TEST(LeaderTest, DeadPeerIsLeftAloneUntilItIsHeard) {
  SoloCore solo = Leader();
  solo.SupportPeer(2);
  solo.Persist();
  for (int i = 0; i < 30; ++i) {
    solo.SupportPeer(2);
    solo.Receive(2, At(1, 1),
                 Accepted{.granted = true,
                          .promised = At(1, 1),
                          .stable = 1,
                          .chosen = solo->chosen(),
                          .support_epoch = Epoch(1, 1)});
    solo.Pass(Ms(100));
  }
  EXPECT_EQ(solo->chosen(), 1u);
  EXPECT_EQ(solo->next_deadline(), Instant::Infinite());
  solo.sent.clear();
  solo.SupportPeer(3);  // It is back.
  solo.Pass(Ms(1));
  auto probes = solo.Sent<Accept>();
  ASSERT_FALSE(probes.empty());
  EXPECT_EQ(probes[0].first, 3u);
}

TEST(LeaderTest, PeerThatNeedsReleasedSlotsIsReported) {
  SoloCore solo = Leader({.retained_bytes_max = 0});
  solo.Persist();
  MustPropose(solo, "a");
  solo.Persist();
  solo.AcceptedBy(2, 2);
  ASSERT_EQ(solo->chosen(), 2u);
  solo->SetCheckpoint(2, solo.now);
  EXPECT_EQ(solo->released(), 2u);
  solo.AcceptedBy(3, 0);
  EXPECT_TRUE(solo.Saw(Kind::kTooFarBehind));
}

// That it holds the slots durably in its log is not enough: a frame may be damaged later.
TEST(LeaderTest, LogIsKeptUntilItIsInTheTreesOfAllMembers) {
  SoloCore solo = Leader();
  solo.Persist();
  MustPropose(solo, "a");
  solo.Persist();
  solo.AcceptedBy(2, 2);
  solo.AcceptedBy(3, 2);
  solo->SetCheckpoint(2, solo.now);
  EXPECT_EQ(solo->released(), 0u);
  Accepted answer{.granted = true,
                  .promised = At(1, 1),
                  .stable = 2,
                  .chosen = 2,
                  .support_epoch = Epoch(1, 1),
                  .checkpoint = 2};
  solo.Receive(2, At(1, 1), answer);
  EXPECT_EQ(solo->released(), 0u);
  answer.checkpoint = 1;
  solo.Receive(3, At(1, 1), answer);
  EXPECT_EQ(solo->released(), 1u);
}

TEST(LeaderTest, LeaderWhoseStateMachineFailedHandsOver) {
  SoloCore solo = Leader();
  solo.Persist();
  solo.sent.clear();
  solo->SetMayLead(false, solo.now);
  solo.Pass(Duration(0));
  EXPECT_EQ(solo->role(), Role::kFollower);
  auto said = solo.Sent<HealthReply>();
  ASSERT_EQ(said.size(), 2u);
  EXPECT_TRUE(said[0].second.abandoned);
  solo.Pass(Ms(1500));  // Said again, since words get lost.
  EXPECT_GE(solo.Sent<HealthReply>().size(), 2u);
  EXPECT_EQ(solo->promised(), At(1, 1));
}

}  // namespace
}  // namespace dynlib::replication
