// What a Store says of itself, and the bounds that it keeps.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/cursor.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/store/tree.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using sim::SimDisk;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// One tree that is never written again, one snapshot that is never let go: log and file stay within
// their bounds while the others are overwritten again and again, and Stats names who keeps what is
// more.
TEST(StoreStatsTest, AThousandTreesOneColdOneSnapshotHeld) {
  constexpr int kTrees = 1000;
  constexpr int kRows = 4;
  constexpr uint64_t kValueBytes = 700;
  constexpr uint64_t kDataBytes = kTrees * kUnitBytes;  // A leaf of one unit each.
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<NamedTree> trees;
  for (int i = 0; i < kTrees; ++i) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree tree, h.OpenTree(Cat("tree", i)));
    trees.push_back(tree);
  }
  uint64_t file_bytes_max = 0;
  const auto overwrite = [&](const NamedTree& tree, char c) {
    StoreBatch batch;
    for (int row = 0; row < kRows; ++row) {
      batch.Put(tree, Cat("row", row), std::string(kValueBytes, c));
    }
    ASSERT_THAT(h.Write(std::move(batch)).status, IsOk());
    const Store::Stats stats = h.store->stats();
    // What two checkpoints have yet to cover, in segments of 64 KiB.
    ASSERT_LE(stats.log_bytes, 4 * h.options.checkpoint_after_bytes);
    ASSERT_LE(stats.log.segments_in_use, 8u);
    file_bytes_max = std::max(file_bytes_max, stats.pages.file_bytes);
  };
  const auto overwrite_the_warm = [&](char c) {
    for (int i = 1; i < kTrees && !HasFatalFailure(); ++i) overwrite(trees[i], c);
  };
  overwrite(trees[0], 'c');
  for (char c = 'a'; c < 'f'; ++c) overwrite_the_warm(c);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_LE(file_bytes_max, kDataBytes * 5 / 4) << "the data, and what two checkpoints differ in";
  EXPECT_THAT(h.store->stats().culprits, IsEmpty());

  {
    const StoreSnapshot held = h.store->snapshot("forgotten report");
    for (char c = 'f'; c < 'p'; ++c) overwrite_the_warm(c);
    const Store::Stats stats = h.store->stats();
    EXPECT_GE(stats.pages.used_bytes, 2 * kDataBytes - kUnitBytes)
        << "the data twice: what it keeps";
    EXPECT_LE(file_bytes_max, kDataBytes * 5 / 2);
    ASSERT_EQ(stats.snapshots.size(), 1u);
    EXPECT_EQ(stats.snapshots[0].label, "forgotten report");
    EXPECT_GE(stats.snapshots[0].kept_bytes, kDataBytes - kUnitBytes);
    EXPECT_THAT(stats.culprits, ElementsAre(HasSubstr("snapshot forgotten report")));
    EXPECT_EQ(stats.trees.size(), 1001u);
    EXPECT_THAT(held.Get(trees[500], "row0"), IsOkAndHolds(std::string(kValueBytes, 'e')));
  }
  // Let go, the space is there for what comes next.
  const uint64_t before = file_bytes_max;
  for (char c = 'p'; c < 's'; ++c) overwrite_the_warm(c);
  EXPECT_EQ(file_bytes_max, before);
  EXPECT_LE(h.store->stats().pages.used_bytes, kDataBytes * 5 / 4);
  EXPECT_THAT(h.store->stats().culprits, IsEmpty());

  DYNLIB_ASSERT_OK(h.Reopen());
  for (int i = 0; i < kTrees; ++i) {
    const NamedTree tree = *h.store->FindTree(Cat("tree", i));
    ASSERT_THAT(h.store->Get(tree, "row3"),
                IsOkAndHolds(std::string(kValueBytes, i == 0 ? 'c' : 'r')));
  }
}

// They have no label: the tree is named.
TEST(StoreStatsTest, ASnapshotOfOneTreeAndACursorAreNamedToo) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree tree, h.OpenTree("visits"));
  const auto overwrite = [&](int times) {
    for (int i = 0; i < times; ++i) {
      StoreBatch batch;
      batch.Put(tree, Cat("k", i % 100), std::string(500, static_cast<char>('a' + i % 26)));
      EXPECT_THAT(h.Write(std::move(batch)).status, IsOk());
    }
    EXPECT_THAT(h.Checkpoint(), IsOk());
  };
  overwrite(200);
  EXPECT_THAT(h.store->stats().culprits, IsEmpty());
  {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const Cursor cursor, h.store->NewCursor(tree));
    overwrite(400);
    EXPECT_THAT(h.store->stats().culprits, ElementsAre(HasSubstr("of tree visits")));
  }
  EXPECT_THAT(h.store->stats().culprits, IsEmpty());
  const Snapshot snapshot = h.store->snapshot(tree);
  overwrite(400);
  EXPECT_THAT(h.store->stats().culprits, ElementsAre(HasSubstr("of tree visits")));
}

TEST(StoreStatsTest, EachSnapshotSaysWhatItKeepsAndTheWorstIsNamed) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  const auto overwrite = [&](int rows, char c) {
    for (int i = 0; i < rows; ++i) {
      DYNLIB_EXPECT_OK(h.Write(Put(Cat("k", 1000 + i), std::string(900, c))));
    }
    DYNLIB_EXPECT_OK(h.Checkpoint());
  };
  overwrite(300, 'a');
  const StoreSnapshot small = h.store->snapshot("small");
  overwrite(10, 'b');
  const StoreSnapshot large = h.store->snapshot("large");
  overwrite(300, 'c');
  const Store::Stats stats = h.store->stats();
  ASSERT_EQ(stats.snapshots.size(), 2u);
  // What both keep counts for neither: 290 rows.
  EXPECT_GE(stats.snapshots[0].kept_bytes, 10u * 900);
  EXPECT_LE(stats.snapshots[0].kept_bytes, 40u * 900);
  EXPECT_GE(stats.snapshots[1].kept_bytes, 10u * 900);
  {
    const StoreSnapshot worst = h.store->snapshot("worst");
    overwrite(300, 'd');
    const Store::Stats after = h.store->stats();
    ASSERT_EQ(after.snapshots.size(), 3u);
    EXPECT_GE(after.snapshots[2].kept_bytes, 300u * 900);
    EXPECT_THAT(after.culprits, ElementsAre(HasSubstr("for snapshot worst")));
  }
  EXPECT_THAT(h.store->stats().culprits, ElementsAre(testing::Not(HasSubstr("worst"))));
}

TEST(StoreStatsTest, SnapshotsThatAreGoneAreForgotten) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("k", "v")));
  const StoreSnapshot held = h.store->snapshot("held");
  for (int i = 0; i < 100; ++i) h.store->snapshot("short");
  EXPECT_EQ(h.store->stats().snapshots.size(), 1u);
}

// With as many dirty pages as ask for a checkpoint, and a disk that refuses it: it is tried again
// with the next write, and not for ever in between.
TEST(StoreMemoryTest, ACheckpointThatFailsIsNotTriedAgainAtOnce) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.pages.memory_bytes = 1 << 20;
  h.options.checkpoint_after_bytes = 1 << 30;
  DYNLIB_ASSERT_OK(h.Open());
  int row = 0;
  const auto write = [&] {
    h.store->Write(StoreBatch(Put(Cat("k", row++ * 7919 % 3000), std::string(900, 'v'))), {},
                   &h.caller, [](const WriteResult&) {});
  };
  while (h.store->stats().pages.dirty_bytes < (110 << 10)) {
    write();
    h.Run();
  }
  EXPECT_EQ(h.store->stats().pages.checkpoints, 0u);
  disk.SetFull(true);
  for (int i = 0; i < 40; ++i) write();
  bool busy = true;
  for (int steps = 0; busy && steps < 2000; ++steps) busy = h.RunOnce();
  EXPECT_FALSE(busy) << "it is at it without end";
  EXPECT_GT(h.store->stats().pages.dirty_bytes, 128u << 10);
  EXPECT_THAT(h.store->stats().culprits, Contains(HasSubstr("the last checkpoint failed")));
  disk.SetFull(false);
  DYNLIB_ASSERT_OK(h.Write(Put("after", "space")));
  EXPECT_GT(h.store->stats().pages.checkpoints, 0u);
}

// Pages that no checkpoint has written come to their bound: writes wait for one, and none is
// refused.
TEST(StoreMemoryTest, DirtyPagesHoldUpWritesUntilACheckpoint) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.pages.memory_bytes = 1 << 20;
  h.options.checkpoint_after_bytes = 1 << 30;
  DYNLIB_ASSERT_OK(h.Open());
  Contents expected;
  for (int i = 0; i < 1500; ++i) {
    const std::string key = Cat("k", 1000000 + i * 7919 % 3000);
    expected[key] = std::string(1000, static_cast<char>('a' + i % 26));
    DYNLIB_ASSERT_OK(h.Write(Put(key, expected[key])));
    ASSERT_LE(h.store->stats().pages.dirty_bytes, 600u << 10);
  }
  EXPECT_GT(h.store->stats().pages.checkpoints, 1u);
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), expected);
}

}  // namespace
}  // namespace dynlib::store
