#include "dynlib/admission/hash_ring.h"

#include <algorithm>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"

namespace dynlib::admission {
namespace {

uint64_t PlaceOf(uint64_t number, uint64_t salt) {
  char bytes[sizeof(number)];
  StoreFixed(bytes, number);
  return Checksum({bytes, sizeof(bytes)}, salt);
}

}  // namespace

HashRing::HashRing(std::span<const NodeId> servers, int points)
    : servers_(servers.begin(), servers.end()) {
  std::sort(servers_.begin(), servers_.end());
  servers_.erase(std::unique(servers_.begin(), servers_.end()), servers_.end());
  for (const NodeId server : servers_) {
    for (int i = 1; i <= points; ++i) {
      points_.push_back({PlaceOf(ToUint(server), static_cast<uint64_t>(i)), server});
    }
  }
  std::sort(points_.begin(), points_.end());
}

std::optional<NodeId> HashRing::ServerFor(uint64_t key,
                                          const std::function<bool(NodeId)>& usable) const {
  if (points_.empty()) return std::nullopt;
  const uint64_t place = PlaceOf(key, /*salt=*/0);
  const auto after = std::lower_bound(points_.begin(), points_.end(), place,
                                      [](const Point& p, uint64_t at) { return p.place < at; });
  const auto start = static_cast<size_t>(after - points_.begin());
  for (size_t i = 0; i < points_.size(); ++i) {
    const NodeId server = points_[(start + i) % points_.size()].server;
    if (usable(server)) return server;
  }
  return points_[start % points_.size()].server;
}

std::optional<NodeId> HashRing::ServerFor(uint64_t key) const {
  return ServerFor(key, [](NodeId) { return true; });
}

}  // namespace dynlib::admission
