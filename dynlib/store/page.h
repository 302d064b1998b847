// The bytes of a page: docs/format/btree.md says them one by one; this reads and builds them.
//
// A page starts a run of 4 KiB units (an extent) and is as long as it needs to be, about 8 KiB as a
// rule. The prefix that all its keys share is stored once, and each slot has the first four bytes
// of what follows the prefix, so that a search seldom leaves the slots. References to other pages
// are in one table behind the header: a page in memory has the same bytes but for that table, which
// counts only once the page was written.
//
// Pure functions and views; bytes from disk go through CheckPage before a PageView looks at them.
#ifndef DYNLIB_STORE_PAGE_H_
#define DYNLIB_STORE_PAGE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/prefetch.h"

namespace dynlib::store {

// A tree of a PageFile: a partition, or a named tree of a stand-alone store. Any number will do.
enum class TreeId : uint64_t {};

inline constexpr uint32_t kUnitBytes = 4096;
// Pages are no longer than this, but for a leaf with a single entry and for branches with very long
// keys.
inline constexpr uint32_t kPageTargetBytes = 2 * kUnitBytes;
inline constexpr size_t kMaxKeyBytes = 8192;
inline constexpr size_t kMaxValueBytes = 1 << 20;
// Longer values lie in overflow pages of their own.
inline constexpr size_t kMaxInlineValueBytes = 2048;

inline constexpr uint32_t kPageMagic = 0x67504c44;  // "DLPg"
inline constexpr uint16_t kPageVersion = 1;

enum class PageKind : uint8_t {
  kLeaf = 1,
  kBranch = 2,
  kOverflow = 3,    // one value
  kDirectory = 4,   // of a checkpoint: the trees, their roots and positions
  kBitmap = 5,      // of a checkpoint: the units that its trees lie in
  kCompressed = 6,  // on disk alone: another page, smaller; see page_compression.h
};

// Units [first, first + count) of the file.
struct Extent {
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t end() const { return first + count; }
  friend bool operator==(const Extent&, const Extent&) = default;
};

// Where a page is, and what its bytes add up to: XXH3-64 seeded with the unit, so that a page that
// was written elsewhere does not verify. Unit 0 is a superblock's: there it means "none".
struct PageRef {
  uint64_t unit = 0;
  uint32_t length = 0;  // bytes, without the padding to whole units
  uint64_t checksum = 0;
  uint32_t generation = 0;  // of the checkpoint that was the first to hold it; 0: not known
  bool childless = false;   // a leaf without overflow values, for sure

  // As far as it is kept here: an old one comes round again after 2^31 checkpoints.
  static uint32_t Generation(uint64_t generation) {
    return static_cast<uint32_t>(generation & 0x7fffffff);
  }
  bool null() const { return unit == 0; }
  Extent extent() const { return {unit, (length + uint64_t{kUnitBytes} - 1) / kUnitBytes}; }
  friend bool operator==(const PageRef&, const PageRef&) = default;
};
inline constexpr size_t kPageRefBytes = 24;

void PutPageRef(char* to, const PageRef& ref);
PageRef LoadPageRef(const char* from);
uint64_t PageChecksum(std::string_view page, uint64_t unit);

// A page in memory.
struct PageBytes {
  std::unique_ptr<char[]> data;
  uint32_t length = 0;

  static PageBytes Allocate(uint32_t length);  // not initialised
  std::string_view view() const { return {data.get(), length}; }
};

inline constexpr size_t kPageHeaderBytes = 32;
inline constexpr size_t kSlotBytes = 8;
inline constexpr size_t kLeafCellBytes = 8;    // before the key's suffix
inline constexpr size_t kBranchCellBytes = 2;  // before the separator's suffix

inline constexpr uint16_t kInlinedValue = 0xffff;  // in a leaf cell, for "no overflow child"

// The first four bytes of a key's suffix as a big-endian number, so that numbers compare as the
// bytes do: what a slot says of it.
inline uint32_t SuffixHead(std::string_view suffix) {
  if (suffix.size() >= 4) return __builtin_bswap32(LoadFixed<uint32_t>(suffix.data()));
  uint32_t head = 0;
  for (const char byte : suffix) head = head << 8 | static_cast<unsigned char>(byte);
  return suffix.empty() ? 0 : head << 8 * (4 - suffix.size());
}

// What a leaf says of a value.
struct LeafValue {
  std::string_view inlined;
  uint32_t length = 0;
  bool overflow = false;
  uint32_t child = 0;  // of an overflow value
};

class PageChanger;
class LeafRows;

// Reads a page that CheckPage passed, or that was built here. The bytes outlive the view.
class PageView {
 public:
  friend class LeafRows;
  friend class PageChanger;

  explicit PageView(const char* page) : page_(page) {}

  const char* bytes() const { return page_; }
  PageKind kind() const { return static_cast<PageKind>(page_[6]); }
  uint32_t level() const { return static_cast<uint8_t>(page_[7]); }  // 0: a leaf
  bool is_tree_page() const { return kind() == PageKind::kLeaf || kind() == PageKind::kBranch; }
  TreeId tree() const { return TreeId{LoadFixed<uint64_t>(page_ + 8)}; }
  uint32_t length() const { return LoadFixed<uint32_t>(page_ + 16); }
  // Keys of a leaf, separators of a branch.
  uint32_t count() const { return LoadFixed<uint32_t>(page_ + 20); }
  uint32_t child_count() const { return LoadFixed<uint32_t>(page_ + 24); }
  std::string_view prefix() const {
    return {slots() + kSlotBytes * count(), LoadFixed<uint16_t>(page_ + 28)};
  }

  PageRef child(uint32_t i) const {
    return LoadPageRef(page_ + kPageHeaderBytes + kPageRefBytes * i);
  }
  // Key or separator i, without the prefix.
  std::string_view suffix(uint32_t i) const {
    const char* at = cell(i);
    return {at + (kind() == PageKind::kLeaf ? kLeafCellBytes : kBranchCellBytes),
            LoadFixed<uint16_t>(at)};
  }
  LeafValue value(uint32_t i) const;
  // What the cell of a key of a leaf takes.
  uint32_t CellBytes(uint32_t i) const {
    return static_cast<uint32_t>(kLeafCellBytes + suffix(i).size() + value(i).inlined.size());
  }
  // Of a page of one payload.
  std::string_view payload() const {
    return {page_ + kPageHeaderBytes, length() - kPageHeaderBytes};
  }

  struct Position {
    uint32_t index;  // of the first key >= the one searched
    bool found;
  };
  Position Find(std::string_view key) const { return Find(key, Ask::kNothing); }
  // The same in a leaf that is hardly in the processor's cache, of which only that key's cell is
  // needed: before the key is compared the whole cell is asked for, or, for who does not copy the
  // value, its ends.
  Position FindCell(std::string_view key, bool whole) const {
    return Find(key, whole ? Ask::kCell : Ask::kEnds);
  }
  // Of a branch: the child whose range holds `key`.
  uint32_t ChildFor(std::string_view key) const;

 private:
  const char* slots() const { return page_ + kPageHeaderBytes + kPageRefBytes * child_count(); }
  const char* cell(uint32_t i) const {
    return page_ + LoadFixed<uint32_t>(slots() + kSlotBytes * i + 4);
  }
  enum class Ask { kNothing, kCell, kEnds };

  Position Find(std::string_view key, Ask ask) const;
  Position FindSuffix(std::string_view suffix, Ask ask) const;
  void AskForCell(uint32_t i, Ask ask) const;

  const char* page_;
};

// The rows of a leaf, for a pass over them: with what PageView looks up for each at hand.
class LeafRows {
 public:
  explicit LeafRows(PageView leaf)
      : page_(leaf.page_),
        slots_(leaf.slots()),
        end_(leaf.page_ + leaf.length()),
        count_(leaf.count()) {}

  struct Row {
    std::string_view suffix;  // of the key
    LeafValue value;
  };
  Row row(uint32_t i) const {
    const char* at = cell(i);
    // Length of the suffix, child, length of the value: one load.
    const auto head = LoadFixed<uint64_t>(at);
    const auto suffix = static_cast<uint16_t>(head);
    const auto child = static_cast<uint16_t>(head >> 16);
    const auto length = static_cast<uint32_t>(head >> 32);
    at += kLeafCellBytes;
    if (child != kInlinedValue) return {{at, suffix}, {{}, length, true, child}};
    return {{at, suffix}, {{at + suffix, length}, length, false, 0}};
  }

  // Asks for what a pass looks at of row i, which is hardly in the processor's cache: all of a
  // short one, of a long one the key and the ends of the value.
  void Ask(uint32_t i) const {
    constexpr ptrdiff_t kShort = 256;
    constexpr ptrdiff_t kKey = 32;
    constexpr uintptr_t kLineBytes = 64;
    const char* at = cell(i);
    const char* end = i + 1 < count_ ? cell(i + 1) : end_;
    if (end - at <= kShort) {
      // The line in which it begins is that in which its neighbour ends.
      if (i > 0) at += -reinterpret_cast<uintptr_t>(at) % kLineBytes;
      for (; at < end; at += kLineBytes) Prefetch(at);
    } else {
      Prefetch(at);
      Prefetch(at + kKey);
      Prefetch(end - 1);
    }
  }

 private:
  const char* cell(uint32_t i) const {
    return page_ + LoadFixed<uint32_t>(slots_ + kSlotBytes * i + 4);
  }

  const char* page_;
  const char* slots_;
  const char* end_;
  uint32_t count_;
};

inline LeafValue PageView::value(uint32_t i) const { return LeafRows(*this).row(i).value; }

// OK when every offset, length and count of a tree page or blob is in bounds and its keys ascend:
// then a PageView cannot go astray. kDataLoss otherwise, saying what is wrong.
absl::Status CheckPage(std::string_view page);

struct LeafEntry {
  std::string_view key;
  std::string_view value;     // when inlined
  uint32_t value_length = 0;  // when not
  bool overflow = false;
};

// The length that a page would have, entry by entry.
class PageSizer {
 public:
  static PageSizer Leaf() { return PageSizer(kLeafCellBytes, 0); }
  static PageSizer Branch() { return PageSizer(kBranchCellBytes, 1); }

  // Keys come in ascending order. `value_bytes` are the inlined ones.
  void Add(std::string_view key, size_t value_bytes, size_t children);
  size_t length() const;
  size_t length_with(std::string_view key, size_t value_bytes, size_t children) const {
    PageSizer next = *this;
    next.Add(key, value_bytes, children);
    return next.length();
  }
  size_t count() const { return count_; }

 private:
  PageSizer(size_t cell_bytes, size_t children) : cell_bytes_(cell_bytes), children_(children) {}

  size_t cell_bytes_;
  size_t children_;
  size_t count_ = 0;
  size_t key_bytes_ = 0;
  size_t value_bytes_ = 0;
  std::string_view prefix_;  // of the keys so far
};

// Keys in ascending order, each once. Overflow values are children 0, 1, 2 ... in key order. The
// page is LeafLength bytes long.
uint32_t LeafLength(std::span<const LeafEntry> entries);
void BuildLeafAt(char* page, TreeId tree, std::span<const LeafEntry> entries);
PageBytes BuildLeaf(TreeId tree, std::span<const LeafEntry> entries);
// separators.size() + 1 children; child i + 1 holds the keys >= separator i.
uint32_t BranchLength(std::span<const std::string_view> separators);
void BuildBranchAt(char* page, TreeId tree, uint32_t level,
                   std::span<const std::string_view> separators);
PageBytes BuildBranch(TreeId tree, uint32_t level, std::span<const std::string_view> separators);
// Pages of one payload: overflow, directory, bitmap, compressed; kPageHeaderBytes more than that.
void PutBlobHeader(char* page, PageKind kind, TreeId tree, uint32_t count, uint32_t length);
void BuildBlobAt(char* page, PageKind kind, TreeId tree, uint32_t count, std::string_view payload);
PageBytes BuildBlob(PageKind kind, TreeId tree, uint32_t count, std::string_view payload);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_H_
