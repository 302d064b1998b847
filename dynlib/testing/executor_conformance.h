// What every Executor must do, as a test suite.
//
//   INSTANTIATE_TEST_SUITE_P(Mine, ExecutorConformance, ::testing::Values(ExecutorConformanceParam{
//       "Mine", [] { return std::make_unique<MyEnvironment>(); }}));
//
// The tests themselves are in this library: depending on it and instantiating is all.
#ifndef DYNLIB_TESTING_EXECUTOR_CONFORMANCE_H_
#define DYNLIB_TESTING_EXECUTOR_CONFORMANCE_H_

#include <memory>

#include "dynlib/testing/environment.h"
#include "gtest/gtest.h"

namespace dynlib {

class ExecutorConformance : public ::testing::TestWithParam<ExecutorConformanceParam> {
 protected:
  void SetUp() override { env_ = GetParam().make(); }
  void TearDown() override { env_.reset(); }

  std::unique_ptr<ExecutorEnvironment> env_;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_EXECUTOR_CONFORMANCE_H_
