// A fault at every disk call of every replica in turn, under a replicated workload: what was
// acknowledged is kept, the replicas are equal in the end, and the group goes on.
#include <cstdint>
#include <cstdio>
#include <string>

#include "dynlib/base/strings.h"
#include "gtest/gtest.h"
#include "tests/replication/log_cluster.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;

// Keys that are distinct, so that no command is the same as another.
std::string Work(LogCluster& cluster) {
  for (int i = 0; i < 25; ++i) {
    if (!cluster.Put(Cat("k", i), std::string(2'000, 'v'))) return Cat("no progress at ", i);
    if (i % 10 == 5) cluster.Checkpoint();  // Segments of the log are used again.
  }
  return "";
}

struct Outcome {
  uint64_t calls = 0;  // Of the node, in all.
  bool reopened = false;
};

// `n` counts from the first call after the node's start, 0 is no fault. `fate`: of what is not
// synced when the power fails.
Outcome RunWithFault(uint64_t node, uint64_t n, sim::DiskFault fault, bool keeps_cache,
                     sim::UnsyncedFate fate) {
  LogCluster cluster({.seed = 7, .faults = {.disk_failed_sync_keeps_cache = keeps_cache}});
  sim::SimDisk& disk = cluster.disk(node);
  if (n > 0) disk.FailCall(n, fault, fate);
  cluster.world().OnPowerFailure([&](NodeId id) {
    cluster.world().After(milliseconds(50), [&cluster, id] { cluster.Restarted(ToUint(id)); });
  });
  std::string why = Work(cluster);
  // A restart reads what is really there.
  if (why.empty()) {
    cluster.world().RunFor(milliseconds(200));
    for (uint64_t id = 1; id <= 3; ++id) {
      if (!cluster.Up(id)) continue;
      cluster.PowerOff(id);
      cluster.Reopen(id);
    }
    why = cluster.Check();
  }
  EXPECT_EQ(why, "") << "node " << node << ", call " << n;
  return {.calls = disk.calls(), .reopened = cluster.reopened(node) > 1};
}

// Every call until none is left that the fault could meet.
void Sweep(sim::DiskFault fault, bool keeps_cache = false,
           sim::UnsyncedFate fate = sim::UnsyncedFate::kAllLost) {
  int reopened = 0;
  int runs = 0;
  for (uint64_t node = 1; node <= 3; ++node) {
    const uint64_t calls = RunWithFault(node, 0, fault, keeps_cache, fate).calls;
    EXPECT_GT(calls, 30u);
    for (uint64_t n = 1; n <= calls; ++n) {
      reopened += RunWithFault(node, n, fault, keeps_cache, fate).reopened;
      ++runs;
      if (testing::Test::HasFailure()) return;
    }
  }
  std::printf("%d runs, in %d of them a node had to begin anew\n", runs, reopened);
  const bool ends_process = fault != sim::DiskFault::kNoSpace;
  EXPECT_EQ(reopened > 20, ends_process);
}

TEST(DiskFaultTest, L3AnErrorAtEveryCall) { Sweep(sim::DiskFault::kEio); }

// The kernel keeps the pages of a failed sync as if they were clean: the next sync succeeds.
TEST(DiskFaultTest, L3ASyncErrorThenSuccess) { Sweep(sim::DiskFault::kEio, /*keeps_cache=*/true); }

TEST(DiskFaultTest, NoSpaceAtEveryCall) { Sweep(sim::DiskFault::kNoSpace); }

class PowerFailureTest : public testing::TestWithParam<sim::UnsyncedFate> {};

TEST_P(PowerFailureTest, R1PowerFailsAtEveryCall) {
  Sweep(sim::DiskFault::kPowerOff, /*keeps_cache=*/false, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Fates, PowerFailureTest,
                         testing::Values(sim::UnsyncedFate::kAllLost, sim::UnsyncedFate::kAllKept,
                                         sim::UnsyncedFate::kTorn,
                                         sim::UnsyncedFate::kRandomSubset));

}  // namespace
}  // namespace dynlib::replication
