#include "dynlib/runtime/signal.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib {
namespace {

TEST(SignalTest, WhoWaitsAfterItWasSetReturnsAtOnce) {
  Signal signal;
  signal.Set();
  signal.Wait();
  signal.Wait();
}

TEST(SignalTest, WakesAllAndShowsWhatWasBefore) {
  for (int round = 0; round < 200; ++round) {
    auto signal = std::make_unique<Signal>();
    int value = 0;  // not atomic: Set and Wait order it
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        signal->Wait();
        right += value == 7;
      });
    }
    value = 7;
    signal->Set();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(right, 4);
  }
}

}  // namespace
}  // namespace dynlib
