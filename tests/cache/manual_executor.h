// An executor and its clock, moved on by hand.
#ifndef DYNLIB_TESTS_CACHE_MANUAL_EXECUTOR_H_
#define DYNLIB_TESTS_CACHE_MANUAL_EXECUTOR_H_

#include <cstdint>
#include <deque>
#include <map>
#include <utility>

#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::cache {

class ManualExecutor final : public Executor, public Clock {
 public:
  void Post(Task task) override { tasks_.push_back(std::move(task)); }
  TimerId RunAt(Instant when, Task task) override {
    timers_[{when, ++last_timer_}] = std::move(task);
    return TimerId{last_timer_};
  }
  bool Cancel(TimerId timer) override {
    return std::erase_if(
               timers_, [&](const auto& item) { return TimerId{item.first.second} == timer; }) != 0;
  }
  bool IsCurrent() const override { return true; }

  Instant Now() const override { return now_; }
  WallTime WallNow() const override { return WallTime::FromNanos(now_.nanos()); }

  // Runs what is posted, and what that posts.
  void Run() {
    while (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }
  // Lets time pass, with the timers that fall due.
  void Advance(Duration duration) {
    const Instant until = now_ + duration;
    Run();
    while (!timers_.empty() && timers_.begin()->first.first <= until) {
      auto timer = timers_.extract(timers_.begin());
      now_ = std::max(now_, timer.key().first);
      timer.mapped()();
      Run();
    }
    now_ = until;
  }
  size_t timers() const { return timers_.size(); }

 private:
  Instant now_ = Instant::FromNanos(1'000'000'000);
  std::deque<Task> tasks_;
  std::map<std::pair<Instant, uint64_t>, Task> timers_;
  uint64_t last_timer_ = 0;
};

}  // namespace dynlib::cache

#endif  // DYNLIB_TESTS_CACHE_MANUAL_EXECUTOR_H_
