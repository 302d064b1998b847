#include "dynlib/testing/clock_conformance.h"

#include <chrono>

#include "dynlib/base/time.h"

namespace dynlib {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_P(ClockConformance, NowNeverGoesBack) {
  Instant last = env_->clock()->Now();
  for (int i = 0; i < 1000; ++i) {
    const Instant now = env_->clock()->Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST_P(ClockConformance, TimePasses) {
  const Instant start = env_->clock()->Now();
  const auto passed = [&] { return env_->clock()->Now() >= start + milliseconds(20); };
  EXPECT_TRUE(env_->RunUntil(passed, seconds(10)));
}

TEST_P(ClockConformance, WallTimePassesAsMonotonicTimeDoes) {
  const Instant start = env_->clock()->Now();
  const WallTime wall_start = env_->clock()->WallNow();
  env_->RunUntil([&] { return env_->clock()->Now() >= start + milliseconds(50); }, seconds(10));
  const Duration wall = env_->clock()->WallNow() - wall_start;
  EXPECT_GE(wall, milliseconds(25));
  EXPECT_LT(wall, seconds(10));
}

TEST_P(ClockConformance, NowIsAfterTheDefaultInstantAndBeforeInfinity) {
  EXPECT_GT(env_->clock()->Now(), Instant());
  EXPECT_LT(env_->clock()->Now(), Instant::Infinite());
  EXPECT_GT(env_->clock()->WallNow(), WallTime());
}

// The environment's own promise, on which all other suites rest.
TEST_P(ClockConformance, RunUntilGivesUpAtItsLimit) {
  const Instant start = env_->clock()->Now();
  EXPECT_FALSE(env_->RunUntil([] { return false; }, milliseconds(30)));
  EXPECT_GE(env_->clock()->Now(), start + milliseconds(30));
}

}  // namespace
}  // namespace dynlib
