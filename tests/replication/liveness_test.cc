// Support between two nodes: granted, kept, ended; never outlived by its holder.
#include "dynlib/replication/liveness.h"

#include <utility>

#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

using Kind = Liveness::Event::Kind;
using std::chrono::milliseconds;

constexpr NodeId kA{1};
constexpr NodeId kB{2};

Instant At(int64_t ms) { return Instant::FromNanos(1'000'000'000 + ms * 1'000'000); }

// A and B, and a link that carries each message at once unless it is cut.
struct Pair {
  explicit Pair(LivenessOptions options = {}, Duration boot_wait = Duration(0))
      : a(options, 1, Duration(0), At(0)), b(options, 1, boot_wait, At(0)) {
    a.AddPeer(kB, At(0));
    b.AddPeer(kA, At(0));
  }
  void Tick(int64_t ms) {
    a.Tick(At(ms));
    b.Tick(At(ms));
    for (bool busy = true; busy;) {
      busy = Carry(kA, a, kB, b, a_to_b, ms);
      busy |= Carry(kB, b, kA, a, b_to_a, ms);
    }
  }
  void Run(int64_t from_ms, int64_t to_ms) {
    for (int64_t ms = from_ms; ms <= to_ms; ms += 100) Tick(ms);
  }
  bool Carry(NodeId from, Liveness& source, NodeId, Liveness& target, bool open, int64_t ms) {
    Liveness::Effects effects = source.TakeEffects();
    auto& events = from == kA ? a_events : b_events;
    for (const Liveness::Event& event : effects.events) events.push_back(event.kind);
    for (auto& [to, message] : effects.messages) {
      if (open) target.Step(from, message, At(ms));
    }
    return !effects.messages.empty();
  }
  bool AHolds(int64_t ms) const { return a.SupportedUntil(kB, b.EpochFor(kA)) > At(ms); }

  Liveness a, b;
  bool a_to_b = true, b_to_a = true;
  std::vector<Kind> a_events, b_events;
};

TEST(LivenessTest, NodesThatHearEachOtherSupportEachOther) {
  Pair pair;
  pair.Run(0, 300);
  EXPECT_TRUE(pair.b.Supports(kA, At(300)));
  EXPECT_TRUE(pair.AHolds(300));
  EXPECT_TRUE(pair.a.SupportedBy(kB, At(300)));
  EXPECT_EQ(pair.b_events, (std::vector<Kind>{Kind::kPeerHeard, Kind::kPeerSupports}));
}

TEST(LivenessTest, SupportLapsesAndEndsItsEpoch) {
  Pair pair;
  pair.Run(0, 300);
  const uint64_t epoch = pair.b.EpochFor(kA);
  EXPECT_FALSE(pair.b.EndSupport(kA, At(400)));
  pair.a_to_b = false;
  pair.Run(400, 1000);
  EXPECT_FALSE(pair.b.Supports(kA, At(1000)));
  EXPECT_GT(pair.b.EpochFor(kA), epoch);
  EXPECT_EQ(pair.b_events,
            (std::vector<Kind>{Kind::kPeerHeard, Kind::kPeerSupports, Kind::kPeerLost}));
  pair.a_to_b = true;
  pair.Run(1100, 1300);
  EXPECT_EQ(pair.a.SupportedUntil(kB, epoch), Instant());  // The old epoch stays over.
  EXPECT_TRUE(pair.AHolds(1300));
}

TEST(LivenessTest, R5HolderStopsBeforeTheGrantor) {
  for (int64_t drift : {0, 10'000, 200'000}) {
    Pair pair({.drift_ppm = drift});
    pair.Run(0, 300);
    const Instant held = pair.a.SupportedUntil(kB, pair.b.EpochFor(kA));
    const Duration owed = pair.b.SupportRemaining(kA, At(300));
    // The slowest holder's clock, the fastest grantor's: in true time the holder is no later.
    const double holder_true = static_cast<double>((held - At(300)).count()) / (1 - drift / 1e6);
    const double grantor_true = static_cast<double>(owed.count()) / (1 + drift / 1e6);
    EXPECT_LE(holder_true, grantor_true + 2);
  }
}

TEST(LivenessTest, R5HolderCountsFromWhenItAsked) {
  Liveness a({.drift_ppm = 0}, 1, Duration(0), At(0));
  a.AddPeer(kB, At(0));
  a.Step(kB,
         {SupportGrant{.incarnation = 1,
                       .holder_incarnation = 1,
                       .request_sent_at = At(0).nanos(),
                       .epoch = 7,
                       .duration = milliseconds(600)}},
         At(500));  // The answer took half a second.
  EXPECT_EQ(a.SupportedUntil(kB, 7), At(600));
}

TEST(LivenessTest, R5OlderAndForeignGrantsChangeNothing) {
  Liveness a({.drift_ppm = 0}, 2, Duration(0), At(0));
  a.AddPeer(kB, At(0));
  SupportGrant grant{.incarnation = 3,
                     .holder_incarnation = 2,
                     .request_sent_at = At(0).nanos(),
                     .epoch = 9,
                     .duration = milliseconds(600)};
  a.Step(kB, {grant}, At(1));
  SupportGrant older_epoch = grant;
  older_epoch.epoch = 8;
  a.Step(kB, {older_epoch}, At(2));
  SupportGrant earlier_boot_of_ours = grant;
  earlier_boot_of_ours.holder_incarnation = 1;
  earlier_boot_of_ours.epoch = 10;
  a.Step(kB, {earlier_boot_of_ours}, At(3));
  SupportGrant earlier_boot_of_theirs = grant;
  earlier_boot_of_theirs.incarnation = 2;
  earlier_boot_of_theirs.epoch = 11;
  a.Step(kB, {earlier_boot_of_theirs}, At(4));
  SupportGrant from_the_future = grant;
  from_the_future.request_sent_at = At(10'000).nanos();
  a.Step(kB, {from_the_future}, At(5));
  EXPECT_EQ(a.SupportedUntil(kB, 9), At(600));
}

TEST(LivenessTest, R5RestartedNodeGrantsNothingUntilTheBootWaitIsOver) {
  Pair pair({}, milliseconds(600));
  pair.Run(0, 600);
  EXPECT_FALSE(pair.a.SupportedBy(kB, At(600)));
  EXPECT_FALSE(pair.b.EndSupport(kA, At(600)));
  EXPECT_GT(pair.b.SupportRemaining(kA, At(600)), Duration(0));  // To whom it may concern.
  pair.Run(700, 900);
  EXPECT_TRUE(pair.AHolds(900));
}

TEST(LivenessTest, R5EpochsOfALaterBootAreLater) {
  Liveness first({}, 1, Duration(0), At(0));
  Liveness second({}, 2, Duration(0), At(0));
  first.AddPeer(kA, At(0));
  second.AddPeer(kA, At(0));
  for (int i = 0; i < 1000; ++i) first.EndSupport(kA, At(0));
  EXPECT_LT(first.EpochFor(kA), second.EpochFor(kA));
  EXPECT_EQ(Liveness::EpochIncarnation(first.EpochFor(kA)), 1u);
}

TEST(LivenessTest, R5EveryPromiseEndsTheEpochThatMayHaveBeenNamed) {
  Pair pair;
  const uint64_t named = pair.b.EpochFor(kA);
  EXPECT_TRUE(pair.b.EndSupport(kA, At(0)));
  EXPECT_GT(pair.b.EpochFor(kA), named);
}

TEST(LivenessTest, R8PeerThatDoesNotHearUsIsNotSupported) {
  Pair pair;
  pair.Run(0, 300);
  pair.b_to_a = false;  // A still speaks, and hears nothing.
  pair.Run(400, 2000);
  EXPECT_FALSE(pair.b.Supports(kA, At(2000)));
  EXPECT_TRUE(pair.b.Hears(kA, At(2000)));
}

TEST(LivenessTest, R8NodeWhoseLogIsOverdueAsksForNoSupport) {
  Pair pair;
  pair.Run(0, 300);
  pair.a.SetLogHealthy(false);
  pair.Run(400, 1200);
  EXPECT_FALSE(pair.a.SupportedBy(kB, At(1200)));
  EXPECT_FALSE(pair.b.Supports(kA, At(1200)));
  pair.a.SetLogHealthy(true);
  pair.Run(1300, 1600);
  EXPECT_TRUE(pair.AHolds(1600));
}

// The exchanges of a node whose peer's clock is faster by a tenth, with a declared bound of 1 %.
TEST(LivenessTest, R5NoLeaseByAClockThatIsSeenToBeTooFast) {
  for (const bool compare : {true, false}) {
    Liveness a({.compare_clocks = compare}, 1, Duration(0), At(0));
    a.AddPeer(kB, At(0));
    size_t accused = 0;
    for (int64_t ms = 0; ms < 3'000; ms += 100) {
      a.Tick(At(ms));
      a.Step(kB,
             {SupportGrant{.incarnation = 1,
                           .holder_incarnation = 1,
                           .request_sent_at = At(ms).nanos(),
                           .epoch = 7,
                           .duration = milliseconds(600),
                           .granted_at = 5'000'000'000 + ms * 1'100'000}},
             At(ms + 1));
      accused += a.TakeEffects().fast_clocks.size();
      EXPECT_EQ(a.SupportedUntil(kB, 7) > At(ms + 1), !compare);
      EXPECT_TRUE(a.SupportedBy(kB, At(ms + 1)));  // It keeps the leadership, and reads by quorum.
    }
    EXPECT_EQ(accused, compare ? 1u : 0u);
  }
}

TEST(LivenessTest, RestartOfAPeerIsSeenAndEndsItsSupport) {
  Pair pair;
  pair.Run(0, 300);
  const uint64_t epoch = pair.b.EpochFor(kA);
  pair.b.Step(kA, {SupportRequest{.incarnation = 2}}, At(350));
  EXPECT_FALSE(pair.b.Supports(kA, At(350)));
  EXPECT_GT(pair.b.EpochFor(kA), epoch);
  EXPECT_EQ(pair.b.IncarnationOf(kA), 2u);
  EXPECT_EQ(pair.b.TakeEffects().events[0].kind, Kind::kPeerRestarted);
  pair.b.Step(kA, {SupportRequest{.incarnation = 1, .heard_incarnation = 1, .heard_age_us = 0}},
              At(351));  // Late, from the boot before.
  EXPECT_FALSE(pair.b.Supports(kA, At(351)));
  EXPECT_TRUE(pair.b.TakeEffects().messages.empty());
}

TEST(LivenessTest, RemovedPeersGrantIsHonoured) {
  Pair pair;
  pair.Run(0, 300);
  pair.b.RemovePeer(kA);
  EXPECT_TRUE(pair.b.Supports(kA, At(300)));
  EXPECT_FALSE(pair.b.EndSupport(kA, At(400)));
}

TEST(LivenessTest, StrangersAreIgnored) {
  Liveness a({}, 1, Duration(0), At(0));
  a.Step(NodeId{9}, {SupportRequest{.incarnation = 1, .heard_incarnation = 1, .heard_age_us = 0}},
         At(0));
  EXPECT_TRUE(a.TakeEffects().messages.empty());
  EXPECT_EQ(a.EpochFor(NodeId{9}), 0u);
}

TEST(LivenessTest, OptionsAreValidated) {
  EXPECT_TRUE(Validate(LivenessOptions{}).ok());
  EXPECT_FALSE(Validate(LivenessOptions{.interval = milliseconds(201)}).ok());
  EXPECT_FALSE(Validate(LivenessOptions{.interval = Duration(0)}).ok());
  EXPECT_FALSE(Validate(LivenessOptions{.support = milliseconds(2)}).ok());
  EXPECT_FALSE(Validate(LivenessOptions{.drift_ppm = 200'001}).ok());
}

}  // namespace
}  // namespace dynlib::replication
