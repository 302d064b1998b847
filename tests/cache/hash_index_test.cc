#include "dynlib/cache/hash_index.h"

#include <map>
#include <memory>

#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"
#include "gtest/gtest.h"
#include "tests/cache/values.h"

namespace dynlib::cache {
namespace {

using Index = HashIndex<ItemTraits>;

constexpr Instant kNow = Instant::FromNanos(1'000'000'000);
constexpr Duration kSecond = std::chrono::seconds(1);

std::shared_ptr<const Item> Make(int key, int version) {
  return std::make_shared<const Item>(Item{key, version});
}

TEST(HashIndex, NewerReplacesOlderNeverTheOtherWay) {
  Index index(CacheOptions{});
  EXPECT_TRUE(index.Apply(Make(1, 5), kNow).changed);
  EXPECT_TRUE(index.Apply(Make(1, 4), kNow).refused);
  EXPECT_TRUE(index.Apply(Make(1, 5), kNow + kSecond).confirmed);
  EXPECT_EQ(index.Find(1, kNow).confirmed, kNow + kSecond);
  EXPECT_TRUE(index.Apply(Make(1, 6), kNow).changed);
  EXPECT_EQ(index.Find(1, kNow).value->version, 6);
  EXPECT_EQ(index.size(), 1u);
}

TEST(HashIndex, AbsenceIsBelievedForItsLifetime) {
  Index index(CacheOptions{.absent_lifetime = kSecond});
  EXPECT_FALSE(index.Find(1, kNow).absent);
  EXPECT_FALSE(index.Deny(1, kNow, kNow));
  EXPECT_TRUE(index.Find(1, kNow + kSecond / 2).absent);
  EXPECT_FALSE(index.Find(1, kNow + kSecond).absent);
}

TEST(HashIndex, AbsentKeysAreBounded) {
  Index index(CacheOptions{.max_entries = 100, .max_absent_entries = 3});
  for (int key = 0; key < 10; ++key) index.Deny(key, kNow, kNow);
  for (int key = 0; key < 10; ++key) EXPECT_EQ(index.Find(key, kNow).absent, key >= 7) << key;
  // The same ones again and again push nobody out.
  for (int i = 0; i < 10; ++i) index.Deny(9, kNow, kNow);
  EXPECT_TRUE(index.Find(7, kNow).absent);
}

TEST(HashIndex, AValueGoesOnlyWhenDeniedForLong) {
  Index index(CacheOptions{.deny_after = 5 * kSecond});
  index.Apply(Make(1, 1), kNow);
  EXPECT_FALSE(index.Deny(1, kNow + kSecond, kNow + kSecond));
  EXPECT_FALSE(index.Deny(1, kNow + 5 * kSecond, kNow + 5 * kSecond));
  index.Apply(Make(1, 1), kNow + 5 * kSecond);  // another server does know it
  EXPECT_FALSE(index.Deny(1, kNow + 6 * kSecond, kNow + 6 * kSecond));
  EXPECT_FALSE(index.Deny(1, kNow + 10 * kSecond, kNow + 10 * kSecond));
  EXPECT_TRUE(index.Deny(1, kNow + 11 * kSecond, kNow + 11 * kSecond));
  EXPECT_EQ(index.Find(1, kNow).value, nullptr);
  EXPECT_TRUE(index.Find(1, kNow + 11 * kSecond).absent);
}

TEST(HashIndex, ADenialFromBeforeTheValueIsIgnored) {
  Index index(CacheOptions{.deny_after = Duration(0)});
  index.Apply(Make(1, 1), kNow);
  EXPECT_FALSE(index.Deny(1, kNow - kSecond, kNow));
  EXPECT_NE(index.Find(1, kNow).value, nullptr);
}

TEST(HashIndex, UsedEntriesSurviveEviction) {
  Index index(CacheOptions{.max_entries = 20});
  index.Apply(Make(0, 1), kNow);
  for (int key = 1; key < 1000; ++key) {
    ASSERT_NE(index.Find(0, kNow).value, nullptr) << key;
    EXPECT_EQ(index.Apply(Make(key, 1), kNow).evicted, key < 20 ? 0u : 1u);
    EXPECT_LE(index.size(), 20u);
  }
}

TEST(HashIndex, ManyEntriesStayWithinTheBound) {
  Index index(CacheOptions{.max_entries = 2'000});
  for (int key = 0; key < 20'000; ++key) index.Apply(Make(key, key), kNow);
  EXPECT_LE(index.size(), 2'000u);
  EXPECT_GE(index.size(), 1'900u);
  EXPECT_EQ(index.Values().size(), index.size());
}

TEST(HashIndex, AgreesWithAMapUnderRandomOperations) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    Index index(
        CacheOptions{.max_entries = seed % 2 == 0 ? 500u : 5'000u, .deny_after = Duration(0)});
    std::map<int, int> model;
    for (int step = 0; step < 3'000; ++step) {
      const int key = static_cast<int>(random.Below(300));
      if (random.Chance(0.3)) {
        EXPECT_EQ(index.Deny(key, kNow, kNow), model.erase(key) == 1);
      } else {
        const int version = static_cast<int>(random.Below(1'000)) + 1;
        index.Apply(Make(key, version), kNow);
        model[key] = std::max(model[key], version);
      }
      const int asked = static_cast<int>(random.Below(300));
      const Found<Item> found = index.Find(asked, kNow);
      ASSERT_EQ(found.value != nullptr, model.contains(asked));
      if (found.value != nullptr) {
        ASSERT_EQ(found.value->key, asked);
        ASSERT_EQ(found.value->version, model[asked]);
      }
    }
    EXPECT_EQ(index.size(), model.size());
  }
}

}  // namespace
}  // namespace dynlib::cache
