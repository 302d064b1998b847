// Where a replica goes: replicas of a partition share none of what can be kept apart, and nodes
// fill evenly.
//
//   DYNLIB_ASSIGN_OR_RETURN(NodeId node, ChooseNode(nodes, {.others = {...}, .zone = "b"}));
//
// A node that is silent, or holds a replica of the partition already, is never chosen. Of the
// others, in this order: in a zone that no other member is in; in the wanted zone; on a power feed
// and a rack that no other member in its zone shares; then the least full, by the larger of its
// shares of space and of request units, a replica counting for a little; then the lowest id.
//
// Pure: the same nodes and wishes give the same choice.
#ifndef DYNLIB_CLUSTER_PLACEMENT_H_
#define DYNLIB_CLUSTER_PLACEMENT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/replication/types.h"

namespace dynlib::cluster {

struct PlacementNode {
  NodeInfo info;
  bool alive = true;
  uint64_t used_bytes = 0;
  uint64_t used_units = 0;  // read and write units a second
  size_t replicas = 0;
};

struct PlacementWish {
  std::vector<NodeId> others;    // members that stay
  std::vector<NodeId> excluded;  // not these, whatever they hold
  std::string zone;              // preferred; empty: any
  bool zones_apart = true;       // refuse rather than share a zone with another member
};

// kUnavailable when no node will do, saying how many there are and why not.
absl::StatusOr<NodeId> ChooseNode(const std::vector<PlacementNode>& nodes,
                                  const PlacementWish& wish);

// kInvalidArgument if a storage replica among `members` that is not among `present` is on a node in
// the zone of another's, naming both. A log replica may be anywhere, for the while that it is
// there; nodes without a zone are apart.
absl::Status CheckZonesApart(const ClusterConfig& config,
                             const std::vector<replication::Member>& present,
                             const std::vector<replication::Member>& members);

// How full a node is: 1 is what it is meant to hold or serve.
double Fullness(const PlacementNode& node);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_PLACEMENT_H_
