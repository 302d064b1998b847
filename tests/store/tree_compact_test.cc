// Sparse leaves packed anew: the same contents, in few units.
#include <algorithm>
#include <memory>
#include <string>

#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/tree_update.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kWindowBytes = 1 << 20;

std::unique_ptr<PageFile> Open(sim::SimDisk& disk) {
  return *PageFile::Open({.growth_bytes_min = 64 << 10}, &disk, "pages");
}

// All of the tree; the bytes that were rewritten, and, if asked, those that were read.
uint64_t CompactAll(Tree& tree, uint64_t window_bytes = kWindowBytes, uint64_t* read = nullptr) {
  uint64_t rewritten = 0;
  std::string from;
  if (read != nullptr) *read = 0;
  do {
    absl::StatusOr<Tree::CompactStep> step = tree.Compact(from, window_bytes);
    EXPECT_THAT(step, IsOk());
    if (!step.ok()) break;
    rewritten += step->rewritten_bytes;
    if (read != nullptr) *read += step->read_bytes;
    from = step->next;
  } while (!from.empty());
  return rewritten;
}

void ExpectSound(PageFile& file) {
  PageFile::VerifyReport report;
  EXPECT_THAT(file.Verify(&report), IsOk());
  EXPECT_EQ(report.leaked_units, 0u);
}

// Rows in random order; returns the bytes of keys and values.
uint64_t FillInRandomOrder(Tree& tree, size_t value_bytes, uint64_t rows) {
  Random random(value_bytes);
  uint64_t bytes = 0;
  for (uint64_t left = rows; left > 0;) {
    WriteBatch batch;
    for (int i = 0; i < 100 && left > 0; ++i, --left) {
      std::string key = "user" + std::to_string(1'000'000'000'000'000 + random.Below(1ull << 52));
      batch.Put(key, std::string(value_bytes, 'v'));
    }
    bytes += batch.bytes();
    EXPECT_THAT(tree.Apply(batch, tree.position() + 1), IsOk());
  }
  return bytes;
}

// What is to be packed is read; of what is dense, the branches alone.
TEST(TreeCompactTest, ItSaysWhatItReads) {
  sim::SimDisk disk(1);
  std::unique_ptr<PageFile> file = Open(disk);
  Tree* const tree = *file->CreateTree(TreeId{1});
  const uint64_t bytes = FillInRandomOrder(*tree, 100, 20000);
  ASSERT_THAT(file->Checkpoint(), IsOk());
  uint64_t read = 0;
  uint64_t rewritten = CompactAll(*tree, kWindowBytes, &read);
  EXPECT_GE(rewritten, bytes);
  EXPECT_GE(read, rewritten);
  EXPECT_LE(read, rewritten + rewritten / 4);
  rewritten = CompactAll(*tree, kWindowBytes, &read);
  EXPECT_EQ(rewritten, 0u);
  EXPECT_GT(read, 0u);
  EXPECT_LE(read, bytes / 20);
}

TEST(TreeCompactTest, IsLikeAMap) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    sim::SimDisk disk(seed);
    std::unique_ptr<PageFile> file = Open(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    Model model;
    uint64_t rewritten = 0;
    for (int step = 0; step < 25; ++step) {
      WriteBatch batch;
      AddRandomOperations(random, 3000, random.Below(300), batch, model);
      ASSERT_THAT(tree->Apply(batch, tree->position() + 1), IsOk());
      const Snapshot before = tree->snapshot();
      const Model model_before = model;
      const uint64_t position = tree->position();
      absl::StatusOr<Tree::CompactStep> compacted =
          tree->Compact(ModelKey(random, 3000), 1 + random.Below(kWindowBytes));
      ASSERT_THAT(compacted, IsOk());
      rewritten += compacted->rewritten_bytes;
      if (random.Below(5) == 0) rewritten += CompactAll(*tree);
      EXPECT_EQ(tree->position(), position);
      ASSERT_EQ(Contents(tree->snapshot()), model);
      ASSERT_EQ(Contents(before), model_before);
      if (random.Below(4) == 0) {
        ASSERT_THAT(file->Checkpoint(), IsOk());
        ExpectSound(*file);
      }
      if (random.Below(8) == 0) {
        ASSERT_THAT(file->Checkpoint(), IsOk());
        file = nullptr;
        file = Open(disk);
        tree = file->FindTree(TreeId{1});
      }
    }
    EXPECT_GT(rewritten, 0u);
  }
}

// What random insertions leave two thirds full takes little more than its bytes.
TEST(TreeCompactTest, DiskBytesAUserByteAfterRandomInsertions) {
  for (size_t value_bytes : {100, 900}) {
    SCOPED_TRACE(value_bytes);
    sim::SimDisk disk(1);
    std::unique_ptr<PageFile> file = Open(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    const uint64_t bytes = FillInRandomOrder(*tree, value_bytes, 6'000'000 / (value_bytes + 20));
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    const double before = static_cast<double>(file->stats().used_bytes);
    EXPECT_GT(before / static_cast<double>(bytes), 1.3);
    CompactAll(*tree);
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    ASSERT_THAT(file->ReleaseSpace(), IsOk());
    EXPECT_LE(static_cast<double>(file->stats().used_bytes) / static_cast<double>(bytes), 1.115);
    EXPECT_LE(static_cast<double>(disk.used_bytes()) / static_cast<double>(bytes), 1.12);
    ExpectSound(*file);
  }
}

// Otherwise a store at rest would write for ever.
TEST(TreeCompactTest, WhatIsPackedIsLeftAlone) {
  for (size_t value_bytes : {1, 50, 100, 333, 700, 900, 1300, 1900, 2048, 2049, 5000}) {
    SCOPED_TRACE(value_bytes);
    sim::SimDisk disk(1);
    std::unique_ptr<PageFile> file = Open(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    FillInRandomOrder(*tree, value_bytes, std::min<uint64_t>(20'000, 2'000'000 / value_bytes));
    CompactAll(*tree);
    EXPECT_EQ(CompactAll(*tree), 0u);
  }
}

TEST(TreeCompactTest, NothingToDo) {
  sim::SimDisk disk(1);
  std::unique_ptr<PageFile> file = Open(disk);
  Tree* tree = *file->CreateTree(TreeId{1});
  EXPECT_EQ(CompactAll(*tree), 0u);
  WriteBatch batch;
  batch.Put("a", "1");
  ASSERT_THAT(tree->Apply(batch, 1), IsOk());
  EXPECT_EQ(CompactAll(*tree), 0u);
  EXPECT_EQ(Contents(tree->snapshot()).size(), 1u);
}

// Damage is passed on as it is, and its neighbours are packed.
TEST(TreeCompactTest, ADamagedLeafStaysAndTheRestIsPacked) {
  sim::SimDisk disk(1);
  std::unique_ptr<PageFile> file = Open(disk);
  FillInRandomOrder(**file->CreateTree(TreeId{1}), 100, 5000);
  ASSERT_THAT(file->Checkpoint(), IsOk());
  const size_t rows = Contents(file->FindTree(TreeId{1})->snapshot()).size();
  const std::string bytes = disk.ReadRaw("pages");
  int damaged = 0;
  for (uint64_t at = 2 * kUnitBytes; at < bytes.size() && damaged < 3; at += kUnitBytes) {
    if (bytes.compare(at, 4, "DLPg") != 0 || bytes[at + 6] != 1) continue;
    disk.FlipBit("pages", (at + 100) * 8);
    ++damaged;
  }
  file = nullptr;
  file = Open(disk);
  Tree* tree = file->FindTree(TreeId{1});
  EXPECT_GT(CompactAll(*tree), 0u);
  size_t readable = 0;
  size_t ranges = 0;
  ASSERT_THAT(tree->snapshot().ScanReadable(
                  "", "",
                  [&](std::string_view, std::string_view) {
                    ++readable;
                    return true;
                  },
                  [&](std::string_view, std::string_view, const absl::Status&) {
                    ++ranges;
                    return true;
                  }),
              IsOk());
  EXPECT_EQ(ranges, 3u);
  EXPECT_GT(readable, rows - 3 * 70);
  EXPECT_LT(readable, rows);
}

TEST(TreeCompactTest, DenseLeavesAreAsLongAsWastesLeast) {
  EXPECT_EQ(DenseLeafBytes(130, false), kPageTargetBytes);
  EXPECT_EQ(DenseLeafBytes(930, false), 3 * kUnitBytes);  // 13 rows, where two units hold 8
  for (size_t row = 1; row <= 2100; ++row) {
    const uint32_t page = DenseLeafBytes(row, false);
    EXPECT_GE((page - kPageHeaderBytes) / row * row, page * 92 / 100) << row;
  }
}

}  // namespace
}  // namespace dynlib::store
