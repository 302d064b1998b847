// What an operation costs: the capacity units of the DynamoDB papers.
//
// One read unit is a strongly consistent read of up to 4 KB: half of that if eventually consistent,
// double in a transaction. One write unit is a write of up to 1 KB, double in a transaction. So the
// smallest amount is half a unit, and amounts are counted in halves, exactly.
//
//   RequestUnits cost = ReadUnits(item.size(), Consistency::kEventual);   // 9 KB: 1.5 units
//
// An operation that finds nothing costs as one of up to 4 KB (1 KB).
#ifndef DYNLIB_ADMISSION_REQUEST_UNITS_H_
#define DYNLIB_ADMISSION_REQUEST_UNITS_H_

#include <algorithm>
#include <compare>
#include <cstdint>

namespace dynlib::admission {

struct RequestUnits {
  int64_t halves = 0;

  static constexpr RequestUnits Whole(int64_t units) { return {2 * units}; }
  constexpr double units() const { return static_cast<double>(halves) / 2; }

  friend constexpr auto operator<=>(RequestUnits, RequestUnits) = default;
  friend constexpr RequestUnits operator+(RequestUnits a, RequestUnits b) {
    return {a.halves + b.halves};
  }
  friend constexpr RequestUnits operator-(RequestUnits a, RequestUnits b) {
    return {a.halves - b.halves};
  }
};

enum class Consistency : uint8_t { kEventual, kStrong, kTransaction };
enum class Operation : uint8_t { kRead, kWrite };

inline constexpr uint64_t kReadUnitBytes = 4096;
inline constexpr uint64_t kWriteUnitBytes = 1024;

namespace internal {
constexpr int64_t UnitsOf(uint64_t bytes, uint64_t unit_bytes) {
  return static_cast<int64_t>(
      std::max<uint64_t>(1, bytes / unit_bytes + (bytes % unit_bytes != 0)));
}
}  // namespace internal

// `bytes`: of the item, or for a query the sum over the items that were read.
constexpr RequestUnits ReadUnits(uint64_t bytes, Consistency consistency) {
  const int64_t units = internal::UnitsOf(bytes, kReadUnitBytes);
  switch (consistency) {
    case Consistency::kEventual:
      return {units};
    case Consistency::kStrong:
      return {2 * units};
    case Consistency::kTransaction:
      return {4 * units};
  }
  return {2 * units};
}

// `bytes`: the larger of the item before and after.
constexpr RequestUnits WriteUnits(uint64_t bytes, bool in_transaction = false) {
  return {(in_transaction ? 4 : 2) * internal::UnitsOf(bytes, kWriteUnitBytes)};
}

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_REQUEST_UNITS_H_
