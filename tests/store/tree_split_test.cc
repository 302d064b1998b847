// Trees that are split, joined and renamed: against plain maps, in the middle of checkpoints, and
// what it costs.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/forest_model.h"
#include "tests/store/hooked_disk.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr TreeId kSource{1};
constexpr TreeId kLeft{2};
constexpr TreeId kRight{3};
constexpr TreeId kTarget{4};

std::unique_ptr<PageFile> OpenFile(Disk& disk) {
  auto file =
      PageFile::Open({.growth_bytes_min = 64 << 10, .growth_bytes_max = 1 << 20}, &disk, "pages");
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

void ExpectSound(PageFile& file) {
  PageFile::VerifyReport report;
  ASSERT_THAT(file.Verify(&report), IsOk());
  ASSERT_EQ(report.leaked_units, 0u);
}

std::string Row(int i) { return "row" + std::to_string(1'000'000 + i); }

void Fill(PageFile& file, TreeId id, int from, int to, size_t value_bytes = 80) {
  Tree* tree = file.FindTree(id);
  if (tree == nullptr) tree = *file.CreateTree(id);
  while (from < to) {
    WriteBatch batch;
    for (int end = std::min(from + 1000, to); from < end; ++from) {
      batch.Put(Row(from), std::string(value_bytes, 'v'));
    }
    ASSERT_THAT(tree->Apply(batch, tree->position() + 1), IsOk());
  }
}

WriteBatch Metadata(std::string value) {
  WriteBatch batch;
  batch.Put("meta", std::move(value));
  return batch;
}

PageFile::SplitSpec SplitAt(std::string at) {
  return {.source = {.tree = kSource, .position = 1'000'000},
          .left = {.tree = kLeft},
          .right = {.tree = kRight},
          .from = "row",
          .at = std::move(at)};
}
PageFile::JoinSpec JoinBoth() {
  return {.left = {.tree = kLeft, .position = 1'000'000},
          .right = {.tree = kRight, .position = 1'000'000},
          .target = {.tree = kTarget},
          .from = "row"};
}

class TreeSplitTest : public testing::Test {
 protected:
  TreeSplitTest() : disk_(1), file_(OpenFile(disk_)) {}

  Tree& tree(TreeId id) { return *file_->FindTree(id); }
  Model ContentsOf(TreeId id) { return Contents(tree(id).snapshot()); }
  void Reopen() {
    file_.reset();
    file_ = OpenFile(disk_);
  }

  sim::SimDisk disk_;
  std::unique_ptr<PageFile> file_;
};

TEST_F(TreeSplitTest, KeysGoToTheirSidesWithBatchesAndPositions) {
  Fill(*file_, kSource, 0, 3000);
  ASSERT_THAT(tree(kSource).Apply(Metadata("before"), 10), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Snapshot before = tree(kSource).snapshot();
  PageFile::SplitSpec spec = SplitAt(Row(1000));
  spec.source.batch = Metadata("source");
  spec.source.position = 11;
  spec.left = {.tree = kLeft, .batch = Metadata("left"), .position = 5};
  spec.right = {.tree = kRight, .batch = Metadata("right"), .position = 0};
  ASSERT_THAT(file_->Split(spec), IsOk());

  EXPECT_EQ(Contents(before).size(), 3001u);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(ContentsOf(kSource), (Model{{"meta", "source"}}));
    Model left = ContentsOf(kLeft);
    EXPECT_EQ(left.size(), 1001u);
    EXPECT_EQ(left["meta"], "left");
    EXPECT_EQ(left.rbegin()->first, Row(999));
    Model right = ContentsOf(kRight);
    EXPECT_EQ(right.size(), 2001u);
    EXPECT_EQ(right["meta"], "right");
    EXPECT_EQ(tree(kSource).position(), 11u);
    EXPECT_EQ(tree(kLeft).position(), 5u);
    EXPECT_EQ(tree(kRight).position(), 0u);
    if (round == 0) {
      EXPECT_EQ(tree(kSource).durable_position(), 10u);
      EXPECT_EQ(tree(kLeft).durable_position(), 0u);
      ASSERT_THAT(file_->Checkpoint(), IsOk());
      EXPECT_EQ(tree(kLeft).durable_position(), 5u);
      ExpectSound(*file_);
      EXPECT_EQ(Contents(before).size(), 3001u);
      before = Snapshot();
      Reopen();
    }
  }
}

TEST_F(TreeSplitTest, ASplitThatIsNotCheckpointedIsNotThereAfterACrash) {
  Fill(*file_, kSource, 0, 100);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ASSERT_THAT(file_->Split(SplitAt(Row(50))), IsOk());
  Reopen();
  EXPECT_EQ(file_->Trees(), std::vector<TreeId>{kSource});
  EXPECT_EQ(ContentsOf(kSource).size(), 100u);
}

TEST_F(TreeSplitTest, WhatIsWrongIsNamedAndNothingChanges) {
  Fill(*file_, kSource, 0, 100);
  Forest before = ForestIn(*file_);
  auto expect = [&](const PageFile::SplitSpec& spec, StatusCode code, std::string what) {
    EXPECT_THAT(file_->Split(spec), StatusIs(code, HasSubstr(what)));
    EXPECT_TRUE(ForestIn(*file_) == before);
  };
  PageFile::SplitSpec spec = SplitAt("row");
  spec.from = "s";
  expect(spec, StatusCode::kInvalidArgument, "`from` is above `at`");
  spec = SplitAt(Row(5));
  spec.left.tree = kRight;
  expect(spec, StatusCode::kInvalidArgument, "are not three");
  spec = SplitAt(Row(5));
  spec.source.tree = TreeId{9};
  expect(spec, StatusCode::kNotFound, "no tree 9");
  spec = SplitAt(Row(5));
  spec.source.position = 0;
  expect(spec, StatusCode::kInvalidArgument, "cannot go back to 0");
  spec = SplitAt(Row(5));
  spec.right.batch.Put(std::string(kMaxKeyBytes + 1, 'k'), "");
  expect(spec, StatusCode::kInvalidArgument, "key of 8193 bytes");
  Fill(*file_, kLeft, 50, 60);
  before = ForestIn(*file_);
  expect(SplitAt(Row(5)), StatusCode::kAlreadyExists, "tree 2 exists");

  PageFile::JoinSpec join = JoinBoth();
  EXPECT_THAT(file_->Join(join), StatusIs(StatusCode::kNotFound, HasSubstr("no tree 3")));
  join.right.tree = kSource;  // has keys on both sides of the left one's
  EXPECT_THAT(file_->Join(join), StatusIs(StatusCode::kInvalidArgument, HasSubstr("all below")));
  join.target.tree = kSource;
  EXPECT_THAT(file_->Join(join), StatusIs(StatusCode::kInvalidArgument, HasSubstr("not three")));
  join.right.tree = kRight;
  EXPECT_THAT(file_->Join(join), StatusIs(StatusCode::kAlreadyExists, HasSubstr("tree 1")));
  EXPECT_TRUE(ForestIn(*file_) == before);
}

TEST_F(TreeSplitTest, EmptySidesAreEmptyTrees) {
  ASSERT_THAT(file_->CreateTree(kSource), IsOk());
  ASSERT_THAT(file_->Split(SplitAt("row")), IsOk());
  EXPECT_TRUE(tree(kLeft).snapshot().empty());
  EXPECT_TRUE(tree(kRight).snapshot().empty());
  Fill(*file_, kRight, 0, 10);
  ASSERT_THAT(file_->Join(JoinBoth()), IsOk());
  EXPECT_EQ(ContentsOf(kTarget).size(), 10u);
  EXPECT_TRUE(tree(kRight).snapshot().empty());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ExpectSound(*file_);
}

// Nothing but the pages along the cut is read or written, however large the tree; not the values
// that lie in extents of their own either.
TEST_F(TreeSplitTest, TheCostIsThatOfAPathNotOfATree) {
  Fill(*file_, kSource, 0, 40'000);
  Fill(*file_, kSource, 40'000, 40'300, 20'000);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ASSERT_GT(file_->stats().pages_written, 700u);
  for (int at : {20'000, 40'150}) {
    SCOPED_TRACE(at);
    Reopen();
    ASSERT_THAT(file_->Split(SplitAt(Row(at))), IsOk());
    EXPECT_LE(file_->stats().pages_read, 2u + 10u);  // with directory and bitmap
    ASSERT_THAT(file_->Checkpoint(), IsOk());
    EXPECT_LE(file_->stats().pages_written, 10u);
    ExpectSound(*file_);
    EXPECT_EQ(ContentsOf(kLeft).size(), static_cast<size_t>(at));
    EXPECT_EQ(ContentsOf(kRight).size(), 40'300u - at);

    Reopen();
    ASSERT_THAT(file_->DropTree(kSource), IsOk());
    ASSERT_THAT(file_->Join(JoinBoth()), IsOk());
    EXPECT_LE(file_->stats().pages_read, 2u + 10u);
    ASSERT_THAT(file_->DropTree(kLeft), IsOk());
    ASSERT_THAT(file_->DropTree(kRight), IsOk());
    ASSERT_THAT(file_->RenameTree(kTarget, kSource), IsOk());
    ASSERT_THAT(file_->Checkpoint(), IsOk());
    EXPECT_LE(file_->stats().pages_written, 10u);
    ExpectSound(*file_);
    EXPECT_EQ(ContentsOf(kSource).size(), 40'300u);
  }
}

TEST_F(TreeSplitTest, TreesOfDifferentHeightsAreJoined) {
  for (bool left_is_higher : {true, false}) {
    for (int middle : {20'000, 1, 300}) {
      SCOPED_TRACE(testing::Message() << left_is_higher << " " << middle);
      const int border = left_is_higher ? 30'000 - middle : middle;
      Fill(*file_, kLeft, 0, border);
      Fill(*file_, kRight, border, 30'000);
      ASSERT_THAT(file_->Checkpoint(), IsOk());
      ASSERT_THAT(file_->Join(JoinBoth()), IsOk());
      EXPECT_EQ(ContentsOf(kTarget).size(), 30'000u);
      ASSERT_THAT(file_->Checkpoint(), IsOk());
      ExpectSound(*file_);
      for (TreeId id : file_->Trees()) ASSERT_THAT(file_->DropTree(id), IsOk());
    }
  }
}

// Cutting and joining again and again neither makes trees higher nor leaves thin pages behind.
TEST_F(TreeSplitTest, TreesStayInShape) {
  Fill(*file_, kSource, 0, 20'000);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const uint64_t used = file_->stats().used_bytes;
  Random random(1);
  for (int round = 0; round < 1500; ++round) {
    ASSERT_THAT(file_->Split(SplitAt(Row(random.Below(20'000)))), IsOk());
    ASSERT_THAT(file_->Join(JoinBoth()), IsOk());
    for (TreeId id : {kSource, kLeft, kRight}) ASSERT_THAT(file_->DropTree(id), IsOk());
    ASSERT_THAT(file_->RenameTree(kTarget, kSource), IsOk());
  }
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ASSERT_THAT(tree(kSource).Apply(Metadata(""), 2'000'000), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ExpectSound(*file_);
  EXPECT_LT(file_->stats().used_bytes, used * 5 / 2);
  Reopen();
  ASSERT_THAT(tree(kSource).snapshot().Get(Row(10'000)), IsOk());
  EXPECT_LE(file_->stats().pages_read, 2u + 5u);  // two levels more than filled in order
}

TEST_F(TreeSplitTest, ARenamedTreeTakesTheOthersPlaceAndSpace) {
  Fill(*file_, kSource, 0, 5000);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ASSERT_THAT(tree(kSource).Apply(Metadata("old"), 100), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const uint64_t used = file_->stats().used_bytes;
  Fill(*file_, kTarget, 0, 5000);
  ASSERT_THAT(tree(kTarget).Apply(Metadata("new"), 90), IsOk());
  Snapshot old = tree(kSource).snapshot();
  EXPECT_THAT(file_->RenameTree(kTarget, kTarget), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(file_->RenameTree(kLeft, kTarget), StatusIs(StatusCode::kNotFound));
  auto renamed = file_->RenameTree(kTarget, kSource);
  ASSERT_THAT(renamed, IsOk());
  EXPECT_EQ(*renamed, file_->FindTree(kSource));
  EXPECT_EQ(file_->FindTree(kTarget), nullptr);
  EXPECT_EQ((*renamed)->position(), 90u);
  EXPECT_EQ((*renamed)->durable_position(), 100u);  // what a crash now would bring back
  EXPECT_THAT(old.Get("meta"), IsOkAndHolds("old"));
  EXPECT_THAT((*renamed)->snapshot().Get("meta"), IsOkAndHolds("new"));

  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_EQ((*renamed)->durable_position(), 90u);
  EXPECT_EQ((*renamed)->fallback_position(), 90u);
  EXPECT_EQ(Contents(old).size(), 5001u);
  old = Snapshot();
  ASSERT_THAT((*renamed)->Apply(WriteBatch(), 101), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ExpectSound(*file_);
  EXPECT_LE(file_->stats().used_bytes, used + 8 * kUnitBytes);
  Reopen();
  EXPECT_THAT(tree(kSource).snapshot().Get("meta"), IsOkAndHolds("new"));
  EXPECT_EQ(file_->Trees(), std::vector<TreeId>{kSource});
}

// What lay below a damaged branch when its tree was dropped comes back once Verify has missed it.
TEST_F(TreeSplitTest, SpaceBelowADamagedPageComesBack) {
  Fill(*file_, kTarget, 0, 10);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const uint64_t used = file_->stats().used_bytes;
  Fill(*file_, kSource, 0, 20'000);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Reopen();
  // The root was written last; behind it lie directory and bitmap, of one unit each.
  const std::string bytes = disk_.ReadRaw("pages");
  uint64_t root = 0;
  for (uint64_t at = 2 * kUnitBytes; at + kUnitBytes <= bytes.size(); at += kUnitBytes) {
    PageView page(bytes.data() + at);
    if (bytes.compare(at, 4, "DLPg") == 0 && page.kind() == PageKind::kBranch &&
        page.level() == 2) {
      root = at;
    }
  }
  ASSERT_GT(root, 0u);
  disk_.FlipBit("pages", (root + 40) * 8);
  ASSERT_THAT(file_->DropTree(kSource), IsOk());
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(tree(kTarget).Apply(WriteBatch(), 100 + i), IsOk());
    ASSERT_THAT(file_->Checkpoint(), IsOk());
  }
  PageFile::VerifyReport report;
  ASSERT_THAT(file_->Verify(&report), IsOk());
  EXPECT_GT(report.leaked_units, 400u);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(tree(kTarget).Apply(WriteBatch(), 200 + i), IsOk());
    ASSERT_THAT(file_->Checkpoint(), IsOk());
  }
  ExpectSound(*file_);
  EXPECT_LE(file_->stats().used_bytes, used + 4 * kUnitBytes);
  Fill(*file_, kSource, 0, 20'000);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ExpectSound(*file_);
  Reopen();
  EXPECT_EQ(ContentsOf(kSource).size(), 20'000u);
}

struct Kept {
  Snapshot snapshot;
  Model model;
};

// Everything at random, also in the middle of checkpoints: these keep what there was when they
// began, and snapshots what there was when they were taken.
void RunRandom(uint64_t seed, uint64_t key_space, int rounds) {
  SCOPED_TRACE(seed);
  Random random(seed);
  sim::SimDisk sim_disk(seed);
  HookedDisk disk(&sim_disk);
  std::unique_ptr<PageFile> file = OpenFile(disk);
  Forest forest;
  ForestSteps steps(random, key_space);
  std::vector<Kept> kept;
  auto step = [&] {
    for (uint64_t batches = random.Below(3); batches > 0 || forest.empty(); --batches) {
      TreeId id{1 + random.Below(4)};
      if (!forest.contains(id)) {
        ASSERT_THAT(file->CreateTree(id), IsOk());
      }
      TreeState& tree = forest[id];
      WriteBatch batch;
      uint64_t count = random.Below(random.Chance(0.1) ? key_space : 20);
      AddRandomOperations(random, key_space, count, batch, tree.model);
      ASSERT_THAT(file->FindTree(id)->Apply(batch, ++tree.position), IsOk());
      if (random.Chance(0.1)) kept.push_back({file->FindTree(id)->snapshot(), tree.model});
      if (batches == 0) break;
    }
    ASSERT_THAT(steps.Any(*file, forest), IsOk());
  };
  for (int round = 0; round < rounds; ++round) {
    step();
    if (random.Chance(0.3)) {
      Forest captured = forest;
      disk.SetHook([&] {
        if (random.Chance(0.5)) step();
      });
      ASSERT_THAT(file->Checkpoint(), IsOk());
      disk.SetHook(nullptr);
      ASSERT_TRUE(ForestIn(*OpenFile(sim_disk)) == captured);
      ExpectSound(*file);
    }
    if (kept.size() > 4) {
      for (const Kept& old : kept) ASSERT_EQ(Contents(old.snapshot), old.model);
      kept.clear();
    }
    if (random.Chance(0.05)) {
      ASSERT_TRUE(ForestIn(*file) == forest);
      kept.clear();
      ASSERT_THAT(file->Checkpoint(), IsOk());
      file.reset();
      file = OpenFile(disk);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(steps.splits(), rounds / 10);
  EXPECT_GT(steps.joins(), rounds / 20);
  // Nothing is held by anybody: all that is used is in the two checkpoints.
  kept.clear();
  for (int i = 0; i < 2; ++i) {
    TreeState& tree = forest.begin()->second;
    ASSERT_THAT(file->FindTree(forest.begin()->first)->Apply(WriteBatch(), ++tree.position),
                IsOk());
    ASSERT_THAT(file->Checkpoint(), IsOk());
  }
  ExpectSound(*file);
  EXPECT_EQ(file->stats().used_bytes, OpenFile(sim_disk)->stats().used_bytes);
}

TEST(TreeSplitModelTest, SmallTrees) {
  for (uint64_t seed = 1; seed <= 4; ++seed) RunRandom(seed, 60, 120);
}
TEST(TreeSplitModelTest, LargeTrees) {
  for (uint64_t seed = 11; seed <= 13; ++seed) RunRandom(seed, 1500, 50);
}

// Real threads; meant for tsan. Every checkpoint has each key in exactly one tree.
TEST(TreeSplitThreadsTest, ACheckpointSeesAllOfASplitOrNothing) {
  constexpr size_t kKeys = 100;  // few, so that many steps meet many checkpoints
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  Fill(*file, kSource, 0, kKeys);
  std::mutex mutex;
  Snapshot shared = file->FindTree(kSource)->snapshot();
  std::atomic<bool> stop{false};
  std::thread checkpoints([&] {
    do {
      ASSERT_THAT(file->Checkpoint(), IsOk());
      auto found = OpenFile(disk);
      size_t keys = 0;
      for (TreeId id : found->Trees()) keys += Contents(found->FindTree(id)->snapshot()).size();
      ASSERT_EQ(keys, kKeys);
    } while (!stop);
  });
  std::thread reader([&] {
    do {
      Snapshot snapshot;
      {
        std::lock_guard lock(mutex);
        snapshot = shared;
      }
      size_t keys = 0;
      auto count = [&](std::string_view, std::string_view) { return ++keys > 0; };
      ASSERT_THAT(snapshot.Scan("", "", ScanOrder::kForward, count, ReadMode::kFromDisk), IsOk());
      ASSERT_EQ(keys, kKeys);
    } while (!stop);
  });
  Random random(1);
  for (int round = 0; round < 2000; ++round) {
    WriteBatch batch;
    batch.Put(Row(random.Below(kKeys)), std::string(random.Below(4000), 'w'));
    ASSERT_THAT(file->FindTree(kSource)->Apply(batch, 1'000'000), IsOk());
    {
      std::lock_guard lock(mutex);
      shared = file->FindTree(kSource)->snapshot();
    }
    ASSERT_THAT(file->Split(SplitAt(Row(random.Below(kKeys)))), IsOk());
    ASSERT_THAT(file->Join(JoinBoth()), IsOk());
    ASSERT_THAT(file->DropTree(kLeft), IsOk());
    ASSERT_THAT(file->DropTree(kRight), IsOk());
    ASSERT_THAT(file->RenameTree(kTarget, kSource), IsOk());
  }
  stop = true;
  checkpoints.join();
  reader.join();
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
}

}  // namespace
}  // namespace dynlib::store
