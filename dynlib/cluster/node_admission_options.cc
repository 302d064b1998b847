#include "dynlib/cluster/node_admission_options.h"

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

absl::Status CheckUnits(const char* field, double value) {
  constexpr double kMin = 0.0001;
  constexpr double kMax = 400e6;
  if (value >= kMin && value <= kMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("admission.", field, " is ", value, "; allowed: 0.0001 to 400,000,000"));
}

absl::Status CheckTime(const char* field, Duration value, Duration min, Duration max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("admission.", field, " is ", ToMicros(value),
                                        " us; allowed: ", ToMicros(min), " to ", ToMicros(max)));
}

}  // namespace

absl::Status Validate(const NodeAdmissionOptions& options) {
  DYNLIB_RETURN_IF_ERROR(CheckUnits("partition_read_units", options.partition_read_units));
  DYNLIB_RETURN_IF_ERROR(CheckUnits("partition_write_units", options.partition_write_units));
  DYNLIB_RETURN_IF_ERROR(CheckUnits("node_read_units", options.node_read_units));
  DYNLIB_RETURN_IF_ERROR(CheckUnits("node_write_units", options.node_write_units));
  if (!(options.burst_seconds >= 1 && options.burst_seconds <= 3600)) {
    return absl::InvalidArgumentError(
        Cat("admission.burst_seconds is ", options.burst_seconds, "; allowed: 1 to 3,600"));
  }
  DYNLIB_RETURN_IF_ERROR(CheckTime("peers_interval", options.peers_interval,
                                   std::chrono::milliseconds(100), std::chrono::minutes(1)));
  DYNLIB_RETURN_IF_ERROR(
      CheckTime("hot_for", options.hot_for, std::chrono::seconds(1), std::chrono::minutes(10)));
  if (absl::Status heat = admission::Validate(options.heat); !heat.ok())
    return absl::InvalidArgumentError(Cat("admission.heat: ", ToStd(heat.message())));
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
