#include "dynlib/cache/stats.h"

#include <algorithm>

namespace dynlib::cache {
namespace {

constexpr std::string_view kNames[] = {
    "cache.hits",
    "cache.absent_hits",
    "cache.misses",
    "cache.intents",
    "cache.shed",
    "cache.coalesced",
    "cache.requests",
    "cache.answers",
    "cache.errors",
    "cache.expired",
    "cache.late",
    "cache.dropped_callbacks",
    "cache.extra_callbacks",
    "cache.updates",
    "cache.confirmations",
    "cache.stale_refused",
    "cache.wrong_refused",
    "cache.denials",
    "cache.denied",
    "cache.hints",
    "cache.evicted",
};
static_assert(std::size(kNames) == static_cast<size_t>(Counter::kCount));

}  // namespace

std::string_view Name(Counter counter) { return kNames[static_cast<size_t>(counter)]; }

CacheStats Counters::Read(const IntakeCounts& intake) const {
  CacheStats stats;
  for (size_t i = 0; i < kSize; ++i) stats.counts[i] = counts_[i].load(std::memory_order_relaxed);
  const auto set = [&](Counter counter, uint64_t count) {
    stats.counts[static_cast<size_t>(counter)] = count;
  };
  const auto gets = [&](Outcome outcome) { return intake.gets[static_cast<size_t>(outcome)]; };
  set(Counter::kHits, gets(Outcome::kHit));
  set(Counter::kAbsentHits, gets(Outcome::kAbsentHit));
  set(Counter::kMisses, gets(Outcome::kMiss));
  set(Counter::kShed, intake.shed);
  set(Counter::kIntents,
      stats[Counter::kHits] + stats[Counter::kAbsentHits] + stats[Counter::kMisses] - intake.shed);
  return stats;
}

void Counters::Report(const CacheStats& stats, MetricsSink* metrics) {
  for (size_t i = 0; i < kSize; ++i) {
    const uint64_t count = stats.counts[i];
    if (count > reported_[i]) metrics->Count(kNames[i], static_cast<int64_t>(count - reported_[i]));
    reported_[i] = std::max(reported_[i], count);
  }
}

}  // namespace dynlib::cache
