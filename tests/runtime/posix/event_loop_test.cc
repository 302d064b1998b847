#include "dynlib/runtime/posix/event_loop.h"

#include <atomic>
#include <chrono>
#include <ctime>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/executor_conformance.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

enum class Which { kTasks, kBlocking };

class EventLoopEnvironment final : public RealTime<ExecutorEnvironment> {
 public:
  explicit EventLoopEnvironment(Which which) : which_(which) {}
  ~EventLoopEnvironment() override {
    for (auto& [executor, loop] : loops_) loop->ShutDown();
  }
  bool HasThreads() const override { return true; }
  Executor* NewExecutor() override {
    auto loop = std::make_unique<EventLoop>();
    Executor* const executor =
        which_ == Which::kTasks ? loop->executor() : loop->blocking_executor();
    loops_.emplace(executor, std::move(loop));
    return executor;
  }
  void ShutDown(Executor* executor) override { loops_.at(executor)->ShutDown(); }

 private:
  const Which which_;
  std::map<Executor*, std::unique_ptr<EventLoop>> loops_;
};

INSTANTIATE_TEST_SUITE_P(
    EventLoop, ExecutorConformance,
    ::testing::Values(
        ExecutorConformanceParam{
            "Tasks", [] { return std::make_unique<EventLoopEnvironment>(Which::kTasks); }},
        ExecutorConformanceParam{
            "Blocking", [] { return std::make_unique<EventLoopEnvironment>(Which::kBlocking); }}));

TEST(EventLoop, ABlockingTaskRunsOnTheLoopsOwnThreadAfterTheTasks) {
  EventLoop loop;
  std::vector<int> order;
  std::thread::id task_thread;
  std::thread::id blocking_thread;
  std::promise<void> done;
  loop.executor()->Post([&] {
    task_thread = std::this_thread::get_id();
    loop.blocking_executor()->Post([&] {
      EXPECT_TRUE(loop.blocking_executor()->IsCurrent());
      EXPECT_FALSE(loop.executor()->IsCurrent());
      blocking_thread = std::this_thread::get_id();
      order.push_back(3);
      done.set_value();
    });
    order.push_back(1);
    loop.executor()->Post([&] { order.push_back(2); });
  });
  done.get_future().wait();
  loop.ShutDown();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(task_thread, blocking_thread);
}

// Neither tasks nor timers wait for a disk that hangs; other blocking tasks do.
TEST(EventLoop, AnotherThreadTakesOverFromABlockingTaskThatHangs) {
  EventLoop loop({.blocked_max = std::chrono::milliseconds(2)});
  SystemClock clock;
  std::promise<void> release;
  std::atomic<bool> second_blocking{false};
  for (int round = 0; round < 3; ++round) {  // The role goes from one thread to the other and back.
    release = {};
    second_blocking = false;
    std::promise<void> started;
    loop.blocking_executor()->Post([&] {
      started.set_value();
      release.get_future().wait();
    });
    loop.blocking_executor()->Post([&] { second_blocking = true; });
    started.get_future().wait();
    std::promise<void> task;
    std::promise<void> timer;
    loop.executor()->Post([&] { task.set_value(); });
    task.get_future().wait();
    loop.executor()->RunAt(clock.Now() + std::chrono::milliseconds(1), [&] { timer.set_value(); });
    timer.get_future().wait();
    EXPECT_FALSE(second_blocking);
    release.set_value();
    std::promise<void> after;
    loop.blocking_executor()->Post([&] { after.set_value(); });
    after.get_future().wait();
    EXPECT_TRUE(second_blocking);
  }
}

// What belongs to executor() is never touched by two threads at once, however the role changes
// hands: the thread sanitizer looks on.
TEST(EventLoop, TasksOfAnExecutorAreInOrderWhicheverThreadRunsThem) {
  EventLoop loop({.blocked_max = std::chrono::microseconds(50)});
  constexpr int kTasks = 2000;
  int seen = 0;
  int blocking_seen = 0;
  int out_of_order = 0;
  int blocking_out_of_order = 0;  // The two executors' tasks may run at the same time.
  for (int i = 0; i < kTasks; ++i) {
    loop.executor()->Post([&, i] { out_of_order += seen++ != i; });
    if (i % 20 != 0) continue;
    loop.blocking_executor()->Post([&, i] {
      blocking_out_of_order += blocking_seen++ != i / 20;
      std::this_thread::sleep_for(std::chrono::microseconds(i % 3 == 0 ? 300 : 10));
    });
  }
  loop.ShutDown();
  EXPECT_EQ(seen, kTasks);
  EXPECT_EQ(blocking_seen, kTasks / 20);
  EXPECT_EQ(out_of_order, 0);
  EXPECT_EQ(blocking_out_of_order, 0);
}

// Two loops that have each other run tasks: their waits are short.
class PingPong {
 public:
  explicit PingPong(const EventLoop::Options& options) : one_(options), other_(options) {}
  ~PingPong() {
    one_.ShutDown();
    other_.ShutDown();
  }
  EventLoop& loop() { return one_; }
  void Play(int times) {
    done_ = {};
    Next(times);
    done_.get_future().wait();
  }

 private:
  void Next(int left) {
    if (left == 0) return done_.set_value();
    (left % 2 == 0 ? one_ : other_).executor()->Post([this, left] { Next(left - 1); });
  }
  std::promise<void> done_;
  EventLoop one_;
  EventLoop other_;
};

TEST(EventLoop, WhoPollsSeesWhateverComesNext) {
  PingPong busy({.poll_max = std::chrono::milliseconds(10)});
  SystemClock clock;
  for (int round = 0; round < 20; ++round) {
    busy.Play(50);
    std::promise<void> blocking;
    busy.loop().blocking_executor()->Post([&] { blocking.set_value(); });
    blocking.get_future().wait();
    busy.Play(50);
    std::promise<void> timer;
    busy.loop().executor()->RunAt(clock.Now() + std::chrono::microseconds(100),
                                  [&] { timer.set_value(); });
    timer.get_future().wait();
  }
  busy.Play(50);  // And it ends.
}

TEST(EventLoop, ALoopThatWasBusySleepsWhenItIsIdle) {
  PingPong busy({});
  busy.Play(500);
  const std::clock_t before = std::clock();  // Of the processor.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 20);
}

TEST(EventLoop, ShutDownRunsWhatIsPostedAlsoBehindATaskThatHangs) {
  bool task = false;
  bool blocking = false;
  EventLoop loop({.blocked_max = std::chrono::milliseconds(1)});
  std::promise<void> release;
  loop.blocking_executor()->Post([&] { release.get_future().wait(); });
  loop.blocking_executor()->Post([&] { blocking = true; });
  loop.executor()->Post([&] {
    task = true;
    release.set_value();
  });
  loop.ShutDown();
  EXPECT_TRUE(task);
  EXPECT_TRUE(blocking);
}

// A source that hears of one event of its own making, and wants to be called at a time.
TEST(EventLoop, ASourceIsCalledAtTheEndOfEachTurnAndWhenItAsks) {
  class TestSource final : public EventLoop::Source {
   public:
    void OnReady(uint64_t, uint32_t) override {}
    Instant EndTurn(Instant now) override {
      if (++turns_ == 3) third_.set_value();
      return turns_ < 3 ? now + std::chrono::milliseconds(1) : Instant::Infinite();
    }
    std::promise<void> third_;

   private:
    int turns_ = 0;
  };
  TestSource source;
  EventLoop loop;
  EXPECT_GE(loop.AddSource(&source), 1u);
  source.third_.get_future().wait();
  loop.RemoveSource(&source);
  loop.executor()->Post([] {});
  loop.ShutDown();
  loop.RemoveSource(&source);  // Of a loop that has ended: returns.
}

// Also while the loop polls, and when it is about to sleep.
TEST(EventLoop, WhoWantsATurnGetsIt) {
  class TestSource final : public EventLoop::Source {
   public:
    void OnReady(uint64_t, uint32_t) override {}
    Instant EndTurn(Instant) override {
      std::lock_guard lock(mutex_);
      if (std::exchange(wanted_, false)) turn_.set_value();
      return Instant::Infinite();
    }
    std::future<void> Want() {
      std::lock_guard lock(mutex_);
      wanted_ = true;
      turn_ = {};
      return turn_.get_future();
    }

   private:
    std::mutex mutex_;
    bool wanted_ = false;
    std::promise<void> turn_;
  };
  TestSource source;
  PingPong busy({});
  busy.loop().AddSource(&source);
  for (int i = 0; i < 200; ++i) {
    busy.Play(20);
    std::this_thread::sleep_for(std::chrono::microseconds(i % 2 == 0 ? 0 : 2 * i));
    const std::future<void> turn = source.Want();
    busy.loop().Wake();
    // Without a wake-up it looks after a second.
    ASSERT_EQ(turn.wait_for(std::chrono::milliseconds(800)), std::future_status::ready);
  }
  busy.loop().RemoveSource(&source);
}

// What a task sends goes out before the tasks that it posted have run.
TEST(EventLoop, ASourceIsCalledBetweenATaskAndThoseThatItPosts) {
  class TestSource final : public EventLoop::Source {
   public:
    void OnReady(uint64_t, uint32_t) override {}
    Instant EndTurn(Instant) override {
      ++turns;
      return Instant::Infinite();
    }
    int turns = 0;  // The loop's.
  };
  TestSource source;
  EventLoop loop;
  loop.AddSource(&source);
  int before = 0;
  std::promise<int> after;
  loop.executor()->Post([&] {
    before = source.turns;
    loop.executor()->Post([&] { after.set_value(source.turns); });
  });
  EXPECT_GT(after.get_future().get(), before);
  loop.RemoveSource(&source);
}

}  // namespace
}  // namespace dynlib
