#include "examples/storm/storm.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/cache/constant_work_cache.h"
#include "dynlib/cache/flat_index.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/clock.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/world.h"

namespace dynlib::storm {
namespace {

constexpr Channel kChannel{1};
constexpr Rpc::Method kLookUp{1};
constexpr Duration kTryTimeout = std::chrono::milliseconds(200);
constexpr Duration kQueueMax = std::chrono::milliseconds(100);
constexpr int kTries = 3;
constexpr size_t kFanOut = 2;
constexpr double kZipf = 0.99;

struct Route {
  uint64_t partition = 0;
  uint64_t version = 0;  // stands for where the partition is
};

struct RouteTraits {
  using Key = uint64_t;
  using Value = Route;
  static uint64_t KeyOf(const Route& route) { return route.partition; }
  static uint64_t Hash(uint64_t key) { return key; }
  static bool Newer(const Route& a, const Route& b) { return a.version > b.version; }
};

NodeId ServerId(size_t server) { return NodeId{100'000 + server}; }

// Partitions, as storage nodes know them, and what is counted.
struct Truth {
  explicit Truth(const StormOptions& options)
      : versions(options.partitions, 1), slices(static_cast<size_t>(options.end_at / kSlice)) {
    double sum = 0;
    for (size_t i = 0; i < options.partitions; ++i)
      shares.push_back(sum += std::pow(static_cast<double>(i + 1), -kZipf));
  }
  uint64_t Draw(Random& random) const {
    const double at = random.Unit() * shares.back();
    const auto found = std::lower_bound(shares.begin(), shares.end(), at);
    return std::min<size_t>(static_cast<size_t>(found - shares.begin()), shares.size() - 1);
  }
  StormSlice& SliceOf(Instant now) {
    const auto slice = static_cast<size_t>((now - Instant()) / kSlice);
    return slices[std::min(slice, slices.size() - 1)];
  }

  std::vector<uint64_t> versions;
  std::vector<double> shares;
  std::vector<StormSlice> slices;
};

class Server {
 public:
  Server(sim::World* world, sim::Node* node, Truth* truth, double look_ups_per_second)
      : world_(world),
        truth_(truth),
        executor_(node->NewExecutor("server")),
        clock_(node->clock()),
        service_(static_cast<int64_t>(1e9 / look_ups_per_second)),
        rpc_({}, node->transport(), kChannel, executor_, clock_) {
    rpc_.Handle(kLookUp, [this](NodeId, Instant, std::string request, Rpc::Reply reply) {
      Serve(LoadFixed<uint64_t>(request.data()), std::move(reply));
    });
  }

 private:
  void Serve(uint64_t partition, Rpc::Reply reply) {
    ++truth_->SliceOf(world_->Now()).look_ups;
    const Instant now = clock_->Now();
    if (free_at_ > now + kQueueMax) return reply(absl::ResourceExhaustedError("overloaded"));
    free_at_ = std::max(free_at_, now) + service_;
    executor_->RunAt(free_at_, [this, partition, reply = std::move(reply)]() mutable {
      std::string answer;
      PutFixed64(answer, truth_->versions[partition]);
      reply(std::move(answer));
    });
  }

  sim::World* const world_;
  Truth* const truth_;
  sim::SimExecutor* const executor_;
  sim::SimClock* const clock_;
  const Duration service_;
  Instant free_at_;
  Rpc rpc_;
};

using FetchDone = absl::AnyInvocable<void(absl::StatusOr<Route>)>;
using Fetch = absl::AnyInvocable<void(size_t server, const uint64_t& partition, FetchDone done)>;
using Found = absl::AnyInvocable<void(bool found)>;

// What a router keeps of routes.
class Routes {
 public:
  virtual ~Routes() = default;
  virtual void Get(uint64_t partition, Found found) = 0;
  // The route was wrong; this is right.
  virtual void WasWrong(const Route& right) = 0;
  virtual void Warm(const Route& route) = 0;
  virtual void Flush() = 0;
};

class ConventionalRoutes final : public Routes {
 public:
  ConventionalRoutes(size_t servers, uint64_t seed, Fetch fetch)
      : servers_(servers), random_(seed), fetch_(std::move(fetch)) {}
  void Get(uint64_t partition, Found found) override {
    if (routes_.contains(partition)) return found(true);
    fetch_(random_.Below(servers_), partition,
           [this, partition, found = std::move(found)](absl::StatusOr<Route> route) mutable {
             if (route.ok()) routes_[partition] = *route;
             found(route.ok());
           });
  }
  void WasWrong(const Route& right) override { routes_.erase(right.partition); }
  void Warm(const Route& route) override { routes_[route.partition] = route; }
  void Flush() override { routes_.clear(); }

 private:
  const size_t servers_;
  Random random_;
  Fetch fetch_;
  std::unordered_map<uint64_t, Route> routes_;
};

class ConstantWorkRoutes final : public Routes {
 public:
  ConstantWorkRoutes(const cache::CacheOptions& options, Executor* executor, const Clock* clock,
                     Fetch fetch)
      : options_(options), executor_(executor), clock_(clock), fetch_(std::move(fetch)) {
    Flush();
  }
  void Get(uint64_t partition, Found found) override {
    auto shared = std::make_shared<Found>(std::move(found));
    auto now = cache_->Get(partition, clock_->Now() + kTryTimeout,
                           [shared](Cache::Result result) { (*shared)(result.ok()); });
    if (now.has_value()) (*shared)(now->ok());
  }
  void WasWrong(const Route& right) override { cache_->Apply(right); }
  void Warm(const Route& route) override { cache_->Apply(route); }
  void Flush() override {
    cache_ = std::make_unique<Cache>(
        options_, executor_, clock_,
        [this](size_t server, const uint64_t& partition, Cache::FetchDone done) {
          fetch_(server, partition, std::move(done));
        });
  }

 private:
  using Cache = cache::ConstantWorkCache<cache::FlatIndex<RouteTraits>>;
  const cache::CacheOptions options_;
  Executor* const executor_;
  const Clock* const clock_;
  Fetch fetch_;
  std::unique_ptr<Cache> cache_;
};

class Router {
 public:
  Router(const StormOptions& options, StormCache cache, sim::World* world, sim::Node* node,
         Truth* truth)
      : options_(options),
        world_(world),
        truth_(truth),
        executor_(node->NewExecutor("router")),
        clock_(node->clock()),
        random_(options.seed * 1'000'003 + ToUint(node->id())),
        rpc_({}, node->transport(), kChannel, executor_, clock_) {
    auto fetch = [this](size_t server, const uint64_t& partition, FetchDone done) {
      LookUp(server, partition, std::move(done));
    };
    if (cache == StormCache::kConventional) {
      routes_ = std::make_unique<ConventionalRoutes>(options.servers, random_.Next(), fetch);
    } else {
      routes_ = std::make_unique<ConstantWorkRoutes>(
          cache::CacheOptions{.servers = options.servers,
                              .fan_out = kFanOut,
                              .max_entries = 2 * options.partitions,
                              .refresh_timeout = kTryTimeout,
                              .seed = random_.Next()},
          executor_, clock_, fetch);
    }
    for (uint64_t partition = 0; partition < options.partitions; ++partition)
      routes_->Warm({partition, 1});
    ArriveLater();
  }
  void Flush() { routes_->Flush(); }

 private:
  void ArriveLater() {
    const double seconds = -std::log(1 - random_.Unit()) / options_.requests_per_second;
    executor_->RunAt(clock_->Now() + Duration(static_cast<int64_t>(seconds * 1e9)), [this] {
      ArriveLater();
      Try(truth_->Draw(random_), 1);
    });
  }
  void Try(uint64_t partition, int attempt) {
    ++truth_->SliceOf(world_->Now()).gets;
    routes_->Get(partition, [this, partition, attempt](bool found) {
      // Not from within the cache's callback: a next try would nest in it.
      executor_->Post([this, partition, attempt, found] { Tried(partition, attempt, found); });
    });
  }
  void Tried(uint64_t partition, int attempt, bool found) {
    const bool wrong = found && attempt == 1 && random_.Chance(options_.wrong_share);
    if (wrong) routes_->WasWrong({partition, ++truth_->versions[partition]});
    if ((wrong || !found) && attempt < kTries) return Try(partition, attempt + 1);
    StormSlice& slice = truth_->SliceOf(world_->Now());
    ++slice.requests;
    if (!found) ++slice.failed;
  }
  void LookUp(size_t server, uint64_t partition, FetchDone done) {
    std::string request;
    PutFixed64(request, partition);
    rpc_.Call(ServerId(server), kLookUp, std::move(request), kTryTimeout,
              [partition, done = std::move(done)](absl::StatusOr<std::string> reply) mutable {
                if (!reply.ok()) return done(reply.status());
                done(Route{partition, LoadFixed<uint64_t>(reply->data())});
              });
  }

  const StormOptions options_;
  sim::World* const world_;
  Truth* const truth_;
  sim::SimExecutor* const executor_;
  sim::SimClock* const clock_;
  Random random_;
  Rpc rpc_;
  std::unique_ptr<Routes> routes_;
};

StormResult::Phase Summarize(const std::vector<StormSlice>& slices, Duration begin, Duration end) {
  const auto first = static_cast<size_t>(begin / kSlice);
  const auto last = static_cast<size_t>(end / kSlice);
  const double slice_seconds = std::chrono::duration<double>(kSlice).count();
  StormResult::Phase phase;
  uint64_t look_ups = 0;
  uint64_t gets = 0;
  for (size_t i = first; i < last; ++i) {
    const StormSlice& slice = slices[i];
    look_ups += slice.look_ups;
    gets += slice.gets;
    phase.requests += slice.requests;
    phase.failed += slice.failed;
    phase.look_ups_per_second_max = std::max(phase.look_ups_per_second_max,
                                             static_cast<double>(slice.look_ups) / slice_seconds);
    if (slice.failed * 100 <= slice.requests) continue;
    phase.recovery_seconds = static_cast<double>(i + 1 - first) * slice_seconds;
    phase.recovered = i + 1 < last;
  }
  phase.look_ups_per_second =
      static_cast<double>(look_ups) / (static_cast<double>(last - first) * slice_seconds);
  phase.look_ups_per_get = static_cast<double>(look_ups) / static_cast<double>(gets);
  return phase;
}

}  // namespace

StormResult RunStorm(const StormOptions& options, StormCache cache) {
  Truth truth(options);
  sim::World world(options.seed);
  std::vector<std::unique_ptr<Server>> servers;
  for (size_t i = 0; i < options.servers; ++i) {
    servers.push_back(std::make_unique<Server>(&world, world.AddNode(ServerId(i)), &truth,
                                               options.look_ups_per_second));
  }
  std::vector<std::unique_ptr<Router>> routers;
  for (size_t i = 0; i < options.routers; ++i) {
    routers.push_back(
        std::make_unique<Router>(options, cache, &world, world.AddNode(NodeId{i + 1}), &truth));
  }
  world.RunFor(options.flush_at);
  for (const auto& router : routers) router->Flush();
  world.RunFor(options.loss_at - options.flush_at);
  for (size_t i = 0; i < options.servers / 2; ++i) world.node(ServerId(i))->Crash();
  world.RunFor(options.end_at - options.loss_at);
  world.CrashAll();
  StormResult result;
  result.usual = Summarize(truth.slices, Duration(0), options.flush_at);
  result.flushed = Summarize(truth.slices, options.flush_at, options.loss_at);
  result.halved = Summarize(truth.slices, options.loss_at, options.end_at);
  result.slices = std::move(truth.slices);
  return result;
}

}  // namespace dynlib::storm
