#include "dynlib/cluster/table_placement.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kNameBytesMin = 3;
constexpr size_t kNameBytesMax = 255;
constexpr size_t kZones = 3;
constexpr uint64_t kShareOfNode = 100;  // a new replica counts for one part in so many

bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

absl::Status ValidateName(const std::string& name) {
  if (name.size() < kNameBytesMin || name.size() > kNameBytesMax ||
      !std::all_of(name.begin(), name.end(), IsNameByte)) {
    return absl::InvalidArgumentError(Cat("name is '", Escape(name), "'; allowed: ", kNameBytesMin,
                                          " to ", kNameBytesMax,
                                          " characters of a-z A-Z 0-9 _ - ."));
  }
  if (name == kCatalogueName)
    return absl::InvalidArgumentError(
        Cat("name is '", kCatalogueName, "', which every cluster has"));
  return absl::OkStatus();
}

PartitionId PartitionIdOf(TableId table, uint64_t number) {
  std::string seed;
  PutFixed64(seed, ToUint(table));
  PutVarint(seed, number);
  return PartitionId{Checksum(seed) | uint64_t{1} << 63};
}

// The least hash of partition `index`: the hash space in equal parts.
uint64_t FirstHash(size_t index, size_t partitions) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(index) << 64) / partitions);
}

// Of one partition.
uint64_t UnitsOf(const Throughput& throughput, size_t partitions) {
  return (throughput.read_units + throughput.write_units) / std::max<size_t>(partitions, 1);
}

void CountReplica(NodeId id, uint64_t units, std::vector<PlacementNode>& nodes) {
  for (PlacementNode& node : nodes) {
    if (node.info.id != id) continue;
    node.replicas++;
    node.used_bytes += node.info.capacity_bytes / kShareOfNode;
    node.used_units += std::max(units, node.info.capacity_units / kShareOfNode);
  }
}

absl::StatusOr<std::vector<PartitionMember>> PlacePartition(const std::vector<PlacementNode>& nodes,
                                                            const std::vector<std::string>& zones,
                                                            uint64_t number) {
  std::vector<PartitionMember> members;
  PlacementWish wish;
  for (size_t i = 0; i < std::min(kZones, zones.size()); ++i) {
    wish.zone = zones[(number + i) % zones.size()];
    DYNLIB_ASSIGN_OR_RETURN(const NodeId node, ChooseNode(nodes, wish));
    wish.others.push_back(node);
    members.push_back({ReplicaId{i + 1}, node});
  }
  return members;
}

}  // namespace

absl::Status Validate(const TableSpec& spec, const ClusterConfig& config) {
  DYNLIB_RETURN_IF_ERROR(ValidateName(spec.name));
  if (spec.partitions < 1 || spec.partitions > kTablePartitionsMax) {
    return absl::InvalidArgumentError(
        Cat("partitions is ", spec.partitions, "; allowed: 1 to ", kTablePartitionsMax));
  }
  DYNLIB_RETURN_IF_ERROR(Validate(spec.throughput));
  DYNLIB_RETURN_IF_ERROR(ValidateSchema(spec.schema));
  std::set<std::string> zones;
  for (const NodeInfo& node : config.nodes) zones.insert(node.location.zone);
  if (zones.size() >= kZones || config.nodes.size() == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("the cluster has ", config.nodes.size(), " nodes in ",
                                        zones.size(), " zones; allowed: ", kZones,
                                        " zones or more, or a single node"));
}

absl::StatusOr<TableInfo> PlaceTable(std::vector<PlacementNode> nodes, const TableSpec& spec,
                                     TableId id) {
  std::set<std::string> by_name;
  for (const PlacementNode& node : nodes) by_name.insert(node.info.location.zone);
  const std::vector<std::string> zones(by_name.begin(), by_name.end());
  TableInfo table{.id = {},
                  .name = spec.name,
                  .schema = spec.schema,
                  .partitions = {},
                  .throughput = spec.throughput};
  // Tables of one partition shall not all be led in the same zone.
  const uint64_t start = Checksum(spec.name) % (uint64_t{1} << 32);
  for (size_t i = 0; i < spec.partitions; ++i) {
    PartitionInfo partition;
    DYNLIB_ASSIGN_OR_RETURN(partition.members, PlacePartition(nodes, zones, start + i));
    if (i > 0) partition.first = HashBoundary(FirstHash(i, spec.partitions));
    if (i + 1 < spec.partitions) partition.end = HashBoundary(FirstHash(i + 1, spec.partitions));
    for (const PartitionMember& member : partition.members)
      CountReplica(member.node, UnitsOf(spec.throughput, spec.partitions), nodes);
    table.partitions.push_back(std::move(partition));
  }
  SetIds(id, table);
  return table;
}

void CountTable(const TableInfo& table, std::vector<PlacementNode>& nodes) {
  const uint64_t units = UnitsOf(table.throughput, table.partitions.size());
  for (const PartitionInfo& partition : table.partitions) {
    for (const PartitionMember& member : partition.members) CountReplica(member.node, units, nodes);
  }
}

void SetIds(TableId id, TableInfo& table) {
  table.id = id;
  for (size_t i = 0; i < table.partitions.size(); ++i)
    table.partitions[i].id = PartitionIdOf(id, i);
}

}  // namespace dynlib::cluster
