#include "dynlib/cache/options.h"

#include <string_view>

#include "dynlib/base/strings.h"

namespace dynlib::cache {
namespace {

constexpr Duration kMillisecond = std::chrono::milliseconds(1);
constexpr Duration kTickMax = std::chrono::seconds(1);
constexpr Duration kTimeMax = std::chrono::minutes(10);

absl::Status CheckCount(std::string_view field, size_t value, size_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("cache.", field, " is ", value, "; allowed: 1 to ", max));
}

absl::Status CheckTime(std::string_view field, Duration value, Duration min) {
  if (value >= min && value <= kTimeMax) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("cache.", field, " is ", ToMicros(value), " us; allowed: ",
                                        ToMicros(min), " to ", ToMicros(kTimeMax)));
}

}  // namespace

absl::Status Validate(const CacheOptions& options) {
  for (absl::Status status : {
           CheckCount("servers", options.servers, 10'000),
           CheckCount("fan_out", options.fan_out, 4),
           CheckCount("max_entries", options.max_entries, 100'000'000),
           CheckCount("max_absent_entries", options.max_absent_entries, 10'000'000),
           CheckCount("max_in_flight", options.max_in_flight, 1'000'000),
           CheckTime("refresh_timeout", options.refresh_timeout, kMillisecond),
           CheckTime("absent_lifetime", options.absent_lifetime, kMillisecond),
           CheckTime("deny_after", options.deny_after, Duration(0)),
       }) {
    if (!status.ok()) return status;
  }
  if (options.fan_out > options.servers) {
    return absl::InvalidArgumentError(
        Cat("cache.fan_out is ", options.fan_out, "; allowed: up to servers, ", options.servers));
  }
  const Duration tick = options.coalesce_tick;
  if (tick != Duration(0) && (tick < kMillisecond || tick > kTickMax)) {
    return absl::InvalidArgumentError(Cat("cache.coalesce_tick is ", ToMicros(tick),
                                          " us; allowed: 0, or ", ToMicros(kMillisecond), " to ",
                                          ToMicros(kTickMax)));
  }
  return absl::OkStatus();
}

}  // namespace dynlib::cache
