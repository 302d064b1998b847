#include "dynlib/scrub/types.h"

namespace dynlib::scrub {

bool EndBefore(std::string_view a, std::string_view b) {
  return !a.empty() && (b.empty() || a < b);
}

std::string_view EarlierEnd(std::string_view a, std::string_view b) {
  return EndBefore(a, b) ? a : b;
}

bool IsBefore(std::string_view key, std::string_view end) { return end.empty() || key < end; }

std::string After(std::string_view key) {
  std::string after(key);
  after.push_back('\0');
  return after;
}

}  // namespace dynlib::scrub
