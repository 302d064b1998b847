#include "dynlib/cluster/orphan_replicas.h"

#include <utility>

namespace dynlib::cluster {

std::set<TableId> TablesShown(const std::map<NodeId, NodeView>& nodes) {
  std::set<TableId> shown;
  for (const auto& [id, node] : nodes) {
    if (!node.alive) continue;
    for (const wire::ReplicaStatus& replica : node.status.replicas())
      shown.insert(TableId{replica.table()});
  }
  return shown;
}

std::vector<AdminCall<wire::DropReplicaRequest>> DropOrphans(
    const KnownTables& known, const std::set<TableId>& shown_before,
    const std::map<NodeId, NodeView>& nodes) {
  std::vector<AdminCall<wire::DropReplicaRequest>> drops;
  for (const auto& [id, node] : nodes) {
    if (!node.alive) continue;
    for (const wire::ReplicaStatus& replica : node.status.replicas()) {
      const TableId table{replica.table()};
      if (!known.given.Gave(table) || known.entries.contains(table) ||
          !shown_before.contains(table)) {
        continue;
      }
      AdminCall<wire::DropReplicaRequest> drop{.node = id, .request = {}};
      drop.request.set_partition(replica.partition());
      drop.request.set_replica(replica.replica());
      drop.request.set_force(true);
      drops.push_back(std::move(drop));
    }
  }
  return drops;
}

}  // namespace dynlib::cluster
