#include "dynlib/admission/on_demand.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/status/status.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr Duration kDay = std::chrono::hours(24);

double Seconds(Duration duration) { return static_cast<double>(duration.count()) / 1e9; }

absl::Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", low, " to ", high));
}

absl::Status Validate(const OnDemandCapacity::Options& o) {
  constexpr double kLow = BucketRate::kUnitsPerSecondMin;
  constexpr double kHigh = BucketRate::kUnitsPerSecondMax;
  for (const auto& [field, value] :
       {std::pair("initial_peak_units_per_second", o.initial_peak_units_per_second),
        std::pair("units_per_second_max", o.units_per_second_max),
        std::pair("partition_units_per_second", o.partition_units_per_second)}) {
    DYNLIB_RETURN_IF_ERROR(CheckRange(field, value, kLow, kHigh));
  }
  DYNLIB_RETURN_IF_ERROR(CheckRange("headroom", o.headroom, 1, 10));
  DYNLIB_RETURN_IF_ERROR(CheckRange("peak_window (s)", Seconds(o.peak_window), 1, Seconds(kDay)));
  return CheckRange("peak_kept (s)", Seconds(o.peak_kept), Seconds(o.peak_window),
                    3650 * Seconds(kDay));
}

}  // namespace

absl::StatusOr<OnDemandCapacity> OnDemandCapacity::Create(const Options& options, Instant now) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  return OnDemandCapacity(options, now);
}

OnDemandCapacity::OnDemandCapacity(const Options& options, Instant now)
    : options_(options),
      part_(options.peak_window / static_cast<int64_t>(kParts)),
      // The present epoch and the full ones before it cover peak_kept.
      epoch_(std::max(options.peak_kept / static_cast<int64_t>(kEpochs - 1), Duration(1))),
      part_start_(now),
      epoch_start_(now) {}

void OnDemandCapacity::Advance(Instant now) {
  for (size_t i = 0; i < kParts && now >= part_start_ + part_; ++i) {
    part_start_ = part_start_ + part_;
    part_at_ = (part_at_ + 1) % kParts;
    parts_[part_at_] = 0;
  }
  if (now >= part_start_ + part_) part_start_ = now;  // All of them are empty.
  for (size_t i = 0; i < kEpochs && now >= epoch_start_ + epoch_; ++i) {
    epoch_start_ = epoch_start_ + epoch_;
    epoch_at_ = (epoch_at_ + 1) % kEpochs;
    peaks_[epoch_at_] = 0;
  }
  if (now >= epoch_start_ + epoch_) epoch_start_ = now;
}

void OnDemandCapacity::Observe(int64_t units, Instant now) {
  DYNLIB_CHECK(units >= 0);
  Advance(now);
  parts_[part_at_] += static_cast<double>(units);
  const double sum = std::accumulate(parts_.begin(), parts_.end(), 0.0);
  peaks_[epoch_at_] = std::max(peaks_[epoch_at_], sum / Seconds(options_.peak_window));
}

double OnDemandCapacity::peak_units_per_second() const {
  return std::max(options_.initial_peak_units_per_second,
                  *std::max_element(peaks_.begin(), peaks_.end()));
}

double OnDemandCapacity::Limit() const {
  return std::min(options_.headroom * peak_units_per_second(), options_.units_per_second_max);
}

double OnDemandCapacity::UnitsPerSecond(size_t partitions) const {
  DYNLIB_CHECK(partitions >= 1);
  return std::min(Limit(), static_cast<double>(partitions) * options_.partition_units_per_second);
}

size_t OnDemandCapacity::PartitionsWanted() const {
  return static_cast<size_t>(
      std::max(1.0, std::ceil(Limit() / options_.partition_units_per_second)));
}

}  // namespace dynlib::admission
