// What happens to a directory when all routers lose their caches at once, and then half of the
// directory's servers go.
//
//   StormResult result = RunStorm({.routers = 1000}, StormCache::kConstantWork);
//
// Routers answer requests, each for a partition, drawn with zipf 0.99, arriving at random times.
// For each they need the partition's route: from their cache or, over a simulated network, from
// MemDS, a fleet of directory servers. A server works off one look-up after the other, turns away
// what it could not begin within 100 ms, and does the work whether or not the router still waits.
// A request tries up to three times, each time for up to 200 ms; then it has failed. Now and then a
// route proves wrong: the partition has moved.
//
// Two caches, on the same network and with the same requests:
//  - kConventional asks one server, and only on a miss. A route that proved wrong is forgotten.
//  - kConstantWork is cache/constant_work_cache.h with a fan-out of 2. A route that proved wrong is
//    replaced by what the storage node says.
#ifndef DYNLIB_EXAMPLES_STORM_STORM_H_
#define DYNLIB_EXAMPLES_STORM_STORM_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "dynlib/base/time.h"

namespace dynlib::storm {

struct StormOptions {
  size_t routers = 1'000;
  size_t servers = 16;
  size_t partitions = 200;
  double requests_per_second = 25;   // of each router
  double look_ups_per_second = 250;  // that a server can do
  // A cached route is wrong this often: 99.75 % of hits, as in the article on DynamoDB.
  double wrong_share = 0.0025;
  Duration flush_at = std::chrono::seconds(10);  // caches are full until then
  Duration loss_at = std::chrono::seconds(25);
  Duration end_at = std::chrono::seconds(40);
  uint64_t seed = 1;
};

enum class StormCache { kConventional, kConstantWork };

// What came within a slice of time.
struct StormSlice {
  uint64_t gets = 0;      // of the cache
  uint64_t look_ups = 0;  // at the servers that are up, those turned away too
  uint64_t requests = 0;  // that ended
  uint64_t failed = 0;    // of them
};
inline constexpr Duration kSlice = std::chrono::milliseconds(500);

struct StormResult {
  std::vector<StormSlice> slices;
  // Of the time before the flush, from the flush to the loss, and after it.
  struct Phase {
    double look_ups_per_second = 0;
    double look_ups_per_second_max = 0;  // of a slice
    double look_ups_per_get = 0;
    uint64_t requests = 0;
    uint64_t failed = 0;
    // Until the last slice in which more than 1 % of the requests failed has ended.
    double recovery_seconds = 0;
    bool recovered = true;  // false: that was the last slice of the phase
  };
  Phase usual, flushed, halved;
};

StormResult RunStorm(const StormOptions& options, StormCache cache);

}  // namespace dynlib::storm

#endif  // DYNLIB_EXAMPLES_STORM_STORM_H_
