// Named trees of a Store.
#include <optional>
#include <string>
#include <utility>

#include "dynlib/sim/disk.h"
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

TEST(StoreTreesTest, TreesAreApartAndFoundAgain) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree users, h.OpenTree("users"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree orders, h.OpenTree("orders"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree again, h.OpenTree("users"));
  EXPECT_EQ(users, again);
  StoreBatch batch;
  batch.Put("k", "default");
  batch.Put(users, "k", "user");
  batch.Put(orders, "k", "order");
  batch.Delete(users, "none");
  DYNLIB_ASSERT_OK(h.Write(std::move(batch)).status);
  EXPECT_THAT(h.store->ListTrees(), ElementsAre("orders", "users"));
  // From the log alone, from checkpoints and the log, and from a checkpoint.
  for (int round = 0; round < 3; ++round) {
    DYNLIB_ASSERT_OK(h.Reopen());
    users = *h.store->FindTree("users");
    orders = *h.store->FindTree("orders");
    EXPECT_THAT(h.store->Get("k"), IsOkAndHolds("default"));
    EXPECT_THAT(h.store->Get(users, "k"), IsOkAndHolds("user"));
    EXPECT_THAT(h.store->Get(orders, "k"), IsOkAndHolds("order"));
    EXPECT_EQ(h.store->FindTree("none"), std::nullopt);
    DYNLIB_ASSERT_OK(h.Checkpoint());
  }
}

TEST(StoreTreesTest, DroppedTreesAreGoneAndTheirNameIsFree) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree first, h.OpenTree("t"));
  StoreBatch batch;
  batch.Put(first, "k", "old");
  DYNLIB_ASSERT_OK(h.Write(batch).status);
  const StoreSnapshot before = h.store->snapshot();
  DYNLIB_ASSERT_OK(h.DropTree(first));
  EXPECT_THAT(before.Get(first, "k"), IsOkAndHolds("old"));
  EXPECT_THAT(h.store->Get(first, "k"), StatusIs(StatusCode::kNotFound, HasSubstr("dropped")));
  EXPECT_THAT(h.Write(batch).status, StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(h.DropTree(first), StatusIs(StatusCode::kNotFound));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree second, h.OpenTree("t"));
  EXPECT_NE(first, second);
  EXPECT_THAT(h.store->Get(second, "k"), IsOkAndHolds(std::nullopt));
  for (int round = 0; round < 2; ++round) {
    DYNLIB_ASSERT_OK(h.Reopen());
    EXPECT_EQ(h.store->ListTrees().size(), 1u);
    EXPECT_THAT(h.store->Get(*h.store->FindTree("t"), "k"), IsOkAndHolds(std::nullopt));
    DYNLIB_ASSERT_OK(h.Checkpoint());
  }
}

TEST(StoreTreesTest, NamesAndOtherStoresTreesAreChecked) {
  SimDisk disk(1);
  SimDisk other_disk(2);
  StoreHarness h(&disk);
  StoreHarness other(&other_disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(other.Open());
  EXPECT_THAT(h.OpenTree(""), StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 to 255")));
  EXPECT_THAT(h.OpenTree(std::string(256, 'n')), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(h.DropTree(NamedTree()), StatusIs(StatusCode::kInvalidArgument));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree foreign, other.OpenTree("t"));
  StoreBatch batch;
  batch.Put(foreign, "k", "v");
  EXPECT_THAT(h.Write(batch).status,
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("another store")));
  EXPECT_THAT(h.store->Get(foreign, "k"), StatusIs(StatusCode::kNotFound));
}

}  // namespace
}  // namespace dynlib::store
