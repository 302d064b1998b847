#include "dynlib/admission/token_credit.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);

BucketRate Rate(double units_per_second, int64_t burst_units) {
  return *BucketRate::Make(units_per_second, burst_units);
}

TEST(TokenCredit, TakesAheadAndGivesBack) {
  TokenBucket bucket(Rate(1, 1000), TokenBucket::Fill::kFull, kStart);
  TokenCredit credit(&bucket, 64);
  ASSERT_TRUE(credit.TryTake(1, kStart));
  EXPECT_EQ(credit.held(), 64);
  EXPECT_EQ(bucket.Remaining(kStart), 1000 - 65);
  ASSERT_TRUE(credit.TryTake(60, kStart));
  EXPECT_EQ(bucket.Remaining(kStart), 1000 - 65);
  ASSERT_TRUE(credit.TryTake(10, kStart));  // four of them held
  EXPECT_EQ(credit.held(), 64);
  credit.Return(kStart);
  EXPECT_EQ(credit.held(), 0);
  EXPECT_EQ(bucket.Remaining(kStart), 1000 - 71);
}

TEST(TokenCredit, TakesNothingAheadOfAScarceBucket) {
  TokenBucket bucket(Rate(1, 10), TokenBucket::Fill::kFull, kStart);
  TokenCredit credit(&bucket, 64);
  ASSERT_TRUE(credit.TryTake(3, kStart));
  EXPECT_EQ(credit.held(), 0);
  ASSERT_TRUE(credit.TryTake(7, kStart));
  EXPECT_FALSE(credit.TryTake(1, kStart));
  EXPECT_EQ(credit.RetryAfter(1, kStart), Duration(seconds(1)));
  EXPECT_EQ(credit.RetryAfter(11, kStart), std::nullopt);
  EXPECT_TRUE(credit.TryTake(0, kStart));
}

TEST(TokenCredit, WhatIsHeldCountsTowardsTheWait) {
  TokenBucket bucket(Rate(1, 16), TokenBucket::Fill::kFull, kStart);
  TokenCredit credit(&bucket, 64);
  ASSERT_TRUE(credit.TryTake(8, kStart));  // and an eighth of the other eight
  ASSERT_EQ(credit.held(), 1);
  ASSERT_EQ(bucket.TakeUpTo(16, kStart), 7);
  EXPECT_EQ(credit.RetryAfter(1, kStart), Duration(0));
  EXPECT_EQ(credit.RetryAfter(3, kStart), Duration(seconds(2)));
}

TEST(TokenCreditDeathTest, RefusesWhatIsNoSize) {
  TokenBucket bucket(Rate(1, 16), TokenBucket::Fill::kFull, kStart);
  EXPECT_DEATH(TokenCredit(&bucket, -1), "units_max");
  EXPECT_DEATH(TokenCredit(&bucket, TokenCredit::kUnitsMax + 1), "units_max");
  TokenCredit credit(&bucket, 4);
  EXPECT_DEATH(credit.TryTake(-1, kStart), "n >= 0");
}

// The bound of the header: over any interval rate * time + burst and units_max a credit; from the
// start without the last.
TEST(TokenCredit, OvershootsByWhatTheCreditsHoldAtMost) {
  constexpr int kCredits = 4;
  double worst = 0;  // of what the credits may add
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    const double rate = 100.0 * static_cast<double>(random.Between(1, 50));
    const int64_t burst = random.Between(100, 4000);
    const int64_t held_max = random.Between(1, burst / kCredits);
    TokenBucket bucket(Rate(rate, burst), TokenBucket::Fill::kFull, kStart);
    std::vector<std::unique_ptr<TokenCredit>> credits;
    for (int i = 0; i < kCredits; ++i)
      credits.push_back(std::make_unique<TokenCredit>(&bucket, held_max));
    struct Taken {
      Instant at;
      int64_t sum;  // of all before it
    };
    std::deque<Taken> history;
    Instant now = kStart;
    int64_t sum = 0;
    for (int i = 0; i < 1500; ++i) {
      now = now + Duration(random.Chance(0.02) ? seconds(random.Between(1, 20))
                                               : milliseconds(random.Below(3)));
      for (int k = 0; k < 30; ++k) {
        const int64_t n = random.Between(1, 5);
        if (!credits[random.Below(kCredits)]->TryTake(n, now)) continue;
        history.push_back({now, sum});
        sum += n;
      }
      if (history.size() > 3000) history.erase(history.begin(), history.end() - 3000);
      for (size_t j = 0; j < history.size(); j += 37) {
        const double time = static_cast<double>((now - history[j].at).count()) / 1e9;
        const double over =
            static_cast<double>(sum - history[j].sum) - (rate * time + static_cast<double>(burst));
        ASSERT_LE(over, static_cast<double>(kCredits * held_max) + 1e-6) << "seed " << seed;
        worst = std::max(worst, over / static_cast<double>(kCredits * held_max));
      }
      const double time = static_cast<double>((now - kStart).count()) / 1e9;
      ASSERT_LE(static_cast<double>(sum), rate * time + static_cast<double>(burst) + 1e-6);
    }
  }
  EXPECT_GT(worst, 0.2);  // The bound is of use: it does happen.
}

TEST(TokenCredit, ThreadsTogetherTakeNoMoreThanThereIs) {
  TokenBucket bucket(Rate(1, 1'000'000), TokenBucket::Fill::kFull, kStart);
  std::vector<std::thread> threads;
  std::vector<int64_t> taken(3);
  for (size_t t = 0; t < taken.size(); ++t) {
    threads.emplace_back([&, t] {
      TokenCredit credit(&bucket, 500);
      while (credit.TryTake(3, kStart)) taken[t] += 3;
      credit.Return(kStart);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken[0] + taken[1] + taken[2] + bucket.Remaining(kStart), 1'000'000);
  // A credit that found too little for itself may have put back a few.
  EXPECT_LT(bucket.Remaining(kStart), 3 * 3);
}

}  // namespace
}  // namespace dynlib::admission
