// Runs tasks one at a time, in order.
//
//   executor->Post([this] { core_.Step(...); });
//   Executor::TimerId timer = executor->RunAt(clock->Now() + 50ms, [this] { Retry(); });
//   executor->Cancel(timer);
//
// An object that belongs to an executor is only ever touched by tasks of that executor, so it needs
// no lock. Code that may block (file calls) gets executors of its own.
//
// Order: tasks posted by one thread run in the order in which it posted them; Post never runs the
// task inline. Timers run at or after their time, equal times in the order of the calls. Shut-down:
// tasks posted before the executor is shut down all run; timers that are not due are destroyed
// unrun. Tasks posted later are destroyed unrun. Objects cancel their timers, and answer their
// callers, before their executor goes.
//
// Threads: all methods from any thread, from within a task too. Cancel called on the executor
// itself is exact: when it returns true the task does not run.
#ifndef DYNLIB_RUNTIME_EXECUTOR_H_
#define DYNLIB_RUNTIME_EXECUTOR_H_

#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "dynlib/base/time.h"

namespace dynlib {

class Executor {
 public:
  using Task = absl::AnyInvocable<void()>;
  // Never reused by one executor. kNoTimer is none's.
  enum class TimerId : uint64_t {};
  static constexpr TimerId kNoTimer{0};

  virtual ~Executor() = default;

  virtual void Post(Task task) = 0;

  // `when` is in the time of the clock that the executor was made with.
  virtual TimerId RunAt(Instant when, Task task) = 0;

  // True if the timer was still waiting and now never runs. Cancelling kNoTimer, or one that ran,
  // returns false.
  virtual bool Cancel(TimerId timer) = 0;

  // True when called from a task of this executor.
  virtual bool IsCurrent() const = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_EXECUTOR_H_
