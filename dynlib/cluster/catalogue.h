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

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

inline constexpr std::string_view kCatalogueName = "catalogue";
inline constexpr std::string_view kCatalogueKey = "name";
// Of every item: how often it was written.
inline constexpr std::string_view kVersionAttribute = "version";
// Of a table's: its id, 8 bytes, so that a condition can name it.
inline constexpr std::string_view kTableIdAttribute = "table_id";

struct PartitionMember {
  ReplicaId replica{};
  NodeId node{};
  bool log = false;  // a log replica: votes and keeps the log, has no items
  friend bool operator==(const PartitionMember&, const PartitionMember&) = default;
};

// The storage keys in [first, end), and who replicates them; an empty end: no end.
struct PartitionInfo {
  PartitionId id{};
  std::string first;
  std::string end;
  std::vector<PartitionMember> members;
  uint64_t generation = 0;  // of a split's children: the parent's + 1
  friend bool operator==(const PartitionInfo&, const PartitionInfo&) = default;
};

// What a table may consume a second, summed over its partitions.
struct Throughput {
  bool on_demand = true;     // as much as its partitions give; the units below are then 0
  uint64_t read_units = 0;   // 1 to 10^9
  uint64_t write_units = 0;  // 1 to 10^9
  friend bool operator==(const Throughput&, const Throughput&) = default;
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const Throughput& throughput);

struct TableInfo {
  TableId id{};
  std::string name;
  TableSchema schema;
  // In key order, from the first key to the last, without gap or overlap.
  std::vector<PartitionInfo> partitions;
  Throughput throughput;
  uint64_t version = 1;   // counts the changes of its entry
  bool deleting = false;  // gone for routers; its replicas are being dropped
  // Not there yet: its replicas are being made. Then `deleting` is set as well, for all who only
  // need to know whether the table can be used.
  bool creating = false;

  const PartitionInfo& PartitionOf(std::string_view storage_key) const;
  friend bool operator==(const TableInfo&, const TableInfo&) = default;
};

const TableSchema& CatalogueSchema();
// Replica ids count from 1 in the order of the nodes.
TableInfo CatalogueTable(const std::vector<NodeId>& catalogue_nodes);

Item EncodeTableItem(const TableInfo& table);
// Safe on anything. Errors: kDataLoss naming what is wrong.
absl::StatusOr<TableInfo> DecodeTableItem(const Item& item);

// Holds while the entry is that of the table `id` at `version`: versions of another table that got
// the same name count from 1 again, so the version alone would let a late write of somebody who
// knew the one before replace or remove it.
Condition TableIs(TableId id, uint64_t version);

// A table without its partitions, as metadata nodes and routers keep it.
std::string EncodeDescriptor(const TableInfo& table);
absl::StatusOr<TableInfo> DecodeDescriptor(std::string_view bytes);

// The bytes of a wire::CreateReplicaRequest. Equal arguments give equal bytes: nodes compare them.
std::string EncodeCreateReplica(const TableInfo& table, const PartitionInfo& partition);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_CATALOGUE_H_
