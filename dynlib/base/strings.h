// The seam between std::string_view and Abseil's own string_view, and string building for std
// types.
#ifndef DYNLIB_BASE_STRINGS_H_
#define DYNLIB_BASE_STRINGS_H_

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/string_view.h"

namespace dynlib {

inline absl::string_view ToAbsl(std::string_view s) {
  return absl::string_view(s.data(), s.size());
}
inline std::string_view ToStd(absl::string_view s) { return std::string_view(s.data(), s.size()); }

namespace internal {

inline void AppendPiece(std::string& out, std::string_view piece) { out.append(piece); }
template <typename T>
requires std::is_arithmetic_v<T>
void AppendPiece(std::string& out, T number) { out += std::to_string(number); }
template <typename T>
requires std::is_enum_v<T>
void AppendPiece(std::string& out, T id) {
  out += std::to_string(static_cast<std::underlying_type_t<T>>(id));
}

}  // namespace internal

// Concatenates strings, numbers and ids (ids and bools as numbers).
template <typename... Pieces>
std::string Cat(const Pieces&... pieces) {
  std::string out;
  (internal::AppendPiece(out, pieces), ...);
  return out;
}

// "0x" and sixteen hexadecimal digits.
std::string Hex(uint64_t number);

// Printable form of arbitrary bytes, at most max_bytes of them: non-printable ones as \xNN.
std::string Escape(std::string_view bytes, size_t max_bytes = 64);

}  // namespace dynlib

#endif  // DYNLIB_BASE_STRINGS_H_
