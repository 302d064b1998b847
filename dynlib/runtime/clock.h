// The time, as an interface, so that a simulation can supply it.
//
// Threads: any.
#ifndef DYNLIB_RUNTIME_CLOCK_H_
#define DYNLIB_RUNTIME_CLOCK_H_

#include "dynlib/base/time.h"

namespace dynlib {

class Clock {
 public:
  virtual ~Clock() = default;

  // Monotonic: never goes back, includes time in suspend. How far its rate may be off is declared
  // in the options of whoever relies on it (the lease drift bound).
  virtual Instant Now() const = 0;

  // Wall time: may step either way.
  virtual WallTime WallNow() const = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_CLOCK_H_
