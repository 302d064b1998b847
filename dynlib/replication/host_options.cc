#include "dynlib/replication/host_options.h"

#include <string_view>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::replication {

absl::Status Validate(const HostOptions& options) {
  if (absl::Status status = Validate(options.group); !status.ok()) return status;
  if (absl::Status status = Validate(options.liveness); !status.ok()) return status;
  if (options.waiting_proposals_max < 1)
    return absl::InvalidArgumentError("host.waiting_proposals_max is 0; allowed: at least 1");
  if (options.waiting_reads_max < 1)
    return absl::InvalidArgumentError("host.waiting_reads_max is 0; allowed: at least 1");
  if (options.reads_version < 1)
    return absl::InvalidArgumentError("host.reads_version is 0; allowed: at least 1");
  if (options.rest_after < Duration(0) || options.rest_after > std::chrono::hours(1)) {
    return absl::InvalidArgumentError(Cat("host.rest_after is ", ToMicros(options.rest_after),
                                          " us; allowed: 0 to 3,600,000,000"));
  }
  if (options.wakes_at_once < 1)
    return absl::InvalidArgumentError("host.wakes_at_once is 0; allowed: at least 1");
  if (options.entry_memory_at_start > options.entry_memory_kept) {
    return absl::InvalidArgumentError(
        Cat("host.entry_memory_at_start is ", options.entry_memory_at_start,
            "; allowed: up to entry_memory_kept, which is ", options.entry_memory_kept));
  }
  const std::pair<std::string_view, Duration> durations[] = {
      {"read_wait", options.read_wait},
      {"log_overdue", options.log_overdue},
      {"log_probe", options.log_probe},
      {"session_expiry", options.session_expiry}};
  for (const auto& [name, value] : durations) {
    if (value <= Duration(0))
      return absl::InvalidArgumentError(
          Cat("host.", name, " is ", ToMicros(value), " us; allowed: above 0"));
  }
  return absl::OkStatus();
}

}  // namespace dynlib::replication
