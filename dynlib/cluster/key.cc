#include "dynlib/cluster/key.h"

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/utf8.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kHashBytes = 8;

// Within a string or binary key a zero byte is written as 00 FF, and 00 01 ends it: less than any
// byte that could follow, so "a" sorts before "a\0" and before "ab".
constexpr char kEscape = '\x00';
constexpr char kEscapedZero = '\xff';
constexpr char kTerminator = '\x01';

// Which of the two keys, with its limit: for messages.
struct Role {
  std::string_view name;
  const KeyAttribute& attribute;
  size_t bytes_max;
};

Role PartitionRole(const TableSchema& schema) {
  return {"partition key", schema.partition_key, kPartitionKeyBytesMax};
}
Role SortRole(const TableSchema& schema) {
  return {"sort key", *schema.sort_key, kSortKeyBytesMax};
}

const std::string& BytesOf(const Value& value) {
  return value.is(ValueType::kString) ? value.string() : value.binary();
}

void AppendEscaped(std::string& out, std::string_view bytes) {
  for (char byte : bytes) {
    out.push_back(byte);
    if (byte == kEscape) out.push_back(kEscapedZero);
  }
}

absl::Status ValidateKeyValue(const Role& role, const Value& value) {
  std::string what = Cat(role.name, " '", Escape(role.attribute.name), "'");
  ValueType wanted = ToValueType(role.attribute.type);
  if (!value.is(wanted)) {
    return absl::InvalidArgumentError(Cat(what, ": its value ", value.ToString(64), " is a ",
                                          ValueTypeName(value.type()), ", the table wants a ",
                                          ValueTypeName(wanted)));
  }
  if (wanted == ValueType::kNumber) return absl::OkStatus();
  const std::string& bytes = BytesOf(value);
  if (bytes.empty() || bytes.size() > role.bytes_max) {
    return absl::InvalidArgumentError(
        Cat(what, ": its value has ", bytes.size(), " bytes, allowed are 1 to ", role.bytes_max));
  }
  if (wanted == ValueType::kString && !IsUtf8(bytes)) {
    return absl::InvalidArgumentError(Cat(what, ": its value '", Escape(bytes), "' is not UTF-8"));
  }
  return absl::OkStatus();
}

// The tag of a type is its number; numbers end themselves.
void AppendKeyValue(std::string& out, const Value& value) {
  PutFixed8(out, static_cast<uint8_t>(value.type()));
  if (value.is(ValueType::kNumber)) return value.number().AppendOrdered(out);
  AppendEscaped(out, BytesOf(value));
  out.push_back(kEscape);
  out.push_back(kTerminator);
}

absl::Status CheckAndAppend(std::string& out, const Role& role, const Value& value) {
  DYNLIB_RETURN_IF_ERROR(ValidateKeyValue(role, value));
  AppendKeyValue(out, value);
  return absl::OkStatus();
}

std::string ReadEscaped(ByteReader& in) {
  std::string bytes;
  while (in.ok()) {
    char byte = static_cast<char>(in.Fixed8());
    if (byte != kEscape) {
      bytes.push_back(byte);
      continue;
    }
    char next = static_cast<char>(in.Fixed8());
    if (next == kTerminator) break;
    if (next != kEscapedZero) in.Fail();
    bytes.push_back(kEscape);
  }
  return bytes;
}

Value ReadKeyValue(ByteReader& in, const Role& role) {
  Value value;
  auto type = static_cast<ValueType>(in.Fixed8());
  if (type == ValueType::kNumber) {
    value = Value::Number(Decimal::ReadOrdered(in));
  } else if (type == ValueType::kString) {
    value = Value::String(ReadEscaped(in));
  } else if (type == ValueType::kBinary) {
    value = Value::Binary(ReadEscaped(in));
  }
  if (in.ok() && !ValidateKeyValue(role, value).ok()) in.Fail();
  return value;
}

// The least bytes above everything that begins with `prefix`.
std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  // The bytes of a key always hold a tag, which is less than FF.
  DYNLIB_CHECK(!prefix.empty());
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

// The least bytes above `key`.
std::string After(std::string key) {
  key.push_back('\0');
  return key;
}

absl::StatusOr<std::string> EncodePartition(const TableSchema& schema, const Value& partition) {
  std::string encoded;
  DYNLIB_RETURN_IF_ERROR(CheckAndAppend(encoded, PartitionRole(schema), partition));
  std::string key = HashBoundary(Checksum(encoded));
  key += encoded;
  return key;
}

absl::Status NoSortKey(std::string_view doing) {
  return absl::InvalidArgumentError(Cat(doing, ": the table has no sort key"));
}

absl::StatusOr<const Value*> FindKey(const Role& role, const Item& item) {
  auto found = item.find(role.attribute.name);
  if (found != item.end()) return &found->second;
  return absl::InvalidArgumentError(
      Cat(role.name, " '", Escape(role.attribute.name), "' is missing from the item"));
}

absl::StatusOr<KeyRange> BeginsWithRange(const Role& role, const std::string& base,
                                         const Value& prefix) {
  if (prefix.is(ValueType::kNumber)) {
    return absl::InvalidArgumentError(
        Cat("begins_with on sort key '", Escape(role.attribute.name), "': numbers have no prefix"));
  }
  std::string first = base;
  PutFixed8(first, static_cast<uint8_t>(prefix.type()));
  AppendEscaped(first, BytesOf(prefix));
  std::string end = PrefixEnd(first);
  return KeyRange{std::move(first), std::move(end)};
}

absl::StatusOr<KeyRange> BetweenRange(const Role& role, const std::string& base, std::string low,
                                      const SortCondition& sort) {
  std::string high = base;
  DYNLIB_RETURN_IF_ERROR(CheckAndAppend(high, role, sort.high));
  if (low > high) {
    return absl::InvalidArgumentError(Cat("between on sort key '", Escape(role.attribute.name),
                                          "': the lower end ", sort.operand.ToString(64),
                                          " is above the upper end ", sort.high.ToString(64)));
  }
  return KeyRange{std::move(low), After(std::move(high))};
}

}  // namespace

absl::StatusOr<PrimaryKey> KeyOf(const TableSchema& schema, const Item& item) {
  PrimaryKey key;
  DYNLIB_ASSIGN_OR_RETURN(const Value* partition, FindKey(PartitionRole(schema), item));
  DYNLIB_RETURN_IF_ERROR(ValidateKeyValue(PartitionRole(schema), *partition));
  key.partition = *partition;
  if (schema.sort_key) {
    DYNLIB_ASSIGN_OR_RETURN(const Value* sort, FindKey(SortRole(schema), item));
    DYNLIB_RETURN_IF_ERROR(ValidateKeyValue(SortRole(schema), *sort));
    key.sort = *sort;
  }
  return key;
}

absl::StatusOr<std::string> EncodeKey(const TableSchema& schema, const Value& partition,
                                      const std::optional<Value>& sort) {
  DYNLIB_ASSIGN_OR_RETURN(std::string key, EncodePartition(schema, partition));
  if (!schema.sort_key) {
    if (sort) return NoSortKey(Cat("sort key ", sort->ToString(64), " given"));
    return key;
  }
  if (!sort) {
    return absl::InvalidArgumentError(
        Cat("sort key '", Escape(schema.sort_key->name), "' is missing"));
  }
  DYNLIB_RETURN_IF_ERROR(CheckAndAppend(key, SortRole(schema), *sort));
  return key;
}

absl::StatusOr<std::string> EncodeKey(const TableSchema& schema, const PrimaryKey& key) {
  return EncodeKey(schema, key.partition, key.sort);
}

absl::StatusOr<std::string> EncodeItemKey(const TableSchema& schema, const Item& item) {
  DYNLIB_ASSIGN_OR_RETURN(const Value* partition, FindKey(PartitionRole(schema), item));
  DYNLIB_ASSIGN_OR_RETURN(std::string key, EncodePartition(schema, *partition));
  if (!schema.sort_key) return key;
  DYNLIB_ASSIGN_OR_RETURN(const Value* sort, FindKey(SortRole(schema), item));
  DYNLIB_RETURN_IF_ERROR(CheckAndAppend(key, SortRole(schema), *sort));
  return key;
}

absl::StatusOr<PrimaryKey> DecodeKey(const TableSchema& schema, std::string_view storage_key) {
  ByteReader in(storage_key);
  in.Bytes(kHashBytes);
  PrimaryKey key;
  std::string_view encoded = in.rest();
  key.partition = ReadKeyValue(in, PartitionRole(schema));
  encoded.remove_suffix(in.rest().size());
  if (in.ok() && Checksum(encoded) != HashOfStorageKey(storage_key)) in.Fail();
  if (schema.sort_key) key.sort = ReadKeyValue(in, SortRole(schema));
  if (!in.done()) {
    return absl::DataLossError(Cat("storage key of ", storage_key.size(),
                                   " bytes is not a key of its table: ", Escape(storage_key)));
  }
  return key;
}

absl::StatusOr<uint64_t> PartitionHash(const TableSchema& schema, const Value& partition) {
  DYNLIB_ASSIGN_OR_RETURN(std::string key, EncodePartition(schema, partition));
  return HashOfStorageKey(key);
}

uint64_t HashOfStorageKey(std::string_view storage_key) {
  if (storage_key.size() < kHashBytes) return 0;
  return __builtin_bswap64(LoadFixed<uint64_t>(storage_key.data()));
}

std::string HashBoundary(uint64_t hash) {
  std::string key;
  PutFixed64(key, __builtin_bswap64(hash));
  return key;
}

absl::StatusOr<KeyRange> QueryRange(const TableSchema& schema, const Value& partition,
                                    const SortCondition& sort) {
  DYNLIB_ASSIGN_OR_RETURN(std::string base, EncodePartition(schema, partition));
  std::string base_end = PrefixEnd(base);
  if (!schema.sort_key) {
    if (sort.op != SortCondition::Op::kAll) return NoSortKey("query by sort key");
    // The one key: its encoding has no more to follow.
    std::string end = After(base);
    return KeyRange{std::move(base), std::move(end)};
  }
  if (sort.op == SortCondition::Op::kAll) return KeyRange{std::move(base), std::move(base_end)};
  const Role role = SortRole(schema);
  std::string bound = base;
  DYNLIB_RETURN_IF_ERROR(CheckAndAppend(bound, role, sort.operand));
  switch (sort.op) {
    case SortCondition::Op::kAll:
      break;
    case SortCondition::Op::kEqual:
      return KeyRange{bound, After(bound)};
    case SortCondition::Op::kLess:
      return KeyRange{std::move(base), std::move(bound)};
    case SortCondition::Op::kLessEqual:
      return KeyRange{std::move(base), After(std::move(bound))};
    case SortCondition::Op::kGreater:
      return KeyRange{After(std::move(bound)), std::move(base_end)};
    case SortCondition::Op::kGreaterEqual:
      return KeyRange{std::move(bound), std::move(base_end)};
    case SortCondition::Op::kBetween:
      return BetweenRange(role, base, std::move(bound), sort);
    case SortCondition::Op::kBeginsWith:
      return BeginsWithRange(role, base, sort.operand);
  }
  return absl::InvalidArgumentError(Cat("sort condition op ", sort.op, " is unknown"));
}

}  // namespace dynlib::cluster
