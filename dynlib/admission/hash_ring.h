// Which server answers for a key: consistent hashing (Karger et al., STOC 1997).
//
// Each server has `points` places on a ring of 64-bit hashes; a key belongs to the server whose
// place follows the key's hash. A server that goes moves only its own keys, spread over the rest.
// All who know the same servers agree, in whatever order they name them.
//
//   HashRing ring({NodeId{1}, NodeId{2}, NodeId{3}});
//   NodeId server = *ring.ServerFor(ToUint(limit), [&](NodeId n) { return !down.contains(n); });
//
// Threads: any, once made; it never changes.
#ifndef DYNLIB_ADMISSION_HASH_RING_H_
#define DYNLIB_ADMISSION_HASH_RING_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "dynlib/base/ids.h"

namespace dynlib::admission {

class HashRing {
 public:
  static constexpr int kPoints = 64;

  HashRing() = default;
  // Servers named twice count once.
  explicit HashRing(std::span<const NodeId> servers, int points = kPoints);

  // The first server from the key's place on that `usable` accepts; if it accepts none, the first
  // one of all, so that somebody is tried. nullopt: the ring is empty.
  std::optional<NodeId> ServerFor(uint64_t key, const std::function<bool(NodeId)>& usable) const;
  std::optional<NodeId> ServerFor(uint64_t key) const;

  // In ascending order.
  const std::vector<NodeId>& servers() const { return servers_; }

 private:
  struct Point {
    uint64_t place;
    NodeId server;
    friend auto operator<=>(const Point&, const Point&) = default;
  };
  std::vector<NodeId> servers_;
  std::vector<Point> points_;  // Ascending.
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_HASH_RING_H_
