// A DynamoDB number: an exact decimal of up to 38 significant digits, between 1E-130 and
// 9.99...E+125 in magnitude, or zero.
//
// Kept exactly and in one form: 1.50, 15e-1 and 1.5 are the same Decimal and encode to the same
// bytes. There is no arithmetic; a store compares numbers and keeps them.
//
//   DYNLIB_ASSIGN_OR_RETURN(Decimal price, Decimal::Parse("19.90"));
//   price.ToString();                       // "19.9"
//   price < Decimal::FromInt(20);           // true
//
// Threads: a value; const methods from any thread.
#ifndef DYNLIB_CLUSTER_DECIMAL_H_
#define DYNLIB_CLUSTER_DECIMAL_H_

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/base/coding.h"

namespace dynlib::cluster {

class Decimal {
 public:
  static constexpr int kDigitsMax = 38;
  // Bounds of the power of ten of the first significant digit.
  static constexpr int kExponentMin = -130;
  static constexpr int kExponentMax = 125;
  // Longest text that Parse looks at, and longest output of AppendOrdered.
  static constexpr size_t kTextBytesMax = 512;
  static constexpr size_t kOrderedBytesMax = 22;

  // Zero.
  constexpr Decimal() = default;
  static Decimal FromInt(int64_t number);
  // Optional sign, digits with an optional point, optional exponent: "-12.50", ".5", "1e-7". Zeros
  // on either end of the digits do not count as significant.
  // Errors: kInvalidArgument when the text is no number, has more than 38 significant digits, or
  // is outside the range.
  static absl::StatusOr<Decimal> Parse(std::string_view text);

  // The canonical text: plain when the power of ten of the first digit is in [-7, 37], otherwise
  // "d.dddE+ddd". Parse gives the same Decimal back.
  std::string ToString() const;

  bool negative() const { return negative_; }
  bool is_zero() const { return coefficient_ == 0; }
  // How many significant digits; 0 for zero.
  int digits() const;

  // Appends bytes whose memcmp order is the order of the numbers, and none of which is a prefix of
  // another's: docs/format/items.md.
  void AppendOrdered(std::string& out) const;
  // Reads what AppendOrdered wrote; fails `in` on anything else.
  static Decimal ReadOrdered(ByteReader& in);

  friend bool operator==(const Decimal&, const Decimal&) = default;
  friend std::strong_ordering operator<=>(const Decimal& a, const Decimal& b);

 private:
  using Coefficient = unsigned __int128;

  Decimal(bool negative, Coefficient coefficient, int exponent)
      : coefficient_(coefficient), exponent_(static_cast<int16_t>(exponent)), negative_(negative) {}

  // value = ±coefficient_ × 10^exponent_; coefficient_ has no trailing zero; zero is +0 × 10^0.
  Coefficient coefficient_ = 0;
  int16_t exponent_ = 0;
  bool negative_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_DECIMAL_H_
