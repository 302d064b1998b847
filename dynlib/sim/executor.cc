#include "dynlib/sim/executor.h"

#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::sim {

Process::Process(NodeId node, Engine* engine, const SimClock* clock)
    : node_(node), engine_(engine), clock_(clock) {}

Process::~Process() = default;

SimExecutor* Process::NewExecutor(std::string_view name, bool blocking) {
  executors_.push_back(std::make_unique<SimExecutor>(this, name, executors_.size() + 1, blocking));
  return executors_.back().get();
}

void Process::PauseUntil(Instant when) {
  paused_until_ = when;
  engine_->At(when, node_, EventKind::kNode, 0, [this] {
    if (!paused()) EndPause();
  });
}

void Process::EndPause() {
  paused_until_ = Instant();
  for (const auto& executor : executors_) executor->EndPause();
}

void Process::Kill() {
  DYNLIB_CHECK(engine_->fibers().current() == nullptr);
  Runner* const caller = engine_->current();
  DYNLIB_CHECK(caller == nullptr || caller->process() != this);
  alive_ = false;
  for (const auto& executor : executors_) executor->DrainFiber();
  engine_->SetCurrent(caller);
  for (const auto& executor : executors_) executor->DropAll();
}

SimExecutor::SimExecutor(Process* process, std::string_view name, uint64_t number, bool blocking)
    : process_(process),
      engine_(process->engine()),
      name_(name),
      number_(number),
      blocking_(blocking) {}

void SimExecutor::Post(Task task) {
  if (!accepts()) return;
  queue_.push_back({std::move(task)});
  Schedule();
}

Executor::TimerId SimExecutor::RunAt(Instant when, Task task) {
  const TimerId id{++last_timer_};
  if (!accepts()) return id;
  timers_.emplace(id, Timer{when, std::move(task)});
  const Instant at = process_->clock()->ToWorld(when);
  if (at != Instant::Infinite()) {
    engine_->At(at, process_->node(), EventKind::kTimer, number_, [this, id] { OnTimer(id); });
  }
  return id;
}

bool SimExecutor::Cancel(TimerId timer) {
  auto it = timers_.find(timer);
  if (it == timers_.end()) return false;
  Timer cancelled = std::move(it->second);  // destroyed last: it may call back
  timers_.erase(it);
  return true;
}

bool SimExecutor::IsCurrent() const { return engine_->current() == this; }

void SimExecutor::ShutDown() {
  shut_down_ = true;
  std::vector<Task> dropped;
  for (auto it = timers_.begin(); it != timers_.end();) {
    if (it->second.due) {
      ++it;
      continue;
    }
    dropped.push_back(std::move(it->second.task));
    it = timers_.erase(it);
  }
}

void SimExecutor::Schedule() {
  if (scheduled_ || fiber_ != nullptr || queue_.empty()) return;
  scheduled_ = true;
  const Duration cost = std::chrono::nanoseconds(engine_->random().Between(1'000, 5'000));
  engine_->After(cost, process_->node(), EventKind::kTask, number_, [this] { RunNext(); });
}

void SimExecutor::OnTimer(TimerId id) {
  auto it = timers_.find(id);
  if (it == timers_.end() || !process_->alive()) return;
  const Instant at = process_->clock()->ToWorld(it->second.when);
  if (at > engine_->Now()) {  // the clock's rate has changed
    engine_->At(at, process_->node(), EventKind::kTimer, number_, [this, id] { OnTimer(id); });
    return;
  }
  it->second.due = true;
  queue_.push_back({nullptr, id});
  Schedule();
}

void SimExecutor::RunNext() {
  scheduled_ = false;
  if (!process_->alive() || queue_.empty()) return;
  if (process_->paused()) {
    scheduled_ = task_paused_ = true;
    return;
  }
  Item item = std::move(queue_.front());
  queue_.pop_front();
  if (item.timer != kNoTimer) {
    auto it = timers_.find(item.timer);
    if (it != timers_.end()) {
      item.task = std::move(it->second.task);
      timers_.erase(it);
    }
  }
  if (item.task != nullptr) Run(std::move(item.task));
  Schedule();
}

void SimExecutor::Run(Task task) {
  if (blocking_) {
    // The task is destroyed on the fiber too: it may close files.
    fiber_ = engine_->fibers().New(std::move(task));
    ResumeFiber();
    return;
  }
  engine_->SetCurrent(this);
  task();
  task = nullptr;
  engine_->SetCurrent(nullptr);
}

void SimExecutor::ResumeFiber() {
  engine_->SetCurrent(this);
  if (engine_->fibers().Resume(fiber_)) fiber_ = nullptr;
  engine_->SetCurrent(nullptr);
}

bool SimExecutor::DelayFiber(Duration delay) {
  if (!process_->alive()) return false;
  engine_->After(delay, process_->node(), EventKind::kWake, number_, [this] { OnWake(); });
  engine_->fibers().Yield();
  return process_->alive();
}

void SimExecutor::OnWake() {
  // If the process has ended its fibers have been taken to their end, or will be by Kill.
  if (!process_->alive()) return;
  if (process_->paused()) {
    wake_paused_ = true;
    return;
  }
  ResumeFiber();
  Schedule();
}

void SimExecutor::EndPause() {
  if (task_paused_) {
    engine_->After(Duration::zero(), process_->node(), EventKind::kTask, number_,
                   [this] { RunNext(); });
  }
  if (wake_paused_) {
    engine_->After(Duration::zero(), process_->node(), EventKind::kWake, number_,
                   [this] { OnWake(); });
  }
  task_paused_ = wake_paused_ = false;
}

void SimExecutor::DrainFiber() {
  // Each wait of a dead process's fiber ends at once, so one Resume takes it to its end.
  if (fiber_ != nullptr) ResumeFiber();
  DYNLIB_CHECK(fiber_ == nullptr);
}

void SimExecutor::DropAll() {
  // What the tasks own may call back while it is destroyed; it finds nothing.
  std::deque<Item> tasks = std::move(queue_);
  queue_.clear();
  std::map<TimerId, Timer> timers = std::move(timers_);
  timers_.clear();
}

}  // namespace dynlib::sim
