// Reading a Store: snapshots of one moment, scans, many keys at once.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/cursor.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> KeysOf(Store& store, const ScanOptions& options) {
  std::vector<std::string> keys;
  EXPECT_THAT(store.Scan(options,
                         [&](std::string_view key, std::string_view) {
                           keys.emplace_back(key);
                           return true;
                         }),
              IsOk());
  return keys;
}

// Money moves between two trees: every snapshot sees the same sum.
TEST(StoreSnapshotTest, SeesAllTreesOfOneMoment) {
  const std::string root = testing::TempDir() + "/one_moment";
  std::filesystem::remove_all(root);
  Store::Options options;
  options.checkpoint_after_bytes = 64 << 10;
  DYNLIB_ASSERT_OK_AND_ASSIGN(auto local, LocalStore::Open(root, options));
  Store& store = **local;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree a, store.OpenTree("a"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree b, store.OpenTree("b"));
  const auto move = [&](int in_a) {
    StoreBatch batch;
    batch.Put(a, "x", std::to_string(in_a));
    batch.Put(b, "x", std::to_string(100 - in_a));
    batch.Put(a, "pad", std::string(500, 'p'));
    EXPECT_THAT(store.Write(std::move(batch), {.durable = false}).status, IsOk());
  };
  move(50);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; i < 2000; ++i) move(i % 101);
    stop = true;
  });
  int looked = 0;
  uint64_t position = 0;
  while (!stop) {
    const StoreSnapshot snapshot = store.snapshot();
    EXPECT_EQ(std::stoi(**snapshot.Get(a, "x")) + std::stoi(**snapshot.Get(b, "x")), 100);
    EXPECT_GE(snapshot.position(), position);
    position = snapshot.position();
    ++looked;
  }
  writer.join();
  EXPECT_GT(looked, 0);
  std::filesystem::remove_all(root);
}

TEST(StoreReadTest, ScansGoBothWaysAndResume) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  WriteBatch batch;
  for (const char* key : {"a", "b/1", "b/2", "b/3", "b\xff", "c"}) batch.Put(key, "v");
  DYNLIB_ASSERT_OK(h.Write(batch));
  Store& store = *h.store;
  EXPECT_THAT(KeysOf(store, {.prefix = "b/"}), ElementsAre("b/1", "b/2", "b/3"));
  EXPECT_THAT(KeysOf(store, {.prefix = "b/", .order = ScanOrder::kReverse}),
              ElementsAre("b/3", "b/2", "b/1"));
  EXPECT_THAT(KeysOf(store, {.start = "b/2", .prefix = "b/"}), ElementsAre("b/2", "b/3"));
  EXPECT_THAT(KeysOf(store, {.end = "b/3", .prefix = "b/"}), ElementsAre("b/1", "b/2"));
  EXPECT_THAT(KeysOf(store, {.start = "b\xff", .end = "c"}), ElementsAre("b\xff"));
  EXPECT_THAT(KeysOf(store, {.prefix = "b\xff"}), ElementsAre("b\xff"));
  EXPECT_THAT(KeysOf(store, {.start = "c", .prefix = "a"}), IsEmpty());
  for (const ScanOrder order : {ScanOrder::kForward, ScanOrder::kReverse}) {
    std::vector<std::string> keys;
    ScanOptions options = {.order = order, .max_rows = 4};
    for (int pages = 1;; ++pages) {
      DYNLIB_ASSERT_OK_AND_ASSIGN(const ScanResult page,
                                  store.Scan(options, [&](std::string_view key, std::string_view) {
                                    keys.emplace_back(key);
                                    return true;
                                  }));
      if (!page.resume.has_value()) {
        EXPECT_EQ(pages, 2);
        break;
      }
      (order == ScanOrder::kForward ? options.start : options.end) = *page.resume;
    }
    if (order == ScanOrder::kReverse) std::reverse(keys.begin(), keys.end());
    EXPECT_THAT(keys, ElementsAre("a", "b/1", "b/2", "b/3", "b\xff", "c"));
  }
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      const ScanResult bytes,
      store.Scan({.max_bytes = 5}, [](std::string_view, std::string_view) { return true; }));
  EXPECT_EQ(bytes.rows, 2u);
  EXPECT_EQ(bytes.bytes, 6u);
}

TEST(StoreReadTest, MultiGetAndGetAsync) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "1")));
  DYNLIB_ASSERT_OK(h.Write(Put("b", "2")));
  const std::string_view keys[] = {"b", "none", "a"};
  const auto values = h.store->MultiGet(NamedTree(), keys);
  ASSERT_EQ(values.size(), 3u);
  EXPECT_THAT(values[0], IsOkAndHolds("2"));
  EXPECT_THAT(values[1], IsOkAndHolds(std::nullopt));
  EXPECT_THAT(values[2], IsOkAndHolds("1"));
  std::string value = "old";
  EXPECT_THAT(h.store->GetInto(NamedTree(), "a", value), IsOkAndHolds(true));
  EXPECT_EQ(value, "1");
  EXPECT_THAT(h.store->View(NamedTree(), "b", [&](std::string_view found) { value = found; }),
              IsOkAndHolds(true));
  EXPECT_EQ(value, "2");
  EXPECT_THAT(h.store->GetInto(NamedTree(), "none", value), IsOkAndHolds(false));
  DYNLIB_ASSERT_OK(h.Checkpoint());
  DYNLIB_ASSERT_OK(h.Close());
  DYNLIB_ASSERT_OK(h.Open());  // Nothing is in memory but what replaying the log touched.
  for (int round = 0; round < 2; ++round) {
    const PageFile::Stats before = h.store->stats().pages;
    std::optional<absl::StatusOr<std::optional<std::string>>> answer;
    h.store->GetAsync(NamedTree(), "a", &h.caller, [&](auto value) { answer = std::move(value); });
    EXPECT_FALSE(answer.has_value());  // Never before the call returns.
    h.Run();
    ASSERT_TRUE(answer.has_value());
    EXPECT_THAT(*answer, IsOkAndHolds("1"));
    // From the disk, then from memory.
    const PageFile::Stats after = h.store->stats().pages;
    EXPECT_EQ(after.pages_read - before.pages_read, round == 0 ? 1u : 0u);
    EXPECT_EQ(after.reads_missed > before.reads_missed, round == 0);
  }
}

TEST(StoreCursorTest, OfATreeAndOfASnapshot) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree tree, h.OpenTree("users"));
  StoreBatch batch;
  for (const char* key : {"user/1", "user/2", "user/3", "visit/1"}) batch.Put(tree, key, "old");
  DYNLIB_ASSERT_OK(h.Write(std::move(batch)).status);
  DYNLIB_ASSERT_OK_AND_ASSIGN(Cursor cursor, h.store->NewCursor(tree, {.prefix = "user/"}));
  const StoreSnapshot snapshot = h.store->snapshot("held");
  StoreBatch overwrite;
  overwrite.Put(tree, "user/1", "new");
  overwrite.Delete(tree, "user/2");
  DYNLIB_ASSERT_OK(h.Write(std::move(overwrite)).status);
  EXPECT_THAT(h.DropTree(tree), IsOk());

  std::string seen;
  for (cursor.SeekToFirst(); cursor.valid(); cursor.Next()) {
    seen += Cat(cursor.key(), "=", cursor.value(), " ");
  }
  EXPECT_EQ(seen, "user/1=old user/2=old user/3=old ");
  DYNLIB_ASSERT_OK_AND_ASSIGN(Cursor of_snapshot, snapshot.NewCursor(tree));
  ASSERT_TRUE(of_snapshot.SeekToLast());
  EXPECT_EQ(of_snapshot.key(), "visit/1");
  EXPECT_THAT(h.store->NewCursor(tree).status(), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(h.store->snapshot().NewCursor(tree).status(), StatusIs(StatusCode::kNotFound));
  // It outlives the store.
  h.Kill();
  ASSERT_TRUE(cursor.Seek("user/2"));
  EXPECT_EQ(cursor.value(), "old");
}

}  // namespace
}  // namespace dynlib::store
