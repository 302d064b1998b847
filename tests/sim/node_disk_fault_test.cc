// A fault at a disk call of a storage node, of whichever kind the call is: of its log, its page
// file, their folders, of a checkpoint or of a recovery. Three nodes serve a small workload, and
// what RunClusterSimulation demands must hold: nothing acknowledged is lost, the replicas are equal
// in the end, and every key can be written.
//
// A call in kStride is met in each build; DYNLIB_STRIDE=1 meets every one.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "dynlib/base/ids.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/faults.h"
#include "gtest/gtest.h"
#include "tests/sim/cluster_simulation.h"

namespace dynlib {
namespace {

constexpr uint64_t kNodes = 3;
constexpr uint64_t kStride = 7;  // A prime, so that it does not keep step with what repeats.

uint64_t Stride() {
  const char* given = std::getenv("DYNLIB_STRIDE");
  return given == nullptr ? kStride : std::max<uint64_t>(1, std::strtoull(given, nullptr, 10));
}

// Disks are slow enough that something is always on its way to them.
SimulationResult RunWithFault(uint64_t seed, const DiskCallFault& chosen, bool keeps_cache,
                              const replication::FaultsForTest& mutant = {}) {
  const sim::FaultOptions faults{.disk_latency_us_min = 1'000,
                                 .disk_latency_us_max = 10'000,
                                 .disk_failed_sync_keeps_cache = keeps_cache};
  return RunClusterSimulation({.seed = seed,
                               .fault_time = std::chrono::milliseconds(1500),
                               .faults = faults,
                               .shape = ClusterShape{.padding = 400},
                               .disk_call = chosen,
                               .replication_mutant = mutant});
}

void Sweep(sim::DiskFault fault, sim::UnsyncedFate fate, bool keeps_cache = false) {
  constexpr uint64_t kSeed = 1;  // Checkpoints twice a second.
  uint64_t runs = 0;
  uint64_t met = 0;  // The last calls that need space come before the last calls.
  uint64_t all = 0;
  for (uint64_t node = 1; node <= kNodes; ++node) {
    DiskCallFault chosen{.node = NodeId{node}, .call = 0, .fault = fault, .fate = fate};
    const SimulationResult none = RunWithFault(kSeed, chosen, keeps_cache);
    ASSERT_EQ(none.failure, "");
    ASSERT_GT(none.disk_calls, 100u);
    ASSERT_GT(none.metrics.at("store.checkpoint_pages"), 0u);
    all += none.disk_calls;
    // Another residue on each node and for each kind of fault.
    const uint64_t first =
        node + 7 * static_cast<uint64_t>(fault) + 11 * static_cast<uint64_t>(fate);
    for (chosen.call = 1 + first % Stride(); chosen.call <= none.disk_calls;
         chosen.call += Stride()) {
      const SimulationResult result = RunWithFault(kSeed, chosen, keeps_cache);
      EXPECT_EQ(result.failure, "") << "node " << node << ", call " << chosen.call;
      if (testing::Test::HasFailure()) return;
      ++runs;
      met += fault == sim::DiskFault::kPowerOff || result.faults.contains("disk.eio") ||
             result.faults.contains("disk.failed_sync") || result.faults.contains("disk.full");
    }
  }
  EXPECT_GT(met, fault == sim::DiskFault::kNoSpace ? 0 : runs - 1);
  std::printf("%llu of %llu calls, %llu met the fault\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(all), static_cast<unsigned long long>(met));
}

// The sweep itself is checked (S3): a node that acknowledges what is not synced is caught.
TEST(NodeDiskFaultTest, R1AcknowledgeBeforeSyncIsCaught) {
  replication::FaultsForTest mutant;
  mutant.acknowledge_before_sync = true;
  int caught = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    caught += RunWithFault(seed, {.node = NodeId{1}}, false, mutant).harmed;
  }
  EXPECT_GT(caught, 0);
}

TEST(NodeDiskFaultTest, L3AnError) { Sweep(sim::DiskFault::kEio, sim::UnsyncedFate::kAllLost); }

// The kernel keeps the pages of a failed sync as if they were clean: the next sync succeeds.
TEST(NodeDiskFaultTest, L3AnErrorThenSuccess) {
  Sweep(sim::DiskFault::kEio, sim::UnsyncedFate::kAllLost, /*keeps_cache=*/true);
}

TEST(NodeDiskFaultTest, L3NoSpace) { Sweep(sim::DiskFault::kNoSpace, sim::UnsyncedFate::kAllLost); }

class PowerFailureTest : public testing::TestWithParam<sim::UnsyncedFate> {};

TEST_P(PowerFailureTest, R1AtACall) { Sweep(sim::DiskFault::kPowerOff, GetParam()); }

INSTANTIATE_TEST_SUITE_P(Fates, PowerFailureTest,
                         testing::Values(sim::UnsyncedFate::kAllLost, sim::UnsyncedFate::kAllKept,
                                         sim::UnsyncedFate::kTorn,
                                         sim::UnsyncedFate::kRandomSubset));

}  // namespace
}  // namespace dynlib
