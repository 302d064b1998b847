#include "dynlib/scrub/options.h"

#include <string_view>

#include "dynlib/base/strings.h"

namespace dynlib::scrub {
namespace {

absl::Status CheckCount(std::string_view field, uint64_t value, uint64_t min, uint64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("scrub.", field, " is ", value, "; allowed: ", min, " to ", max));
}

absl::Status CheckTime(std::string_view field, Duration value) {
  constexpr Duration kMin = std::chrono::milliseconds(1);
  constexpr Duration kMax = std::chrono::minutes(10);
  if (value >= kMin && value <= kMax) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("scrub.", field, " is ", ToMicros(value),
                                        " us; allowed: ", ToMicros(kMin), " to ", ToMicros(kMax)));
}

}  // namespace

absl::Status Validate(const ScrubOptions& options) {
  for (absl::Status status : {
           CheckCount("step_bytes", options.step_bytes, 1, 64 << 20),
           CheckCount("fan_out", options.fan_out, 2, 1'024),
           CheckCount("leaf_items", options.leaf_items, 1, 10'000),
           CheckCount("max_in_flight", options.max_in_flight, 1, 1'000),
           CheckCount("bytes_per_second", options.bytes_per_second, 1'024, 100'000'000'000),
           CheckTime("request_timeout", options.request_timeout),
           CheckTime("retry_delay", options.retry_delay),
           CheckCount("attempts", options.attempts, 1, 100),
           CheckCount("max_findings", options.max_findings, 1, 1'000'000),
       }) {
    if (!status.ok()) return status;
  }
  return CheckCount("max_in_flight_bytes", options.max_in_flight_bytes, 2 * options.step_bytes,
                    1 << 30);
}

}  // namespace dynlib::scrub
