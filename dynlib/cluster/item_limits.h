// What a table accepts, and what it costs: DynamoDB's limits and its rules of size.
//
//   DYNLIB_RETURN_IF_ERROR(ValidateItem(schema, item));
//   uint64_t cost = WriteUnits(ItemSizeBytes(item));
//
// Size of an item = the bytes of its attribute names + the sizes of their values:
//   string, binary   its bytes
//   number           one byte for two significant digits, rounded up, + 1
//   boolean, null    1
//   list, map        3 + for each element 1 and its size, with a map's names
//   set              the sizes of its elements
//
// Threads: pure functions.
#ifndef DYNLIB_CLUSTER_ITEM_LIMITS_H_
#define DYNLIB_CLUSTER_ITEM_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

inline constexpr size_t kItemSizeBytesMax = 400 * 1024;
inline constexpr size_t kAttributeNameBytesMax = 64 * 1024 - 1;

size_t ValueSizeBytes(const Value& value);
size_t ItemSizeBytes(const Item& item);

// Errors: kInvalidArgument naming the attribute, what it has and the limit, when a key attribute is
// missing, of the wrong type, empty or too long; the item is larger than 400 KB; a name is empty,
// longer than 65,535 bytes or not UTF-8; lists and maps are nested deeper than 32; a set is empty;
// a string is not UTF-8.
absl::Status ValidateItem(const TableSchema& schema, const Item& item);
// The part that concerns one value, for operands. `attribute` goes into messages.
absl::Status ValidateValue(std::string_view attribute, const Value& value);
// The part that concerns a name.
absl::Status ValidateAttributeName(std::string_view name);

// Write capacity units: one for each 1 KB begun, at least one.
uint64_t WriteUnits(size_t item_size_bytes);
// Read capacity in half units, so that it stays an integer: for each 4 KB begun two for a strongly
// consistent read, one for an eventually consistent one; at least one 4 KB.
uint64_t ReadHalfUnits(size_t item_size_bytes, bool strong);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ITEM_LIMITS_H_
