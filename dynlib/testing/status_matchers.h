// gtest matchers and macros for absl::Status and absl::StatusOr.
//
//   DYNLIB_ASSERT_OK(file->Sync());
//   DYNLIB_ASSERT_OK_AND_ASSIGN(uint64_t size, file->Size());
//   EXPECT_THAT(store.Get("k"), IsOkAndHolds("v"));
//   EXPECT_THAT(disk->Remove("gone"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")));
#ifndef DYNLIB_TESTING_STATUS_MATCHERS_H_
#define DYNLIB_TESTING_STATUS_MATCHERS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib {

namespace internal {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

}  // namespace internal

// Matches an OK Status or StatusOr.
MATCHER(IsOk, negation ? "is not OK" : "is OK") {
  *result_listener << "which is " << internal::StatusOf(arg).ToString();
  return internal::StatusOf(arg).ok();
}

// Matches a StatusOr that is OK and holds a value that `value` (a matcher or a value) matches.
MATCHER_P(IsOkAndHolds, value, "is OK and holds a value that matches") {
  if (!arg.ok()) {
    *result_listener << "which is " << arg.status().ToString();
    return false;
  }
  return ::testing::ExplainMatchResult(value, *arg, result_listener);
}

// Matches a Status or StatusOr with this absl::StatusCode (or a matcher of codes).
MATCHER_P(StatusIs, code, "has the status code that matches") {
  *result_listener << "which is " << internal::StatusOf(arg).ToString();
  return ::testing::Value(internal::StatusOf(arg).code(), code);
}

// As above, and its message, as a std::string, matches `message`.
MATCHER_P2(StatusIs, code, message, "has the status code and a message that match") {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which is " << status.ToString();
  return ::testing::Value(status.code(), code) &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

}  // namespace dynlib

// `expression` is a Status or StatusOr, or anything with a status in it.
#define DYNLIB_EXPECT_OK(expression) EXPECT_THAT(expression, ::dynlib::IsOk())
#define DYNLIB_ASSERT_OK(expression) ASSERT_THAT(expression, ::dynlib::IsOk())

#define DYNLIB_ASSERT_OK_AND_ASSIGN(target, expression)                                      \
  DYNLIB_ASSERT_OK_AND_ASSIGN_IMPL_(DYNLIB_TESTING_CONCAT_(dynlib_test_statusor_, __LINE__), \
                                    target, expression)

#define DYNLIB_ASSERT_OK_AND_ASSIGN_IMPL_(temporary, target, expression) \
  auto temporary = (expression);                                         \
  ASSERT_TRUE(temporary.ok()) << temporary.status().ToString();          \
  target = *std::move(temporary)

#define DYNLIB_TESTING_CONCAT_(a, b) DYNLIB_TESTING_CONCAT_IMPL_(a, b)
#define DYNLIB_TESTING_CONCAT_IMPL_(a, b) a##b

#endif  // DYNLIB_TESTING_STATUS_MATCHERS_H_
