// The checkers are checked: each known-bad variant of the protocol is caught within a few hundred
// seeds (PROTOCOL rule S3). Each gets the faults that provoke it.
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {
namespace {

constexpr uint64_t kSeeds = 300;

// Three nodes and a busy, troubled network; what the mutants share.
HarnessOptions Base(uint64_t seed) {
  HarnessOptions options{.seed = seed};
  options.liveness.interval = std::chrono::milliseconds(150);
  options.proposal_mean = std::chrono::milliseconds(20);
  options.crash_mean = std::chrono::milliseconds(500);
  options.cut_mean = std::chrono::milliseconds(300);
  return options;
}

// Caught is a mutant by the harm that it does: two values of a slot, a lost acknowledgement, a
// stale read, two leases. A group that merely gets stuck, or finds no rest, is harmed in nothing.
void ExpectCaught(const std::function<HarnessOptions(uint64_t)>& mutant) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    HarnessOptions sound = mutant(seed);
    sound.faults = {};
    CoreHarness harness(mutant(seed));
    const std::string violation = harness.Run();
    if (violation.empty() || harness.stuck()) continue;
    // The same seed without the mutation is clean, so it is the mutation that was caught.
    EXPECT_EQ(CoreHarness(sound).Run(), "");
    std::printf("caught: %s\n", violation.substr(0, 150).c_str());
    return;
  }
  ADD_FAILURE() << "not caught within " << kSeeds << " seeds";
}

TEST(MutantTest, R1AcknowledgeBeforeSync) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.acknowledge_before_sync = true;
    options.torn = 0;
    return options;
  });
}

TEST(MutantTest, R5R6NoWaitForLease) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.no_wait_for_lease = true;
    // Members that call a slow leader unhealthy while they support it: elections start, and only
    // the refused promise stands between two leases.
    options.group.progress_bound = std::chrono::milliseconds(10);
    options.delay_max = std::chrono::milliseconds(30);
    return options;
  });
}

TEST(MutantTest, R5LeaseForgottenAtRestart) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.lease_forgotten_at_restart = true;
    options.liveness.support = std::chrono::seconds(2);
    return options;
  });
}

TEST(MutantTest, R5EpochReused) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.epoch_reused = true;
    options.crash_mean = Duration(0);  // A new incarnation would end the epoch after all.
    options.slow = 0.1;
    return options;
  });
}

TEST(MutantTest, R5ClockDriftIgnored) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.clock_drift_ignored = true;
    options.liveness.drift_ppm = 200'000;
    options.crash_mean = Duration(0);
    return options;
  });
}

// Members that change all the time.
HarnessOptions Changing(uint64_t seed) {
  HarnessOptions options = Base(seed);
  options.spares = 2;
  options.change_mean = std::chrono::milliseconds(60);
  options.fault_phase = std::chrono::seconds(15);
  return options;
}

// {0, 1, 2} becomes {0, 1, 3} by the votes of 0 and 2. 0, cut off from both, learns of it and leads
// on with 3; 1, which knows nothing, is elected by 2, finds the change half made, and makes it
// again. Had it not to ask 3 what 0 chose there, the quorums {0, 3} and {1, 3} would each have its
// way: so rare a conjunction that it is staged.
std::string LeaderInTwoConfigurations(bool no_second_phase_one) {
  HarnessOptions options{.seed = 5, .nodes = 3, .spares = 1};
  options.faults.no_second_phase_one = no_second_phase_one;
  CoreHarness harness(options);
  const Duration long_enough = std::chrono::seconds(5);
  auto link = [&](int a, int b, bool cut) {
    harness.Cut(a, b, cut);
    harness.Cut(b, a, cut);
  };
  EXPECT_TRUE(harness.RunUntil([&] { return harness.LeaseHolder() == 0; }, long_enough));
  const Member learner = harness.MakeLearner(3, MemberKind::kStorage, 0);
  EXPECT_TRUE(harness.AddLearner(0, learner).ok());
  harness.RunFor(std::chrono::milliseconds(300));
  link(0, 1, true);
  std::vector<Member> members = harness.Core(0).configuration().members;
  members[2] = learner;
  EXPECT_TRUE(harness.ProposeMembers(0, members).ok());
  const Slot change = harness.Core(0).last_slot();
  EXPECT_TRUE(harness.RunUntil([&] { return harness.Core(2).last_slot() == change; }, long_enough));
  harness.Cut(0, 2);
  EXPECT_TRUE(
      harness.RunUntil([&] { return harness.Core(0).configuration().epoch > 0; }, long_enough));
  link(0, 2, true);
  EXPECT_TRUE(harness.RunUntil([&] { return harness.Core(0).Settled(); }, long_enough));
  for (int i = 0; i < 5; ++i) harness.Propose(0);
  // 1 finds the change at 2, and goes on in the new configuration, if it can.
  harness.RunUntil([&] { return harness.Core(1).configuration().epoch > 0; }, long_enough);
  EXPECT_GT(harness.Core(1).configuration().epoch, 0u);
  harness.RunFor(std::chrono::seconds(2));
  link(0, 1, false);
  link(0, 2, false);
  harness.RunFor(std::chrono::seconds(2));
  return harness.violation();
}

TEST(MutantTest, R7ReadUnconfirmed) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.read_unconfirmed = true;
    return options;
  });
}

// Clocks a tenth fast or slow, where a hundredth was declared: leases by them would let a deposed
// leader read what is old. That they are compared makes the difference.
HarnessOptions WildClocks(uint64_t seed, bool compare) {
  HarnessOptions options{.seed = seed};
  options.liveness.compare_clocks = compare;
  options.drift = 10;
  options.leases_expected = false;
  options.slow = 0;
  options.delay_max = std::chrono::milliseconds(2);
  options.crash_mean = Duration(0);
  options.cut_mean = std::chrono::milliseconds(1000);
  options.proposal_mean = std::chrono::milliseconds(20);
  return options;
}

TEST(MutantTest, R5ClocksNotCompared) {
  int caught = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    CoreHarness mutant(WildClocks(seed, false));
    caught += !mutant.Run().empty() && !mutant.stuck();
    CoreHarness harness(WildClocks(seed, true));
    EXPECT_EQ(harness.Run(), "");
    EXPECT_GT(harness.reads_confirmed(), 0u);  // What needs no clock goes on.
  }
  EXPECT_GT(caught, 0);
}

TEST(MutantTest, R2NoSecondPhaseOne) {
  EXPECT_EQ(LeaderInTwoConfigurations(false), "");
  EXPECT_NE(LeaderInTwoConfigurations(true), "");
}

TEST(MutantTest, R2ConfigurationBeforeItIsChosen) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Changing(seed);
    options.faults.configuration_before_chosen = true;
    return options;
  });
}

TEST(MutantTest, R2LearnerCounted) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Changing(seed);
    options.faults.learner_counted = true;
    return options;
  });
}

TEST(MutantTest, R3AmnesiacVote) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.amnesiac_vote = true;
    return options;
  });
}

TEST(MutantTest, R4DamageReadAsEmpty) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.damage_read_as_empty = true;
    options.damage = 1;
    return options;
  });
}

TEST(MutantTest, L4ReplayPastChosen) {
  ExpectCaught([](uint64_t seed) {
    HarnessOptions options = Base(seed);
    options.faults.replay_past_chosen = true;
    return options;
  });
}

}  // namespace
}  // namespace dynlib::replication
