#include "dynlib/runtime/posix/thread_executor.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "dynlib/base/check.h"

namespace dynlib {
namespace {

// Sleeping is in CLOCK_MONOTONIC, which stops in suspend; timers are not. So no sleep is longer.
constexpr Duration kLongestSleep = std::chrono::seconds(1);

// The executor whose thread this is.
thread_local const ThreadExecutor* current_executor = nullptr;

}  // namespace

ThreadExecutor::ThreadExecutor(Options options) {
  thread_ = std::thread([this, name = options.name.substr(0, 15)] {
    pthread_setname_np(pthread_self(), name.c_str());
    current_executor = this;
    Run();
  });
}

ThreadExecutor::~ThreadExecutor() { ShutDown(); }

void ThreadExecutor::ShutDown() {
  DYNLIB_CHECK(!IsCurrent());
  {
    std::unique_lock lock(mutex_);
    closed_ = true;
    Wake(lock);
  }
  if (thread_.joinable()) thread_.join();
  // Destroyed outside of the lock: what a task holds may call this executor.
  std::map<TimerKey, Task> unrun;
  {
    std::unique_lock lock(mutex_);
    unrun.swap(timers_);
    timer_times_.clear();
  }
}

void ThreadExecutor::Post(Task task) {
  std::unique_lock lock(mutex_);
  if (closed_) {
    lock.unlock();  // The task is destroyed after.
    return;
  }
  posted_.push_back(std::move(task));
  if (sleeping_) Wake(lock);
}

Executor::TimerId ThreadExecutor::RunAt(Instant when, Task task) {
  std::unique_lock lock(mutex_);
  const uint64_t id = next_timer_++;
  if (closed_) {
    lock.unlock();
    return TimerId{id};
  }
  const auto at = timers_.emplace(TimerKey{when, id}, std::move(task)).first;
  timer_times_.emplace(id, when);
  if (sleeping_ && at == timers_.begin()) Wake(lock);
  return TimerId{id};
}

bool ThreadExecutor::Cancel(TimerId timer) {
  Task unrun;
  std::unique_lock lock(mutex_);
  const auto time = timer_times_.find(static_cast<uint64_t>(timer));
  if (time == timer_times_.end()) return false;
  const auto found = timers_.find(TimerKey{time->second, time->first});
  unrun = std::move(found->second);
  timers_.erase(found);
  timer_times_.erase(time);
  lock.unlock();  // Before `unrun` is destroyed.
  return true;
}

bool ThreadExecutor::IsCurrent() const { return current_executor == this; }

void ThreadExecutor::Run() {
  std::vector<Task> batch;
  while (TakeBatch(batch)) {
    for (Task& task : batch) {
      task();
      task = nullptr;  // What it holds goes before the next task runs.
    }
    batch.clear();
    RunDueTimers();
  }
}

bool ThreadExecutor::TakeBatch(std::vector<Task>& batch) {
  std::unique_lock lock(mutex_);
  if (posted_.empty() && !closed_) WaitForWork(lock);
  batch.swap(posted_);
  return !batch.empty() || !closed_;
}

// Returns when something was posted, a timer is due, or kLongestSleep has passed.
void ThreadExecutor::WaitForWork(std::unique_lock<std::mutex>& lock) {
  sleeping_ = true;
  if (timers_.empty()) {
    while (sleeping_) wake_->wait(lock);
  } else {
    const Duration left = timers_.begin()->first.first - clock_.Now();
    if (left > Duration::zero()) wake_->wait_for(lock, std::min(left, kLongestSleep));
  }
  sleeping_ = false;
}

void ThreadExecutor::RunDueTimers() {
  std::unique_lock lock(mutex_);
  if (timers_.empty()) return;
  // Those that fall due while these run wait their turn behind what was posted.
  const Instant now = clock_.Now();
  while (!closed_ && !timers_.empty() && timers_.begin()->first.first <= now) {
    const auto first = timers_.begin();
    Task task = std::move(first->second);
    timer_times_.erase(first->first.second);
    timers_.erase(first);
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

// Unlocks first, lest the thread that wakes, on this processor often at once, finds the mutex taken
// and sleeps again. What is notified is shared: once unlocked, the task that was posted may lead to
// this executor's end.
void ThreadExecutor::Wake(std::unique_lock<std::mutex>& lock) {
  sleeping_ = false;
  const std::shared_ptr<std::condition_variable> wake = wake_;
  lock.unlock();
  wake->notify_one();
}

}  // namespace dynlib
