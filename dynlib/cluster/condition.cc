#include "dynlib/cluster/condition.h"

#include <algorithm>
#include <compare>
#include <optional>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item_limits.h"

namespace dynlib::cluster {
namespace {

constexpr uint8_t kFormatVersion = 1;

bool TakesOperand(Clause::Op op) {
  return op != Clause::Op::kExists && op != Clause::Op::kNotExists;
}

bool IsKnown(Clause::Op op) { return op >= Clause::Op::kExists && op <= Clause::Op::kContains; }

bool IsOrdered(ValueType type) {
  return type == ValueType::kNumber || type == ValueType::kString || type == ValueType::kBinary;
}

// nullopt when the two do not order: different types, or a type without order.
std::optional<std::strong_ordering> Compare(const Value& a, const Value& b) {
  if (a.type() != b.type()) return std::nullopt;
  switch (a.type()) {
    case ValueType::kNumber:
      return a.number() <=> b.number();
    case ValueType::kString:
      return a.string() <=> b.string();
    case ValueType::kBinary:
      return a.binary() <=> b.binary();
    default:
      return std::nullopt;
  }
}

bool BeginsWith(const Value& value, const Value& prefix) {
  if (value.type() != prefix.type()) return false;
  if (value.is(ValueType::kString)) return value.string().starts_with(prefix.string());
  if (value.is(ValueType::kBinary)) return value.binary().starts_with(prefix.binary());
  return false;
}

bool Contains(const Value& value, const Value& part) {
  switch (value.type()) {
    case ValueType::kString:
      return part.is(ValueType::kString) && value.string().find(part.string()) != std::string::npos;
    case ValueType::kBinary:
      return part.is(ValueType::kBinary) && value.binary().find(part.binary()) != std::string::npos;
    case ValueType::kList:
      return std::find(value.list().begin(), value.list().end(), part) != value.list().end();
    case ValueType::kStringSet:
      return part.is(ValueType::kString) && value.string_set().contains(part.string());
    case ValueType::kNumberSet:
      return part.is(ValueType::kNumber) && value.number_set().contains(part.number());
    case ValueType::kBinarySet:
      return part.is(ValueType::kBinary) && value.binary_set().contains(part.binary());
    default:
      return false;
  }
}

bool HoldsOfValue(const Clause& clause, const Value& value) {
  auto order = [&] { return Compare(value, clause.operand); };
  switch (clause.op) {
    case Clause::Op::kExists:
      return true;
    case Clause::Op::kNotExists:
      return false;
    case Clause::Op::kEqual:
      return value == clause.operand;
    case Clause::Op::kNotEqual:
      return !(value == clause.operand);
    case Clause::Op::kLess:
      return order() && *order() < 0;
    case Clause::Op::kLessEqual:
      return order() && *order() <= 0;
    case Clause::Op::kGreater:
      return order() && *order() > 0;
    case Clause::Op::kGreaterEqual:
      return order() && *order() >= 0;
    case Clause::Op::kBeginsWith:
      return BeginsWith(value, clause.operand);
    case Clause::Op::kContains:
      return Contains(value, clause.operand);
  }
  return false;
}

bool ClauseHolds(const Clause& clause, const Item* item) {
  if (item != nullptr) {
    auto found = item->find(clause.attribute);
    if (found != item->end()) return HoldsOfValue(clause, found->second);
  }
  return clause.op == Clause::Op::kNotExists || clause.op == Clause::Op::kNotEqual;
}

// What is wrong with the operand's type, or "".
std::string_view OperandFault(const Clause& clause) {
  ValueType type = clause.operand.type();
  switch (clause.op) {
    case Clause::Op::kExists:
    case Clause::Op::kNotExists:
      return type == ValueType::kNull ? "" : "takes no operand";
    case Clause::Op::kEqual:
    case Clause::Op::kNotEqual:
    case Clause::Op::kContains:
      return "";
    case Clause::Op::kLess:
    case Clause::Op::kLessEqual:
    case Clause::Op::kGreater:
    case Clause::Op::kGreaterEqual:
      return IsOrdered(type) ? "" : "takes a number, string or binary";
    case Clause::Op::kBeginsWith:
      return type == ValueType::kString || type == ValueType::kBinary ? ""
                                                                      : "takes a string or binary";
  }
  return "is unknown";
}

absl::Status ValidateClause(const Clause& clause) {
  std::string_view fault = OperandFault(clause);
  if (!fault.empty()) {
    return absl::InvalidArgumentError(Cat("op ", clause.op, " on '", Escape(clause.attribute), "' ",
                                          fault, ", given is a ",
                                          ValueTypeName(clause.operand.type())));
  }
  DYNLIB_RETURN_IF_ERROR(ValidateAttributeName(clause.attribute));
  DYNLIB_RETURN_IF_ERROR(ValidateValue(clause.attribute, clause.operand));
  size_t size = ValueSizeBytes(clause.operand);
  if (size > kItemSizeBytesMax) {
    return absl::InvalidArgumentError(Cat("operand on '", Escape(clause.attribute), "' has ", size,
                                          " bytes, allowed are ", kItemSizeBytesMax));
  }
  return absl::OkStatus();
}

absl::Status Malformed(std::string_view why) {
  return absl::DataLossError(Cat("condition: ", why));
}

}  // namespace

bool Holds(const Condition& condition, const Item* item) {
  return std::all_of(condition.clauses.begin(), condition.clauses.end(),
                     [&](const Clause& clause) { return ClauseHolds(clause, item); });
}

absl::Status ValidateCondition(const Condition& condition) {
  if (condition.clauses.size() > kConditionClausesMax) {
    return absl::InvalidArgumentError(Cat("condition has ", condition.clauses.size(),
                                          " clauses, allowed are ", kConditionClausesMax));
  }
  for (size_t i = 0; i < condition.clauses.size(); ++i) {
    absl::Status status = ValidateClause(condition.clauses[i]);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          Cat("condition clause ", i + 1, ": ", ToStd(status.message())));
    }
  }
  size_t size = EncodeCondition(condition).size();
  if (size > kEncodedConditionBytesMax) {
    return absl::InvalidArgumentError(
        Cat("condition has ", size, " bytes, allowed are ", kEncodedConditionBytesMax));
  }
  return absl::OkStatus();
}

std::string EncodeCondition(const Condition& condition) {
  std::string out;
  PutFixed8(out, kFormatVersion);
  PutVarint(out, condition.clauses.size());
  for (const Clause& clause : condition.clauses) {
    PutFixed8(out, static_cast<uint8_t>(clause.op));
    PutLengthPrefixed(out, clause.attribute);
    if (TakesOperand(clause.op)) AppendValue(out, clause.operand);
  }
  return out;
}

absl::StatusOr<Condition> DecodeCondition(std::string_view bytes) {
  if (bytes.size() > kEncodedConditionBytesMax) {
    return Malformed(Cat(bytes.size(), " bytes, more than ", kEncodedConditionBytesMax));
  }
  ByteReader in(bytes);
  uint8_t version = in.Fixed8();
  if (in.ok() && version != kFormatVersion) {
    return Malformed(Cat("format version ", version, ", this release reads ", kFormatVersion));
  }
  uint64_t count = in.Varint();
  if (count > kConditionClausesMax) return Malformed(Cat("it claims ", count, " clauses"));
  Condition condition;
  for (; count > 0 && in.ok(); --count) {
    Clause clause;
    clause.op = static_cast<Clause::Op>(in.Fixed8());
    if (!IsKnown(clause.op)) in.Fail();
    clause.attribute = std::string(in.LengthPrefixed());
    if (TakesOperand(clause.op)) clause.operand = ReadValue(in);
    condition.clauses.push_back(std::move(clause));
  }
  if (!in.done()) return Malformed(Cat("its ", bytes.size(), " bytes are malformed"));
  return condition;
}

}  // namespace dynlib::cluster
