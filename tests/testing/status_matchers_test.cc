#include "dynlib/testing/status_matchers.h"

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

using ::testing::AnyOf;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pointee;

const absl::Status kGone = absl::NotFoundError("the key is gone");

TEST(StatusMatchers, IsOk) {
  EXPECT_THAT(absl::OkStatus(), IsOk());
  EXPECT_THAT(absl::StatusOr<int>(1), IsOk());
  EXPECT_THAT(kGone, Not(IsOk()));
  EXPECT_THAT(absl::StatusOr<int>(kGone), Not(IsOk()));
}

TEST(StatusMatchers, IsOkAndHolds) {
  EXPECT_THAT(absl::StatusOr<int>(7), IsOkAndHolds(7));
  EXPECT_THAT(absl::StatusOr<int>(7), IsOkAndHolds(Gt(6)));
  EXPECT_THAT(absl::StatusOr<int>(7), Not(IsOkAndHolds(8)));
  EXPECT_THAT(absl::StatusOr<int>(kGone), Not(IsOkAndHolds(7)));
  EXPECT_THAT(absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(3)),
              IsOkAndHolds(Pointee(3)));
}

TEST(StatusMatchers, StatusIs) {
  EXPECT_THAT(kGone, StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(kGone, Not(StatusIs(absl::StatusCode::kAborted)));
  EXPECT_THAT(kGone, StatusIs(AnyOf(absl::StatusCode::kAborted, absl::StatusCode::kNotFound)));
  EXPECT_THAT(absl::StatusOr<int>(kGone), StatusIs(absl::StatusCode::kNotFound, HasSubstr("key")));
  EXPECT_THAT(kGone, Not(StatusIs(absl::StatusCode::kNotFound, "key")));
  EXPECT_THAT(absl::StatusOr<int>(1), StatusIs(absl::StatusCode::kOk));
}

TEST(StatusMatchers, AssignTakesTheValue) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<int> value,
                              absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(3)));
  EXPECT_EQ(*value, 3);
}

TEST(StatusMatchers, FailuresShowTheStatus) {
  EXPECT_NONFATAL_FAILURE(DYNLIB_EXPECT_OK(kGone), "the key is gone");
  EXPECT_FATAL_FAILURE(DYNLIB_ASSERT_OK(kGone), "the key is gone");
  EXPECT_FATAL_FAILURE(
      {
        DYNLIB_ASSERT_OK_AND_ASSIGN(int value, absl::StatusOr<int>(kGone));
        EXPECT_EQ(value, 0);
      },
      "the key is gone");
}

}  // namespace
}  // namespace dynlib
