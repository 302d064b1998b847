#include "dynlib/cluster/routing_record.h"

#include <cstdint>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/types.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

NodeInfo InZone(uint64_t id, const char* zone) {
  return {NodeId{id}, {.zone = zone, .rack = {}, .power = {}}};
}

TEST(RoutingRecords, TellWhoHasThePartitionAndInWhichZone) {
  ClusterConfig config;
  config.nodes = {InZone(1, "west"), InZone(2, "east"), InZone(3, "north"), InZone(4, "east"),
                  InZone(5, "")};
  Replica replica(nullptr);
  replica.table = TableId{7};
  replica.partition = PartitionId{70};
  replica.first = "a";
  replica.end = "m";
  replica.generation = 3;
  replication::GroupStatus status;
  status.configuration.epoch = 9;
  for (const uint64_t node : {1, 2, 3, 4, 5, 6}) {
    const auto kind = node == 4 ? replication::MemberKind::kLog : replication::MemberKind::kStorage;
    status.configuration.members.push_back(
        {.replica = ReplicaId{100 + node}, .node = NodeId{node}, .kind = kind});
  }
  status.leader = status.configuration.members[1];

  const partition_map::PartitionRecord record = RoutingRecords(config).Of(replica, status);
  EXPECT_EQ(record.table, TableId{7});
  EXPECT_EQ(record.partition, PartitionId{70});
  EXPECT_EQ(record.first, "a");
  EXPECT_EQ(record.end, "m");
  EXPECT_EQ(record.generation, 3u);
  EXPECT_EQ(record.epoch, 9u);
  EXPECT_EQ(record.leader, NodeId{2});
  using partition_map::MemberKind;
  const std::vector<partition_map::PartitionMember> members = {
      {ReplicaId{101}, NodeId{1}, MemberKind::kStorage, 3},
      {ReplicaId{102}, NodeId{2}, MemberKind::kStorage, 1},
      {ReplicaId{103}, NodeId{3}, MemberKind::kStorage, 2},
      {ReplicaId{104}, NodeId{4}, MemberKind::kLog, 1},
      {ReplicaId{105}, NodeId{5}, MemberKind::kStorage, 0},
      {ReplicaId{106}, NodeId{6}, MemberKind::kStorage, 0}};
  EXPECT_EQ(record.members, members) << "zones in the order of their names; none is told as 0";
}

}  // namespace
}  // namespace dynlib::cluster
