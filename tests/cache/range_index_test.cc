#include "dynlib/cache/range_index.h"

#include <array>
#include <memory>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"
#include "gtest/gtest.h"
#include "tests/cache/values.h"

namespace dynlib::cache {
namespace {

using Index = RangeIndex<SpanTraits>;

constexpr Instant kNow = Instant::FromNanos(1'000'000'000);
constexpr Duration kSecond = std::chrono::seconds(1);

std::shared_ptr<const Span> Make(int first, std::optional<int> end, int version) {
  return std::make_shared<const Span>(Span{first, end, version});
}

// An empty one: nothing is held.
Cached<Index::Ref> Find(Index& index, int key) {
  Cached<Index::Ref> found;
  const bool held = index.Find(key, &found);
  EXPECT_EQ(held, found.value != nullptr);
  return found;
}

int VersionAt(Index& index, int key) {
  const Index::Ref value = Find(index, key).value;
  return value == nullptr ? 0 : value->version;
}

TEST(RangeIndex, FindsTheRangeThatHasTheKey) {
  Index index(CacheOptions{});
  index.Apply(Make(10, 20, 1), kNow);
  index.Apply(Make(20, 30, 2), kNow);
  EXPECT_EQ(VersionAt(index, 9), 0);
  EXPECT_EQ(VersionAt(index, 10), 1);
  EXPECT_EQ(VersionAt(index, 19), 1);
  EXPECT_EQ(VersionAt(index, 20), 2);
  EXPECT_EQ(VersionAt(index, 30), 0);
  index.Apply(Make(40, std::nullopt, 3), kNow);
  EXPECT_EQ(VersionAt(index, 1'000'000), 3);
}

TEST(RangeIndex, ASplitTakesItsPartAndLeavesTheRest) {
  Index index(CacheOptions{});
  index.Apply(Make(0, 100, 1), kNow);
  EXPECT_TRUE(index.Apply(Make(40, 60, 2), kNow).changed);
  EXPECT_EQ(index.size(), 3u);
  EXPECT_EQ(VersionAt(index, 39), 1);
  EXPECT_EQ(VersionAt(index, 40), 2);
  EXPECT_EQ(VersionAt(index, 59), 2);
  EXPECT_EQ(VersionAt(index, 60), 1);
  EXPECT_EQ(VersionAt(index, 99), 1);
}

TEST(RangeIndex, AMergeRemovesWhatItCovers) {
  Index index(CacheOptions{});
  for (int i = 0; i < 10; ++i) index.Apply(Make(i * 10, i * 10 + 10, 1), kNow);
  EXPECT_TRUE(index.Apply(Make(15, 75, 2), kNow).changed);
  EXPECT_EQ(index.size(), 6u);  // 0-10, 10-15, 15-75, 75-80, 80-90, 90-100
  EXPECT_EQ(VersionAt(index, 14), 1);
  EXPECT_EQ(VersionAt(index, 15), 2);
  EXPECT_EQ(VersionAt(index, 74), 2);
  EXPECT_EQ(VersionAt(index, 75), 1);
}

TEST(RangeIndex, AnOlderValueTakesOnlyWhatNobodyHolds) {
  Index index(CacheOptions{});
  index.Apply(Make(40, 60, 2), kNow);
  const Applied applied = index.Apply(Make(0, 100, 1), kNow);
  EXPECT_TRUE(applied.changed);
  EXPECT_TRUE(applied.refused);
  EXPECT_EQ(VersionAt(index, 50), 2);
  EXPECT_EQ(VersionAt(index, 0), 1);
  EXPECT_EQ(VersionAt(index, 99), 1);
  const Applied again = index.Apply(Make(45, 55, 1), kNow);
  EXPECT_FALSE(again.changed);
  EXPECT_TRUE(again.refused);
}

TEST(RangeIndex, TheSameVersionConfirms) {
  Index index(CacheOptions{});
  index.Apply(Make(0, 100, 1), kNow);
  const Applied applied = index.Apply(Make(0, 100, 1), kNow + kSecond);
  EXPECT_TRUE(applied.confirmed);
  EXPECT_FALSE(applied.changed);
  EXPECT_EQ(Find(index, 50).confirmed, kNow + kSecond);
  // An answer to an earlier request does not make it older.
  index.Apply(Make(0, 100, 1), kNow);
  EXPECT_EQ(Find(index, 50).confirmed, kNow + kSecond);
  // What is left of a trimmed value is confirmed too; what took its place is not.
  index.Apply(Make(50, 100, 2), kNow);
  index.Apply(Make(0, 100, 1), kNow + 2 * kSecond);
  EXPECT_EQ(Find(index, 0).confirmed, kNow + 2 * kSecond);
  EXPECT_EQ(Find(index, 50).confirmed, kNow);
}

TEST(RangeIndex, RefusesRangesWithoutKeys) {
  Index index(CacheOptions{});
  EXPECT_TRUE(index.Apply(Make(5, 5, 1), kNow).refused);
  EXPECT_TRUE(index.Apply(Make(5, 4, 1), kNow).refused);
  EXPECT_EQ(index.size(), 0u);
}

TEST(RangeIndex, AValueEndsWhatWasKnownToBeAbsent) {
  Index index(CacheOptions{.max_entries = 1});
  index.Deny(15, kNow, kNow);
  index.Deny(25, kNow, kNow);
  EXPECT_TRUE(index.IsAbsent(15, kNow));
  index.Apply(Make(10, 20, 1), kNow);
  EXPECT_FALSE(index.IsAbsent(15, kNow));
  index.Apply(Make(30, 40, 1), kNow);
  EXPECT_EQ(index.size(), 1u);
  EXPECT_FALSE(index.IsAbsent(15, kNow)) << "its value was evicted, but it exists";
  EXPECT_TRUE(index.IsAbsent(25, kNow));
}

TEST(RangeIndex, UsedRangesSurviveEviction) {
  Index index(CacheOptions{.max_entries = 20});
  index.Apply(Make(0, 1, 1), kNow);
  for (int i = 1; i < 1000; ++i) {
    EXPECT_EQ(VersionAt(index, 0), 1) << i;
    index.Apply(Make(i, i + 1, 1), kNow);
    EXPECT_LE(index.size(), 20u);
  }
}

// The index against an array that says for each key which value it has.
struct Model {
  static constexpr int kKeys = 64;
  std::array<int, kKeys> versions{};
  // Of each version, the value; a version is one value.
  void Apply(const Span& span) {
    for (int key = span.first; key < span.end.value_or(kKeys); ++key)
      versions[key] = std::max(versions[key], span.version);
  }
};

class RandomRanges : public ::testing::TestWithParam<uint64_t> {};

TEST_P(RandomRanges, AgreesWithTheModel) {
  Random random(GetParam());
  Index index(CacheOptions{});
  Model model;
  for (int step = 0; step < 400; ++step) {
    Span span;
    span.first = static_cast<int>(random.Below(Model::kKeys));
    if (!random.Chance(0.1)) {
      span.end = span.first + 1 + static_cast<int>(random.Below(Model::kKeys - span.first));
    }
    // Late ones too: half of the versions are older than the newest.
    span.version = 1 + static_cast<int>(random.Below(step + 1));
    index.Apply(std::make_shared<const Span>(span), kNow);
    model.Apply(span);
    for (int key = 0; key < Model::kKeys; ++key) {
      const Cached<Index::Ref> found = Find(index, key);
      ASSERT_EQ(found.value == nullptr ? 0 : found.value->version, model.versions[key])
          << "key " << key << " at step " << step;
      if (found.value != nullptr) {
        ASSERT_TRUE(Index::Covers(*found.value, key));
      }
    }
  }
}

TEST_P(RandomRanges, WithEvictionAndDenialNothingIsWrong) {
  Random random(GetParam());
  Index index(CacheOptions{.max_entries = 8, .max_absent_entries = 4, .deny_after = kSecond});
  for (int step = 0; step < 1000; ++step) {
    const Instant now = kNow + step * std::chrono::milliseconds(100);
    if (random.Chance(0.2)) {
      index.Deny(static_cast<int>(random.Below(Model::kKeys)), now, now);
    } else {
      const int first = static_cast<int>(random.Below(Model::kKeys));
      index.Apply(Make(first, first + 1 + static_cast<int>(random.Below(20)), step), now);
    }
    ASSERT_LE(index.size(), 8u);
    for (int key = 0; key < Model::kKeys; ++key) {
      const Cached<Index::Ref> found = Find(index, key);
      if (found.value != nullptr) {
        ASSERT_TRUE(Index::Covers(*found.value, key)) << key;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomRanges, ::testing::Range<uint64_t>(1, 40));

}  // namespace
}  // namespace dynlib::cache
