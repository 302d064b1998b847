#include "dynlib/store/tree.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/sim/disk.h"
#include "dynlib/store/page_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using ::testing::HasSubstr;

class TreeTest : public testing::Test {
 protected:
  TreeTest() : disk_(1) { Reopen(); }

  void Reopen() {
    file_.reset();
    auto file = PageFile::Open({.growth_bytes_min = 64 << 10}, &disk_, "pages");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    tree_ = file_->FindTree(TreeId{1});
    if (tree_ == nullptr) tree_ = *file_->CreateTree(TreeId{1});
  }

  void Put(std::string key, std::string value) {
    WriteBatch batch;
    batch.Put(std::move(key), std::move(value));
    Apply(batch);
  }
  void Apply(const WriteBatch& batch) {
    absl::Status status = tree_->Apply(batch, tree_->position() + 1);
    ASSERT_TRUE(status.ok()) << status;
  }
  void CheckpointAndVerify() {
    absl::Status status = file_->Checkpoint();
    ASSERT_TRUE(status.ok()) << status;
    PageFile::VerifyReport report;
    status = file_->Verify(&report);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(report.leaked_units, 0u);
  }
  std::vector<std::string> Keys(std::string_view start, std::string_view end, ScanOrder order,
                                size_t limit = 1000) {
    std::vector<std::string> keys;
    absl::Status status =
        tree_->snapshot().Scan(start, end, order, [&](std::string_view key, std::string_view) {
          keys.emplace_back(key);
          return keys.size() < limit;
        });
    EXPECT_TRUE(status.ok()) << status;
    return keys;
  }

  sim::SimDisk disk_;
  std::unique_ptr<PageFile> file_;
  Tree* tree_ = nullptr;
};

TEST_F(TreeTest, EmptyTreeHasNothing) {
  EXPECT_EQ(*tree_->snapshot().Get("a"), std::nullopt);
  EXPECT_TRUE(Keys("", "", ScanOrder::kForward).empty());
  EXPECT_TRUE(tree_->snapshot().empty());
  EXPECT_EQ(*Snapshot().Get("a"), std::nullopt);
}

TEST_F(TreeTest, TheLastOperationOnAKeyWins) {
  WriteBatch batch;
  batch.Put("a", "1");
  batch.Put("b", "1");
  batch.Delete("b");
  batch.Put("a", "2");
  batch.Delete("c");
  batch.Put("c", "3");
  Apply(batch);
  EXPECT_EQ(*tree_->snapshot().Get("a"), "2");
  EXPECT_EQ(*tree_->snapshot().Get("b"), std::nullopt);
  EXPECT_EQ(*tree_->snapshot().Get("c"), "3");
}

TEST_F(TreeTest, EmptyKeysAndValuesAreKeysAndValues) {
  Put("", "empty");
  Put("x", "");
  EXPECT_EQ(*tree_->snapshot().Get(""), "empty");
  EXPECT_EQ(*tree_->snapshot().Get("x"), "");
  EXPECT_EQ(Keys("", "", ScanOrder::kForward), (std::vector<std::string>{"", "x"}));
}

TEST_F(TreeTest, LimitsAreNamedAndNothingIsApplied) {
  WriteBatch batch;
  batch.Put("a", "1");
  batch.Put(std::string(kMaxKeyBytes + 1, 'k'), "");
  absl::Status status = tree_->Apply(batch, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("8193 bytes; at most 8192"));
  WriteBatch long_value;
  long_value.Put("a", std::string(kMaxValueBytes + 1, 'v'));
  EXPECT_TRUE(absl::IsInvalidArgument(tree_->Apply(long_value, 1)));
  EXPECT_EQ(tree_->position(), 0u);
  EXPECT_TRUE(tree_->snapshot().empty());

  WriteBatch longest;
  longest.Put(std::string(kMaxKeyBytes, 'k'), std::string(kMaxValueBytes, 'v'));
  longest.Put(std::string(kMaxKeyBytes, 'l'), std::string(kMaxInlineValueBytes, 'v'));
  Apply(longest);
  CheckpointAndVerify();
  Reopen();
  EXPECT_EQ(*tree_->snapshot().Get(std::string(kMaxKeyBytes, 'k')),
            std::string(kMaxValueBytes, 'v'));
}

TEST_F(TreeTest, PositionsDoNotGoBack) {
  WriteBatch batch;
  ASSERT_TRUE(tree_->Apply(batch, 5).ok());  // an empty batch moves the position alone
  ASSERT_TRUE(tree_->Apply(batch, 5).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(tree_->Apply(batch, 4)));
  EXPECT_EQ(tree_->position(), 5u);
  EXPECT_EQ(tree_->snapshot().position(), 5u);
}

TEST_F(TreeTest, ScansHonourTheirBounds) {
  for (int i = 100; i < 1000; ++i) Put(std::to_string(i), std::string(50, 'v'));
  EXPECT_EQ(Keys("200", "203", ScanOrder::kForward),
            (std::vector<std::string>{"200", "201", "202"}));
  EXPECT_EQ(Keys("200", "203", ScanOrder::kReverse),
            (std::vector<std::string>{"202", "201", "200"}));
  EXPECT_EQ(Keys("2005", "2020", ScanOrder::kForward), (std::vector<std::string>{"201", "202"}));
  EXPECT_EQ(Keys("998", "", ScanOrder::kReverse), (std::vector<std::string>{"999", "998"}));
  EXPECT_EQ(Keys("", "101", ScanOrder::kForward), (std::vector<std::string>{"100"}));
  EXPECT_EQ(Keys("", "", ScanOrder::kForward, 2), (std::vector<std::string>{"100", "101"}));
  EXPECT_EQ(Keys("", "", ScanOrder::kReverse, 2), (std::vector<std::string>{"999", "998"}));
  EXPECT_TRUE(Keys("5", "5", ScanOrder::kForward).empty());
  EXPECT_TRUE(Keys("6", "5", ScanOrder::kReverse).empty());
  EXPECT_TRUE(Keys("9990", "", ScanOrder::kForward).empty());
}

TEST_F(TreeTest, ScansGoFromLeafToLeafWhateverTheLengths) {
  Model rows;
  WriteBatch batch;
  for (int i = 0; i < 900; ++i) {
    // Now and then a long key, and a value in an extent of its own.
    const std::string key = std::to_string(1000 + i) + std::string(i % 70 == 0 ? 300 : i % 37, 'k');
    const std::string value(i % 50 == 0 ? 3000 : i * 7 % 1000, static_cast<char>('a' + i % 26));
    rows[key] = value;
    batch.Put(key, value);
  }
  Apply(batch);
  CheckpointAndVerify();
  using Rows = std::vector<std::pair<std::string, std::string>>;
  for (const bool in_memory : {true, false}) {
    for (const auto& [start, end] : Rows{{"", ""}, {"1003", "1890"}, {"1500", ""}, {"", "1207"}}) {
      const auto last = end.empty() ? rows.end() : rows.lower_bound(end);
      const Rows expected(rows.lower_bound(start), last);
      for (const ScanOrder order : {ScanOrder::kForward, ScanOrder::kReverse}) {
        if (!in_memory) Reopen();
        Rows found;
        const absl::Status status = tree_->snapshot().Scan(
            start, end, order, [&found](std::string_view key, std::string_view value) {
              found.emplace_back(key, value);
              return true;
            });
        EXPECT_TRUE(status.ok()) << status;
        if (order == ScanOrder::kReverse) std::reverse(found.begin(), found.end());
        EXPECT_EQ(found, expected) << start << " to " << end;
      }
    }
  }
}

TEST_F(TreeTest, ASnapshotNeverChanges) {
  Put("a", "1");
  Snapshot before = tree_->snapshot();
  Put("a", "2");
  Put("b", "2");
  Snapshot copy = before;
  EXPECT_EQ(*copy.Get("a"), "1");
  EXPECT_EQ(*copy.Get("b"), std::nullopt);
  EXPECT_EQ(copy.position(), 1u);
  EXPECT_EQ(*tree_->snapshot().Get("a"), "2");
}

TEST_F(TreeTest, MemoryOnlyReadsNeverTouchTheDisk) {
  Put("a", "1");
  Put("big", std::string(5000, 'b'));
  EXPECT_EQ(*tree_->snapshot().Get("a", ReadMode::kMemoryOnly), "1");
  CheckpointAndVerify();
  Reopen();
  uint64_t calls = disk_.calls();
  EXPECT_TRUE(absl::IsUnavailable(tree_->snapshot().Get("a", ReadMode::kMemoryOnly).status()));
  auto ignore = [](std::string_view, std::string_view) { return true; };
  EXPECT_TRUE(absl::IsUnavailable(
      tree_->snapshot().Scan("", "", ScanOrder::kForward, ignore, ReadMode::kMemoryOnly)));
  EXPECT_EQ(disk_.calls(), calls);
  EXPECT_EQ(*tree_->snapshot().Get("a"), "1");
  calls = disk_.calls();
  EXPECT_EQ(*tree_->snapshot().Get("a", ReadMode::kMemoryOnly), "1");
  EXPECT_TRUE(absl::IsUnavailable(tree_->snapshot().Get("big", ReadMode::kMemoryOnly).status()));
  EXPECT_EQ(disk_.calls(), calls);
}

TEST_F(TreeTest, DeletingEverythingLeavesAnEmptyTree) {
  Random random(4);
  WriteBatch fill;
  Model model;
  AddRandomOperations(random, 3000, 3000, fill, model);
  Apply(fill);
  CheckpointAndVerify();
  // In random order and in batches of several sizes, so that pages shrink and merge on the way.
  std::vector<std::string> keys;
  for (const auto& [key, value] : model) keys.push_back(key);
  std::shuffle(keys.begin(), keys.end(), random);
  while (!keys.empty()) {
    WriteBatch batch;
    for (uint64_t n = 1 + random.Below(200); n > 0 && !keys.empty(); --n) {
      batch.Delete(keys.back());
      model.erase(keys.back());
      keys.pop_back();
    }
    Apply(batch);
    ASSERT_EQ(Contents(tree_->snapshot()), model);
  }
  EXPECT_TRUE(tree_->snapshot().empty());
  CheckpointAndVerify();
  CheckpointAndVerify();
  Put("again", "1");
  CheckpointAndVerify();
  Reopen();
  EXPECT_EQ(Contents(tree_->snapshot()), (Model{{"again", "1"}}));
}

TEST_F(TreeTest, ApplyingTheSameAgainRewritesNothing) {
  WriteBatch batch;
  for (int i = 0; i < 500; ++i) batch.Put("key" + std::to_string(i), "value");
  Apply(batch);
  CheckpointAndVerify();
  uint64_t written = file_->stats().pages_written;
  Apply(batch);
  WriteBatch nothing;
  nothing.Delete("absent");
  Apply(nothing);
  CheckpointAndVerify();
  EXPECT_EQ(file_->stats().pages_written, written);
  EXPECT_EQ(tree_->durable_position(), 3u);
}

TEST_F(TreeTest, AscendingKeysFillPages) {
  for (int i = 0; i < 5000; ++i) Put("key" + std::to_string(100000 + i), std::string(80, 'v'));
  CheckpointAndVerify();
  // 5,000 entries of 5 + 80 bytes and 16 of overhead, in pages at least nine tenths full.
  EXPECT_LE(file_->stats().bytes_written, 5000 * 101 * 10 / 9 + 4 * kPageTargetBytes);
}

struct Kept {
  Snapshot snapshot;
  Model model;
};

// Several trees, random batches, snapshots compared later, both ways, checkpoints and reopening
// between.
void RunRandom(uint64_t seed, uint64_t key_space, int steps) {
  SCOPED_TRACE(seed);
  Random random(seed);
  sim::SimDisk disk(seed);
  auto open = [&] {
    auto file =
        PageFile::Open({.growth_bytes_min = 64 << 10, .write_bytes_max = 32 << 10}, &disk, "pages");
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  };
  std::unique_ptr<PageFile> file = open();
  std::map<TreeId, Model> models;
  std::vector<Kept> kept;
  for (int step = 0; step < steps; ++step) {
    TreeId id{random.Below(3)};
    Tree* tree = file->FindTree(id);
    ASSERT_EQ(tree != nullptr, models.contains(id));
    if (tree == nullptr) {
      tree = *file->CreateTree(id);
      models[id];
    }
    uint64_t count = random.Chance(0.1) ? random.Below(key_space) : random.Below(20);
    WriteBatch batch;
    AddRandomOperations(random, key_space, count, batch, models[id]);
    absl::Status applied = tree->Apply(batch, tree->position() + 1);
    ASSERT_TRUE(applied.ok()) << applied;

    std::string probe = ModelKey(random, key_space);
    auto found = tree->snapshot().Get(probe);
    ASSERT_TRUE(found.ok()) << found.status();
    auto expected = models[id].find(probe);
    ASSERT_EQ(found->has_value(), expected != models[id].end());
    if (found->has_value()) {
      ASSERT_EQ(**found, expected->second);
    }
    if (random.Chance(0.05)) kept.push_back({tree->snapshot(), models[id]});
    if (kept.size() > 3) {
      ASSERT_EQ(Contents(kept[0].snapshot, ScanOrder::kReverse), kept[0].model);
      kept.erase(kept.begin());
    }
    if (random.Chance(0.1)) {
      absl::Status status = file->Checkpoint();
      ASSERT_TRUE(status.ok()) << status;
      PageFile::VerifyReport report;
      status = file->Verify(&report);
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_EQ(report.leaked_units, 0u);
      ASSERT_EQ(tree->durable_position(), tree->position());
    }
    if (random.Chance(0.01)) {
      ASSERT_TRUE(file->DropTree(id).ok());
      models.erase(id);
    }
    if (random.Chance(0.03)) {
      for (const auto& [tree_id, model] : models) {
        ASSERT_EQ(Contents(file->FindTree(tree_id)->snapshot()), model);
      }
      for (const Kept& old : kept) ASSERT_EQ(Contents(old.snapshot), old.model);
      kept.clear();
      absl::Status status = file->Checkpoint();
      ASSERT_TRUE(status.ok()) << status;
      file.reset();
      file = open();
      ASSERT_EQ(file->Trees().size(), models.size());
    }
  }
}

TEST(TreeModelTest, RandomOperationsOnASmallKeySpace) {
  for (uint64_t seed = 1; seed <= 6; ++seed) RunRandom(seed, 60, 300);
}
TEST(TreeModelTest, RandomOperationsOnALargeKeySpace) {
  for (uint64_t seed = 11; seed <= 13; ++seed) RunRandom(seed, 5000, 250);
}

}  // namespace
}  // namespace dynlib::store
