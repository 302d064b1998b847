#include "dynlib/testing/executor_conformance.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "gmock/gmock.h"

namespace dynlib {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;

constexpr Duration kLimit = seconds(10);

// What happened, in order; tasks append, the test reads.
class Journal {
 public:
  void Add(int what) {
    std::lock_guard lock(mutex_);
    entries_.push_back(what);
  }
  std::vector<int> entries() const {
    std::lock_guard lock(mutex_);
    return entries_;
  }
  size_t size() const { return entries().size(); }

 private:
  mutable std::mutex mutex_;
  std::vector<int> entries_;
};

// Tells when a task that holds it is destroyed.
std::shared_ptr<void> OnDestruction(std::atomic<int>& count) {
  return std::shared_ptr<void>(nullptr, [&count](void*) { ++count; });
}

TEST_P(ExecutorConformance, TasksRunInTheOrderOfTheirPosts) {
  Executor* const executor = env_->NewExecutor();
  Journal journal;
  for (int i = 0; i < 1000; ++i) {
    executor->Post([&journal, i] { journal.Add(i); });
  }
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 1000; }, kLimit));
  const std::vector<int> entries = journal.entries();
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(entries[i], i);
}

TEST_P(ExecutorConformance, PostNeverRunsTheTaskInline) {
  Executor* const executor = env_->NewExecutor();
  Journal journal;
  executor->Post([&] {
    executor->Post([&] { journal.Add(2); });
    journal.Add(1);
  });
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 2; }, kLimit));
  EXPECT_THAT(journal.entries(), ElementsAre(1, 2));
}

TEST_P(ExecutorConformance, TasksDoNotOverlap) {
  Executor* const executor = env_->NewExecutor();
  std::atomic<int> running{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> done{0};
  const auto post = [&] {
    for (int i = 0; i < 200; ++i) {
      executor->Post([&] {
        if (++running != 1) ++overlaps;
        --running;
        ++done;
      });
    }
  };
  if (env_->HasThreads()) {
    std::thread other(post);
    post();
    other.join();
  } else {
    post();
    post();
  }
  ASSERT_TRUE(env_->RunUntil([&] { return done == 400; }, kLimit));
  EXPECT_EQ(overlaps, 0);
}

TEST_P(ExecutorConformance, IsCurrentInItsOwnTasksAlone) {
  Executor* const executor = env_->NewExecutor();
  Executor* const other = env_->NewExecutor();
  EXPECT_FALSE(executor->IsCurrent());
  std::atomic<int> own{-1};
  std::atomic<int> foreign{-1};
  executor->Post([&] {
    foreign = other->IsCurrent();
    own = executor->IsCurrent();
  });
  ASSERT_TRUE(env_->RunUntil([&] { return own != -1; }, kLimit));
  EXPECT_EQ(own, 1);
  EXPECT_EQ(foreign, 0);
}

TEST_P(ExecutorConformance, TimerRunsAtItsTimeNotBefore) {
  Executor* const executor = env_->NewExecutor();
  const Instant when = env_->clock()->Now() + milliseconds(30);
  std::atomic<int64_t> ran_at{0};
  executor->RunAt(when, [&] { ran_at = env_->clock()->Now().nanos(); });
  ASSERT_TRUE(env_->RunUntil([&] { return ran_at != 0; }, kLimit));
  EXPECT_GE(ran_at, when.nanos());
}

TEST_P(ExecutorConformance, TimersRunInTheOrderOfTheirTimes) {
  Executor* const executor = env_->NewExecutor();
  const Instant base = env_->clock()->Now() + milliseconds(20);
  Journal journal;
  executor->RunAt(base + milliseconds(10), [&] { journal.Add(3); });
  executor->RunAt(base, [&] { journal.Add(1); });
  executor->RunAt(base + milliseconds(5), [&] { journal.Add(2); });
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 3; }, kLimit));
  EXPECT_THAT(journal.entries(), ElementsAre(1, 2, 3));
}

TEST_P(ExecutorConformance, TimersOfOneTimeRunInTheOrderOfTheCalls) {
  Executor* const executor = env_->NewExecutor();
  const Instant when = env_->clock()->Now() + milliseconds(20);
  Journal journal;
  for (int i = 0; i < 4; ++i) {
    executor->RunAt(when, [&journal, i] { journal.Add(i); });
  }
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 4; }, kLimit));
  EXPECT_THAT(journal.entries(), ElementsAre(0, 1, 2, 3));
}

TEST_P(ExecutorConformance, TimerInThePastRunsSoonAndNotInline) {
  Executor* const executor = env_->NewExecutor();
  Journal journal;
  executor->Post([&] {
    executor->RunAt(Instant(), [&] { journal.Add(2); });
    journal.Add(1);
  });
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 2; }, kLimit));
  EXPECT_THAT(journal.entries(), ElementsAre(1, 2));
}

TEST_P(ExecutorConformance, EarlierTimerSetLaterIsNotDelayed) {
  Executor* const executor = env_->NewExecutor();
  const Instant start = env_->clock()->Now();
  executor->RunAt(start + seconds(3600), [] {});
  std::atomic<bool> ran{false};
  executor->RunAt(start + milliseconds(10), [&] { ran = true; });
  EXPECT_TRUE(env_->RunUntil([&] { return ran.load(); }, kLimit));
}

TEST_P(ExecutorConformance, CancelledTimerNeverRunsAndItsTaskIsDestroyed) {
  Executor* const executor = env_->NewExecutor();
  const Instant when = env_->clock()->Now() + milliseconds(20);
  Journal journal;
  std::atomic<int> destroyed{0};
  const Executor::TimerId timer =
      executor->RunAt(when, [&, hold = OnDestruction(destroyed)] { journal.Add(1); });
  executor->RunAt(when + milliseconds(10), [&] { journal.Add(2); });
  EXPECT_TRUE(executor->Cancel(timer));
  EXPECT_EQ(destroyed, 1);
  EXPECT_FALSE(executor->Cancel(timer));
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 1; }, kLimit));
  EXPECT_THAT(journal.entries(), ElementsAre(2));
}

TEST_P(ExecutorConformance, CancelOfATimerThatRanOrNeverWasIsFalse) {
  Executor* const executor = env_->NewExecutor();
  std::atomic<bool> ran{false};
  const Executor::TimerId timer = executor->RunAt(env_->clock()->Now(), [&] { ran = true; });
  EXPECT_NE(timer, Executor::kNoTimer);
  ASSERT_TRUE(env_->RunUntil([&] { return ran.load(); }, kLimit));
  EXPECT_FALSE(executor->Cancel(timer));
  EXPECT_FALSE(executor->Cancel(Executor::kNoTimer));
}

// Exact on the executor itself: both timers are due when the first cancels the second.
TEST_P(ExecutorConformance, ATaskCancelsATimerThatIsDue) {
  Executor* const executor = env_->NewExecutor();
  const Instant when = env_->clock()->Now() + milliseconds(20);
  Journal journal;
  std::atomic<uint64_t> second{0};
  std::atomic<int> cancelled{-1};
  executor->Post([&] {
    executor->RunAt(when, [&] { cancelled = executor->Cancel(Executor::TimerId{second.load()}); });
    second = static_cast<uint64_t>(executor->RunAt(when, [&] { journal.Add(1); }));
    executor->RunAt(when, [&] { journal.Add(2); });
  });
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() >= 1; }, kLimit));
  EXPECT_EQ(cancelled, 1);
  EXPECT_THAT(journal.entries(), ElementsAre(2));
}

TEST_P(ExecutorConformance, ATimerSetsTheNextAndCancelsItself) {
  Executor* const executor = env_->NewExecutor();
  Journal journal;
  std::atomic<uint64_t> self{0};
  executor->Post([&] {
    self = static_cast<uint64_t>(executor->RunAt(env_->clock()->Now(), [&] {
      journal.Add(executor->Cancel(Executor::TimerId{self.load()}) ? 1 : 0);
      executor->RunAt(env_->clock()->Now() + milliseconds(1), [&] { journal.Add(2); });
    }));
  });
  ASSERT_TRUE(env_->RunUntil([&] { return journal.size() == 2; }, kLimit));
  EXPECT_THAT(journal.entries(), ElementsAre(0, 2));
}

TEST_P(ExecutorConformance, ShutDownRunsWhatWasPostedAndDropsTheRest) {
  Executor* const executor = env_->NewExecutor();
  Journal journal;
  std::atomic<int> destroyed{0};
  for (int i = 0; i < 100; ++i) {
    executor->Post([&journal, i] { journal.Add(i); });
  }
  executor->RunAt(env_->clock()->Now() + seconds(3600),
                  [&, hold = OnDestruction(destroyed)] { journal.Add(-1); });
  env_->ShutDown(executor);
  EXPECT_EQ(journal.size(), 100u);
  EXPECT_EQ(destroyed, 1);

  executor->Post([&, hold = OnDestruction(destroyed)] { journal.Add(-2); });
  executor->RunAt(Instant(), [&, hold = OnDestruction(destroyed)] { journal.Add(-3); });
  env_->RunUntil([] { return false; }, milliseconds(20));
  EXPECT_EQ(journal.size(), 100u);
  EXPECT_EQ(destroyed, 3);
}

TEST_P(ExecutorConformance, ATaskAndWhatItHoldsIsDestroyedAfterItRan) {
  Executor* const executor = env_->NewExecutor();
  std::atomic<int> destroyed{0};
  std::atomic<int> destroyed_at_next{-1};
  executor->Post([hold = OnDestruction(destroyed)] {});
  executor->Post([&] { destroyed_at_next = destroyed.load(); });
  ASSERT_TRUE(env_->RunUntil([&] { return destroyed_at_next != -1; }, kLimit));
  EXPECT_EQ(destroyed_at_next, 1);
}

}  // namespace
}  // namespace dynlib
