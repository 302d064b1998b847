// Where the partitions of a new table go.
//
//   DYNLIB_ASSIGN_OR_RETURN(TableInfo table, PlaceTable(nodes, spec, id));
//
// Each partition gets one replica in each of three zones (one replica when the cluster has one
// node), on the nodes that ChooseNode takes (placement.h): none that is silent; other racks and
// power feeds first; then the least full by space and request units, a replica of the new table
// counting for a hundredth of its node, or for its share of the table's throughput if that is more,
// so that a table is spread before it holds or serves anything. The first member, which leads at
// first, rotates over the zones; a zone without a live node is passed over when there is a fourth.
//
// Threads: pure functions.
#ifndef DYNLIB_CLUSTER_TABLE_PLACEMENT_H_
#define DYNLIB_CLUSTER_TABLE_PLACEMENT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

inline constexpr size_t kTablePartitionsMax = 2000;

struct TableSpec {
  std::string name;
  TableSchema schema;
  size_t partitions = 1;
  Throughput throughput;
};

// kInvalidArgument, naming what is wrong: a name that is not 3 to 255 characters of a-z A-Z 0-9 _ -
// . as DynamoDB's, or is "catalogue"; a bad schema or throughput; not 1 to 2,000 partitions;
// neither one node nor three zones in the cluster.
absl::Status Validate(const TableSpec& spec, const ClusterConfig& config);

// `spec` must be valid in the cluster of these nodes. kUnavailable when too few of them are alive.
absl::StatusOr<TableInfo> PlaceTable(std::vector<PlacementNode> nodes, const TableSpec& spec,
                                     TableId id);

// Counts `table`, whose replicas the nodes may not show yet, with what they have.
void CountTable(const TableInfo& table, std::vector<PlacementNode>& nodes);

// Gives the table and its partitions their ids: the partitions' follow from the table's.
void SetIds(TableId id, TableInfo& table);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_PLACEMENT_H_
