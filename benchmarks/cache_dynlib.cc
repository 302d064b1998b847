#include "benchmarks/cache_dynlib.h"

#include <chrono>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/cache/constant_work_cache.h"
#include "dynlib/cache/flat_index.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/stats.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/sim/world.h"

namespace dynlib::bench {
namespace {

struct RouteTraits {
  using Key = uint64_t;
  using Value = CachedRoute;
  static uint64_t KeyOf(const CachedRoute& route) { return route.key; }
  static uint64_t Hash(uint64_t key) { return MixKey(key); }
  static bool Newer(const CachedRoute& a, const CachedRoute& b) { return a.version > b.version; }
};
using Cache = cache::ConstantWorkCache<cache::FlatIndex<RouteTraits>>;

// Runs its tasks when it is told to. Timers never fall due: every request is answered.
class SteppedExecutor final : public Executor {
 public:
  void Post(Task task) override {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  TimerId RunAt(Instant, Task) override { return TimerId{++timers_}; }
  bool Cancel(TimerId) override { return true; }
  bool IsCurrent() const override { return true; }
  void Run() {
    for (;;) {
      std::vector<Task> tasks;
      {
        std::lock_guard lock(mutex_);
        tasks.swap(tasks_);
      }
      if (tasks.empty()) return;
      for (Task& task : tasks) task();
    }
  }

 private:
  std::mutex mutex_;
  std::vector<Task> tasks_;
  uint64_t timers_ = 0;
};

class Routes final : public DynlibRoutes {
 public:
  explicit Routes(const std::vector<CachedRoute>& routes)
      : cache_({.servers = 3,
                // Shards fill unevenly; all must fit.
                .max_entries = routes.size() + routes.size() / 32,
                .max_in_flight = 1'000'000},
               &executor_, &clock_, [](size_t, const uint64_t& key, Cache::FetchDone done) {
                 done(CachedRoute{.key = key, .version = 1});
               }) {
    for (const CachedRoute& route : routes) cache_.Apply(route);
    DYNLIB_CHECK(cache_.Stats().entries == routes.size());
  }

  uint64_t FindAll(const uint64_t* keys, size_t count) override {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      const Cache::Result found = cache_.Get(keys[i]);
      if (!found.ok()) return 0;
      sum += found->value->version;
    }
    return sum;
  }

  uint64_t OnlyFindAll(const uint64_t* keys, size_t count) override {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto found = cache_.Held(keys[i]);
      if (!found.has_value()) return 0;
      sum += found->value->version;
    }
    return sum;
  }

  bool Refresh() override {
    executor_.Run();
    return cache_.Stats()[cache::Counter::kShed] == 0;
  }

 private:
  SystemClock clock_;
  SteppedExecutor executor_;
  Cache cache_;
};

constexpr size_t kServers = 16;
constexpr size_t kFanOut = 2;
constexpr size_t kDirectoryKeys = 1'000;
constexpr size_t kGets = 60'000;

}  // namespace

absl::StatusOr<double> DirectoryRequestsPerGet(DirectoryState state) {
  sim::World world(/*seed=*/1);
  sim::Node* node = world.AddNode(NodeId{1});
  uint64_t arrived = 0;
  // Half a millisecond each way.
  auto fetch = [&](size_t server, const uint64_t& key, Cache::FetchDone done) {
    const bool up = state != DirectoryState::kHalfLost || server % 2 == 0;
    auto call = std::make_shared<Cache::FetchDone>(std::move(done));
    world.After(std::chrono::microseconds(500), [&world, &arrived, up, key, call] {
      ++arrived;
      if (!up) return;
      world.After(std::chrono::microseconds(500),
                  [key, call] { (*call)(CachedRoute{.key = key, .version = 1}); });
    });
  };
  Cache routes({.servers = kServers, .fan_out = kFanOut, .max_in_flight = 10'000},
               node->NewExecutor("routes"), node->clock(), fetch);
  if (state == DirectoryState::kAllWarm) {
    for (uint64_t key = 0; key < kDirectoryKeys; ++key)
      routes.Apply(CachedRoute{.key = key, .version = 1});
  }
  Random random(2);
  for (size_t i = 0; i < kGets; ++i) {
    (void)routes.Get(random.Below(kDirectoryKeys));
    world.RunFor(std::chrono::milliseconds(1));
  }
  world.RunFor(std::chrono::seconds(2));
  if (const uint64_t shed = routes.Stats()[cache::Counter::kShed]; shed > 0)
    return absl::InternalError(Cat(shed, " intents were shed"));
  return static_cast<double>(arrived) / static_cast<double>(kGets * kFanOut);
}

std::unique_ptr<DynlibRoutes> MakeDynlibRoutes(const std::vector<CachedRoute>& routes) {
  return std::make_unique<Routes>(routes);
}

}  // namespace dynlib::bench
