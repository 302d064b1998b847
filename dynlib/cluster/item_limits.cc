#include "dynlib/cluster/item_limits.h"

#include <algorithm>
#include <set>
#include <string>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/utf8.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kContainerBytes = 3;
constexpr size_t kElementBytes = 1;

size_t NumberSize(const Decimal& number) {
  return (static_cast<size_t>(number.digits()) + 1) / 2 + 1;
}

size_t SizeOf(const std::set<std::string>& strings) {
  size_t size = 0;
  for (const std::string& string : strings) size += string.size();
  return size;
}

absl::Status EmptySet(std::string_view attribute, const Value& value) {
  return absl::InvalidArgumentError(Cat("attribute '", Escape(attribute), "': an empty ",
                                        ValueTypeName(value.type()),
                                        " is not allowed; it needs at least 1 element"));
}

absl::Status CheckUtf8(std::string_view attribute, std::string_view text) {
  size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("attribute '", Escape(attribute), "': its string is not UTF-8 at byte ", valid));
}

// `depth`: how many lists and maps `value` is within.
absl::Status CheckValue(std::string_view attribute, const Value& value, int depth) {
  bool container = value.is(ValueType::kList) || value.is(ValueType::kMap);
  if (container && depth >= kNestingMax) {
    return absl::InvalidArgumentError(Cat("attribute '", Escape(attribute),
                                          "': lists and maps are nested more than ", kNestingMax,
                                          " levels deep"));
  }
  switch (value.type()) {
    case ValueType::kNull:
    case ValueType::kBoolean:
    case ValueType::kNumber:
    case ValueType::kBinary:
      return absl::OkStatus();
    case ValueType::kString:
      return CheckUtf8(attribute, value.string());
    case ValueType::kList:
      for (const Value& element : value.list()) {
        DYNLIB_RETURN_IF_ERROR(CheckValue(attribute, element, depth + 1));
      }
      return absl::OkStatus();
    case ValueType::kMap:
      for (const auto& [name, element] : value.map()) {
        DYNLIB_RETURN_IF_ERROR(ValidateAttributeName(name));
        DYNLIB_RETURN_IF_ERROR(CheckValue(attribute, element, depth + 1));
      }
      return absl::OkStatus();
    case ValueType::kStringSet:
      if (value.string_set().empty()) return EmptySet(attribute, value);
      for (const std::string& text : value.string_set()) {
        DYNLIB_RETURN_IF_ERROR(CheckUtf8(attribute, text));
      }
      return absl::OkStatus();
    case ValueType::kNumberSet:
      return value.number_set().empty() ? EmptySet(attribute, value) : absl::OkStatus();
    case ValueType::kBinarySet:
      return value.binary_set().empty() ? EmptySet(attribute, value) : absl::OkStatus();
  }
  return absl::OkStatus();
}

uint64_t Begun(size_t bytes, size_t unit) {
  return std::max<uint64_t>(1, bytes / unit + (bytes % unit != 0 ? 1 : 0));
}

}  // namespace

size_t ValueSizeBytes(const Value& value) {
  switch (value.type()) {
    case ValueType::kNull:
    case ValueType::kBoolean:
      return 1;
    case ValueType::kNumber:
      return NumberSize(value.number());
    case ValueType::kString:
      return value.string().size();
    case ValueType::kBinary:
      return value.binary().size();
    case ValueType::kStringSet:
      return SizeOf(value.string_set());
    case ValueType::kBinarySet:
      return SizeOf(value.binary_set());
    case ValueType::kNumberSet: {
      size_t size = 0;
      for (const Decimal& number : value.number_set()) size += NumberSize(number);
      return size;
    }
    case ValueType::kList: {
      size_t size = kContainerBytes;
      for (const Value& element : value.list()) size += kElementBytes + ValueSizeBytes(element);
      return size;
    }
    case ValueType::kMap: {
      size_t size = kContainerBytes;
      for (const auto& [name, element] : value.map()) {
        size += kElementBytes + name.size() + ValueSizeBytes(element);
      }
      return size;
    }
  }
  return 0;
}

size_t ItemSizeBytes(const Item& item) {
  size_t size = 0;
  for (const auto& [name, value] : item) size += name.size() + ValueSizeBytes(value);
  return size;
}

absl::Status ValidateAttributeName(std::string_view name) {
  if (name.empty() || name.size() > kAttributeNameBytesMax) {
    return absl::InvalidArgumentError(Cat("attribute name '", Escape(name), "' has ", name.size(),
                                          " bytes, allowed are 1 to ", kAttributeNameBytesMax));
  }
  if (!IsUtf8(name)) {
    return absl::InvalidArgumentError(Cat("attribute name '", Escape(name), "' is not UTF-8"));
  }
  return absl::OkStatus();
}

absl::Status ValidateValue(std::string_view attribute, const Value& value) {
  return CheckValue(attribute, value, 0);
}

absl::Status ValidateItem(const TableSchema& schema, const Item& item) {
  DYNLIB_RETURN_IF_ERROR(EncodeItemKey(schema, item).status());
  for (const auto& [name, value] : item) {
    DYNLIB_RETURN_IF_ERROR(ValidateAttributeName(name));
    DYNLIB_RETURN_IF_ERROR(ValidateValue(name, value));
  }
  // Last: the size of a value that is nested too deep is never asked for.
  size_t size = ItemSizeBytes(item);
  if (size > kItemSizeBytesMax) {
    return absl::InvalidArgumentError(Cat("item size ", size, " bytes is over the limit of ",
                                          kItemSizeBytesMax, " bytes (400 KB)"));
  }
  return absl::OkStatus();
}

uint64_t WriteUnits(size_t item_size_bytes) { return Begun(item_size_bytes, 1024); }

uint64_t ReadHalfUnits(size_t item_size_bytes, bool strong) {
  return Begun(item_size_bytes, 4096) * (strong ? 2 : 1);
}

}  // namespace dynlib::cluster
