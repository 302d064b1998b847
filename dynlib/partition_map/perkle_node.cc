#include "dynlib/partition_map/perkle_node.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"

namespace dynlib::partition_map::internal {
namespace {

// An entry and a branch never have the same digest, whatever bytes they are made of.
constexpr uint64_t kEntrySeed = 0x7065726b6c655f65;
constexpr uint64_t kBranchSeed = 0x7065726b6c655f62;

size_t AllocationSize(size_t children, size_t bytes, size_t value) {
  return sizeof(PerkleNode) + children * sizeof(void*) + bytes + value;
}

void PutDigest(std::string& out, const Digest128& digest) {
  PutFixed64(out, digest.low);
  PutFixed64(out, digest.high);
}

PerkleNodeRef Allocate(const PerkleShape& shape, const Digest128& digest, uint64_t entries) {
  const size_t value_size = shape.value.has_value() ? shape.value->size() : 0;
  const uint32_t count = shape.child_count();
  DYNLIB_CHECK(value_size < PerkleNode::kNoValue && shape.bytes.size() <= UINT16_MAX &&
               shape.end <= UINT16_MAX && entries <= UINT32_MAX);
  void* memory = ::operator new(AllocationSize(count, shape.bytes.size(), value_size));
  auto* node = new (memory) PerkleNode;
  node->references.store(1, std::memory_order_relaxed);
  node->entries = static_cast<uint32_t>(entries);
  node->digest = digest;
  node->bitmap = shape.bitmap;
  node->end = static_cast<uint16_t>(shape.end);
  node->bytes_size = static_cast<uint16_t>(shape.bytes.size());
  node->value_size =
      shape.value.has_value() ? static_cast<uint16_t>(value_size) : PerkleNode::kNoValue;
  char* to = reinterpret_cast<char*>(node + 1);
  for (uint32_t i = 0; i < count; ++i) {
    shape.children[i]->references.fetch_add(1, std::memory_order_relaxed);
    StoreFixed(to, shape.children[i]);
    to += sizeof(void*);
  }
  to = std::copy(shape.bytes.begin(), shape.bytes.end(), to);
  if (shape.value.has_value()) std::copy(shape.value->begin(), shape.value->end(), to);
  return PerkleNodeRef::Adopt(node);
}

bool DropsLast(const PerkleNode* node) {
  return node->references.fetch_sub(1, std::memory_order_acq_rel) == 1;
}

void Free(const PerkleNode* node) {
  node->~PerkleNode();
  ::operator delete(const_cast<PerkleNode*>(node));
}

}  // namespace

size_t PerkleNode::MemoryBytes() const {
  return AllocationSize(child_count(), bytes_size, value().size());
}

void PerkleNodeRef::Release(const PerkleNode* node) {
  if (!DropsLast(node)) return;
  if (node->bitmap == 0) return Free(node);
  // Keys may be thousands of nibbles deep: no recursion.
  std::vector<const PerkleNode*> dead = {node};
  while (!dead.empty()) {
    const PerkleNode* next = dead.back();
    dead.pop_back();
    for (uint32_t i = 0; i < next->child_count(); ++i) {
      if (DropsLast(next->child(i))) dead.push_back(next->child(i));
    }
    Free(next);
  }
}

PerkleShape PerkleShape::Of(const PerkleNode& node) {
  PerkleShape shape{.bytes = node.bytes(), .end = node.end, .bitmap = node.bitmap};
  if (node.has_value()) shape.value = node.value();
  for (uint32_t i = 0; i < node.child_count(); ++i) shape.children[i] = node.child(i);
  return shape;
}

void PerkleShape::SetChild(uint32_t nibble, const PerkleNode* child) {
  const auto index = static_cast<uint32_t>(std::popcount(bitmap & ((1u << nibble) - 1)));
  if ((bitmap >> nibble & 1) == 0) {
    std::copy_backward(children.begin() + index, children.begin() + child_count(),
                       children.begin() + child_count() + 1);
    bitmap = static_cast<uint16_t>(bitmap | 1u << nibble);
  }
  children[index] = child;
}

void PerkleShape::RemoveChild(uint32_t nibble) {
  const auto index = static_cast<uint32_t>(std::popcount(bitmap & ((1u << nibble) - 1)));
  std::copy(children.begin() + index + 1, children.begin() + child_count(),
            children.begin() + index);
  bitmap = static_cast<uint16_t>(bitmap & ~(1u << nibble));
}

Digest128 EntryDigest(std::string_view key, std::string_view value) {
  std::string bytes;
  bytes.reserve(key.size() + value.size() + 4);
  PutLengthPrefixed(bytes, key);
  bytes += value;
  return Digest(bytes, kEntrySeed);
}

// The keys in the digests of the entries are whole, so a subtree's digest says all of it, and does
// not change when the way to the subtree is compressed otherwise.
Digest128 ComputeDigest(const PerkleShape& shape, std::string_view key) {
  const std::string_view own_key = key.substr(0, shape.end / 2);
  if (shape.bitmap == 0) return EntryDigest(own_key, *shape.value);
  std::string bytes;
  bytes.reserve(3 + 17 * sizeof(Digest128));
  PutFixed16(bytes, shape.bitmap);
  PutFixed8(bytes, shape.value.has_value());
  if (shape.value.has_value()) PutDigest(bytes, EntryDigest(own_key, *shape.value));
  for (uint32_t i = 0; i < shape.child_count(); ++i) PutDigest(bytes, shape.children[i]->digest);
  return Digest(bytes, kBranchSeed);
}

PerkleNodeRef MakeNode(const PerkleShape& shape, std::string_view key) {
  uint64_t entries = shape.value.has_value();
  for (uint32_t i = 0; i < shape.child_count(); ++i) entries += shape.children[i]->entries;
  return Allocate(shape, ComputeDigest(shape, key), entries);
}

PerkleNodeRef WithBytes(const PerkleNode& node, std::string_view bytes) {
  PerkleShape shape = PerkleShape::Of(node);
  shape.bytes = bytes;
  return Allocate(shape, node.digest, node.entries);
}

uint32_t MatchNode(std::string_view key, uint32_t length, const PerkleNode& node, uint32_t start) {
  const uint32_t first_byte = start / 2;
  const std::string_view own = node.bytes();
  const std::string_view rest = key.substr(std::min<size_t>(first_byte, key.size()));
  const size_t common = static_cast<size_t>(
      std::mismatch(own.begin(), own.end(), rest.begin(), rest.end()).first - own.begin());
  uint32_t matched = 2 * (first_byte + static_cast<uint32_t>(common));
  if (common < own.size() && common < rest.size() &&
      static_cast<uint8_t>(own[common] ^ rest[common]) < 16) {
    ++matched;
  }
  return std::min({matched, length, uint32_t{node.end}});
}

}  // namespace dynlib::partition_map::internal
