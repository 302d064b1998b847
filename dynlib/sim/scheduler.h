// What simulated devices need of the world that they are in: virtual time, and a way to let it
// pass.
//
// A device without a Scheduler stands alone: its calls take no time.
//
// Threads: the world's.
#ifndef DYNLIB_SIM_SCHEDULER_H_
#define DYNLIB_SIM_SCHEDULER_H_

#include <string_view>

#include "dynlib/base/time.h"

namespace dynlib::sim {

class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // Virtual time since the world began; no node's own clock.
  virtual Instant Now() const = 0;

  // Lets `delay` of virtual time pass for the calling fiber, while everything else goes on (rule
  // S1). Returns at once when called outside a fiber. False if the fiber's node went down meanwhile
  // or was down already: the caller gives up with kAborted.
  virtual bool Delay(Duration delay) = 0;

  // Counts one injected fault, by its name.
  virtual void CountFault(std::string_view name) = 0;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_SCHEDULER_H_
