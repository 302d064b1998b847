#include "dynlib/cluster/routing_record.h"

namespace dynlib::cluster {

partition_map::PartitionRecord RoutingRecord(const Replica& replica,
                                             const replication::GroupStatus& status) {
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
    record.members.push_back(
        {member.replica, member.node,
         log ? partition_map::MemberKind::kLog : partition_map::MemberKind::kStorage});
  }
  if (status.leader.has_value()) record.leader = status.leader->node;
  return record;
}

}  // namespace dynlib::cluster
