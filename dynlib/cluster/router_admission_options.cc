#include "dynlib/cluster/router_admission_options.h"

#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

absl::Status CheckRange(const char* field, double value, double min, double max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("admission.", field, " is ", value, "; allowed: ", min, " to ", max));
}

absl::Status CheckTime(const char* field, Duration value, Duration max) {
  if (value >= std::chrono::milliseconds(1) && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("admission.", field, " is ", ToMicros(value), " us; allowed: 1000 to ", ToMicros(max)));
}

}  // namespace

absl::Status Validate(const RouterAdmissionOptions& options) {
  for (absl::Status status : {
           CheckRange("safe_share", options.safe_share, 0.001, 1),
           CheckRange("saved_seconds", options.saved_seconds, 0.01, 10),
           CheckRange("request_units_max", options.request_units_max, 1, 10'000),
           CheckTime("poll_interval", options.poll_interval, std::chrono::seconds(1)),
           CheckTime("reply_timeout", options.reply_timeout, std::chrono::seconds(10)),
           CheckRange("tables_max", static_cast<double>(options.tables_max), 1, 100'000),
       }) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
