// What is asked of an index with one value a key, of both that there are.
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/flat_index.h"
#include "dynlib/cache/hash_index.h"
#include "dynlib/cache/options.h"
#include "gtest/gtest.h"
#include "tests/cache/values.h"

namespace dynlib::cache {
namespace {

constexpr Instant kNow = Instant::FromNanos(1'000'000'000);
constexpr Duration kSecond = std::chrono::seconds(1);

template <typename TestedIndex>
class KeyIndex : public ::testing::Test {
 public:
  using Index = TestedIndex;
};
using Indexes = ::testing::Types<HashIndex<ItemTraits>, FlatIndex<ItemTraits>>;
TYPED_TEST_SUITE(KeyIndex, Indexes);

template <typename Index>
Applied Apply(Index& index, int key, int version, Instant as_of = kNow) {
  return index.Apply(Index::Own({key, version}), as_of);
}

// 0: nothing is held.
template <typename Index>
int VersionOf(Index& index, int key) {
  Cached<typename Index::Ref> found;
  if (!index.Find(key, &found)) return 0;
  EXPECT_EQ(found.value->key, key);
  return found.value->version;
}

template <typename Index>
Instant ConfirmedOf(Index& index, int key) {
  Cached<typename Index::Ref> found;
  EXPECT_TRUE(index.Find(key, &found));
  return found.confirmed;
}

TYPED_TEST(KeyIndex, NewerReplacesOlderNeverTheOtherWay) {
  typename TestFixture::Index index(CacheOptions{});
  EXPECT_TRUE(Apply(index, 1, 5, kNow).changed);
  EXPECT_TRUE(Apply(index, 1, 4, kNow).refused);
  EXPECT_TRUE(Apply(index, 1, 5, kNow + kSecond).confirmed);
  EXPECT_EQ(ConfirmedOf(index, 1), kNow + kSecond);
  EXPECT_TRUE(Apply(index, 1, 6, kNow).changed);
  EXPECT_EQ(VersionOf(index, 1), 6);
  EXPECT_EQ(index.size(), 1u);
}

TYPED_TEST(KeyIndex, AbsenceIsBelievedForItsLifetime) {
  typename TestFixture::Index index(CacheOptions{.absent_lifetime = kSecond});
  EXPECT_FALSE(index.IsAbsent(1, kNow));
  EXPECT_FALSE(index.Deny(1, kNow, kNow));
  EXPECT_TRUE(index.IsAbsent(1, kNow + kSecond / 2));
  EXPECT_FALSE(index.IsAbsent(1, kNow + kSecond));
}

TYPED_TEST(KeyIndex, AbsentKeysAreBounded) {
  typename TestFixture::Index index(CacheOptions{.max_entries = 100, .max_absent_entries = 3});
  for (int key = 0; key < 10; ++key) index.Deny(key, kNow, kNow);
  for (int key = 0; key < 10; ++key) EXPECT_EQ(index.IsAbsent(key, kNow), key >= 7) << key;
  // The same ones again and again push nobody out.
  for (int i = 0; i < 10; ++i) index.Deny(9, kNow, kNow);
  EXPECT_TRUE(index.IsAbsent(7, kNow));
}

TYPED_TEST(KeyIndex, AValueGoesOnlyWhenDeniedForLong) {
  typename TestFixture::Index index(CacheOptions{.deny_after = 5 * kSecond});
  Apply(index, 1, 1, kNow);
  EXPECT_FALSE(index.Deny(1, kNow + kSecond, kNow + kSecond));
  EXPECT_FALSE(index.Deny(1, kNow + 5 * kSecond, kNow + 5 * kSecond));
  Apply(index, 1, 1, kNow + 5 * kSecond);  // another server does know it
  EXPECT_FALSE(index.Deny(1, kNow + 6 * kSecond, kNow + 6 * kSecond));
  EXPECT_FALSE(index.Deny(1, kNow + 10 * kSecond, kNow + 10 * kSecond));
  EXPECT_TRUE(index.Deny(1, kNow + 11 * kSecond, kNow + 11 * kSecond));
  EXPECT_EQ(VersionOf(index, 1), 0);
  EXPECT_TRUE(index.IsAbsent(1, kNow + 11 * kSecond));
}

TYPED_TEST(KeyIndex, ADenialFromBeforeTheValueIsIgnored) {
  typename TestFixture::Index index(CacheOptions{.deny_after = Duration(0)});
  Apply(index, 1, 1, kNow);
  EXPECT_FALSE(index.Deny(1, kNow - kSecond, kNow));
  EXPECT_NE(VersionOf(index, 1), 0);
}

TYPED_TEST(KeyIndex, UsedEntriesSurviveEviction) {
  typename TestFixture::Index index(CacheOptions{.max_entries = 20});
  Apply(index, 0, 1, kNow);
  for (int key = 1; key < 1000; ++key) {
    ASSERT_NE(VersionOf(index, 0), 0) << key;
    EXPECT_EQ(Apply(index, key, 1, kNow).evicted, key < 20 ? 0u : 1u);
    EXPECT_LE(index.size(), 20u);
  }
}

TYPED_TEST(KeyIndex, ManyEntriesStayWithinTheBound) {
  typename TestFixture::Index index(CacheOptions{.max_entries = 2'000});
  for (int key = 0; key < 20'000; ++key) Apply(index, key, key, kNow);
  EXPECT_LE(index.size(), 2'000u);
  EXPECT_GE(index.size(), 1'900u);
  EXPECT_EQ(index.Entries().size(), index.size());
}

TYPED_TEST(KeyIndex, AgreesWithAMapUnderRandomOperations) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    typename TestFixture::Index index(
        CacheOptions{.max_entries = seed % 2 == 0 ? 500u : 5'000u, .deny_after = Duration(0)});
    std::map<int, int> model;
    for (int step = 0; step < 3'000; ++step) {
      const int key = static_cast<int>(random.Below(300));
      if (random.Chance(0.3)) {
        EXPECT_EQ(index.Deny(key, kNow, kNow), model.erase(key) == 1);
      } else {
        const int version = static_cast<int>(random.Below(1'000)) + 1;
        Apply(index, key, version, kNow);
        model[key] = std::max(model[key], version);
      }
      const int asked = static_cast<int>(random.Below(300));
      const auto held = model.find(asked);
      ASSERT_EQ(VersionOf(index, asked), held == model.end() ? 0 : held->second);
    }
    EXPECT_EQ(index.size(), model.size());
  }
}

// As many keys as the index may hold, coming and going: groups fill up, and entries that went
// elsewhere move back.
TYPED_TEST(KeyIndex, AgreesWithAMapWhenItIsFull) {
  typename TestFixture::Index index(
      CacheOptions{.max_entries = 300, .max_absent_entries = 1, .deny_after = Duration(0)});
  std::map<int, int> model;
  Random random(5);
  for (int step = 0; step < 100'000; ++step) {
    const int key = static_cast<int>(random.Below(600));
    if (model.size() == 300 || random.Chance(0.3)) {
      ASSERT_EQ(index.Deny(key, kNow, kNow), model.erase(key) == 1);
    } else {
      ASSERT_EQ(Apply(index, key, step + 1).evicted, 0u);
      model[key] = step + 1;
    }
    const int asked = static_cast<int>(random.Below(600));
    ASSERT_EQ(VersionOf(index, asked), model.contains(asked) ? model[asked] : 0);
  }
  ASSERT_EQ(index.Entries().size(), model.size());
  for (const auto& entry : index.Entries()) {
    EXPECT_EQ(entry.value->version, model[entry.value->key]);
    EXPECT_EQ(entry.confirmed, kNow);
  }
}

// Readers while a writer updates, erases and inserts: what stays is never missed, values are whole,
// versions do not go back.
TYPED_TEST(KeyIndex, ReadersNeverMissNorTearNorGoBack) {
  constexpr int kStay = 150;
  typename TestFixture::Index index(CacheOptions{.max_entries = 300, .deny_after = Duration(0)});
  for (int key = 0; key < kStay; ++key) Apply(index, key, 1);
  std::atomic<bool> ended = false;
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&, reader] {
      Random random(static_cast<uint64_t>(reader));
      std::vector<int> seen(kStay);
      while (!ended) {
        const int key = static_cast<int>(random.Below(kStay));
        const int version = VersionOf(index, key);
        if (version < 1 || version < seen[static_cast<size_t>(key)]) {
          ADD_FAILURE() << key << ": " << version;
          return;
        }
        seen[static_cast<size_t>(key)] = version;
      }
    });
  }
  Random random(9);
  for (int step = 2; step < 40'000; ++step) {
    Apply(index, static_cast<int>(random.Below(kStay)), step);
    const int guest = kStay + static_cast<int>(random.Below(130));
    if (random.Chance(0.5)) {
      Apply(index, guest, step);
    } else {
      index.Deny(guest, kNow, kNow);
    }
  }
  ended = true;
  for (std::thread& thread : readers) thread.join();
}

}  // namespace
}  // namespace dynlib::cache
