// Damaged pages of a Store: the rest is readable, and a good copy takes their place.
#include <chrono>
#include <cstdint>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

// A damaged leaf: the rest is readable, and what a replica has takes its place.
class StoreRepairTest : public testing::Test {
 protected:
  void SetUp() override {
    DYNLIB_ASSERT_OK(h_.Open());
    WriteBatch batch;
    for (int i = 0; i < 300; ++i) {
      const std::string key = Cat("k", 1000 + i);
      rows_[key] = Cat("value-", i, std::string(100, 'v'));
      batch.Put(key, rows_[key]);
      if (i % 20 == 19) {
        DYNLIB_ASSERT_OK(h_.Write(batch));
        batch.Clear();
      }
    }
    DYNLIB_ASSERT_OK(h_.Checkpoint());
    DYNLIB_ASSERT_OK(h_.Close());
    damaged_bit_ = 8 * disk_.ReadRaw("db/pages").find("value-150");
    Damage();
  }
  // The second time it heals.
  void Damage() { disk_.FlipBit("db/pages", damaged_bit_); }
  WriteBatch Good(const Store::DamagedRange& range) {
    WriteBatch batch;
    for (const auto& [key, value] : rows_) {
      if (key >= range.first && (range.end.empty() || key < range.end)) batch.Put(key, value);
    }
    return batch;
  }
  // It blocks: the store's executors run here meanwhile.
  absl::StatusOr<std::vector<Store::DamagedRange>> Repair(const Store::FetchRows& fetch) {
    auto repaired =
        std::async(std::launch::async, [&] { return h_.store->Repair(NamedTree(), fetch); });
    while (repaired.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) h_.Run();
    return repaired.get();
  }

  SimDisk disk_{1};
  StoreHarness h_{&disk_};
  Contents rows_;
  uint64_t damaged_bit_ = 0;
};

TEST_F(StoreRepairTest, TheRestIsReadableAndVerifyFindsIt) {
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_THAT(h_.store->Get("k1150"),
              StatusIs(StatusCode::kDataLoss,
                       AllOf(HasSubstr("db/pages"), HasSubstr("offset"), HasSubstr("checksum"))));
  EXPECT_THAT(h_.store->Get("k1000"), IsOkAndHolds(rows_["k1000"]));
  EXPECT_THAT(h_.store->Get("k1299"), IsOkAndHolds(rows_["k1299"]));
  PageFile::VerifyReport report;
  EXPECT_THAT(h_.store->Verify(&report), StatusIs(StatusCode::kDataLoss));
  EXPECT_GE(report.damaged, 1u);
}

TEST_F(StoreRepairTest, AWriteThatMeetsItFetchesTheGoodCopy) {
  int fetched = 0;
  h_.options.fetch_rows = [&](const Store::DamagedRange& range) {
    ++fetched;
    EXPECT_THAT(range.status, StatusIs(StatusCode::kDataLoss));
    return Good(range);
  };
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1150", "new")));
  EXPECT_EQ(fetched, 1);
  rows_["k1150"] = "new";
  EXPECT_EQ(h_.Scan(), rows_);
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1000", "next")));
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  EXPECT_THAT(h_.store->Verify(), IsOk());
}

// What a write without a good copy leaves behind.
class StoreWithoutACopyTest : public StoreRepairTest {
 protected:
  void SetUp() override {
    StoreRepairTest::SetUp();
    DYNLIB_ASSERT_OK(h_.Open());
    DYNLIB_ASSERT_OK(h_.Write(Put("k1001", "before")));
    WriteBatch batch = Put("k1150", "new");
    batch.Put("k1290", "with it");
    EXPECT_THAT(h_.Write(batch),
                StatusIs(StatusCode::kDataLoss,
                         AllOf(HasSubstr("logged but not applied"), HasSubstr("db/pages"),
                               HasSubstr("offset"), HasSubstr("checksum"))));
    good_ = rows_;
    rows_["k1001"] = good_["k1001"] = "before";
    rows_["k1150"] = "new";
    rows_["k1290"] = "with it";
  }
  void ExpectReadOnly() {
    EXPECT_THAT(
        h_.store->Health(),
        StatusIs(StatusCode::kDataLoss, AllOf(HasSubstr("takes no writes"), HasSubstr("db/pages"),
                                              HasSubstr("offset"), HasSubstr("checksum"))));
    EXPECT_THAT(h_.Write(Put("k1000", "new")), StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(h_.Checkpoint(), StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(h_.store->Get("k1000"), IsOkAndHolds(rows_["k1000"]));
    EXPECT_THAT(h_.store->Get("k1001"), IsOkAndHolds("before"));
    EXPECT_THAT(h_.store->Get("k1150"), StatusIs(StatusCode::kDataLoss));
  }
  void ExpectWhole() {
    EXPECT_THAT(h_.store->Health(), IsOk());
    EXPECT_EQ(h_.Scan(), rows_);
    DYNLIB_EXPECT_OK(h_.Write(Put("k1150", "newer")));
    rows_["k1150"] = "newer";
    DYNLIB_EXPECT_OK(h_.Checkpoint());
    DYNLIB_EXPECT_OK(h_.Write(Put("k1002", "and so on")));
    rows_["k1002"] = "and so on";
    DYNLIB_EXPECT_OK(h_.Checkpoint());
    EXPECT_THAT(h_.store->Verify(), IsOk());
    DYNLIB_ASSERT_OK(h_.Reopen());
    EXPECT_EQ(h_.Scan(), rows_);
  }
  // What a replica has: no more than was there before the write.
  Store::FetchRows Replica() {
    return [this](const Store::DamagedRange& range) {
      WriteBatch batch;
      for (const auto& [key, value] : good_) {
        if (key >= range.first && (range.end.empty() || key < range.end)) batch.Put(key, value);
      }
      return batch;
    };
  }

  Contents good_;
};

TEST_F(StoreWithoutACopyTest, TheRestStaysReadable) { ExpectReadOnly(); }

TEST_F(StoreWithoutACopyTest, TheRestStaysReadableWhenOpenedAgain) {
  for (int i = 0; i < 2; ++i) {
    DYNLIB_ASSERT_OK(h_.Reopen());
    ExpectReadOnly();
    // Of a write to two pages the part that has a page to go to.
    EXPECT_THAT(h_.store->Get("k1290"), IsOkAndHolds("with it"));
    EXPECT_THAT(h_.found.notes, Contains(HasSubstr("fetch_rows is not set")));
    DYNLIB_ASSERT_OK(h_.Close());
    DYNLIB_ASSERT_OK(h_.Open());
  }
}

TEST_F(StoreWithoutACopyTest, OpenedWithACopyAllIsThere) {
  h_.options.fetch_rows = Replica();
  DYNLIB_ASSERT_OK(h_.Reopen());
  ExpectWhole();
}

TEST_F(StoreWithoutACopyTest, OpenedWithAReplicaThatDoesNotAnswerTheRestIsReadable) {
  h_.options.fetch_rows = [](const Store::DamagedRange&) -> absl::StatusOr<WriteBatch> {
    return absl::UnavailableError("the replica is away");
  };
  DYNLIB_ASSERT_OK(h_.Reopen());
  ExpectReadOnly();
  EXPECT_THAT(h_.store->Health().message(), HasSubstr("the replica is away"));
}

TEST_F(StoreWithoutACopyTest, RepairAppliesWhatWasLogged) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto ranges, Repair(Replica()));
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_LE(ranges[0].first, "k1150");
  EXPECT_GT(ranges[0].end, "k1150");
  ExpectWhole();
}

TEST_F(StoreWithoutACopyTest, OpenedAgainRepairAppliesWhatWasLogged) {
  DYNLIB_ASSERT_OK(h_.Reopen());
  DYNLIB_ASSERT_OK(Repair(Replica()).status());
  ExpectWhole();
}

TEST_F(StoreWithoutACopyTest, ARepairThatFailsLeavesItAsItWas) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Repair([](const Store::DamagedRange&) -> absl::StatusOr<WriteBatch> {
                  return absl::UnavailableError("the replica is away");
                }),
                StatusIs(StatusCode::kUnavailable, HasSubstr("the replica is away")));
    ExpectReadOnly();
    DYNLIB_ASSERT_OK(h_.Reopen());
  }
}

// A page that is damaged once and read well the next time would lack what was left out of it.
TEST_F(StoreWithoutACopyTest, WhatLacksALoggedWriteIsNotServedWhenThePageComesBack) {
  DYNLIB_ASSERT_OK(h_.Reopen());
  Damage();
  ExpectReadOnly();
}

// The end of the log was torn as well: it is let go of before anything else is logged.
TEST_F(StoreRepairTest, ATornEndOfTheLogIsCutByTheRepair) {
  Damage();  // It is whole for now.
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1150", "new")));
  h_.store->Write(StoreBatch(Put("k1000", "torn off")), {}, &h_.caller, [](const WriteResult&) {});
  h_.Run();
  h_.Kill();
  std::string newest;
  for (const std::string& path : disk_.Paths()) {
    if (disk_.ReadRaw(path).find("torn off") != std::string::npos) newest = path;
  }
  ASSERT_TRUE(newest.ends_with(".seg"));
  disk_.FlipBit(newest, 8 * disk_.ReadRaw(newest).find("torn off"));
  Damage();
  for (int i = 0; i < 2; ++i) {
    DYNLIB_ASSERT_OK(h_.Reopen());
    EXPECT_EQ(h_.found.cut_batches, 1u);
    EXPECT_THAT(h_.store->Health(), StatusIs(StatusCode::kDataLoss));
    EXPECT_THAT(h_.store->Get("k1000"), IsOkAndHolds(rows_["k1000"]));
  }
  DYNLIB_ASSERT_OK(Repair([&](const auto& range) { return Good(range); }).status());
  rows_["k1150"] = "new";
  EXPECT_EQ(h_.Scan(), rows_);
  DYNLIB_ASSERT_OK(h_.Write(Put("k1002", "after it")));
  rows_["k1002"] = "after it";
  DYNLIB_ASSERT_OK(h_.Reopen());
  EXPECT_EQ(h_.found.cut_batches, 0u);
  EXPECT_EQ(h_.Scan(), rows_);
}

TEST_F(StoreRepairTest, RepairReplacesWhatNobodyHasWrittenTo) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto ranges,
                              Repair([&](const auto& range) { return Good(range); }));
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_LE(ranges[0].first, "k1150");
  EXPECT_THAT(ranges[0].status, StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(h_.Scan(), rows_);
  // In the newest checkpoint already.
  DYNLIB_ASSERT_OK(h_.Reopen());
  EXPECT_EQ(h_.Scan(), rows_);
}

// A range that ends within a page cuts it.
TEST_F(StoreRepairTest, ARangeDeleteThatEndsInADamagedPageFetchesTheGoodCopy) {
  int fetched = 0;
  h_.options.fetch_rows = [&](const Store::DamagedRange& range) {
    ++fetched;
    return Good(range);
  };
  DYNLIB_ASSERT_OK(h_.Open());
  WriteBatch batch;
  batch.DeleteRange("k1010", "k1150");
  DYNLIB_ASSERT_OK(h_.Write(batch));
  EXPECT_EQ(fetched, 1);
  rows_.erase(rows_.lower_bound("k1010"), rows_.lower_bound("k1150"));
  EXPECT_EQ(h_.Scan(), rows_);
}

// And without one it is owed in part: what lies in other pages goes.
TEST_F(StoreRepairTest, ARangeDeleteOverADamagedPageIsOwedThere) {
  DYNLIB_ASSERT_OK(h_.Open());
  WriteBatch batch = Put("k1150", "gone");
  batch.DeleteRange("k1010", "k1150");
  batch.Put("k1149", "again");
  EXPECT_THAT(h_.Write(batch), StatusIs(StatusCode::kDataLoss));
  DYNLIB_ASSERT_OK(h_.Reopen());
  EXPECT_THAT(h_.store->Get("k1010"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(h_.store->Get("k1149"), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(h_.store->Get("k1200"), IsOkAndHolds(rows_["k1200"]));
  h_.options.fetch_rows = [&](const Store::DamagedRange& range) { return Good(range); };
  DYNLIB_ASSERT_OK(h_.Reopen());
  rows_.erase(rows_.lower_bound("k1010"), rows_.lower_bound("k1150"));
  rows_["k1149"] = "again";
  rows_["k1150"] = "gone";
  EXPECT_EQ(h_.Scan(), rows_);
}

// What is owed is applied in the order in which it was logged, however far apart.
TEST_F(StoreRepairTest, ARangeDeleteThatIsReadLaterIsOwedToo) {
  Damage();  // It is whole for now.
  h_.options.log.segment_bytes = 16 << 20;
  h_.options.log.max_batch_bytes = h_.options.log.max_queued_bytes = 4 << 20;
  h_.options.checkpoint_after_bytes = 1 << 30;
  h_.options.pages.memory_bytes = 32 << 20;  // A quarter of it is read at once.
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1150", "new")));
  const std::string megabyte(1 << 20, 'm');
  for (int i = 0; i < 10; ++i) DYNLIB_ASSERT_OK(h_.Write(Put("large", megabyte)));
  WriteBatch batch;
  batch.DeleteRange("k1050", "k1250");
  DYNLIB_ASSERT_OK(h_.Write(batch));
  DYNLIB_ASSERT_OK(h_.Write(Put("k1160", "last")));
  h_.Kill();
  Damage();
  rows_["large"] = megabyte;
  rows_.erase(rows_.lower_bound("k1050"), rows_.lower_bound("k1250"));
  rows_["k1160"] = "last";
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_THAT(h_.store->Get("k1150"), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(h_.store->Get("k1050"), IsOkAndHolds(std::nullopt));
  DYNLIB_ASSERT_OK(Repair([&](const auto& range) { return Good(range); }).status());
  EXPECT_EQ(h_.Scan(), rows_);
}

// A tree that shrinks to its damaged page: the delete does not need what is in it.
TEST_F(StoreRepairTest, AllButTheDamagedPageCanBeDeleted) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      const auto damage, h_.store->snapshot(NamedTree()).FindDamage("k1150", ReadMode::kMayBlock));
  ASSERT_TRUE(damage.has_value());
  WriteBatch batch;
  batch.DeleteRange("", damage->first);
  batch.DeleteRange(damage->end, "");
  DYNLIB_ASSERT_OK(h_.Write(batch));
  EXPECT_THAT(h_.store->Health(), IsOk());
  EXPECT_THAT(h_.store->Get("k1150"), StatusIs(StatusCode::kDataLoss));
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  h_.options.fetch_rows = [&](const Store::DamagedRange& range) { return Good(range); };
  DYNLIB_ASSERT_OK(h_.Reopen());
  rows_.erase(rows_.begin(), rows_.lower_bound(damage->first));
  rows_.erase(rows_.lower_bound(damage->end), rows_.end());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1150", "new")));
  rows_["k1150"] = "new";
  EXPECT_EQ(h_.Scan(), rows_);
}

// With threads that write at once, on files: each write is applied, or owed, or refused.
TEST(StoreRepairThreadsTest, WhatIsOwedIsThereAfterARepair) {
  const std::string folder = Cat(testing::TempDir(), "/repair_with_threads");
  const std::string value(100, 'v');
  Contents rows;
  {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto local, LocalStore::Open(folder));
    WriteBatch batch;
    for (int i = 1000; i < 3000; ++i) {
      const std::string key = Cat("k", i);
      rows[key] = Cat("value-", i, value);
      batch.Put(key, rows[key]);
    }
    DYNLIB_ASSERT_OK((*local)->Write(std::move(batch)).status);
    DYNLIB_ASSERT_OK((*local)->Checkpoint());
    DYNLIB_ASSERT_OK(local->Close());
  }
  {
    std::fstream file(Cat(folder, "/pages"), std::ios::in | std::ios::out | std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    file.seekp(static_cast<std::streamoff>(bytes.find("value-2000")));
    file.put('?');
  }
  const Contents good = rows;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto local, LocalStore::Open(folder));
  std::mutex mutex;
  int owed = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::string key = Cat("k", 1000 + (i * 8 + t) * 7 % 2000);
        const absl::Status written = (*local)->Put(key, "new");
        EXPECT_TRUE(written.ok() || absl::IsDataLoss(written)) << written;
        std::lock_guard lock(mutex);
        const bool logged = written.message().find("logged but") != absl::string_view::npos;
        if (written.ok() || logged) rows[key] = "new";
        owed += logged;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(owed, 0);
  EXPECT_THAT((*local)->Health(), StatusIs(StatusCode::kDataLoss));
  DYNLIB_ASSERT_OK((*local)
                       ->Repair(NamedTree(),
                                [&](const Store::DamagedRange& range) {
                                  WriteBatch batch;
                                  for (const auto& [key, had] : good) {
                                    // What was written since is in no page yet: a copy that is as
                                    // old as the page will do.
                                    if (key >= range.first &&
                                        (range.end.empty() || key < range.end))
                                      batch.Put(key, had);
                                  }
                                  return batch;
                                })
                       .status());
  EXPECT_THAT((*local)->Health(), IsOk());
  DYNLIB_ASSERT_OK((*local)->Put("k1000", "after"));
  rows["k1000"] = "after";
  for (const auto& [key, wanted] : rows) {
    EXPECT_THAT((*local)->Get(key), IsOkAndHolds(wanted)) << key;
  }
  EXPECT_THAT((*local)->Verify(), IsOk());
}

}  // namespace
}  // namespace dynlib::store
