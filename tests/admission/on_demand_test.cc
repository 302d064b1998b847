#include "dynlib/admission/on_demand.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr Instant kStart = Instant::FromNanos(5'000'000'000);
constexpr size_t kPlenty = 1'000'000;

class OnDemandTest : public ::testing::Test {
 protected:
  // So many units a second, told each second.
  void Run(int64_t units_per_second, int for_seconds) {
    for (int i = 0; i < for_seconds; ++i) {
      now_ = now_ + seconds(1);
      capacity_.Observe(units_per_second, now_);
    }
  }
  double Limit() const { return capacity_.UnitsPerSecond(kPlenty); }

  Instant now_ = kStart;
  OnDemandCapacity capacity_ = *OnDemandCapacity::Create({}, kStart);
};

TEST_F(OnDemandTest, ANewTableHasItsInitialPeak) {
  EXPECT_EQ(capacity_.peak_units_per_second(), 2000);
  EXPECT_EQ(Limit(), 4000);
}

TEST_F(OnDemandTest, AtOnceUpToTwiceThePreviousPeak) {
  Run(10'000, 120);
  EXPECT_NEAR(Limit(), 20'000, 200);
  Run(100, 3600);
  EXPECT_NEAR(Limit(), 20'000, 200);  // It is kept while traffic is low.
}

TEST_F(OnDemandTest, GrowsWithTrafficThatUsesItAll) {
  double last = Limit();
  for (int minute = 0; minute < 6; ++minute) {
    Run(static_cast<int64_t>(Limit()), 61);
    EXPECT_NEAR(Limit() / last, 2, 0.25) << minute;
    last = Limit();
  }
  EXPECT_GT(last, 4000 * 50);
}

TEST_F(OnDemandTest, AShortSpikeCountsByItsPartOfTheWindow) {
  Run(100, 60);
  Run(40'000, 6);  // a tenth of a minute
  EXPECT_NEAR(capacity_.peak_units_per_second(), 4000, 400);
}

TEST_F(OnDemandTest, APeakIsForgottenInTheEnd) {
  Run(10'000, 120);
  for (int day = 0; day < 29; ++day) capacity_.Observe(0, now_ = now_ + hours(24));
  EXPECT_NEAR(Limit(), 20'000, 200);
  for (int day = 0; day < 3; ++day) capacity_.Observe(0, now_ = now_ + hours(24));
  EXPECT_EQ(Limit(), 4000);
}

TEST_F(OnDemandTest, SplitsAreWantedBeforeTheTrafficComes) {
  EXPECT_EQ(capacity_.PartitionsWanted(), 4u);
  Run(9'000, 120);
  // Traffic needs nine; what may come at once needs eighteen.
  EXPECT_EQ(capacity_.PartitionsWanted(), 18u);
  EXPECT_EQ(capacity_.UnitsPerSecond(9), 9'000);  // until then
  EXPECT_NEAR(capacity_.UnitsPerSecond(18), 18'000, 1);
}

TEST_F(OnDemandTest, TheOwnersBoundHolds) {
  capacity_ = *OnDemandCapacity::Create({.units_per_second_max = 5000}, kStart);
  Run(5000, 600);
  EXPECT_EQ(Limit(), 5000);
  EXPECT_EQ(capacity_.PartitionsWanted(), 5u);
}

TEST_F(OnDemandTest, AnyClockWillDo) {
  Run(8000, 70);
  capacity_.Observe(0, kStart);  // It went back: counted in the present part.
  capacity_.Observe(0, Instant::FromNanos(INT64_MIN));
  EXPECT_NEAR(Limit(), 16'000, 200);
  capacity_.Observe(0, Instant::FromNanos(INT64_MAX - 1));
  EXPECT_EQ(Limit(), 4000);
}

TEST(OnDemand, OptionsAreChecked) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<OnDemandCapacity::Options, const char*> bad[] = {
      {{.initial_peak_units_per_second = nan}, "initial_peak_units_per_second"},
      {{.headroom = 0.5}, "headroom"},
      {{.units_per_second_max = -1}, "units_per_second_max"},
      {{.partition_units_per_second = 0}, "partition_units_per_second"},
      {{.peak_window = Duration(0)}, "peak_window"},
      {{.peak_kept = seconds(1)}, "peak_kept"}};
  for (const auto& [options, field] : bad) {
    const auto made = OnDemandCapacity::Create(options, kStart);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(field));
  }
}

}  // namespace
}  // namespace dynlib::admission
