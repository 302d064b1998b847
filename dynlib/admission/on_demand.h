// Capacity that follows traffic: the limit of a table whose owner states none (DynamoDB's on-demand
// tables). It admits at once up to twice the previous peak; as traffic reaches a new peak and stays
// there, the limit moves up with it. And it says how many partitions that limit needs, so that they
// are split before the traffic comes.
//
//   auto capacity = OnDemandCapacity::Create({}, now);
//   // every second or so, with what all routers together admitted:
//   capacity->Observe(units, now);
//   limit = capacity->UnitsPerSecond(partitions);   // to global admission control
//   if (partitions < capacity->PartitionsWanted()) split the hottest (heat.h)
//
// A peak is the most that was admitted in any `peak_window` of the last `peak_kept`; a shorter
// spike counts by what it makes of a window. So from a peak P, traffic that goes on rising is
// admitted up to 2 P at once, then up to twice as much again after each window, if the partitions
// are there.
//
// A pure core; deterministic. Threads: one at a time. A time before the latest seen counts as that.
// Memory: about 1.5 KB.
#ifndef DYNLIB_ADMISSION_ON_DEMAND_H_
#define DYNLIB_ADMISSION_ON_DEMAND_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

class OnDemandCapacity {
 public:
  struct Options {
    // The peak that a new table is taken to have had: [0.0001, 1e9].
    double initial_peak_units_per_second = 2000;
    // Of the previous peak, what is admitted at once: [1, 10].
    double headroom = 2;
    // The owner's bound on cost: [0.0001, 1e9].
    double units_per_second_max = 1e9;
    // What one partition can do: [0.0001, 1e9].
    double partition_units_per_second = 1000;
    // Over which time a peak is averaged: [1 s, 1 day].
    Duration peak_window = std::chrono::minutes(1);
    // How long a peak is remembered: [peak_window, 10 years].
    Duration peak_kept = std::chrono::hours(30 * 24);
  };

  // kInvalidArgument naming field, value and range.
  static absl::StatusOr<OnDemandCapacity> Create(const Options& options, Instant now);

  // `units` were admitted since the last call, >= 0.
  void Observe(int64_t units, Instant now);

  // The highest average over a window that is remembered, no less than the initial one.
  double peak_units_per_second() const;
  // What to admit now, given the partitions that there are (>= 1).
  double UnitsPerSecond(size_t partitions) const;
  // So many that none must do more than it can when the limit is reached.
  size_t PartitionsWanted() const;

 private:
  // A window is watched in so many parts, and its end moves on by one of them.
  static constexpr size_t kParts = 12;
  static constexpr size_t kEpochs = 31;

  OnDemandCapacity(const Options& options, Instant now);
  void Advance(Instant now);
  double Limit() const;

  Options options_;
  Duration part_;
  Duration epoch_;
  Instant part_start_;
  Instant epoch_start_;
  std::array<double, kParts> parts_{};  // units; the present one is parts_[part_at_]
  size_t part_at_ = 0;
  std::array<double, kEpochs> peaks_{};  // of each epoch; the present one is peaks_[epoch_at_]
  size_t epoch_at_ = 0;
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_ON_DEMAND_H_
