// Ranges of a tree replaced as a whole: with good pages, and with damaged ones.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;

std::unique_ptr<PageFile> Open(sim::SimDisk& disk) {
  return *PageFile::Open({.growth_bytes_min = 64 << 10}, &disk, "pages");
}

void EraseRange(Model& model, const std::string& first, const std::string& end) {
  model.erase(model.lower_bound(first), end.empty() ? model.end() : model.lower_bound(end));
}

TEST(TreeReplaceTest, IsLikeAMap) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    sim::SimDisk disk(seed);
    std::unique_ptr<PageFile> file = Open(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    Model model;
    for (int step = 0; step < 40; ++step) {
      WriteBatch batch;
      AddRandomOperations(random, 3000, random.Below(300), batch, model);
      ASSERT_THAT(tree->Apply(batch, tree->position() + 1), IsOk());
      std::string first = random.Below(8) == 0 ? "" : ModelKey(random, 3000);
      std::string end = random.Below(8) == 0 ? "" : ModelKey(random, 3000);
      if (!end.empty() && end <= first) std::swap(first, end);
      if (!end.empty() && end == first) continue;
      EraseRange(model, first, end);
      WriteBatch rows;
      for (uint64_t n = random.Below(400); n > 0; --n) {
        std::string key = ModelKey(random, 3000);
        if (key < first || (!end.empty() && key >= end)) continue;
        model[key] = ModelValue(random);
        rows.Put(key, model[key]);
      }
      ASSERT_THAT(tree->Replace(first, end, rows, tree->position()), IsOk());
      ASSERT_EQ(Contents(tree->snapshot()), model);
      if (random.Below(4) == 0) {
        ASSERT_THAT(file->Checkpoint(), IsOk());
        PageFile::VerifyReport report;
        ASSERT_THAT(file->Verify(&report), IsOk());
        ASSERT_EQ(report.leaked_units, 0u);
      }
      if (random.Below(8) == 0) {
        ASSERT_THAT(file->Checkpoint(), IsOk());
        file = nullptr;
        file = Open(disk);
        tree = file->FindTree(TreeId{1});
        ASSERT_EQ(Contents(tree->snapshot()), model);
      }
    }
  }
}

TEST(TreeReplaceTest, RowsMustLieInTheRange) {
  sim::SimDisk disk(1);
  std::unique_ptr<PageFile> file = Open(disk);
  Tree* tree = *file->CreateTree(TreeId{1});
  WriteBatch rows;
  rows.Put("b", "1");
  EXPECT_THAT(tree->Replace("c", "", rows, 0), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(tree->Replace("a", "b", rows, 0), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(tree->Replace("b", "b", {}, 0), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(tree->Replace("a", "c", rows, 0), IsOk());
  WriteBatch deletes;
  deletes.Delete("b");
  EXPECT_THAT(tree->Replace("a", "c", deletes, 0), StatusIs(StatusCode::kInvalidArgument));
}

// Every page of a tree is damaged in turn; all keys that it may hold are found, and put back, from
// memory if it is there, and from elsewhere if not.
class TreeRepairTest : public testing::TestWithParam<bool> {};

TEST_P(TreeRepairTest, ADamagedPageIsReplaced) {
  const bool in_memory = GetParam();
  size_t damaged = 0;
  for (uint64_t page = 2;; ++page) {
    sim::SimDisk disk(1);
    std::unique_ptr<PageFile> file = Open(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    Model model;
    WriteBatch batch;
    for (int i = 0; i < 1200; ++i) {
      const std::string key = "key/" + std::to_string(10'000 + i);
      model[key] = std::string(i % 300 == 5 ? 5000 : 200, static_cast<char>('a' + i % 26));
      batch.Put(key, model[key]);
    }
    ASSERT_THAT(tree->Apply(batch, 7), IsOk());
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    const std::string bytes = disk.ReadRaw("pages");
    const uint64_t at = page * kUnitBytes;
    if (at + kUnitBytes > bytes.size()) break;
    if (bytes.compare(at, 4, "DLPg") != 0 || bytes[at + 6] > 3) continue;
    SCOPED_TRACE(page);
    ++damaged;
    disk.FlipBit("pages", (at + 100) * 8);
    if (!in_memory) {
      file = nullptr;
      file = Open(disk);
      tree = file->FindTree(TreeId{1});
    }
    size_t repaired = 0;
    for (const auto& [key, value] : model) {
      absl::StatusOr<std::optional<Snapshot::Unreadable>> damage =
          tree->snapshot().FindDamage(key, ReadMode::kFromDisk);
      ASSERT_THAT(damage, IsOk());
      if (!damage->has_value()) continue;
      const std::string first = (*damage)->first;
      const std::string end = (*damage)->end;
      EXPECT_THAT((*damage)->status, StatusIs(StatusCode::kDataLoss));
      ASSERT_LE(first, key);
      ASSERT_TRUE(end.empty() || key < end);
      WriteBatch rows;
      auto put = [&](std::string_view k, std::string_view v) {
        rows.Put(std::string(k), std::string(v));
        return true;
      };
      if (in_memory) {
        ASSERT_THAT(tree->snapshot().Scan(first, end, ScanOrder::kForward, put), IsOk());
      } else {
        for (auto row = model.lower_bound(first);
             row != model.end() && (end.empty() || row->first < end); ++row) {
          put(row->first, row->second);
        }
      }
      ASSERT_THAT(tree->Replace(first, end, rows, tree->position()), IsOk());
      ++repaired;
    }
    EXPECT_EQ(repaired, 1u);
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    file = nullptr;
    file = Open(disk);
    tree = file->FindTree(TreeId{1});
    EXPECT_EQ(Contents(tree->snapshot()), model);
    EXPECT_EQ(tree->position(), 7u);
    EXPECT_THAT(file->Verify(), IsOk());
  }
  EXPECT_GT(damaged, 30u);
}

INSTANTIATE_TEST_SUITE_P(Memory, TreeRepairTest, testing::Bool());

TEST(TreeReplaceTest, ADamagedPageThatLiesInTheRangeInPartStaysAsItIs) {
  sim::SimDisk disk(1);
  std::unique_ptr<PageFile> file = Open(disk);
  WriteBatch batch;
  for (char c = 'a'; c <= 'z'; ++c) batch.Put(std::string(1, c), std::string(100, c));
  ASSERT_THAT((*file->CreateTree(TreeId{1}))->Apply(batch, 1), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  for (uint64_t at = 2 * kUnitBytes; at < disk.ReadRaw("pages").size(); at += kUnitBytes) {
    if (disk.ReadRaw("pages").compare(at, 4, "DLPg") == 0 && disk.ReadRaw("pages")[at + 6] <= 3)
      disk.FlipBit("pages", (at + 100) * 8);
  }
  file = nullptr;
  file = Open(disk);
  Tree* tree = file->FindTree(TreeId{1});
  EXPECT_THAT(tree->Replace("c", "", {}, 2), StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(tree->position(), 1u);
  EXPECT_THAT(tree->Replace("", "", batch, 2), IsOk());
  EXPECT_EQ(Contents(tree->snapshot()).size(), 26u);
}

}  // namespace
}  // namespace dynlib::store
