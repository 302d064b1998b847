#include "dynlib/runtime/posix/event_loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/time_slice.h"

namespace dynlib {
namespace {

// Sleeping is in CLOCK_MONOTONIC, which stops in suspend; timers are not. So no sleep is longer.
constexpr Duration kLongestSleep = std::chrono::seconds(1);
// Rounds of tasks that tasks posted, in one turn: a commit in one process takes five.
constexpr int kRoundsPerTurn = 16;
constexpr int kSourceShift = 48;
// While the loop waits for the last blocking task.
constexpr Duration kEndingSleep = std::chrono::milliseconds(1);
// Waits are polled for while enough of the last ones were short: each counts one, to a bound, and a
// long one halves the count. An exchange of heartbeats, two or three short ones and a long one, is
// not load.
constexpr int kShortWaits = 4;
constexpr int kShortWaitsMost = 16;
constexpr Duration kPollMost = std::chrono::milliseconds(10);

timespec ToTimespec(Duration duration) {
  return {.tv_sec = duration.count() / 1'000'000'000, .tv_nsec = duration.count() % 1'000'000'000};
}

void Signal(int event_fd) {
  const uint64_t one = 1;
  while (write(event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

// Wakes a loop that sleeps, and costs nothing if it does not. The loop says that it sleeps, looks
// at its queues once more, and sleeps; who posts does so first and then looks whether it sleeps. So
// one of them sees the other.
class Alarm {
 public:
  ~Alarm() { close(event_fd_); }
  int event_fd() const { return event_fd_; }
  void SetSleeping(bool sleeping) { sleeping_.store(sleeping, std::memory_order_seq_cst); }
  void Wake() {
    if (sleeping_.load(std::memory_order_seq_cst) && sleeping_.exchange(false)) Signal(event_fd_);
  }

 private:
  const int event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  std::atomic<bool> sleeping_{false};
};

// The executor whose task this thread runs.
thread_local const Executor* current_executor = nullptr;

// The tasks and timers of one executor.
class TaskQueue final : public Executor {
 public:
  explicit TaskQueue(Alarm* alarm) : alarm_(alarm) {}

  void Post(Task task) override {
    {
      std::unique_lock lock(mutex_);
      if (closed_) {
        lock.unlock();  // The task is destroyed after.
        return;
      }
      posted_.push_back(std::move(task));
      has_posted_.store(true, std::memory_order_relaxed);
    }
    alarm_->Wake();
  }

  TimerId RunAt(Instant when, Task task) override {
    uint64_t id;
    bool is_first = false;
    {
      std::unique_lock lock(mutex_);
      id = next_timer_++;
      if (closed_) {
        lock.unlock();
        return TimerId{id};
      }
      is_first = timers_.emplace(TimerKey{when, id}, std::move(task)).first == timers_.begin();
      timer_times_.emplace(id, when);
    }
    if (is_first) alarm_->Wake();
    return TimerId{id};
  }

  bool Cancel(TimerId timer) override {
    Task unrun;  // Destroyed after the lock is given up.
    std::lock_guard lock(mutex_);
    const auto time = timer_times_.find(static_cast<uint64_t>(timer));
    if (time == timer_times_.end()) return false;
    const auto found = timers_.find(TimerKey{time->second, time->first});
    unrun = std::move(found->second);
    timers_.erase(found);
    timer_times_.erase(time);
    return true;
  }

  bool IsCurrent() const override { return current_executor == this; }

  // The loop's.

  void TakePosted(std::vector<Task>& batch) {
    std::lock_guard lock(mutex_);
    batch.swap(posted_);
    has_posted_.store(false, std::memory_order_relaxed);
  }
  std::optional<Task> TakeFirstPosted() {
    std::lock_guard lock(mutex_);
    if (posted_.empty()) return std::nullopt;
    Task task = std::move(posted_.front());
    posted_.erase(posted_.begin());
    has_posted_.store(!posted_.empty(), std::memory_order_relaxed);
    return task;
  }
  std::optional<Task> TakeDueTimer(Instant now) {
    std::lock_guard lock(mutex_);
    if (closed_ || timers_.empty() || timers_.begin()->first.first > now) return std::nullopt;
    const auto first = timers_.begin();
    Task task = std::move(first->second);
    timer_times_.erase(first->first.second);
    timers_.erase(first);
    return task;
  }
  // For who polls: what was just posted may be seen a little later.
  bool SeemsToHavePosted() const { return has_posted_.load(std::memory_order_relaxed); }
  bool HasPosted() {
    std::lock_guard lock(mutex_);
    return !posted_.empty();
  }
  // 0 if something is posted.
  Instant NextTime() {
    std::lock_guard lock(mutex_);
    if (!posted_.empty()) return Instant();
    return closed_ || timers_.empty() ? Instant::Infinite() : timers_.begin()->first.first;
  }
  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  bool closed() {
    std::lock_guard lock(mutex_);
    return closed_;
  }
  // What a task holds may call this executor: not under the lock.
  void DropTimers() {
    std::map<TimerKey, Task> unrun;
    std::lock_guard lock(mutex_);
    unrun.swap(timers_);
    timer_times_.clear();
  }

  // Runs it as a task of this executor.
  void Run(Task& task) {
    current_executor = this;
    task();
    task = nullptr;  // What it holds goes before the next task runs.
    current_executor = nullptr;
  }

 private:
  using TimerKey = std::pair<Instant, uint64_t>;

  Alarm* const alarm_;
  std::mutex mutex_;
  std::vector<Task> posted_;
  std::atomic<bool> has_posted_{false};
  std::map<TimerKey, Task> timers_;
  std::unordered_map<uint64_t, Instant> timer_times_;
  uint64_t next_timer_ = 1;
  bool closed_ = false;
};

}  // namespace

// The right to run the loop is the *role*: one thread's at a time. It is free while its owner runs
// a blocking task, and taken back after, unless the spare thread took it over because there was
// something to do. Then the first goes on with blocking tasks as long as there are any, and is the
// spare one when there are none.
class EventLoop::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {
    DYNLIB_CHECK(options_.blocked_max > Duration::zero());
    DYNLIB_CHECK(options_.poll_max >= Duration::zero() && options_.poll_max <= kPollMost);
    DYNLIB_CHECK(options_.time_slice == Duration::zero() ||
                 (options_.time_slice >= kTimeSliceMin && options_.time_slice <= kTimeSliceMax));
    // Edge-triggered: each write wakes, and nobody need read it.
    AddTo(epoll_fd_, alarm_.event_fd(), EPOLLIN | EPOLLET, 0);
    AddTo(spare_epoll_fd_, spare_event_fd_, EPOLLIN | EPOLLET, 0);
    AddTo(spare_epoll_fd_, epoll_fd_, 0, 1);
    first_ = std::thread([this] {
      PrepareThread();
      RunLoop();
      RunSpare();
    });
  }
  ~Impl() {
    ShutDown();
    for (const int fd : {spare_epoll_fd_, spare_event_fd_, epoll_fd_}) close(fd);
  }

  void ShutDown();
  void WantTurn();
  uint64_t AddSource(Source* source);
  void RemoveSource(Source* source);

  int epoll_fd() const { return epoll_fd_; }
  TaskQueue& tasks() { return tasks_; }
  TaskQueue& blocking() { return blocking_; }

 private:
  static void AddTo(int epoll_fd, int fd, uint32_t events, uint64_t token) {
    epoll_event event{.events = events, .data = {.u64 = token}};
    DYNLIB_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
  }
  void PrepareThread() const {
    pthread_setname_np(pthread_self(), options_.name.substr(0, 15).c_str());
    if (options_.time_slice > Duration::zero()) SetTimeSlice(options_.time_slice);
  }
  // Until the role is lost or the loop ends.
  void RunLoop();
  void RunSpare();
  bool AwaitRole();
  void AwaitSomething();
  Instant NextTime();
  bool BlockingIsDue();
  bool PollUntil(Instant end);
  int HandleReady(Duration timeout);
  void RunTasks();
  void EndTurnOfSources(Instant now);
  bool RunBlocking();
  std::optional<Executor::Task> TakeBlockingLocked();
  void FreeRoleLocked();
  void TakeRoleLocked();
  bool Ended();

  const Options options_;
  SystemClock clock_;
  const int epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  // The spare thread waits here for epoll_fd_ to be ready while the role is free.
  const int spare_epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  const int spare_event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  Alarm alarm_;
  std::atomic<bool> turn_wanted_{false};  // though nothing is posted
  TaskQueue tasks_{&alarm_};
  TaskQueue blocking_{&alarm_};

  // The role's.
  std::vector<Source*> sources_;  // null where one was removed
  Instant sources_wakeup_ = Instant::Infinite();
  std::vector<Executor::Task> batch_;
  int short_waits_ = 0;

  std::mutex mutex_;
  bool role_free_ = false;
  bool is_blocking_ = false;  // a blocking task runs
  Instant free_since_;        // or was last
  bool spare_rests_ = false;
  bool ended_ = false;

  std::thread first_;
  std::thread second_;  // made by whoever has the role
};

void EventLoop::Impl::ShutDown() {
  DYNLIB_CHECK(!tasks_.IsCurrent() && !blocking_.IsCurrent());
  tasks_.Close();
  alarm_.Wake();
  if (first_.joinable()) first_.join();
  if (second_.joinable()) second_.join();
  tasks_.DropTimers();
  blocking_.DropTimers();
}

// On the loop the turn that there is will do.
void EventLoop::Impl::WantTurn() {
  if (tasks_.IsCurrent()) return;
  turn_wanted_.store(true, std::memory_order_seq_cst);
  alarm_.Wake();
}

uint64_t EventLoop::Impl::AddSource(Source* source) {
  std::promise<uint64_t> index;
  const auto add = [&] {
    sources_.push_back(source);
    index.set_value(sources_.size());
  };
  if (tasks_.IsCurrent()) {
    add();
  } else {
    tasks_.Post(add);
  }
  return index.get_future().get() << kSourceShift;
}

void EventLoop::Impl::RemoveSource(Source* source) {
  // A task that is destroyed unrun, since the loop was shut down, breaks its promise: just as good.
  auto removed = std::make_unique<std::promise<void>>();
  std::future<void> done = removed->get_future();
  const auto remove = [&] {
    std::replace(sources_.begin(), sources_.end(), source, static_cast<Source*>(nullptr));
  };
  if (tasks_.IsCurrent()) return remove();
  tasks_.Post([&remove, removed = std::move(removed)] {
    remove();
    removed->set_value();
  });
  done.wait();
}

void EventLoop::Impl::RunLoop() {
  while (true) {
    AwaitSomething();
    RunTasks();
    if (!RunBlocking()) return;
    if (Ended()) return;
  }
}

// Polls for a while, if waits were short lately, then sleeps.
void EventLoop::Impl::AwaitSomething() {
  const Instant begin = clock_.Now();
  const bool polls = short_waits_ >= kShortWaits && !tasks_.closed();
  if (!polls || !PollUntil(std::min(begin + options_.poll_max, NextTime()))) {
    alarm_.SetSleeping(true);
    const Instant wakeup = NextTime();
    const Duration left = wakeup == Instant() ? Duration::zero() : wakeup - clock_.Now();
    const Duration longest = tasks_.closed() ? kEndingSleep : kLongestSleep;
    HandleReady(std::clamp(left, Duration::zero(), longest));
  }
  const bool was_short = clock_.Now() - begin < options_.poll_max;
  short_waits_ = was_short ? std::min(short_waits_ + 1, kShortWaitsMost) : short_waits_ / 2;
}

// When there is something to be done though nothing happens; 0: now.
Instant EventLoop::Impl::NextTime() {
  if (turn_wanted_.load(std::memory_order_seq_cst)) return Instant();
  Instant next = std::min(tasks_.NextTime(), sources_wakeup_);
  std::lock_guard lock(mutex_);
  if (!is_blocking_) next = std::min(next, blocking_.NextTime());
  return next;
}

bool EventLoop::Impl::BlockingIsDue() {
  if (!blocking_.SeemsToHavePosted()) return false;
  std::lock_guard lock(mutex_);
  return !is_blocking_;
}

// True if there is something to do. Who posts something meanwhile need not wake anybody, and the
// processor is offered to other threads between two looks. Timers that are set meanwhile are looked
// at afterwards.
bool EventLoop::Impl::PollUntil(Instant end) {
  while (true) {
    if (tasks_.SeemsToHavePosted() || turn_wanted_ || BlockingIsDue()) return true;
    if (!sources_.empty() && HandleReady(Duration::zero()) > 0) return true;
    if (clock_.Now() >= end) return false;
    sched_yield();
  }
}

// The number of events.
int EventLoop::Impl::HandleReady(Duration timeout) {
  const timespec longest = ToTimespec(timeout);
  epoll_event events[64];
  const int count =
      epoll_pwait2(epoll_fd_, events, static_cast<int>(std::size(events)), &longest, nullptr);
  alarm_.SetSleeping(false);
  for (int i = 0; i < count; ++i) {
    const size_t index = events[i].data.u64 >> kSourceShift;
    if (index == 0 || sources_[index - 1] == nullptr) continue;
    sources_[index - 1]->OnReady(events[i].data.u64, events[i].events);
  }
  return count;
}

void EventLoop::Impl::RunTasks() {
  for (int round = 0; round < kRoundsPerTurn; ++round) {
    tasks_.TakePosted(batch_);
    if (batch_.empty() && round > 0) return;
    for (Executor::Task& task : batch_) tasks_.Run(task);
    batch_.clear();
    // Those that fall due while these run wait their turn behind what was posted.
    const Instant now = clock_.Now();
    while (std::optional<Executor::Task> timer = tasks_.TakeDueTimer(now)) tasks_.Run(*timer);
    // What these had to send does not wait for the tasks that they posted.
    EndTurnOfSources(now);
  }
}

void EventLoop::Impl::EndTurnOfSources(Instant now) {
  turn_wanted_.store(false, std::memory_order_seq_cst);
  sources_wakeup_ = Instant::Infinite();
  for (Source* source : sources_) {
    if (source != nullptr) sources_wakeup_ = std::min(sources_wakeup_, source->EndTurn(now));
  }
}

std::optional<Executor::Task> EventLoop::Impl::TakeBlockingLocked() {
  std::optional<Executor::Task> task = blocking_.TakeFirstPosted();
  if (!task.has_value()) task = blocking_.TakeDueTimer(clock_.Now());
  return task;
}

// While it is free, the spare thread waits for whatever would end the sleep of who had it.
void EventLoop::Impl::FreeRoleLocked() {
  role_free_ = true;
  free_since_ = clock_.Now();
  alarm_.SetSleeping(true);
  epoll_event event{.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = 1}};
  epoll_ctl(spare_epoll_fd_, EPOLL_CTL_MOD, epoll_fd_, &event);
  if (tasks_.HasPosted() || turn_wanted_) alarm_.Wake();
  if (std::exchange(spare_rests_, false)) Signal(spare_event_fd_);
}

void EventLoop::Impl::TakeRoleLocked() {
  role_free_ = false;
  alarm_.SetSleeping(false);
  epoll_event event{.events = 0, .data = {.u64 = 1}};
  epoll_ctl(spare_epoll_fd_, EPOLL_CTL_MOD, epoll_fd_, &event);
}

// One blocking task, or more if meanwhile another thread took the role. True if this one still has
// it.
bool EventLoop::Impl::RunBlocking() {
  if (!second_.joinable() && blocking_.HasPosted()) {
    second_ = std::thread([this] {
      PrepareThread();
      RunSpare();
    });
  }
  std::optional<Executor::Task> task;
  {
    std::lock_guard lock(mutex_);
    if (is_blocking_) return true;  // Whoever does goes on with what is posted.
    task = TakeBlockingLocked();
    if (!task.has_value()) return true;
    is_blocking_ = true;
    FreeRoleLocked();
  }
  while (true) {
    blocking_.Run(*task);
    std::lock_guard lock(mutex_);
    if (role_free_) {
      TakeRoleLocked();
      is_blocking_ = false;
      return true;
    }
    task = TakeBlockingLocked();
    if (task.has_value()) continue;
    is_blocking_ = false;
    alarm_.Wake();  // For the timers of blocking tasks, and the end.
    return false;
  }
}

bool EventLoop::Impl::Ended() {
  if (!tasks_.closed() || tasks_.HasPosted()) return false;
  blocking_.Close();
  std::lock_guard lock(mutex_);
  if (is_blocking_ || blocking_.HasPosted()) return false;
  ended_ = true;
  Signal(spare_event_fd_);
  return true;
}

// What the second thread does, and the first once it lost the role: they are alike.
void EventLoop::Impl::RunSpare() {
  while (AwaitRole()) RunLoop();
}

// Timers fall due while the role is free, too: so the spare thread looks from time to time, but
// rests when nobody gave the role up in such an interval: to be woken costs who gives it up a
// system call, just before it writes.
bool EventLoop::Impl::AwaitRole() {
  const timespec interval = ToTimespec(options_.blocked_max);
  bool is_ready = false;
  bool is_quiet = false;
  Instant seen;
  while (true) {
    bool rests = false;
    {
      std::lock_guard lock(mutex_);
      if (ended_) return false;
      const bool overdue = clock_.Now() - free_since_ >= options_.blocked_max;
      if (role_free_ && (is_ready || overdue)) {
        TakeRoleLocked();
        return true;
      }
      rests = spare_rests_ = is_quiet && !role_free_ && seen == free_since_;
      seen = free_since_;
    }
    epoll_event events[2];
    const int count = epoll_pwait2(spare_epoll_fd_, events, static_cast<int>(std::size(events)),
                                   rests ? nullptr : &interval, nullptr);
    is_quiet = count == 0;
    is_ready = std::any_of(events, events + std::max(count, 0),
                           [](const epoll_event& event) { return event.data.u64 == 1; });
  }
}

EventLoop::EventLoop(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
EventLoop::~EventLoop() = default;

void EventLoop::ShutDown() { impl_->ShutDown(); }
Executor* EventLoop::executor() { return &impl_->tasks(); }
Executor* EventLoop::blocking_executor() { return &impl_->blocking(); }
int EventLoop::epoll_fd() const { return impl_->epoll_fd(); }
uint64_t EventLoop::AddSource(Source* source) { return impl_->AddSource(source); }
void EventLoop::RemoveSource(Source* source) { impl_->RemoveSource(source); }
void EventLoop::Wake() { impl_->WantTurn(); }

}  // namespace dynlib
