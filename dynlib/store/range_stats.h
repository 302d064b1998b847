// What Snapshot::ApproximateStats says of a range of keys.
//
// Threads: a value.
#ifndef DYNLIB_STORE_RANGE_STATS_H_
#define DYNLIB_STORE_RANGE_STATS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace dynlib::store {

struct RangeStats {
  uint64_t items = 0;
  uint64_t bytes = 0;  // of keys and values
  // Above the start of the range, below its end, and with items on both sides: about half of the
  // bytes lie below it. None when the range has fewer than two items. It need not be a key that
  // exists: pages are told apart by the shortest string that will do.
  std::optional<std::string> middle_key;
  bool exact = false;  // the range was small enough to be counted
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_RANGE_STATS_H_
