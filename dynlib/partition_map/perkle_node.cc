#include "dynlib/partition_map/perkle_node.h"

#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/base/huge_heap.h"

namespace dynlib::partition_map::internal {
namespace {

// A leaf and a branch never have the same digest, whatever bytes they are made of.
constexpr uint64_t kLeafSeed = 0x7065726b6c655f6c;
constexpr uint64_t kBranchSeed = 0x7065726b6c655f62;

constexpr size_t kChildBytes = PerkleNode::kChildBytes;

char* Tail(PerkleNode* node) { return reinterpret_cast<char*>(node + 1); }

PerkleNode* Allocate(size_t tail_bytes, uint64_t entries, uint64_t weight) {
  DYNLIB_CHECK(entries <= UINT32_MAX);
  auto* node = new (HugeHeap::Allocate(sizeof(PerkleNode) + tail_bytes)) PerkleNode;
  node->references.store(1, std::memory_order_relaxed);
  node->entries = static_cast<uint32_t>(entries);
  node->weight = weight;
  node->starts = 0;
  node->end = 0;
  node->bytes_size = 0;
  return node;
}

bool DropsLast(const PerkleNode* node) {
  return node->references.fetch_sub(1, std::memory_order_acq_rel) == 1;
}

size_t DigestBytes(const PerkleNode& node) { return node.child_count() * sizeof(Digest128); }

void Free(const PerkleNode* node) {
  size_t bytes = node->MemoryBytes();
  if (!node->is_leaf()) {
    HugeHeap::Free(const_cast<Digest128*>(node->digests()), DigestBytes(*node));
    bytes -= DigestBytes(*node);
  }
  node->~PerkleNode();
  HugeHeap::Free(const_cast<PerkleNode*>(node), bytes);
}

// The bytes of a branch between two places of a key.
std::string BranchBytes(std::string_view key, uint32_t start, uint32_t end) {
  std::string bytes(key.substr(start / 2, (end + 1) / 2 - start / 2));
  if (end % 2 == 1) bytes.back() = static_cast<char>(bytes.back() & 0xf0);
  return bytes;
}

// The children are to be put.
PerkleNode* AllocateBranch(uint32_t starts, uint32_t end, std::string_view bytes, uint64_t entries,
                           uint64_t weight) {
  const auto count = static_cast<size_t>(std::popcount(starts));
  PerkleNode* node = Allocate(count * kChildBytes + sizeof(void*) + bytes.size(), entries, weight);
  node->starts = starts;
  node->end = static_cast<uint16_t>(end);
  node->bytes_size = static_cast<uint16_t>(bytes.size());
  StoreFixed(Tail(node) + count * sizeof(void*), HugeHeap::Allocate(DigestBytes(*node)));
  std::copy(bytes.begin(), bytes.end(), Tail(node) + count * kChildBytes + sizeof(void*));
  return node;
}

void PutChild(PerkleNode* node, size_t index, const PerkleNode* child, const Digest128& digest) {
  constexpr size_t kUnit = PerkleNode::kSizeUnit;
  const size_t units = child->is_leaf() ? (child->block_bytes().size() + kUnit - 1) / kUnit : 0;
  char* tail = Tail(node);
  StoreFixed(tail + index * sizeof(void*), child);
  StoreFixed(tail + (node->child_count() + 1) * sizeof(void*) + index * sizeof(uint16_t),
             static_cast<uint16_t>(std::min<size_t>(units, UINT16_MAX)));
  const_cast<Digest128*>(node->digests())[index] = digest;
}

// A branch's digest is of its children's, which are of whole keys: so it does not depend on how
// the way to it is cut into branches.
Digest128 DigestBranch(const PerkleNode& node) {
  const auto* digests = reinterpret_cast<const char*>(node.digests());
  return Digest({digests, node.child_count() * sizeof(Digest128)},
                kBranchSeed ^ uint64_t{node.starts} << 32);
}

// Both in key order, and fit a leaf together.
PerkleTree JoinLeaves(const PerkleNode& first, const PerkleNode& second) {
  LeafItems items;
  items.Append(first.block(), first.weight);
  items.Append(second.block(), second.weight);
  return MakeLeaf(items.items(), first.weight + second.weight);
}

PerkleShape::Block Parent(PerkleShape::Block block) {
  const uint32_t first = (block.first - 1) & ~(2 * block.size - 1);
  return {1 + first, 2 * block.size};
}
PerkleShape::Block Buddy(PerkleShape::Block block) {
  return {1 + ((block.first - 1) ^ block.size), block.size};
}

}  // namespace

size_t PerkleNode::MemoryBytes() const {
  if (is_leaf()) return sizeof(PerkleNode) + sizeof(uint32_t) + block_bytes().size();
  return sizeof(PerkleNode) + child_count() * (kChildBytes + sizeof(Digest128)) + sizeof(void*) +
         bytes_size;
}

void PerkleNodeRef::Release(const PerkleNode* node) {
  if (!DropsLast(node)) return;
  if (node->is_leaf()) return Free(node);
  // Keys may be thousands of nibbles deep: no recursion.
  std::vector<const PerkleNode*> dead = {node};
  while (!dead.empty()) {
    const PerkleNode* next = dead.back();
    dead.pop_back();
    for (int i = 0; i < static_cast<int>(next->child_count()); ++i) {
      if (DropsLast(next->child(i))) dead.push_back(next->child(i));
    }
    Free(next);
  }
}

PerkleTree WithStart(const PerkleTree& branch, std::string_view key, uint32_t start) {
  const PerkleNode& from = *branch.node;
  PerkleNode* node = AllocateBranch(from.starts, from.end, BranchBytes(key, start, from.end),
                                    from.entries, from.weight);
  for (int i = 0; i < static_cast<int>(from.child_count()); ++i) {
    PutChild(node, static_cast<size_t>(i), PerkleNodeRef(from.child(i)).Leak(), from.digest(i));
  }
  return {PerkleNodeRef::Adopt(node), branch.digest};
}

PerkleTree WithValue(const PerkleNode& leaf, const LeafSlot& slot, std::string_view value,
                     uint64_t weight) {
  std::string block;
  leaf.block().WriteWithValue(slot, value, block);
  PerkleNode* node = Allocate(sizeof(uint32_t) + block.size(), leaf.entries, weight);
  StoreFixed(Tail(node), static_cast<uint32_t>(block.size()));
  std::copy(block.begin(), block.end(), Tail(node) + sizeof(uint32_t));
  return {PerkleNodeRef::Adopt(node), Digest(block, kLeafSeed)};
}

PerkleTree WithChild(const PerkleNode& branch, int index, PerkleTree child, uint64_t entries,
                     uint64_t weight) {
  PerkleNode* node = AllocateBranch(branch.starts, branch.end, branch.bytes(), entries, weight);
  const uint32_t count = branch.child_count();
  const char* from = reinterpret_cast<const char*>(&branch + 1);
  char* tail = Tail(node);
  std::copy_n(from, count * sizeof(void*), tail);
  const size_t sizes = (count + 1) * sizeof(void*);
  std::copy_n(from + sizes, count * sizeof(uint16_t), tail + sizes);
  std::copy_n(branch.digests(), count, const_cast<Digest128*>(node->digests()));
  for (int i = 0; i < static_cast<int>(count); ++i) {
    if (i != index) PerkleNodeRef(branch.child(i)).Leak();
  }
  const PerkleNode* fresh = child.node.Leak();
  PutChild(node, static_cast<size_t>(index), fresh, child.digest);
  return {PerkleNodeRef::Adopt(node), DigestBranch(*node)};
}

PerkleTree MakeLeaf(std::span<const LeafItem> items, uint64_t weight) {
  const LeafEncoder encoder(items);
  PerkleNode* node = Allocate(sizeof(uint32_t) + encoder.size(), items.size(), weight);
  StoreFixed(Tail(node), static_cast<uint32_t>(encoder.size()));
  encoder.Write(Tail(node) + sizeof(uint32_t));
  return {PerkleNodeRef::Adopt(node), Digest(node->block_bytes(), kLeafSeed)};
}

Digest128 DigestOf(std::span<const LeafItem> items) {
  const LeafEncoder encoder(items);
  std::string bytes(encoder.size(), '\0');
  encoder.Write(bytes.data());
  return Digest(bytes, kLeafSeed);
}

PerkleTree BuildTree(std::span<const LeafItem> items, std::span<const uint64_t> weights,
                     uint32_t start) {
  const uint64_t weight = weights[items.size()] - weights[0];
  if (FitLeaf(weight, items.size())) return MakeLeaf(items, weight);
  const std::string_view key = items.front().key;
  PerkleShape shape(start, CommonNibbles(key, items.back().key));
  const bool own = SlotOf(key, CommonNibbles(key, items.back().key)) == 0;
  if (own) shape.Set(0, MakeLeaf(items.first(1), weights[1] - weights[0]));
  const std::span<const LeafItem> below = items.subspan(own);
  const uint64_t below_weight = weights[items.size()] - weights[own];
  if (FitLeaf(below_weight, below.size())) {
    shape.Place({.first = 1, .size = 16}, MakeLeaf(below, below_weight));
  } else {
    shape.Split({.first = 1, .size = 16}, below, weights.subspan(own));
  }
  return std::move(shape).Finish(key, static_cast<uint32_t>(items.size()), weight);
}

PerkleTree BuildTree(std::span<const LeafItem> items, uint32_t start) {
  std::vector<uint64_t> weights = {0};
  weights.reserve(items.size() + 1);
  for (const LeafItem& item : items) weights.push_back(weights.back() + Weight(item));
  return BuildTree(items, weights, start);
}

PerkleShape::PerkleShape(const PerkleNode& branch, uint32_t start)
    : start_(start), end_(branch.end), starts_(branch.starts) {
  for (int i = 0; i < static_cast<int>(branch.child_count()); ++i) {
    children_[static_cast<size_t>(i)] = {PerkleNodeRef(branch.child(i)), branch.digest(i)};
  }
}

PerkleShape::Block PerkleShape::BlockOf(uint32_t slot, const PerkleNode** leaf) const {
  Block block{.first = slot};
  *leaf = Bits(block) == 0 ? nullptr : At(slot).node.get();
  while (slot > 0 && block.size < 16) {
    const Block parent = Parent(block);
    const uint32_t bits = Bits(parent);
    if (bits != 0) {
      // Only a leaf that begins where the block does may cover all of it.
      if (bits != 1u << parent.first || !At(parent.first).node->is_leaf()) break;
      *leaf = At(parent.first).node.get();
    }
    block = parent;
  }
  return block;
}

void PerkleShape::Remove(uint32_t slot) {
  const auto at = std::popcount(starts_ & ((1u << slot) - 1));
  std::move(children_.begin() + at + 1, children_.begin() + count(), children_.begin() + at);
  children_[count() - 1] = {};
  starts_ &= ~(1u << slot);
}

void PerkleShape::Set(uint32_t slot, PerkleTree child) {
  if ((starts_ >> slot & 1) == 0) {
    const auto at = std::popcount(starts_ & ((1u << slot) - 1));
    std::move_backward(children_.begin() + at, children_.begin() + count(),
                       children_.begin() + count() + 1);
    starts_ |= 1u << slot;
  }
  At(slot) = std::move(child);
}

void PerkleShape::Place(Block block, PerkleTree leaf) {
  while (block.first > 0 && block.size < 16) {
    const Block buddy = Buddy(block);
    const uint32_t bits = Bits(buddy);
    if (bits != 0) {
      if (bits != 1u << buddy.first) break;
      const PerkleTree other = At(buddy.first);
      if (!other.node->is_leaf()) break;
      if (leaf.node == nullptr) {
        leaf = other;
      } else {
        const bool fit = FitLeaf(leaf.node->weight + other.node->weight,
                                 uint64_t{leaf.node->entries} + other.node->entries);
        if (!fit) break;
        leaf = buddy.first < block.first ? JoinLeaves(*other.node, *leaf.node)
                                         : JoinLeaves(*leaf.node, *other.node);
      }
      Remove(buddy.first);
    }
    block = Parent(block);
  }
  if (!(leaf.node == nullptr)) Set(block.first, std::move(leaf));
}

// Recursion: a block halves, and a branch below one slot has fewer entries. Those of one leaf that
// overflows are few hundreds; see Perkle::FromSorted for more.
void PerkleShape::Split(Block block, std::span<const LeafItem> items,
                        std::span<const uint64_t> weights) {
  if (items.empty()) return;
  const uint64_t weight = weights[items.size()] - weights[0];
  if (FitLeaf(weight, items.size())) return Set(block.first, MakeLeaf(items, weight));
  if (block.size == 1) return Set(block.first, BuildTree(items, weights, end_));
  const Block low{.first = block.first, .size = block.size / 2};
  const Block high{.first = block.first + low.size, .size = low.size};
  const auto cut =
      static_cast<size_t>(std::partition_point(items.begin(), items.end(),
                                               [&](const LeafItem& item) {
                                                 return SlotOf(item.key, end_) < high.first;
                                               }) -
                          items.begin());
  Split(low, items.first(cut), weights.first(cut + 1));
  Split(high, items.subspan(cut), weights.subspan(cut));
}

PerkleTree PerkleShape::MakeBranch(std::string_view key, uint32_t entries, uint64_t weight) {
  PerkleNode* node = AllocateBranch(starts_, end_, BranchBytes(key, start_, end_), entries, weight);
  for (size_t i = 0; i < count(); ++i) {
    PutChild(node, i, children_[i].node.Leak(), children_[i].digest);
  }
  return {PerkleNodeRef::Adopt(node), DigestBranch(*node)};
}

PerkleTree PerkleShape::Finish(std::string_view key, uint32_t entries, uint64_t weight) && {
  if (entries == 0) return {};
  if (FitLeaf(weight, entries)) {
    if (count() == 1) return std::move(children_[0]);
    LeafItems items;
    for (size_t i = 0; i < count(); ++i) {
      items.Append(children_[i].node->block(), children_[i].node->weight);
    }
    return MakeLeaf(items.items(), weight);
  }
  if (count() > 1) return MakeBranch(key, entries, weight);
  std::string first;
  ReadFirstKey(children_[0].node.get(), first);
  return WithStart(children_[0], first, start_);
}

void ReadFirstKey(const PerkleNode* node, std::string& key) {
  while (!node->is_leaf()) node = node->child(0);
  const LeafBlock block = node->block();
  block.ReadKey(block.First(), key);
}

uint32_t CommonNibbles(std::string_view a, std::string_view b) {
  const auto [at, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  auto common = static_cast<uint32_t>(2 * (at - a.begin()));
  if (at != a.end() && other != b.end() && static_cast<uint8_t>(*at ^ *other) < 16) ++common;
  return common;
}

uint32_t MatchBranch(std::string_view key, uint32_t length, const PerkleNode& branch,
                     uint32_t start) {
  const uint32_t first_byte = start / 2;
  const std::string_view rest = key.substr(std::min<size_t>(first_byte, key.size()));
  const uint32_t matched = 2 * first_byte + CommonNibbles(branch.bytes(), rest);
  return std::min({matched, length, uint32_t{branch.end}});
}

}  // namespace dynlib::partition_map::internal
