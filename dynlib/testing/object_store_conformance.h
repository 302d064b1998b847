// What every ObjectStore must do, as a test suite.
//
//   INSTANTIATE_TEST_SUITE_P(Mine, ObjectStoreConformance,
//   ::testing::Values(ObjectStoreConformanceParam{
//       "Mine", [] { return std::make_unique<MyEnvironment>(); }}));
//
// The tests themselves are in this library: depending on it and instantiating is all.
#ifndef DYNLIB_TESTING_OBJECT_STORE_CONFORMANCE_H_
#define DYNLIB_TESTING_OBJECT_STORE_CONFORMANCE_H_

#include <memory>

#include "dynlib/testing/environment.h"
#include "gtest/gtest.h"

namespace dynlib {

class ObjectStoreConformance : public ::testing::TestWithParam<ObjectStoreConformanceParam> {
 protected:
  void SetUp() override { env_ = GetParam().make(); }
  void TearDown() override { env_.reset(); }

  std::unique_ptr<ObjectStoreEnvironment> env_;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_OBJECT_STORE_CONFORMANCE_H_
