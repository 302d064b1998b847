#include "dynlib/partition_map/perkle.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::partition_map {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Model = std::map<std::string, std::string>;
using Pair = std::pair<std::string, std::string>;

// Keys that share prefixes, are prefixes of one another, and part in either half of a byte.
std::string RandomKey(Random& random) {
  static constexpr char kBytes[] = {'\x00', '\x01', '\x10', '\x0f', '\x7f', '\x80', '\xf0', '\xff'};
  std::string key(random.Below(7), '\0');
  for (char& byte : key) byte = kBytes[random.Below(sizeof(kBytes))];
  if (random.Chance(0.1)) key += std::string(random.Below(40), 'x');
  return key;
}

// Of all sizes, so that leaves have few entries and many, and some have one that fits none; and
// such as end with what a key may end with.
std::string RandomValue(Random& random) {
  std::string value = std::to_string(random.Below(1000));
  if (random.Chance(0.2)) value += RandomKey(random);
  if (random.Chance(0.2)) value.resize(random.Below(random.Chance(0.02) ? 10'000 : 600), 'v');
  return value;
}

void Put(Perkle& tree, std::string_view key, std::string_view value) {
  ASSERT_THAT(tree.Put(key, value), IsOk());
}

Perkle FromModel(const Model& model) {
  Perkle tree;
  for (const auto& [key, value] : model) Put(tree, key, value);
  return tree;
}

std::optional<Pair> At(const Model& model, Model::const_iterator it) {
  if (it == model.end()) return std::nullopt;
  return *it;
}
std::optional<Pair> Before(const Model& model, Model::const_iterator it) {
  if (it == model.begin()) return std::nullopt;
  return *std::prev(it);
}
std::optional<Pair> Got(const std::optional<Perkle::Entry>& entry) {
  if (!entry.has_value()) return std::nullopt;
  return Pair(entry->key, entry->value);
}

std::vector<Pair> Scanned(const Perkle& tree, std::string_view first, std::string_view end,
                          ScanOrder order) {
  std::vector<Pair> found;
  tree.Scan(first, end, order, [&](std::string_view key, std::string_view value) {
    found.emplace_back(key, value);
    return true;
  });
  return found;
}

void ExpectSameNeighbours(const Perkle& tree, const Model& model, const std::string& key) {
  const auto lower = model.lower_bound(key);
  const auto upper = model.upper_bound(key);
  const auto exact = model.find(key);
  const auto found = tree.Find(key);
  ASSERT_EQ(found.has_value(), exact != model.end()) << Escape(key);
  if (found.has_value()) {
    ASSERT_EQ(*found, exact->second) << Escape(key);
  }
  ASSERT_EQ(Got(tree.Ceiling(key)), At(model, lower)) << Escape(key);
  ASSERT_EQ(Got(tree.Greater(key)), At(model, upper)) << Escape(key);
  ASSERT_EQ(Got(tree.Floor(key)), Before(model, upper)) << Escape(key);
  ASSERT_EQ(Got(tree.Less(key)), Before(model, lower)) << Escape(key);
}

void ExpectSameRange(const Perkle& tree, const Model& model, const std::string& first,
                     const std::string& end) {
  std::vector<Pair> expected;
  for (auto it = model.lower_bound(first); it != model.end(); ++it) {
    if (!end.empty() && it->first >= end) break;
    expected.emplace_back(*it);
  }
  ASSERT_EQ(Scanned(tree, first, end, ScanOrder::kForward), expected);
  std::reverse(expected.begin(), expected.end());
  ASSERT_EQ(Scanned(tree, first, end, ScanOrder::kReverse), expected);
}

void ExpectSamePrefix(const Perkle& tree, const Model& model, const std::string& prefix) {
  std::vector<Pair> expected;
  for (const auto& entry : model) {
    if (entry.first.starts_with(prefix)) expected.emplace_back(entry);
  }
  std::vector<Pair> found;
  tree.ScanPrefix(prefix, ScanOrder::kForward, [&](std::string_view key, std::string_view value) {
    found.emplace_back(key, value);
    return true;
  });
  ASSERT_EQ(found, expected) << Escape(prefix);
}

TEST(Perkle, EmptyTreeHasNothing) {
  const Perkle tree;
  EXPECT_EQ(tree.size(), 0u);
  EXPECT_EQ(tree.digest(), Digest128{});
  EXPECT_FALSE(tree.Find("").has_value());
  EXPECT_FALSE(tree.First().has_value());
  EXPECT_FALSE(tree.Floor("a").has_value());
  EXPECT_FALSE(tree.Ceiling("").has_value());
  EXPECT_FALSE(tree.BranchAt({}).has_value());
  EXPECT_THAT(Scanned(tree, "", "", ScanOrder::kReverse), IsEmpty());
  EXPECT_TRUE(tree.Verify());
}

TEST(Perkle, KeysAreOrderedAsUnsignedBytes) {
  Perkle tree;
  for (const char* key : {"\x7f", "\x80", "", "a", "ab", "b"}) Put(tree, key, key);
  EXPECT_THAT(Scanned(tree, "", "", ScanOrder::kForward),
              ElementsAre(Pair("", ""), Pair("a", "a"), Pair("ab", "ab"), Pair("b", "b"),
                          Pair("\x7f", "\x7f"), Pair("\x80", "\x80")));
  EXPECT_EQ(tree.Floor("aa")->key, "a");
  EXPECT_EQ(tree.Floor("abc")->key, "ab");
  EXPECT_EQ(tree.Less("a")->key, "");
  EXPECT_EQ(tree.Greater("b")->key, "\x7f");
}

TEST(Perkle, LimitsAreRefusedAndNothingChanges) {
  Perkle tree;
  Put(tree, std::string(Perkle::kKeyBytesMax, '\xff'), std::string(Perkle::kValueBytesMax, 'v'));
  const Digest128 digest = tree.digest();
  EXPECT_THAT(tree.Put(std::string(Perkle::kKeyBytesMax + 1, 'k'), "v"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("16385")));
  EXPECT_THAT(tree.Put("k", std::string(Perkle::kValueBytesMax + 1, 'v')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("65535")));
  EXPECT_EQ(tree.digest(), digest);
  EXPECT_TRUE(tree.Verify());
}

// PERKLE_OPERATIONS asks for more of them than a build has time for.
int Operations() {
  const char* wanted = std::getenv("PERKLE_OPERATIONS");
  return std::max(200, wanted != nullptr ? std::atoi(wanted) : 20'000);
}

// Every query kind against a sorted map, while keys come and go.
TEST(Perkle, AnswersAsASortedMapDoes) {
  Random random(1);
  Perkle tree;
  Model model;
  const int operations = Operations();
  for (int i = 0; i < operations; ++i) {
    const std::string key = RandomKey(random);
    const uint64_t choice = random.Below(10);
    if (choice < 3) {
      const std::string value = RandomValue(random);
      Put(tree, key, value);
      model[key] = value;
    } else if (choice < 6) {
      ASSERT_EQ(tree.Erase(key), model.erase(key) == 1) << Escape(key);
    } else if (choice < 9) {
      ExpectSameNeighbours(tree, model, key);
    }
    if (i % (operations / 200) == 0) {
      ExpectSameRange(tree, model, key, RandomKey(random));
      ExpectSamePrefix(tree, model, key.substr(0, 2));
      ASSERT_EQ(Got(tree.First()), At(model, model.begin()));
      ASSERT_EQ(Got(tree.Last()), Before(model, model.end()));
    }
    if (i % (operations / 20) == 0) {
      ASSERT_TRUE(tree.Verify());
    }
    ASSERT_EQ(tree.size(), model.size());
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(model.size(), 1'000u);
}

// Side by side as one by one, also where the floor is in another leaf than its neighbours.
TEST(Perkle, BatchesFindTheFloorsThatSingleLookUpsFind) {
  Random random(8);
  for (const size_t entries : {0, 1, 50, 5'000}) {
    Perkle tree;
    for (size_t i = 0; i < entries; ++i) Put(tree, RandomKey(random), RandomValue(random));
    std::vector<std::string> sought(300);
    for (std::string& key : sought) key = RandomKey(random);
    const std::vector<std::string_view> keys(sought.begin(), sought.end());
    std::vector<Perkle::Hit> hits(keys.size());
    tree.FloorHits(keys, hits);
    for (size_t i = 0; i < keys.size(); ++i) {
      const std::optional<Perkle::Entry> floor = tree.Floor(keys[i]);
      ASSERT_EQ(hits[i].found(), floor.has_value());
      if (!floor.has_value()) continue;
      std::string key, value;
      hits[i].ReadKey(key);
      hits[i].AppendValue(value);
      ASSERT_EQ(key, floor->key);
      ASSERT_EQ(value, floor->value);
      ASSERT_EQ(hits[i].exact(), key == keys[i]);
      const auto common = std::mismatch(key.begin(), key.end(), keys[i].begin(), keys[i].end());
      ASSERT_EQ(hits[i].matched(), static_cast<size_t>(common.first - key.begin()));
    }
  }
}

TEST(Perkle, RangesAreReplaced) {
  Random random(9);
  for (int round = 0; round < 100; ++round) {
    Model model;
    for (uint64_t i = random.Below(300); i > 0; --i) model[RandomKey(random)] = RandomValue(random);
    Perkle tree = FromModel(model);
    const std::string first = RandomKey(random);
    const std::string end = random.Chance(0.2) ? "" : RandomKey(random);
    auto within = [&](const std::string& key) {
      return key >= first && (end.empty() || key < end);
    };
    Model fresh;
    for (uint64_t i = random.Below(100); i > 0; --i) {
      const std::string key = RandomKey(random);
      if (within(key)) fresh[key] = RandomValue(random);
    }
    const std::vector<std::pair<std::string_view, std::string_view>> entries(fresh.begin(),
                                                                             fresh.end());
    ASSERT_THAT(tree.ReplaceRange(first, end, entries), IsOk());
    std::erase_if(model, [&](const auto& entry) { return within(entry.first); });
    model.insert(fresh.begin(), fresh.end());
    ASSERT_EQ(tree.digest(), FromModel(model).digest());
    ASSERT_TRUE(tree.Verify());
  }
  Perkle tree = FromModel({{"a", "1"}, {"c", "2"}});
  const Digest128 digest = tree.digest();
  using Entries = std::vector<std::pair<std::string_view, std::string_view>>;
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(tree.ReplaceRange("a", "c", Entries{{"c", ""}}), StatusIs(kInvalid, HasSubstr("c")));
  EXPECT_THAT(tree.ReplaceRange("b", "c", Entries{{"a", ""}}), StatusIs(kInvalid));
  EXPECT_THAT(tree.ReplaceRange("a", "", Entries{{"b", ""}, {"b", ""}}),
              StatusIs(kInvalid, HasSubstr("not greater")));
  EXPECT_EQ(tree.digest(), digest);
}

TEST(Perkle, BuiltFromSortedEntriesItIsTheSame) {
  Random random(10);
  Model model;
  for (int i = 0; i < 3'000; ++i) model[RandomKey(random)] = RandomValue(random);
  for (size_t length = 0; length < 400; ++length) model[std::string(length, 'k')] = "deep";
  const std::vector<std::pair<std::string_view, std::string_view>> pairs(model.begin(),
                                                                         model.end());
  const absl::StatusOr<Perkle> built = Perkle::FromSorted(pairs);
  ASSERT_THAT(built, IsOk());
  const Perkle put = FromModel(model);
  EXPECT_EQ(built->digest(), put.digest());
  EXPECT_EQ(built->MemoryBytes(), put.MemoryBytes());
  EXPECT_TRUE(built->Verify());
  EXPECT_FALSE(Perkle::FromSorted({{{"b", ""}, {"a", ""}}}).ok());
  EXPECT_EQ(Perkle::FromSorted({})->size(), 0u);
}

TEST(Perkle, CursorsGoBothWays) {
  Random random(2);
  Model model;
  for (int i = 0; i < 500; ++i) model.emplace(RandomKey(random), "v");
  PerkleCursor cursor(FromModel(model));
  for (int round = 0; round < 200; ++round) {
    auto it = model.lower_bound(RandomKey(random));
    if (it == model.end()) continue;
    cursor.SeekCeiling(it->first);
    for (int step = 0; step < 20; ++step) {
      ASSERT_TRUE(cursor.valid());
      ASSERT_EQ(cursor.key(), it->first);
      const bool forward = random.Chance(0.5);
      if (forward) {
        cursor.Next();
        if (++it == model.end()) break;
      } else {
        cursor.Previous();
        if (it == model.begin()) break;
        --it;
      }
    }
    if (it == model.end()) {
      ASSERT_FALSE(cursor.valid());
    }
  }
}

TEST(Perkle, EqualContentsHaveEqualDigestsWhateverTheirHistory) {
  Random random(3);
  for (int round = 0; round < 50; ++round) {
    Model model;
    for (uint64_t i = random.Below(200); i > 0; --i) model[RandomKey(random)] = RandomValue(random);
    std::vector<Pair> order(model.begin(), model.end());
    std::shuffle(order.begin(), order.end(), random);
    Perkle detour;
    for (const auto& [key, value] : order) {
      const std::string passing = RandomKey(random);
      Put(detour, passing, "passing");
      Put(detour, key, "old");
      Put(detour, key, value);
      if (!model.contains(passing)) detour.Erase(passing);
    }
    for (const auto& [key, value] : order) Put(detour, key, value);
    const Perkle straight = FromModel(model);
    ASSERT_EQ(straight.digest(), detour.digest());
    ASSERT_TRUE(detour.Verify());
    ASSERT_EQ(straight.MemoryBytes(), detour.MemoryBytes());
  }
}

TEST(Perkle, AnyDifferenceChangesTheDigest) {
  Model model = {{"", "1"}, {"a", "1"}, {"ab", "2"}, {"b", "3"}, {"ba", ""}};
  const Digest128 digest = FromModel(model).digest();
  for (const auto& [key, value] : model) {
    Perkle tree = FromModel(model);
    EXPECT_TRUE(tree.Erase(key));
    EXPECT_NE(tree.digest(), digest);
    Put(tree, key, value + "x");
    EXPECT_NE(tree.digest(), digest);
    Put(tree, key, value);
    EXPECT_EQ(tree.digest(), digest);
  }
  // The border between key and value counts.
  Perkle one, other;
  Put(one, "ab", "c");
  Put(other, "a", "bc");
  EXPECT_NE(one.digest(), other.digest());
}

TEST(Perkle, CopiesKeepTheirVersion) {
  Random random(4);
  Perkle tree;
  Model model;
  std::vector<std::pair<Perkle, Model>> versions;
  for (int i = 0; i < 2'000; ++i) {
    const std::string key = RandomKey(random);
    if (random.Chance(0.7)) {
      model[key] = Cat(i, RandomValue(random));
      Put(tree, key, model[key]);
    } else {
      tree.Erase(key);
      model.erase(key);
    }
    if (i % 100 == 0) versions.emplace_back(tree, model);
  }
  for (const auto& [version, expected] : versions) {
    ASSERT_TRUE(version.Verify());
    ASSERT_EQ(Scanned(version, "", "", ScanOrder::kForward),
              std::vector<Pair>(expected.begin(), expected.end()));
  }
}

using Difference = std::tuple<std::string, std::optional<std::string>, std::optional<std::string>>;

std::vector<Difference> Differences(const Perkle& a, const Perkle& b) {
  std::vector<Difference> found;
  Perkle::Diff(a, b, [&](std::string_view key, auto in_a, auto in_b) {
    found.emplace_back(key, in_a, in_b);
    return true;
  });
  return found;
}

std::vector<Difference> Differences(const Model& a, const Model& b) {
  Model all = a;
  all.insert(b.begin(), b.end());
  std::vector<Difference> found;
  auto value = [](const Model& model, const std::string& key) {
    const auto it = model.find(key);
    return it == model.end() ? std::nullopt : std::make_optional(it->second);
  };
  for (const auto& [key, unused] : all) {
    if (value(a, key) != value(b, key)) found.emplace_back(key, value(a, key), value(b, key));
  }
  return found;
}

TEST(Perkle, DiffVisitsWhatDiffersInKeyOrder) {
  Random random(5);
  for (int round = 0; round < 300; ++round) {
    Model a, b;
    for (uint64_t i = random.Below(60); i > 0; --i) a[RandomKey(random)] = RandomValue(random);
    if (random.Chance(0.5)) b = a;
    for (uint64_t i = random.Below(20); i > 0; --i) b[RandomKey(random)] = Cat(random.Below(2));
    for (uint64_t i = random.Below(5); i > 0 && !b.empty(); --i) {
      b.erase(std::next(b.begin(), static_cast<int64_t>(random.Below(b.size()))));
    }
    ASSERT_EQ(Differences(FromModel(a), FromModel(b)), Differences(a, b)) << round;
  }
}

TEST(Perkle, DiffEndsWhenItsVisitorSaysSo) {
  const Perkle tree = FromModel({{"a", ""}, {"b", ""}, {"c", ""}});
  int visits = 0;
  Perkle::Diff(tree, Perkle(), [&](std::string_view, auto, auto) { return ++visits < 2; });
  EXPECT_EQ(visits, 2);
}

// What a subtree says holds for exactly the keys below its path, wherever the path ends.
TEST(Perkle, SubtreesAreComparableAtEveryPath) {
  Random random(6);
  for (int round = 0; round < 200; ++round) {
    Model a;
    for (uint64_t i = random.Below(100); i > 0; --i) a[RandomKey(random)] = RandomValue(random);
    Model b = a;
    for (uint64_t i = random.Below(4); i > 0; --i) b[RandomKey(random)] = "other";
    const Perkle tree_a = FromModel(a), tree_b = FromModel(b);
    const std::string bytes = RandomKey(random);
    for (uint32_t nibbles = 0; nibbles <= 2 * bytes.size(); ++nibbles) {
      PerklePath path = PerklePath::Prefix(std::string_view(bytes).substr(0, (nibbles + 1) / 2));
      path.nibbles = nibbles;
      if (nibbles % 2 == 1) path.bytes.back() = static_cast<char>(path.bytes.back() & 0xf0);
      ASSERT_TRUE(path.valid());
      Model below_a, below_b;
      for (const auto& e : a) {
        if (path.Contains(e.first)) below_a.insert(e);
      }
      for (const auto& e : b) {
        if (path.Contains(e.first)) below_b.insert(e);
      }
      const Perkle::Subtree in_a = tree_a.Summarize(path), in_b = tree_b.Summarize(path);
      ASSERT_EQ(in_a.entries, below_a.size());
      ASSERT_EQ(in_a.digest == in_b.digest, below_a == below_b);
      ASSERT_EQ(in_a.digest, FromModel(below_a).digest());

      std::vector<Pair> listed;
      tree_a.ScanSubtree(path, std::nullopt, [&](std::string_view key, std::string_view value) {
        listed.emplace_back(key, value);
        return true;
      });
      ASSERT_EQ(listed, std::vector<Pair>(below_a.begin(), below_a.end()));

      const auto branch = tree_a.BranchAt(path);
      ASSERT_EQ(branch.has_value(), !below_a.empty());
      if (!branch.has_value()) continue;
      uint64_t entries = branch->entry.has_value();
      for (const Perkle::Subtree& child : branch->children) {
        ASSERT_TRUE(child.path.valid());
        ASSERT_EQ(child.digest, tree_a.Summarize(child.path).digest);
        entries += child.entries;
      }
      ASSERT_EQ(entries, in_a.entries);
      if (branch->entry.has_value()) {
        ASSERT_EQ(a.at(branch->entry->key), branch->entry->value);
      }
    }
  }
}

TEST(Perkle, PathsFromOutsideAreChecked) {
  EXPECT_TRUE((PerklePath{"", 0}).valid());
  EXPECT_TRUE((PerklePath{"\x60", 1}).valid());
  EXPECT_FALSE((PerklePath{"\x61", 1}).valid());
  EXPECT_FALSE((PerklePath{"ab", 2}).valid());
  EXPECT_FALSE((PerklePath{"", 1}).valid());
  EXPECT_FALSE((PerklePath{"a", UINT32_MAX}).valid());
}

// A chain of keys, each the beginning of the next, is as deep as a tree can be: nothing recurses.
TEST(Perkle, DeepTreesNeedNoStack) {
  Perkle tree;
  for (size_t length = 0; length <= 900; ++length) Put(tree, std::string(length, 'k'), "v");
  const Perkle copy = tree;
  EXPECT_TRUE(tree.Erase(std::string(500, 'k')));
  EXPECT_EQ(Differences(copy, tree).size(), 1u);
  EXPECT_TRUE(tree.Verify());
  EXPECT_EQ(tree.Less(std::string(501, 'k'))->key.size(), 499u);
}

// Readers on other threads use copies while the writer goes on; run under the thread sanitizer.
TEST(Perkle, ReadersKeepTheirVersionWhileTheWriterGoesOn) {
  Random random(7);
  Perkle tree;
  for (int i = 0; i < 1'000; ++i) Put(tree, RandomKey(random), "v");
  std::vector<std::thread> readers;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    readers.emplace_back([version = tree, seed] {
      Random mine(seed);
      const Digest128 digest = version.digest();
      for (int i = 0; i < 2'000; ++i) {
        const Perkle copy = version;
        const std::string key = RandomKey(mine);
        const auto floor = copy.Floor(key);
        ASSERT_TRUE(!floor.has_value() || floor->key <= key);
      }
      ASSERT_TRUE(version.Verify());
      ASSERT_EQ(version.digest(), digest);
    });
  }
  for (int i = 0; i < 5'000; ++i) {
    if (random.Chance(0.5)) {
      Put(tree, RandomKey(random), "w");
    } else {
      tree.Erase(RandomKey(random));
    }
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_TRUE(tree.Verify());
}

}  // namespace
}  // namespace dynlib::partition_map
