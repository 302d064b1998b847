// How fast another node's clock runs, as far as the exchanges with it show: whether leases that
// rest on both clocks can be relied upon (rule R5).
//
//   comparison.Note(sent, theirs, got);   // asked at `sent`, answered at `theirs`, heard at `got`
//   if (comparison.Trusted(drift_ppm, enough)) ...
//
// A lease that A holds by B's grant is sound if B's clock runs at most (1 + drift) / (1 - drift)
// times as fast as A's: A counts it short by the drift, B long by it. What B's clock said in two
// answers gives the time that passed by it; by A's clock it lies between two bounds, which are
// apart by the two round trips. So a clock beyond the bound is *proved* so once the exchanges lie
// far enough apart, and one within it never is.
//
// Leases count only when enough is known: a baseline of kBaselineFactor round trips, which proves
// any clock that is 10 % off against a bound of 1 %, or `enough` time, on links so slow that
// nothing better can be had. The baseline is of the last seconds, so that a clock that changes its
// rate is seen too; but no exchange can show what a clock does until the next one.
//
// Threads: one executor's. Pure.
#ifndef DYNLIB_REPLICATION_CLOCK_COMPARISON_H_
#define DYNLIB_REPLICATION_CLOCK_COMPARISON_H_

#include <cstdint>

#include "dynlib/base/time.h"

namespace dynlib::replication {

class ClockComparison {
 public:
  static constexpr int kBaselineFactor = 16;

  // Exchanges in any order; older ones than noted already are ignored.
  void Note(Instant sent, int64_t theirs_ns, Instant got);
  // The other clock began anew.
  void Reset() { *this = ClockComparison(); }

  // The other clock is not known to be faster than allowed, and would by now be if it were much
  // faster.
  bool Trusted(int64_t drift_ppm, Duration enough) const {
    return Known(enough) && !Beyond(drift_ppm);
  }
  // It is known to be faster than allowed.
  bool Beyond(int64_t drift_ppm) const;

 private:
  struct Exchange {
    Instant sent;
    int64_t theirs_ns = 0;  // 0: none.
    Instant got;
  };
  static constexpr Duration kWindow = std::chrono::seconds(2);

  bool Known(Duration enough) const;
  bool BeyondSince(const Exchange& from, int64_t drift_ppm) const;

  Exchange older_;  // One to two windows old, once there was time for it.
  Exchange newer_;
  Exchange last_;
  bool known_ = false;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_CLOCK_COMPARISON_H_
