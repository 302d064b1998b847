// Rows that came to a leaf since its page was made, and lie behind it in memory: so a write copies
// its row, and not the page.
//
//   LeafTail* tail = content->tail();
//   for (...) if (const auto value = tail->Find(tail->rows(), key, prefix); ...) ...
//
// Up to eight, in the order in which they came; the newest of a key is what the leaf says. They
// become visible together with all else that their batch changes: a reader of version v sees those
// that were published by then. Deletes, and values with pages of their own, change the page.
//
// It is a cache line, so that a look-up has one more miss at most, and the rows behind that. On
// disk there are only pages.
//
// Internal to the store. Threads: one writes; rows that are published never change, so anybody may
// read them meanwhile.
#ifndef DYNLIB_STORE_LEAF_TAIL_H_
#define DYNLIB_STORE_LEAF_TAIL_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "dynlib/store/page.h"
#include "dynlib/store/page_change.h"

namespace dynlib::store {

class LeafTail {
 public:
  static constexpr uint32_t kRowsMax = 8;

  struct Row {
    std::string_view key;
    std::string_view value;
  };
  static size_t RowBytes(size_t key_bytes, size_t value_bytes) {
    return kRowHeaderBytes + key_bytes + value_bytes;
  }

  // `capacity`: bytes of rows, which lie behind this. `page_bytes`: of the page before this.
  LeafTail(uint32_t capacity, uint32_t page_bytes) : capacity_(capacity), page_bytes_(page_bytes) {}

  // Of rows there is room for, and of those that are published.
  uint32_t capacity() const { return capacity_; }
  uint32_t used() const { return EndOf(rows()); }
  // Those that are published, in all.
  uint32_t rows() const { return Count(state_.load(std::memory_order_acquire)); }
  // Those that a reader of `version` sees. (If others were published since, also some that are
  // younger: a look-up may say what was so at any moment while it ran.)
  uint32_t RowsAt(uint64_t version) const {
    const uint64_t state = state_.load(std::memory_order_acquire);
    return state >> kVersionShift > version ? Before(state) : Count(state);
  }
  Row row(uint32_t i) const;
  // Of the first `rows` the newest with that key, which begins with the page's prefix.
  std::optional<std::string_view> Find(uint32_t rows, std::string_view key,
                                       size_t prefix_bytes) const;

  // The writer's. The page with all rows in it is at most so long.
  uint32_t page_bytes() const { return page_bytes_; }
  bool HasRoom(uint32_t rows, size_t bytes) const {
    const uint32_t count = this->rows();
    return count + rows <= kRowsMax && EndOf(count) + bytes <= capacity_;
  }
  // Writes row i, behind those that are published, which nobody sees yet.
  void Put(uint32_t i, std::string_view key, std::string_view value, size_t prefix_bytes);
  // Shows the rows up to `rows` to readers from `version` on.
  void Publish(uint32_t rows, uint64_t version, uint32_t page_bytes) {
    const uint64_t before = this->rows();
    page_bytes_ = page_bytes;
    state_.store(version << kVersionShift | uint64_t{rows} << kCountShift | before,
                 std::memory_order_release);
  }

 private:
  static constexpr size_t kRowHeaderBytes = 6;  // lengths of key and value
  static constexpr int kCountShift = 8;
  static constexpr int kVersionShift = 16;

  static uint32_t Before(uint64_t state) { return static_cast<uint8_t>(state); }
  static uint32_t Count(uint64_t state) { return static_cast<uint8_t>(state >> kCountShift); }
  char* bytes() { return reinterpret_cast<char*>(this + 1); }
  const char* bytes() const { return reinterpret_cast<const char*>(this + 1); }
  uint32_t EndOf(uint32_t rows) const { return rows == 0 ? 0 : ends_[rows - 1]; }
  static uint32_t HeadOf(std::string_view key, size_t prefix_bytes) {
    return SuffixHead(key.substr(std::min(key.size(), prefix_bytes)));
  }

  std::atomic<uint64_t> state_{0};  // version of the last publication, rows, rows before it
  const uint32_t capacity_;
  uint32_t page_bytes_;
  std::array<uint16_t, kRowsMax> ends_;   // of the rows, from the first on
  std::array<uint32_t, kRowsMax> heads_;  // of the keys behind the page's prefix
};
static_assert(sizeof(LeafTail) == 64);

// The first `rows` rows as changes to the leaf: in key order, each key once. They point into the
// tail.
void TailAsChanges(const PageView& leaf, const LeafTail& tail, uint32_t rows,
                   std::vector<LeafChange>& out);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_LEAF_TAIL_H_
