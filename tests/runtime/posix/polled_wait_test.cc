#include "dynlib/runtime/posix/polled_wait.h"

#include <sched.h>

#include <chrono>
#include <optional>
#include <vector>

#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::SizeIs;

TEST(PolledWait, OptionsOutOfRangeAreNamed) {
  DYNLIB_EXPECT_OK(PolledWait::Check({}));
  DYNLIB_EXPECT_OK(PolledWait::Check({.poll_max = Duration::zero()}));
  DYNLIB_EXPECT_OK(PolledWait::Check({.poll_max = std::chrono::milliseconds(10)}));
  for (const Duration bad : {Duration(-1), Duration(std::chrono::milliseconds(11))}) {
    EXPECT_THAT(PolledWait::Check({.poll_max = bad}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("poll_max"), HasSubstr("0 to 10000000"))));
  }
}

// Of so many writes, those that are polled for; none is ever over in time.
std::vector<int> PolledFor(PolledWait& wait, int writes, bool in_time) {
  std::vector<int> polled;
  for (int write = 0; write < writes; ++write) {
    if (!wait.Begin()) continue;
    wait.End(in_time);
    polled.push_back(write);
  }
  return polled;
}

TEST(PolledWait, WithoutATimeNothingIsPolledFor) {
  PolledWait wait({.poll_max = Duration::zero()}, std::nullopt);
  EXPECT_THAT(PolledFor(wait, 100, true), ElementsAre());
}

TEST(PolledWait, WhatIsOfNoUseIsTriedEverMoreRarely) {
  PolledWait wait({}, std::nullopt);
  EXPECT_THAT(PolledFor(wait, 70, false), ElementsAre(0, 2, 6, 14, 30, 62));
  // But not for ever.
  EXPECT_THAT(PolledFor(wait, 100'000, false), SizeIs(AllOf(Ge(100'000 / 4096), Le(40))));
}

TEST(PolledWait, AfterSomeThatWereInTimeAMissMeansLittle) {
  PolledWait wait({}, std::nullopt);
  PolledFor(wait, 70, false);
  PolledFor(wait, 128, true);
  EXPECT_THAT(PolledFor(wait, 7, false), ElementsAre(0, 2, 6));
}

cpu_set_t Affinity() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  return set;
}

int AnyProcessor(const cpu_set_t& set) {
  int processor = 0;
  while (!CPU_ISSET(processor, &set)) ++processor;
  return processor;
}

cpu_set_t Only(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  return set;
}

TEST(PolledWait, AThreadIsMovedForOneWriteAndFreeAfterIt) {
  const cpu_set_t before = Affinity();
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (!CPU_ISSET(processor, &before)) continue;
    PolledWait wait({}, processor);
    ASSERT_TRUE(wait.Begin());
    EXPECT_EQ(sched_getcpu(), processor);
    wait.End(true);
    const cpu_set_t after = Affinity();
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
  }
}

// Brings the thread there, and leaves it free to go.
void Visit(int processor) {
  const cpu_set_t before = Affinity();
  const cpu_set_t only = Only(processor);
  ASSERT_EQ(sched_setaffinity(0, sizeof(only), &only), 0);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

// A thread that computes where the interrupts are makes polling useless, until it is driven away by
// one that is moved there: that must not have to wait for a write that is polled for.
TEST(PolledWait, AThreadIsMovedBetweenWritesThatSleepAndPollsAfresh) {
  const cpu_set_t all = Affinity();
  const int here = AnyProcessor(all);
  int there = here + 1;
  while (there < CPU_SETSIZE && !CPU_ISSET(there, &all)) ++there;
  if (there == CPU_SETSIZE) GTEST_SKIP() << "one processor";
  // Moved at 0, 16 and 48.
  const std::vector<int> expected = {0, 2, 6, 14, 16, 18, 22, 30, 46, 48, 50, 54};
  std::vector<int> polled;
  // The scheduler may move it, too, in a moment in between; not five times.
  for (int attempt = 0; attempt < 5 && polled != expected; ++attempt) {
    PolledWait wait({}, there);
    polled.clear();
    for (int write = 0; write < 60; ++write) {
      Visit(here);
      if (!wait.Begin()) continue;
      wait.End(/*in_time=*/false);
      polled.push_back(write);
    }
  }
  EXPECT_EQ(polled, expected);
}

TEST(PolledWait, AThreadStaysAmongTheProcessorsThatItWasGiven) {
  const cpu_set_t before = Affinity();
  const int here = AnyProcessor(before);
  const cpu_set_t only = Only(here);
  ASSERT_EQ(sched_setaffinity(0, sizeof(only), &only), 0);
  PolledWait wait({}, here + 1);
  ASSERT_TRUE(wait.Begin());
  const cpu_set_t during = Affinity();
  wait.End(true);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_TRUE(CPU_EQUAL(&only, &during));
}

TEST(PolledWait, NobodyIsMovedWhoDoesNotWantIt) {
  const cpu_set_t before = Affinity();
  for (int processor = 0; processor < 2; ++processor) {
    PolledWait wait({.follow_interrupts = false}, processor);
    ASSERT_TRUE(wait.Begin());
    const cpu_set_t during = Affinity();
    wait.End(true);
    EXPECT_TRUE(CPU_EQUAL(&before, &during));
  }
}

}  // namespace
}  // namespace dynlib
