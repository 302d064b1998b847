// Space that comes free: used again, discarded, cut off; and the pace of checkpoints.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/page_file.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/hooked_disk.h"

namespace dynlib::store {
namespace {

const PageFile::Options kSmall = {.growth_bytes_min = 64 << 10, .growth_bytes_max = 64 << 10};
constexpr uint64_t kFreeFileBytes = 16 << 10;  // superblocks, directory and bitmap

class PageFileSpaceTest : public testing::Test {
 protected:
  void Open() {
    file_.reset();
    auto file = PageFile::Open(kSmall, &disk_, "pages");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    tree_ = file_->FindTree(TreeId{1});
    if (tree_ == nullptr) tree_ = *file_->CreateTree(TreeId{1});
  }

  static std::string Key(int i) { return std::to_string(1'000'000 + i); }

  // Rows [first, end) with a value of 1,000 bytes.
  void Put(int first, int end, char fill) {
    WriteBatch batch;
    for (int i = first; i < end; ++i) batch.Put(Key(i), std::string(1000, fill));
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }
  void Delete(int first, int end) {
    WriteBatch batch;
    for (int i = first; i < end; ++i) batch.Delete(Key(i));
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }
  void ExpectRows(int count, char fill) {
    int found = 0;
    ASSERT_THAT(tree_->snapshot().Scan("", "", ScanOrder::kForward,
                                       [&](std::string_view, std::string_view value) {
                                         found += value == std::string(1000, fill);
                                         return true;
                                       }),
                IsOk());
    EXPECT_EQ(found, count);
  }
  void ExpectSound() {
    PageFile::VerifyReport report;
    EXPECT_THAT(file_->Verify(&report), IsOk());
    EXPECT_EQ(report.leaked_units, 0u);
  }

  sim::SimDisk disk_{1};
  std::unique_ptr<PageFile> file_;
  Tree* tree_ = nullptr;
};

TEST_F(PageFileSpaceTest, AllOfADeletedTreeGoesBackToTheFileSystem) {
  Open();
  Put(0, 2000, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_GT(disk_.used_bytes(), 2'000'000u);
  Delete(0, 2000);
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  ASSERT_THAT(file_->ReleaseSpace(), IsOk());
  EXPECT_LE(disk_.used_bytes(), kFreeFileBytes);
  ExpectSound();
  Open();
  ExpectRows(0, 'a');
  Put(0, 2000, 'b');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  ExpectSound();
  Open();
  ExpectRows(2000, 'b');
}

// A file that is mostly free does not wait to be asked.
TEST_F(PageFileSpaceTest, AFileThatIsMostlyFreeShrinksWithACheckpoint) {
  Open();
  Put(0, 2000, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Delete(0, 2000);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_GT(disk_.used_bytes(), 2'000'000u);  // the older checkpoint holds it
  Put(0, 1, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_LT(disk_.used_bytes(), 200'000u);
}

TEST_F(PageFileSpaceTest, HolesInTheMiddleAreFilledBeforeTheFileGrows) {
  Open();
  Put(0, 1000, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Put(1000, 1100, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Delete(0, 1000);
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  ASSERT_THAT(file_->ReleaseSpace(), IsOk());
  const PageFile::Stats sparse = file_->stats();
  EXPECT_GT(sparse.discarded_bytes, 800'000u);
  EXPECT_LT(disk_.used_bytes(), 300'000u);
  ExpectRows(100, 'a');
  Put(0, 600, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_EQ(file_->stats().file_bytes, sparse.file_bytes);
  EXPECT_LT(file_->stats().discarded_bytes, sparse.discarded_bytes);
  ExpectRows(700, 'a');
  ExpectSound();
  Open();
  ExpectRows(700, 'a');
}

TEST_F(PageFileSpaceTest, AFullDiskFailsTheCheckpointThatNeedsAHole) {
  Open();
  Put(0, 1000, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Put(1000, 1100, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Delete(0, 1000);
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  ASSERT_THAT(file_->ReleaseSpace(), IsOk());
  disk_.SetFull(true);
  Put(0, 600, 'a');
  EXPECT_THAT(file_->Checkpoint(), StatusIs(absl::StatusCode::kResourceExhausted));
  disk_.SetFull(false);
  EXPECT_THAT(file_->Checkpoint(), IsOk());
  ExpectRows(700, 'a');
  ExpectSound();
}

// Every third leaf moves to the end of the file; what it leaves is too short for ReleaseSpace.
TEST_F(PageFileSpaceTest, ShortRunsAreGivenBackAPortionAtATime) {
  Open();
  Put(0, 1000, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  for (int i = 0; i < 1000; i += 20) Put(i, i + 1, 'b');
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  ASSERT_THAT(file_->ReleaseSpace(), IsOk());
  auto kept = [&] {
    const PageFile::Stats stats = file_->stats();
    EXPECT_EQ(stats.file_bytes - stats.discarded_bytes, disk_.used_bytes());
    return disk_.used_bytes() - stats.used_bytes;
  };
  const uint64_t before = kept();
  EXPECT_GT(before, file_->stats().used_bytes / 16);
  PageFile::ReleaseProgress progress;
  uint64_t left = before;
  for (int calls = 1; !progress.done; ++calls) {
    const uint64_t holes = progress.holes;
    ASSERT_THAT(file_->ReleaseShortRuns(2, &progress), IsOk());
    EXPECT_LE(progress.holes, holes + 2);
    EXPECT_GE(left, kept());
    left = kept();
    ASSERT_LT(calls, 100);
  }
  EXPECT_GT(progress.holes, 8u);
  EXPECT_LE(left, file_->stats().used_bytes / 64);
  EXPECT_GT(left, 0u);  // no more holes than needed
  ExpectRows(950, 'a');
  ExpectSound();

  // The file grows at its end rather than in holes for one page each ...
  const uint64_t file_bytes = file_->stats().file_bytes;
  for (int i = 5; i < 1000; i += 20) Put(i, i + 1, 'b');
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  EXPECT_GT(file_->stats().file_bytes, file_bytes);
  ExpectRows(900, 'a');
  ExpectSound();
  Open();
  ExpectRows(900, 'a');
}

TEST_F(PageFileSpaceTest, NothingIsAShortRunOfAFileInUse) {
  Open();
  Put(0, 1000, 'a');
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  ASSERT_THAT(file_->ReleaseSpace(), IsOk());
  const uint64_t used = disk_.used_bytes();
  PageFile::ReleaseProgress progress;
  ASSERT_THAT(file_->ReleaseShortRuns(100, &progress), IsOk());
  EXPECT_TRUE(progress.done);
  EXPECT_LE(progress.holes, 4u);
  EXPECT_NEAR(disk_.used_bytes(), used, used / 32);
}

TEST_F(PageFileSpaceTest, SnapshotsKeepWhatTheySeeThroughARelease) {
  Open();
  Put(0, 1000, 'a');
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  const Snapshot before = tree_->snapshot();
  Delete(0, 1000);
  ASSERT_THAT(file_->CheckpointTwice(), IsOk());
  ASSERT_THAT(file_->ReleaseSpace(), IsOk());
  PageFile::ReleaseProgress progress;
  ASSERT_THAT(file_->ReleaseShortRuns(1000, &progress), IsOk());
  for (int i = 0; i < 1000; ++i) {
    ASSERT_THAT(before.Get(Key(i), ReadMode::kFromDisk), IsOkAndHolds(std::string(1000, 'a')));
  }
}

TEST_F(PageFileSpaceTest, PowerLostAfterAReleaseLosesNothing) {
  for (const sim::UnsyncedFate fate :
       {sim::UnsyncedFate::kAllLost, sim::UnsyncedFate::kAllKept, sim::UnsyncedFate::kTorn,
        sim::UnsyncedFate::kRandomSubset}) {
    file_.reset();
    if (tree_ != nullptr) {
      ASSERT_THAT(disk_.Remove("pages"), IsOk());
    }
    Open();
    Put(0, 1000, 'a');
    ASSERT_THAT(file_->Checkpoint(), IsOk());
    Put(1000, 1100, 'a');
    ASSERT_THAT(file_->Checkpoint(), IsOk());
    Delete(0, 1000);
    ASSERT_THAT(file_->CheckpointTwice(), IsOk());
    ASSERT_THAT(file_->ReleaseSpace(), IsOk());
    PageFile::ReleaseProgress progress;
    ASSERT_THAT(file_->ReleaseShortRuns(1000, &progress), IsOk());
    file_.reset();
    disk_.PowerOff(fate);
    disk_.Restart();
    Open();
    ExpectRows(100, 'a');
    ExpectSound();
  }
}

// Each n-th call that writes or syncs moves a tree on: then a checkpoint's writes are small, and
// large with nobody at work.
TEST_F(PageFileSpaceTest, ACheckpointWritesSmallPortionsWhileTreesAreWritten) {
  auto calls = [this](int every) {
    HookedDisk hooked(&disk_);
    auto file = *PageFile::Open(kSmall, &hooked, Cat("every", every));
    Tree* filled = *file->CreateTree(TreeId{1});
    Tree* other = *file->CreateTree(TreeId{2});
    WriteBatch batch;
    for (int i = 0; i < 4000; ++i) batch.Put(Key(i), std::string(1000, 'a'));
    EXPECT_THAT(filled->Apply(batch, 1), IsOk());
    int count = 0;
    hooked.SetHook([&] {
      ++count;
      if (count % every == 0) {
        EXPECT_THAT(other->Apply({}, other->position() + 1), IsOk());
      }
    });
    EXPECT_THAT(file->Checkpoint(), IsOk());
    hooked.SetHook(nullptr);
    return count;
  };
  // Each portion is one direct write.
  EXPECT_GE(calls(1), 4'000'000 / (64 << 10));
  EXPECT_GE(calls(10), 4'000'000 / (64 << 10));
  EXPECT_LT(calls(1000), 40);
}

TEST(ExtentAllocatorTest, WhatWasDiscardedIsNotGivenOutUntilItIsFilled) {
  ExtentAllocator allocator(100);
  allocator.SetCheckpoints({nullptr, nullptr});
  ASSERT_EQ(allocator.Allocate(20), (Extent{2, 20}));
  uint64_t from = 0;
  EXPECT_EQ(allocator.DiscardRuns(30, 10, &from), (std::vector<Extent>{{22, 78}}));
  EXPECT_EQ(allocator.discarded_units(), 78u);
  EXPECT_FALSE(allocator.Allocate(1).has_value());
  EXPECT_EQ(allocator.DiscardedRun(5, 10), (Extent{22, 10}));
  EXPECT_FALSE(allocator.DiscardedRun(79, 100).has_value());
  allocator.Fill({22, 10});
  EXPECT_EQ(allocator.Allocate(5), (Extent{22, 5}));
  EXPECT_EQ(allocator.TrimTail(40), 40u);
  EXPECT_EQ(allocator.discarded_units(), 8u);
  EXPECT_EQ(allocator.TrimTail(2), 27u);
  EXPECT_EQ(allocator.file_units(), 27u);
  EXPECT_EQ(allocator.discarded_units(), 0u);
}

// Units beside discarded ones are part of a longer run.
TEST(ExtentAllocatorTest, WhatIsLeftBetweenHolesIsDiscardedWithThem) {
  ExtentAllocator allocator(40);
  allocator.SetCheckpoints({nullptr, nullptr});
  const Extent first = *allocator.Allocate(10);
  ASSERT_EQ(allocator.Allocate(8), (Extent{12, 8}));
  const Extent last = *allocator.Allocate(10);
  ASSERT_EQ(allocator.Allocate(10), (Extent{30, 10}));
  allocator.Release(first);
  allocator.Release(last);
  uint64_t from = 0;
  EXPECT_TRUE(allocator.DiscardRuns(11, 10, &from).empty());
  from = 0;
  EXPECT_EQ(allocator.DiscardRuns(10, 10, &from), (std::vector<Extent>{first, last}));
  EXPECT_EQ(allocator.idle_units(), 0u);
  allocator.Release({12, 8});
  EXPECT_EQ(allocator.idle_units(), 8u);
  from = 0;
  EXPECT_EQ(allocator.DiscardRuns(28, 10, &from), (std::vector<Extent>{{12, 8}}));
  EXPECT_EQ(allocator.discarded_units(), 28u);
}

}  // namespace
}  // namespace dynlib::store
