#include "dynlib/cluster/table_placement.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

ClusterConfig Cluster(size_t nodes, size_t zones = 3) {
  ClusterConfig config;
  for (size_t i = 0; i < nodes; ++i) {
    config.nodes.push_back(
        {NodeId{i + 1}, {.zone = "zone-" + std::to_string(i % zones), .rack = {}, .power = {}}});
  }
  return config;
}

std::vector<PlacementNode> Nodes(size_t nodes, size_t zones = 3) {
  std::vector<PlacementNode> result;
  for (const NodeInfo& info : Cluster(nodes, zones).nodes) result.push_back({.info = info});
  return result;
}

TableSpec Spec(size_t partitions, const std::string& name = "users") {
  return {.name = name,
          .schema = {.partition_key = {"id", KeyType::kString}, .sort_key = {}},
          .partitions = partitions};
}

// By node.
std::map<NodeId, int> Replicas(const TableInfo& table) {
  std::map<NodeId, int> replicas;
  for (const PartitionInfo& partition : table.partitions) {
    for (const PartitionMember& member : partition.members) replicas[member.node]++;
  }
  return replicas;
}

constexpr TableId kTable{1000};

TEST(PlaceTableTest, EveryPartitionHasAReplicaInEachZone) {
  const std::vector<PlacementNode> nodes = Nodes(6);
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(nodes, Spec(12), kTable));
  ASSERT_THAT(table.partitions, SizeIs(12));
  std::map<NodeId, int> firsts;
  std::set<PartitionId> ids;
  for (const PartitionInfo& partition : table.partitions) {
    std::set<std::string> zones;
    ids.insert(partition.id);
    firsts[partition.members[0].node]++;
    for (const PartitionMember& member : partition.members)
      zones.insert(nodes[ToUint(member.node) - 1].info.location.zone);
    EXPECT_THAT(zones, SizeIs(3));
  }
  EXPECT_THAT(ids, SizeIs(12));
  std::map<NodeId, int> replicas = Replicas(table);
  for (const PlacementNode& node : nodes) {
    EXPECT_EQ(replicas[node.info.id], 6);
    EXPECT_EQ(firsts[node.info.id], 2);
  }
}

TEST(PlaceTableTest, ThePartitionsDivideTheKeysEvenly) {
  for (size_t count : {1, 2, 3, 7, 2000}) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(Nodes(3), Spec(count), kTable));
    // Decoding checks that there is neither gap nor overlap.
    EXPECT_THAT(DecodeTableItem(EncodeTableItem(table)), IsOkAndHolds(table));
    for (size_t i = 1; i < count; ++i) {
      const double part = static_cast<double>(HashOfStorageKey(table.partitions[i].first)) / 0x1p64;
      EXPECT_NEAR(part, static_cast<double>(i) / static_cast<double>(count), 1e-9);
    }
  }
}

TEST(PlaceTableTest, OneNodeIsAClusterToo) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(Nodes(1, 1), Spec(2), kTable));
  for (const PartitionInfo& partition : table.partitions) EXPECT_THAT(partition.members, SizeIs(1));
}

TEST(PlaceTableTest, SilentNodesAndZonesArePassedOver) {
  std::vector<PlacementNode> nodes = Nodes(8, 4);
  nodes[4].alive = false;                   // of zone 0, which has node 1 too
  nodes[1].alive = nodes[5].alive = false;  // zone 1
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(nodes, Spec(8), kTable));
  const std::map<NodeId, int> replicas = Replicas(table);
  for (uint64_t silent : {5, 2, 6}) EXPECT_FALSE(replicas.contains(NodeId{silent})) << silent;
  EXPECT_EQ(replicas.at(NodeId{1}), 8) << "three zones are left";
  nodes[2].alive = nodes[6].alive = false;
  EXPECT_THAT(PlaceTable(nodes, Spec(8), kTable), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(PlaceTableTest, AnEmptierNodeIsFilledAndThenAllAlike) {
  std::vector<PlacementNode> nodes = Nodes(6);
  // Zone 0: node 1 holds a tenth of what it may, node 4 nothing; a replica counts for a hundredth.
  nodes[0].used_bytes = nodes[0].info.capacity_bytes / 10;
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo few, PlaceTable(nodes, Spec(8), kTable));
  EXPECT_EQ(Replicas(few)[NodeId{1}], 0);
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo many, PlaceTable(nodes, Spec(50), kTable));
  EXPECT_NEAR(Replicas(many)[NodeId{1}], 20, 1);
  EXPECT_NEAR(Replicas(many)[NodeId{4}], 30, 1);
  // And what another table being created will have there counts before the node shows it.
  CountTable(few, nodes);
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo next, PlaceTable(nodes, Spec(4), kTable));
  EXPECT_GE(Replicas(next)[NodeId{1}], 1);
}

TEST(PlaceTableTest, ThroughputCounts) {
  std::vector<PlacementNode> nodes = Nodes(6);
  nodes[3].used_units = nodes[3].info.capacity_units / 2;  // node 4, of zone 0
  TableSpec spec = Spec(4);
  spec.throughput = {.on_demand = false, .read_units = 50'000, .write_units = 50'000};
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(nodes, spec, kTable));
  EXPECT_EQ(Replicas(table)[NodeId{1}], 3) << "a quarter of node 1 each";
  EXPECT_EQ(Replicas(table)[NodeId{4}], 1);
}

TEST(PlaceTableTest, IdsOfPartitionsFollowFromTheTables) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(Nodes(3), Spec(4), TableId{}));
  SetIds(kTable, table);
  EXPECT_THAT(PlaceTable(Nodes(3), Spec(4), kTable), IsOkAndHolds(table));
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo other, PlaceTable(Nodes(3), Spec(4), TableId{1001}));
  for (size_t i = 0; i < 4; ++i) EXPECT_NE(table.partitions[i].id, other.partitions[i].id);
}

TEST(PlaceTableTest, BadArgumentsAreNamed) {
  auto message = [](const ClusterConfig& config, const TableSpec& spec) {
    const absl::Status status = Validate(spec, config);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  const ClusterConfig good = Cluster(3);
  DYNLIB_EXPECT_OK(Validate(Spec(1), good));
  EXPECT_THAT(message(good, Spec(0)), HasSubstr("partitions is 0"));
  EXPECT_THAT(message(good, Spec(2001)), HasSubstr("partitions is 2001"));
  EXPECT_THAT(message(good, Spec(1, "ab")), HasSubstr("'ab'"));
  EXPECT_THAT(message(good, Spec(1, "a b c")), HasSubstr("'a b c'"));
  EXPECT_THAT(message(good, Spec(1, std::string(256, 'x'))), HasSubstr("name"));
  EXPECT_THAT(message(good, Spec(1, "catalogue")), HasSubstr("catalogue"));
  EXPECT_THAT(message(Cluster(2), Spec(1)), HasSubstr("2 zones"));
  TableSpec starved = Spec(1);
  starved.throughput = {.on_demand = false, .read_units = 0, .write_units = 5};
  EXPECT_THAT(message(good, starved), HasSubstr("throughput.read_units is 0"));
  TableSpec spec = Spec(1);
  spec.schema.partition_key.name = "";
  message(good, spec);
}

}  // namespace
}  // namespace dynlib::cluster
