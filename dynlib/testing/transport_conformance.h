// What every Transport must do in good health and at its bounds, as a test suite.
//
//   INSTANTIATE_TEST_SUITE_P(Mine, TransportConformance,
//   ::testing::Values(TransportConformanceParam{
//       "Mine", [] { return std::make_unique<MyEnvironment>(); }}));
//
// The tests themselves are in this library: depending on it and instantiating is all.
#ifndef DYNLIB_TESTING_TRANSPORT_CONFORMANCE_H_
#define DYNLIB_TESTING_TRANSPORT_CONFORMANCE_H_

#include <memory>

#include "dynlib/testing/environment.h"
#include "gtest/gtest.h"

namespace dynlib {

class TransportConformance : public ::testing::TestWithParam<TransportConformanceParam> {
 protected:
  void SetUp() override { env_ = GetParam().make(); }
  void TearDown() override { env_.reset(); }

  std::unique_ptr<TransportEnvironment> env_;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_TRANSPORT_CONFORMANCE_H_
