#include "dynlib/partition_map/map_entry.h"

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"

namespace dynlib::partition_map {
namespace {

constexpr size_t kIdBytes = 8;

void PutBigEndian(std::string& out, uint64_t number) {
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(number >> shift));
}

// `bytes` has at least eight.
TableId ReadTableId(std::string_view bytes) {
  uint64_t number = 0;
  for (size_t i = 0; i < kIdBytes; ++i) number = number << 8 | static_cast<uint8_t>(bytes[i]);
  return TableId{number};
}

absl::Status NotAKey() { return absl::DataLossError("not a key of the partition map"); }

}  // namespace

std::string EntryKey(TableId table) {
  std::string key(kTableKeys);
  PutBigEndian(key, ToUint(table));
  return key;
}

std::string EntryKey(TableId table, std::string_view first) {
  std::string key;
  key.reserve(1 + kIdBytes + first.size());
  key += kPartitionKeys;
  PutBigEndian(key, ToUint(table));
  key += first;
  return key;
}

std::optional<TableId> TableOfPartitionKey(std::string_view key) {
  if (key.size() < 1 + kIdBytes || !key.starts_with(kPartitionKeys)) return std::nullopt;
  return ReadTableId(key.substr(1));
}

absl::StatusOr<PartitionRecord> DecodePartitionEntry(std::string_view key, std::string_view value) {
  const std::optional<TableId> table = TableOfPartitionKey(key);
  if (!table.has_value()) return NotAKey();
  return DecodePartitionValue(*table, key.substr(1 + kIdBytes), value);
}

absl::StatusOr<TableRecord> DecodeTableEntry(std::string_view key, std::string_view value) {
  if (key.size() != 1 + kIdBytes || !key.starts_with(kTableKeys)) return NotAKey();
  return DecodeTableValue(ReadTableId(key.substr(1)), value);
}

absl::StatusOr<MapEntry> DecodeEntry(std::string_view key, std::string_view value) {
  if (key.starts_with(kTableKeys)) {
    DYNLIB_ASSIGN_OR_RETURN(TableRecord record, DecodeTableEntry(key, value));
    return MapEntry(std::move(record));
  }
  DYNLIB_ASSIGN_OR_RETURN(PartitionRecord record, DecodePartitionEntry(key, value));
  return MapEntry(std::move(record));
}

}  // namespace dynlib::partition_map
