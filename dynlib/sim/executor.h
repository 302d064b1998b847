// The executors of a simulated node, and the process that they belong to.
//
// A task is one event, and takes 1 to 5 us of virtual time, at random, so that executors interleave
// differently from seed to seed. On a blocking executor each task runs on a fiber: file calls take
// virtual time there, while other executors, of the same node too, go on (rule S1).
//
// A Process is one incarnation of a node. When it is killed, pending and later file calls of its
// fibers fail and the fibers run to their end; then tasks and timers are destroyed unrun, as are
// those posted later.
//
// Threads: the world's.
#ifndef DYNLIB_SIM_EXECUTOR_H_
#define DYNLIB_SIM_EXECUTOR_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/sim/clock.h"
#include "dynlib/sim/engine.h"
#include "dynlib/sim/fiber.h"

namespace dynlib::sim {

class SimExecutor;

class Process {
 public:
  Process(NodeId node, Engine* engine, const SimClock* clock);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  NodeId node() const { return node_; }
  Engine* engine() const { return engine_; }
  const SimClock* clock() const { return clock_; }
  bool alive() const { return alive_; }
  bool paused() const { return paused_until_ > engine_->Now(); }

  SimExecutor* NewExecutor(std::string_view name, bool blocking);
  // Its executors run nothing before then.
  void PauseUntil(Instant when);
  void EndPause();

  // From now on nothing of it has an effect; Kill must follow.
  void Doom() { alive_ = false; }
  // Not from one of its own tasks, nor from any fiber.
  void Kill();

 private:
  const NodeId node_;
  Engine* const engine_;
  const SimClock* const clock_;
  bool alive_ = true;
  Instant paused_until_;
  std::vector<std::unique_ptr<SimExecutor>> executors_;
};

class SimExecutor final : public Executor, public Runner {
 public:
  SimExecutor(Process* process, std::string_view name, uint64_t number, bool blocking);

  void Post(Task task) override;
  TimerId RunAt(Instant when, Task task) override;
  bool Cancel(TimerId timer) override;
  // Also true within World::RunAs.
  bool IsCurrent() const override;

  // What was posted before still runs, as the world goes on; timers that are not due, and all that
  // comes later, are destroyed.
  void ShutDown();
  // Nothing posted, nothing running. Timers may be waiting.
  bool idle() const { return queue_.empty() && fiber_ == nullptr; }

  Process* process() const override { return process_; }
  const std::string& name() const { return name_; }

  bool DelayFiber(Duration delay) override;
  // For Process.
  void EndPause();
  void DrainFiber();
  void DropAll();

 private:
  struct Timer {
    Instant when;
    Task task;
    bool due = false;
  };
  // A task, or a timer that is due.
  struct Item {
    Task task;
    TimerId timer = kNoTimer;
  };

  bool accepts() const { return process_->alive() && !shut_down_; }
  void Schedule();
  void RunNext();
  void OnTimer(TimerId timer);
  void Run(Task task);
  void ResumeFiber();
  void OnWake();

  Process* const process_;
  Engine* const engine_;
  const std::string name_;
  const uint64_t number_;
  const bool blocking_;
  bool shut_down_ = false;
  bool scheduled_ = false;
  std::deque<Item> queue_;
  std::map<TimerId, Timer> timers_;
  uint64_t last_timer_ = 0;
  Fiber* fiber_ = nullptr;
  // What was due in a pause, and waits for its end.
  bool task_paused_ = false;
  bool wake_paused_ = false;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_EXECUTOR_H_
