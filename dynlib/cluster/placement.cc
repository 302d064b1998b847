#include "dynlib/cluster/placement.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

// So that replicas which hold and serve nothing yet are spread too.
constexpr double kReplicaShare = 1e-6;

bool Contains(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// Smaller is better.
using Rank = std::tuple<bool, bool, int, int, double, NodeId>;

Rank RankOf(const PlacementNode& node, const std::vector<const NodeLocation*>& others,
            const PlacementWish& wish) {
  const NodeLocation& here = node.info.location;
  int same_power = 0;
  int same_rack = 0;
  bool shares_zone = false;
  for (const NodeLocation* other : others) {
    if (other->zone != here.zone) continue;
    shares_zone = true;
    same_power += other->power == here.power;
    same_rack += other->rack == here.rack;
  }
  return {shares_zone,    !wish.zone.empty() && here.zone != wish.zone,
          same_power,     same_rack,
          Fullness(node), node.info.id};
}

}  // namespace

absl::Status CheckZonesApart(const ClusterConfig& config,
                             const std::vector<replication::Member>& present,
                             const std::vector<replication::Member>& members) {
  using replication::Member;
  std::map<NodeId, std::string_view> zones;
  for (const NodeInfo& node : config.nodes) zones[node.id] = node.location.zone;
  for (const Member& added : members) {
    const bool is_new = std::find(present.begin(), present.end(), added) == present.end();
    const bool counts = is_new && added.kind != replication::MemberKind::kLog;
    if (!counts || zones[added.node].empty()) continue;
    for (const Member& other : members) {
      if (other.replica == added.replica || other.kind == replication::MemberKind::kLog) continue;
      if (zones[other.node] != zones[added.node]) continue;
      return absl::InvalidArgumentError(Cat("members are to be on nodes ", added.node, " and ",
                                            other.node, ", both in zone ", zones[added.node],
                                            "; allowed: one storage replica in a zone"));
    }
  }
  return absl::OkStatus();
}

double Fullness(const PlacementNode& node) {
  const double space = static_cast<double>(node.used_bytes) /
                       static_cast<double>(std::max<uint64_t>(node.info.capacity_bytes, 1));
  const double units = static_cast<double>(node.used_units) /
                       static_cast<double>(std::max<uint64_t>(node.info.capacity_units, 1));
  return std::max(space, units) + kReplicaShare * static_cast<double>(node.replicas);
}

absl::StatusOr<NodeId> ChooseNode(const std::vector<PlacementNode>& nodes,
                                  const PlacementWish& wish) {
  std::vector<const NodeLocation*> others;
  for (const PlacementNode& node : nodes) {
    if (Contains(wish.others, node.info.id)) others.push_back(&node.info.location);
  }
  std::optional<Rank> best;
  size_t silent = 0;
  size_t taken = 0;
  size_t sharing = 0;
  for (const PlacementNode& node : nodes) {
    if (Contains(wish.others, node.info.id) || Contains(wish.excluded, node.info.id)) {
      ++taken;
      continue;
    }
    if (!node.alive) {
      ++silent;
      continue;
    }
    const Rank rank = RankOf(node, others, wish);
    if (wish.zones_apart && std::get<0>(rank)) {
      ++sharing;
      continue;
    }
    if (!best.has_value() || rank < *best) best = rank;
  }
  if (best.has_value()) return std::get<NodeId>(*best);
  return absl::UnavailableError(Cat("none of ", nodes.size(), " nodes will do: ", taken,
                                    " hold a replica or are excluded, ", silent, " are silent, ",
                                    sharing, " share a zone with another member"));
}

}  // namespace dynlib::cluster
