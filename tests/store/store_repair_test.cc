// Damaged pages of a Store: the rest is readable, and a good copy takes their place.
#include <string>

#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
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
    disk_.FlipBit("db/pages", 8 * disk_.ReadRaw("db/pages").find("value-150"));
  }
  WriteBatch Good(const Store::DamagedRange& range) {
    WriteBatch batch;
    for (const auto& [key, value] : rows_) {
      if (key >= range.first && (range.end.empty() || key < range.end)) batch.Put(key, value);
    }
    return batch;
  }

  SimDisk disk_{1};
  StoreHarness h_{&disk_};
  Contents rows_;
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

TEST_F(StoreRepairTest, WithoutACopyTheWriteSaysSoAndNoMoreAreTaken) {
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_THAT(h_.Write(Put("k1150", "new")),
              StatusIs(StatusCode::kUnknown, HasSubstr("logged but not applied")));
  EXPECT_THAT(h_.Write(Put("k1000", "new")), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(h_.store->Get("k1000"), IsOkAndHolds(rows_["k1000"]));
}

}  // namespace
}  // namespace dynlib::store
