// Where an item is in a table: bytes whose memcmp order is the order of the keys.
//
//   storage key = hash of the partition key, 8 bytes, big-endian
//               + encoded partition key
//               + encoded sort key, when the table has one
//
// All items of one partition key are together, ordered by sort key, and partition keys are spread
// evenly over the 64-bit hash space, which partitions of a table divide among them. An encoded
// value ends itself, so no partition key's items lie within the range of another's.
//
//   DYNLIB_ASSIGN_OR_RETURN(std::string key, EncodeItemKey(schema, item));
//   DYNLIB_ASSIGN_OR_RETURN(
//       KeyRange range,
//       QueryRange(schema, Value::String("Lu"), SortCondition::BeginsWith(Value::String("0104"))));
//   for (...) scan [range.first, range.end)
//
// Errors: kInvalidArgument naming the key attribute, its value or size, and the limit: a missing
// key, one of the wrong type, an empty one, a partition key over 2,048 bytes, a sort key over 1,024
// bytes.
//
// Threads: pure functions.
#ifndef DYNLIB_CLUSTER_KEY_H_
#define DYNLIB_CLUSTER_KEY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

inline constexpr size_t kPartitionKeyBytesMax = 2048;
inline constexpr size_t kSortKeyBytesMax = 1024;
// The longest storage key: each byte of either key may be a zero, which takes two bytes, and each
// key has a tag and a terminator.
inline constexpr size_t kStorageKeyBytesMax =
    8 + (2 * kPartitionKeyBytesMax + 3) + (2 * kSortKeyBytesMax + 3);

// The key attributes of one item.
struct PrimaryKey {
  Value partition;
  std::optional<Value> sort;
  friend bool operator==(const PrimaryKey&, const PrimaryKey&) = default;
};

// The keys k with first <= k < end.
struct KeyRange {
  std::string first;
  std::string end;
  bool empty() const { return first >= end; }
  bool Contains(std::string_view key) const { return key >= first && key < end; }
  friend bool operator==(const KeyRange&, const KeyRange&) = default;
};

// Which sort keys of a partition key a query wants: DynamoDB's key conditions.
struct SortCondition {
  enum class Op : uint8_t {
    kAll,
    kEqual,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
    kBetween,     // Both ends included; low > high is refused, as DynamoDB does.
    kBeginsWith,  // Strings and binary alone.
  };
  Op op = Op::kAll;
  Value operand;  // Unused by kAll.
  Value high;     // The upper end of kBetween.

  static SortCondition All() { return {}; }
  static SortCondition Equal(Value v) { return {Op::kEqual, std::move(v), {}}; }
  static SortCondition Less(Value v) { return {Op::kLess, std::move(v), {}}; }
  static SortCondition LessEqual(Value v) { return {Op::kLessEqual, std::move(v), {}}; }
  static SortCondition Greater(Value v) { return {Op::kGreater, std::move(v), {}}; }
  static SortCondition GreaterEqual(Value v) { return {Op::kGreaterEqual, std::move(v), {}}; }
  static SortCondition Between(Value low, Value high) {
    return {Op::kBetween, std::move(low), std::move(high)};
  }
  static SortCondition BeginsWith(Value prefix) { return {Op::kBeginsWith, std::move(prefix), {}}; }
};

// The key attributes of `item`, copied out.
absl::StatusOr<PrimaryKey> KeyOf(const TableSchema& schema, const Item& item);

// The storage key. `sort` must be given exactly when the schema has a sort key.
absl::StatusOr<std::string> EncodeKey(const TableSchema& schema, const Value& partition,
                                      const std::optional<Value>& sort = std::nullopt);
absl::StatusOr<std::string> EncodeKey(const TableSchema& schema, const PrimaryKey& key);
absl::StatusOr<std::string> EncodeItemKey(const TableSchema& schema, const Item& item);

// Back from a storage key. Safe on any bytes. Errors: kDataLoss when EncodeKey does not write such
// bytes, the hash included.
absl::StatusOr<PrimaryKey> DecodeKey(const TableSchema& schema, std::string_view storage_key);

// XXH3-64 of the encoded partition key: where the item falls in the hash space.
absl::StatusOr<uint64_t> PartitionHash(const TableSchema& schema, const Value& partition);
// The hash that a storage key begins with; 0 when it is shorter than a hash.
uint64_t HashOfStorageKey(std::string_view storage_key);
// The least storage key of that hash or above: a boundary between partitions.
std::string HashBoundary(uint64_t hash);

// The storage keys of one partition key, or of those of its items whose sort key meets `sort`.
// Errors, besides those above: kInvalidArgument when `sort` is not kAll and the schema has no sort
// key.
absl::StatusOr<KeyRange> QueryRange(const TableSchema& schema, const Value& partition,
                                    const SortCondition& sort = {});

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_KEY_H_
