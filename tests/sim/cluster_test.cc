// The whole cluster under simulated faults: some seeds of what tools/sim runs by the thousand, and
// the known-bad variants that must not pass (rule S3).
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <string>

#include "dynlib/sim/faults.h"
#include "gtest/gtest.h"
#include "tests/sim/cluster_simulation.h"

namespace dynlib {
namespace {

TEST(ClusterSimulationTest, SeedsPassAndEveryFaultFires) {
  constexpr uint64_t kSeeds = 300;
  std::map<std::string, uint64_t, std::less<>> faults;
  std::map<std::string, uint64_t, std::less<>> metrics;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const SimulationResult result = RunClusterSimulation({.seed = seed});
    ASSERT_TRUE(result.ok()) << "seed " << seed << ": " << result.failure
                             << "\nreplay: tools/sim --seed " << seed;
    for (const auto& [name, count] : result.faults) faults[name] += count;
    for (const auto& [name, count] : result.metrics) metrics[name] += count;
  }
  for (const char* event :
       {"admin.members_changed", "admin.merge", "admin.replica_dropped", "admin.table_changed",
        "copy.chunks", "metadata.pushes", "replication.ended"}) {
    EXPECT_GT(metrics[event], 0u) << event << " never happened";
  }
  for (const char* kind : {"clock.drift",
                           "clock.pause",
                           "disk.bit_flip",
                           "disk.eio",
                           "disk.failed_sync",
                           "disk.full",
                           "disk.latency",
                           "disk.misdirected_write",
                           "disk.stall",
                           "disk.torn_write",
                           "disk.unsynced_lost",
                           "disk.unsynced_reordered",
                           "network.delay",
                           "network.loss",
                           "network.one_way_partition",
                           "network.partition",
                           "network.reorder",
                           "network.repeat",
                           "node.crash",
                           "node.power_off",
                           "node.restart"}) {
    EXPECT_GT(faults[kind], 0u) << kind << " never happened";
  }
}

TEST(ClusterSimulationTest, TheSameSeedGoesTheSameWay) {
  const SimulationResult once = RunClusterSimulation({.seed = 5});
  const SimulationResult again = RunClusterSimulation({.seed = 5});
  const SimulationResult other = RunClusterSimulation({.seed = 6});
  EXPECT_EQ(once.trace_hash, again.trace_hash);
  EXPECT_EQ(once.acknowledged, again.acknowledged);
  EXPECT_NE(once.trace_hash, other.trace_hash);
}

// Clocks up to a tenth fast or slow, where a hundredth is declared: strong reads go on, and none is
// stale, since no lease counts that such a clock gave (R5).
TEST(ClusterSimulationTest, ClocksBeyondTheDeclaredBound) {
  int noticed = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    sim::FaultOptions faults = sim::RandomFaults(seed);
    faults.clock_drift_ppm_max = 100'000;
    const SimulationResult result = RunClusterSimulation({.seed = seed, .faults = faults});
    ASSERT_TRUE(result.ok()) << "seed " << seed << ": " << result.failure;
    const auto found = result.metrics.find("replication.clock_beyond_bound");
    noticed += found == result.metrics.end() ? 0 : 1;
  }
  EXPECT_GE(noticed, 15) << "worlds in which a node noticed";
}

// Much of what usually hurts, and nothing else.
sim::FaultOptions Rough() {
  return {.network_loss = 0.03,
          .network_delay_us_min = 100,
          .network_delay_us_max = 3000,
          .partitions_per_minute = 20,
          .partition_ms_min = 100,
          .partition_ms_max = 1500,
          .disk_torn_writes = true,
          .disk_reorders_unsynced = true,
          .crashes_per_minute = 15,
          .power_offs_per_minute = 15,
          .down_ms_min = 50,
          .down_ms_max = 800};
}

// Caught is a mutant by the harm that it does, not by what it keeps from happening. In the smallest
// cluster, where nothing is split or moved, unless `shape` says otherwise.
void ExpectCaught(const std::function<void(SimulationOptions&)>& mutate,
                  const sim::FaultOptions& faults = Rough(), const ClusterShape& shape = {}) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SimulationOptions sound{.seed = seed, .faults = faults, .shape = shape};
    SimulationOptions mutant = sound;
    mutate(mutant);
    const SimulationResult result = RunClusterSimulation(mutant);
    if (!result.harmed) continue;
    std::printf("caught by seed %llu: %s\n", static_cast<unsigned long long>(seed),
                result.failure.substr(0, 200).c_str());
    EXPECT_EQ(RunClusterSimulation(sound).failure, "") << "the sound code fails on the same seed";
    return;
  }
  ADD_FAILURE() << "not caught within 300 seeds";
}

TEST(ClusterMutantTest, R1AcknowledgeBeforeSync) {
  // Slow disks that often lose their power: much is acknowledged and not yet synced.
  sim::FaultOptions slow = Rough();
  slow.disk_latency_us_min = 5'000;
  slow.disk_latency_us_max = 40'000;
  slow.crashes_per_minute = 0;
  slow.power_offs_per_minute = 60;
  ExpectCaught(
      [](SimulationOptions& options) { options.replication_mutant.acknowledge_before_sync = true; },
      slow);
}

// The same replicas' nodes lose their power all the time, and forget whom they promised.
TEST(ClusterMutantTest, R3AmnesiacVote) {
  sim::FaultOptions restless = Rough();
  restless.power_offs_per_minute = 60;
  restless.network_delay_us_max = 60'000;
  ExpectCaught([](SimulationOptions& options) { options.replication_mutant.amnesiac_vote = true; },
               restless);
}

TEST(ClusterMutantTest, R7ReplyBeforeApply) {
  // Slow disks and a slow network: a new leader knows for a while that it leads, and not yet all
  // that was chosen before.
  sim::FaultOptions slow = Rough();
  slow.network_delay_us_min = 20'000;
  slow.network_delay_us_max = 60'000;
  slow.network_loss = 0;
  slow.partitions_per_minute = 0;
  slow.power_offs_per_minute = 0;
  slow.crashes_per_minute = 40;
  slow.disk_latency_us_min = 5'000;
  slow.disk_latency_us_max = 60'000;
  ExpectCaught(
      [](SimulationOptions& options) { options.replication_mutant.reply_before_apply = true; },
      slow);
}

TEST(ClusterMutantTest, R10NoDeduplication) {
  ExpectCaught(
      [](SimulationOptions& options) { options.replication_mutant.no_deduplication = true; });
}

TEST(ClusterMutantTest, R10ConditionAtLeader) {
  ExpectCaught(
      [](SimulationOptions& options) { options.cluster_mutant.condition_at_leader = true; });
}

TEST(ClusterMutantTest, L4CheckpointBeforeLog) {
  ExpectCaught(
      [](SimulationOptions& options) { options.cluster_mutant.checkpoint_before_log = true; });
}

// Many messages are lost, so that writes are sent again, and partitions split all the time.
sim::FaultOptions Lossy() {
  return {.network_loss = 0.1,
          .network_delay_us_max = 20'000,
          .disk_latency_us_min = 1'000,
          .disk_latency_us_max = 10'000};
}

TEST(ClusterMutantTest, R11DeduplicationTableNotCopied) {
  ExpectCaught(
      [](SimulationOptions& options) { options.cluster_mutant.split.sessions_forgotten = true; },
      Lossy(), {.splits_per_minute = 60, .merges_per_minute = 60});
}

TEST(ClusterMutantTest, R11DeduplicationTablesNotMerged) {
  ExpectCaught(
      [](SimulationOptions& options) { options.cluster_mutant.split.sessions_not_merged = true; },
      Lossy(), {.splits_per_minute = 60, .merges_per_minute = 60});
}

// A replica that heals without the table applies again what the others do not.
TEST(ClusterMutantTest, R10DeduplicationTableNotCopiedWhenHealing) {
  ExpectCaught(
      [](SimulationOptions& options) { options.cluster_mutant.split.sessions_not_copied = true; },
      Lossy(), {.nodes = 6, .outages_per_minute = 12});
}

TEST(ClusterMutantTest, R11LastStepGoesToTheWrongChild) {
  ExpectCaught(
      [](SimulationOptions& options) { options.cluster_mutant.split.last_step_goes_left = true; },
      Lossy(), {.splits_per_minute = 60, .merges_per_minute = 60});
}

TEST(ClusterMutantTest, HealFromAnUnpinnedRoot) {
  ExpectCaught([](SimulationOptions& options) { options.cluster_mutant.copies_unpinned = true; },
               Lossy(),
               {.nodes = 6,
                .outages_per_minute = 12,
                .scrub_interval = std::chrono::milliseconds(300),
                .padding = 400,
                .copy_chunk_bytes = 1 << 10,
                .copy_bytes_per_second = 4 << 10});
}

TEST(ClusterMutantTest, StaleHintAccepted) {
  ExpectCaught([](SimulationOptions& options) { options.router_mutant.stale_hint_accepted = true; },
               Rough(), {.metadata_nodes = 3, .splits_per_minute = 30, .merges_per_minute = 30});
}

}  // namespace
}  // namespace dynlib
