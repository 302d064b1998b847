// What a Store is to survive: data a hundred times its memory, a snapshot held while the data is
// overwritten ten times, and sixty-four threads at once.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
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

using sim::SimDisk;
using testing::Contains;
using testing::HasSubstr;

std::string RowKey(uint64_t i) { return Cat("row", 1'000'000 + i); }
std::string RowValue(uint64_t i, uint64_t version, size_t bytes) {
  std::string value = Cat(version, ":", i, ":");
  value.resize(bytes, static_cast<char>('a' + (i + version) % 26));
  return value;
}

// Log options that take rows of many kilobytes at once.
void AllowLargeBatches(StoreHarness& h) {
  h.options.log.segment_bytes = 4 << 20;
  h.options.log.max_batch_bytes = 512 << 10;
  h.options.log.max_queued_bytes = 4 << 20;
  h.options.checkpoint_after_bytes = 2 << 20;
}

TEST(StoreSurviveTest, ACacheOfOnePercentOfTheData) {
  constexpr uint64_t kMemory = 1 << 20;
  constexpr uint64_t kRows = 56'000;
  constexpr size_t kBytes = 1900;
  SimDisk disk(1);
  StoreHarness h(&disk);
  AllowLargeBatches(h);
  h.options.pages.memory_bytes = kMemory;
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t most = 0;
  const auto look = [&] {
    const PageFile::Stats pages = h.store->stats().pages;
    most = std::max(most, pages.page_memory_bytes - pages.dirty_bytes);
    ASSERT_LE(pages.dirty_bytes, kMemory) << "dirty pages hold up writes at half of it";
  };
  for (uint64_t i = 0; i < kRows;) {
    WriteBatch batch;
    for (int n = 0; n < 100; ++n, ++i) batch.Put(RowKey(i), RowValue(i, 1, kBytes));
    DYNLIB_ASSERT_OK(h.Write(batch));
    if (i % 1000 == 0) look();
  }
  ASSERT_GT(h.store->stats().pages.file_bytes, 100 * kMemory);
  Random random(1);
  for (int n = 0; n < 3000; ++n) {
    const uint64_t i = random.Below(kRows);
    ASSERT_THAT(h.store->Get(RowKey(i)), IsOkAndHolds(RowValue(i, 1, kBytes)));
    if (n % 10 == 0) {
      DYNLIB_ASSERT_OK(h.Write(Put(RowKey(i), RowValue(i, 1, kBytes))));
    }
    if (n % 100 == 0) look();
  }
  uint64_t rows = 0;
  const auto scanned = h.store->Scan({}, [&](std::string_view key, std::string_view value) {
    EXPECT_EQ(key, RowKey(rows));
    EXPECT_EQ(value, RowValue(rows, 1, kBytes));
    ++rows;
    return !testing::Test::HasFailure();
  });
  DYNLIB_ASSERT_OK(scanned.status());
  EXPECT_EQ(rows, kRows);
  look();
  EXPECT_LE(most, kMemory + (256 << 10));
  EXPECT_THAT(h.store->Verify(), IsOk());
}

TEST(StoreSurviveTest, ASnapshotHeldWhileTenTimesTheDataIsOverwritten) {
  constexpr uint64_t kRows = 4000;
  constexpr size_t kBytes = 500;
  SimDisk disk(1);
  StoreHarness h(&disk);
  AllowLargeBatches(h);
  h.options.pages.memory_bytes = 1 << 20;
  DYNLIB_ASSERT_OK(h.Open());
  const auto write_all = [&](uint64_t version) {
    Random random(version);
    for (uint64_t n = 0; n < kRows;) {
      WriteBatch batch;
      for (int k = 0; k < 50; ++k, ++n) {
        const uint64_t i = version == 0 ? n : random.Below(kRows);
        batch.Put(RowKey(i), RowValue(i, version, kBytes));
      }
      ASSERT_THAT(h.Write(batch), IsOk());
    }
  };
  write_all(0);
  DYNLIB_ASSERT_OK(h.Checkpoint());
  DYNLIB_ASSERT_OK(h.Checkpoint());
  const uint64_t live = h.store->stats().pages.used_bytes;
  std::optional<StoreSnapshot> held = h.store->snapshot("held");
  for (uint64_t version = 1; version <= 10; ++version) {
    write_all(version);
    // The live pages, those of the snapshot, what two checkpoints changed and a batch in between.
    EXPECT_LE(h.store->stats().pages.used_bytes, 5 * live);
  }
  DYNLIB_ASSERT_OK(h.Checkpoint());
  EXPECT_THAT(h.store->stats().culprits, Contains(HasSubstr("held")));
  uint64_t row = 0;
  const auto scanned = held->Scan({}, [&](std::string_view key, std::string_view value) {
    EXPECT_EQ(key, RowKey(row));
    EXPECT_EQ(value, RowValue(row, 0, kBytes));
    ++row;
    return !testing::Test::HasFailure();
  });
  DYNLIB_ASSERT_OK(scanned.status());
  EXPECT_EQ(row, kRows);
  held.reset();
  DYNLIB_ASSERT_OK(h.Checkpoint());
  DYNLIB_ASSERT_OK(h.Write(Put("one", "more")));
  DYNLIB_ASSERT_OK(h.Checkpoint());
  DYNLIB_ASSERT_OK(h.Write(Put("and", "more")));
  DYNLIB_ASSERT_OK(h.Checkpoint());
  EXPECT_LE(h.store->stats().pages.used_bytes, 2 * live) << "what the snapshot held is free";
  EXPECT_THAT(h.store->Verify(), IsOk());
}

// All that a store does, from 64 threads on real files. Each writer has keys of its own and counts
// up; whoever reads sees no count go back, and both keys of a writer's batch alike.
TEST(StoreSurviveTest, SixtyFourThreads) {
  constexpr int kWriters = 24;
  constexpr int kReaders = 24;
  constexpr int kSteps = 40;
  const std::string root = testing::TempDir() + "/sixty_four";
  std::filesystem::remove_all(root);
  Store::Options options;
  options.checkpoint_after_bytes = 256 << 10;
  options.pages.memory_bytes = 1 << 20;
  DYNLIB_ASSERT_OK_AND_ASSIGN(auto local, LocalStore::Open(root, options));
  Store& store = **local;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree tree, store.OpenTree("second"));
  std::atomic<int> writing{kWriters};
  std::atomic<int> counter_raised{0};
  std::vector<std::thread> threads;
  const auto number = [](const std::optional<std::string>& value) {
    return value.has_value() ? std::stoi(*value) : 0;
  };
  for (int t = 0; t < kWriters; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 1; i <= kSteps; ++i) {
        StoreBatch batch;
        const std::string text = std::to_string(i) + std::string(200, ' ');
        batch.Put(Cat("w", t), text);
        batch.Put(tree, Cat("w", t), text);
        batch.Put(Cat("pad", t, "/", i), std::string(1500, 'p'));
        EXPECT_THAT(store.Write(std::move(batch), {.durable = i % 4 != 0}).status, IsOk());
      }
      --writing;
    });
  }
  for (int t = 0; t < kReaders; ++t) {
    threads.emplace_back([&, t] {
      const std::string key = Cat("w", t % kWriters);
      int last = 0;
      while (writing > 0) {
        const int now = number(*store.Get(key));
        EXPECT_GE(now, last);
        last = now;
        const StoreSnapshot snapshot = store.snapshot("reader");
        EXPECT_EQ(*snapshot.Get(key), *snapshot.Get(tree, key));
      }
    });
  }
  for (int t = 0; t < 6; ++t) {  // Conditional writers of one counter.
    threads.emplace_back([&] {
      for (int raised = 0; raised < 10;) {
        const std::optional<std::string> now = *store.Get("counter");
        StoreBatch batch;
        now.has_value() ? batch.IfEquals("counter", *now) : batch.IfAbsent("counter");
        batch.Put("counter", std::to_string(number(now) + 1));
        const WriteResult result = store.Write(std::move(batch));
        if (!result.ok()) continue;
        ++raised;
        ++counter_raised;
      }
    });
  }
  for (int t = 0; t < 6; ++t) {  // Scans and cursors.
    threads.emplace_back([&, t] {
      while (writing > 0) {
        Cursor cursor = *store.NewCursor(t % 2 == 0 ? tree : NamedTree());
        std::string last;
        for (cursor.SeekToFirst(); cursor.valid(); cursor.Next()) {
          EXPECT_GT(cursor.key(), last);
          last = std::string(cursor.key());
        }
        EXPECT_THAT(cursor.status(), IsOk());
        EXPECT_THAT(store.Scan({.tree = tree, .order = ScanOrder::kReverse},
                               [](std::string_view, std::string_view) { return true; }),
                    IsOk());
      }
    });
  }
  threads.emplace_back([&] {
    while (writing > 0) {
      const absl::Status status = store.Checkpoint();
      EXPECT_TRUE(status.ok() || absl::IsUnavailable(status)) << status;
    }
  });
  threads.emplace_back([&] {
    while (writing > 0) EXPECT_THAT(store.Verify(), IsOk());
  });
  threads.emplace_back([&] {
    while (writing > 0) store.stats();
  });
  threads.emplace_back([&] {  // Trees that come and go.
    while (writing > 0) {
      const auto made = store.OpenTree("passing");
      EXPECT_THAT(made, IsOk());
      EXPECT_THAT(store.DropTree(*made), IsOk());
    }
  });
  ASSERT_EQ(threads.size(), 64u);
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < kWriters; ++t) {
    EXPECT_EQ(number(*store.Get(Cat("w", t))), kSteps);
    EXPECT_EQ(number(*store.Get(tree, Cat("w", t))), kSteps);
  }
  EXPECT_EQ(number(*store.Get("counter")), counter_raised);
  DYNLIB_ASSERT_OK(local->Close());
  local.reset();
  DYNLIB_ASSERT_OK_AND_ASSIGN(local, LocalStore::Open(root, options));
  EXPECT_EQ(number(*(*local)->Get("counter")), counter_raised);
  EXPECT_THAT((*local)->Verify(), IsOk());
  local.reset();
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace dynlib::store
