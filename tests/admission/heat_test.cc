#include "dynlib/admission/heat.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr Instant kStart = Instant::FromNanos(7'000'000'000);

std::string Key(uint64_t n) {
  char text[24];
  std::snprintf(text, sizeof(text), "user%012llu", static_cast<unsigned long long>(n));
  return text;
}

// Keys with frequency proportional to 1 / rank^theta, ranks strewn over the key space.
class Zipf {
 public:
  Zipf(size_t keys, double theta, Random& random) : order_(keys) {
    double sum = 0;
    for (size_t i = 0; i < keys; ++i) {
      sums_.push_back(sum += 1 / std::pow(static_cast<double>(i + 1), theta));
      order_[i] = i;
    }
    for (size_t i = keys; i > 1; --i) std::swap(order_[i - 1], order_[random.Below(i)]);
  }
  uint64_t Next(Random& random) const {
    const double at = random.Unit() * sums_.back();
    const auto rank = std::lower_bound(sums_.begin(), sums_.end(), at) - sums_.begin();
    return order_[static_cast<size_t>(rank)];
  }

 private:
  std::vector<double> sums_;
  std::vector<uint64_t> order_;
};

// 200 requests a second, from `from` on, for so long; returns the end.
Instant Load(PartitionHeat& heat, Instant from, Duration time, std::function<std::string()> key) {
  Instant now = from;
  for (; now < from + time; now = now + milliseconds(5)) heat.Record(key(), 2, now);
  return now;
}

// The load of the hotter side if the next requests come as the last ones did.
double HotterShare(const std::string& at, const std::function<std::string()>& key) {
  int left = 0;
  constexpr int kRequests = 20'000;
  for (int i = 0; i < kRequests; ++i) left += key() < at ? 1 : 0;
  return std::max(left, kRequests - left) / static_cast<double>(kRequests);
}

TEST(SplitAdvice, HalvesAnEvenLoad) {
  Random random(1);
  PartitionHeat heat({}, 1);
  const auto key = [&] { return Key(random.Below(1'000'000)); };
  const Instant now = Load(heat, kStart, seconds(50), key);
  const SplitAdvice advice = heat.AdviseSplit(now);
  ASSERT_EQ(advice.verdict, SplitVerdict::kSplit) << SplitVerdictName(advice.verdict);
  EXPECT_LE(HotterShare(advice.at, key), 0.6);
  EXPECT_NEAR(advice.left_share, 0.5, 0.1);
  EXPECT_NEAR(advice.units_per_second, 400, 10);
}

TEST(SplitAdvice, HalvesZipfLoads) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    const Zipf zipf(10'000, 0.99, random);
    PartitionHeat heat({}, seed);
    const auto key = [&] { return Key(zipf.Next(random)); };
    const Instant now = Load(heat, kStart, seconds(50), key);
    const SplitAdvice advice = heat.AdviseSplit(now);
    ASSERT_EQ(advice.verdict, SplitVerdict::kSplit)
        << seed << " " << SplitVerdictName(advice.verdict);
    EXPECT_LE(HotterShare(advice.at, key), 0.6) << seed;
  }
}

// A hot range that moved minutes ago: the advice follows.
TEST(SplitAdvice, FollowsAHotRange) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    PartitionHeat heat({}, seed);
    uint64_t base = 0;
    const auto key = [&] {
      return Key(random.Chance(0.8) ? base + random.Below(1000) : random.Below(1'000'000));
    };
    Instant now = kStart;
    for (int shift = 0; shift < 4; ++shift) {
      base = random.Below(999'000);
      now = Load(heat, now, seconds(125), key);
      const SplitAdvice advice = heat.AdviseSplit(now);
      ASSERT_EQ(advice.verdict, SplitVerdict::kSplit)
          << seed << " " << SplitVerdictName(advice.verdict);
      EXPECT_LE(HotterShare(advice.at, key), 0.6) << seed << " " << shift;
    }
  }
}

TEST(SplitAdvice, RefusesForOneHotItem) {
  Random random(2);
  PartitionHeat heat({}, 2);
  const auto key = [&] { return Key(random.Chance(0.8) ? 4711 : random.Below(10'000)); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(50), key));
  EXPECT_EQ(advice.verdict, SplitVerdict::kOneHotItem) << SplitVerdictName(advice.verdict);
  EXPECT_EQ(advice.hottest, Key(4711));
  EXPECT_NEAR(advice.hottest_share, 0.8, 0.03);
}

TEST(SplitAdvice, RefusesForTheOnlyItem) {
  PartitionHeat heat({}, 2);
  const auto key = [&] { return Key(1); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(50), key));
  EXPECT_EQ(advice.verdict, SplitVerdict::kOneHotItem) << SplitVerdictName(advice.verdict);
}

// Two hot items can be told apart.
TEST(SplitAdvice, PartsTwoHotItems) {
  Random random(3);
  PartitionHeat heat({}, 3);
  const auto key = [&] { return Key(random.Chance(0.5) ? 10 : 11); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(50), key));
  ASSERT_EQ(advice.verdict, SplitVerdict::kSplit) << SplitVerdictName(advice.verdict);
  EXPECT_GT(advice.at, Key(10));
  EXPECT_LE(advice.at, Key(11));
}

TEST(SplitAdvice, RefusesForAscendingKeys) {
  PartitionHeat heat({}, 4);
  uint64_t next = 0;
  const auto key = [&] { return Key(next++); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(50), key));
  EXPECT_EQ(advice.verdict, SplitVerdict::kSequential) << SplitVerdictName(advice.verdict);
}

// Several writers of time stamps: not in strict order, and yet all at the end that moves on.
TEST(SplitAdvice, RefusesForAFrontierThatMoves) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    PartitionHeat heat({}, seed);
    uint64_t next = 0;
    const auto key = [&] { return Key(++next * 10 + random.Below(2000)); };
    for (const int time : {50, 75, 140}) {
      const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(time), key));
      EXPECT_EQ(advice.verdict, SplitVerdict::kSequential)
          << seed << " " << SplitVerdictName(advice.verdict);
    }
  }
}

TEST(SplitAdvice, RefusesForAScanAroundAndAround) {
  PartitionHeat heat({}, 5);
  uint64_t next = 0;
  const auto key = [&] { return Key(next++ % 1000); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(50), key));
  EXPECT_EQ(advice.verdict, SplitVerdict::kSequential) << SplitVerdictName(advice.verdict);
}

TEST(SplitAdvice, NeedsEnoughSeenAndEnoughLoad) {
  Random random(6);
  const auto key = [&] { return Key(random.Below(1000)); };
  PartitionHeat heat({.split_above_units_per_second = 1000}, 6);
  EXPECT_EQ(heat.AdviseSplit(kStart).verdict, SplitVerdict::kTooFew);
  Instant now = Load(heat, kStart, seconds(10), key);
  EXPECT_EQ(heat.AdviseSplit(now).verdict, SplitVerdict::kTooFew);
  now = Load(heat, now, seconds(40), key);
  EXPECT_EQ(heat.AdviseSplit(now).verdict, SplitVerdict::kCool);
  EXPECT_EQ(heat.AdviseSplit(now + minutes(5)).verdict, SplitVerdict::kTooFew);
  heat.Clear();
  EXPECT_EQ(heat.AdviseSplit(now).verdict, SplitVerdict::kTooFew);
}

TEST(SplitAdvice, SamplingSeesTheSame) {
  Random random(7);
  const Zipf zipf(10'000, 0.99, random);
  PartitionHeat heat({.sample_every = 8}, 7);
  const auto key = [&] { return Key(zipf.Next(random)); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(55), key));
  ASSERT_EQ(advice.verdict, SplitVerdict::kSplit) << SplitVerdictName(advice.verdict);
  EXPECT_LE(HotterShare(advice.at, key), 0.62);
  EXPECT_NEAR(advice.units_per_second, 400, 40);
}

TEST(SplitAdvice, LongKeysCountByTheirFirstBytes) {
  Random random(8);
  PartitionHeat heat({.key_bytes_max = 16}, 8);
  const auto key = [&] { return Key(random.Below(1000)) + std::string(500, 'x'); };
  const SplitAdvice advice = heat.AdviseSplit(Load(heat, kStart, seconds(50), key));
  ASSERT_EQ(advice.verdict, SplitVerdict::kSplit);
  EXPECT_LE(advice.at.size(), 16u);
  EXPECT_LE(HotterShare(advice.at, key), 0.6);
}

TEST(SplitAdvice, IsAFunctionOfCallsAndSeed) {
  std::string at[2];
  for (std::string& a : at) {
    Random random(9);
    PartitionHeat heat({.sample_every = 3}, 9);
    const auto key = [&] { return Key(random.Below(100'000)); };
    a = heat.AdviseSplit(Load(heat, kStart, seconds(50), key)).at;
  }
  EXPECT_EQ(at[0], at[1]);
}

TEST(SplitAdvice, TimeThatGoesBackIsHarmless) {
  Random random(10);
  PartitionHeat heat({}, 10);
  for (int i = 0; i < 20'000; ++i) {
    heat.Record(Key(random.Below(1000)), 1, kStart + seconds(random.Between(-10, 100)));
  }
  heat.AdviseSplit(Instant());
  EXPECT_GE(heat.UnitsPerSecond(Instant()), 0);
}

TEST(HeatOptions, AreChecked) {
  EXPECT_TRUE(Validate(HeatOptions{}).ok());
  const std::pair<HeatOptions, const char*> bad[] = {
      {{.boundaries_max = 7}, "boundaries_max"},
      {{.key_bytes_max = 0}, "key_bytes_max"},
      {{.window = Duration(0)}, "window"},
      {{.sample_every = 0}, "sample_every"},
      {{.samples_min = 1}, "samples_min"},
      {{.side_share_max = 0.5}, "side_share_max"},
      {{.split_above_units_per_second = -1}, "split_above_units_per_second"}};
  for (const auto& [options, field] : bad) {
    EXPECT_EQ(Validate(options).code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(Validate(options).message()), HasSubstr(field));
  }
}

TEST(MergeAdvice, MergesColdSmallOldNeighbours) {
  const MergeOptions options{.units_per_second_max = 100, .bytes_max = 1000};
  const HeatSummary cold{.units_per_second = 40, .bytes = 400, .observed = minutes(20)};
  EXPECT_EQ(AdviseMerge(cold, cold, options), MergeVerdict::kMerge);
  HeatSummary other = cold;
  other.units_per_second = 60;
  EXPECT_EQ(AdviseMerge(cold, other, options), MergeVerdict::kTooHot);
  other = cold;
  other.bytes = 600;
  EXPECT_EQ(AdviseMerge(other, cold, options), MergeVerdict::kTooLarge);
  other.bytes = UINT64_MAX;
  EXPECT_EQ(AdviseMerge(cold, other, options), MergeVerdict::kTooLarge);
  other = cold;
  other.observed = minutes(9);
  EXPECT_EQ(AdviseMerge(other, cold, options), MergeVerdict::kTooYoung);
}

}  // namespace
}  // namespace dynlib::admission
