// The leaves of a Perkle tree: up to some dozens of entries in key order, packed into one block of
// bytes. Internal to perkle.
//
// The bytes follow from the entries alone, so their digest is the digest of the entries, wherever
// in a tree they lie. What is packed:
//   - what all keys begin with is there once; each key then drops what it shares with the one
//     before it;
//   - a value that ends with the bytes that the next key adds drops them. This is what makes the
//     end of a range free where the next range begins there;
//
//   header   size of the prefix, number of restarts: 2 bytes each
//   heads    a restart: 4 bytes, the first of its key after the prefix, as a number
//   offsets  a restart: 2 bytes, from the first entry
//   prefix
//   entries  what the key shares with the one before it, beyond the prefix (7 bits), and whether
//   the
//            value goes on in the next key (1 bit); size of what the key adds; size of the value (a
//            byte each; the largest number says that a varint of the rest follows, in this order);
//            what the key adds; the value
//
// Three bytes for sizes could be one and a half (98 % of them are alike in a leaf), at 40 % more
// time for a search: branches that the processor cannot foresee.
//
// A restart is an entry that shares nothing but the prefix. There is one each six entries or more,
// where the head differs from the one before; so heads are strictly ascending, and a search touches
// the header, the heads and a run of some six entries: three or four cache lines of some thirty.
#ifndef DYNLIB_PARTITION_MAP_PERKLE_LEAF_H_
#define DYNLIB_PARTITION_MAP_PERKLE_LEAF_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/coding.h"

namespace dynlib::partition_map::internal {

struct LeafItem {
  std::string_view key;
  std::string_view value;
};

// What an entry weighs, against kLeafWeightMax: more than it takes, packed.
inline constexpr uint64_t kItemWeight = 16;
inline uint64_t Weight(const LeafItem& item) {
  return kItemWeight + item.key.size() + item.value.size();
}
// Entries are one leaf exactly if they weigh no more than this together, or are one entry.
inline constexpr uint64_t kLeafWeightMax = 6144;
inline constexpr size_t kLeafItemsMax = kLeafWeightMax / kItemWeight;
inline bool FitLeaf(uint64_t weight, uint64_t entries) {
  return weight <= kLeafWeightMax || entries <= 1;
}

// Packs entries, which must be in key order and fit a leaf.
class LeafEncoder {
 public:
  explicit LeafEncoder(std::span<const LeafItem> items);
  size_t size() const { return size_; }
  void Write(char* to) const;

 private:
  struct Plan {
    uint16_t added;      // what the key adds to the shared
    uint16_t head_size;  // of the value
    bool restart;
    bool continues;
  };
  void PlanKeys();
  void PlanValues();

  std::span<const LeafItem> items_;
  size_t prefix_ = 0;
  size_t restarts_ = 0;
  size_t size_ = 0;
  std::array<Plan, kLeafItemsMax> plans_;
};

// One entry where it lies.
struct LeafSlot {
  const char* at = nullptr;
  std::string_view added;  // the key from `shared` on
  std::string_view value;  // without what is in the next key
  uint32_t shared = 0;     // with the key before, the prefix included
  bool continues = false;  // the value goes on with what the next key adds

  const char* next() const { return value.data() + value.size(); }
  size_t key_size() const { return shared + added.size(); }
};

// The first four bytes, zeros after the end, as a number that is ordered as they are.
inline uint32_t LeafHead(std::string_view bytes) {
  if (bytes.size() >= 4) return __builtin_bswap32(LoadFixed<uint32_t>(bytes.data()));
  uint32_t head = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    head |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])) << (24 - 8 * i);
  }
  return head;
}

inline size_t CommonBytes(std::string_view a, std::string_view b) {
  const size_t size = std::min(a.size(), b.size());
  size_t common = 0;
  while (common + 8 <= size) {
    const uint64_t different =
        LoadFixed<uint64_t>(a.data() + common) ^ LoadFixed<uint64_t>(b.data() + common);
    if (different != 0) return common + static_cast<size_t>(std::countr_zero(different)) / 8;
    common += 8;
  }
  while (common < size && a[common] == b[common]) ++common;
  return common;
}

// Reads a block. The bytes outlive it, and are what a LeafEncoder wrote.
class LeafBlock {
 public:
  explicit LeafBlock(std::string_view bytes)
      : heads_(bytes.data() + kHeaderBytes),
        end_(bytes.data() + bytes.size()),
        prefix_(LoadFixed<uint16_t>(bytes.data())),
        restarts_(LoadFixed<uint16_t>(bytes.data() + 2)) {
    entries_ = heads_ + 6 * restarts_ + prefix_;
  }

  std::string_view prefix() const { return {entries_ - prefix_, prefix_}; }
  LeafSlot First() const { return ReadSlot(entries_); }
  // False when there is none.
  bool Next(const LeafSlot& slot, LeafSlot& next) const {
    if (slot.next() == end_) return false;
    next = ReadSlot(slot.next());
    return true;
  }
  bool Previous(const LeafSlot& slot, LeafSlot& previous) const;
  LeafSlot Last() const { return LastBefore(end_); }

  // The greatest entry <= key; false when there is none.
  struct Found {
    LeafSlot slot;
    uint32_t matched = 0;  // the bytes that its key and the one sought begin with alike
    bool exact = false;
  };
  bool Floor(std::string_view key, Found& found) const {
    return FloorInRun(key, FindRun(key), found);
  }
  // In two steps, for those who fetch memory meanwhile: where the key's run is, and the search
  // there.
  struct Run {
    const char* begin = nullptr;  // null when all keys of the leaf are greater
    const char* end = nullptr;
    bool after_all = false;  // all keys are less, and part from the key within the prefix
  };
  Run FindRun(std::string_view key) const {
    const size_t common = CommonBytes(key, prefix());
    if (common < prefix_) [[unlikely]]
      return FindRunOutside(key, common);
    const uint32_t head = LeafHead(key.substr(prefix_));
    size_t run = 0;
    for (size_t i = 0; i < restarts_; ++i) run += LoadFixed<uint32_t>(heads_ + 4 * i) <= head;
    return {.begin = RunAt(run), .end = run == restarts_ ? end_ : RunAt(run + 1)};
  }
  bool FloorInRun(std::string_view key, const Run& run, Found& found) const;

  // What the value lacks in its slot.
  std::string_view ValueRest(const LeafSlot& slot) const {
    return slot.continues ? ReadSlot(slot.next()).added : std::string_view();
  }
  void ReadKey(const LeafSlot& slot, std::string& key) const;

  // The block with another value at a slot, appended to `to`.
  void WriteWithValue(const LeafSlot& slot, std::string_view value, std::string& to) const;

 private:
  static constexpr size_t kHeaderBytes = 4;
  // Of an entry's bytes.
  static constexpr uint32_t kSharedMax = 127;
  static constexpr uint32_t kSizeMax = 255;
  static constexpr uint32_t kContinues = 128;
  friend class LeafEncoder;

  static char* WriteSizes(char* to, size_t shared, bool continues, size_t added, size_t head_size);
  static size_t SizesBytes(size_t shared, size_t added, size_t head_size);
  LeafSlot ReadSlot(const char* at) const {
    LeafSlot slot{.at = at};
    const auto first = static_cast<uint8_t>(at[0]);
    uint32_t shared = first & kSharedMax;
    uint32_t added = static_cast<uint8_t>(at[1]);
    uint32_t head_size = static_cast<uint8_t>(at[2]);
    at += 3;
    if (shared == kSharedMax || added == kSizeMax || head_size == kSizeMax) [[unlikely]] {
      at = ReadLongSizes(at, shared, added, head_size);
    }
    slot.shared = prefix_ + shared;
    slot.continues = (first & kContinues) != 0;
    slot.added = {at, added};
    slot.value = {at + added, head_size};
    return slot;
  }
  static const char* ReadLongSizes(const char* at, uint32_t& shared, uint32_t& added,
                                   uint32_t& head_size);
  Run FindRunOutside(std::string_view key, size_t common) const;
  bool TakeBefore(std::string_view key, const Run& run, Found& found) const;
  // The slot that ends at `end`, which is not the first one's beginning.
  LeafSlot LastBefore(const char* end) const;
  const char* RunAt(size_t i) const {
    return i == 0 ? entries_ : entries_ + LoadFixed<uint16_t>(heads_ + 4 * restarts_ + 2 * (i - 1));
  }
  // The beginning of the run that has the byte before `at`.
  const char* RunBefore(const char* at) const;

  const char* heads_;
  const char* entries_;
  const char* end_;
  uint32_t prefix_;
  uint32_t restarts_;
};

// The entries of leaves, unpacked: appended in key order. Views of them are valid as long as this
// lives.
class LeafItems {
 public:
  void Append(const LeafBlock& block, uint64_t weight);
  std::vector<LeafItem>& items() { return items_; }

 private:
  std::vector<LeafItem> items_;
  std::vector<std::unique_ptr<char[]>> bytes_;
};

}  // namespace dynlib::partition_map::internal

#endif  // DYNLIB_PARTITION_MAP_PERKLE_LEAF_H_
