// Options of a constant-work cache.
#ifndef DYNLIB_CACHE_OPTIONS_H_
#define DYNLIB_CACHE_OPTIONS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "dynlib/base/time.h"

namespace dynlib::cache {

struct CacheOptions {
  // Directory servers, numbered from 0; 1 to 10,000.
  size_t servers = 1;
  // Requests that each intent makes, to different servers; 1 to 4, and no more than `servers`. With
  // 2, a slow or dead server costs a waiting Get nothing.
  size_t fan_out = 1;
  // Values held; 1 to 100,000,000.
  size_t max_entries = 100'000;
  // Keys held as absent; 1 to 10,000,000.
  size_t max_absent_entries = 10'000;
  // Intents that are waiting to be sent or for their answers; 1 to 1,000,000. What is asked beyond
  // is shed. Each may keep a key, and a callback. With Gets from many threads shedding may begin at
  // three quarters of it (see intake.h).
  size_t max_in_flight = 1'000;
  // After this an intent no longer counts as in flight, and a Get that waits for it fails; 1 ms to
  // 10 min. The fetch function's own time limit should be no longer.
  Duration refresh_timeout = std::chrono::seconds(1);
  // How long kNotFound is believed of a key that has no value; 1 ms to 10 min.
  Duration absent_lifetime = std::chrono::seconds(1);
  // A value goes only when answers have denied it for this long, with none that confirmed it in
  // between: one server that lags behind takes nothing away. 0 to 10 min.
  Duration deny_after = std::chrono::seconds(5);
  // Not 0: Gets of one key within a tick make one request, and an age may be told up to a tick too
  // long. That spares a directory that answers slowly, at the price of what this cache is for: its
  // load then depends on which keys are asked for. Reported: CacheStats::coalesce_tick, and the
  // event "cache.coalescing". 0, or 1 ms to 1 s.
  Duration coalesce_tick = Duration(0);
  uint64_t seed = 1;  // for the choice of servers
};

// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const CacheOptions& options);

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_OPTIONS_H_
