// The values that the cache's tests hold.
#ifndef DYNLIB_TESTS_CACHE_VALUES_H_
#define DYNLIB_TESTS_CACHE_VALUES_H_

#include <cstdint>
#include <optional>

namespace dynlib::cache {

struct Item {
  int key = 0;
  int version = 0;
};

struct ItemTraits {
  using Key = int;
  using Value = Item;
  static const int& KeyOf(const Item& item) { return item.key; }
  static uint64_t Hash(int key) { return static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u; }
  static bool Newer(const Item& a, const Item& b) { return a.version > b.version; }
};

// Covers [first, end); no end: everything from `first` on.
struct Span {
  int first = 0;
  std::optional<int> end;
  int version = 0;
};

struct SpanTraits {
  using Key = int;
  using Value = Span;
  static int First(const Span& span) { return span.first; }
  static std::optional<int> End(const Span& span) { return span.end; }
  static bool Newer(const Span& a, const Span& b) { return a.version > b.version; }
};

}  // namespace dynlib::cache

#endif  // DYNLIB_TESTS_CACHE_VALUES_H_
