// Changes to good bytes, such as damage and broken writers make: for tests that feed readers with
// them, each time the same.
#ifndef TESTS_BASE_MUTATE_H_
#define TESTS_BASE_MUTATE_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "dynlib/base/random.h"

namespace dynlib {

inline void Mutate(Random& random, std::string& bytes) {
  if (bytes.empty()) {
    bytes.push_back(static_cast<char>(random.Below(256)));
    return;
  }
  const uint64_t at = random.Below(bytes.size());
  const uint64_t length = 1 + random.Below(std::min<uint64_t>(bytes.size() - at, 16));
  switch (random.Below(8)) {
    case 0:
      bytes[at] = static_cast<char>(random.Below(256));
      break;
    case 1:
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
      break;
    case 2:
      ++bytes[at];
      break;
    case 3: {  // A number, small or enormous.
      const uint64_t numbers[] = {0, 1, 0x7f, 0xffff, UINT32_MAX, UINT64_MAX, random.Next()};
      const uint64_t number = numbers[random.Below(7)];
      std::memcpy(bytes.data() + at, &number, std::min<uint64_t>(8, bytes.size() - at));
      break;
    }
    case 4:
      bytes.erase(at, length);
      break;
    case 5:
      bytes.insert(at, bytes.substr(random.Below(bytes.size()), length));
      break;
    case 6:
      bytes.replace(at, length, bytes.substr(random.Below(bytes.size()), length));
      break;
    default:
      bytes.resize(at);
  }
}

}  // namespace dynlib

#endif  // TESTS_BASE_MUTATE_H_
