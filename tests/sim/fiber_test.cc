#include "dynlib/sim/fiber.h"

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib::sim {
namespace {

TEST(Fiber, StopsInTheMiddleAndGoesOn) {
  FiberPool pool;
  std::string log;
  Fiber* a = pool.New([&] {
    log += "a1 ";
    pool.Yield();
    log += "a2 ";
  });
  Fiber* b = pool.New([&] {
    log += "b1 ";
    pool.Yield();
    log += "b2 ";
    pool.Yield();
    log += "b3 ";
  });
  EXPECT_FALSE(pool.Resume(a));
  EXPECT_FALSE(pool.Resume(b));
  EXPECT_EQ(pool.current(), nullptr);
  EXPECT_FALSE(pool.Resume(b));
  EXPECT_TRUE(pool.Resume(a));
  EXPECT_TRUE(pool.Resume(b));
  EXPECT_EQ(log, "a1 b1 b2 a2 b3 ");
  EXPECT_EQ(pool.live(), 0u);
}

TEST(Fiber, StacksAreReused) {
  FiberPool pool;
  for (int i = 0; i < 1000; ++i) {
    Fiber* fiber = pool.New([&] { pool.Yield(); });
    EXPECT_FALSE(pool.Resume(fiber));
    EXPECT_TRUE(pool.Resume(fiber));
  }
  EXPECT_EQ(pool.stacks(), 1u);
}

TEST(Fiber, ManyAtOnceEachKeepItsOwnLocals) {
  FiberPool pool;
  std::vector<Fiber*> fibers;
  double sum = 0;
  for (int i = 0; i < 100; ++i) {
    fibers.push_back(pool.New([&, i] {
      double x = i;
      std::string text(100 + i, 'x');
      for (int j = 0; j < 10; ++j) {
        x = std::sqrt(x * x + 1);
        pool.Yield();
      }
      sum += std::round(x * x) + static_cast<double>(text.size());
    }));
  }
  for (int round = 0; round < 10; ++round) {
    for (Fiber* fiber : fibers) EXPECT_FALSE(pool.Resume(fiber));
  }
  for (Fiber* fiber : fibers) EXPECT_TRUE(pool.Resume(fiber));
  double expected = 0;
  for (int i = 0; i < 100; ++i) expected += i * i + 10 + 100 + i;
  EXPECT_EQ(sum, expected);
}

int Recurse(int depth, FiberPool& pool) {
  volatile char frame[1024];
  frame[0] = static_cast<char>(depth);
  if (depth == 0) {
    pool.Yield();
    return 0;
  }
  return Recurse(depth - 1, pool) + (frame[0] == static_cast<char>(depth) ? 1 : 0);
}

TEST(Fiber, HoldsADeepStack) {
  FiberPool pool;
  int depth = 0;
  Fiber* fiber = pool.New([&] { depth = Recurse(150, pool); });
  EXPECT_FALSE(pool.Resume(fiber));
  EXPECT_TRUE(pool.Resume(fiber));
  EXPECT_EQ(depth, 150);
}

TEST(Fiber, WhatAFunctionOwnsIsDestroyedWhenItReturns) {
  FiberPool pool;
  auto owned = std::make_shared<int>(1);
  std::weak_ptr<int> watch = owned;
  Fiber* fiber = pool.New([&pool, owned = std::move(owned)] { pool.Yield(); });
  EXPECT_FALSE(pool.Resume(fiber));
  EXPECT_FALSE(watch.expired());
  EXPECT_TRUE(pool.Resume(fiber));
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace dynlib::sim
