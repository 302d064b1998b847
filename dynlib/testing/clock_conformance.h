// What every Clock must do, as a test suite.
//
//   INSTANTIATE_TEST_SUITE_P(Mine, ClockConformance, ::testing::Values(ClockConformanceParam{
//       "Mine", [] { return std::make_unique<MyEnvironment>(); }}));
//
// The tests themselves are in this library: depending on it and instantiating is all.
#ifndef DYNLIB_TESTING_CLOCK_CONFORMANCE_H_
#define DYNLIB_TESTING_CLOCK_CONFORMANCE_H_

#include <memory>

#include "dynlib/testing/environment.h"
#include "gtest/gtest.h"

namespace dynlib {

class ClockConformance : public ::testing::TestWithParam<ClockConformanceParam> {
 protected:
  void SetUp() override { env_ = GetParam().make(); }
  void TearDown() override { env_.reset(); }

  std::unique_ptr<Environment> env_;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_CLOCK_CONFORMANCE_H_
