// Ranges of keys: [start, end), with no bound above when `end` is empty.
//
// Threads: values.
#ifndef DYNLIB_STORE_KEY_RANGE_H_
#define DYNLIB_STORE_KEY_RANGE_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace dynlib::store {

struct KeyRange {
  std::string start{};
  std::string end{};

  bool empty() const { return !end.empty() && start >= end; }
  bool below_end(std::string_view key) const { return end.empty() || key < end; }
};

// The smallest string above all that start with `prefix`; empty: there is none.
inline std::string EndOfPrefix(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

// Those keys of `range` that start with `prefix`.
inline KeyRange WithPrefix(KeyRange range, const std::string& prefix) {
  range.start = std::max(range.start, prefix);
  std::string end = EndOfPrefix(prefix);
  if (!end.empty() && (range.end.empty() || end < range.end)) range.end = std::move(end);
  return range;
}

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_KEY_RANGE_H_
