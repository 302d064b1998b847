// A simulated node's clock: virtual time seen at a slightly wrong rate, from a boot of its own.
//
// Instants of two nodes, or of one node before and after its power failed, have nothing to do with
// each other. The wall clock is off by a constant skew.
//
// Threads: the world's.
#ifndef DYNLIB_SIM_CLOCK_H_
#define DYNLIB_SIM_CLOCK_H_

#include <cstdint>

#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/sim/scheduler.h"

namespace dynlib::sim {

class SimClock final : public Clock {
 public:
  // At the time of the call the monotonic clock says `since_boot`.
  SimClock(const Scheduler* world, int64_t drift_ppm, Duration since_boot, Duration wall_skew);

  Instant Now() const override { return AtWorld(world_->Now()); }
  WallTime WallNow() const override;

  // The earliest virtual time at which Now() is at least `local`.
  Instant ToWorld(Instant local) const;

  int64_t drift_ppm() const { return drift_ppm_; }
  void SetDrift(int64_t drift_ppm);
  // The machine starts anew.
  void Reboot(Duration since_boot);

 private:
  Instant AtWorld(Instant world) const;

  const Scheduler* const world_;
  int64_t drift_ppm_;
  const Duration wall_skew_;
  Instant base_world_;
  Instant base_local_;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_CLOCK_H_
