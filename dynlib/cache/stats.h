// What a constant-work cache counts.
#ifndef DYNLIB_CACHE_STATS_H_
#define DYNLIB_CACHE_STATS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/intake.h"

namespace dynlib::cache {

// The metric of each is "cache." and its name in small letters.
enum class Counter : uint8_t {
  kHits,
  kAbsentHits,        // Gets answered by "known to be absent"
  kMisses,            // the others
  kIntents,           // of them, one a Get, those that were accepted; hits + absent_hits + misses =
                      // intents + shed
  kShed,              // Gets at the bound of max_in_flight: no request was made
  kCoalesced,         // intents that were part of an earlier request of their tick
  kRequests,          // calls of the fetch function: (intents - coalesced) * fan_out
  kAnswers,           // values and kNotFound that came back, late ones too
  kErrors,            // other answers
  kExpired,           // intents given up after refresh_timeout
  kLate,              // answers to intents that were already given up or destroyed
  kDroppedCallbacks,  // the fetch function destroyed its callback uncalled
  kExtraCallbacks,    // it called it again
  kUpdates,           // answers and hints that changed what is held
  kConfirmations,     // answers and hints of the version that is held
  kStaleRefused,      // answers and hints older than what is held, or that do not replace it
  kWrongRefused,      // answers that are not about the key that was asked for
  kDenials,           // kNotFound answers for keys that have a value
  kDenied,            // values that went by it
  kHints,             // calls of Apply
  kEvicted,
  kCount,
};

std::string_view Name(Counter counter);

struct CacheStats {
  std::array<uint64_t, static_cast<size_t>(Counter::kCount)> counts{};
  size_t entries = 0;         // ranges or keys with a value
  size_t in_flight = 0;       // intents
  Duration coalesce_tick{0};  // not 0: the directory's load depends on the keys that are asked for
  uint64_t operator[](Counter counter) const { return counts[static_cast<size_t>(counter)]; }
};

// Threads: Add and Read from any; Report from one at a time.
class Counters {
 public:
  // Not of Gets, intents and shed, which the intake counts.
  void Add(Counter counter, uint64_t delta = 1) {
    counts_[static_cast<size_t>(counter)].fetch_add(delta, std::memory_order_relaxed);
  }
  CacheStats Read(const IntakeCounts& intake) const;
  // Counts in `metrics` what was added since the last time.
  void Report(const CacheStats& stats, MetricsSink* metrics);

 private:
  static constexpr size_t kSize = static_cast<size_t>(Counter::kCount);
  std::array<std::atomic<uint64_t>, kSize> counts_{};
  std::array<uint64_t, kSize> reported_{};
};

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_STATS_H_
