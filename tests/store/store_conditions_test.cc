// Writes on conditions.
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/local_store.h"
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
using testing::ElementsAre;
using testing::HasSubstr;

TEST(StoreConditionsTest, AllHoldOrNothingIsWritten) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("there", "1")));
  struct Case {
    void (*demand)(StoreBatch&);
    std::optional<size_t> failed;
    std::string why;
  };
  const Case cases[] = {
      {[](StoreBatch& b) { b.IfAbsent("none"); }, std::nullopt, ""},
      {[](StoreBatch& b) { b.IfAbsent("there"); }, 0, "is 1"},
      {[](StoreBatch& b) { b.IfPresent("there"); }, std::nullopt, ""},
      {[](StoreBatch& b) { b.IfPresent("none"); }, 0, "is absent"},
      {[](StoreBatch& b) { b.IfEquals("there", "1"); }, std::nullopt, ""},
      {[](StoreBatch& b) { b.IfEquals("there", "2"); }, 0, "is 1, not 2"},
      {[](StoreBatch& b) { b.IfEquals("none", ""); }, 0, "is absent, not"},
      {[](StoreBatch& b) {
         b.IfPresent("there");
         b.IfAbsent("there");
       },
       1, "condition 1 does not hold: key there is 1"},
  };
  int number = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "case " << number);
    const std::string key = Cat("out", number++);
    StoreBatch batch;
    c.demand(batch);
    batch.Put(key, "written");
    const WriteResult result = h.Write(std::move(batch));
    EXPECT_EQ(result.failed_condition, c.failed);
    if (c.failed.has_value()) {
      EXPECT_THAT(result.status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr(c.why)));
      EXPECT_EQ(result.sequence, 0u);
      EXPECT_THAT(h.store->Get(key), IsOkAndHolds(std::nullopt));
    } else {
      EXPECT_THAT(result.status, IsOk());
      EXPECT_GT(result.sequence, 0u);
      EXPECT_THAT(h.store->Get(key), IsOkAndHolds("written"));
    }
  }
  EXPECT_EQ(h.store->stats().conditions_failed, 5u);
}

// Writes that are logged together: a condition sees those before it, and none behind it.
TEST(StoreConditionsTest, AConditionSeesWhatIsBeforeItInItsGroup) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<bool> written;
  const auto write = [&](StoreBatch batch) {
    h.store->Write(std::move(batch), {}, &h.caller,
                   [&](const WriteResult& result) { written.push_back(result.ok()); });
  };
  for (int i = 0; i < 3; ++i) {
    StoreBatch batch;
    batch.IfAbsent("lock");
    batch.Put("lock", std::to_string(i));
    write(std::move(batch));
  }
  StoreBatch release;
  release.IfEquals("lock", "0");
  release.Delete("lock");
  write(std::move(release));
  StoreBatch take;
  take.IfAbsent("lock");
  take.Put("lock", "last");
  write(std::move(take));
  h.Run();
  EXPECT_THAT(written, ElementsAre(true, false, false, true, true));
  EXPECT_THAT(h.store->Get("lock"), IsOkAndHolds("last"));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(h.store->Get("lock"), IsOkAndHolds("last"));
}

TEST(StoreConditionsTest, ARangeThatIsDeletedBeforeItInItsGroup) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("b", "1")));
  std::vector<bool> written;
  StoreBatch clear;
  clear.DeleteRange("a", "c");
  StoreBatch demand;
  demand.IfAbsent("b");
  demand.Put("c", "2");
  for (StoreBatch* batch : {&clear, &demand}) {
    h.store->Write(std::move(*batch), {}, &h.caller,
                   [&](const WriteResult& result) { written.push_back(result.ok()); });
  }
  h.Run();
  EXPECT_THAT(written, ElementsAre(true, true));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), (Contents{{"c", "2"}}));
}

TEST(StoreConditionsTest, NotWrittenSinceKeepsTransactionsApart) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "1")));
  const auto write_since = [&](uint64_t position) {
    StoreBatch batch;
    batch.IfNotWrittenSince(NamedTree(), "a", position);
    batch.Put("b", "seen");
    return h.Write(std::move(batch)).status;
  };
  EXPECT_THAT(write_since(0),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("may have been")));
  const uint64_t position = h.store->snapshot().position();
  EXPECT_THAT(write_since(position), IsOk());
  DYNLIB_ASSERT_OK(h.Write(Put("unrelated", "2")));
  EXPECT_THAT(write_since(position), IsOk());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "2")));
  EXPECT_THAT(write_since(position), StatusIs(StatusCode::kFailedPrecondition));
}

// A counter that many threads raise by compare and set: no step is lost.
TEST(StoreConditionsTest, CompareAndSetFromManyThreads) {
  const std::string root = testing::TempDir() + "/compare_and_set";
  std::filesystem::remove_all(root);
  DYNLIB_ASSERT_OK_AND_ASSIGN(auto local, LocalStore::Open(root));
  Store& store = **local;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree log, store.OpenTree("log"));
  DYNLIB_ASSERT_OK(store.Put("count", "0"));
  constexpr int kThreads = 8;
  constexpr int kSteps = 25;
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int done = 0; done < kSteps;) {
        const std::string seen = store.Get("count")->value();
        StoreBatch batch;
        batch.IfEquals("count", seen);
        batch.Put("count", std::to_string(std::stoi(seen) + 1));
        batch.Put(log, Cat(t, ".", done), seen);
        const WriteResult result = store.Write(std::move(batch));
        if (!result.ok()) {
          EXPECT_EQ(result.failed_condition, 0u) << result.status;
          ++refused;
          continue;
        }
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(store.Get("count"), IsOkAndHolds(std::to_string(kThreads * kSteps)));
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      const ScanResult rows,
      store.Scan({.tree = log}, [](std::string_view, std::string_view) { return true; }));
  EXPECT_EQ(rows.rows, uint64_t{kThreads * kSteps});
  EXPECT_EQ(store.stats().conditions_failed, static_cast<uint64_t>(refused.load()));
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace dynlib::store
