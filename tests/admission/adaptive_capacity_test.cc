#include "dynlib/admission/adaptive_capacity.h"

#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using ::testing::HasSubstr;
using Use = AdaptiveCapacity::Use;

AdaptiveCapacity Make(double table, size_t partitions) {
  return *AdaptiveCapacity::Create({.table_units_per_second = table}, partitions);
}

// What partitions with these demands do when they have these capacities.
std::vector<Use> Uses(const std::vector<double>& demands, const std::vector<double>& capacities) {
  std::vector<Use> uses;
  for (size_t i = 0; i < demands.size(); ++i) {
    const double admitted = std::min(demands[i], capacities[i]);
    uses.push_back({admitted, demands[i] - admitted});
  }
  return uses;
}

TEST(AdaptiveCapacity, BeginsWithEvenShares) {
  EXPECT_EQ(Make(1000, 4).capacities(), std::vector<double>(4, 250));
  // No more than a partition can do.
  EXPECT_EQ(Make(100'000, 4).capacities(), std::vector<double>(4, 3000));
}

TEST(AdaptiveCapacity, BoostsAPartitionThatWasThrottled) {
  AdaptiveCapacity control = Make(1000, 4);
  const std::vector<double> demands = {700, 50, 50, 50};
  EXPECT_GT(control.Step(Uses(demands, control.capacities()))[0], 690);
  for (int i = 0; i < 20; ++i) control.Step(Uses(demands, control.capacities()));
  EXPECT_GE(control.capacities()[0], 699);
  EXPECT_EQ(control.capacities()[1], 250);
}

TEST(AdaptiveCapacity, ATableThatUsesItsLimitGetsNoBoost) {
  AdaptiveCapacity control = Make(1000, 2);
  control.Step(std::vector<Use>{{500, 300}, {500, 300}});
  EXPECT_EQ(control.capacities(), std::vector<double>(2, 500));
}

TEST(AdaptiveCapacity, BoostsEndWhenTheTableIsOverItsLimit) {
  AdaptiveCapacity control = Make(1000, 2);
  for (int i = 0; i < 10; ++i) control.Step(Uses({900, 50}, control.capacities()));
  ASSERT_GT(control.capacities()[0], 890);
  std::vector<Use> uses;
  for (int i = 0; i < 60; ++i) {
    uses = Uses({900, 500}, control.capacities());
    control.Step(uses);
  }
  EXPECT_LE(uses[0].admitted_per_second + uses[1].admitted_per_second, 1010);
}

TEST(AdaptiveCapacity, BoostsThatNobodyUsesDecay) {
  AdaptiveCapacity control = Make(1000, 2);
  for (int i = 0; i < 10; ++i) control.Step(Uses({900, 50}, control.capacities()));
  for (int i = 0; i < 100; ++i) control.Step(Uses({10, 10}, control.capacities()));
  EXPECT_NEAR(control.capacities()[0], 500, 1);
}

// Whatever it is told: between the share and what a partition can do.
TEST(AdaptiveCapacity, StaysWithinItsBounds) {
  Random random(1);
  AdaptiveCapacity control = Make(1000, 5);
  const double odd[] = {std::numeric_limits<double>::quiet_NaN(),
                        -1,
                        std::numeric_limits<double>::infinity(),
                        1e300,
                        0,
                        100};
  for (int i = 0; i < 1000; ++i) {
    std::vector<Use> uses(5);
    for (Use& use : uses) use = {odd[random.Below(6)], odd[random.Below(6)]};
    for (const double capacity : control.Step(uses)) {
      ASSERT_GE(capacity, 200);
      ASSERT_LE(capacity, 3000);
    }
  }
}

TEST(AdaptiveCapacity, OptionsAreChecked) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<AdaptiveCapacity::Options, const char*> bad[] = {
      {{.table_units_per_second = 0}, "table_units_per_second"},
      {{.partition_units_per_second = nan}, "partition_units_per_second"},
      {{.gain = -1}, "gain"},
      {{.decay = 2}, "decay"}};
  for (const auto& [options, field] : bad) {
    const auto made = AdaptiveCapacity::Create(options, 1);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(field));
  }
  EXPECT_EQ(AdaptiveCapacity::Create({}, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace dynlib::admission
