#include "dynlib/cache/options.h"

#include <vector>

#include "absl/status/status.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cache {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(CacheOptions, TheDefaultsAreValid) { DYNLIB_EXPECT_OK(Validate(CacheOptions{})); }

TEST(CacheOptions, EachFieldOutOfRangeIsNamed) {
  struct Case {
    const char* field;
    const char* value;
    CacheOptions options;
  };
  const std::vector<Case> cases = {
      {"cache.servers", "is 0", {.servers = 0}},
      {"cache.servers", "10001", {.servers = 10'001}},
      {"cache.fan_out", "is 0", {.servers = 9, .fan_out = 0}},
      {"cache.fan_out", "is 5", {.servers = 9, .fan_out = 5}},
      {"cache.fan_out", "up to servers, 1", {.servers = 1, .fan_out = 2}},
      {"cache.max_entries", "is 0", {.max_entries = 0}},
      {"cache.max_absent_entries", "is 0", {.max_absent_entries = 0}},
      {"cache.max_in_flight", "1000001", {.max_in_flight = 1'000'001}},
      {"cache.refresh_timeout", "is 0", {.refresh_timeout = Duration(0)}},
      {"cache.absent_lifetime",
       "600000001",
       {.absent_lifetime = std::chrono::microseconds(600'000'001)}},
      {"cache.coalesce_tick", "is 999", {.coalesce_tick = std::chrono::microseconds(999)}},
      {"cache.coalesce_tick",
       "is 1000001",
       {.coalesce_tick = std::chrono::microseconds(1'000'001)}},
      {"cache.coalesce_tick", "is -5000", {.coalesce_tick = std::chrono::milliseconds(-5)}},
      {"cache.deny_after", "is -1", {.deny_after = std::chrono::microseconds(-1)}},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(Validate(c.options), StatusIs(absl::StatusCode::kInvalidArgument,
                                              AllOf(HasSubstr(c.field), HasSubstr(c.value))));
  }
}

}  // namespace
}  // namespace dynlib::cache
