// What a store does when nobody writes: packs its pages and gives space back.
#include <chrono>
#include <memory>
#include <string>

#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using ::testing::HasSubstr;

// Rows of 100 bytes with random keys; all that was written.
Contents FillInRandomOrder(StoreHarness& h, const NamedTree& tree, int rows) {
  Random random(1);
  Contents all;
  for (int i = 0; i < rows; i += 25) {
    StoreBatch batch;
    for (int n = 0; n < 25; ++n) {
      const std::string key = "user" + std::to_string(random.Below(1ull << 50));
      all[key] = std::string(100, 'v');
      batch.Put(tree, key, all[key]);
    }
    EXPECT_THAT(h.Write(std::move(batch)).status, IsOk());
  }
  return all;
}

TEST(StoreRestTest, OptionsAreChecked) {
  sim::SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.rest_after = std::chrono::microseconds(5);
  EXPECT_THAT(h.Open(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rest_after")));
  h.options = SmallStore();
  h.options.rest_bytes_per_second = 1;
  EXPECT_THAT(h.Open(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rest_bytes_per_second")));
}

TEST(StoreRestTest, SparsePagesArePackedInEveryTree) {
  sim::SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree other, h.OpenTree("other"));
  const Contents all = FillInRandomOrder(h, NamedTree(), 4000);
  FillInRandomOrder(h, other, 4000);
  DYNLIB_ASSERT_OK(h.Checkpoint());
  const uint64_t before = h.store->stats().pages.used_bytes;
  h.Rest();
  const PageFile::Stats packed = h.store->stats().pages;
  EXPECT_LT(packed.used_bytes, before * 4 / 5);
  EXPECT_LE(packed.file_bytes - packed.discarded_bytes, packed.used_bytes + packed.used_bytes / 64);
  EXPECT_EQ(h.Scan(), all);
  EXPECT_EQ(h.Scan(other), all);
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), all);
}

// What is packed is read, and written anew: both count.
TEST(StoreRestTest, ItTakesTheTimeThatReadingAndRewritingAreAllowed) {
  sim::SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.rest_after = std::chrono::milliseconds(1);
  h.options.rest_bytes_per_second = 128 << 10;
  DYNLIB_ASSERT_OK(h.Open());
  const Contents all = FillInRandomOrder(h, NamedTree(), 20000);
  uint64_t bytes = 0;
  for (const auto& [key, value] : all) bytes += key.size() + value.size();
  const auto seconds = [&](uint64_t paced) {
    return std::chrono::seconds(paced / h.options.rest_bytes_per_second);
  };
  Instant start = h.Now();
  h.Rest();
  EXPECT_GE(h.Now() - start, seconds(2 * bytes));
  EXPECT_LE(h.Now() - start, seconds(3 * bytes));
  // Nothing but a row is new: a look at the branches is all it takes.
  DYNLIB_ASSERT_OK(h.Write(Put("one", "more")));
  start = h.Now();
  h.Rest();
  EXPECT_LE(h.Now() - start, seconds(bytes / 2));
}

TEST(StoreRestTest, DeletedRowsGiveTheirSpaceBack) {
  sim::SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  h.Rest();
  const uint64_t empty = disk.used_bytes();
  const Contents all = FillInRandomOrder(h, NamedTree(), 4000);
  h.Rest();
  const uint64_t filled = disk.used_bytes();
  for (auto at = all.begin(); at != all.end();) {
    WriteBatch batch;
    for (int n = 0; n < 50 && at != all.end(); ++n, ++at) batch.Delete(at->first);
    DYNLIB_ASSERT_OK(h.Write(batch));
  }
  h.Rest();
  EXPECT_GT(filled - empty, 400'000u);
  EXPECT_LT(disk.used_bytes(), empty + (filled - empty) / 20 + h.options.log.segment_bytes);
  EXPECT_TRUE(h.Scan().empty());
}

// A second rest finds nothing to do, and a write in the middle puts the rest off.
TEST(StoreRestTest, ARestEndsAndIsPutOff) {
  sim::SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  Contents all = FillInRandomOrder(h, NamedTree(), 8000);
  h.Rest(2);
  DYNLIB_ASSERT_OK(h.Write(Put("later", "1")));
  all["later"] = "1";
  h.Rest();
  EXPECT_EQ(h.Scan(), all);
  const uint64_t written = h.store->stats().pages.pages_written;
  h.Rest();
  EXPECT_EQ(h.store->stats().pages.pages_written, written);
  DYNLIB_ASSERT_OK(h.Checkpoint());
  h.Rest();
  EXPECT_EQ(h.store->stats().pages.pages_written, written);
}

TEST(StoreRestTest, ClosingInTheMiddle) {
  for (int timers = 0; timers < 6; ++timers) {
    SCOPED_TRACE(timers);
    sim::SimDisk disk(1);
    StoreHarness h(&disk);
    DYNLIB_ASSERT_OK(h.Open());
    const Contents all = FillInRandomOrder(h, NamedTree(), 8000);
    h.Rest(timers);
    DYNLIB_ASSERT_OK(h.Close());
    DYNLIB_ASSERT_OK(h.Open());
    EXPECT_EQ(h.Scan(), all);
  }
}

}  // namespace
}  // namespace dynlib::store
