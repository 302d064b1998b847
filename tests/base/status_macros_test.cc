#include "dynlib/base/status_macros.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

absl::Status ReturnIfError(const absl::Status& status, int& reached) {
  DYNLIB_RETURN_IF_ERROR(status);
  ++reached;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<int>> Add(absl::StatusOr<std::unique_ptr<int>> a,
                                         absl::StatusOr<std::unique_ptr<int>> b) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<int> first, std::move(a));
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<int> second, std::move(b));
  return std::make_unique<int>(*first + *second);
}

TEST(StatusMacros, ReturnIfError) {
  int reached = 0;
  EXPECT_EQ(ReturnIfError(absl::AbortedError("no"), reached), absl::AbortedError("no"));
  EXPECT_EQ(reached, 0);
  EXPECT_TRUE(ReturnIfError(absl::OkStatus(), reached).ok());
  EXPECT_EQ(reached, 1);
}

TEST(StatusMacros, AssignOrReturnMovesTheValueOrReturnsTheError) {
  const absl::Status no = absl::AbortedError("no");
  EXPECT_EQ(**Add(std::make_unique<int>(2), std::make_unique<int>(3)), 5);
  EXPECT_EQ(Add(no, std::make_unique<int>(3)).status(), no);
  EXPECT_EQ(Add(std::make_unique<int>(2), no).status(), no);
}

}  // namespace
}  // namespace dynlib
