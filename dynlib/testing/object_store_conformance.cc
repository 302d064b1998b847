#include "dynlib/testing/object_store_conformance.h"

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/object_store.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"

namespace dynlib {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Status Put(ObjectStore* store, std::string_view name, std::string_view data) {
  return store->Put(name, data, Checksum(data));
}

std::vector<std::string> Names(const std::vector<ObjectInfo>& objects) {
  std::vector<std::string> names;
  for (const ObjectInfo& object : objects) names.push_back(object.name);
  return names;
}

TEST_P(ObjectStoreConformance, GetReturnsWhatWasPut) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    std::string large(300'000, '\0');
    for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7);
    DYNLIB_ASSERT_OK(Put(store, "small", "value"));
    DYNLIB_ASSERT_OK(Put(store, "empty", ""));
    DYNLIB_ASSERT_OK(Put(store, "folder/large", large));
    EXPECT_THAT(store->Get("small"), IsOkAndHolds("value"));
    EXPECT_THAT(store->Get("empty"), IsOkAndHolds(""));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const std::string got, store->Get("folder/large"));
    EXPECT_TRUE(got == large);
  });
}

TEST_P(ObjectStoreConformance, PutReplaces) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    DYNLIB_ASSERT_OK(Put(store, "a", "a longer first value"));
    DYNLIB_ASSERT_OK(Put(store, "a", "second"));
    EXPECT_THAT(store->Get("a"), IsOkAndHolds("second"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto objects, store->List(""));
    ASSERT_EQ(objects.size(), 1u);
    EXPECT_EQ(objects[0].size_bytes, 6u);
  });
}

TEST_P(ObjectStoreConformance, MissingIsNotFoundAndNamesTheObject) {
  env_->RunBlocking([&] {
    EXPECT_THAT(env_->store()->Get("no/such"),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/such")));
  });
}

TEST_P(ObjectStoreConformance, PutWithAnotherChecksumIsRefusedAndStoresNothing) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    EXPECT_THAT(store->Put("new", "value", Checksum("other")),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("new")));
    EXPECT_THAT(store->Get("new"), StatusIs(absl::StatusCode::kNotFound));
    DYNLIB_ASSERT_OK(Put(store, "old", "value"));
    EXPECT_THAT(store->Put("old", "changed", Checksum("value")),
                StatusIs(absl::StatusCode::kDataLoss));
    EXPECT_THAT(store->Get("old"), IsOkAndHolds("value"));
  });
}

TEST_P(ObjectStoreConformance, DeleteRemovesAndRepeats) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    DYNLIB_ASSERT_OK(Put(store, "x/y", "value"));
    DYNLIB_ASSERT_OK(Put(store, "x/z", "stays"));
    DYNLIB_ASSERT_OK(store->Delete("x/y"));
    EXPECT_THAT(store->Get("x/y"), StatusIs(absl::StatusCode::kNotFound));
    DYNLIB_EXPECT_OK(store->Delete("x/y"));
    DYNLIB_EXPECT_OK(store->Delete("never/was"));
    EXPECT_THAT(store->Get("x/z"), IsOkAndHolds("stays"));
  });
}

TEST_P(ObjectStoreConformance, BadNamesAreRefusedEverywhere) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    const std::vector<std::string> bad = {"",
                                          "/a",
                                          "a/",
                                          "a//b",
                                          ".",
                                          "a/../b",
                                          "a b",
                                          "a\\b",
                                          "a,b",
                                          "a~b",
                                          "\xc3\xa4",
                                          "a%b",
                                          std::string("a\0b", 3),
                                          std::string(1025, 'a')};
    for (const std::string& name : bad) {
      SCOPED_TRACE(Escape(name));
      EXPECT_THAT(Put(store, name, "x"), StatusIs(absl::StatusCode::kInvalidArgument));
      EXPECT_THAT(store->Get(name), StatusIs(absl::StatusCode::kInvalidArgument));
      EXPECT_THAT(store->Delete(name), StatusIs(absl::StatusCode::kInvalidArgument));
    }
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto objects, store->List(""));
    EXPECT_THAT(Names(objects), IsEmpty());
  });
}

TEST_P(ObjectStoreConformance, OddButGoodNames) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    const std::string longest = std::string(600, 'p') + "/" + std::string(423, 'q');
    const std::vector<std::string> good = {"a",
                                           "a/b",
                                           "a/b/c",
                                           "a.b_c-d=e",
                                           "...",
                                           longest,
                                           std::string(200, 'p'),
                                           std::string(201, 'p')};
    for (const std::string& name : good) DYNLIB_ASSERT_OK(Put(store, name, name));
    for (const std::string& name : good) EXPECT_THAT(store->Get(name), IsOkAndHolds(name));
  });
}

TEST_P(ObjectStoreConformance, ListIsInByteOrderByPrefix) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    // '-' and '.' sort before '/', digits after it.
    for (const char* name : {"b", "a/2", "a-1", "a0", "a/1/x", "a", "a.b", "a/10"}) {
      DYNLIB_ASSERT_OK(Put(store, name, "12345"));
    }
    DYNLIB_ASSERT_OK_AND_ASSIGN(auto all, store->List(""));
    EXPECT_THAT(Names(all), ElementsAre("a", "a-1", "a.b", "a/1/x", "a/10", "a/2", "a0", "b"));
    EXPECT_EQ(all[0].size_bytes, 5u);
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto folder, store->List("a/"));
    EXPECT_THAT(Names(folder), ElementsAre("a/1/x", "a/10", "a/2"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto part, store->List("a/1"));
    EXPECT_THAT(Names(part), ElementsAre("a/1/x", "a/10"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto none, store->List("c"));
    EXPECT_THAT(Names(none), IsEmpty());
  });
}

TEST_P(ObjectStoreConformance, ListGoesOnAfterANameThatNeedNotExist) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    for (const char* name : {"a", "b/1", "b/2", "b/3", "c"}) {
      DYNLIB_ASSERT_OK(Put(store, name, ""));
    }
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto after, store->List("", "b/2"));
    EXPECT_THAT(Names(after), ElementsAre("b/3", "c"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto between, store->List("b/", "b/11"));
    EXPECT_THAT(Names(between), ElementsAre("b/2", "b/3"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto end, store->List("", "z"));
    EXPECT_THAT(Names(end), IsEmpty());
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto nothing, store->List("", "", 0));
    EXPECT_THAT(Names(nothing), IsEmpty());
  });
}

TEST_P(ObjectStoreConformance, PagesJoinToTheWholeList) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    std::vector<std::string> want;
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 7; ++j) want.push_back(Cat("log/", i, "/", j));
    }
    for (const std::string& name : want) DYNLIB_ASSERT_OK(Put(store, name, "x"));
    std::vector<std::string> got;
    std::string after;
    while (true) {
      DYNLIB_ASSERT_OK_AND_ASSIGN(const auto page, store->List("log/", after, 4));
      ASSERT_LE(page.size(), 4u);
      if (page.empty()) break;
      for (const ObjectInfo& object : page) got.push_back(object.name);
      after = got.back();
      ASSERT_LE(got.size(), want.size());
    }
    EXPECT_EQ(got, want);
  });
}

TEST_P(ObjectStoreConformance, DamageShowsAtGet) {
  env_->RunBlocking([&] {
    ObjectStore* const store = env_->store();
    DYNLIB_ASSERT_OK(Put(store, "hurt", "some bytes to damage"));
    if (!env_->Damage("hurt")) GTEST_SKIP() << "no way to damage an object here";
    EXPECT_THAT(store->Get("hurt"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hurt")));
    DYNLIB_ASSERT_OK(Put(store, "hurt", "whole again"));
    EXPECT_THAT(store->Get("hurt"), IsOkAndHolds("whole again"));
  });
}

}  // namespace
}  // namespace dynlib
