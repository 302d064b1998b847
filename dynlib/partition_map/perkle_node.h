// The nodes of a Perkle tree: immutable, counted, in one allocation each. Internal to perkle.
//
// A node stands for all keys that begin with the nibbles on the way to it. Its `bytes` are those of
// the keys from byte start/2 up to where it branches (`end`, in nibbles from the root), where
// `start` is its parent's `end`: so the first nibble, or the first two, are those by which the
// parent chose it. After an odd `end` the low half of the last byte is zero. A node exists only
// where keys end or part: it has a value or at least two children.
#ifndef DYNLIB_PARTITION_MAP_PERKLE_NODE_H_
#define DYNLIB_PARTITION_MAP_PERKLE_NODE_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "dynlib/base/checksum.h"

namespace dynlib::partition_map::internal {

struct PerkleNode {
  static constexpr uint16_t kNoValue = UINT16_MAX;

  mutable std::atomic<uint32_t> references;
  uint32_t entries;  // in the subtree
  Digest128 digest;  // of the entries in the subtree, keys in full: the same at whatever `start`
  uint16_t bitmap;   // bit n: there is a child of nibble n
  uint16_t end;
  uint16_t bytes_size;
  uint16_t value_size;
  // Then the children's pointers, the bytes, the value.

  uint32_t child_count() const { return static_cast<uint32_t>(std::popcount(bitmap)); }
  bool has_value() const { return value_size != kNoValue; }
  const PerkleNode* child(uint32_t index) const { return children()[index]; }
  bool HasChild(uint32_t nibble) const { return (bitmap >> nibble & 1) != 0; }
  // How many children have a lesser nibble: the index of the child of `nibble`, if there is one.
  uint32_t Rank(uint32_t nibble) const {
    return static_cast<uint32_t>(std::popcount(bitmap & ((1u << nibble) - 1)));
  }
  std::string_view bytes() const { return {tail() + child_count() * sizeof(void*), bytes_size}; }
  std::string_view value() const {
    return {tail() + child_count() * sizeof(void*) + bytes_size,
            has_value() ? value_size : size_t{0}};
  }
  size_t MemoryBytes() const;

 private:
  const char* tail() const { return reinterpret_cast<const char*>(this + 1); }
  const PerkleNode* const* children() const {
    return reinterpret_cast<const PerkleNode* const*>(this + 1);
  }
};
static_assert(sizeof(PerkleNode) == 32);

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
  const PerkleNode* operator->() const { return node_; }
  friend bool operator==(const PerkleNodeRef& ref, std::nullptr_t) { return ref.node_ == nullptr; }

 private:
  static void Release(const PerkleNode* node);
  const PerkleNode* node_ = nullptr;
};

// What a node is to be made of; children by index, in the order of their nibbles.
struct PerkleShape {
  std::string_view bytes;
  uint32_t end = 0;
  std::optional<std::string_view> value;
  uint16_t bitmap = 0;
  std::array<const PerkleNode*, 16> children{};

  static PerkleShape Of(const PerkleNode& node);
  uint32_t child_count() const { return static_cast<uint32_t>(std::popcount(bitmap)); }
  // Adds the child, or replaces the one of that nibble.
  void SetChild(uint32_t nibble, const PerkleNode* child);
  void RemoveChild(uint32_t nibble);
};

// A node of that shape, with count and digest. `key` is any key that begins with the node's own
// nibbles. The node shares its children.
PerkleNodeRef MakeNode(const PerkleShape& shape, std::string_view key);
// The same entries under other leading bytes: what changes when a branch above comes or goes.
PerkleNodeRef WithBytes(const PerkleNode& node, std::string_view bytes);

// Digest of one entry; what a node without children has for its own.
Digest128 EntryDigest(std::string_view key, std::string_view value);
Digest128 ComputeDigest(const PerkleShape& shape, std::string_view key);

inline uint32_t NibbleAt(std::string_view bytes, uint32_t nibble) {
  const auto byte = static_cast<uint8_t>(bytes[nibble / 2]);
  return nibble % 2 == 0 ? byte >> 4 : byte & 15;
}
// The nibble at a place at or after the node's start.
inline uint32_t NodeNibble(const PerkleNode& node, uint32_t start, uint32_t nibble) {
  return NibbleAt(node.bytes(), nibble - start / 2 * 2);
}

// How many of a key's first `length` nibbles agree with the node, counted from the root; at most
// node.end. Those before `start` must agree.
uint32_t MatchNode(std::string_view key, uint32_t length, const PerkleNode& node, uint32_t start);

}  // namespace dynlib::partition_map::internal

#endif  // DYNLIB_PARTITION_MAP_PERKLE_NODE_H_
