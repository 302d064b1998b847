#include "dynlib/base/random.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib {
namespace {

// Simulations are replayed by seed: these never change. The first seed's numbers are those of the
// authors' C code, with its state filled by their SplitMix64 from 0.
TEST(Random, GoldenNumbers) {
  Random zero(0);
  EXPECT_EQ(zero.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(zero.Next(), 0xbf6e1f784956452au);
  EXPECT_EQ(zero.Next(), 0x1a5f849d4933e6e0u);
  Random other(42);
  EXPECT_EQ(other.Next(), 0x15780b2e0c2ec716u);
  EXPECT_EQ(other.Below(1000), 378u);
  EXPECT_EQ(other.Between(-5, 5), 2);
}

TEST(Random, SameSeedSameNumbers) {
  Random a(7);
  Random b(7);
  Random c(8);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const uint64_t number = a.Next();
    ASSERT_EQ(number, b.Next());
    differs |= number != c.Next();
  }
  EXPECT_TRUE(differs);
}

TEST(Random, BelowStaysBelowAndReachesAll) {
  Random random(1);
  std::vector<int> seen(10, 0);
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t number = random.Below(10);
    ASSERT_LT(number, 10u);
    ++seen[number];
  }
  for (int count : seen) {
    EXPECT_GT(count, 850);
    EXPECT_LT(count, 1150);
  }
  EXPECT_EQ(random.Below(1), 0u);
  EXPECT_LT(random.Below(UINT64_MAX), UINT64_MAX);
}

TEST(Random, BetweenIncludesBothEnds) {
  Random random(2);
  std::set<int64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.Between(-2, 2));
  EXPECT_EQ(seen, (std::set<int64_t>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(random.Between(5, 5), 5);
  // The whole range, and ranges wider than half of it.
  random.Between(INT64_MIN, INT64_MAX);
  EXPECT_GE(random.Between(INT64_MIN, 0), INT64_MIN);
  EXPECT_GE(random.Between(-2, INT64_MAX), -2);
}

TEST(Random, ChanceAndUnit) {
  Random random(3);
  int hits = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double unit = random.Unit();
    ASSERT_GE(unit, 0.0);
    ASSERT_LT(unit, 1.0);
    hits += random.Chance(0.25);
    ASSERT_FALSE(random.Chance(0.0));
    ASSERT_FALSE(random.Chance(-1.0));
    ASSERT_TRUE(random.Chance(1.0));
    ASSERT_TRUE(random.Chance(2.0));
  }
  EXPECT_GT(hits, 2300);
  EXPECT_LT(hits, 2700);
}

TEST(Random, AForkGoesItsOwnWay) {
  Random a(9);
  Random fork = a.Fork();
  Random b(9);
  b.Next();
  // The parent's later numbers do not depend on what the fork drew.
  for (int i = 0; i < 10; ++i) fork.Next();
  EXPECT_EQ(a.Next(), b.Next());
}

TEST(Random, ShufflesWithAlgorithms) {
  std::vector<int> numbers(100);
  std::iota(numbers.begin(), numbers.end(), 0);
  Random random(4);
  std::shuffle(numbers.begin(), numbers.end(), random);
  EXPECT_FALSE(std::is_sorted(numbers.begin(), numbers.end()));
}

TEST(RandomDeathTest, BoundsAreChecked) {
  Random random(1);
  EXPECT_DEATH(random.Below(0), "bound > 0");
  EXPECT_DEATH(random.Between(1, 0), "low <= high");
}

}  // namespace
}  // namespace dynlib
