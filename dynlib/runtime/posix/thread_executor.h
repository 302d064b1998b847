// An Executor that is one thread.
//
//   SystemClock clock;
//   ThreadExecutor executor({.name = "log"});
//   executor.Post([] { ... });
//
// Post takes one mutex for the time of a push, and wakes the thread only if it sleeps; the thread
// takes all that is waiting at once. Tasks that were posted run before timers that fell due
// meanwhile.
//
// Timers are in the time of SystemClock. One that falls due while the machine is suspended runs
// within a second after it resumes.
//
// The queue is not bounded: whoever posts bounds what it has outstanding.
#ifndef DYNLIB_RUNTIME_POSIX_THREAD_EXECUTOR_H_
#define DYNLIB_RUNTIME_POSIX_THREAD_EXECUTOR_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/posix/system_clock.h"

namespace dynlib {

class ThreadExecutor final : public Executor {
 public:
  struct Options {
    std::string name = "dynlib";  // the thread's, as debuggers and top show it: 15 bytes of it
  };

  ThreadExecutor() : ThreadExecutor(Options{}) {}
  explicit ThreadExecutor(Options options);
  // Shuts down. Not from a task of this executor.
  ~ThreadExecutor() override;

  // Runs what was posted before, then ends the thread; what comes later is destroyed unrun.
  // Repeats do nothing. Not from a task of this executor.
  void ShutDown();

  void Post(Task task) override;
  TimerId RunAt(Instant when, Task task) override;
  bool Cancel(TimerId timer) override;
  bool IsCurrent() const override;

 private:
  using TimerKey = std::pair<Instant, uint64_t>;

  void Run();
  // Waits until there is something to do and takes the posted tasks. False at the end.
  bool TakeBatch(std::vector<Task>& batch);
  void WaitForWork(std::unique_lock<std::mutex>& lock);
  void RunDueTimers();
  void Wake(std::unique_lock<std::mutex>& lock);

  SystemClock clock_;
  std::mutex mutex_;
  const std::shared_ptr<std::condition_variable> wake_ =
      std::make_shared<std::condition_variable>();
  // Guarded by mutex_.
  std::vector<Task> posted_;
  std::map<TimerKey, Task> timers_;
  std::unordered_map<uint64_t, Instant> timer_times_;
  uint64_t next_timer_ = 1;
  bool sleeping_ = false;
  bool closed_ = false;  // nothing more is taken

  std::thread thread_;  // last: it uses the rest
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_THREAD_EXECUTOR_H_
