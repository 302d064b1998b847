#include "dynlib/cluster/catalogue.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr char kTableAttribute[] = "table";
constexpr int kMembersMax = 7;
constexpr uint64_t kTableUnitsMax = 1'000'000'000;

void ToWire(const TableInfo& table, const PartitionInfo& partition, wire::Partition& out) {
  out.set_id(ToUint(partition.id));
  out.set_table(ToUint(table.id));
  out.set_first(partition.first);
  out.set_end(partition.end);
  for (const PartitionMember& member : partition.members) {
    wire::Member& to = *out.add_members();
    to.set_replica(ToUint(member.replica));
    to.set_node(ToUint(member.node));
    to.set_kind(member.log ? wire::LOG : wire::STORAGE);
  }
  out.set_generation(partition.generation);
}

void ToWire(const TableInfo& table, wire::Table& to) {
  to.set_id(ToUint(table.id));
  to.set_name(table.name);
  to.set_schema(EncodeSchema(table.schema));
  to.mutable_throughput()->set_on_demand(table.throughput.on_demand);
  to.mutable_throughput()->set_read_units(table.throughput.read_units);
  to.mutable_throughput()->set_write_units(table.throughput.write_units);
  to.set_version(table.version);
  to.set_deleting(table.deleting);
  to.set_creating(table.creating);
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
    partition.members.push_back(
        {ReplicaId{member.replica()}, NodeId{member.node()}, member.kind() == wire::LOG});
  }
  partition.generation = from.generation();
  return partition;
}

Value IdValue(TableId id) {
  std::string bytes;
  PutFixed64(bytes, ToUint(id));
  return Value::Binary(std::move(bytes));
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

// All but the partitions.
absl::StatusOr<TableInfo> FromWire(const wire::Table& from) {
  if (from.id() == 0 || from.version() == 0)
    return absl::DataLossError("it has no id or no version");
  TableInfo table{.id = TableId{from.id()}, .name = from.name(), .schema = {}, .partitions = {}};
  DYNLIB_ASSIGN_OR_RETURN(table.schema, DecodeSchema(from.schema()));
  if (from.has_throughput()) {
    table.throughput = {.on_demand = from.throughput().on_demand(),
                        .read_units = from.throughput().read_units(),
                        .write_units = from.throughput().write_units()};
    if (absl::Status status = Validate(table.throughput); !status.ok())
      return absl::DataLossError(status.message());
  }
  table.version = from.version();
  table.deleting = from.deleting();
  table.creating = from.creating();
  if (table.creating && !table.deleting)
    return absl::DataLossError("it is being created, and yet to be shown");
  return table;
}

absl::StatusOr<TableInfo> ParseTable(std::string_view bytes) {
  wire::Table from;
  if (!from.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return absl::DataLossError("its bytes do not parse");
  DYNLIB_ASSIGN_OR_RETURN(TableInfo table, FromWire(from));
  if (from.partitions_size() == 0) return absl::DataLossError("it has no partitions");
  for (const wire::Partition& partition : from.partitions()) {
    DYNLIB_ASSIGN_OR_RETURN(PartitionInfo info, FromWire(partition));
    table.partitions.push_back(std::move(info));
  }
  DYNLIB_RETURN_IF_ERROR(CheckPartitions(table.partitions));
  return table;
}

}  // namespace

absl::Status Validate(const Throughput& throughput) {
  for (const auto& [name, units] : {std::pair("read_units", throughput.read_units),
                                    std::pair("write_units", throughput.write_units)}) {
    if (throughput.on_demand ? units != 0 : units < 1 || units > kTableUnitsMax) {
      return absl::InvalidArgumentError(
          throughput.on_demand
              ? Cat("throughput.", name, " is ", units, "; allowed with on_demand: 0")
              : Cat("throughput.", name, " is ", units, "; allowed: 1 to ", kTableUnitsMax));
    }
  }
  return absl::OkStatus();
}

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
  ToWire(table, to);
  for (const PartitionInfo& partition : table.partitions)
    ToWire(table, partition, *to.add_partitions());
  Item item;
  item[std::string(kCatalogueKey)] = Value::String(table.name);
  item[kTableAttribute] = Value::Binary(to.SerializeAsString());
  item[std::string(kVersionAttribute)] = Value::Number(static_cast<int64_t>(table.version));
  item[std::string(kTableIdAttribute)] = IdValue(table.id);
  return item;
}

Condition TableIs(TableId id, uint64_t version) {
  return Condition{{{.attribute = std::string(kTableIdAttribute),
                     .op = Clause::Op::kEqual,
                     .operand = IdValue(id)},
                    {.attribute = std::string(kVersionAttribute),
                     .op = Clause::Op::kEqual,
                     .operand = Value::Number(static_cast<int64_t>(version))}}};
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

std::string EncodeDescriptor(const TableInfo& table) {
  wire::Table to;
  ToWire(table, to);
  return to.SerializeAsString();
}

absl::StatusOr<TableInfo> DecodeDescriptor(std::string_view bytes) {
  wire::Table from;
  if (!from.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return absl::DataLossError("a table's descriptor does not parse");
  return FromWire(from);
}

std::string EncodeCreateReplica(const TableInfo& table, const PartitionInfo& partition) {
  wire::CreateReplicaRequest request;
  ToWire(table, partition, *request.mutable_partition());
  request.set_schema(EncodeSchema(table.schema));
  return request.SerializeAsString();
}

}  // namespace dynlib::cluster
