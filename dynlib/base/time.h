// Points in time. Monotonic and wall time are different types, so that one cannot be compared with
// the other.
//
//   Instant deadline = clock.Now() + std::chrono::milliseconds(50);
//   if (clock.Now() >= deadline) ...
//
// An Instant is meaningful on the node that read it and until that node restarts; it includes time
// spent in suspend (CLOCK_BOOTTIME), since leases depend on it. A WallTime is for people and for
// records; nothing orders by it.
#ifndef DYNLIB_BASE_TIME_H_
#define DYNLIB_BASE_TIME_H_

#include <chrono>
#include <compare>
#include <cstdint>

namespace dynlib {

using Duration = std::chrono::nanoseconds;

constexpr int64_t ToMicros(Duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}

namespace internal {

template <typename Tag>
class TimePoint {
 public:
  // Before every time that a clock returns.
  constexpr TimePoint() = default;
  static constexpr TimePoint FromNanos(int64_t nanos) { return TimePoint(nanos); }
  // Later than every time that a clock returns.
  static constexpr TimePoint Infinite() { return TimePoint(INT64_MAX); }

  constexpr int64_t nanos() const { return nanos_; }

  // Sums saturate at Infinite().
  constexpr friend TimePoint operator+(TimePoint t, Duration d) {
    if (t.nanos_ == INT64_MAX || (d.count() > 0 && t.nanos_ > INT64_MAX - d.count())) {
      return Infinite();
    }
    return TimePoint(t.nanos_ + d.count());
  }
  constexpr friend TimePoint operator-(TimePoint t, Duration d) { return t + -d; }
  constexpr friend Duration operator-(TimePoint a, TimePoint b) {
    return Duration(a.nanos_ - b.nanos_);
  }
  constexpr friend auto operator<=>(TimePoint, TimePoint) = default;

 private:
  explicit constexpr TimePoint(int64_t nanos) : nanos_(nanos) {}
  int64_t nanos_ = 0;
};

}  // namespace internal

using Instant = internal::TimePoint<struct MonotonicTag>;
using WallTime = internal::TimePoint<struct WallTag>;  // nanos() counts from the Unix epoch, UTC.

}  // namespace dynlib

#endif  // DYNLIB_BASE_TIME_H_
