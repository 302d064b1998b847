// What a table's items must have: a partition key and, when the table has one, a sort key.
//
//   TableSchema schema{.partition_key = {"category", KeyType::kString},
//                      .sort_key = KeyAttribute{"code", KeyType::kString}};
//   DYNLIB_RETURN_IF_ERROR(ValidateSchema(schema));
//
// Threads: values.
#ifndef DYNLIB_CLUSTER_TABLE_SCHEMA_H_
#define DYNLIB_CLUSTER_TABLE_SCHEMA_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"

namespace dynlib::cluster {

inline constexpr size_t kKeyAttributeNameBytesMax = 255;

// The types that order. The numbers are written to disk and are those of ValueType.
enum class KeyType : uint8_t {
  kNumber = static_cast<uint8_t>(ValueType::kNumber),
  kString = static_cast<uint8_t>(ValueType::kString),
  kBinary = static_cast<uint8_t>(ValueType::kBinary),
};
inline ValueType ToValueType(KeyType type) { return static_cast<ValueType>(type); }

struct KeyAttribute {
  std::string name;  // 1 to 255 bytes.
  KeyType type = KeyType::kString;
  friend bool operator==(const KeyAttribute&, const KeyAttribute&) = default;
};

struct TableSchema {
  KeyAttribute partition_key;
  std::optional<KeyAttribute> sort_key;
  friend bool operator==(const TableSchema&, const TableSchema&) = default;
};

// Errors: kInvalidArgument naming the field, the value and the allowed range: names of 1 to 255
// bytes of UTF-8, different from one another, and a known type.
absl::Status ValidateSchema(const TableSchema& schema);

// The first byte is the format's version.
std::string EncodeSchema(const TableSchema& schema);
// Safe on any bytes. Errors: kDataLoss when the bytes are not those of a valid schema.
absl::StatusOr<TableSchema> DecodeSchema(std::string_view bytes);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_SCHEMA_H_
