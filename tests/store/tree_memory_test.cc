// Memory: the budget and eviction, what snapshots hold back, and readers without snapshots.

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/versions.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/one_tree.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr uint64_t kBudget = 1 << 20;

std::string RowKey(uint64_t i) {
  std::string digits = std::to_string(i);
  return "row/" + std::string(8 - digits.size(), '0') + digits;
}
std::string RowValue(uint64_t i, uint64_t version) {
  return std::to_string(version) + ":" + RowKey(i) + std::string(100 + i % 400, 'v');
}

class TreeMemoryTest : public OneTreeTest {
 protected:
  TreeMemoryTest() : OneTreeTest(kBudget) {}

  void Reopen(uint64_t memory_bytes = kBudget) { OneTreeTest::Reopen(memory_bytes); }
  // Rows [0, count), checkpointed now and then.
  void Fill(uint64_t count, uint64_t version) {
    for (uint64_t at = 0; at < count;) {
      WriteBatch batch;
      for (uint64_t i = 0; i < 200 && at < count; ++i, ++at) {
        batch.Put(RowKey(at), RowValue(at, version));
      }
      ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
      if (file_->stats().dirty_bytes > kBudget / 4) {
        ASSERT_THAT(file_->Checkpoint(), IsOk());
      }
    }
    ASSERT_THAT(file_->Checkpoint(), IsOk());
  }
  void ExpectWithinBudget(uint64_t budget = kBudget) {
    const PageFile::Stats stats = file_->stats();
    EXPECT_LE(stats.page_memory_bytes - stats.dirty_bytes, budget + (256 << 10));
  }
};

TEST_F(TreeMemoryTest, TheBudgetIsChecked) {
  for (uint64_t bytes :
       {uint64_t{0}, uint64_t{1} << 19, uint64_t{1} << 45, (uint64_t{1} << 20) + 1}) {
    EXPECT_THAT(PageFile::Open({.memory_bytes = bytes}, &disk_, "other").status(),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("memory_bytes")));
  }
}

TEST_F(TreeMemoryTest, DataLargerThanMemoryIsReadWrittenAndScanned) {
  constexpr uint64_t kRows = 60'000;  // about 20 MB
  Fill(kRows, 1);
  ExpectWithinBudget();
  EXPECT_GT(file_->stats().pages_evicted, 1000u);
  Random random(3);
  std::string value;
  for (int i = 0; i < 4000; ++i) {
    const uint64_t row = random.Below(kRows);
    ASSERT_THAT(tree_->GetInto(RowKey(row), value), IsOkAndHolds(true));
    ASSERT_EQ(value, RowValue(row, 1));
    ASSERT_THAT(tree_->Get(RowKey(row) + "-"), IsOkAndHolds(std::nullopt));
  }
  ExpectWithinBudget();
  uint64_t rows = 0;
  auto visit = [&](std::string_view key, std::string_view found) {
    EXPECT_EQ(key, RowKey(rows));
    EXPECT_EQ(found, RowValue(rows, 1));
    ++rows;
    return true;
  };
  ASSERT_THAT(tree_->snapshot().Scan("", "", ScanOrder::kForward, visit), IsOk());
  EXPECT_EQ(rows, kRows);
  ExpectWithinBudget();
  // After opening all of it can go: also branches, one level after the other.
  Reopen();
  Fill(kRows, 2);
  ExpectWithinBudget();
  for (uint64_t row = 0; row < kRows; row += 701) {
    ASSERT_THAT(tree_->Get(RowKey(row)), IsOkAndHolds(RowValue(row, 2)));
  }
  EXPECT_THAT(file_->Verify(), IsOk());
}

TEST_F(TreeMemoryTest, ASnapshotHeldWhileTenTimesTheDataIsOverwritten) {
  constexpr uint64_t kRows = 10'000;  // 3.5 MB
  Fill(kRows, 0);
  const uint64_t file_bytes = file_->stats().file_bytes;
  std::optional<Snapshot> old = tree_->snapshot();
  for (uint64_t round = 1; round <= 10; ++round) {
    Fill(kRows, round);
    ExpectWithinBudget();
    if (round % 5 != 0) continue;
    uint64_t row = 0;
    auto visit = [&](std::string_view key, std::string_view found) {
      EXPECT_EQ(key, RowKey(row));
      EXPECT_EQ(found, RowValue(row, 0));
      ++row;
      return true;
    };
    ASSERT_THAT(old->Scan("", "", ScanOrder::kForward, visit), IsOk());
    EXPECT_EQ(row, kRows);
    ExpectWithinBudget();
  }
  // What the snapshot holds is one copy of the data, whatever was written since.
  EXPECT_LT(file_->stats().file_bytes, 4 * file_bytes);
  ASSERT_EQ(file_->stats().held.size(), 1u);
  const PinStats held = file_->stats().held[0];
  EXPECT_EQ(held.tree, TreeId{1});
  EXPECT_EQ(held.position, old->position());
  EXPECT_GT(held.versions_behind, 400u);
  EXPECT_GT(held.bytes, kRows * 200);
  EXPECT_LT(held.bytes, kRows * 700);
  old.reset();
  EXPECT_TRUE(file_->stats().held.empty());
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  EXPECT_LT(file_->stats().used_bytes, kRows * 700);
  PageFile::VerifyReport report;
  EXPECT_THAT(file_->Verify(&report), IsOk());
  EXPECT_EQ(report.leaked_units, 0u);
}

TEST_F(TreeMemoryTest, SnapshotsOfOneVersionShareAndEachVersionIsReadAsItWas) {
  std::vector<std::pair<Snapshot, Model>> held;
  Model model;
  Random random(7);
  for (int step = 0; step < 300; ++step) {
    WriteBatch batch;
    AddRandomOperations(random, 500, 1 + random.Below(20), batch, model);
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    if (random.Chance(0.2)) held.emplace_back(tree_->snapshot(), model);
    if (random.Chance(0.1)) {
      ASSERT_THAT(file_->Checkpoint(), IsOk());
    }
    if (held.size() > 5 || (!held.empty() && random.Chance(0.1))) {
      const size_t which = random.Below(held.size());
      ASSERT_EQ(Contents(held[which].first), held[which].second);
      held.erase(held.begin() + static_cast<ptrdiff_t>(which));
    }
  }
  Snapshot a = tree_->snapshot();
  Snapshot b = tree_->snapshot();
  Snapshot c = a;
  held.clear();
  EXPECT_EQ(file_->stats().held.size(), 1u);
}

// Everything in memory goes with the tree.
TEST_F(TreeMemoryTest, NothingIsLeftOfADroppedTree) {
  Reopen(64 << 20);
  Random random(11);
  Model model;
  for (int step = 0; step < 200; ++step) {
    WriteBatch batch;
    AddRandomOperations(random, 3000, 50, batch, model);
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    if (step % 20 == 0) {
      ASSERT_THAT(file_->Checkpoint(), IsOk());
    }
  }
  ASSERT_EQ(Contents(tree_->snapshot()), model);
  ASSERT_THAT(file_->DropTree(TreeId{1}), IsOk());
  tree_ = nullptr;
  EXPECT_EQ(file_->stats().page_memory_bytes, 0u);
  EXPECT_EQ(file_->stats().dirty_bytes, 0u);
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  EXPECT_LE(file_->stats().used_bytes, 4 * kUnitBytes);
}

TEST_F(TreeMemoryTest, APinnedValueStaysWhileItsPageIsReplacedAndEvicted) {
  Fill(20'000, 1);
  PinnedValue pinned;
  ASSERT_THAT(tree_->Pin(RowKey(7), pinned), IsOkAndHolds(true));  // read from disk, and kept
  ASSERT_THAT(tree_->Pin(RowKey(7), pinned), IsOkAndHolds(true));  // where it lies
  Fill(20'000, 2);
  EXPECT_EQ(pinned.view(), RowValue(7, 1));
  ASSERT_THAT(tree_->Pin(RowKey(7), pinned), IsOkAndHolds(true));
  EXPECT_EQ(pinned.view(), RowValue(7, 2));
  EXPECT_THAT(tree_->Pin("nothing", pinned), IsOkAndHolds(false));
  EXPECT_EQ(pinned.view(), "");
  pinned.Release();
  uint64_t length = 0;
  ASSERT_THAT(tree_->View(RowKey(8), [&](std::string_view value) { length = value.size(); }),
              IsOkAndHolds(true));
  EXPECT_EQ(length, RowValue(8, 2).size());
}

TEST_F(TreeMemoryTest, ADeletedRangeReadsNoLeavesAndGivesItsSpaceBack) {
  constexpr uint64_t kRows = 20'000;
  Fill(kRows, 1);
  Reopen();
  const uint64_t read = file_->stats().pages_read;
  const uint64_t used = file_->stats().used_bytes;
  WriteBatch batch;
  batch.Put(RowKey(500), "gone with the range");
  batch.DeleteRange(RowKey(100), RowKey(kRows - 100));
  batch.DeleteRange(RowKey(50), RowKey(50));  // nothing
  batch.Put(RowKey(600), "back");
  ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  EXPECT_LT(file_->stats().pages_read - read, 40u);  // of a thousand
  uint64_t rows = 0;
  auto visit = [&](std::string_view key, std::string_view value) {
    if (rows == 100) {
      EXPECT_EQ(key, RowKey(600));
      EXPECT_EQ(value, "back");
    } else {
      EXPECT_EQ(key, RowKey(rows < 100 ? rows : kRows - 201 + rows));
    }
    ++rows;
    return true;
  };
  ASSERT_THAT(tree_->snapshot().Scan("", "", ScanOrder::kForward, visit), IsOk());
  EXPECT_EQ(rows, 201u);
  // Nothing there: nothing written.
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const uint64_t pages = file_->stats().pages_written;
  WriteBatch again;
  again.DeleteRange(RowKey(700), RowKey(kRows - 200));
  ASSERT_THAT(tree_->Apply(again, tree_->position() + 1), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_EQ(file_->stats().pages_written, pages);
  EXPECT_LT(file_->stats().used_bytes, used / 10);
  PageFile::VerifyReport report;
  EXPECT_THAT(file_->Verify(&report), IsOk());
  EXPECT_EQ(report.leaked_units, 0u);
  WriteBatch all;
  all.DeleteRange("", "");
  ASSERT_THAT(tree_->Apply(all, tree_->position() + 1), IsOk());
  EXPECT_TRUE(tree_->snapshot().empty());
}

TEST_F(TreeMemoryTest, DirtyPagesHaveABoundAndWritersHearOfIt) {
  int went_on = 0;
  file_->WhenRoom([&] { ++went_on; });
  EXPECT_EQ(went_on, 1);
  EXPECT_FALSE(file_->CheckpointDue());
  for (uint64_t at = 0; file_->HasRoom(); ++at) {
    WriteBatch batch;
    batch.Put(RowKey(at), std::string(1000, 'x'));
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }
  EXPECT_TRUE(file_->CheckpointDue());
  file_->WhenRoom([&] { ++went_on; });
  EXPECT_EQ(went_on, 1);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_EQ(went_on, 2);
  EXPECT_TRUE(file_->HasRoom());
  EXPECT_EQ(file_->stats().dirty_bytes, 0u);
}

// What a snapshot holds and no checkpoint was of is written, so that it can leave memory.
TEST_F(TreeMemoryTest, OldVersionsThatWereNeverWrittenLeaveMemoryToo) {
  std::vector<std::pair<Snapshot, uint64_t>> held;
  for (uint64_t version = 1; version <= 20; ++version) {
    WriteBatch batch;
    for (uint64_t i = 0; i < 500; ++i) batch.Put(RowKey(i), RowValue(i, version));
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    if (version % 2 == 1) held.emplace_back(tree_->snapshot(), version);
    if (version % 4 == 0) {
      ASSERT_THAT(file_->Checkpoint(), IsOk());
    }
  }
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  WriteBatch batch;
  batch.Put("last", "");
  ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_EQ(file_->stats().dirty_bytes, 0u);
  ExpectWithinBudget();
  for (const auto& [snapshot, version] : held) {
    for (uint64_t i = 0; i < 500; i += 7) {
      ASSERT_THAT(snapshot.Get(RowKey(i)), IsOkAndHolds(RowValue(i, version)));
    }
  }
  EXPECT_THAT(file_->Verify(), IsOk());
  held.clear();
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  PageFile::VerifyReport report;
  EXPECT_THAT(file_->Verify(&report), IsOk());
  EXPECT_EQ(report.leaked_units, 0u);
  EXPECT_LT(file_->stats().used_bytes, 800'000u);
}

// Random everything against a map, with a memory that holds a tenth of it.
TEST_F(TreeMemoryTest, TheModelWithLittleMemory) {
  Random random(5);
  Model model;
  std::vector<std::pair<Snapshot, Model>> held;
  for (int step = 0; step < 400; ++step) {
    WriteBatch batch;
    AddRandomOperations(random, 40'000, random.Below(150), batch, model);
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    if (file_->stats().dirty_bytes > kBudget / 2) {
      ASSERT_THAT(file_->Checkpoint(), IsOk());
    }
    if (held.size() < 3 && random.Chance(0.03)) held.emplace_back(tree_->snapshot(), model);
    if (!held.empty() && random.Chance(0.03)) {
      ASSERT_EQ(
          Contents(held[0].first, random.Chance(0.5) ? ScanOrder::kForward : ScanOrder::kReverse),
          held[0].second);
      held.erase(held.begin());
    }
    for (int i = 0; i < 20; ++i) {
      const std::string key = ModelKey(random, 40'000);
      auto at = model.find(key);
      auto found = tree_->Get(key);
      ASSERT_THAT(found.status(), IsOk());
      ASSERT_EQ(found->has_value(), at != model.end());
      if (at != model.end()) {
        ASSERT_EQ(**found, at->second);
      }
    }
    if (random.Chance(0.02)) {
      held.clear();
      ASSERT_THAT(file_->Checkpoint(), IsOk());
      Reopen();
    }
  }
  held.clear();
  ASSERT_EQ(Contents(tree_->snapshot()), model);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_GT(file_->stats().pages_evicted + file_->stats().reads_missed, 0u);
  EXPECT_THAT(file_->Verify(), IsOk());
}

TEST_F(TreeMemoryTest, ReadersAWriterAndTheEvictorTogether) {
  constexpr int kReaders = 64;
  constexpr uint64_t kRows = 8'000;
  Fill(kRows, 0);
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  for (int r = 0; r < kReaders; ++r) {
    readers.emplace_back([&, r] {
      Random random(static_cast<uint64_t>(r));
      std::string value;
      while (!done.load()) {
        const uint64_t row = random.Below(kRows);
        ASSERT_THAT(tree_->GetInto(RowKey(row), value), IsOkAndHolds(true));
        ASSERT_THAT(value, HasSubstr(RowKey(row)));
        if (random.Chance(0.02)) {
          const Snapshot snapshot = tree_->snapshot();
          uint64_t seen = 0;
          auto visit = [&](std::string_view key, std::string_view) {
            EXPECT_EQ(key, RowKey(row + seen));
            return ++seen < 50;
          };
          ASSERT_THAT(snapshot.Scan(RowKey(row), "", ScanOrder::kForward, visit), IsOk());
        }
        std::this_thread::yield();
      }
    });
  }
  Random random(99);
  for (uint64_t step = 1; step < 150; ++step) {
    WriteBatch batch;
    for (int i = 0; i < 40; ++i) {
      const uint64_t row = random.Below(kRows);
      batch.Put(RowKey(row), RowValue(row, step));
    }
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    if (step % 10 == 0) {
      ASSERT_THAT(file_->Checkpoint(), IsOk());
    }
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(file_->stats().pages_evicted, 100u);
  EXPECT_GT(file_->stats().reads, file_->stats().reads_missed);
  EXPECT_THAT(file_->Verify(), IsOk());
}

}  // namespace
}  // namespace dynlib::store
