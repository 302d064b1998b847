// Random items and damage to bytes, for the tests of this folder.
#ifndef DYNLIB_TESTS_CLUSTER_RANDOM_ITEM_H_
#define DYNLIB_TESTS_CLUSTER_RANDOM_ITEM_H_

#include <cstddef>
#include <set>
#include <string>
#include <utility>

#include "dynlib/base/random.h"
#include "dynlib/cluster/decimal.h"
#include "dynlib/cluster/item.h"

namespace dynlib::cluster {

inline std::string RandomBytes(Random& random, size_t max_bytes) {
  std::string bytes(random.Below(max_bytes + 1), '\0');
  // Zeros and FFs often: they are what encodings treat specially.
  for (char& byte : bytes) {
    uint64_t kind = random.Below(6);
    byte = kind == 0   ? '\0'
           : kind == 1 ? '\xff'
           : kind == 2 ? '\x01'
                       : static_cast<char>(random.Below(256));
  }
  return bytes;
}

inline std::string RandomAscii(Random& random, size_t max_bytes) {
  std::string text(random.Below(max_bytes + 1), ' ');
  for (char& c : text) c = static_cast<char>('a' + random.Below(26));
  return text;
}

inline std::string RandomNumberText(Random& random) {
  std::string text = random.Chance(0.5) ? "-" : "";
  uint64_t digits = 1 + random.Below(random.Chance(0.3) ? 38 : 4);
  for (uint64_t i = 0; i < digits; ++i) text += static_cast<char>('0' + random.Below(10));
  int64_t range = random.Chance(0.3) ? 80 : 3;
  return text + "e" + std::to_string(random.Between(-range, range));
}

inline Decimal RandomNumber(Random& random) { return *Decimal::Parse(RandomNumberText(random)); }

inline Value RandomValue(Random& random, int depth = 0) {
  auto strings = [&] {
    std::set<std::string> set;
    for (uint64_t i = 1 + random.Below(4); i > 0; --i) set.insert(RandomAscii(random, 6));
    return set;
  };
  switch (random.Below(depth < 4 ? 10 : 8)) {
    case 0:
      return Value::Null();
    case 1:
      return Value::Boolean(random.Chance(0.5));
    case 2:
      return Value::Number(RandomNumber(random));
    case 3:
      return Value::String(RandomAscii(random, 20));
    case 4:
      return Value::Binary(RandomBytes(random, 20));
    case 5:
      return Value::StringSet(strings());
    case 6:
      return Value::BinarySet(strings());
    case 7: {
      std::set<Decimal> set;
      for (uint64_t i = 1 + random.Below(4); i > 0; --i) set.insert(RandomNumber(random));
      return Value::NumberSet(std::move(set));
    }
    case 8: {
      List list;
      for (uint64_t i = random.Below(4); i > 0; --i) list.push_back(RandomValue(random, depth + 1));
      return Value::OfList(std::move(list));
    }
    default: {
      Map map;
      for (uint64_t i = random.Below(4); i > 0; --i) {
        map[RandomAscii(random, 5) + "x"] = RandomValue(random, depth + 1);
      }
      return Value::OfMap(std::move(map));
    }
  }
}

inline Item RandomItem(Random& random) {
  Item item;
  for (uint64_t i = 1 + random.Below(6); i > 0; --i) {
    item[RandomAscii(random, 8) + "n"] = RandomValue(random);
  }
  return item;
}

// Changes, inserts or removes a few bytes.
inline std::string Damage(Random& random, std::string bytes) {
  for (uint64_t i = 1 + random.Below(3); i > 0; --i) {
    size_t at = random.Below(bytes.size() + 1);
    char byte = RandomBytes(random, 1)[0];
    switch (random.Below(3)) {
      case 0:
        if (at < bytes.size()) bytes[at] = byte;
        break;
      case 1:
        bytes.insert(at, 1, byte);
        break;
      default:
        if (at < bytes.size()) bytes.erase(at, 1);
    }
  }
  return bytes;
}

}  // namespace dynlib::cluster

#endif  // DYNLIB_TESTS_CLUSTER_RANDOM_ITEM_H_
