// The nodes of a Perkle tree: immutable, counted, in one allocation each. Internal to perkle.
//
// What nodes there are, and what is in each, follows from the entries alone:
//   - entries that fit a leaf (perkle_leaf.h) are a leaf;
//   - others are a branch, at the first nibble in which their keys differ. It has seventeen slots:
//     the key that ends there, and one for each nibble. A slot whose entries do not fit a leaf has
//     a branch of its own; of the others, the largest blocks of 1, 2, 4 or 8 slots (aligned, as
//     buddies are) that fit a leaf together share one. So leaves are half full at least, nearly
//     always, and an update changes one of them.
#ifndef DYNLIB_PARTITION_MAP_PERKLE_NODE_H_
#define DYNLIB_PARTITION_MAP_PERKLE_NODE_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/partition_map/perkle_leaf.h"

namespace dynlib::partition_map::internal {

inline constexpr uint32_t kSlots = 17;

inline uint32_t NibbleAt(std::string_view bytes, uint32_t nibble) {
  const auto byte = static_cast<uint8_t>(bytes[nibble / 2]);
  return nibble % 2 == 0 ? byte >> 4 : byte & 15;
}
inline uint32_t Nibbles(std::string_view key) { return static_cast<uint32_t>(2 * key.size()); }
// Of a branch at `end`, the slot of a key that begins as its keys do.
inline uint32_t SlotOf(std::string_view key, uint32_t end) {
  return Nibbles(key) == end ? 0 : 1 + NibbleAt(key, end);
}

struct PerkleNode {
  mutable std::atomic<uint32_t> references;
  uint32_t entries;  // in the subtree
  uint64_t weight;   // of these
  // Of a branch. Bit n: the n-th slot begins a child, whose slots go up to the next one that does,
  // or end before it. Zero in a leaf.
  uint32_t starts;
  uint16_t end;  // of a branch: the nibbles that all keys begin with
  // Of a branch: what the keys have from byte start/2 up to `end`, where `start` is the parent's
  // `end`; so the first nibble, or the first two, are those by which the parent chose it. After an
  // odd `end` the low half of the last byte is zero. Of a leaf: unused.
  uint16_t bytes_size;
  // Then in a branch: the children's pointers; the pointer to their digests, which are elsewhere,
  // since look-ups have no use for them, and so have the rest of the branches in the processor's
  // caches (a fifth of the time of a look-up in ten million entries); the children's sizes, in
  // units of kSizeUnit; the bytes. In a leaf: the size of the block (4 bytes), the block.

  bool is_leaf() const { return starts == 0; }
  LeafBlock block() const { return LeafBlock(block_bytes()); }
  std::string_view block_bytes() const {
    return {tail() + sizeof(uint32_t), LoadFixed<uint32_t>(tail())};
  }

  uint32_t child_count() const { return static_cast<uint32_t>(std::popcount(starts)); }
  // The child that has the slot, if there is one, or else the last one before it; -1 when there is
  // none.
  int ChildAt(uint32_t slot) const { return std::popcount(starts & ((2u << slot) - 1)) - 1; }
  bool StartsAt(uint32_t slot) const { return (starts >> slot & 1) != 0; }
  const PerkleNode* child(int index) const {
    return reinterpret_cast<const PerkleNode* const*>(tail())[index];
  }
  const Digest128* digests() const {
    return LoadFixed<const Digest128*>(tail() + child_count() * sizeof(void*));
  }
  const Digest128& digest(int index) const { return digests()[index]; }
  // About how long the block of a child is; 0 when it is a branch.
  static constexpr size_t kSizeUnit = 16;
  size_t child_size(int index) const {
    const char* sizes = tail() + (child_count() + 1) * sizeof(void*);
    return kSizeUnit * LoadFixed<uint16_t>(sizes + 2 * static_cast<size_t>(index));
  }
  std::string_view bytes() const {
    return {tail() + child_count() * kChildBytes + sizeof(void*), bytes_size};
  }
  // What a child takes in its branch, its digest aside.
  static constexpr size_t kChildBytes = sizeof(void*) + sizeof(uint16_t);
  size_t MemoryBytes() const;

 private:
  const char* tail() const { return reinterpret_cast<const char*>(this + 1); }
};
static_assert(sizeof(PerkleNode) == 24);

// A counted pointer. Releasing the last one frees what only it held, without recursion.
class PerkleNodeRef {
 public:
  PerkleNodeRef() = default;
  PerkleNodeRef(std::nullptr_t) {}
  // Shares.
  explicit PerkleNodeRef(const PerkleNode* node) : node_(node) {
    if (node_ != nullptr) node_->references.fetch_add(1, std::memory_order_relaxed);
  }
  // Takes over a count that the caller has.
  static PerkleNodeRef Adopt(const PerkleNode* node) {
    PerkleNodeRef ref;
    ref.node_ = node;
    return ref;
  }
  PerkleNodeRef(const PerkleNodeRef& other) : PerkleNodeRef(other.node_) {}
  PerkleNodeRef(PerkleNodeRef&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  PerkleNodeRef& operator=(PerkleNodeRef other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~PerkleNodeRef() {
    if (node_ != nullptr) Release(node_);
  }

  const PerkleNode* get() const { return node_; }
  // Gives up the count to the caller.
  const PerkleNode* Leak() { return std::exchange(node_, nullptr); }
  const PerkleNode* operator->() const { return node_; }
  const PerkleNode& operator*() const { return *node_; }
  friend bool operator==(const PerkleNodeRef& ref, std::nullptr_t) { return ref.node_ == nullptr; }

 private:
  static void Release(const PerkleNode* node);
  const PerkleNode* node_ = nullptr;
};

// A node, and the digest of its entries; null and zero for none.
struct PerkleTree {
  PerkleNodeRef node;
  Digest128 digest;
};

// A branch in the making: what is in its slots. Children cover aligned blocks of slots, as said
// above; BlockOf and Place keep to that.
class PerkleShape {
 public:
  // `start` is the parent's end.
  PerkleShape(uint32_t start, uint32_t end) : start_(start), end_(end) {}
  PerkleShape(const PerkleNode& branch, uint32_t start);

  // `size` slots from `first` on, in 1 to 16; slot 0 is a block of its own, with size 1.
  struct Block {
    uint32_t first = 0;
    uint32_t size = 1;
  };
  // The largest block that has the slot and no child but one leaf that covers it, which is at
  // `leaf`: null when the block is empty. The slot must not be a branch's.
  Block BlockOf(uint32_t slot, const PerkleNode** leaf) const;

  void Remove(uint32_t slot);
  // Puts a child at a slot that starts one already, or is no child's.
  void Set(uint32_t slot, PerkleTree child);
  // Puts a leaf, or nothing if it is null, into a block that is empty, and joins it with the blocks
  // beside it as long as they fit one leaf.
  void Place(Block block, PerkleTree leaf);
  // Cuts entries that do not fit a leaf into blocks. The block is empty.
  void Split(Block block, std::span<const LeafItem> items, std::span<const uint64_t> weights);

  uint32_t count() const { return static_cast<uint32_t>(std::popcount(starts_)); }
  // What the entries of the children are as a tree: a branch, or what is in its place when they fit
  // a leaf or have no branch here. `key` is any key that begins as theirs do.
  PerkleTree Finish(std::string_view key, uint32_t entries, uint64_t weight) &&;

 private:
  uint32_t Bits(Block block) const { return starts_ & (((1u << block.size) - 1) << block.first); }
  PerkleTree& At(uint32_t slot) {
    return children_[static_cast<size_t>(std::popcount(starts_ & ((1u << slot) - 1)))];
  }
  const PerkleTree& At(uint32_t slot) const { return const_cast<PerkleShape*>(this)->At(slot); }
  PerkleTree MakeBranch(std::string_view key, uint32_t entries, uint64_t weight);

  uint32_t start_;
  uint32_t end_;
  uint32_t starts_ = 0;
  std::array<PerkleTree, kSlots> children_;
};

PerkleTree MakeLeaf(std::span<const LeafItem> items, uint64_t weight);
// The leaf with another value at a slot of its block; its new weight must fit.
PerkleTree WithValue(const PerkleNode& leaf, const LeafSlot& slot, std::string_view value,
                     uint64_t weight);
// The same branch but for one child.
PerkleTree WithChild(const PerkleNode& branch, int index, PerkleTree child, uint64_t entries,
                     uint64_t weight);
// The same branch, for a parent that ends at `start`; `key` is any key that begins as its keys do.
PerkleTree WithStart(const PerkleTree& branch, std::string_view key, uint32_t start);
// Of at least one entry, in key order; weights[i] is what the entries before the i-th weigh, and
// there is one more of them.
PerkleTree BuildTree(std::span<const LeafItem> items, std::span<const uint64_t> weights,
                     uint32_t start);
// The same for those who have no weights.
PerkleTree BuildTree(std::span<const LeafItem> items, uint32_t start);
// The digest that these entries have as a tree of their own; they fit a leaf.
Digest128 DigestOf(std::span<const LeafItem> items);

// Any key of the subtree: its first.
void ReadFirstKey(const PerkleNode* node, std::string& key);

// How many of a key's nibbles agree with the branch, counted from the root; at most its end. Those
// before `start` must agree. `length` is how many the key has.
uint32_t MatchBranch(std::string_view key, uint32_t length, const PerkleNode& branch,
                     uint32_t start);
// The nibbles that two keys begin with alike.
uint32_t CommonNibbles(std::string_view a, std::string_view b);

}  // namespace dynlib::partition_map::internal

#endif  // DYNLIB_PARTITION_MAP_PERKLE_NODE_H_
