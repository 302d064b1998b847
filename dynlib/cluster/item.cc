#include "dynlib/cluster/item.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

constexpr uint8_t kFormatVersion = 1;

// ---- Writing ----

void AppendMap(std::string& out, const Map& map) {
  PutVarint(out, map.size());
  for (const auto& [name, value] : map) {
    PutLengthPrefixed(out, name);
    AppendValue(out, value);
  }
}

void AppendStrings(std::string& out, const std::set<std::string>& strings) {
  PutVarint(out, strings.size());
  for (const std::string& string : strings) PutLengthPrefixed(out, string);
}

// ---- Reading: each fails `in` on what the writers do not write ----

Value ReadValueAt(ByteReader& in, int depth);

// A count of elements, each of which takes at least one byte: so a count cannot make the reader
// loop or reserve beyond the bytes that are there.
uint64_t ReadCount(ByteReader& in) {
  uint64_t count = in.Varint();
  if (count > in.rest().size()) in.Fail();
  return in.ok() ? count : 0;
}

// Reads `count` names or elements by `read` and appends them to `to`, demanding ascending order:
// one set, one encoding.
template <typename Container, typename Read>
void ReadAscending(ByteReader& in, Container& to, Read read) {
  for (uint64_t left = ReadCount(in); left > 0 && in.ok(); --left) {
    auto element = read();
    if (!in.ok()) return;
    if (!to.empty() && !(*to.rbegin() < element)) return in.Fail();
    to.insert(to.end(), std::move(element));
  }
}

std::set<std::string> ReadStrings(ByteReader& in) {
  std::set<std::string> strings;
  ReadAscending(in, strings, [&] { return std::string(in.LengthPrefixed()); });
  return strings;
}

std::set<Decimal> ReadNumbers(ByteReader& in) {
  std::set<Decimal> numbers;
  ReadAscending(in, numbers, [&] { return Decimal::ReadOrdered(in); });
  return numbers;
}

List ReadList(ByteReader& in, int depth) {
  List list;
  for (uint64_t left = ReadCount(in); left > 0 && in.ok(); --left) {
    list.push_back(ReadValueAt(in, depth));
  }
  return list;
}

Map ReadMap(ByteReader& in, int depth) {
  Map map;
  for (uint64_t left = ReadCount(in); left > 0 && in.ok(); --left) {
    std::string_view name = in.LengthPrefixed();
    if (in.ok() && !map.empty() && !(map.rbegin()->first < name)) in.Fail();
    Value value = ReadValueAt(in, depth);
    if (in.ok()) map.emplace_hint(map.end(), std::string(name), std::move(value));
  }
  return map;
}

Value ReadBoolean(ByteReader& in) {
  uint8_t byte = in.Fixed8();
  if (byte > 1) in.Fail();
  return Value::Boolean(byte == 1);
}

// `depth`: how many lists and maps this value is within.
Value ReadValueAt(ByteReader& in, int depth) {
  auto type = static_cast<ValueType>(in.Fixed8());
  if (!in.ok()) return Value();
  switch (type) {
    case ValueType::kNull:
      return Value();
    case ValueType::kBoolean:
      return ReadBoolean(in);
    case ValueType::kNumber:
      return Value::Number(Decimal::ReadOrdered(in));
    case ValueType::kString:
      return Value::String(std::string(in.LengthPrefixed()));
    case ValueType::kBinary:
      return Value::Binary(std::string(in.LengthPrefixed()));
    case ValueType::kStringSet:
      return Value::StringSet(ReadStrings(in));
    case ValueType::kNumberSet:
      return Value::NumberSet(ReadNumbers(in));
    case ValueType::kBinarySet:
      return Value::BinarySet(ReadStrings(in));
    case ValueType::kList:
      if (depth >= kNestingMax) break;
      return Value::OfList(ReadList(in, depth + 1));
    case ValueType::kMap:
      if (depth >= kNestingMax) break;
      return Value::OfMap(ReadMap(in, depth + 1));
  }
  in.Fail();
  return Value();
}

// ---- Printing ----

// Appends until it is full; then "..." once, and nothing more.
class Printer {
 public:
  explicit Printer(size_t max_bytes) : max_bytes_(max_bytes) {}

  void Print(const Value& value);
  std::string Take() { return std::move(out_); }

 private:
  void Put(std::string_view piece) {
    if (full_) return;
    if (out_.size() + piece.size() <= max_bytes_) {
      out_ += piece;
    } else {
      out_ += "...";
      full_ = true;
    }
  }
  void Quote(std::string_view prefix, std::string_view bytes) {
    if (full_) return;
    Put(Cat(prefix, "\"", Escape(bytes, max_bytes_), "\""));
  }
  template <typename Container, typename Each>
  void PutAll(std::string_view open, const Container& elements, std::string_view close, Each each) {
    Put(open);
    bool first = true;
    for (const auto& element : elements) {
      if (full_) return;
      if (!first) Put(", ");
      first = false;
      each(element);
    }
    Put(close);
  }

  size_t max_bytes_;
  std::string out_;
  bool full_ = false;
};

void Printer::Print(const Value& value) {
  switch (value.type()) {
    case ValueType::kNull:
      return Put("null");
    case ValueType::kBoolean:
      return Put(value.boolean() ? "true" : "false");
    case ValueType::kNumber:
      return Put(value.number().ToString());
    case ValueType::kString:
      return Quote("", value.string());
    case ValueType::kBinary:
      return Quote("b", value.binary());
    case ValueType::kList:
      return PutAll("[", value.list(), "]", [&](const Value& v) { Print(v); });
    case ValueType::kMap:
      return PutAll("{", value.map(), "}", [&](const auto& entry) {
        Quote("", entry.first);
        Put(": ");
        Print(entry.second);
      });
    case ValueType::kStringSet:
      return PutAll("<<", value.string_set(), ">>", [&](const auto& s) { Quote("", s); });
    case ValueType::kNumberSet:
      return PutAll("<<", value.number_set(), ">>", [&](const auto& n) { Put(n.ToString()); });
    case ValueType::kBinarySet:
      return PutAll("<<", value.binary_set(), ">>", [&](const auto& b) { Quote("b", b); });
  }
}

template <typename T, typename Variant>
const T& Get(const Variant& variant) {
  const T* held = std::get_if<T>(&variant);
  DYNLIB_CHECK(held != nullptr);
  return *held;
}

}  // namespace

std::string_view ValueTypeName(ValueType type) {
  switch (type) {
    case ValueType::kNull:
      return "null";
    case ValueType::kBoolean:
      return "boolean";
    case ValueType::kNumber:
      return "number";
    case ValueType::kString:
      return "string";
    case ValueType::kBinary:
      return "binary";
    case ValueType::kList:
      return "list";
    case ValueType::kMap:
      return "map";
    case ValueType::kStringSet:
      return "string set";
    case ValueType::kNumberSet:
      return "number set";
    case ValueType::kBinarySet:
      return "binary set";
  }
  return "unknown type";
}

Value Value::Boolean(bool value) { return Value(Variant(value)); }
Value Value::Number(Decimal value) { return Value(Variant(value)); }
Value Value::String(std::string value) { return Value(Variant(std::move(value))); }
Value Value::Binary(std::string value) { return Value(Variant(Bytes{std::move(value)})); }
Value Value::OfList(List value) { return Value(Variant(std::move(value))); }
Value Value::OfMap(Map value) { return Value(Variant(std::move(value))); }
Value Value::StringSet(std::set<std::string> value) { return Value(Variant(std::move(value))); }
Value Value::NumberSet(std::set<Decimal> value) { return Value(Variant(std::move(value))); }
Value Value::BinarySet(std::set<std::string> value) {
  return Value(Variant(Blobs{std::move(value)}));
}

ValueType Value::type() const { return static_cast<ValueType>(variant_.index() + 1); }

bool Value::boolean() const { return Get<bool>(variant_); }
const Decimal& Value::number() const { return Get<Decimal>(variant_); }
const std::string& Value::string() const { return Get<std::string>(variant_); }
const std::string& Value::binary() const { return Get<Bytes>(variant_).bytes; }
const List& Value::list() const { return Get<List>(variant_); }
const Map& Value::map() const { return Get<Map>(variant_); }
const std::set<std::string>& Value::string_set() const {
  return Get<std::set<std::string>>(variant_);
}
const std::set<Decimal>& Value::number_set() const { return Get<std::set<Decimal>>(variant_); }
const std::set<std::string>& Value::binary_set() const { return Get<Blobs>(variant_).blobs; }

bool operator==(const Value& a, const Value& b) { return a.variant_ == b.variant_; }

std::string Value::ToString(size_t max_bytes) const {
  Printer printer(max_bytes);
  printer.Print(*this);
  return printer.Take();
}

void AppendValue(std::string& out, const Value& value) {
  PutFixed8(out, static_cast<uint8_t>(value.type()));
  switch (value.type()) {
    case ValueType::kNull:
      return;
    case ValueType::kBoolean:
      return PutFixed8(out, value.boolean() ? 1 : 0);
    case ValueType::kNumber:
      return value.number().AppendOrdered(out);
    case ValueType::kString:
      return PutLengthPrefixed(out, value.string());
    case ValueType::kBinary:
      return PutLengthPrefixed(out, value.binary());
    case ValueType::kList:
      PutVarint(out, value.list().size());
      for (const Value& element : value.list()) AppendValue(out, element);
      return;
    case ValueType::kMap:
      return AppendMap(out, value.map());
    case ValueType::kStringSet:
      return AppendStrings(out, value.string_set());
    case ValueType::kNumberSet:
      PutVarint(out, value.number_set().size());
      for (const Decimal& number : value.number_set()) number.AppendOrdered(out);
      return;
    case ValueType::kBinarySet:
      return AppendStrings(out, value.binary_set());
  }
}

Value ReadValue(ByteReader& in) { return ReadValueAt(in, 0); }

std::string EncodeItem(const Item& item) {
  std::string out;
  PutFixed8(out, kFormatVersion);
  AppendMap(out, item);
  return out;
}

absl::StatusOr<Item> DecodeItem(std::string_view bytes) {
  if (bytes.size() > kEncodedItemBytesMax) {
    return absl::DataLossError(
        Cat("item: ", bytes.size(), " bytes, more than ", kEncodedItemBytesMax));
  }
  ByteReader in(bytes);
  uint8_t version = in.Fixed8();
  if (in.ok() && version != kFormatVersion) {
    return absl::DataLossError(
        Cat("item: format version ", version, ", this release reads ", kFormatVersion));
  }
  Item item = ReadMap(in, 0);
  if (!in.done()) {
    return absl::DataLossError(Cat("item of ", bytes.size(), " bytes is malformed: ",
                                   in.ok() ? Cat(in.rest().size(), " bytes follow it")
                                           : std::string("a field is out of range or cut off")));
  }
  return item;
}

}  // namespace dynlib::cluster
