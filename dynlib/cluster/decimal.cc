#include "dynlib/cluster/decimal.h"

#include <algorithm>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

// First bytes of the ordered form. A negative number's remaining bytes are complemented, so that a
// larger magnitude sorts first.
constexpr uint8_t kNegativeTag = 1;
constexpr uint8_t kZeroTag = 2;
constexpr uint8_t kPositiveTag = 3;

absl::Status Bad(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(Cat("number '", Escape(text), "': ", why));
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// What a number's text says, before it is judged.
struct Scanned {
  bool negative = false;
  std::string digits;  // Without the point.
  int exponent = 0;    // Power of ten of the last digit.
};

// False when `text` is no number. The exponent saturates well outside the range.
bool Scan(std::string_view text, Scanned* out) {
  size_t at = 0;
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) out->negative = text[at++] == '-';
  bool point = false;
  for (; at < text.size(); ++at) {
    if (text[at] == '.' && !point) {
      point = true;
    } else if (IsDigit(text[at])) {
      out->digits.push_back(text[at]);
      if (point) --out->exponent;
    } else {
      break;
    }
  }
  if (out->digits.empty()) return false;
  if (at == text.size()) return true;
  if (text[at] != 'e' && text[at] != 'E') return false;
  ++at;
  bool down = false;
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) down = text[at++] == '-';
  if (at == text.size()) return false;
  int shift = 0;
  for (; at < text.size(); ++at) {
    if (!IsDigit(text[at])) return false;
    shift = std::min(shift * 10 + (text[at] - '0'), 100'000);
  }
  out->exponent += down ? -shift : shift;
  return true;
}

}  // namespace

Decimal Decimal::FromInt(int64_t number) {
  bool negative = number < 0;
  Coefficient coefficient = static_cast<uint64_t>(number);
  if (negative) coefficient = uint64_t{0} - static_cast<uint64_t>(number);
  int exponent = 0;
  while (coefficient != 0 && coefficient % 10 == 0) {
    coefficient /= 10;
    ++exponent;
  }
  return Decimal(negative, coefficient, exponent);
}

absl::StatusOr<Decimal> Decimal::Parse(std::string_view text) {
  if (text.size() > kTextBytesMax) {
    return Bad(text, Cat("its text has ", text.size(), " bytes, more than ", kTextBytesMax));
  }
  Scanned scanned;
  if (!Scan(text, &scanned)) return Bad(text, "not a decimal number");
  std::string_view digits = scanned.digits;
  size_t first = digits.find_first_not_of('0');
  if (first == std::string_view::npos) return Decimal();
  size_t last = digits.find_last_not_of('0');
  int exponent = scanned.exponent + static_cast<int>(digits.size() - 1 - last);
  digits = digits.substr(first, last - first + 1);
  if (digits.size() > kDigitsMax) {
    return Bad(text, Cat("it has ", digits.size(), " significant digits, more than ", kDigitsMax));
  }
  int lead = exponent + static_cast<int>(digits.size()) - 1;
  if (lead < kExponentMin || lead > kExponentMax) {
    return Bad(text, Cat("its magnitude is outside 1E", kExponentMin, " to 9.99E+", kExponentMax));
  }
  Coefficient coefficient = 0;
  for (char digit : digits) coefficient = coefficient * 10 + static_cast<unsigned>(digit - '0');
  return Decimal(scanned.negative, coefficient, exponent);
}

int Decimal::digits() const {
  int count = 0;
  for (Coefficient rest = coefficient_; rest != 0; rest /= 10) ++count;
  return count;
}

std::string Decimal::ToString() const {
  if (is_zero()) return "0";
  std::string digits;
  for (Coefficient rest = coefficient_; rest != 0; rest /= 10) {
    digits.push_back(static_cast<char>('0' + static_cast<int>(rest % 10)));
  }
  std::reverse(digits.begin(), digits.end());
  const int count = static_cast<int>(digits.size());
  const int lead = exponent_ + count - 1;
  std::string out = negative_ ? "-" : "";
  if (lead < -7 || lead > 37) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    return out + (lead < 0 ? "E-" : "E+") + std::to_string(lead < 0 ? -lead : lead);
  }
  if (exponent_ >= 0) return out + digits + std::string(static_cast<size_t>(exponent_), '0');
  if (lead < 0) return out + "0." + std::string(static_cast<size_t>(-lead - 1), '0') + digits;
  size_t whole = static_cast<size_t>(lead + 1);
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

// tag, then for all but zero: exponent of the first digit + 130 in one byte, pairs of digits from
// the first on, each as pair + 1 (the last digit of an odd number of them as pair d0), and 0.
void Decimal::AppendOrdered(std::string& out) const {
  if (is_zero()) return PutFixed8(out, kZeroTag);
  uint8_t bytes[kOrderedBytesMax];
  int digits[kDigitsMax + 1] = {};
  const int count = this->digits();
  Coefficient rest = coefficient_;
  for (int i = count - 1; i >= 0; --i, rest /= 10) digits[i] = static_cast<int>(rest % 10);
  size_t size = 0;
  bytes[size++] = static_cast<uint8_t>(exponent_ + count - 1 - kExponentMin);
  for (int i = 0; i < count; i += 2) {
    bytes[size++] = static_cast<uint8_t>(digits[i] * 10 + digits[i + 1] + 1);
  }
  bytes[size++] = 0;
  PutFixed8(out, negative_ ? kNegativeTag : kPositiveTag);
  for (size_t i = 0; i < size; ++i) {
    PutFixed8(out, negative_ ? static_cast<uint8_t>(~bytes[i]) : bytes[i]);
  }
}

Decimal Decimal::ReadOrdered(ByteReader& in) {
  uint8_t tag = in.Fixed8();
  if (tag == kZeroTag) return Decimal();
  if (tag != kNegativeTag && tag != kPositiveTag) {
    in.Fail();
    return Decimal();
  }
  const bool negative = tag == kNegativeTag;
  auto next = [&] {
    uint8_t byte = in.Fixed8();
    return negative ? static_cast<uint8_t>(~byte) : byte;
  };
  const int lead = next() + kExponentMin;
  Coefficient coefficient = 0;
  int pairs = 0;
  int last = 0;
  while (true) {
    int byte = next();
    if (!in.ok() || byte == 0) break;
    // The first digit is not zero, and no pair but 00 follows the last digit that is not.
    if (byte > 100 || ++pairs > kDigitsMax / 2 || (pairs == 1 && byte <= 10)) {
      in.Fail();
      break;
    }
    last = byte - 1;
    coefficient = coefficient * 100 + static_cast<unsigned>(last);
  }
  if (!in.ok() || pairs == 0 || last == 0) {
    in.Fail();
    return Decimal();
  }
  int count = 2 * pairs;
  if (last % 10 == 0) {
    coefficient /= 10;
    --count;
  }
  return Decimal(negative, coefficient, lead - count + 1);
}

std::strong_ordering operator<=>(const Decimal& a, const Decimal& b) {
  auto sign = [](const Decimal& d) { return d.is_zero() ? 0 : d.negative_ ? -1 : 1; };
  if (sign(a) != sign(b)) return sign(a) <=> sign(b);
  if (sign(a) == 0) return std::strong_ordering::equal;
  const Decimal& low = a.negative_ ? b : a;
  const Decimal& high = a.negative_ ? a : b;
  const int low_digits = low.digits();
  const int high_digits = high.digits();
  const int low_lead = low.exponent_ + low_digits;
  const int high_lead = high.exponent_ + high_digits;
  if (low_lead != high_lead) return low_lead <=> high_lead;
  // Same power of ten: compare as numbers of 38 digits, which fit.
  auto widened = [](const Decimal& d, int count) {
    Decimal::Coefficient c = d.coefficient_;
    for (; count < Decimal::kDigitsMax; ++count) c *= 10;
    return c;
  };
  return widened(low, low_digits) <=> widened(high, high_digits);
}

}  // namespace dynlib::cluster
