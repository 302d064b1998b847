// Options of a scrub.
#ifndef DYNLIB_SCRUB_OPTIONS_H_
#define DYNLIB_SCRUB_OPTIONS_H_

#include <chrono>
#include <cstdint>

#include "absl/status/status.h"
#include "dynlib/base/time.h"

namespace dynlib::scrub {

struct ScrubOptions {
  uint64_t step_bytes = 1 << 20;  // that a replica reads for one request; 1 to 64 MiB
  uint32_t fan_out = 16;          // sub-ranges of one request; 2 to 1,024
  uint64_t leaf_items = 32;       // ranges of up to so many are listed item by item; 1 to 10,000
  // Of all requests together that are not answered yet.
  uint32_t max_in_flight = 8;                  // 1 to 1,000
  uint64_t max_in_flight_bytes = 16ull << 20;  // to read; at least 2 * step_bytes, up to 1 GiB
  // That each replica reads, over any longer time. 1,024 to 100 GB.
  uint64_t bytes_per_second = 16 << 20;
  Duration request_timeout = std::chrono::seconds(10);  // 1 ms to 10 min
  Duration retry_delay = std::chrono::seconds(1);  // after a request that failed; 1 ms to 10 min
  uint32_t attempts = 5;  // of one request; then the replica is lost to this session. 1 to 100
  uint64_t max_findings = 10'000;  // then the session ends: that copy is no copy. 1 to 1,000,000
  // Keys and values of one replica, roughly; 0: not known. For progress and the warning.
  uint64_t expected_bytes = 0;
  Instant deadline = Instant::Infinite();  // by which the scrub is to be done
};

// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const ScrubOptions& options);

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_OPTIONS_H_
