// The constant-work cache.
//
//   hit/1M/N   N threads look up one of a million keys after the other, zipf 0.99, all held. Values
//              have 40 bytes and are copied out. "dynlib" is Get with its refresh intent, no intent
//              shed; the peers are plain finds.
//   directory_requests_per_get/STATE
//              Requests that arrive at the directory's servers, by Gets and by the fan-out, in a
//              simulation, below the shedding bound: all keys held (all_warm), none (all_cold), and
//              none with half of the servers dead (half_lost; what arrives at a dead one is counted
//              at its door).
//
// Threads run in bursts and wait for one another in between. Between bursts, on a thread of its
// own, dynlib's refresher works off their intents: in production it has a core of its own, here
// there is none to spare. It leaves the caches of the processor that it ran on cold; so before each
// burst, of every system, come look-ups that are not timed and leave no intents, three times as
// many.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/cache_dynlib.h"
#include "benchmarks/cache_peers.h"
#include "benchmarks/harness.h"
#include "benchmarks/load.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr size_t kKeys = 1'000'000;
constexpr double kZipf = 0.99;
constexpr size_t kScatter = 611'953;  // has no factor in common with kKeys
constexpr size_t kBurst = 4'096;
constexpr size_t kWarmUp = 3 * kBurst;
constexpr size_t kStream = (kWarmUp + kBurst) << 8;

std::vector<CachedRoute> MakeRoutes() {
  Random random(1);
  std::vector<CachedRoute> routes(kKeys);
  for (CachedRoute& route : routes) route = {.key = random.Next(), .version = 1};
  return routes;
}

// Keys in the order in which one thread asks for them.
std::vector<uint64_t> ZipfStream(const std::vector<CachedRoute>& routes, uint64_t seed) {
  static const std::vector<double> kShares = [] {
    std::vector<double> shares(kKeys);
    double sum = 0;
    for (size_t i = 0; i < kKeys; ++i)
      shares[i] = sum += std::pow(static_cast<double>(i + 1), -kZipf);
    return shares;
  }();
  Random random(seed);
  std::vector<uint64_t> stream(kStream);
  for (uint64_t& key : stream) {
    const double at = random.Unit() * kShares.back();
    const auto rank = std::lower_bound(kShares.begin(), kShares.end(), at) - kShares.begin();
    // The order in which keys were put in must not be that of their ranks.
    key = routes[std::min(static_cast<size_t>(rank), kKeys - 1) * kScatter % kKeys].key;
  }
  return stream;
}

// `between` runs after each burst, on a thread of its own.
absl::StatusOr<RunResult> RunBursts(RouteMap& map,
                                    const std::vector<std::vector<uint64_t>>& streams,
                                    double seconds, const std::function<void()>& between) {
  const size_t threads = streams.size();
  std::barrier<> barrier(static_cast<ptrdiff_t>(threads) + 1);
  std::vector<uint64_t> nanos(threads);
  bool ended = false;
  std::atomic<bool> missing = false;
  auto look_up = [&](size_t thread, uint64_t burst) {
    const uint64_t* keys = &streams[thread][burst * (kWarmUp + kBurst) % kStream];
    if (map.OnlyFindAll(keys, kWarmUp) == 0) missing = true;
    const uint64_t begin = NowNs();
    if (map.FindAll(keys + kWarmUp, kBurst) == 0) missing = true;
    nanos[thread] += NowNs() - begin;
  };
  std::vector<std::thread> running;
  for (size_t thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      for (uint64_t burst = 0;; ++burst) {
        barrier.arrive_and_wait();
        if (ended) return;
        look_up(thread, burst);
        barrier.arrive_and_wait();
      }
    });
  }
  const double warm_up = WarmUpSeconds(seconds);
  const uint64_t begin = NowNs();
  uint64_t bursts = 0;
  bool warm = false;
  for (;;) {
    const double passed = static_cast<double>(NowNs() - begin) * 1e-9;
    if (!warm && passed >= warm_up) {
      warm = true;
      bursts = 0;
      std::fill(nanos.begin(), nanos.end(), 0);
    }
    ended = passed >= warm_up + seconds;
    barrier.arrive_and_wait();
    if (ended) break;
    barrier.arrive_and_wait();
    ++bursts;
    between();
  }
  for (std::thread& thread : running) thread.join();
  if (missing) return absl::InternalError("a key was not found, or its intent was shed");
  // Of all threads together: the sum of their speeds.
  RunResult result;
  result.operations = bursts * kBurst * threads;
  double speed = 0;
  for (const uint64_t time : nanos)
    speed += static_cast<double>(bursts * kBurst) / (static_cast<double>(time) * 1e-9);
  result.seconds = static_cast<double>(result.operations) / speed;
  return result;
}

void MeasureHits(Harness& harness) {
  const std::vector<CachedRoute> routes = MakeRoutes();
  const std::vector<std::vector<uint64_t>> streams = {ZipfStream(routes, 2), ZipfStream(routes, 3)};
  const std::unique_ptr<DynlibRoutes> ours = MakeDynlibRoutes(routes);
  std::vector<std::pair<std::string, std::unique_ptr<RouteMap>>> peers;
  for (const NamedRouteMap& peer : RouteMapPeers())
    peers.emplace_back(peer.name, peer.make(routes));
  for (size_t threads = 1; threads <= streams.size(); ++threads) {
    const std::vector<std::vector<uint64_t>> used(streams.begin(),
                                                  streams.begin() + static_cast<int>(threads));
    std::vector<System> systems = {{kOurs, [&](const RunContext& context) {
                                      return RunBursts(*ours, used, context.seconds,
                                                       [&] { ours->Refresh(); });
                                    }}};
    for (const auto& [name, map] : peers) {
      systems.push_back({name, [&, map = map.get()](const RunContext& context) {
                           return RunBursts(*map, used, context.seconds, [] {});
                         }});
    }
    harness.Measure(Cat("hit/1M/", threads), std::move(systems));
  }
}

void CountRequests(Harness& harness) {
  constexpr std::pair<const char*, DirectoryState> kStates[] = {
      {"all_warm", DirectoryState::kAllWarm},
      {"all_cold", DirectoryState::kAllCold},
      {"half_lost", DirectoryState::kHalfLost}};
  for (const auto& [name, state] : kStates) {
    harness.MeasureQuantity(Cat("directory_requests_per_get/", name), kOurs, "of_fan_out", false,
                            [state = state] { return DirectoryRequestsPerGet(state); });
  }
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  dynlib::bench::Harness harness("cache", argc, argv);
  dynlib::bench::MeasureHits(harness);
  dynlib::bench::CountRequests(harness);
  return harness.Finish();
}
