// Backups: while writes go on, incremental, damaged, missing, and restored.
#include "dynlib/store/backup.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/object_store.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/object_store.h"
#include "dynlib/store/backup_format.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using sim::SimObjectStore;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The bytes of docs/format/backup.md.
TEST(BackupFormatTest, WorkedExample) {
  ChunkBuilder chunk;
  chunk.Add("lima", "Peru");
  chunk.Add("oslo", "Norway");
  EXPECT_EQ(chunk.bytes(), std::string("DLCHUNK\0\1\0\0\0\4lima\4Peru\4oslo\6Norway", 34));
  BackupManifest manifest{.position = 7};
  manifest.trees.push_back({"", {}});
  const Digest128 pages = {0x55, 0x66};
  manifest.trees.push_back({"cities", {{{0x1122, 0x3344}, 34, 2, "p", pages}}});
  const std::string bytes = EncodeManifest(manifest);
  EXPECT_EQ(bytes.substr(0, bytes.size() - 8),
            std::string("DLBACKUP\2\0\0\0\7\0\0\0\0\0\0\0\2\0\0\6cities\1"
                        "\x22\x11\0\0\0\0\0\0\x44\x33\0\0\0\0\0\0\x22\2"
                        "\1p\1\x55\0\0\0\0\0\0\0\x66\0\0\0\0\0\0\0",
                        68));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupManifest decoded, DecodeManifest(bytes));
  EXPECT_EQ(EncodeManifest(decoded), bytes);
  EXPECT_EQ(ChunkObject("p", manifest.trees[1].chunks[0].digest),
            "p/chunks/00000000000033440000000000001122");
}

TEST(BackupFormatTest, AnOlderManifestIsRead) {
  std::string bytes(
      "DLBACKUP\1\0\0\0\7\0\0\0\0\0\0\0\2\0\0\6cities\1"
      "\x22\x11\0\0\0\0\0\0\x44\x33\0\0\0\0\0\0\x22\2",
      49);
  PutFixed64(bytes, Checksum(bytes));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupManifest decoded, DecodeManifest(bytes));
  EXPECT_EQ(decoded.position, 7u);
  ASSERT_EQ(decoded.trees.size(), 2u);
  ASSERT_EQ(decoded.trees[1].chunks.size(), 1u);
  EXPECT_EQ(decoded.trees[1].chunks[0].rows, 2u);
  EXPECT_EQ(decoded.trees[1].chunks[0].pages, std::nullopt);
}

TEST(BackupFormatTest, DamageIsFoundAndNewerFormatsAreRefused) {
  BackupManifest manifest{.position = 7};
  manifest.trees.push_back({"t", {{{1, 2}, 3, 4}}});
  const std::string bytes = EncodeManifest(manifest);
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] ^= 4;
    EXPECT_THAT(DecodeManifest(damaged), StatusIs(StatusCode::kDataLoss)) << i;
    EXPECT_THAT(DecodeManifest(bytes.substr(0, i)), StatusIs(StatusCode::kDataLoss)) << i;
  }
  const auto none = [](std::string_view, std::string_view) { return absl::OkStatus(); };
  EXPECT_THAT(ReadChunk(std::string("DLCHUNK\0\2\0\0\0", 12), none),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("version 2")));
  EXPECT_THAT(ReadChunk("hello", none), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(ReadChunk(std::string("DLCHUNK\0\1\0\0\0\4lim", 16), none),
              StatusIs(StatusCode::kDataLoss));
}

class BackupTest : public testing::Test {
 protected:
  void SetUp() override {
    DYNLIB_ASSERT_OK(h_.Open());
    DYNLIB_ASSERT_OK_AND_ASSIGN(tree_, h_.OpenTree("rows"));
    DYNLIB_ASSERT_OK(h_.Write(Put("default", "1")));
    for (int i = 0; i < kRows; i += 2) Add(i, "first");
  }
  void Add(int i, std::string_view what) {
    const std::string key = Cat("key", 10000 + i);
    std::string value = Cat(what, i);
    Random random(i);
    while (value.size() < 2500) value += Hex(random.Next());
    rows_[key] = value;
    StoreBatch batch;
    batch.Put(tree_, key, value);
    ASSERT_THAT(h_.Write(std::move(batch)).status, IsOk());
  }
  absl::StatusOr<BackupReport> Back(std::string name) {
    return BackUp(h_.store->snapshot(), &objects_, {.name = std::move(name)});
  }
  void ExpectRestored(const std::string& name, const Contents& rows) {
    SimDisk disk(9);
    DYNLIB_ASSERT_OK(RestoreBackup(&objects_, {.name = name}, &disk, "db").status());
    StoreHarness restored(&disk);
    DYNLIB_ASSERT_OK(restored.Open());
    EXPECT_THAT(restored.store->ListTrees(), ElementsAre("rows"));
    EXPECT_EQ(restored.Scan(*restored.store->FindTree("rows")), rows);
    EXPECT_THAT(restored.store->Get("default"), IsOkAndHolds("1"));
    EXPECT_THAT(restored.store->Verify(), IsOk());
    // It goes on as any other store.
    DYNLIB_ASSERT_OK(restored.Write(Put("more", "2")));
    DYNLIB_ASSERT_OK(restored.OpenTree("another").status());
    DYNLIB_ASSERT_OK(restored.Reopen());
    EXPECT_THAT(restored.store->Get("more"), IsOkAndHolds("2"));
    EXPECT_EQ(restored.Scan(*restored.store->FindTree("rows")), rows);
  }
  std::vector<std::string> Objects(std::string_view prefix) {
    std::vector<std::string> names;
    const auto found = objects_.List(prefix, "", 1000);
    for (const ObjectInfo& object : *found) names.push_back(object.name);
    return names;
  }

  static constexpr int kRows = 1600;
  SimDisk disk_{1};
  SimObjectStore objects_{1};
  StoreHarness h_{&disk_};
  NamedTree tree_;
  Contents rows_;
};

TEST_F(BackupTest, FullThenIncrementalThenRestored) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport full, Back("monday"));
  EXPECT_EQ(full.rows, rows_.size() + 1);
  EXPECT_EQ(full.uploaded_bytes, full.bytes);
  EXPECT_GT(full.chunks, 2u);
  const Contents monday = rows_;
  Add(801, "inserted");
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport increment, Back("tuesday"));
  EXPECT_LE(increment.uploaded_chunks, 2u);
  EXPECT_LT(increment.uploaded_bytes, full.bytes);
  EXPECT_EQ(increment.rows, full.rows + 1);
  ExpectRestored("monday", monday);
  ExpectRestored("tuesday", rows_);
  EXPECT_THAT(ListBackups(&objects_), IsOkAndHolds(ElementsAre("monday", "tuesday")));
  EXPECT_THAT(Back("monday"), StatusIs(StatusCode::kAlreadyExists));

  DYNLIB_ASSERT_OK(DeleteBackup(&objects_, {.name = "monday"}));
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "tuesday"}), IsOk());
  ExpectRestored("tuesday", rows_);
  DYNLIB_ASSERT_OK(DeleteBackup(&objects_, {.name = "tuesday"}));
  EXPECT_THAT(Objects("store/"), IsEmpty());
}

// What has the same pages as before is not read again, nor are they.
TEST_F(BackupTest, UnchangedRangesAreNotRead) {
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport full, Back("1"));
  EXPECT_EQ(full.rows_read, full.rows);
  EXPECT_EQ(full.unread_chunks, 0u);
  DYNLIB_ASSERT_OK(h_.Reopen());  // With nothing in memory.
  tree_ = *h_.store->FindTree("rows");
  const uint64_t pages_before = h_.store->stats().pages.pages_read;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport same, Back("2"));
  EXPECT_EQ(same.unread_chunks, same.chunks);
  EXPECT_EQ(same.rows_read, 0u);
  EXPECT_EQ(same.rows, full.rows);
  EXPECT_EQ(same.bytes, full.bytes);
  // Branches, once for each chunk: of more than 800 pages of values.
  EXPECT_LE(h_.store->stats().pages.pages_read - pages_before, 4 * full.chunks);
  ExpectRestored("2", rows_);

  Add(kRows - 1, "inserted");
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport next, Back("3"));
  EXPECT_GT(next.rows_read, 0u);
  EXPECT_LE(next.rows_read, rows_.size() * 2 / 3);
  EXPECT_GT(next.unread_chunks, 0u);
  ExpectRestored("3", rows_);
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport all, BackUp(h_.store->snapshot(), &objects_,
                                                             {.name = "4", .read_all = true}));
  EXPECT_EQ(all.rows_read, all.rows);
  EXPECT_EQ(all.uploaded_chunks, 0u);

  // Against one that is named; one that is not there is an error.
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport named, BackUp(h_.store->snapshot(), &objects_,
                                                               {.name = "5", .previous = "1"}));
  EXPECT_GT(named.unread_chunks, 0u);
  EXPECT_GT(named.rows_read, 0u);
  EXPECT_THAT(BackUp(h_.store->snapshot(), &objects_, {.name = "6", .previous = "none"}),
              StatusIs(StatusCode::kNotFound));
}

// A chunk that is gone is made again, and a manifest that is damaged is not gone on from.
TEST_F(BackupTest, WhatIsMissingOfTheBackupBeforeIsReadAgain) {
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK(Back("1").status());
  const std::vector<std::string> chunks = Objects("store/chunks/");
  DYNLIB_ASSERT_OK(objects_.Delete(chunks[1]));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport second, Back("2"));
  EXPECT_EQ(second.uploaded_chunks, 1u);
  EXPECT_EQ(second.unread_chunks, second.chunks - 1);
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "1"}), IsOk());
  ASSERT_TRUE(objects_.FlipBit("store/backups/2", 100));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport third, Back("3"));
  EXPECT_EQ(third.rows_read, third.rows);
  EXPECT_EQ(third.uploaded_chunks, 0u);
  ExpectRestored("3", rows_);
}

// Whatever changes between two of them, checkpointed or not: each has what was there.
TEST_F(BackupTest, RandomChangesBetweenIncrementalBackups) {
  Random random(7);
  uint64_t unread = 0;
  for (int round = 0; round < 25; ++round) {
    SCOPED_TRACE(round);
    const int kind = static_cast<int>(random.Below(6));
    if (kind == 0) {  // The end, or the middle, is deleted.
      const std::string first = Cat("key", 10000 + random.Below(kRows));
      const std::string end = random.Chance(0.5) ? "" : Cat("key", 10000 + random.Below(kRows));
      if (end.empty() || first < end) {
        StoreBatch batch;
        batch.DeleteRange(tree_, first, end);
        DYNLIB_ASSERT_OK(h_.Write(std::move(batch)).status);
        rows_.erase(rows_.lower_bound(first), end.empty() ? rows_.end() : rows_.lower_bound(end));
      }
    } else if (kind == 1) {  // The tree is another one of that name.
      DYNLIB_ASSERT_OK(h_.DropTree(tree_));
      DYNLIB_ASSERT_OK_AND_ASSIGN(tree_, h_.OpenTree("rows"));
      rows_.clear();
      for (int i = 0; i < 300; ++i) Add(static_cast<int>(random.Below(kRows)), "again");
    } else {
      for (uint64_t n = random.Below(kind == 2 ? 400 : 6); n > 0; --n) {
        Add(static_cast<int>(random.Below(kRows + 20)), Cat("round", round));
      }
    }
    if (random.Chance(0.7)) {
      DYNLIB_ASSERT_OK(h_.Checkpoint());
    }
    if (random.Chance(0.2)) h_.Rest();
    const std::string name = Cat("b", 100 + round);
    DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport report, Back(name));
    EXPECT_EQ(report.rows, rows_.size() + 1);
    unread += report.unread_chunks;
    ExpectRestored(name, rows_);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(unread, 20u);
}

TEST_F(BackupTest, ItIsTheSnapshotWhateverIsWrittenMeanwhile) {
  const Contents before = rows_;
  int calls = 0;
  BackupOptions options = {.name = "b", .progress = [&](const BackupReport&) {
                             for (int i = 0; i < 20; ++i) Add(calls * 20 + i, "meanwhile");
                             ++calls;
                             return true;
                           }};
  DYNLIB_ASSERT_OK(BackUp(h_.store->snapshot(), &objects_, options).status());
  EXPECT_GT(calls, 2);
  EXPECT_NE(rows_, before);
  ExpectRestored("b", before);
}

TEST_F(BackupTest, DamagedOrMissingObjectsAreNamed) {
  DYNLIB_ASSERT_OK(Back("b").status());
  const std::vector<std::string> chunks = Objects("store/chunks/");
  ASSERT_GT(chunks.size(), 2u);
  SimDisk disk(9);
  ASSERT_TRUE(objects_.FlipBit(chunks[1], 100));
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "b"}),
              StatusIs(StatusCode::kDataLoss, HasSubstr(chunks[1])));
  EXPECT_THAT(RestoreBackup(&objects_, {.name = "b"}, &disk, "db"),
              StatusIs(StatusCode::kDataLoss, HasSubstr(chunks[1])));
  // What was half restored is no store, and is not restored into.
  StoreHarness half(&disk);
  EXPECT_THAT(half.Open(), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("did not finish")));
  ASSERT_TRUE(objects_.FlipBit(chunks[1], 100));
  EXPECT_THAT(RestoreBackup(&objects_, {.name = "b"}, &disk, "db"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("empty folder")));
  DYNLIB_ASSERT_OK(objects_.Delete(chunks[2]));
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "b"}),
              StatusIs(StatusCode::kNotFound, HasSubstr(chunks[2])));
  // The next backup finds it missing, and makes the first whole again.
  DYNLIB_ASSERT_OK(Back("c").status());
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "b"}), IsOk());
  ASSERT_TRUE(objects_.FlipBit("store/backups/b", 100));
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "b"}),
              StatusIs(StatusCode::kDataLoss, HasSubstr("store/backups/b")));
  EXPECT_THAT(VerifyBackup(&objects_, {.name = "none"}), StatusIs(StatusCode::kNotFound));
}

TEST_F(BackupTest, RefusedCancelledAndUnavailable) {
  EXPECT_THAT(Back(""), StatusIs(StatusCode::kInvalidArgument, HasSubstr("name")));
  EXPECT_THAT(Back("a/b"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(BackUp(h_.store->snapshot(), &objects_,
                     {.name = "b", .progress = [](const BackupReport&) { return false; }}),
              StatusIs(StatusCode::kCancelled));
  EXPECT_THAT(ListBackups(&objects_), IsOkAndHolds(IsEmpty()));
  objects_.SetUnavailable(true);
  EXPECT_THAT(Back("b"), StatusIs(StatusCode::kUnavailable));
  objects_.SetUnavailable(false);
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport report, Back("b"));
  EXPECT_LT(report.uploaded_chunks, report.chunks);  // The one before had begun.
}

TEST_F(BackupTest, ADamagedPageEndsIt) {
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK(h_.Close());
  const size_t at = disk_.ReadRaw("db/pages").find("first700");
  ASSERT_NE(at, std::string::npos);
  disk_.FlipBit("db/pages", 8 * at);
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_THAT(Back("b"), StatusIs(StatusCode::kDataLoss, HasSubstr("db/pages")));
  EXPECT_THAT(ListBackups(&objects_), IsOkAndHolds(IsEmpty()));
}

TEST_F(BackupTest, AnEmptyStore) {
  SimDisk disk(3);
  StoreHarness empty(&disk);
  DYNLIB_ASSERT_OK(empty.Open());
  DYNLIB_ASSERT_OK(BackUp(empty.store->snapshot(), &objects_, {.name = "empty"}).status());
  SimDisk target(4);
  DYNLIB_ASSERT_OK(RestoreBackup(&objects_, {.name = "empty"}, &target, "x/db").status());
}

}  // namespace
}  // namespace dynlib::store
