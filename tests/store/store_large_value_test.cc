// Values as long as the longest item, 400 KB, and as long as a value may be: in pages of their own,
// through all that a store does with a row.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/sim/object_store.h"
#include "dynlib/store/backup.h"
#include "dynlib/store/cursor.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
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
using testing::HasSubstr;

constexpr size_t kItemBytes = 400 << 10;

// Half of them do not compress.
std::string Large(uint64_t seed, size_t bytes = kItemBytes) {
  if (seed % 2 == 0) return std::string(bytes, static_cast<char>('a' + seed % 26));
  Random random(seed);
  std::string value(bytes, '\0');
  for (char& c : value) c = static_cast<char>(random.Below(256));
  return value;
}

class StoreLargeValueTest : public testing::TestWithParam<Compression> {
 protected:
  StoreLargeValueTest() {
    h_.options.log.segment_bytes = 8 << 20;
    h_.options.log.block_bytes = 4096;
    h_.options.log.max_batch_bytes = 2 << 20;
    h_.options.log.max_queued_bytes = 8 << 20;
    h_.options.checkpoint_after_bytes = 1 << 30;  // When the test says so.
    h_.options.pages.compression = GetParam();
  }
  void SetUp() override { DYNLIB_ASSERT_OK(h_.Open()); }

  void Write(const std::string& key, std::string value) {
    rows_[key] = value;
    ASSERT_THAT(h_.Write(Put(key, std::move(value))), IsOk());
  }
  // Rows with long values among short ones.
  void Fill() {
    for (uint64_t i = 0; i < 8; ++i) {
      Write(Cat("k", i, "/long"), Large(i));
      Write(Cat("k", i, "/short"), Cat("v", i));
    }
  }
  // Both checkpoints then are of what is there now; one of nothing new would not be made.
  void CheckpointTwice() {
    for (const char* turn : {"1", "2"}) {
      Write("turn", turn);
      ASSERT_THAT(h_.Checkpoint(), IsOk());
    }
  }
  void LosePower() {
    h_.Kill();
    disk_.PowerOff(sim::UnsyncedFate::kAllLost);
    disk_.Restart();
    DYNLIB_ASSERT_OK(h_.Open());
  }

  // In all the ways in which a row can be read.
  void ExpectAllThere() {
    EXPECT_TRUE(h_.Scan() == rows_);
    Contents backward;
    EXPECT_THAT(h_.store->snapshot(NamedTree())
                    .Scan("", "", ScanOrder::kReverse,
                          [&](std::string_view k, std::string_view v) {
                            backward.emplace(k, v);
                            return true;
                          }),
                IsOk());
    EXPECT_TRUE(backward == rows_);
    DYNLIB_ASSERT_OK_AND_ASSIGN(Cursor cursor, h_.store->NewCursor());
    cursor.SeekToFirst();
    std::vector<std::string_view> keys;
    std::string copy;
    for (const auto& [key, value] : rows_) {
      keys.push_back(key);
      const auto found = h_.store->Get(key);
      ASSERT_TRUE(found.ok() && found->has_value()) << key << " " << found.status();
      EXPECT_TRUE(**found == value) << key;
      EXPECT_THAT(h_.store->GetInto(NamedTree(), key, copy), IsOkAndHolds(true));
      EXPECT_TRUE(copy == value) << key;
      EXPECT_THAT(h_.store->View(NamedTree(), key,
                                 [&](std::string_view seen) { EXPECT_TRUE(seen == value); }),
                  IsOkAndHolds(true));
      std::optional<absl::StatusOr<std::optional<std::string>>> answer;
      h_.store->GetAsync(NamedTree(), key, &h_.caller, [&](auto a) { answer = std::move(a); });
      h_.Run();
      EXPECT_TRUE(answer.has_value() && answer->ok() && **answer == value) << key;
      ASSERT_TRUE(cursor.valid());
      EXPECT_EQ(cursor.key(), key);
      EXPECT_TRUE(cursor.value() == value) << key;
      cursor.Next();
    }
    EXPECT_FALSE(cursor.valid());
    DYNLIB_EXPECT_OK(cursor.status());
    const auto values = h_.store->MultiGet(NamedTree(), keys);
    ASSERT_EQ(values.size(), keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      EXPECT_TRUE(values[i].ok() && *values[i] == rows_.at(std::string(keys[i]))) << keys[i];
    }
  }

  SimDisk disk_{1};
  StoreHarness h_{&disk_};
  Contents rows_;
};

TEST_P(StoreLargeValueTest, IsReadBackFromMemoryTheLogAndTheFile) {
  Fill();
  ExpectAllThere();
  LosePower();
  EXPECT_GT(h_.found.replayed_batches, 0u);
  ExpectAllThere();
  CheckpointTwice();
  LosePower();
  const uint64_t read = h_.store->stats().pages.pages_read;
  ExpectAllThere();
  EXPECT_GE(h_.store->stats().pages.pages_read - read, 8u);
  EXPECT_THAT(h_.store->Verify(), IsOk());
}

TEST_P(StoreLargeValueTest, IsOverwrittenByShortOnesAndBackWhileASnapshotHasTheOld) {
  Fill();
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  const Contents before = rows_;
  const StoreSnapshot held = h_.store->snapshot("before");
  for (uint64_t i = 0; i < 8; ++i) {
    Write(Cat("k", i, "/long"),
          i % 3 == 0 ? std::string("short now") : Large(i + 9, kItemBytes / 3));
    Write(Cat("k", i, "/short"), Large(i + 20));
  }
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  ExpectAllThere();
  for (const auto& [key, value] : before) {
    const auto found = held.Get(key);
    EXPECT_TRUE(found.ok() && *found == value) << key;
  }
  LosePower();
  ExpectAllThere();
  EXPECT_THAT(h_.store->Verify(), IsOk());
}

// Their pages are free again, whatever part of a range they are in.
TEST_P(StoreLargeValueTest, ARangeDeleteGivesTheSpaceBack) {
  Fill();
  CheckpointTwice();
  const uint64_t filled = h_.store->stats().pages.used_bytes;
  WriteBatch some;
  some.DeleteRange("k1", "k7");
  DYNLIB_ASSERT_OK(h_.Write(some));
  rows_.erase(rows_.lower_bound("k1"), rows_.lower_bound("k7"));
  ExpectAllThere();
  CheckpointTwice();
  // Of the values of 1 to 6 three do not compress.
  const uint64_t values = GetParam() == Compression::kNone ? 6 : 3;
  EXPECT_LE(h_.store->stats().pages.used_bytes, filled - values * kItemBytes);
  LosePower();
  ExpectAllThere();
  WriteBatch all;
  all.DeleteRange("", "");
  DYNLIB_ASSERT_OK(h_.Write(all));
  rows_.clear();
  CheckpointTwice();
  EXPECT_LE(h_.store->stats().pages.used_bytes, 64u << 10);
  ExpectAllThere();
  EXPECT_THAT(h_.store->Verify(), IsOk());
}

TEST_P(StoreLargeValueTest, IsBackedUpAndRestored) {
  Fill();
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  Write("k3/longer", Large(31, kMaxValueBytes));  // Not in the file yet.
  sim::SimObjectStore objects(1);
  DYNLIB_ASSERT_OK(BackUp(h_.store->snapshot(), &objects, {.name = "one"}).status());
  Write("k9", Large(9));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const BackupReport next,
                              BackUp(h_.store->snapshot(), &objects, {.name = "two"}));
  EXPECT_LT(next.uploaded_bytes, next.bytes);
  EXPECT_THAT(VerifyBackup(&objects, {.name = "two"}), IsOk());
  h_.Kill();
  SimDisk other(9);
  DYNLIB_ASSERT_OK(RestoreBackup(&objects, {.name = "two"}, &other, "db").status());
  StoreHarness restored(&other);
  restored.options = h_.options;
  DYNLIB_ASSERT_OK(restored.Open());
  EXPECT_TRUE(restored.Scan() == rows_);
  EXPECT_THAT(restored.store->Verify(), IsOk());
}

// The last that is taken and the first that is not, of values, of keys, and of one write.
TEST_P(StoreLargeValueTest, TheLimitsAreKeptFromBothSides) {
  Write("longest", Large(1, kMaxValueBytes));
  EXPECT_THAT(h_.Write(Put("too long", std::string(kMaxValueBytes + 1, 'v'))),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("the limit is 1048576")));
  Write(std::string(kMaxKeyBytes, 'k'), Large(2));
  EXPECT_THAT(h_.Write(Put(std::string(kMaxKeyBytes + 1, 'k'), "v")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("the limit is 8192")));
  // The last inlined, and the first that is not.
  Write("inlined", Large(3, kMaxInlineValueBytes));
  Write("not inlined", Large(5, kMaxInlineValueBytes + 1));
  StoreBatch both;
  both.Put("a", std::string(kMaxValueBytes, 'a'));
  both.Put("b", std::string(kMaxValueBytes, 'b'));
  EXPECT_THAT(h_.Write(std::move(both)).status,
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("max_batch_bytes")));
  StoreBatch four;
  for (const char* key : {"1", "2", "3", "4"}) {
    rows_[key] = Large(static_cast<uint64_t>(*key));
    four.Put(key, rows_[key]);
  }
  EXPECT_THAT(h_.Write(std::move(four)).status, IsOk());
  ExpectAllThere();
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  LosePower();
  ExpectAllThere();
}

INSTANTIATE_TEST_SUITE_P(Compression, StoreLargeValueTest,
                         testing::Values(Compression::kNone, Compression::kZstd));

}  // namespace
}  // namespace dynlib::store
