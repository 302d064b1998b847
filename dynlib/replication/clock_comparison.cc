#include "dynlib/replication/clock_comparison.h"

namespace dynlib::replication {

void ClockComparison::Note(Instant sent, int64_t theirs_ns, Instant got) {
  if (theirs_ns <= last_.theirs_ns || sent < last_.sent) return;
  last_ = {.sent = sent, .theirs_ns = theirs_ns, .got = got};
  if (older_.theirs_ns == 0) older_ = newer_ = last_;
  const Duration uncertain = (older_.got - older_.sent) + (got - sent);
  known_ = known_ || sent - older_.got >= kBaselineFactor * uncertain;
  if (got - newer_.got < kWindow) return;
  older_ = newer_;
  newer_ = last_;
}

bool ClockComparison::Known(Duration enough) const {
  return known_ || last_.got - older_.got >= enough;
}

bool ClockComparison::Beyond(int64_t drift_ppm) const {
  return BeyondSince(older_, drift_ppm) || BeyondSince(newer_, drift_ppm);
}

bool ClockComparison::BeyondSince(const Exchange& from, int64_t drift_ppm) const {
  const auto theirs = static_cast<double>(last_.theirs_ns - from.theirs_ns);
  const auto ours_at_most = static_cast<double>((last_.got - from.sent).count());
  const auto drift = static_cast<double>(drift_ppm) / 1e6;
  return theirs * (1 - drift) > ours_at_most * (1 + drift);
}

}  // namespace dynlib::replication
