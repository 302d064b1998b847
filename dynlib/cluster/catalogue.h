// The catalogue: which tables there are, how their keys are divided, and where the replicas live.
//
//   DYNLIB_ASSIGN_OR_RETURN(TableInfo table, DecodeTableItem(item_of_table_catalogue));
//   const PartitionInfo& partition = table.PartitionOf(storage_key);
//
// It is itself a table, "catalogue", of one partition that every cluster is born with: partition
// key "name" (string); attribute "table" (binary) holds the encoded wire::Table.
//
// Threads: values.
#ifndef DYNLIB_CLUSTER_CATALOGUE_H_
#define DYNLIB_CLUSTER_CATALOGUE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

inline constexpr std::string_view kCatalogueName = "catalogue";
inline constexpr std::string_view kCatalogueKey = "name";

struct PartitionMember {
  ReplicaId replica{};
  NodeId node{};
  friend bool operator==(const PartitionMember&, const PartitionMember&) = default;
};

// The storage keys in [first, end), and who replicates them; an empty end: no end.
struct PartitionInfo {
  PartitionId id{};
  std::string first;
  std::string end;
  std::vector<PartitionMember> members;
  friend bool operator==(const PartitionInfo&, const PartitionInfo&) = default;
};

struct TableInfo {
  TableId id{};
  std::string name;
  TableSchema schema;
  // In key order, from the first key to the last, without gap or overlap.
  std::vector<PartitionInfo> partitions;

  const PartitionInfo& PartitionOf(std::string_view storage_key) const;
  friend bool operator==(const TableInfo&, const TableInfo&) = default;
};

const TableSchema& CatalogueSchema();
// Replica ids count from 1 in the order of the nodes.
TableInfo CatalogueTable(const std::vector<NodeId>& catalogue_nodes);

Item EncodeTableItem(const TableInfo& table);
// Safe on anything. Errors: kDataLoss naming what is wrong.
absl::StatusOr<TableInfo> DecodeTableItem(const Item& item);

// The bytes of a wire::CreateReplicaRequest. Equal arguments give equal bytes: nodes compare them.
std::string EncodeCreateReplica(const TableInfo& table, const PartitionInfo& partition);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_CATALOGUE_H_
