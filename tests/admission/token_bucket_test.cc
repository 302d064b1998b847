#include "dynlib/admission/token_bucket.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>
#include <tuple>
#include <vector>

#include "dynlib/base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);
constexpr auto kFull = TokenBucket::Fill::kFull;
constexpr auto kEmpty = TokenBucket::Fill::kEmpty;

BucketRate Rate(double units_per_second, int64_t burst_units) {
  return *BucketRate::Make(units_per_second, burst_units);
}

// From 1e-4 to 1e9, evenly over the orders of magnitude.
double AnyRate(Random& random) { return std::min(1e9, 1e-4 * std::pow(10.0, 13 * random.Unit())); }

int64_t AnyBurst(double rate, Random& random) {
  const double most = std::max(1.0, rate * 86'400);
  return std::max<int64_t>(1, static_cast<int64_t>(std::pow(most, random.Unit())));
}

TEST(BucketRate, RefusesWhatIsNoRate) {
  for (const double rate : {0.0, -1.0, 9e-5, 1.1e9, std::numeric_limits<double>::infinity(),
                            std::numeric_limits<double>::quiet_NaN()}) {
    const auto made = BucketRate::Make(rate, 1);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << rate;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("units_per_second"));
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("0.0001 to 1000000000"));
  }
  for (const int64_t burst : {int64_t{0}, int64_t{-5}, 31'536'001 * int64_t{10}, INT64_MAX}) {
    const auto made = BucketRate::Make(10, burst);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << burst;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("burst_units"));
  }
  EXPECT_TRUE(BucketRate::Make(1e-4, 1).ok());
  EXPECT_TRUE(BucketRate::Make(1e9, int64_t{31'536'000} * 1'000'000'000).ok());
}

TEST(BucketRate, ClampsWhatWasComputed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(BucketRate::Clamped(nan, 5).units_per_second(), 1e-4);
  EXPECT_EQ(BucketRate::Clamped(0, -5).burst_units(), 1);
  EXPECT_EQ(BucketRate::Clamped(1e300, 5).units_per_second(), 1e9);
}

TEST(TokenBucket, StartsFullOrEmpty) {
  TokenBucket full(Rate(10, 25), kFull, kStart);
  EXPECT_EQ(full.Remaining(kStart), 25);
  TokenBucket empty(Rate(10, 25), kEmpty, kStart);
  EXPECT_EQ(empty.Remaining(kStart), 0);
  EXPECT_FALSE(empty.TryTake(1, kStart));
  EXPECT_EQ(empty.Remaining(kStart + seconds(1)), 10);
  EXPECT_EQ(empty.Remaining(kStart + seconds(100)), 25);
}

TEST(TokenBucket, TakesAllOrNothingOrWhatThereIs) {
  TokenBucket bucket(Rate(10, 20), kFull, kStart);
  EXPECT_TRUE(bucket.TryTake(15, kStart));
  EXPECT_FALSE(bucket.TryTake(6, kStart));
  EXPECT_EQ(bucket.TakeUpTo(6, kStart), 5);
  EXPECT_EQ(bucket.TakeUpTo(6, kStart), 0);
  EXPECT_TRUE(bucket.TryTake(0, kStart));
}

TEST(TokenBucket, HasSaysWhetherTryTakeWouldSucceed) {
  Random random(5);
  for (int i = 0; i < 2000; ++i) {
    const double rate = AnyRate(random);
    const int64_t burst = AnyBurst(rate, random);
    TokenBucket bucket(Rate(rate, burst), random.Chance(0.5) ? kFull : kEmpty, kStart);
    bucket.TakeAnyway(random.Between(0, burst), kStart);
    const Instant now = Instant::FromNanos(
        random.Chance(0.1) ? random.Between(INT64_MIN, INT64_MAX)
                           : kStart.nanos() + random.Between(-1000, 5'000'000'000));
    const int64_t n = random.Chance(0.1) ? random.Between(0, INT64_MAX) : random.Between(0, burst);
    const bool has = bucket.Has(n, now);
    ASSERT_EQ(has, bucket.TryTake(n, now)) << n << " of " << burst << " at " << rate;
  }
}

TEST(TokenBucket, MoreThanTheBurstIsNever) {
  TokenBucket bucket(Rate(10, 20), kFull, kStart);
  EXPECT_EQ(bucket.RetryAfter(21, kStart), std::nullopt);
  EXPECT_FALSE(bucket.TryTake(21, kStart + hours(1000)));
  EXPECT_FALSE(bucket.TryTake(INT64_MAX, kStart + hours(1000)));
  EXPECT_EQ(bucket.Borrow(21, kStart, hours(1000)), std::nullopt);
  EXPECT_EQ(bucket.RetryAfter(20, kStart), Duration(0));
}

// A nanosecond before the end of the wait the request is refused, at its end it is admitted.
TEST(TokenBucket, WaitsAreExact) {
  Random random(1);
  for (int i = 0; i < 3000; ++i) {
    const double rate = AnyRate(random);
    const int64_t burst = AnyBurst(rate, random);
    TokenBucket bucket(Rate(rate, burst), random.Chance(0.5) ? kFull : kEmpty, kStart);
    Instant now = kStart + Duration(random.Between(0, 5'000'000'000));
    bucket.TakeUpTo(random.Between(0, burst), now);
    const int64_t n = random.Between(1, burst);
    const Duration wait = bucket.RetryAfter(n, now).value();
    if (wait > Duration(0)) {
      ASSERT_FALSE(bucket.TryTake(n, now + wait - Duration(1))) << rate << " " << burst;
    }
    ASSERT_TRUE(bucket.TryTake(n, now + wait)) << rate << " " << burst << " " << n;
  }
}

TEST(TokenBucket, WaitsFollowFromTheRate) {
  Random random(2);
  for (int i = 0; i < 3000; ++i) {
    const double rate = AnyRate(random);
    TokenBucket bucket(Rate(rate, 1), kEmpty, kStart);
    const double wait = static_cast<double>(bucket.RetryAfter(1, kStart)->count());
    EXPECT_NEAR(wait, 1e9 / rate, 1 + 1e-9 * 1e9 / rate) << rate;
  }
}

// Takes one by one at the earliest time for each, for a long time: the count is what the rate says.
TEST(TokenBucket, DoesNotDrift) {
  for (const double rate : {1e-4, 1.0 / 3, 7.0, 333.3, 9.9e6, 7e8, 1e9}) {
    TokenBucket bucket(Rate(rate, 1), kEmpty, kStart);
    Instant now = kStart;
    constexpr int kTakes = 20'000;
    for (int i = 0; i < kTakes; ++i) {
      now = now + *bucket.RetryAfter(1, now);
      ASSERT_TRUE(bucket.TryTake(1, now));
    }
    const double expected = kTakes / rate * 1e9;
    const double slack = rate > 1e8 ? kTakes : 2;  // A wait is a whole number of nanoseconds.
    EXPECT_NEAR(static_cast<double>((now - kStart).count()), expected, slack + 1e-9 * expected);
  }
  // Nothing is lost between nanoseconds either when the bucket can hold what a few of them make.
  TokenBucket bucket(Rate(7e8, 100), kEmpty, kStart);
  int64_t taken = 0;
  for (int i = 1; i <= 100'000; ++i) taken += bucket.TakeUpTo(100, kStart + Duration(i));
  EXPECT_NEAR(static_cast<double>(taken), 70'000, 1);
}

// Whatever the clock does: never more than rate * time + burst.
TEST(TokenBucket, NeverAdmitsMoreThanRateTimesTimePlusBurst) {
  Random random(3);
  for (int run = 0; run < 300; ++run) {
    const double rate = AnyRate(random);
    const int64_t burst = AnyBurst(rate, random);
    TokenBucket bucket(Rate(rate, burst), kFull, kStart);
    Instant earliest = kStart, latest = kStart, now = kStart;
    long double admitted = 0;
    const auto step_max = static_cast<int64_t>(std::min(4e18, 3e9 * burst / rate + 1));
    for (int i = 0; i < 300; ++i) {
      switch (random.Below(4)) {
        case 0:
          break;  // It stands still.
        case 1:
          now = Instant::FromNanos(kStart.nanos() + random.Between(-step_max / 8, step_max / 2));
          break;
        default:
          now = now + Duration(random.Between(0, step_max / 100));
      }
      earliest = std::min(earliest, now);
      latest = std::max(latest, now);
      const int64_t n = random.Between(1, burst);
      switch (random.Below(4)) {
        case 0:
          admitted += bucket.TakeUpTo(n, now);
          break;
        case 1:
          if (const int64_t back = random.Between(0, n); admitted >= back) {
            bucket.GiveBack(back, now);
            admitted -= back;
          }
          break;
        default:
          if (bucket.TryTake(n, now)) admitted += n;
      }
      const long double most =
          static_cast<long double>(rate) * ((latest - earliest).count() / 1e9L) + burst;
      ASSERT_LE(admitted, most * (1 + 1e-12L)) << "rate " << rate << " burst " << burst;
    }
  }
}

// A bucket that takes without a look when that is safe, beside one that always looks first, since
// units were given back.
TEST(TokenBucket, TakesTheSameWithAndWithoutALook) {
  Random random(4);
  for (int run = 0; run < 300; ++run) {
    const double rate = AnyRate(random);
    const int64_t burst = AnyBurst(rate, random);
    TokenBucket bucket(Rate(rate, burst), kFull, kStart);
    TokenBucket looking(Rate(rate, burst), kFull, kStart);
    Instant now = kStart;
    const int64_t step_max =
        static_cast<int64_t>(std::min(1e17, 3e9 * burst / rate + 1)) >> random.Between(0, 20);
    const int64_t most = std::max<int64_t>(1, burst >> random.Between(0, 20));
    for (int i = 0; i < 1000; ++i) {
      now = now + Duration(random.Between(0, step_max / 4));
      looking.GiveBack(0, now);
      const int64_t n = random.Between(1, most);
      switch (random.Below(16)) {
        case 0:
          bucket.TakeAnyway(n, now);
          looking.TakeAnyway(n, now);
          break;
        case 1:
          bucket.GiveBack(n, now);
          looking.GiveBack(n, now);
          break;
        case 2:
          bucket.SetRate(Rate(rate, std::max<int64_t>(1, burst / (1 + i % 2))), now);
          looking.SetRate(Rate(rate, std::max<int64_t>(1, burst / (1 + i % 2))), now);
          break;
        default:
          ASSERT_EQ(bucket.TryTake(n, now), looking.TryTake(n, now)) << "run " << run << " " << i;
      }
      ASSERT_EQ(bucket.Remaining(now), looking.Remaining(now)) << "run " << run << " " << i;
    }
  }
}

TEST(TokenBucket, TimeThatGoesBackMakesNothing) {
  TokenBucket bucket(Rate(1000, 100), kFull, kStart);
  ASSERT_TRUE(bucket.TryTake(100, kStart + seconds(10)));
  EXPECT_FALSE(bucket.TryTake(1, kStart));
  EXPECT_FALSE(bucket.TryTake(1, Instant::FromNanos(INT64_MIN)));
  EXPECT_FALSE(bucket.TryTake(1, kStart + seconds(10)));
  EXPECT_TRUE(bucket.TryTake(1, kStart + seconds(10) + milliseconds(1)));
}

TEST(TokenBucket, BorrowTellsTheExactWait) {
  TokenBucket bucket(Rate(10, 20), kFull, kStart);
  EXPECT_EQ(bucket.Borrow(20, kStart, seconds(0)), Duration(0));
  EXPECT_EQ(bucket.Borrow(5, kStart, milliseconds(499)), std::nullopt);
  EXPECT_EQ(bucket.Borrow(5, kStart, milliseconds(500)), Duration(milliseconds(500)));
  EXPECT_EQ(bucket.Borrow(5, kStart, seconds(5)), Duration(seconds(1)));  // behind the other
  EXPECT_EQ(bucket.Remaining(kStart), -10);
  EXPECT_EQ(bucket.RetryAfter(1, kStart), Duration(milliseconds(1100)));
}

TEST(TokenBucket, DebtByTakeAnywayIsBounded) {
  TokenBucket bucket(Rate(10, 20), kFull, kStart);
  bucket.TakeAnyway(30, kStart);
  EXPECT_EQ(bucket.Remaining(kStart), -10);
  bucket.TakeAnyway(INT64_MAX, kStart);
  EXPECT_EQ(bucket.Remaining(kStart), -20);
  EXPECT_EQ(bucket.RetryAfter(20, kStart), Duration(seconds(4)));
}

TEST(TokenBucket, GiveBackFillsToTheBurst) {
  TokenBucket bucket(Rate(10, 20), kFull, kStart);
  ASSERT_TRUE(bucket.TryTake(8, kStart));
  bucket.GiveBack(5, kStart);
  EXPECT_EQ(bucket.Remaining(kStart), 17);
  bucket.GiveBack(INT64_MAX, kStart);
  EXPECT_EQ(bucket.Remaining(kStart), 20);
}

TEST(TokenBucket, ANewRateHoldsAtOnce) {
  TokenBucket bucket(Rate(1, 20), kEmpty, kStart);
  ASSERT_EQ(bucket.RetryAfter(10, kStart), Duration(seconds(10)));
  bucket.SetRate(Rate(1e6, 20), kStart);
  EXPECT_EQ(bucket.RetryAfter(10, kStart), Duration(std::chrono::microseconds(10)));
  bucket.SetRate(Rate(1e-4, 20), kStart);
  EXPECT_EQ(bucket.RetryAfter(10, kStart), Duration(seconds(100'000)));
}

TEST(TokenBucket, ANewRateKeepsTokensUpToTheBurst) {
  TokenBucket bucket(Rate(10, 100), kFull, kStart);
  ASSERT_TRUE(bucket.TryTake(30, kStart));
  bucket.SetRate(Rate(1e9, 1000), kStart);
  EXPECT_EQ(bucket.Remaining(kStart), 70);
  bucket.SetRate(Rate(0.5, 40), kStart);
  EXPECT_EQ(bucket.Remaining(kStart), 40);
  EXPECT_EQ(bucket.burst_units(), 40);
  bucket.TakeAnyway(60, kStart);
  bucket.SetRate(Rate(1e6, 1000), kStart);
  EXPECT_EQ(bucket.Remaining(kStart), -20);
}

TEST(TokenBucket, WorksForManyYearsAndAcrossAnyJump) {
  TokenBucket bucket(Rate(5, 1000), kEmpty, kStart);
  Instant now = kStart;
  for (int month = 0; month < 12 * 40; ++month) {
    ASSERT_EQ(bucket.TakeUpTo(2000, now + seconds(100)), 500) << month;
    bucket.TakeUpTo(2000, now = now + hours(30 * 24));
  }
  const Instant far = Instant::FromNanos(INT64_MAX - 1'000'000'000);
  EXPECT_EQ(bucket.Remaining(far), 1000);
  EXPECT_TRUE(bucket.TryTake(1000, far));
  EXPECT_FALSE(bucket.TryTake(1, far));
  EXPECT_EQ(bucket.TakeUpTo(10, Instant::Infinite()), 5);

  TokenBucket early(Rate(5, 1000), kEmpty, Instant::FromNanos(INT64_MIN));
  EXPECT_EQ(early.TakeUpTo(INT64_MAX, far), 1000);
}

TEST(TokenBucket, ThreadsTogetherTakeNoMoreThanThereIs) {
  constexpr int kRounds = 20'000;
  TokenBucket bucket(Rate(1000, 50), kFull, kStart);
  std::atomic<int64_t> taken{0};
  std::atomic<int> first_threads_round{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<uint64_t>(t));
      for (int i = 1; i <= kRounds; ++i) {
        // Each thread's clock is a little off.
        const Instant now = kStart + Duration(int64_t{i} * 100'000 + random.Between(0, 50'000));
        const int64_t n = random.Between(1, 5);
        if (bucket.TryTake(n, now)) taken += n;
        if (random.Chance(0.01) && bucket.TryTake(1, now)) bucket.GiveBack(1, now);
        if (random.Chance(0.01)) taken += bucket.TakeUpTo(2, now);
        if (t == 0) first_threads_round = i;
      }
    });
  }
  // The rate goes down and up meanwhile.
  threads.emplace_back([&] {
    for (int i = 0, round = 0; round < kRounds; ++i) {
      round = first_threads_round;
      const Instant now = kStart + Duration(int64_t{round} * 100'000);
      bucket.SetRate(Rate(i % 2 == 0 ? 500 : 1000, i % 3 == 0 ? 40 : 50), now);
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(taken, 2000 + 1 + 50);
  EXPECT_GE(taken, 800);  // The first thread alone finds as much.
}

// Races are settled exactly: what is left is what was made less what was taken, to the unit.
TEST(TokenBucket, NoUnitIsLostOrMadeByRaces) {
  constexpr int kRounds = 100'000;
  constexpr Duration kStepTime = std::chrono::microseconds(10);
  // Always enough; so much that nobody looks before it takes; hardly ever enough; overflowing now
  // and then.
  for (const auto& [rate, burst, fill] :
       {std::tuple(1e6, int64_t{1'000'000'000}, kEmpty),
        std::tuple(1e6, int64_t{2'000'000}, kEmpty), std::tuple(1e5, int64_t{100'000}, kEmpty),
        std::tuple(3e5, int64_t{8}, kFull)}) {
    TokenBucket bucket(Rate(rate, burst), fill, kStart);
    std::atomic<int64_t> taken{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t, rate = rate] {
        Random random(static_cast<uint64_t>(t));
        int64_t mine = 0;
        for (int i = 1; i <= kRounds; ++i) {
          const Instant now = kStart + i * kStepTime + Duration(random.Between(0, 2000));
          const int64_t n = random.Between(1, 4);
          if (bucket.TryTake(n, now)) mine += n;
          if (random.Chance(0.1)) mine += bucket.TakeUpTo(2, now);
          if (rate == 1e5 && mine > 4 && random.Chance(0.1)) {
            bucket.GiveBack(3, now - std::chrono::microseconds(50));
            mine -= 3;
          }
        }
        taken += mine;
      });
    }
    for (std::thread& thread : threads) thread.join();
    const Instant end = kStart + kRounds * kStepTime + Duration(2000);
    const auto made = static_cast<int64_t>(rate * (static_cast<double>(kRounds) * 1e-5 + 2e-6));
    const int64_t at_first = fill == kFull ? burst : 0;
    if (burst > 8) {
      EXPECT_EQ(bucket.Remaining(end), at_first + made - taken) << rate;
    } else {
      EXPECT_LE(taken, at_first + made);
      EXPECT_LE(bucket.Remaining(end), burst);
      EXPECT_GE(taken, made / 2);
    }
  }
}

// A rate that changes under the takers costs them next to nothing, even where they fight for the
// last unit.
TEST(TokenBucket, RacesWithNewRatesLoseLittle) {
  constexpr int kRounds = 30'000;
  TokenBucket bucket(Rate(1e6, 1'000'000), kEmpty, kStart);
  std::atomic<int64_t> taken{0};
  std::atomic<int> running{2};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 1; i <= kRounds; ++i) {
        if (bucket.TryTake(1, kStart + Duration(int64_t{i} * 1000))) ++taken;
      }
      --running;
    });
  }
  // The same rate, in units of another size each time.
  for (int i = 0; running > 0; ++i) bucket.SetRate(Rate(i % 2 == 0 ? 1e3 : 1e6, 1'000'000), kStart);
  for (std::thread& thread : threads) thread.join();
  bucket.SetRate(Rate(1e6, 1'000'000), kStart);
  const int64_t left = bucket.Remaining(kStart + Duration(int64_t{kRounds} * 1000));
  EXPECT_LE(taken + left, kRounds);
  EXPECT_GE(taken + left, 0);
  EXPECT_GT(taken, 0);
}

}  // namespace
}  // namespace dynlib::admission
