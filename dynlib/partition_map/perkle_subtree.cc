// What a tree says of its parts, and of itself as a structure.
#include <algorithm>
#include <utility>

#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

using internal::LeafItem;
using internal::LeafItems;
using internal::MatchBranch;
using internal::Nibbles;
using internal::PerkleNode;
using internal::PerkleTree;
using internal::SlotOf;

namespace {

// All entries below a path: a whole node, or some of a leaf's.
struct Below {
  const PerkleNode* node = nullptr;
  Digest128 digest;
  LeafItems unpacked;
  std::span<const LeafItem> items;  // when no node is all of it

  bool empty() const { return node == nullptr && items.empty(); }
};

std::span<const LeafItem> ItemsBelow(std::span<const LeafItem> items, const PerklePath& path) {
  const auto first = std::lower_bound(
      items.begin(), items.end(), path.bytes,
      [](const LeafItem& item, std::string_view bytes) { return item.key < bytes; });
  const auto after = std::find_if_not(
      first, items.end(), [&](const LeafItem& item) { return path.Contains(item.key); });
  return {first, after};
}

void Unpack(const PerkleNode& leaf, const PerklePath& path, Below& below) {
  below.unpacked.Append(leaf.block(), leaf.weight);
  below.items = ItemsBelow(below.unpacked.items(), path);
}

Below Locate(const PerkleNode* node, Digest128 digest, const PerklePath& path) {
  Below below;
  uint32_t start = 0;
  while (node != nullptr) {
    if (node->is_leaf()) {
      Unpack(*node, path, below);
      return below;
    }
    const uint32_t matched = MatchBranch(path.bytes, path.nibbles, *node, start);
    if (matched == path.nibbles) {
      below.node = node;
      below.digest = digest;
      return below;
    }
    if (matched < node->end) return below;
    const uint32_t slot = 1 + path.At(matched);
    const int index = node->ChildAt(slot);
    if (index < 0) return below;
    const bool within = node->StartsAt(slot);
    start = node->end;
    digest = node->digest(index);
    node = node->child(index);
    if (!within && !node->is_leaf()) return below;
  }
  return below;
}

Perkle::Subtree Summary(PerklePath path, std::span<const LeafItem> items) {
  if (items.empty()) return {std::move(path), {}, 0};
  return {std::move(path), internal::DigestOf(items), items.size()};
}

// A branch whose entries are these: where their keys part, or the only one ends.
Perkle::Branch BranchOf(std::span<const LeafItem> items) {
  const std::string_view first = items.front().key;
  const uint32_t end = internal::CommonNibbles(first, items.back().key);
  Perkle::Branch branch;
  branch.path = PerklePath::Of(first, end);
  if (Nibbles(first) == end) {
    branch.entry = Perkle::Entry{std::string(first), std::string(items.front().value)};
    items = items.subspan(1);
  }
  while (!items.empty()) {
    PerklePath path = PerklePath::Of(items.front().key, end + 1);
    const std::span<const LeafItem> child = ItemsBelow(items, path);
    items = items.subspan(child.size());
    branch.children.push_back(Summary(std::move(path), child));
  }
  return branch;
}

Perkle::Branch BranchOf(const PerkleNode& node) {
  Perkle::Branch branch;
  std::string first;
  internal::ReadFirstKey(&node, first);
  branch.path = PerklePath::Of(first, node.end);
  for (int i = 0; i < static_cast<int>(node.child_count()); ++i) {
    const PerkleNode& child = *node.child(i);
    internal::ReadFirstKey(&child, first);
    if (!child.is_leaf()) {
      branch.children.push_back(
          {PerklePath::Of(first, node.end + 1u), node.digest(i), child.entries});
      continue;
    }
    // A leaf may cover several nibbles.
    LeafItems unpacked;
    unpacked.Append(child.block(), child.weight);
    std::span<const LeafItem> items = unpacked.items();
    if (Nibbles(first) == node.end) {
      branch.entry = Perkle::Entry{first, std::string(items[0].value)};
      continue;
    }
    while (!items.empty()) {
      PerklePath path = PerklePath::Of(items.front().key, node.end + 1u);
      const std::span<const LeafItem> below = ItemsBelow(items, path);
      branch.children.push_back(below.size() == child.entries
                                    ? Perkle::Subtree{path, node.digest(i), child.entries}
                                    : Summary(path, below));
      items = items.subspan(below.size());
    }
  }
  return branch;
}

}  // namespace

Perkle::Subtree Perkle::Summarize(const PerklePath& path) const {
  const Below below = Locate(root_.node.get(), root_.digest, path);
  if (below.node != nullptr) return {path, below.digest, below.node->entries};
  return Summary(path, below.items);
}

std::optional<Perkle::Branch> Perkle::BranchAt(const PerklePath& path) const {
  const Below below = Locate(root_.node.get(), root_.digest, path);
  if (below.empty()) return std::nullopt;
  return below.node != nullptr ? BranchOf(*below.node) : BranchOf(below.items);
}

void Perkle::ScanSubtree(const PerklePath& path, std::optional<std::string_view> after,
                         Visitor visit) const {
  PerkleCursor cursor(*this);
  if (after.has_value() && *after >= path.bytes) {
    cursor.SeekGreater(*after);
  } else {
    cursor.SeekCeiling(path.bytes);
  }
  for (; cursor.valid() && path.Contains(cursor.key()); cursor.Next()) {
    if (!visit(cursor.key(), cursor.value())) return;
  }
}

size_t Perkle::MemoryBytes() const {
  size_t bytes = 0;
  std::vector<const PerkleNode*> nodes;
  if (!empty()) nodes.push_back(root_.node.get());
  while (!nodes.empty()) {
    const PerkleNode* node = nodes.back();
    nodes.pop_back();
    bytes += node->MemoryBytes();
    for (int i = 0; i < static_cast<int>(node->child_count()); ++i) nodes.push_back(node->child(i));
  }
  return bytes;
}

// Built anew from its entries a tree has the same digests, and as its digests are of its nodes,
// from the leaves up, nodes with the same digests are the same; but for counts and weights.
bool Perkle::Verify() const {
  LeafItems all;
  std::vector<PerkleTree> nodes;
  if (empty()) return digest() == Digest128{};
  nodes.push_back(root_);
  while (!nodes.empty()) {
    const PerkleTree at = std::move(nodes.back());
    nodes.pop_back();
    const PerkleNode& node = *at.node;
    const size_t before = all.items().size();
    if (node.is_leaf()) {
      all.Append(node.block(), node.weight);
      const std::span<const LeafItem> own = std::span(all.items()).subspan(before);
      uint64_t weight = 0;
      for (const LeafItem& item : own) weight += Weight(item);
      if (internal::DigestOf(own) != at.digest || own.size() != node.entries ||
          weight != node.weight) {
        return false;
      }
      continue;
    }
    uint64_t weight = 0, entries = 0;
    for (int i = static_cast<int>(node.child_count()); i-- > 0;) {
      nodes.push_back({internal::PerkleNodeRef(node.child(i)), node.digest(i)});
      weight += node.child(i)->weight;
      entries += node.child(i)->entries;
    }
    if (weight != node.weight || entries != node.entries) return false;
  }
  std::vector<std::pair<std::string_view, std::string_view>> pairs;
  for (const LeafItem& item : all.items()) pairs.emplace_back(item.key, item.value);
  const absl::StatusOr<Perkle> anew = FromSorted(pairs);
  return anew.ok() && anew->digest() == digest() && anew->MemoryBytes() == MemoryBytes();
}

}  // namespace dynlib::partition_map
