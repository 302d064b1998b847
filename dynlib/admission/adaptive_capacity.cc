#include "dynlib/admission/adaptive_capacity.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr double kPartitionsMax = 1'000'000;

absl::Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", low, " to ", high));
}

double Clean(double value) { return std::isfinite(value) && value > 0 ? value : 0; }

}  // namespace

absl::StatusOr<AdaptiveCapacity> AdaptiveCapacity::Create(const Options& options,
                                                          size_t partitions) {
  constexpr double kLow = BucketRate::kUnitsPerSecondMin;
  constexpr double kHigh = BucketRate::kUnitsPerSecondMax;
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("table_units_per_second", options.table_units_per_second, kLow, kHigh));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("partition_units_per_second", options.partition_units_per_second, kLow, kHigh));
  DYNLIB_RETURN_IF_ERROR(CheckRange("gain", options.gain, 1e-6, 10));
  DYNLIB_RETURN_IF_ERROR(CheckRange("decay", options.decay, 1e-6, 1));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("partitions", static_cast<double>(partitions), 1, kPartitionsMax));
  return AdaptiveCapacity(options, partitions);
}

AdaptiveCapacity::AdaptiveCapacity(const Options& options, size_t partitions)
    : options_(options),
      share_(std::min(options.table_units_per_second / static_cast<double>(partitions),
                      options.partition_units_per_second)),
      capacities_(partitions, share_) {}

const std::vector<double>& AdaptiveCapacity::Step(std::span<const Use> uses) {
  DYNLIB_CHECK(uses.size() == capacities_.size());
  double admitted = 0;
  double wanted = 0;  // of boosts
  for (const Use& use : uses) {
    admitted += Clean(use.admitted_per_second);
    wanted += options_.gain * Clean(use.refused_per_second);
  }
  // All boosts together get no more than what the table leaves unused.
  const double unused = std::max(0.0, options_.table_units_per_second - admitted);
  const double granted = wanted > unused ? unused / wanted : 1;
  const bool over = admitted > options_.table_units_per_second;
  for (size_t i = 0; i < uses.size(); ++i) {
    double& capacity = capacities_[i];
    const double boost = granted * options_.gain * Clean(uses[i].refused_per_second);
    const double used = Clean(uses[i].admitted_per_second);
    // A table over its limit takes back from all; within it, only what is not used.
    const double needed = over ? share_ : std::clamp(used, share_, std::max(share_, capacity));
    if (boost == 0) capacity += options_.decay * (needed - capacity);
    capacity = std::clamp(capacity + boost, share_, options_.partition_units_per_second);
  }
  return capacities_;
}

}  // namespace dynlib::admission
