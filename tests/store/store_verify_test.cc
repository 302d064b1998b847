// What Verify reads again, what Open says of what it can do without, and that neither takes writes
// that go on for damage.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_scan.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/superblock.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/hooked_disk.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A store with two checkpoints, and a log that both of them need.
class StoreVerifyTest : public testing::Test {
 protected:
  void SetUp() override {
    DYNLIB_ASSERT_OK(h_.Open());
    for (int i = 0; i < 3; ++i) {
      DYNLIB_ASSERT_OK(h_.Write(Put(Cat("k", i), std::string(300, 'v'))));
      if (i == 2) break;
      DYNLIB_ASSERT_OK(h_.Checkpoint());
    }
    rows_ = h_.Scan();
  }
  Superblock SuperblockAt(uint64_t index) const {
    return *DecodeSuperblock(
        disk_.ReadRaw("db/pages").substr(index * kSuperblockBytes, kSuperblockBytes), index);
  }
  // The segment in use: the one that has batches.
  struct Segment {
    std::string path;
    ScannedSegment scanned;
  };
  Segment Log() const {
    for (const std::string& path : disk_.Paths()) {
      if (!path.ends_with(".seg")) continue;
      const uint64_t number = std::stoull(path.substr(path.rfind('/') + 1));
      ScannedSegment scanned = ScanSegment(disk_.ReadRaw(path), h_.options.log.identity, number);
      if (!scanned.batches.empty()) return {path, std::move(scanned)};
    }
    ADD_FAILURE() << "no segment is in use";
    return {};
  }
  // Verify says that alone.
  void ExpectFault(const std::string& path, uint64_t at, const std::vector<std::string>& words) {
    SCOPED_TRACE(testing::Message() << path << " at " << at);
    disk_.FlipBit(path, 8 * at);
    PageFile::VerifyReport report;
    EXPECT_THAT(h_.store->Verify(&report), StatusIs(StatusCode::kDataLoss, HasSubstr(path)));
    EXPECT_EQ(report.damaged, 1u);
    ASSERT_EQ(report.faults.size(), 1u);
    for (const std::string& word : words) EXPECT_THAT(report.faults[0], HasSubstr(word));
    disk_.FlipBit(path, 8 * at);
    EXPECT_THAT(h_.store->Verify(&report), IsOk());
    EXPECT_THAT(report.faults, IsEmpty());
  }

  SimDisk disk_{1};
  StoreHarness h_{&disk_};
  Contents rows_;
};

TEST_F(StoreVerifyTest, ReadsTheMark) {
  ExpectFault("db/STORE", 20, {"offset 0", "checksum", "is stored"});
}

TEST_F(StoreVerifyTest, ReadsBothSuperblocks) {
  for (const uint64_t index : {0, 1}) {
    for (const uint64_t at : {0, 17, 40, 50, 100, 4000, 4090}) {
      ExpectFault("db/pages", index * kSuperblockBytes + at, {"superblock"});
    }
    ExpectFault("db/pages", index * kSuperblockBytes + 40,
                {Cat("superblock at offset ", index * kSuperblockBytes), "checksum", "expected"});
  }
}

// A write that the device never made leaves an older block, which is whole.
TEST_F(StoreVerifyTest, ASuperblockThatWasNotWrittenIsFound) {
  const uint64_t older = SuperblockAt(0).generation < SuperblockAt(1).generation ? 0 : 1;
  const std::string before =
      disk_.ReadRaw("db/pages").substr(older * kSuperblockBytes, kSuperblockBytes);
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  disk_.WriteRaw("db/pages", older * kSuperblockBytes, before);
  EXPECT_THAT(h_.store->Verify(),
              StatusIs(StatusCode::kDataLoss, HasSubstr("of checkpoint 2, and that of 4 was")));
}

TEST_F(StoreVerifyTest, ReadsDirectoriesAndBitmaps) {
  for (const uint64_t index : {0, 1}) {
    for (const PageRef& ref : {SuperblockAt(index).directory, SuperblockAt(index).bitmap}) {
      ASSERT_FALSE(ref.null());
      const uint64_t offset = ref.unit * kUnitBytes;
      ExpectFault("db/pages", offset + kPageHeaderBytes,
                  {Cat("offset ", offset), "checksum", "expected"});
    }
  }
}

TEST_F(StoreVerifyTest, ReadsTheLog) {
  const Segment log = Log();
  ExpectFault(log.path, 30, {"offset 0", "checksum", "expected"});
  ASSERT_GE(log.scanned.batches.size(), 3u);
  for (const ScannedBatch& batch : log.scanned.batches) {
    const uint64_t frames = batch.header.frames.size();
    const uint64_t end = batch.offset + batch.header.total_length;
    const std::string where = Cat("offset ", batch.offset, " batch ", batch.header.sequence);
    ExpectFault(log.path, batch.offset + 50, {where, "header", "checksum", "expected"});
    ExpectFault(log.path, end - BatchTrailerLength(frames) + 50,
                {where, "trailer", "checksum", "expected"});
    ExpectFault(log.path, end - 3, {where, "trailer"});
    if (batch.header.frames.back().payload_length == 0) continue;
    ExpectFault(log.path, batch.offset + BatchHeaderLength(frames) + 1,
                {where, "payload", "checksum", "its listing says"});
  }
}

// Neither header nor trailer: of the last batch nothing on disk tells, but the log knows.
TEST_F(StoreVerifyTest, ABatchThatIsGoneIsFound) {
  const Segment log = Log();
  for (const size_t i : {size_t{1}, log.scanned.batches.size() - 1}) {
    const ScannedBatch& batch = log.scanned.batches[i];
    const std::string bytes =
        disk_.ReadRaw(log.path).substr(batch.offset, batch.header.total_length);
    disk_.WriteRaw(log.path, batch.offset, std::string(bytes.size(), '\0'));
    EXPECT_THAT(h_.store->Verify(),
                StatusIs(StatusCode::kDataLoss,
                         AllOf(HasSubstr(Cat(log.path, " offset ", batch.offset)),
                               HasSubstr(Cat("batches ", batch.header.sequence, " to ",
                                             batch.header.sequence, " are missing")))));
    disk_.WriteRaw(log.path, batch.offset, bytes);
  }
  EXPECT_THAT(h_.store->Verify(), IsOk());
  DYNLIB_ASSERT_OK(disk_.Remove(log.path));
  EXPECT_THAT(h_.store->Verify(), StatusIs(StatusCode::kDataLoss, HasSubstr(log.path)));
}

// Checkpoints overwrite the superblocks, and segments are recycled, while it reads.
TEST_F(StoreVerifyTest, WritesAndCheckpointsThatGoOnAreNoDamage) {
  int calls = 0;
  const auto go_on = [&](const PageFile::VerifyReport&) {
    ++calls;
    for (int i = 0; i < 60; ++i) {
      EXPECT_THAT(h_.Write(Put(Cat("r", i), std::string(2000, 'r'))), IsOk());
    }
    EXPECT_THAT(h_.Checkpoint(), IsOk());
    return true;
  };
  for (int i = 0; i < 20; ++i) DYNLIB_ASSERT_OK(h_.store->Verify(nullptr, go_on));
  EXPECT_GE(calls, 20);
  EXPECT_GT(h_.store->stats().log.segments_recycled, 10u);
}

// In the middle of each write and sync, of superblocks and batches too.
TEST(StoreVerifyMeanwhileTest, WhatIsBeingWrittenIsNoDamage) {
  SimDisk disk(1);
  HookedDisk hooked(&disk);
  StoreHarness h(&hooked);
  DYNLIB_ASSERT_OK(h.Open());
  int verified = 0;
  hooked.SetHook([&] {
    ++verified;
    EXPECT_THAT(h.store->Verify(), IsOk());
  });
  for (int i = 0; i < 60; ++i) {
    DYNLIB_ASSERT_OK(h.Write(Put(Cat("k", i % 7), std::string(3000, 'v'))));
    if (i % 3 != 0) continue;
    DYNLIB_ASSERT_OK(h.Checkpoint());
  }
  hooked.SetHook(nullptr);
  EXPECT_GT(verified, 100);
  EXPECT_GT(h.store->stats().log.segments_recycled, 0u);
}

TEST_F(StoreVerifyTest, CountsWhatItReadsAndCanBeEnded) {
  PageFile::VerifyReport report;
  DYNLIB_ASSERT_OK(h_.store->Verify(&report));
  EXPECT_EQ(report.log_batches, Log().scanned.batches.size());
  EXPECT_GE(report.bytes, 2 * kSuperblockBytes + h_.options.log.segment_bytes);
  EXPECT_GE(report.bytes_total, report.bytes);
  EXPECT_THAT(h_.store->Verify(nullptr, [](const auto&) { return false; }),
              StatusIs(StatusCode::kCancelled));
}

// --- What Open can do without.

TEST_F(StoreVerifyTest, ARottedSuperblockIsNotedAndReplaced) {
  h_.Kill();
  for (const uint64_t index : {0, 1}) {
    disk_.FlipBit("db/pages", 8 * (index * kSuperblockBytes + 45));
    DYNLIB_ASSERT_OK(h_.Open());
    EXPECT_THAT(h_.found.notes, Contains(AllOf(HasSubstr("db/pages: superblock at offset"),
                                               HasSubstr("checksum"), HasSubstr("expected"))));
    EXPECT_EQ(h_.Scan(), rows_);
    EXPECT_THAT(h_.store->Verify(), IsOk());
    DYNLIB_ASSERT_OK(h_.Close());
    DYNLIB_ASSERT_OK(h_.Open());
    EXPECT_THAT(h_.found.notes, IsEmpty());
    EXPECT_EQ(h_.Scan(), rows_);
    DYNLIB_ASSERT_OK(h_.Close());
  }
}

TEST_F(StoreVerifyTest, AnOlderCheckpointWithoutItsDirectoryIsNotedAndReplaced) {
  h_.Kill();
  for (const bool bitmap : {false, true}) {
    const Superblock a = SuperblockAt(0);
    const Superblock b = SuperblockAt(1);
    const Superblock& older = a.generation < b.generation ? a : b;
    const PageRef ref = bitmap ? older.bitmap : older.directory;
    disk_.FlipBit("db/pages", 8 * (ref.unit * kUnitBytes + kPageHeaderBytes));
    DYNLIB_ASSERT_OK(h_.Open());
    EXPECT_THAT(h_.found.notes, Contains(AllOf(HasSubstr("db/pages"),
                                               HasSubstr(Cat("offset ", ref.unit * kUnitBytes)),
                                               HasSubstr("checksum"), HasSubstr("expected"))));
    EXPECT_EQ(h_.Scan(), rows_);
    EXPECT_THAT(h_.store->Verify(), IsOk());
    // What lets go of the space that only the old one held, and what uses it.
    for (int i = 0; i < 5; ++i) {
      DYNLIB_ASSERT_OK(h_.Write(Put("more", std::string(3000 + i, 'm'))));
      DYNLIB_ASSERT_OK(h_.Checkpoint());
    }
    rows_ = h_.Scan();
    EXPECT_THAT(h_.store->Verify(), IsOk());
    DYNLIB_ASSERT_OK(h_.Reopen());
    EXPECT_THAT(h_.found.notes, IsEmpty());
    EXPECT_EQ(h_.Scan(), rows_);
    h_.Kill();
  }
}

}  // namespace
}  // namespace dynlib::store
