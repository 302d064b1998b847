// All caches lost at once, then half of the directory: what the two caches make of it.
#include "examples/storm/storm.h"

#include <chrono>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib::storm {
namespace {

StormOptions SmallStorm() {
  return {.routers = 40,
          .servers = 4,
          .flush_at = std::chrono::seconds(2),
          .loss_at = std::chrono::seconds(5),
          .end_at = std::chrono::seconds(8)};
}

// Ten times what a conventional cache usually asks of the directory.
StormOptions FleetForMisses() {
  StormOptions options = SmallStorm();
  options.look_ups_per_second = 10 * 1'000 * options.wrong_share / 4;
  return options;
}

// Twice what a constant-work cache asks of it.
StormOptions FleetForAll() {
  StormOptions options = SmallStorm();
  options.look_ups_per_second = 2 * 2 * 1'000 / 4;
  return options;
}

TEST(Storm, AConstantWorkCacheDoesTheSameWorkThroughoutAndFailsNobody) {
  const StormResult result = RunStorm(FleetForAll(), StormCache::kConstantWork);
  EXPECT_NEAR(result.usual.look_ups_per_get, 2, 0.01);
  EXPECT_NEAR(result.flushed.look_ups_per_get, 2, 0.01);
  EXPECT_LT(result.flushed.look_ups_per_second_max, 2'400);
  EXPECT_EQ(result.usual.failed, 0u);
  EXPECT_EQ(result.flushed.failed, 0u);
  // Half of what is sent arrives nowhere. Who misses, and hits upon two dead servers three times,
  // fails.
  EXPECT_NEAR(result.halved.look_ups_per_get, 1, 0.05);
  EXPECT_LT(result.halved.failed, result.halved.requests / 50);
  EXPECT_TRUE(result.halved.recovered);
}

TEST(Storm, AMissOnlyCacheTakesItsDirectoryDown) {
  const StormResult result = RunStorm(FleetForMisses(), StormCache::kConventional);
  EXPECT_LT(result.usual.failed, result.usual.requests / 100);
  EXPECT_GT(result.flushed.look_ups_per_second_max, 100 * result.usual.look_ups_per_second);
  EXPECT_GT(result.flushed.failed, result.flushed.requests / 2);
  EXPECT_FALSE(result.flushed.recovered);
}

TEST(Storm, AMissOnlyCacheMultipliesTheLoadOfAnyFleet) {
  const StormResult result = RunStorm(FleetForAll(), StormCache::kConventional);
  EXPECT_EQ(result.flushed.failed, 0u);
  EXPECT_GT(result.flushed.look_ups_per_second_max, 100 * result.usual.look_ups_per_second);
}

TEST(Storm, ASeedGivesTheSameStorm) {
  StormOptions options = FleetForAll();
  options.routers = 10;
  const auto look_ups = [&] {
    std::vector<uint64_t> counts;
    for (const StormSlice& slice : RunStorm(options, StormCache::kConstantWork).slices)
      counts.push_back(slice.look_ups);
    return counts;
  };
  const std::vector<uint64_t> first = look_ups();
  EXPECT_EQ(first, look_ups());
  options.seed = 2;
  EXPECT_NE(first, look_ups());
}

}  // namespace
}  // namespace dynlib::storm
