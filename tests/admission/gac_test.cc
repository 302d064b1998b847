// Client and server together, in simulated time.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"
#include "tests/admission/gac_harness.h"

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;

// One in two clients is asked for little, one in ten for a lot; together `total`.
std::vector<double> Skewed(size_t clients, double total) {
  std::vector<double> demand(clients);
  double sum = 0;
  for (size_t i = 0; i < clients; ++i) {
    sum += demand[i] = i % 10 == 0 ? 20 : i % 2 == 0 ? 1 : 4;
  }
  for (double& d : demand) d *= total / sum;
  return demand;
}

GacHarness::Demand Constant(std::vector<double> demand) {
  return [demand = std::move(demand)](size_t i, double) { return demand[i]; };
}

TEST(Gac, AdmitsTheLimitUnderTwiceTheDemand) {
  GacHarness gac({.clients = 60, .limit = 12'000, .safe_rate = 20});
  gac.Run(25, Constant(std::vector<double>(60, 400)));
  for (double at = 10; at + 10 <= 25; at += 1) {
    EXPECT_NEAR(gac.Admitted(at, at + 10) / 12'000, 1, 0.02) << at;
  }
}

TEST(Gac, AdmitsTheLimitUnderSkewedDemand) {
  GacHarness gac({.clients = 60, .limit = 12'000, .safe_rate = 20});
  gac.Run(25, Constant(Skewed(60, 24'000)));
  for (double at = 10; at + 10 <= 25; at += 1) {
    EXPECT_NEAR(gac.Admitted(at, at + 10) / 12'000, 1, 0.02) << at;
  }
}

TEST(Gac, ManyClientsOfASmallLimit) {
  GacHarness gac({.clients = 300, .limit = 300, .safe_rate = 0.1});
  gac.Run(30, Constant(std::vector<double>(300, 2)));
  EXPECT_NEAR(gac.Admitted(15, 30) / 300, 1, 0.02);
}

TEST(Gac, LossDelayAndRepetitionDoNotRaiseIt) {
  GacHarness gac({.clients = 60,
                  .limit = 12'000,
                  .safe_rate = 20,
                  .loss = 0.1,
                  .repeat = 0.1,
                  .delay_max = milliseconds(300)});
  gac.Run(40, Constant(Skewed(60, 24'000)));
  EXPECT_LE(gac.WorstWindow(10, 10), 1.02 * 12'000);
  EXPECT_GE(gac.Admitted(20, 40), 0.9 * 12'000);
  EXPECT_GT(gac.server(0).counters().late_reports, 0u);
}

// Below the limit nobody is throttled, though the demand wanders between the clients.
TEST(Gac, ThrottlesNextToNothingBelowTheLimit) {
  GacHarness gac({.clients = 50, .limit = 20'000, .safe_rate = 400});
  const auto wander = [](size_t i, double second) {
    return 100 + 250 * static_cast<double>((static_cast<size_t>(second / 4) + i) % 5 == 0);
  };
  gac.Run(15, wander);
  const double offered = 50 * 100 + 10 * 250;
  gac.Run(25, wander);
  EXPECT_GE(gac.Admitted(15, 40), 0.995 * offered);
}

TEST(Gac, ALiarGetsTheFairShareAtMost) {
  GacHarness gac({.clients = 50, .limit = 10'000, .safe_rate = 20});
  gac.forge = [](size_t client, GacReport& report) {
    if (client != 0) return;
    for (GacReportEntry& entry : report.entries) {
      entry.asked_units = 1'000'000'000;
      entry.claim.units_per_second = 1e9;
      entry.claim.generation = 99;
    }
  };
  std::vector<double> demand(50, 400);
  demand[0] = 10'000;
  gac.Run(40, Constant(demand));
  // Two hundred each; the liar cannot acknowledge its grants and be believed.
  EXPECT_LE(gac.AdmittedBy(0, 15, 40), 1.05 * 200);
  for (size_t i = 1; i < 50; ++i) EXPECT_GE(gac.AdmittedBy(i, 15, 40), 0.93 * 200) << i;
}

TEST(Gac, AServersRestartAdmitsLittleMore) {
  GacHarness gac({.clients = 60, .limit = 12'000, .safe_rate = 20});
  const auto demand = Constant(Skewed(60, 24'000));
  gac.Run(20, demand);
  gac.StartServer(0);
  gac.Run(20, demand);
  EXPECT_LE(gac.WorstWindow(12, 10), 1.10 * 12'000);
  // Nor does anybody starve for it.
  EXPECT_GE(gac.Admitted(20, 25), 0.9 * 12'000);
  for (size_t i = 0; i < 60; ++i) EXPECT_GT(gac.AdmittedBy(i, 20, 25), 0) << i;
  EXPECT_NEAR(gac.Admitted(30, 40) / 12'000, 1, 0.02);
}

TEST(Gac, ARestartWithClientsThatComeMeanwhile) {
  GacHarness gac({.clients = 60, .limit = 12'000, .safe_rate = 10});
  std::vector<double> first = Skewed(60, 24'000);
  std::vector<double> second = first;
  for (size_t i = 30; i < 60; ++i) first[i] = 0;
  gac.Run(20, Constant(first));
  gac.StartServer(0);
  gac.Run(20, Constant(second));
  EXPECT_LE(gac.WorstWindow(12, 10), 1.10 * 12'000);
  EXPECT_NEAR(gac.Admitted(32, 40) / 12'000, 1, 0.03);
}

TEST(Gac, AServerThatRestartsEverySecond) {
  GacHarness gac({.clients = 40, .limit = 8'000, .safe_rate = 20});
  const auto demand = Constant(Skewed(40, 16'000));
  gac.Run(15, demand);
  for (int i = 0; i < 20; ++i) {
    gac.StartServer(0);
    gac.Run(1, demand);
  }
  EXPECT_LE(gac.WorstWindow(10, 10), 1.10 * 8'000);
  EXPECT_GE(gac.Admitted(15, 35), 0.5 * 8'000);
}

TEST(Gac, ClientsMoveToAnotherServer) {
  GacHarness gac({.clients = 60, .servers = 3, .limit = 12'000, .safe_rate = 20});
  const auto demand = Constant(Skewed(60, 24'000));
  gac.Run(20, demand);
  const size_t first = gac.ServerOfLimit();
  gac.StopServer(first);
  gac.Run(20, demand);
  EXPECT_NE(gac.ServerOfLimit(), first);
  gac.StartServer(first);
  gac.Run(30, demand);
  EXPECT_EQ(gac.ServerOfLimit(), first);
  EXPECT_LE(gac.WorstWindow(12, 10), 1.10 * 12'000);
  for (double at = 20; at + 5 <= 70; at += 1) {
    EXPECT_GE(gac.Admitted(at, at + 5), 0.8 * 12'000) << at;
  }
}

TEST(Gac, NoServerMeansTheLastShareThenTheSafeRate) {
  GacHarness gac({.clients = 20, .limit = 10'000, .safe_rate = 30});
  const auto demand = Constant(std::vector<double>(20, 1000));
  gac.Run(15, demand);
  gac.StopServer(0);
  gac.Run(20, demand);
  EXPECT_NEAR(gac.Admitted(15, 18), 10'000, 200);
  EXPECT_NEAR(gac.Admitted(23, 35), 20 * 30, 20);
  gac.StartServer(0);
  gac.Run(25, demand);
  EXPECT_NEAR(gac.Admitted(52, 60), 10'000, 200);
}

TEST(Gac, ClientsThatComeAndGo) {
  GacHarness gac({.clients = 80, .limit = 8'000, .safe_rate = 10});
  Random random(4);
  const auto demand = [](size_t i, double second) {
    return (static_cast<size_t>(second / 5) + i) % 3 == 0 ? 0.0 : 300.0;
  };
  gac.Run(15, demand);
  for (int i = 0; i < 100; ++i) {
    gac.RestartClient(random.Below(80));
    gac.Run(0.2, demand);
  }
  EXPECT_LE(gac.WorstWindow(5, 10), 1.10 * 8'000);
  EXPECT_GE(gac.Admitted(10, 35), 0.85 * 8'000);
}

// Clocks that were set long ago and at different times, that run fast and slow, and that stop for
// two seconds now and then and jump to where they ought to be.
TEST(Gac, ClocksThatDifferDriftStopAndJump) {
  const auto clock = [](size_t client, Instant now) {
    const auto ns = static_cast<double>(now.nanos());
    const double drift = 1 + 0.001 * (static_cast<double>(client % 11) - 5);
    const double offset = 1e12 * static_cast<double>(client % 7) - 2e12;
    const int64_t second = now.nanos() / 1'000'000'000 + static_cast<int64_t>(client);
    const bool stopped = second % 20 < 2;
    const double at = stopped ? ns - 1e9 * static_cast<double>(second % 20) -
                                    static_cast<double>(now.nanos() % 1'000'000'000)
                              : ns;
    return Instant::FromNanos(static_cast<int64_t>(at * drift + offset));
  };
  GacHarness gac({.clients = 40, .limit = 4'000, .safe_rate = 10, .client_clock = clock});
  gac.Run(45, Constant(Skewed(40, 8'000)));
  EXPECT_LE(gac.WorstWindow(10, 10), 1.05 * 4'000);
  EXPECT_LE(gac.Admitted(10, 45), 1.01 * 4'000);
  EXPECT_GE(gac.Admitted(10, 45), 0.85 * 4'000);
}

TEST(Gac, SameSeedSameRun) {
  double admitted[2];
  for (double& sum : admitted) {
    GacHarness gac({.clients = 20, .limit = 2'000, .safe_rate = 10, .seed = 9, .loss = 0.05});
    gac.Run(10, Constant(Skewed(20, 4'000)));
    sum = gac.Admitted(0, 10);
  }
  EXPECT_EQ(admitted[0], admitted[1]);
}

}  // namespace
}  // namespace dynlib::admission
