// Gets and hints from several threads while answers come in from others; worth most under the
// thread sanitizer.
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/constant_work_cache.h"
#include "dynlib/cache/flat_index.h"
#include "dynlib/cache/hash_index.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/range_index.h"
#include "dynlib/cache/stats.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "gtest/gtest.h"
#include "tests/cache/values.h"

namespace dynlib::cache {
namespace {

constexpr int kKeys = 1'000;

Item LookUp(const HashIndex<ItemTraits>*, int key, int version) { return {key, version}; }
Item LookUp(const FlatIndex<ItemTraits>*, int key, int version) { return {key, version}; }
Span LookUp(const RangeIndex<SpanTraits>*, int key, int version) {
  const int width = 1 << version % 5;
  const int first = key / width * width;
  return {first, first + width, version};
}
bool Has(const Item& item, int key) { return item.key == key; }
bool Has(const Span& span, int key) { return span.first <= key && key < *span.end; }

template <typename Index>
void Storm() {
  using Cache = ConstantWorkCache<Index>;
  constexpr int kThreads = 3;
  constexpr int kGets = 4'000;
  SystemClock clock;
  std::atomic<int> version{1};
  std::atomic<int> called{0};
  int waiting = 0;
  {
    ThreadExecutor executor;
    ThreadExecutor directory;
    auto cache = std::make_unique<Cache>(
        CacheOptions{.servers = 3, .fan_out = 2, .max_entries = 500, .max_in_flight = 200},
        &executor, &clock, [&](size_t, const int& key, typename Cache::FetchDone done) {
          directory.Post([&version, key, done = std::move(done)]() mutable {
            done(LookUp(static_cast<const Index*>(nullptr), key, version));
          });
        });
    std::atomic<int> waits{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Random random(t + 1);
        for (int i = 0; i < kGets; ++i) {
          const int key = static_cast<int>(random.Below(kKeys));
          if (random.Chance(0.01)) ++version;
          if (random.Chance(0.05)) {
            cache->Apply(Cache::Own(LookUp(static_cast<const Index*>(nullptr), key, version)));
          }
          auto check = [key](const typename Cache::Result& result) {
            EXPECT_TRUE(!result.ok() || Has(*result->value, key));
          };
          auto now = cache->Get(key, clock.Now() + std::chrono::seconds(5),
                                [&, check](typename Cache::Result result) {
                                  check(result);
                                  ++called;
                                });
          if (now.has_value()) {
            check(*now);
          } else {
            ++waits;
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    const CacheStats stats = cache->Stats();
    EXPECT_EQ(stats[Counter::kHits] + stats[Counter::kMisses], uint64_t{kThreads * kGets});
    EXPECT_EQ(stats[Counter::kIntents] + stats[Counter::kShed], uint64_t{kThreads * kGets});
    EXPECT_LE(stats.entries, 500u);
    EXPECT_LE(stats.in_flight, 200u);
    waiting = waits;
    executor.Post([&] { cache.reset(); });
    executor.ShutDown();
    directory.ShutDown();
  }
  // Those that were cancelled by a task after the executor was shut down never ran.
  EXPECT_LE(called, waiting);
}

TEST(CacheThreads, FlatIndexStorm) { Storm<FlatIndex<ItemTraits>>(); }
TEST(CacheThreads, HashIndexStorm) { Storm<HashIndex<ItemTraits>>(); }
TEST(CacheThreads, RangeIndexStorm) { Storm<RangeIndex<SpanTraits>>(); }

}  // namespace
}  // namespace dynlib::cache
