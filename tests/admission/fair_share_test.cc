#include "dynlib/admission/fair_share.h"

#include <algorithm>
#include <vector>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

TEST(FairShare, SmallDemandsAreMetAndTheRestIsEqual) {
  std::vector<double> demands = {100, 10, 400, 40};
  const FairShares shares = DivideFairly(demands, 200);
  EXPECT_TRUE(shares.scarce);
  EXPECT_EQ(shares.Of(10), 10);
  EXPECT_EQ(shares.Of(40), 40);
  EXPECT_EQ(shares.Of(100), 75);
  EXPECT_EQ(shares.Of(400), 75);
  EXPECT_EQ(shares.Of(1e9), 75);
}

TEST(FairShare, SpareCapacityIsSharedOut) {
  std::vector<double> demands = {10, 30};
  const FairShares shares = DivideFairly(demands, 100);
  EXPECT_FALSE(shares.scarce);
  EXPECT_DOUBLE_EQ(shares.Of(10), 10 + 15 + 7.5);
  EXPECT_DOUBLE_EQ(shares.Of(10) + shares.Of(30), 100);
}

TEST(FairShare, NobodyAsks) {
  std::vector<double> none;
  EXPECT_EQ(DivideFairly(none, 100).Of(0), 100);
  std::vector<double> idle = {0, 0, 0, 0};
  EXPECT_EQ(DivideFairly(idle, 100).Of(0), 25);
}

// Against the definition: the shares use up the capacity, and nobody who got less than asked has
// less than another.
TEST(FairShare, IsMaxMinFair) {
  Random random(1);
  for (int run = 0; run < 2000; ++run) {
    std::vector<double> demands(random.Below(30) + 1);
    double total = 0;
    for (double& d : demands) total += d = random.Chance(0.2) ? 0 : random.Unit() * 100;
    const double capacity = random.Unit() * 1500;
    std::vector<double> scratch = demands;
    const FairShares shares = DivideFairly(scratch, capacity);
    double given = 0, most = 0;
    for (const double d : demands) {
      given += shares.Of(d);
      most = std::max(most, shares.Of(d));
    }
    EXPECT_NEAR(given, capacity, 1e-6) << run;
    for (const double d : demands) {
      if (total <= capacity) {
        EXPECT_GE(shares.Of(d), d);
      } else if (shares.Of(d) < d) {
        EXPECT_EQ(shares.Of(d), most);
      }
    }
  }
}

}  // namespace
}  // namespace dynlib::admission
