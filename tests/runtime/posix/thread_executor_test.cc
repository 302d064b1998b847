#include "dynlib/runtime/posix/thread_executor.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dynlib/testing/clock_conformance.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/executor_conformance.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

class ThreadExecutorEnvironment final : public RealTime<ExecutorEnvironment> {
 public:
  ~ThreadExecutorEnvironment() override {
    for (auto& executor : executors_) executor->ShutDown();
  }
  bool HasThreads() const override { return true; }
  Executor* NewExecutor() override {
    executors_.push_back(std::make_unique<ThreadExecutor>());
    return executors_.back().get();
  }
  void ShutDown(Executor* executor) override { static_cast<ThreadExecutor*>(executor)->ShutDown(); }

 private:
  std::vector<std::unique_ptr<ThreadExecutor>> executors_;
};

INSTANTIATE_TEST_SUITE_P(Thread, ExecutorConformance,
                         ::testing::Values(ExecutorConformanceParam{
                             "Thread",
                             [] { return std::make_unique<ThreadExecutorEnvironment>(); }}));

INSTANTIATE_TEST_SUITE_P(System, ClockConformance,
                         ::testing::Values(ClockConformanceParam{
                             "System", [] { return std::make_unique<RealTime<Environment>>(); }}));

TEST(ThreadExecutor, TheThreadHasTheNameCutToWhatTheSystemTakes) {
  ThreadExecutor executor({.name = "a name that is much too long"});
  std::string name;
  executor.Post([&] {
    char buffer[32];
    pthread_getname_np(pthread_self(), buffer, sizeof(buffer));
    name = buffer;
  });
  executor.ShutDown();
  EXPECT_EQ(name, "a name that is ");
}

TEST(ThreadExecutor, EachThreadsTasksRunInItsOrder) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 5000;
  std::vector<int> next(kThreads, 0);
  int out_of_order = 0;
  ThreadExecutor executor;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        executor.Post([&, t, i] {
          if (next[t] != i) ++out_of_order;
          next[t] = i + 1;
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  executor.ShutDown();
  EXPECT_EQ(out_of_order, 0);
  EXPECT_EQ(next, std::vector<int>(kThreads, kTasks));
}

// The thread sleeps for a second at most: a timer that did not wake it would run up to that late.
// A busy machine may be late now and then too.
TEST(ThreadExecutor, ATimerThatIsEarlierThanAllOthersWakesTheThread) {
  SystemClock clock;
  RealTime<Environment> env;
  ThreadExecutor executor;
  executor.RunAt(clock.Now() + std::chrono::hours(1), [] {});
  int late = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const Instant when = clock.Now() + std::chrono::milliseconds(1);
    std::atomic<bool> ran{false};
    executor.RunAt(when, [&] { ran = true; });
    ASSERT_TRUE(env.RunUntil([&] { return ran.load(); }, std::chrono::seconds(10)));
    late += clock.Now() - when > std::chrono::milliseconds(300);
  }
  EXPECT_LE(late, 2);
}

// Of a timer that one thread cancels while it falls due, exactly one happens.
TEST(ThreadExecutor, CancelRacesWithTheTimer) {
  ThreadExecutor executor;
  SystemClock clock;
  std::atomic<int> ran{0};
  int cancelled = 0;
  constexpr int kTimers = 2000;
  for (int i = 0; i < kTimers; ++i) {
    const auto timer =
        executor.RunAt(clock.Now() + std::chrono::microseconds(i % 20), [&] { ++ran; });
    if (i % 3 == 0) std::this_thread::yield();
    cancelled += executor.Cancel(timer);
  }
  executor.Post([] {});
  RealTime<Environment> env;
  EXPECT_TRUE(env.RunUntil([&] { return ran + cancelled == kTimers; }, std::chrono::seconds(10)));
}

TEST(ThreadExecutor, TasksPostedByTheLastTasksAreDestroyedNotRun) {
  auto held = std::make_shared<int>(1);
  std::atomic<bool> started{false};
  std::atomic<bool> may_post{false};
  auto executor = std::make_unique<ThreadExecutor>();
  bool ran_late = false;
  executor->Post([&, held] {
    started = true;
    while (!may_post) std::this_thread::yield();
    // ShutDown may have closed the executor by now, or not: either way nothing leaks or hangs.
    executor->Post([&, held] { ran_late = true; });
  });
  while (!started) std::this_thread::yield();
  std::thread closer([&] { executor->ShutDown(); });
  may_post = true;
  closer.join();
  executor->Post([&, held] { ran_late = true; });
  executor.reset();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace dynlib
