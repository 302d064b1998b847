// Stackful fibers: functions with a stack of their own that can stop in the middle and go on later,
// all on one OS thread. What lets straight storage code wait in a simulation (rule S1).
//
//   FiberPool pool;
//   Fiber* fiber = pool.New([&] { ...; pool.Yield(); ... });
//   pool.Resume(fiber);   // false: runs to the Yield
//   pool.Resume(fiber);   // true: runs to the end
//
// When the function has returned the fiber is gone: its stack, 256 KiB (1 MiB under a sanitizer)
// above a guard page, goes back to the pool. An overflow hits the guard page and ends the process.
//
// Threads: one pool belongs to one thread. Fibers do not start or resume others. The address and
// thread sanitizers are told of each switch.
#ifndef DYNLIB_SIM_FIBER_H_
#define DYNLIB_SIM_FIBER_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace dynlib::sim {

class Fiber;

class FiberPool {
 public:
  FiberPool();
  // No fiber may be in the middle of its function (DYNLIB_CHECK).
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // A fiber that is to run `function`; it does at the first Resume.
  Fiber* New(absl::AnyInvocable<void()> function);
  // Runs the fiber until it yields (false) or its function returns (true; the fiber is gone).
  bool Resume(Fiber* fiber);
  // Called on a fiber: goes back to whoever resumed it.
  void Yield();

  // The fiber that runs now; null outside of one.
  Fiber* current() const { return current_; }
  // Fibers that have not returned, and stacks that exist.
  size_t live() const { return all_.size() - idle_.size(); }
  size_t stacks() const { return all_.size(); }

 private:
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> idle_;
  Fiber* current_ = nullptr;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_FIBER_H_
