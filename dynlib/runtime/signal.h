// Something that happens once, and that threads wait for.
//
//   Signal done;
//   worker.Post([&] { ...; done.Set(); });
//   done.Wait();
//
// As std::atomic::wait, but a thread that waits sleeps at once: the standard library's yields the
// processor four times before, which with 64 threads waiting for one sync took 40 % of two cores.
//
// Blocking, and so for real threads alone: nothing that runs in the simulator may wait. What
// happened before Set is seen after Wait.
//
// Threads: any. A Signal may be destroyed when Wait has returned to all who called it, even while
// Set is on its way out.
#ifndef DYNLIB_RUNTIME_SIGNAL_H_
#define DYNLIB_RUNTIME_SIGNAL_H_

#include <atomic>
#include <cstdint>

namespace dynlib {

class Signal {
 public:
  // Once. Wakes all who wait.
  void Set();
  void Wait() const {
    if (state_.load(std::memory_order_acquire) != kSet) WaitUntilSet();
  }

 private:
  static constexpr uint32_t kClear = 0;
  static constexpr uint32_t kAwaited = 1;
  static constexpr uint32_t kSet = 2;

  void WaitUntilSet() const;

  mutable std::atomic<uint32_t> state_{kClear};
};

// Sleeps while `word` is `value`, or less: look again. Wake with WakeAll.
void WaitOn(const std::atomic<uint32_t>& word, uint32_t value);
void WakeAll(const std::atomic<uint32_t>& word);

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_SIGNAL_H_
