// A cache whose work, and that of the directory behind it, does not depend on its hit ratio.
//
// Every Get, hit or miss, emits one refresh intent: a request for the key to each of `fan_out`
// directory servers, chosen at random. So the directory's load is the request rate, always; a cache
// that was flushed, or a thousand routers that start at once, are nothing new to it ("Amazon
// DynamoDB: A Scalable, Predictably Performant, and Fully Managed NoSQL Database Service", USENIX
// ATC 2022, section 4.1: MemDS). An ordinary cache that hits 99.75 % of the time multiplies the
// directory's load by 400 when it is empty.
//
//   ConstantWorkCache<RangeIndex<RouteTraits>> routes(
//       {.servers = 3, .fan_out = 2}, executor, clock,
//       [&](size_t server, const RouteKey& key, auto done) { Ask(nodes[server], key, done); });
//   auto now = routes.Get(key, deadline, [](auto result) { ... });  // a miss: waits
//   if (now.has_value()) { ... }                                    // a hit: here it is
//   routes.Apply(std::make_shared<PartitionRecord>(hint));          // "that node has it now"
//
// Versions. The first answer to an intent wins; a later one counts only if it is newer. While a
// value is held, nothing older replaces it, from wherever it comes. kNotFound replaces a value only
// after deny_after (options.h). An answer that is not about the key is refused.
//
// Static stability. No value expires: with the directory down all that is held is served, with its
// age. Failed and late requests change nothing.
//
// What a Get does on a miss is chosen by the Get: it waits, with a deadline, or fails at once.
//
// Bounds. max_entries by eviction; max_in_flight intents by shedding: a Get beyond makes no
// request. If it hits, its value is merely not refreshed by it; if it misses, it fails at once with
// kResourceExhausted. A request that failed is not sent again: the next Get makes the next one.
//
// Get's statuses: OK; kNotFound: the directory said within absent_lifetime that there is none;
// kUnavailable: not held, and this Get does not wait, or every request of it failed (the message
// has the last failure); kDeadlineExceeded: it waited in vain; kResourceExhausted: not held, and
// shed; kCancelled: the cache was destroyed.
//
// The fetch function. Called on the executor, never within Get; it passes the answer to `done`,
// once, from any thread: a value, kNotFound, or another error. One that destroys `done` uncalled
// has failed; what it passes a second time is counted and ignored; one that keeps `done` for ever
// costs an intent for refresh_timeout. It may call this cache, but not destroy it.
//
// Metrics. Counters as in stats.h; "cache.age_us", the age of what is held when the intent of a Get
// is picked up; reported on the executor.
//
// Threads: Get, Held, Apply, Entries and Stats from any. With FlatIndex a hit takes no lock and
// executes no locked instruction: it copies the value and leaves its intent in a ring of its
// thread's (intake.h). With HashIndex and RangeIndex a hit shares one lock with other readers.
// Construction and destruction on the executor, where callbacks run, once each, never within Get. A
// callback may destroy the cache. Ownership: executor, clock and metrics outlive it.
#ifndef DYNLIB_CACHE_CONSTANT_WORK_CACHE_H_
#define DYNLIB_CACHE_CONSTANT_WORK_CACHE_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/refresher.h"
#include "dynlib/cache/stats.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::cache {

// Index: FlatIndex (small values that are copied), HashIndex (any value), each of one key; or
// RangeIndex (a value covers a range of keys).
template <typename Index>
class ConstantWorkCache {
 public:
  using Key = typename Index::Key;
  using Value = typename Index::Value;
  using Ref = typename Index::Ref;  // behaves as a pointer to a constant value
  using Result = absl::StatusOr<Cached<Ref>>;
  using Callback = absl::AnyInvocable<void(Result)>;
  using FetchDone = absl::AnyInvocable<void(absl::StatusOr<Value>)>;
  using Fetch = absl::AnyInvocable<void(size_t server, const Key& key, FetchDone done)>;

  // `options` must be valid (DYNLIB_CHECK).
  ConstantWorkCache(const CacheOptions& options, Executor* executor, const Clock* clock,
                    Fetch fetch, MetricsSink* metrics = MetricsSink::None())
      : refresher_(std::make_shared<Refresher<Index>>(options, executor, clock, std::move(fetch),
                                                      metrics)) {}
  ~ConstantWorkCache() { refresher_->Close(); }
  ConstantWorkCache(const ConstantWorkCache&) = delete;
  ConstantWorkCache& operator=(const ConstantWorkCache&) = delete;

  // Does not wait: a miss is kUnavailable.
  Result Get(const Key& key) { return refresher_->Get(key); }
  // A miss waits until its own refresh is answered, at most until `deadline` and at most
  // refresh_timeout: then nullopt is returned and `done` called. Else `done` is destroyed uncalled.
  std::optional<Result> Get(const Key& key, Instant deadline, Callback done) {
    return refresher_->Get(key, deadline, std::move(done));
  }

  // What is held, if anything, without any request: for the second attempt of work whose first one
  // made its Get.
  std::optional<Cached<Ref>> Held(const Key& key) const { return refresher_->Held(key); }

  // A hint, or a value from a snapshot (snapshot.h): replaces at once what it is newer than. True
  // if it changed what is held. `age`: since when its sender may have known no better.
  bool Apply(Ref value, Duration age = Duration(0)) {
    return refresher_->Apply(std::move(value), age);
  }

  // Everything held, with its time by the clock of this cache: see snapshot.h.
  std::vector<Cached<Ref>> Entries() const { return refresher_->Entries(); }
  static Ref Own(Value value) { return Index::Own(std::move(value)); }
  CacheStats Stats() const { return refresher_->Stats(); }

 private:
  const std::shared_ptr<Refresher<Index>> refresher_;
};

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_CONSTANT_WORK_CACHE_H_
