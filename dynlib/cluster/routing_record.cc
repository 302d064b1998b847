#include "dynlib/cluster/routing_record.h"

#include <string>

namespace dynlib::cluster {

RoutingRecords::RoutingRecords(const ClusterConfig& config) {
  std::map<std::string, uint32_t> numbers;
  for (const NodeInfo& node : config.nodes) {
    if (!node.location.zone.empty()) numbers[node.location.zone] = 0;
  }
  uint32_t last = 0;
  for (auto& [name, number] : numbers) number = ++last;
  for (const NodeInfo& node : config.nodes) {
    const auto zone = numbers.find(node.location.zone);
    if (zone != numbers.end()) zones_[node.id] = zone->second;
  }
}

partition_map::PartitionRecord RoutingRecords::Of(const Replica& replica,
                                                  const replication::GroupStatus& status) const {
  partition_map::PartitionRecord record{.table = replica.table,
                                        .partition = replica.partition,
                                        .first = replica.first,
                                        .end = replica.end,
                                        .generation = replica.generation,
                                        .epoch = status.configuration.epoch,
                                        .members = {},
                                        .leader = {},
                                        .leader_ballot = status.promised.packed()};
  for (const replication::Member& member : status.configuration.members) {
    const bool log = member.kind == replication::MemberKind::kLog;
    const auto zone = zones_.find(member.node);
    record.members.push_back(
        {.replica = member.replica,
         .node = member.node,
         .kind = log ? partition_map::MemberKind::kLog : partition_map::MemberKind::kStorage,
         .zone = zone == zones_.end() ? 0 : zone->second});
  }
  if (status.leader.has_value()) record.leader = status.leader->node;
  return record;
}

}  // namespace dynlib::cluster
