#include "benchmarks/cache_peers.h"

#include <array>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "libcuckoo/cuckoohash_map.hh"
#include "tbb/concurrent_hash_map.h"

namespace dynlib::bench {
namespace {

struct Hasher {
  size_t operator()(uint64_t key) const { return MixKey(key); }
};

// `find(key, value)` copies the value out: the library's cheapest way to read.
class Cuckoo final : public RouteMap {
 public:
  explicit Cuckoo(const std::vector<CachedRoute>& routes) : map_(routes.size()) {
    for (const CachedRoute& route : routes) map_.insert(route.key, route);
  }
  uint64_t FindAll(const uint64_t* keys, size_t count) override {
    uint64_t sum = 0;
    CachedRoute route;
    for (size_t i = 0; i < count; ++i) {
      if (!map_.find(keys[i], route)) return 0;
      sum += route.version;
    }
    return sum;
  }

 private:
  libcuckoo::cuckoohash_map<uint64_t, CachedRoute, Hasher> map_;
};

// With a const_accessor: a reader's lock on the element.
class Tbb final : public RouteMap {
 public:
  explicit Tbb(const std::vector<CachedRoute>& routes) : map_(routes.size()) {
    for (const CachedRoute& route : routes) map_.insert({route.key, route});
  }
  uint64_t FindAll(const uint64_t* keys, size_t count) override {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      Map::const_accessor found;
      if (!map_.find(found, keys[i])) return 0;
      const CachedRoute route = found->second;
      sum += route.version;
    }
    return sum;
  }

 private:
  struct HashCompare {
    static size_t hash(uint64_t key) { return MixKey(key); }
    static bool equal(uint64_t a, uint64_t b) { return a == b; }
  };
  using Map = tbb::concurrent_hash_map<uint64_t, CachedRoute, HashCompare>;
  Map map_;
};

class Shards final : public RouteMap {
 public:
  explicit Shards(const std::vector<CachedRoute>& routes) {
    for (Shard& shard : shards_) shard.map.reserve(routes.size() / kShards + 1);
    for (const CachedRoute& route : routes) ShardOf(route.key).map[route.key] = route;
  }
  uint64_t FindAll(const uint64_t* keys, size_t count) override {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      Shard& shard = ShardOf(keys[i]);
      std::shared_lock lock(shard.mutex);
      const auto found = shard.map.find(keys[i]);
      if (found == shard.map.end()) return 0;
      const CachedRoute route = found->second;
      lock.unlock();
      sum += route.version;
    }
    return sum;
  }

 private:
  static constexpr size_t kShards = 64;
  struct alignas(64) Shard {
    std::shared_mutex mutex;
    std::unordered_map<uint64_t, CachedRoute, Hasher> map;
  };
  Shard& ShardOf(uint64_t key) { return shards_[MixKey(key) >> 58]; }
  std::array<Shard, kShards> shards_;
};

template <typename Map>
NamedRouteMap Named(std::string name) {
  return {std::move(name), [](const std::vector<CachedRoute>& routes) -> std::unique_ptr<RouteMap> {
            return std::make_unique<Map>(routes);
          }};
}

}  // namespace

std::vector<NamedRouteMap> RouteMapPeers() {
  return {Named<Cuckoo>("libcuckoo"), Named<Tbb>("tbb_concurrent_hash_map"),
          Named<Shards>("shared_mutex_64")};
}

}  // namespace dynlib::bench
