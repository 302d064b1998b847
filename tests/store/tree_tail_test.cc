// Rows behind leaves: puts that copy neither the leaf nor what is above it, and all who must not
// see them, or must not miss them.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/store/leaf_tail.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/one_tree.h"

namespace dynlib::store {
namespace {

using Model = std::map<std::string, std::string>;

std::string Key(uint64_t i) {
  std::string digits = std::to_string(i);
  return "row/" + std::string(8 - digits.size(), '0') + digits;
}

TEST(LeafTailTest, RowsShowToThoseWhoReadTheirVersion) {
  alignas(64) std::array<char, 1024> memory;
  auto* tail = new (memory.data()) LeafTail(memory.size() - sizeof(LeafTail), 100);
  tail->Put(0, "ab", "1", 1);
  EXPECT_EQ(tail->RowsAt(UINT64_MAX), 0u);
  EXPECT_EQ(tail->Find(tail->rows(), "ab", 1), std::nullopt);
  tail->Publish(1, 7, 120);
  EXPECT_EQ(tail->RowsAt(6), 0u);
  EXPECT_EQ(tail->RowsAt(7), 1u);
  tail->Put(1, "ab", "two", 1);
  tail->Put(2, "abcdefgh", "", 1);
  tail->Publish(3, 9, 150);
  EXPECT_EQ(tail->RowsAt(8), 1u);
  EXPECT_EQ(tail->RowsAt(9), 3u);
  EXPECT_EQ(tail->Find(1, "ab", 1), "1");
  EXPECT_EQ(tail->Find(3, "ab", 1), "two");
  EXPECT_EQ(tail->Find(3, "abcdefgh", 1), "");
  EXPECT_EQ(tail->Find(3, "abcdefgi", 1), std::nullopt);
  EXPECT_EQ(tail->page_bytes(), 150u);
}

TEST(LeafTailTest, IsFullByRowsOrByBytes) {
  alignas(64) std::array<char, 256> memory;
  auto* tail = new (memory.data()) LeafTail(memory.size() - sizeof(LeafTail), 100);
  EXPECT_TRUE(tail->HasRoom(LeafTail::kRowsMax, 192));
  EXPECT_FALSE(tail->HasRoom(LeafTail::kRowsMax + 1, 1));
  EXPECT_FALSE(tail->HasRoom(1, 193));
  tail->Put(0, "k", "v", 0);
  tail->Publish(1, 1, 100);
  EXPECT_EQ(tail->used(), LeafTail::RowBytes(1, 1));
  EXPECT_FALSE(tail->HasRoom(LeafTail::kRowsMax, 1));
  EXPECT_TRUE(tail->HasRoom(1, 192 - LeafTail::RowBytes(1, 1)));
}

class TreeTailTest : public OneTreeTest {
 protected:
  TreeTailTest() : OneTreeTest(64 << 20) {}

  void Reopen(uint64_t memory_bytes = 64 << 20) { OneTreeTest::Reopen(memory_bytes); }
  void Apply(const WriteBatch& batch) {
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    for (const WriteBatch::Operation& operation : batch.operations()) {
      if (operation.range_end.has_value()) {
        model_.erase(model_.lower_bound(std::string(operation.key)),
                     operation.range_end->empty()
                         ? model_.end()
                         : model_.lower_bound(std::string(*operation.range_end)));
      } else if (operation.value.has_value()) {
        model_[std::string(operation.key)] = *operation.value;
      } else {
        model_.erase(std::string(operation.key));
      }
    }
  }
  void Put(uint64_t i, std::string_view value) {
    WriteBatch batch;
    batch.Put(Key(i), value);
    Apply(batch);
  }
  // Leaves that are full enough, and that no checkpoint has.
  void Fill(uint64_t rows = 1000) {
    WriteBatch batch;
    for (uint64_t i = 0; i < rows; ++i) batch.Put(Key(10 * i), std::string(100, 'a'));
    Apply(batch);
  }
  uint64_t Behind() const { return file_->stats().rows_behind_leaves; }

  static void ExpectScans(const Snapshot& snapshot, const Model& model) {
    Model found;
    ASSERT_THAT(snapshot.Scan("", "", ScanOrder::kForward,
                              [&](std::string_view key, std::string_view value) {
                                found.emplace(key, value);
                                return true;
                              }),
                IsOk());
    EXPECT_EQ(found, model);
    std::vector<std::string> keys;
    ASSERT_THAT(snapshot.Scan("", "", ScanOrder::kReverse,
                              [&](std::string_view key, std::string_view) {
                                keys.emplace_back(key);
                                return true;
                              }),
                IsOk());
    std::reverse(keys.begin(), keys.end());
    std::vector<std::string> expected;
    for (const auto& [key, value] : model) expected.push_back(key);
    EXPECT_EQ(keys, expected);
  }
  void ExpectModel() {
    ExpectScans(tree_->snapshot(), model_);
    for (const auto& [key, value] : model_) {
      ASSERT_EQ(*tree_->Get(key), value) << key;
      ASSERT_EQ(*tree_->snapshot().Get(key), value) << key;
    }
    EXPECT_EQ(*tree_->Get("row/"), std::nullopt);
    EXPECT_EQ(*tree_->Get("s"), std::nullopt);
  }

  Model model_;
};

TEST_F(TreeTailTest, PutsGoBehindALeafThatNobodyHolds) {
  Fill();
  for (uint64_t i = 0; i < 20; ++i) Put(5000 + i % 7, "v" + std::to_string(i));
  EXPECT_EQ(Behind(), 20u);
  ExpectModel();
}

TEST_F(TreeTailTest, ALeafThatGrowsIsSplit) {
  Fill(100);
  for (uint64_t i = 0; i < 1000; ++i) Put(i, std::string(50, 'b'));
  EXPECT_GT(Behind(), 500u);
  ExpectModel();
}

TEST_F(TreeTailTest, OverwritingAFullLeafDoesNotSplitIt) {
  Fill();
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const uint64_t pages = file_->stats().pages_written;
  for (uint64_t i = 0; i < 500; ++i) Put(10 * (i % 10), std::to_string(i) + std::string(97, 'c'));
  EXPECT_GT(Behind(), 400u);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_LE(file_->stats().pages_written, pages + 3);
  ExpectModel();
}

TEST_F(TreeTailTest, ASnapshotKeepsWhatItSaw) {
  Fill();
  Put(5, "behind");
  const Snapshot before = tree_->snapshot();
  const Model then = model_;
  const uint64_t behind = Behind();
  Put(5, "not behind, since the leaf is held");
  EXPECT_EQ(Behind(), behind);
  for (uint64_t i = 0; i < 300; ++i) Put(i, std::to_string(i));
  ExpectScans(before, then);
  EXPECT_EQ(*before.Get(Key(5)), "behind");
  EXPECT_GT(Behind(), behind);  // the copies are nobody's
  ExpectModel();
}

TEST_F(TreeTailTest, SnapshotsAndCheckpointsBetweenPreparationAndPublication) {
  Fill();
  Put(5, "old");
  for (int checkpoint = 0; checkpoint < 3; ++checkpoint) {
    WriteBatch batch;
    batch.Put(Key(5), "new " + std::to_string(checkpoint));
    batch.Put(Key(6), "new");
    batch.Put(Key(7005), "new");
    const PageFile::TreeBatch of_tree{tree_, &batch};
    auto prepared = file_->Prepare(std::span(&of_tree, 1), tree_->position() + 1);
    ASSERT_THAT(prepared.status(), IsOk());
    const Model then = model_;
    const Snapshot before = tree_->snapshot();
    ExpectScans(before, then);
    EXPECT_EQ(*tree_->Get(Key(5)), then.at(Key(5)));
    if (checkpoint > 0) {
      ASSERT_THAT(file_->Checkpoint(), IsOk());
    }
    file_->Publish(*std::move(prepared));
    for (const auto& operation : batch.operations()) {
      model_[std::string(operation.key)] = *operation.value;
    }
    ExpectScans(before, then);
    EXPECT_EQ(*before.Get(Key(5)), then.at(Key(5)));
    ExpectModel();
    Put(5, "old " + std::to_string(checkpoint));
  }
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  ExpectModel();
}

// The snapshot is gone by the time of the publication, but a checkpoint has written the leaf.
TEST_F(TreeTailTest, ACheckpointThatBeganAndEndedBetweenPreparationAndPublication) {
  Fill();
  Put(5, "old");
  WriteBatch batch;
  batch.Put(Key(5), "new");
  const PageFile::TreeBatch of_tree{tree_, &batch};
  auto prepared = file_->Prepare(std::span(&of_tree, 1), tree_->position() + 1);
  ASSERT_THAT(prepared.status(), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  file_->Publish(*std::move(prepared));
  model_[Key(5)] = "new";
  ExpectModel();
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  ExpectModel();
  PageFile::VerifyReport report;
  EXPECT_THAT(file_->Verify(&report), IsOk());
}

TEST_F(TreeTailTest, WhatIsNotPublishedIsNotThere) {
  Fill();
  Put(5, "old");
  for (int i = 0; i < 20; ++i) {
    WriteBatch batch;
    batch.Put(Key(5), "never");
    batch.Put(Key(6), "never");
    const PageFile::TreeBatch of_tree{tree_, &batch};
    ASSERT_THAT(file_->Prepare(std::span(&of_tree, 1), tree_->position() + 1).status(), IsOk());
  }
  ExpectModel();
  Put(6, "new");
  ExpectModel();
}

TEST_F(TreeTailTest, DeletesAndRangesOverRowsBehindLeaves) {
  Fill();
  for (uint64_t i = 0; i < 1000; ++i) Put(7 * i, "behind");
  WriteBatch batch;
  batch.Delete(Key(7));
  batch.Delete(Key(9));
  batch.DeleteRange(Key(100), Key(140));
  batch.Put(Key(120), "after");
  Apply(batch);
  batch.Clear();
  batch.DeleteRange(Key(2000), Key(6000));
  Apply(batch);
  ExpectModel();
}

TEST_F(TreeTailTest, AnythingAgainstAMap) {
  Random random(7);
  for (int round = 0; round < 4; ++round) {
    Reopen(round % 2 == 0 ? 64 << 20 : 1 << 20);
    std::vector<std::pair<Snapshot, Model>> held;
    for (int step = 0; step < 1500; ++step) {
      WriteBatch batch;
      for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
        const std::string key = Key(random.Below(3000));
        const uint64_t what = random.Below(100);
        if (what < 85) {
          batch.Put(key, std::string(random.Below(what < 10 ? 1500 : 150), 'a' + step % 26));
        } else if (what < 90) {
          batch.Put(key, std::string(2000 + random.Below(2000), 'z'));
        } else {
          batch.Delete(key);
        }
      }
      if (random.Below(50) == 0) batch.DeleteRange(Key(random.Below(3000)), Key(3000));
      Apply(batch);
      const uint64_t other = random.Below(300);
      if (other < 3) {
        ASSERT_THAT(file_->Checkpoint(), IsOk());
      }
      if (other == 4) held.emplace_back(tree_->snapshot(), model_);
      if (other == 5) held.clear();
      if (other == 6) {
        ASSERT_THAT(tree_->Compact("", 1 << 20).status(), IsOk());
      }
      if (other < 10) ExpectModel();
    }
    for (const auto& [snapshot, model] : held) ExpectScans(snapshot, model);
    EXPECT_GT(Behind(), 100u);
    held.clear();
    ASSERT_THAT(file_->Checkpoint(), IsOk());
    EXPECT_EQ(file_->stats().dirty_bytes, 0u);
    Reopen();
    ExpectModel();
  }
}

// A batch shows as a whole: who reads one of its rows and then the other never finds the second
// older, however the leaves came by them. Scans and checkpoints go on beside.
TEST_F(TreeTailTest, BatchesShowAsAWholeToOtherThreads) {
  Fill();
  constexpr uint64_t kSteps = 3000;
  WriteBatch first;
  first.Put(Key(5), "0");
  first.Put(Key(9005), "0");
  Apply(first);
  std::atomic<bool> done{false};
  auto number = [](const absl::StatusOr<std::optional<std::string>>& value) {
    return std::stoull(**value);
  };
  std::vector<std::thread> threads;
  for (const auto& [a, b] : {std::pair(5, 9005), std::pair(9005, 5)}) {
    threads.emplace_back([&, a = a, b = b] {
      while (!done.load()) {
        const uint64_t one = number(tree_->Get(Key(a)));
        const uint64_t other = number(tree_->Get(Key(b)));
        ASSERT_GE(other, one);
      }
    });
  }
  threads.emplace_back([&] {
    while (!done.load()) {
      const Snapshot now = tree_->snapshot();
      ASSERT_EQ(number(now.Get(Key(5))), number(now.Get(Key(9005))));
      std::vector<std::string> found;
      ASSERT_THAT(now.Scan(Key(5), Key(6), ScanOrder::kForward,
                           [&](std::string_view, std::string_view value) {
                             found.emplace_back(value);
                             return true;
                           }),
                  IsOk());
      ASSERT_EQ(found, std::vector<std::string>(1, **now.Get(Key(9005))));
    }
  });
  threads.emplace_back([&] {
    while (!done.load()) ASSERT_THAT(file_->Checkpoint(), IsOk());
  });
  for (uint64_t i = 1; i <= kSteps; ++i) {
    WriteBatch batch;
    batch.Put(Key(5), std::to_string(i));
    batch.Put(Key(9005), std::to_string(i));
    if (i % 10 == 0) batch.Put(Key(i), std::string(i % 200, 'x'));
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }
  done.store(true);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace dynlib::store
