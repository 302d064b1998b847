#include "dynlib/base/check.h"

#include "gtest/gtest.h"

namespace dynlib {
namespace {

TEST(CheckDeathTest, AFailedCheckStopsTheProcessAndSaysWhere) {
  const int one = 1;
  DYNLIB_CHECK(one == 1);
  EXPECT_DEATH(DYNLIB_CHECK(one == 2), "check_test.cc:[0-9]+: check failed: one == 2");
}

TEST(Check, TheConditionIsEvaluatedOnce) {
  int count = 0;
  DYNLIB_CHECK(++count == 1);
  EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace dynlib
