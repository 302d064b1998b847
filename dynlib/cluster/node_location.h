// Where a node is: replicas of a partition share none of what can be kept apart.
#ifndef DYNLIB_CLUSTER_NODE_LOCATION_H_
#define DYNLIB_CLUSTER_NODE_LOCATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dynlib/base/ids.h"

namespace dynlib::cluster {

struct NodeLocation {
  std::string zone;   // fails alone: a building
  std::string rack;   // within the zone
  std::string power;  // feed, within the zone
  friend bool operator==(const NodeLocation&, const NodeLocation&) = default;
};

struct NodeInfo {
  NodeId id{};
  NodeLocation location;
  // What the node is meant to hold and serve; placement fills nodes evenly by the scarcer of both.
  uint64_t capacity_bytes = uint64_t{1} << 40;
  uint64_t capacity_units = 100'000;  // read and write units a second
};

// What every process of a cluster is started with. The catalogue lives on `catalogue_nodes`, one a
// zone.
struct ClusterConfig {
  std::vector<NodeInfo> nodes;
  std::vector<NodeId> catalogue_nodes;  // 1, 3 or 5 of `nodes`, in different zones
  // Nodes of their own, which keep the partition map in memory; none: routers read the catalogue.
  std::vector<NodeId> metadata_nodes;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_NODE_LOCATION_H_
