#include "dynlib/store/leaf_tail.h"

#include <algorithm>
#include <cstring>

#include "dynlib/base/coding.h"

namespace dynlib::store {

LeafTail::Row LeafTail::row(uint32_t i) const {
  const char* at = bytes() + EndOf(i);
  const size_t key = LoadFixed<uint16_t>(at);
  const size_t value = LoadFixed<uint32_t>(at + 2);
  at += kRowHeaderBytes;
  return {{at, key}, {at + key, value}};
}

std::optional<std::string_view> LeafTail::Find(uint32_t rows, std::string_view key,
                                               size_t prefix_bytes) const {
  const uint32_t head = HeadOf(key, prefix_bytes);
  for (uint32_t i = rows; i-- > 0;) {
    if (heads_[i] != head) continue;
    const Row found = row(i);
    if (found.key == key) return found.value;
  }
  return std::nullopt;
}

void LeafTail::Put(uint32_t i, std::string_view key, std::string_view value, size_t prefix_bytes) {
  char* at = bytes() + EndOf(i);
  StoreFixed<uint16_t>(at, static_cast<uint16_t>(key.size()));
  StoreFixed<uint32_t>(at + 2, static_cast<uint32_t>(value.size()));
  at += kRowHeaderBytes;
  std::memcpy(at, key.data(), key.size());
  at += key.size();
  if (!value.empty()) std::memcpy(at, value.data(), value.size());
  ends_[i] = static_cast<uint16_t>(at + value.size() - bytes());
  heads_[i] = HeadOf(key, prefix_bytes);
}

void TailAsChanges(const PageView& leaf, const LeafTail& tail, uint32_t rows,
                   std::vector<LeafChange>& out) {
  out.clear();
  for (uint32_t i = 0; i < rows; ++i) {
    const LeafTail::Row row = tail.row(i);
    auto at = std::lower_bound(
        out.begin(), out.end(), row.key,
        [](const LeafChange& change, std::string_view key) { return change.key < key; });
    if (at != out.end() && at->key == row.key) {
      at->value = row.value;
    } else {
      out.insert(at, {leaf.Find(row.key), row.key, row.value});
    }
  }
}

}  // namespace dynlib::store
