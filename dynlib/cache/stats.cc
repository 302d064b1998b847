#include "dynlib/cache/stats.h"

namespace dynlib::cache {
namespace {

constexpr std::string_view kNames[] = {
    "cache.hits",
    "cache.absent_hits",
    "cache.misses",
    "cache.intents",
    "cache.shed",
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

void Counters::Read(CacheStats* stats) const {
  for (size_t i = 0; i < kSize; ++i) stats->counts[i] = counts_[i].load(std::memory_order_relaxed);
}

void Counters::Report(MetricsSink* metrics) {
  for (size_t i = 0; i < kSize; ++i) {
    const uint64_t count = counts_[i].load(std::memory_order_relaxed);
    if (count != reported_[i])
      metrics->Count(kNames[i], static_cast<int64_t>(count - reported_[i]));
    reported_[i] = count;
  }
}

}  // namespace dynlib::cache
