// An item: a named set of attributes in DynamoDB's data model, and its bytes in the tree.
//
//   Item item;
//   item["id"] = Value::String("u-17");
//   item["age"] = Value::Number(Decimal::FromInt(42));
//   item["tags"] = Value::StringSet({"admin", "beta"});
//   std::string bytes = EncodeItem(item);
//   DYNLIB_ASSIGN_OR_RETURN(Item same, DecodeItem(bytes));   // same == item
//
// Equal items have equal bytes, whatever order they were built in: replicas are compared by digest.
//
// What a table accepts (sizes, names, nesting, keys) is item_limits.h; an Item by itself may hold
// more.
//
// Threads: values; const methods from any thread.
#ifndef DYNLIB_CLUSTER_ITEM_H_
#define DYNLIB_CLUSTER_ITEM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/coding.h"
#include "dynlib/cluster/decimal.h"

namespace dynlib::cluster {

class Value;

using List = std::vector<Value>;
using Map = std::map<std::string, Value, std::less<>>;
// Attributes by name, in byte order of the names.
using Item = Map;

// The numbers are written to disk: never renumber.
enum class ValueType : uint8_t {
  kNull = 1,
  kBoolean = 2,
  kNumber = 3,
  kString = 4,
  kBinary = 5,
  kList = 6,
  kMap = 7,
  kStringSet = 8,
  kNumberSet = 9,
  kBinarySet = 10,
};
// "string", "number set", ...
std::string_view ValueTypeName(ValueType type);

// One attribute's value. Default is null. Moving is cheap; == compares deeply, numbers by value.
class Value {
 public:
  Value() = default;
  static Value Null() { return Value(); }
  static Value Boolean(bool value);
  static Value Number(Decimal value);
  static Value Number(int64_t value) { return Number(Decimal::FromInt(value)); }
  // UTF-8 text; ValidateItem checks that it is.
  static Value String(std::string value);
  static Value Binary(std::string value);
  static Value OfList(List value);
  static Value OfMap(Map value);
  static Value StringSet(std::set<std::string> value);
  static Value NumberSet(std::set<Decimal> value);
  static Value BinarySet(std::set<std::string> value);

  ValueType type() const;
  bool is(ValueType wanted) const { return type() == wanted; }

  // Each may be called only on a value of its type (checked).
  bool boolean() const;
  const Decimal& number() const;
  const std::string& string() const;
  const std::string& binary() const;
  const List& list() const;
  const Map& map() const;
  const std::set<std::string>& string_set() const;
  const std::set<Decimal>& number_set() const;
  const std::set<std::string>& binary_set() const;

  // For people: JSON-like, with binary as b"..." and sets as <<...>>; at most about max_bytes.
  std::string ToString(size_t max_bytes = 256) const;

  friend bool operator==(const Value& a, const Value& b);

 private:
  // Tells binary from string within the variant.
  struct Bytes {
    std::string bytes;
    friend bool operator==(const Bytes&, const Bytes&) = default;
  };
  struct Blobs {
    std::set<std::string> blobs;
    friend bool operator==(const Blobs&, const Blobs&) = default;
  };
  // In the order of ValueType.
  using Variant = std::variant<std::monostate, bool, Decimal, std::string, Bytes, List, Map,
                               std::set<std::string>, std::set<Decimal>, Blobs>;

  explicit Value(Variant variant) : variant_(std::move(variant)) {}

  Variant variant_;
};

// Levels of lists and maps within one another that a decoder accepts: as many as DynamoDB does.
inline constexpr int kNestingMax = 32;
// Longest encoding that DecodeItem looks at. An item of 400 KB by DynamoDB's size rules encodes to
// less.
inline constexpr size_t kEncodedItemBytesMax = 1 << 20;

// Docs: docs/format/items.md. The first byte is the format's version.
std::string EncodeItem(const Item& item);
// Safe on any bytes. Errors: kDataLoss when EncodeItem does not write such bytes.
absl::StatusOr<Item> DecodeItem(std::string_view bytes);

// One value without a version byte, for formats that carry their own.
void AppendValue(std::string& out, const Value& value);
// Fails `in` on malformed bytes and on nesting deeper than kNestingMax.
Value ReadValue(ByteReader& in);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ITEM_H_
