// How tables and partitions lie in the map's Perkle tree: internal to partition_map and memds.
//
//   key                                       value
//   0x01, table id (8 bytes, big-endian)          EncodeValue(TableRecord)
//   0x02, table id (8 bytes, big-endian), first   EncodeValue(PartitionRecord)
//
// Tables come first, so that two maps that are synchronised in key order exchange tombstones before
// the partitions that these make superfluous. What the key says is not said again in the value.
#ifndef DYNLIB_PARTITION_MAP_MAP_ENTRY_H_
#define DYNLIB_PARTITION_MAP_MAP_ENTRY_H_

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::partition_map {

inline constexpr std::string_view kTableKeys("\x01", 1);      // what keys of tables begin with
inline constexpr std::string_view kPartitionKeys("\x02", 1);  // and those of partitions

// What the keys of one table's partitions begin with.
inline constexpr size_t kPartitionKeyPrefixBytes = 9;

std::string EntryKey(TableId table);
// With an empty `first`, what the keys of all partitions of the table begin with.
std::string EntryKey(TableId table, std::string_view first);

// The table of a partition's key, or of the beginning of one; nothing for other keys.
std::optional<TableId> TableOfPartitionKey(std::string_view key);

// kDataLoss unless it is the key of a partition.
absl::StatusOr<PartitionRecord> DecodePartitionEntry(std::string_view key, std::string_view value);
absl::StatusOr<TableRecord> DecodeTableEntry(std::string_view key, std::string_view value);

using MapEntry = std::variant<TableRecord, PartitionRecord>;
// Safe on any bytes; kDataLoss for what no record is kept as.
absl::StatusOr<MapEntry> DecodeEntry(std::string_view key, std::string_view value);

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_MAP_ENTRY_H_
