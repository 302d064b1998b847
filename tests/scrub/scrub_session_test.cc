#include "dynlib/scrub/scrub_session.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/scrub/options.h"
#include "dynlib/scrub/types.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scrub/model.h"

namespace dynlib::scrub {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Duration kSecond = std::chrono::seconds(1);
constexpr ReplicaId kA{1}, kB{2}, kC{3};

// Small steps, so that a few thousand items take many.
ScrubOptions Small() {
  return {.step_bytes = 4'096,
          .fan_out = 4,
          .leaf_items = 4,
          .max_in_flight_bytes = 64 << 10,
          .bytes_per_second = 100 << 20,
          .request_timeout = kSecond,
          .retry_delay = std::chrono::milliseconds(10)};
}

// One scrub from end to end.
struct Outcome {
  absl::Status result;
  ScrubProgress progress;
  std::vector<Finding> findings;
};
Outcome Scrub(const std::vector<ModelReplica>& replicas, uint64_t seed, Network network = {},
              ReplicaId reference = {}, ScrubOptions options = Small()) {
  Scrubber scrubber(replicas, seed, network);
  ScrubSession session(options, scrubber.Subject(reference), {}, scrubber.now);
  scrubber.Run(session, options);
  return {session.result(), session.Progress(scrubber.now), std::move(scrubber.findings)};
}

TEST(ScrubSession, EqualReplicasHaveNoFindingsAndAreReadOnce) {
  Random random(1);
  const auto replicas = MakeReplicas(random, 5'000);
  uint64_t bytes = 0;
  for (const auto& [key, value] : replicas[0].items) bytes += key.size() + value.size();
  Scrubber scrubber(replicas, 1);
  ScrubSession session(Small(), scrubber.Subject(), {}, scrubber.now);
  scrubber.Run(session, Small());
  DYNLIB_EXPECT_OK(session.result());
  EXPECT_TRUE(scrubber.findings.empty());
  for (const auto& [replica, read] : scrubber.bytes_read) EXPECT_EQ(read, bytes);
  EXPECT_EQ(session.cursor().items, replicas[0].items.size());
  EXPECT_EQ(session.cursor().bytes, bytes);
  EXPECT_EQ(session.Progress(scrubber.now).fraction, 1);
  EXPECT_EQ(session.Progress(scrubber.now).counts.vanished_differences, 0u);
}

TEST(ScrubSession, NamesTheOneBadItemCheaply) {
  Random random(2);
  auto replicas = MakeReplicas(random, 20'000);
  std::next(replicas[1].items.begin(), 7'000)->second += "!";
  const std::string key = std::next(replicas[1].items.begin(), 7'000)->first;
  uint64_t bytes = 0;
  for (const auto& [k, value] : replicas[0].items) bytes += k.size() + value.size();
  Scrubber scrubber(replicas, 1);
  ScrubSession session(Small(), scrubber.Subject(), {}, scrubber.now);
  scrubber.Run(session, Small());
  ASSERT_EQ(scrubber.findings.size(), 1u);
  EXPECT_EQ(scrubber.findings[0].key, key);
  EXPECT_EQ(scrubber.findings[0].verdict, Verdict::kDecided);
  EXPECT_THAT(scrubber.findings[0].bad, ElementsAre(kB));
  EXPECT_THAT(scrubber.findings[0].good, ElementsAre(kA, kC));
  for (const auto& [replica, read] : scrubber.bytes_read) EXPECT_LT(read, bytes + 8'192);
}

class RandomDamage : public ::testing::TestWithParam<uint64_t> {};

TEST_P(RandomDamage, OfOneReplicaIsFoundItemByItemAndBlamedOnIt) {
  Random random(GetParam());
  auto replicas = MakeReplicas(random, random.Below(3'000));
  ModelReplica& bad = replicas[random.Below(3)];
  for (uint64_t i = random.Below(30); i > 0; --i) Damage(random, &bad);
  const Outcome outcome = Scrub(replicas, GetParam());
  DYNLIB_EXPECT_OK(outcome.result);
  Verify(replicas, outcome.findings);
  for (const Finding& finding : outcome.findings) EXPECT_THAT(finding.bad, ElementsAre(bad.id));
  EXPECT_EQ(outcome.progress.cursor.findings, outcome.findings.size());
}

TEST_P(RandomDamage, OfSeveralReplicasOverABadNetwork) {
  Random random(GetParam());
  auto replicas = MakeReplicas(random, random.Below(2'000));
  std::vector<std::string> keys;
  for (uint64_t i = random.Below(60); i > 0; --i)
    keys.push_back(Damage(random, &replicas[random.Below(3)]));
  // The same items on two replicas too: no majority then.
  for (const std::string& key : keys) {
    if (random.Chance(0.3)) replicas[random.Below(3)].items[key] = "second";
  }
  ScrubOptions options = Small();
  options.attempts = 100;
  const Outcome outcome = Scrub(replicas, GetParam(), {.loss = 0.1}, {}, options);
  DYNLIB_EXPECT_OK(outcome.result);
  Verify(replicas, outcome.findings);
}

TEST_P(RandomDamage, WithAReferenceTheReferenceDecides) {
  Random random(GetParam());
  auto replicas = MakeReplicas(random, random.Below(2'000));
  for (uint64_t i = random.Below(60); i > 0; --i) {
    const std::string key = Damage(random, &replicas[random.Below(3)]);
    if (random.Chance(0.3)) replicas[random.Below(3)].items[key] = "second";
  }
  const Outcome outcome = Scrub(replicas, GetParam(), {}, kC);
  Verify(replicas, outcome.findings, kC);
  for (const Finding& finding : outcome.findings) EXPECT_EQ(finding.verdict, Verdict::kDecided);
}

TEST_P(RandomDamage, UnreadableRangesAreNarrowedToTheirItems) {
  Random random(GetParam());
  auto replicas = MakeReplicas(random, random.Below(3'000));
  for (uint64_t i = random.Below(20); i > 0; --i) Damage(random, &replicas[random.Below(3)]);
  for (ModelReplica& replica : replicas) {
    replica.knows_range = random.Chance(0.5);
    // All three cannot be read at the same place only by chance, and then they must know where.
    if (random.Chance(0.6)) MakeUnreadable(random, &replica);
  }
  const bool all_bad = std::all_of(replicas.begin(), replicas.end(),
                                   [](const auto& replica) { return !replica.unreadable.empty(); });
  if (all_bad) {
    for (ModelReplica& replica : replicas) replica.knows_range = true;
  }
  const Outcome outcome = Scrub(replicas, GetParam());
  DYNLIB_EXPECT_OK(outcome.result);
  Verify(replicas, outcome.findings);
}

TEST_P(RandomDamage, AScrubThatIsInterruptedAgainAndAgainFindsTheSame) {
  Random random(GetParam());
  auto replicas = MakeReplicas(random, random.Below(3'000));
  for (uint64_t i = random.Below(40); i > 0; --i) Damage(random, &replicas[random.Below(3)]);
  if (random.Chance(0.5)) MakeUnreadable(random, &replicas[random.Below(3)]);
  Scrubber scrubber(replicas, GetParam(), {.loss = 0.02});
  ScrubOptions options = Small();
  options.attempts = 100;
  ScrubCursor cursor;
  for (int session_number = 0; !cursor.done; ++session_number) {
    ASSERT_LT(session_number, 1'000);
    ScrubSession session(options, scrubber.Subject(), cursor, scrubber.now);
    scrubber.Run(session, options, /*stop_after=*/5 + random.Below(60));
    cursor = session.cursor();
  }
  Verify(replicas, scrubber.findings);
  EXPECT_EQ(cursor.findings, scrubber.findings.size());
}

TEST_P(RandomDamage, AReplicaThatFallsSilentIsLeftOutAndTheRestCompared) {
  Random random(GetParam());
  auto replicas = MakeReplicas(random, 1'000 + random.Below(2'000));
  for (uint64_t i = random.Below(20); i > 0; --i) Damage(random, &replicas[0]);
  Scrubber plain(replicas, GetParam());
  const size_t silent = random.Below(3);
  replicas[silent].silent_from = plain.now + std::chrono::milliseconds(random.Below(40));
  const Outcome outcome = Scrub(replicas, GetParam());
  DYNLIB_EXPECT_OK(outcome.result);
  const auto& member = outcome.progress.members[silent];
  ASSERT_TRUE(member.lost);
  EXPECT_THAT(member.why, HasSubstr("no answer"));
  EXPECT_LT(member.compared_through, replicas[0].items.rbegin()->first);
  // Up to there everything is as if it had stayed; behind, as if it had not been there.
  auto expected = Expected(replicas, {});
  auto others = replicas;
  others.erase(others.begin() + static_cast<ptrdiff_t>(silent));
  auto expected_without = Expected(others, {});
  for (const Finding& finding : outcome.findings) {
    if (finding.copies.size() == 3) {
      EXPECT_EQ(expected.count(finding.key), 1u);
      EXPECT_EQ(finding.bad, expected[finding.key].bad);
    } else {
      EXPECT_EQ(expected_without.count(finding.key), 1u);
      EXPECT_EQ(finding.verdict, Verdict::kUndecided);
      EXPECT_GE(finding.key, member.compared_through);
    }
    expected.erase(finding.key);
    expected_without.erase(finding.key);
  }
  for (const auto& [key, finding] : expected_without) {
    if (key >= member.compared_through) {
      ADD_FAILURE() << "missed " << key;
    }
  }
  for (const auto& [key, finding] : expected) {
    if (key < member.compared_through) {
      ADD_FAILURE() << "missed " << key;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomDamage, ::testing::Range<uint64_t>(1, 8));

TEST(ScrubSession, AReplicaThatIsNoCopyAtAllEndsTheSession) {
  Random random(3);
  auto replicas = MakeReplicas(random, 3'000);
  replicas[1].items.clear();
  ScrubOptions options = Small();
  options.max_findings = 100;
  Scrubber scrubber(replicas, 1);
  ScrubSession session(options, scrubber.Subject(), {}, scrubber.now);
  scrubber.Run(session, options);
  EXPECT_THAT(session.result(), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(session.cursor().done);
  EXPECT_GE(scrubber.findings.size(), 100u);
  EXPECT_LE(scrubber.findings.size(), 200u);
  for (const Finding& finding : scrubber.findings) EXPECT_THAT(finding.bad, ElementsAre(kB));
}

TEST(ScrubSession, AnEmptyChooserHidesNothing) {
  Random random(4);
  for (size_t chooser = 0; chooser < 3; ++chooser) {
    auto replicas = MakeReplicas(random, 2'000);
    replicas[chooser].items.clear();
    const Outcome outcome = Scrub(replicas, 1);
    Verify(replicas, outcome.findings);
  }
}

TEST(ScrubSession, WithOneReplicaLeftItIsUnavailableAndResumes) {
  Random random(5);
  auto replicas = MakeReplicas(random, 3'000);
  Damage(random, &replicas[2]);
  auto down = replicas;
  Scrubber before(replicas, 1);
  down[0].silent_from = before.now + std::chrono::milliseconds(100);
  down[1].silent_from = down[0].silent_from;
  Scrubber scrubber(down, 1);
  ScrubSession session(Small(), scrubber.Subject(), {}, scrubber.now);
  scrubber.Run(session, Small());
  EXPECT_THAT(session.result(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("replica 1")));
  EXPECT_FALSE(session.cursor().done);
  EXPECT_LT(session.Progress(scrubber.now).fraction, 1);
  Scrubber again(replicas, 2);
  again.findings = scrubber.findings;
  ScrubSession resumed(Small(), again.Subject(), session.cursor(), again.now);
  again.Run(resumed, Small());
  DYNLIB_EXPECT_OK(resumed.result());
  Verify(replicas, again.findings);
}

TEST(ScrubSession, AnswersThatAreNotWellFormedLoseTheReplicaNotTheScrub) {
  Random random(6);
  const auto replicas = MakeReplicas(random, 1'000);
  const std::vector<std::function<void(Answer*)>> lies = {
      [](Answer* a) { a->parts.clear(), a->items.clear(), a->end.clear(); },
      [](Answer* a) { a->parts.push_back(a->parts.empty() ? Part{} : a->parts.front()); },
      [](Answer* a) { a->end = "zzz"; },
      [](Answer* a) { a->end = ""; },
      [](Answer* a) { std::reverse(a->parts.begin(), a->parts.end()), a->end += "x"; },
      [](Answer* a) { a->bytes_read = UINT64_MAX; },
  };
  for (const auto& lie : lies) {
    ScrubOptions options = Small();
    options.attempts = 100;
    Scrubber scrubber(replicas, 1);
    scrubber.corrupt = lie;
    ScrubSession session(options, scrubber.Subject(), {}, scrubber.now);
    scrubber.Run(session, options);
    DYNLIB_EXPECT_OK(session.result());
    EXPECT_TRUE(scrubber.findings.empty());
  }
}

TEST(ScrubSession, ReadsNoFasterThanAllowedAndKeepsItsBounds) {
  Random random(7);
  const auto replicas = MakeReplicas(random, 5'000);
  ScrubOptions options = Small();
  options.bytes_per_second = 50'000;
  options.max_in_flight = 2;
  options.max_in_flight_bytes = 2 * options.step_bytes;
  Scrubber scrubber(replicas, 1);
  const Instant began = scrubber.now;
  ScrubSession session(options, scrubber.Subject(), {}, scrubber.now);
  scrubber.Run(session, options);
  const double seconds = static_cast<double>((scrubber.now - began).count()) / 1e9;
  for (const auto& [replica, read] : scrubber.bytes_read) {
    EXPECT_LE(static_cast<double>(read), 50'000 * seconds + 2.0 * options.step_bytes);
  }
  EXPECT_LT(seconds, 60) << "it waits longer than it needs";
}

TEST(ScrubSession, WarnsOfADeadlineThatItCannotMeet) {
  Random random(8);
  const auto replicas = MakeReplicas(random, 5'000);
  uint64_t bytes = 0;
  for (const auto& [key, value] : replicas[0].items) bytes += key.size() + value.size();
  ScrubOptions options = Small();
  options.expected_bytes = bytes;
  options.bytes_per_second = bytes / 10;  // ten seconds at best
  Scrubber scrubber(replicas, 1);
  options.deadline = scrubber.now + 5 * kSecond;
  {
    ScrubSession hopeless(options, scrubber.Subject(), {}, scrubber.now);
    EXPECT_TRUE(hopeless.Progress(scrubber.now).late) << "before anything was read";
  }
  options.deadline = scrubber.now + 60 * kSecond;
  ScrubSession session(options, scrubber.Subject(), {}, scrubber.now);
  EXPECT_FALSE(session.Progress(scrubber.now).late);
  double fraction = 0;
  while (!session.finished()) {
    scrubber.Run(session, options, 10);
    const ScrubProgress progress = session.Progress(scrubber.now);
    EXPECT_GE(progress.fraction, fraction);
    fraction = progress.fraction;
    EXPECT_EQ(fraction == 1, session.finished());
    if (!session.finished()) {
      // What it says was compared was: keys and values of all items below the cursor.
      uint64_t below = 0;
      for (const auto& [key, value] : replicas[0].items) {
        if (key < progress.cursor.next) below += key.size() + value.size();
      }
      EXPECT_EQ(progress.cursor.bytes, below);
      EXPECT_FALSE(progress.late);
    }
  }
  // A replica that stopped makes it late as time goes on.
  auto stopped = replicas;
  for (ModelReplica& replica : stopped) replica.silent_from = Instant();
  Scrubber silent(stopped, 1);
  options.deadline = silent.now + 60 * kSecond;
  options.request_timeout = 20 * kSecond;
  ScrubSession waiting(options, silent.Subject(), {}, silent.now);
  EXPECT_FALSE(waiting.Progress(silent.now + 10 * kSecond).late);
  EXPECT_TRUE(waiting.Progress(silent.now + 21 * kSecond).late);
}

TEST(ScrubSession, ComparesOnlyItsRange) {
  Random random(9);
  auto replicas = MakeReplicas(random, 2'000);
  for (int i = 0; i < 50; ++i) Damage(random, &replicas[1]);
  Scrubber scrubber(replicas, 1);
  ScrubSubject subject = scrubber.Subject();
  subject.first = Key(30'000);
  subject.end = Key(60'000);
  ScrubSession session(Small(), subject, {}, scrubber.now);
  scrubber.Run(session, Small());
  for (ModelReplica& replica : replicas) {
    std::erase_if(replica.items, [&](const auto& item) {
      return item.first < subject.first || item.first >= subject.end;
    });
  }
  EXPECT_GT(scrubber.findings.size(), 5u);
  Verify(replicas, scrubber.findings);
}

TEST(ScrubSubject, IsValidated) {
  DYNLIB_EXPECT_OK(Validate(ScrubSubject{.members = {kA, kB}}));
  for (const ScrubSubject& subject : std::vector<ScrubSubject>{
           {.members = {kA}},
           {.members = {kA, kA}},
           {.members = {kA, ReplicaId{}}},
           {.members = {kA, kB}, .reference = kC},
           {.members = {kA, kB}, .first = "b", .end = "b"},
       }) {
    EXPECT_THAT(Validate(subject),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("scrub.")));
  }
}

TEST(ScrubOptions, AreValidated) {
  DYNLIB_EXPECT_OK(Validate(ScrubOptions{}));
  struct Case {
    const char* field;
    ScrubOptions options;
  };
  for (const Case& c : std::vector<Case>{
           {"step_bytes is 0", {.step_bytes = 0}},
           {"fan_out is 1;", {.fan_out = 1}},
           {"leaf_items is 0", {.leaf_items = 0}},
           {"max_in_flight is 0", {.max_in_flight = 0}},
           {"max_in_flight_bytes is 1000000;", {.max_in_flight_bytes = 1'000'000}},
           {"bytes_per_second is 1000;", {.bytes_per_second = 1'000}},
           {"request_timeout is 0", {.request_timeout = Duration(0)}},
           {"retry_delay is 0", {.retry_delay = Duration(0)}},
           {"attempts is 101", {.attempts = 101}},
           {"max_findings is 0", {.max_findings = 0}},
       }) {
    EXPECT_THAT(Validate(c.options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.field)));
  }
}

}  // namespace
}  // namespace dynlib::scrub
