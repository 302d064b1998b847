#include "dynlib/runtime/posix/system_clock.h"

#include <time.h>

#include "dynlib/base/check.h"

namespace dynlib {
namespace {

int64_t ReadNanos(clockid_t id) {
  timespec now;
  DYNLIB_CHECK(clock_gettime(id, &now) == 0);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Instant SystemClock::Now() const { return Instant::FromNanos(ReadNanos(CLOCK_BOOTTIME)); }

WallTime SystemClock::WallNow() const { return WallTime::FromNanos(ReadNanos(CLOCK_REALTIME)); }

}  // namespace dynlib
