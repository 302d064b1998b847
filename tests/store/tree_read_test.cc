// Ways to read a version: straight from disk, around damage, without keeping pages; and the
// estimates made from a few of them.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/range_stats.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using ::testing::AllOf;
using ::testing::HasSubstr;

class TreeReadTest : public testing::Test {
 protected:
  TreeReadTest() : disk_(1) { Reopen(); }

  void Reopen() {
    file_.reset();
    file_ = *PageFile::Open({.growth_bytes_min = 64 << 10}, &disk_, "pages");
    tree_ = file_->FindTree(TreeId{1});
    if (tree_ == nullptr) tree_ = *file_->CreateTree(TreeId{1});
  }
  void Apply(const WriteBatch& batch) {
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }
  void Put(std::string key, std::string value) {
    model_[key] = value;
    WriteBatch batch;
    batch.Put(std::move(key), std::move(value));
    Apply(batch);
  }
  // Some leaves and overflow values, below a root.
  void FillSome() {
    WriteBatch batch;
    for (int i = 0; i < 300; ++i) {
      std::string key = "key/" + std::to_string(100 + i);
      model_[key] = std::string(i % 70 == 5 ? 5000 : 200, 'a' + i % 26);
      batch.Put(key, model_[key]);
    }
    Apply(batch);
  }
  Model Read(ReadMode mode) {
    Model seen;
    auto visit = [&](std::string_view key, std::string_view value) {
      return seen.emplace(key, value).second;
    };
    EXPECT_THAT(tree_->snapshot().Scan("", "", ScanOrder::kForward, visit, mode), IsOk());
    return seen;
  }
  // Offsets of the pages in the file that are of a tree.
  std::vector<uint64_t> TreePages() const {
    std::vector<uint64_t> offsets;
    std::string bytes = disk_.ReadRaw("pages");
    for (uint64_t at = 2 * kUnitBytes; at + kUnitBytes <= bytes.size(); at += kUnitBytes) {
      if (bytes.compare(at, 4, "DLPg") == 0 && bytes[at + 6] <= 3) offsets.push_back(at);
    }
    return offsets;
  }

  sim::SimDisk disk_;
  std::unique_ptr<PageFile> file_;
  Tree* tree_ = nullptr;
  Model model_;
};

TEST_F(TreeReadTest, FromDiskReadsWhatWasWrittenFromDiskAndTheRestInMemory) {
  FillSome();
  const uint64_t memory = file_->stats().page_memory_bytes;
  EXPECT_EQ(Read(ReadMode::kFromDisk), model_);  // nothing was written yet
  EXPECT_EQ(file_->stats().pages_read, 0u);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const uint64_t pages = file_->stats().pages_written;
  EXPECT_EQ(Read(ReadMode::kFromDisk), model_);
  EXPECT_EQ(file_->stats().pages_read, pages);
  EXPECT_EQ(file_->stats().page_memory_bytes, memory);

  Put("key/250", "new");  // a leaf and the root, in memory
  EXPECT_EQ(Read(ReadMode::kFromDisk), model_);
  EXPECT_EQ(file_->stats().pages_read, 2 * pages - 2);
  for (const auto& [key, value] : model_) {
    ASSERT_THAT(tree_->snapshot().Get(key, ReadMode::kFromDisk), IsOkAndHolds(value));
  }
  EXPECT_THAT(tree_->snapshot().Get("key/2505", ReadMode::kFromDisk), IsOkAndHolds(std::nullopt));
}

TEST_F(TreeReadTest, WhatIsNotKeptLeavesMemoryAsItWas) {
  FillSome();
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  for (ReadMode mode : {ReadMode::kNotKept, ReadMode::kFromDisk}) {
    EXPECT_EQ(Read(mode), model_);
    EXPECT_THAT(tree_->snapshot().Get("key/105", mode), IsOkAndHolds(model_["key/105"]));
    EXPECT_EQ(file_->stats().page_memory_bytes, 0u);
  }
  Read(ReadMode::kMayBlock);
  EXPECT_GT(file_->stats().page_memory_bytes, 0u);
  const uint64_t read = file_->stats().pages_read;
  EXPECT_EQ(Read(ReadMode::kNotKept), model_);
  EXPECT_EQ(file_->stats().pages_read, read);  // all of it is in memory
}

// A page that went bad under a good copy in memory: the copy hides it, but not from kFromDisk.
// Whichever page it is, the scan names it and goes on behind it, and no key is forgotten.
TEST_F(TreeReadTest, DamageIsFoundUnderMemoryAndScannedAround) {
  FillSome();
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  size_t partly = 0;
  for (uint64_t page : TreePages()) {
    SCOPED_TRACE(page);
    disk_.FlipBit("pages", (page + 100) * 8);
    EXPECT_EQ(Read(ReadMode::kMayBlock), model_);
    auto ignore = [](std::string_view, std::string_view) { return true; };
    EXPECT_THAT(tree_->snapshot().Scan("", "", ScanOrder::kForward, ignore, ReadMode::kFromDisk),
                StatusIs(StatusCode::kDataLoss,
                         AllOf(HasSubstr("pages: page at offset " + std::to_string(page)),
                               HasSubstr("checksum 0x"), HasSubstr("expected 0x"))));
    for (std::string start : {"", "key/200"}) {
      for (std::string end : {"", "key/300"}) {
        std::vector<std::pair<std::string, std::string>> lost;
        Model seen;
        std::string reached = start;
        ASSERT_THAT(
            tree_->snapshot().ScanReadable(
                start, end,
                [&](std::string_view key, std::string_view value) {
                  EXPECT_GE(key, reached);
                  reached = std::string(key);
                  return seen.emplace(key, value).second;
                },
                [&](std::string_view first, std::string_view last, const absl::Status& why) {
                  EXPECT_THAT(why, StatusIs(StatusCode::kDataLoss));
                  EXPECT_GE(first, reached);
                  EXPECT_TRUE(end.empty() || (!last.empty() && last <= end));
                  reached = std::string(last);
                  lost.emplace_back(first, last);
                  return true;
                }),
            IsOk());
        ASSERT_LE(lost.size(), 1u);
        for (const auto& [key, value] : model_) {
          if (key < start || (!end.empty() && key >= end)) continue;
          const bool gone = !lost.empty() && key >= lost[0].first &&
                            (lost[0].second.empty() || key < lost[0].second);
          ASSERT_EQ(seen.contains(key), !gone) << key;
          if (!gone) {
            ASSERT_EQ(seen[key], value);
          }
        }
        if (start.empty() && end.empty()) {
          ASSERT_EQ(lost.size(), 1u);
          partly += seen.empty() ? 0 : 1;
        }
      }
    }
    disk_.FlipBit("pages", (page + 100) * 8);
  }
  EXPECT_EQ(partly, TreePages().size() - 1);  // but for the root
}

TEST_F(TreeReadTest, AScanAroundDamageEndsWhenAVisitorSaysSo) {
  FillSome();
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  disk_.FlipBit("pages", (TreePages()[0] + 100) * 8);  // the first leaf, or a value in it
  int visited = 0;
  int lost = 0;
  ASSERT_THAT(tree_->snapshot().ScanReadable(
                  "", "", [&](std::string_view, std::string_view) { return ++visited > 0; },
                  [&](std::string_view, std::string_view, const absl::Status&) {
                    ++lost;
                    return false;
                  }),
              IsOk());
  EXPECT_EQ(lost, 1);
  EXPECT_LT(visited, 10);
}

// Rows 0 to n - 1 with values of size(i), and what an exact count says of [first, end).
struct Rows {
  explicit Rows(int n, std::function<size_t(int)> size) : count(n), size(std::move(size)) {}
  static std::string Key(int i) { return "row/" + std::to_string(1'000'000 + i); }

  void FillInOrder(Tree& tree) const {
    std::vector<int> all(count);
    for (int i = 0; i < count; ++i) all[i] = i;
    Fill(tree, all, 1000);
  }
  void FillAtRandom(Tree& tree, Random& random) const {
    std::vector<int> all(count);
    for (int i = 0; i < count; ++i) all[i] = i;
    for (int i = count - 1; i > 0; --i) std::swap(all[i], all[random.Below(i + 1)]);
    Fill(tree, all, 200);
  }
  void Fill(Tree& tree, const std::vector<int>& order, size_t batch_size) const {
    WriteBatch batch;
    for (int i : order) {
      batch.Put(Key(i), std::string(size(i), 'v'));
      if (batch.size() < batch_size) continue;
      ASSERT_THAT(tree.Apply(batch, tree.position()), IsOk());
      batch.Clear();
    }
    ASSERT_THAT(tree.Apply(batch, tree.position()), IsOk());
  }
  double Bytes(int from, int to) const {
    double bytes = 0;
    for (int i = from; i < to; ++i) bytes += Key(i).size() + size(i);
    return bytes;
  }

  int count;
  std::function<size_t(int)> size;
};

class RangeStatsTest : public TreeReadTest {
 protected:
  // Within `tolerance` of the whole.
  void Expect(const Rows& rows, int from, int to, double tolerance) {
    SCOPED_TRACE(testing::Message() << from << " to " << to);
    std::string first = from == 0 ? "" : Rows::Key(from);
    std::string end = to == rows.count ? "" : Rows::Key(to);
    absl::StatusOr<RangeStats> stats = tree_->snapshot().ApproximateStats(first, end);
    ASSERT_THAT(stats, IsOk());
    const double bytes = rows.Bytes(from, to);
    EXPECT_NEAR(stats->items, to - from, tolerance * (to - from) + 0.5);
    EXPECT_NEAR(stats->bytes, bytes, tolerance * bytes + 0.5);
    ASSERT_TRUE(stats->middle_key.has_value());
    EXPECT_GT(*stats->middle_key, first);
    EXPECT_TRUE(end.empty() || *stats->middle_key < end);
    int middle = from;
    while (middle < to && Rows::Key(middle) < *stats->middle_key) ++middle;
    EXPECT_GT(middle, from);
    EXPECT_LT(middle, to);
    EXPECT_NEAR(rows.Bytes(from, middle) / bytes, 0.5, tolerance);
    if (tolerance == 0) {
      EXPECT_TRUE(stats->exact);
    }
  }
};

TEST_F(RangeStatsTest, SmallRangesAreCounted) {
  absl::StatusOr<RangeStats> stats = tree_->snapshot().ApproximateStats("", "");
  ASSERT_THAT(stats, IsOk());
  EXPECT_TRUE(stats->exact);
  EXPECT_EQ(stats->items, 0u);
  Rows rows(3000, [](int i) { return i % 1000 == 7 ? 10'000 : 100; });
  rows.FillInOrder(*tree_);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  stats = tree_->snapshot().ApproximateStats(Rows::Key(500), Rows::Key(1700));
  ASSERT_THAT(stats, IsOk());
  EXPECT_TRUE(stats->exact);
  EXPECT_EQ(stats->items, 1200u);
  EXPECT_EQ(stats->bytes, rows.Bytes(500, 1700));
  // 1,200 rows of 111 bytes, and one of 10,011 at 1,007.
  EXPECT_NEAR(rows.Bytes(500, std::stoi(stats->middle_key->substr(4)) - 1'000'000),
              stats->bytes / 2.0, 5100);
  EXPECT_EQ(file_->stats().page_memory_bytes, 0u);

  for (auto [from, to] :
       {std::pair(5, 5), std::pair(5, 6), std::pair(5, 7), std::pair(2999, 3000)}) {
    stats = tree_->snapshot().ApproximateStats(Rows::Key(from), Rows::Key(to));
    ASSERT_THAT(stats, IsOk());
    EXPECT_EQ(stats->items, static_cast<uint64_t>(to - from));
    EXPECT_EQ(stats->middle_key, to - from < 2 ? std::nullopt : std::optional(Rows::Key(from + 1)));
  }
  stats = tree_->snapshot().ApproximateStats(Rows::Key(9), Rows::Key(3));
  EXPECT_EQ(stats->items, 0u);
}

TEST_F(RangeStatsTest, LargeRangesAreEstimated) {
  Rows rows(60'000, [](int) { return 100; });
  rows.FillInOrder(*tree_);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  Expect(rows, 0, 60'000, 0.1);
  EXPECT_LE(file_->stats().pages_read, 2u + 64u * 2 + 10);
  EXPECT_EQ(file_->stats().page_memory_bytes, 0u);
  Expect(rows, 10'000, 60'000, 0.1);
  Expect(rows, 20'000, 30'000, 0.1);
  Expect(rows, 59'000, 60'000, 0);
}

// Full leaves in one half, half-full ones in the other; values that grow along the keys; values in
// extents of their own.
TEST_F(RangeStatsTest, TheMiddleHalvesTheBytesNotTheKeys) {
  const std::vector<std::function<size_t(int)>> sizes = {
      [](int i) { return i < 10'000 ? 50 : 250; },
      [](int i) { return i / 50; },
      [](int i) { return i % 40 == 0 && i > 15'000 ? 6000 : 60; },
      [](int i) { return i < 1500 ? 2500 : 20; },
  };
  Random random(1);
  for (size_t n = 0; n < sizes.size(); ++n) {
    for (bool in_order : {true, false}) {
      SCOPED_TRACE(testing::Message() << n << in_order);
      Rows rows(20'000, sizes[n]);
      if (in_order) {
        rows.FillInOrder(*tree_);
      } else {
        rows.FillAtRandom(*tree_, random);
      }
      Expect(rows, 0, 20'000, 0.15);
      Expect(rows, 1000, 17'000, 0.15);
      ASSERT_THAT(file_->DropTree(TreeId{1}), IsOk());
      tree_ = *file_->CreateTree(TreeId{1});
    }
  }
  Rows rows(20'000, [](int) { return 100; });
  std::vector<int> order;
  for (int i = 0; i < 10'000; ++i) order.push_back(i);
  rows.Fill(*tree_, order, 1000);
  for (int i = 19'999; i >= 10'000; --i) order[i - 10'000] = i;
  std::reverse(order.begin(), order.end());
  rows.Fill(*tree_, order, 1);
  Expect(rows, 0, 20'000, 0.15);
}

TEST_F(RangeStatsTest, DamagedPagesArePassedOver) {
  Rows rows(20'000, [](int) { return 100; });
  rows.FillInOrder(*tree_);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  std::vector<uint64_t> pages = TreePages();
  for (size_t i = 0; i < 150; i += 5) disk_.FlipBit("pages", (pages[i] + 100) * 8);
  Expect(rows, 0, 20'000, 0.15);
  absl::StatusOr<RangeStats> stats =
      tree_->snapshot().ApproximateStats(Rows::Key(100), Rows::Key(1000));
  ASSERT_THAT(stats, IsOk());
  EXPECT_FALSE(stats->exact);
  EXPECT_LT(stats->items, 900u);
  EXPECT_GT(stats->items, 500u);
}

// What a copy of a tree does: it comes out as full as can be, and each batch writes little more
// than its own pages.
TEST_F(TreeReadTest, SortedBatchesFillPages) {
  Rows rows(20'000, [](int) { return 80; });
  rows.FillInOrder(*tree_);
  EXPECT_LT(file_->stats().page_memory_bytes, rows.Bytes(0, 20'000) * 1.2);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  // 12 bytes of prefix less, 16 of overhead more, in pages of 8 KiB.
  EXPECT_LT(file_->stats().bytes_written, rows.Bytes(0, 20'000) * 1.15);
  EXPECT_THAT(file_->Verify(), IsOk());
}

}  // namespace
}  // namespace dynlib::store
