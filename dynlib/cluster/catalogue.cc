#include "dynlib/cluster/catalogue.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr char kTableAttribute[] = "table";
constexpr int kMembersMax = 7;

void ToWire(const TableInfo& table, const PartitionInfo& partition, wire::Partition& out) {
  out.set_id(ToUint(partition.id));
  out.set_table(ToUint(table.id));
  out.set_first(partition.first);
  out.set_end(partition.end);
  for (const PartitionMember& member : partition.members) {
    wire::Member& to = *out.add_members();
    to.set_replica(ToUint(member.replica));
    to.set_node(ToUint(member.node));
  }
}

absl::StatusOr<PartitionInfo> FromWire(const wire::Partition& from) {
  PartitionInfo partition{
      .id = PartitionId{from.id()}, .first = from.first(), .end = from.end(), .members = {}};
  if (from.id() == 0) return absl::DataLossError("a partition has id 0");
  if (from.members_size() < 1 || from.members_size() > kMembersMax) {
    return absl::DataLossError(Cat("partition ", from.id(), " has ", from.members_size(),
                                   " members; allowed: 1 to ", kMembersMax));
  }
  for (const wire::Member& member : from.members()) {
    if (member.replica() == 0 || member.node() == 0)
      return absl::DataLossError(Cat("partition ", from.id(), " has a member without an id"));
    partition.members.push_back({ReplicaId{member.replica()}, NodeId{member.node()}});
  }
  return partition;
}

// From the first key to the last, without gap or overlap.
absl::Status CheckPartitions(const std::vector<PartitionInfo>& partitions) {
  std::string_view reached;
  for (size_t i = 0; i < partitions.size(); ++i) {
    const PartitionInfo& partition = partitions[i];
    const bool last = i + 1 == partitions.size();
    if (partition.first != reached || partition.end.empty() != last ||
        (!last && partition.end <= partition.first)) {
      return absl::DataLossError(Cat("partition ", partition.id, " spans [",
                                     Escape(partition.first), ", ", Escape(partition.end),
                                     "), with a gap or an overlap"));
    }
    reached = partition.end;
  }
  return absl::OkStatus();
}

absl::StatusOr<TableInfo> ParseTable(std::string_view bytes) {
  wire::Table from;
  if (!from.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return absl::DataLossError("its bytes do not parse");
  if (from.id() == 0 || from.partitions_size() == 0)
    return absl::DataLossError("it has no id or no partitions");
  TableInfo table{.id = TableId{from.id()}, .name = from.name(), .schema = {}, .partitions = {}};
  DYNLIB_ASSIGN_OR_RETURN(table.schema, DecodeSchema(from.schema()));
  for (const wire::Partition& partition : from.partitions()) {
    DYNLIB_ASSIGN_OR_RETURN(PartitionInfo info, FromWire(partition));
    table.partitions.push_back(std::move(info));
  }
  DYNLIB_RETURN_IF_ERROR(CheckPartitions(table.partitions));
  return table;
}

}  // namespace

const PartitionInfo& TableInfo::PartitionOf(std::string_view storage_key) const {
  DYNLIB_CHECK(!partitions.empty());
  auto after = std::upper_bound(
      partitions.begin(), partitions.end(), storage_key,
      [](std::string_view key, const PartitionInfo& partition) { return key < partition.first; });
  return after == partitions.begin() ? *after : *std::prev(after);
}

const TableSchema& CatalogueSchema() {
  static const TableSchema* const schema = new TableSchema{
      .partition_key = {std::string(kCatalogueKey), KeyType::kString}, .sort_key = {}};
  return *schema;
}

TableInfo CatalogueTable(const std::vector<NodeId>& catalogue_nodes) {
  PartitionInfo partition{.id = kCataloguePartition, .first = {}, .end = {}, .members = {}};
  for (size_t i = 0; i < catalogue_nodes.size(); ++i)
    partition.members.push_back({ReplicaId{i + 1}, catalogue_nodes[i]});
  return {.id = kCatalogueTable,
          .name = std::string(kCatalogueName),
          .schema = CatalogueSchema(),
          .partitions = {std::move(partition)}};
}

Item EncodeTableItem(const TableInfo& table) {
  wire::Table to;
  to.set_id(ToUint(table.id));
  to.set_name(table.name);
  to.set_schema(EncodeSchema(table.schema));
  for (const PartitionInfo& partition : table.partitions)
    ToWire(table, partition, *to.add_partitions());
  Item item;
  item[std::string(kCatalogueKey)] = Value::String(table.name);
  item[kTableAttribute] = Value::Binary(to.SerializeAsString());
  return item;
}

absl::StatusOr<TableInfo> DecodeTableItem(const Item& item) {
  const auto name = item.find(kCatalogueKey);
  if (name == item.end() || !name->second.is(ValueType::kString))
    return absl::DataLossError("an item of the catalogue has no name");
  auto fail = [&](std::string_view what) {
    return absl::DataLossError(
        Cat("table '", Escape(name->second.string()), "' in the catalogue: ", what));
  };
  const auto bytes = item.find(kTableAttribute);
  if (bytes == item.end() || !bytes->second.is(ValueType::kBinary))
    return fail("no binary attribute 'table'");
  absl::StatusOr<TableInfo> table = ParseTable(bytes->second.binary());
  if (!table.ok()) return fail(ToStd(table.status().message()));
  if (table->name != name->second.string()) return fail("it describes a table of another name");
  return table;
}

std::string EncodeCreateReplica(const TableInfo& table, const PartitionInfo& partition) {
  wire::CreateReplicaRequest request;
  ToWire(table, partition, *request.mutable_partition());
  request.set_schema(EncodeSchema(table.schema));
  return request.SerializeAsString();
}

}  // namespace dynlib::cluster
