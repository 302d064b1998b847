#include "dynlib/replication/clock_comparison.h"

#include <cstdint>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kDriftPpm = 10'000;
constexpr Duration kEnough = milliseconds(1200);

// The other clock runs `rate` times as fast as ours.
struct Pair {
  void Exchange(int64_t at_ms, int64_t there_us = 300, int64_t back_us = 300) {
    const int64_t sent = at_ms * 1'000'000;
    const int64_t stamped = sent + there_us * 1'000;
    theirs += static_cast<double>(stamped - last) * rate;
    last = stamped;
    comparison.Note(Instant::FromNanos(1'000'000'000 + sent), static_cast<int64_t>(theirs),
                    Instant::FromNanos(1'000'000'000 + stamped + back_us * 1'000));
  }
  bool Trusted() const { return comparison.Trusted(kDriftPpm, kEnough); }
  bool Beyond() const { return comparison.Beyond(kDriftPpm); }

  double rate = 1;
  double theirs = 77'000'000'000;
  int64_t last = 0;
  ClockComparison comparison;
};

TEST(ClockComparisonTest, OneExchangeShowsNothingTwoShowEnough) {
  Pair pair;
  EXPECT_FALSE(pair.Trusted());
  pair.Exchange(0);
  EXPECT_FALSE(pair.Trusted());
  pair.Exchange(100);
  EXPECT_TRUE(pair.Trusted());
}

TEST(ClockComparisonTest, AClockATenthFastIsNeverTrusted) {
  Pair pair{.rate = 1.1};
  for (int64_t ms = 0; ms < 60'000; ms += 100) {
    pair.Exchange(ms);
    EXPECT_FALSE(pair.Trusted()) << ms;
  }
  EXPECT_TRUE(pair.Beyond());
}

TEST(ClockComparisonTest, AClockJustOutsideIsFoundOutInAWhile) {
  Pair pair{.rate = 1.023};  // 1.01 / 0.99 is 1.0202.
  int64_t ms = 0;
  for (; ms < 10'000 && !pair.Beyond(); ms += 100) pair.Exchange(ms);
  EXPECT_LT(ms, 2'000);
}

// A slow clock holds a grant for longer than it must: that is safe.
TEST(ClockComparisonTest, ASlowClockIsTrusted) {
  Pair pair{.rate = 0.9};
  for (int64_t ms = 0; ms < 5'000; ms += 100) pair.Exchange(ms);
  EXPECT_TRUE(pair.Trusted());
}

TEST(ClockComparisonTest, ClocksWithinTheBoundAreNeverAccusedOnAnyLink) {
  Random random(5);
  for (int i = 0; i < 300; ++i) {
    Pair pair{.rate = (1 + 0.01 * random.Unit()) / (1 - 0.01 * random.Unit())};
    const int64_t most_us = int64_t{1} << random.Between(4, 19);
    for (int64_t ms = 0; ms < 20'000; ms += random.Between(600, 2'000)) {
      pair.Exchange(ms, random.Between(1, most_us), random.Between(1, most_us));
      EXPECT_FALSE(pair.Beyond());
    }
    EXPECT_TRUE(pair.Trusted());
  }
}

TEST(ClockComparisonTest, OnASlowLinkTrustComesWithTime) {
  Pair pair;
  for (int64_t ms = 0; ms <= 1'000; ms += 500) pair.Exchange(ms, 100'000, 100'000);
  EXPECT_FALSE(pair.Trusted());
  for (int64_t ms = 1'500; ms <= 2'000; ms += 500) pair.Exchange(ms, 100'000, 100'000);
  EXPECT_TRUE(pair.Trusted());
}

TEST(ClockComparisonTest, AClockThatChangesItsRateIsFoundOutAndForgiven) {
  Pair pair;
  int64_t ms = 0;
  for (; ms < 100'000; ms += 100) pair.Exchange(ms);
  pair.rate = 1.1;
  const int64_t changed = ms;
  for (; !pair.Beyond() && ms < changed + 10'000; ms += 100) pair.Exchange(ms);
  EXPECT_LE(ms - changed, 600);  // Within the lease.
  pair.rate = 1;
  for (int64_t end = ms + 10'000; ms < end; ms += 100) pair.Exchange(ms);
  EXPECT_TRUE(pair.Trusted());
}

TEST(ClockComparisonTest, AClockThatBeganAnewIsComparedAnew) {
  Pair pair;
  for (int64_t ms = 0; ms < 1'000; ms += 100) pair.Exchange(ms);
  pair.comparison.Reset();
  EXPECT_FALSE(pair.Trusted());
  pair.theirs = 1;
  pair.Exchange(1'000);
  pair.Exchange(1'100);
  EXPECT_TRUE(pair.Trusted());
}

TEST(ClockComparisonTest, LiesNeitherCrashNorMakeForMoreTrust) {
  ClockComparison comparison;
  const int64_t lies[] = {INT64_MIN, -1, 0, 5, INT64_MAX, 1, INT64_MAX};
  int64_t ms = 0;
  for (int64_t lie : lies) {
    const Instant now = Instant::FromNanos(++ms * 1'000'000'000);
    comparison.Note(now, lie, now);
  }
  EXPECT_FALSE(comparison.Trusted(kDriftPpm, kEnough));
}

}  // namespace
}  // namespace dynlib::replication
