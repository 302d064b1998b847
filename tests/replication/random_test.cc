// Many seeds of random faults against the replication core: safe at every step, live and at rest
// after.
//
// DYNLIB_SEEDS=20000 runs more of them, DYNLIB_FIRST_SEED says from where, DYNLIB_TRACE=1 tells
// what happens: DYNLIB_FIRST_SEED=712 DYNLIB_SEEDS=1 DYNLIB_TRACE=1 random_test
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Returns how often a member was put to rest.
uint64_t RunSeeds(HarnessOptions (*mix)(uint64_t seed), uint64_t usual_count) {
  const uint64_t first = FromEnvironment("DYNLIB_FIRST_SEED", 1);
  const uint64_t count = FromEnvironment("DYNLIB_SEEDS", usual_count);
  uint64_t steps = 0;
  uint64_t rests = 0;
  int failures = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    HarnessOptions options = mix(seed);
    options.trace = std::getenv("DYNLIB_TRACE") != nullptr;
    CoreHarness harness(options);
    const std::string violation = harness.Run();
    EXPECT_EQ(violation, "");
    steps += harness.steps();
    rests += harness.rests();
    if (!violation.empty() && ++failures == 20) break;
  }
  testing::Test::RecordProperty("steps", static_cast<int>(steps));
  testing::Test::RecordProperty("rests", static_cast<int>(rests));
  return rests;
}

TEST(RandomTest, SafeUnderFaultsAndLiveAfterThem) { RunSeeds(RandomMix, 200); }

TEST(RandomTest, SoWhileMembersChange) { RunSeeds(MembersMix, 100); }

TEST(RandomTest, SoWithMembersThatRestWheneverTheyMay) {
  EXPECT_GT(RunSeeds(RestMix, 100), FromEnvironment("DYNLIB_SEEDS", 100));
}

}  // namespace
}  // namespace dynlib::replication
