#include "dynlib/sim/clock.h"

#include "dynlib/base/check.h"

namespace dynlib::sim {
namespace {

using Wide = __int128;
constexpr int64_t kMillion = 1'000'000;
constexpr int64_t kWallAtWorldStart = 1'700'000'000LL * 1'000'000'000LL;  // 14 November 2023

}  // namespace

SimClock::SimClock(const Scheduler* world, int64_t drift_ppm, Duration since_boot,
                   Duration wall_skew)
    : world_(world),
      drift_ppm_(drift_ppm),
      wall_skew_(wall_skew),
      base_world_(world->Now()),
      base_local_(Instant::FromNanos(since_boot.count())) {
  DYNLIB_CHECK(drift_ppm > -kMillion);
}

Instant SimClock::AtWorld(Instant world) const {
  const Wide passed = (world - base_world_).count();
  return base_local_ + Duration(static_cast<int64_t>(passed * (kMillion + drift_ppm_) / kMillion));
}

WallTime SimClock::WallNow() const {
  return WallTime::FromNanos(kWallAtWorldStart) + Duration(world_->Now().nanos()) + wall_skew_;
}

Instant SimClock::ToWorld(Instant local) const {
  if (local == Instant::Infinite()) return local;
  if (local <= Now()) return world_->Now();
  const Wide passed = (local - base_local_).count();
  const Wide estimate = passed * kMillion / (kMillion + drift_ppm_);
  if (estimate > INT64_MAX / 2) return Instant::Infinite();
  Instant world = base_world_ + Duration(static_cast<int64_t>(estimate));
  while (AtWorld(world) < local) world = world + Duration(1);
  return world;
}

void SimClock::SetDrift(int64_t drift_ppm) {
  DYNLIB_CHECK(drift_ppm > -kMillion);
  base_local_ = Now();
  base_world_ = world_->Now();
  drift_ppm_ = drift_ppm;
}

void SimClock::Reboot(Duration since_boot) {
  base_local_ = Instant::FromNanos(since_boot.count());
  base_world_ = world_->Now();
}

}  // namespace dynlib::sim
