#include "dynlib/cache/intake.h"

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "dynlib/base/time.h"
#include "gtest/gtest.h"

namespace dynlib::cache {
namespace {

std::vector<int> DrainAll(Intake<int>& intake) {
  std::vector<int> keys;
  while (intake.Drain(1'000, [&](int key) { keys.push_back(key); }) > 0) {
  }
  return keys;
}

TEST(Intake, KeepsTheOrderAndCountsWhatItWas) {
  Intake<int> intake(10);
  EXPECT_FALSE(intake.Waiting());
  EXPECT_TRUE(intake.LeaveHit(1));
  EXPECT_TRUE(intake.Leave(Outcome::kMiss, 2));
  EXPECT_TRUE(intake.Leave(Outcome::kAbsentHit, 3));
  EXPECT_TRUE(intake.Admit(Outcome::kMiss));
  EXPECT_TRUE(intake.Waiting());
  std::vector<int> seen;
  intake.Drain(2, [&](int key) { seen.push_back(key); });
  EXPECT_EQ(seen.size(), 2u) << "no more than it was asked for";
  intake.Drain(2, [&](int key) { seen.push_back(key); });
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(intake.Waiting());
  const IntakeCounts counts = intake.Counts();
  EXPECT_EQ(counts.gets, (std::array<uint64_t, 3>{1, 1, 2}));
  EXPECT_EQ(counts.shed, 0u);
  EXPECT_EQ(intake.in_flight(), 4u);
}

TEST(Intake, AdmitsExactlyMaxInFlightOfOneThread) {
  for (const size_t max : {1u, 3u, 64u, 1'000u}) {
    Intake<int> intake(max);
    size_t admitted = 0;
    for (size_t i = 0; i < 2 * max; ++i)
      admitted += i % 3 == 0 ? intake.Admit(Outcome::kMiss) : intake.LeaveHit(1);
    EXPECT_EQ(admitted, max);
    EXPECT_EQ(intake.Counts().shed, max);
    EXPECT_EQ(intake.in_flight(), max);
    DrainAll(intake);
    EXPECT_FALSE(intake.LeaveHit(1)) << "picked up, but not ended";
    intake.Release();
    EXPECT_TRUE(intake.LeaveHit(1));
    EXPECT_FALSE(intake.LeaveHit(1));
  }
}

TEST(Intake, ARingThatNobodyDrainsFillsUp) {
  Intake<int> intake(1'000'000);
  for (int i = 0; i < 5'000; ++i) EXPECT_EQ(intake.LeaveHit(i), i < 4'096);
  EXPECT_EQ(DrainAll(intake).size(), 4'096u);
  EXPECT_TRUE(intake.LeaveHit(5'000));
  EXPECT_EQ(intake.Counts().gets[0], 5'001u);
  EXPECT_EQ(intake.Counts().shed, 904u);
}

// More threads than there are stripes, one after the other and at once, while another drains.
TEST(Intake, LosesNothingOfManyThreads) {
  constexpr int kThreads = 40;
  constexpr int kEach = 500;
  Intake<int> intake(kThreads * kEach);
  std::map<int, int> next;
  size_t drained = 0;
  std::atomic<int> left = 0;
  std::vector<std::thread> threads;
  std::atomic<int> waiting = kThreads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      // All live at once, so that none takes over another's stripe.
      --waiting;
      while (waiting > 0) std::this_thread::yield();
      for (int i = 0; i < kEach; ++i) left += intake.LeaveHit(thread * kEach + i);
    });
  }
  auto drain = [&] {
    drained += intake.Drain(64, [&](int key) {
      EXPECT_GE(key % kEach, next[key / kEach]) << "the order of one thread";
      next[key / kEach] = key % kEach + 1;
    });
  };
  while (drained < kThreads * kEach / 2) drain();
  for (std::thread& thread : threads) thread.join();
  while (intake.Waiting()) drain();
  EXPECT_EQ(drained, static_cast<size_t>(left));
  const IntakeCounts counts = intake.Counts();
  EXPECT_EQ(counts.gets[0], uint64_t{kThreads * kEach});
  EXPECT_EQ(counts.gets[0] - counts.shed, drained);
  EXPECT_EQ(intake.in_flight(), drained);
  EXPECT_LE(counts.shed, 33u * 64u) << "credits of other stripes, at most";
}

}  // namespace
}  // namespace dynlib::cache
