// Concurrent maps that a cache hit is measured against, each set up as its documents recommend.
#ifndef DYNLIB_BENCHMARKS_CACHE_PEERS_H_
#define DYNLIB_BENCHMARKS_CACHE_PEERS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace dynlib::bench {

// What a router keeps of a partition.
struct CachedRoute {
  uint64_t key = 0;
  uint64_t partition = 0;
  uint64_t version = 0;
  uint32_t nodes[3] = {};
  uint32_t leader = 0;
};

// Hash of a key: the same for every system, so that only the tables differ.
inline uint64_t MixKey(uint64_t key) {
  key = (key ^ (key >> 32)) * 0xD6E8FEB86659FD93u;
  return key ^ (key >> 32);
}

// A map that was filled with routes.
class RouteMap {
 public:
  virtual ~RouteMap() = default;
  // Looks all of `keys` up, from any thread, and copies each value out. Returns the sum of what it
  // read: 0 if a key was missing.
  virtual uint64_t FindAll(const uint64_t* keys, size_t count) = 0;
  // The same look-ups, and nothing that one leaves behind for others to do.
  virtual uint64_t OnlyFindAll(const uint64_t* keys, size_t count) { return FindAll(keys, count); }
};

struct NamedRouteMap {
  std::string name;
  // With `routes` in it.
  std::function<std::unique_ptr<RouteMap>(const std::vector<CachedRoute>& routes)> make;
};

// libcuckoo, TBB's concurrent_hash_map, and 64 std::unordered_maps, each behind a shared_mutex.
std::vector<NamedRouteMap> RouteMapPeers();

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_CACHE_PEERS_H_
