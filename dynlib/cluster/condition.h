// What must hold of an item for a conditional write to take effect.
//
// A conjunction of clauses on attributes, evaluated when a command is applied (R10): a pure
// function of the condition and the item, the same on every replica and in every release that
// reads the same format.
//
//   Condition absent{{{"id", Clause::Op::kNotExists}}};                 // Put only if new.
//   Condition same{{{"version", Clause::Op::kEqual, Value::Number(7)}}};  // Compare and set.
//   if (Holds(same, found ? &*found : nullptr)) ...
//
// Threads: values; pure functions.
#ifndef DYNLIB_CLUSTER_CONDITION_H_
#define DYNLIB_CLUSTER_CONDITION_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"

namespace dynlib::cluster {

struct Clause {
  // The numbers are written to the log: never renumber.
  enum class Op : uint8_t {
    kExists = 1,
    kNotExists = 2,
    kEqual = 3,
    kNotEqual = 4,
    kLess = 5,
    kLessEqual = 6,
    kGreater = 7,
    kGreaterEqual = 8,
    kBeginsWith = 9,
    kContains = 10,
  };
  std::string attribute;  // A top-level attribute.
  Op op = Op::kExists;
  Value operand = {};  // Unused, and null, for kExists and kNotExists.

  friend bool operator==(const Clause&, const Clause&) = default;
};

struct Condition {
  std::vector<Clause> clauses;  // All must hold. None: always holds.

  bool empty() const { return clauses.empty(); }
  friend bool operator==(const Condition&, const Condition&) = default;
};

inline constexpr size_t kConditionClausesMax = 300;
inline constexpr size_t kEncodedConditionBytesMax = 1 << 20;

// Whether `condition` holds of `item`; null means that there is no item, hence no attribute.
//
// As in DynamoDB: an absent attribute, or one of another type than the operand, makes a clause
// false, except kNotExists and kNotEqual, which it makes true. Order is defined on numbers, strings
// and binary; strings and binary compare by bytes. kBeginsWith takes a string or binary; kContains
// a substring of a string or binary, or an element of a list or set.
bool Holds(const Condition& condition, const Item* item);

// Errors: kInvalidArgument naming the clause, and what is wrong with it: too many clauses, an empty
// or overlong attribute name, an operand that no value can be compared with by that op, an operand
// that no item may hold.
absl::Status ValidateCondition(const Condition& condition);

// The first byte is the format's version.
std::string EncodeCondition(const Condition& condition);
// Safe on any bytes. Errors: kDataLoss when EncodeCondition does not write such bytes.
absl::StatusOr<Condition> DecodeCondition(std::string_view bytes);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_CONDITION_H_
