// Keys for random operations.
#ifndef TESTS_STORE_MODEL_KEYS_H_
#define TESTS_STORE_MODEL_KEYS_H_

#include <cstdint>
#include <string>

#include "dynlib/base/random.h"

namespace dynlib::store {

// Keys of several kinds: short binary ones, ones with long common prefixes, a few huge ones.
inline std::string ModelKey(Random& random, uint64_t key_space) {
  uint64_t n = random.Below(key_space);
  switch (n % 8) {
    case 0:
      return std::string("bin\0\xff", 5) + static_cast<char>(n / 8) + static_cast<char>(n / 2048);
    case 1:
      return std::string(1000, 'p') + std::to_string(n);
    case 2:
      if (n % 64 == 2) return std::to_string(n) + std::string(8000, 'q');
      [[fallthrough]];
    default:
      return "table/partition/" + std::to_string(n);
  }
}

}  // namespace dynlib::store

#endif  // TESTS_STORE_MODEL_KEYS_H_
