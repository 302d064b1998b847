// The operating system's clocks: CLOCK_BOOTTIME, which goes on in suspend as leases need it, and
// CLOCK_REALTIME.
//
// Threads: any.
#ifndef DYNLIB_RUNTIME_POSIX_SYSTEM_CLOCK_H_
#define DYNLIB_RUNTIME_POSIX_SYSTEM_CLOCK_H_

#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"

namespace dynlib {

class SystemClock final : public Clock {
 public:
  Instant Now() const override;
  WallTime WallNow() const override;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_SYSTEM_CLOCK_H_
