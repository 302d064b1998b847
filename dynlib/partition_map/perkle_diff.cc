// Walks over whole trees or pairs of them: Diff, MemoryBytes, Verify. Stacks of their own instead
// of recursion, since keys may be thousands of nibbles deep.
#include <algorithm>
#include <utility>

#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

using internal::ComputeDigest;
using internal::NibbleAt;
using internal::PerkleNode;
using internal::PerkleShape;

namespace {

// A node with the bytes from the root to where it branches.
struct Placed {
  const PerkleNode* node = nullptr;
  std::string path;

  explicit operator bool() const { return node != nullptr; }
};

Placed PlaceChild(const Placed& parent, uint32_t nibble) {
  if (!parent || !parent.node->HasChild(nibble)) return {};
  const PerkleNode* child = parent.node->child(parent.node->Rank(nibble));
  return {child, parent.path.substr(0, parent.node->end / 2).append(child->bytes())};
}

uint32_t CommonNibbles(const Placed& a, const Placed& b) {
  const auto [at, other] =
      std::mismatch(a.path.begin(), a.path.end(), b.path.begin(), b.path.end());
  auto common = static_cast<uint32_t>(2 * (at - a.path.begin()));
  if (at != a.path.end() && other != b.path.end() && static_cast<uint8_t>(*at ^ *other) < 16) {
    ++common;
  }
  return std::min({common, uint32_t{a.node->end}, uint32_t{b.node->end}});
}

std::optional<std::string_view> OwnValue(const Placed& placed) {
  if (!placed || !placed.node->has_value()) return std::nullopt;
  return placed.node->value();
}

class Differ {
 public:
  explicit Differ(Perkle::DiffVisitor visit) : visit_(visit) {}

  void Run(Placed a, Placed b) {
    Push(std::move(a), std::move(b));
    while (!pairs_.empty()) {
      auto [left, right] = std::move(pairs_.back());
      pairs_.pop_back();
      if (!Step(left, right)) return;
    }
  }

 private:
  // Either may be null. The pair on top comes first in key order.
  void Push(Placed a, Placed b) {
    if (a.node == b.node) return;
    if (a && b && a.node->digest == b.node->digest) return;
    pairs_.emplace_back(std::move(a), std::move(b));
  }

  bool Step(Placed& a, Placed& b) {
    if (!a || !b) return Level(a, b);
    const uint32_t common = CommonNibbles(a, b);
    if (common == a.node->end && common == b.node->end) return Level(a, b);
    if (common == a.node->end) return Below(a, b, /*swapped=*/false);
    if (common == b.node->end) return Below(b, a, /*swapped=*/true);
    // No key in common: one side after the other.
    const bool a_first = a.path < b.path;
    if (a_first) {
      pairs_.emplace_back(Placed{}, std::move(b));
      pairs_.emplace_back(std::move(a), Placed{});
    } else {
      pairs_.emplace_back(std::move(a), Placed{});
      pairs_.emplace_back(Placed{}, std::move(b));
    }
    return true;
  }

  // Both at the same place, or one of them null.
  bool Level(const Placed& a, const Placed& b) {
    if (!VisitOwn(a ? a.path : b.path, OwnValue(a), OwnValue(b))) return false;
    for (uint32_t nibble = 16; nibble-- > 0;) {
      Push(PlaceChild(a, nibble), PlaceChild(b, nibble));
    }
    return true;
  }

  // All of `lower` is below one nibble of `upper`.
  bool Below(const Placed& upper, Placed& lower, bool swapped) {
    const std::optional<std::string_view> own = OwnValue(upper);
    if (!(swapped ? VisitOwn(upper.path, std::nullopt, own)
                  : VisitOwn(upper.path, own, std::nullopt))) {
      return false;
    }
    const uint32_t lower_nibble = NibbleAt(lower.path, upper.node->end);
    for (uint32_t nibble = 16; nibble-- > 0;) {
      Placed child = PlaceChild(upper, nibble);
      Placed other = nibble == lower_nibble ? std::move(lower) : Placed{};
      if (swapped) std::swap(child, other);
      Push(std::move(child), std::move(other));
    }
    return true;
  }

  bool VisitOwn(std::string_view key, std::optional<std::string_view> a,
                std::optional<std::string_view> b) {
    return a == b || visit_(key, a, b);
  }

  Perkle::DiffVisitor visit_;
  std::vector<std::pair<Placed, Placed>> pairs_;
};

Placed PlaceRoot(const PerkleNode* root) {
  return root == nullptr ? Placed{} : Placed{root, std::string(root->bytes())};
}

bool IsSound(const Placed& placed) {
  const PerkleNode& node = *placed.node;
  uint64_t entries = node.has_value();
  for (uint32_t i = 0; i < node.child_count(); ++i) entries += node.child(i)->entries;
  const bool whole_byte = node.end % 2 == 0;
  const bool padded = whole_byte || (placed.path.back() & 15) == 0;
  return (node.has_value() || node.child_count() > 1) && (whole_byte || !node.has_value()) &&
         padded && placed.path.size() == (node.end + 1u) / 2 && entries == node.entries &&
         ComputeDigest(PerkleShape::Of(node), placed.path) == node.digest;
}

}  // namespace

void Perkle::Diff(const Perkle& a, const Perkle& b, DiffVisitor visit) {
  Differ(visit).Run(PlaceRoot(a.root_.get()), PlaceRoot(b.root_.get()));
}

size_t Perkle::MemoryBytes() const {
  size_t bytes = 0;
  std::vector<const PerkleNode*> nodes;
  if (root_.get() != nullptr) nodes.push_back(root_.get());
  while (!nodes.empty()) {
    const PerkleNode* node = nodes.back();
    nodes.pop_back();
    bytes += node->MemoryBytes();
    for (uint32_t i = 0; i < node->child_count(); ++i) nodes.push_back(node->child(i));
  }
  return bytes;
}

bool Perkle::Verify() const {
  std::vector<Placed> nodes;
  if (root_.get() != nullptr) nodes.push_back(PlaceRoot(root_.get()));
  while (!nodes.empty()) {
    const Placed placed = std::move(nodes.back());
    nodes.pop_back();
    if (!IsSound(placed)) return false;
    for (uint32_t nibble = 0; nibble < 16; ++nibble) {
      Placed child = PlaceChild(placed, nibble);
      if (!child) continue;
      if (NibbleAt(child.path, placed.node->end) != nibble) return false;
      nodes.push_back(std::move(child));
    }
  }
  return true;
}

}  // namespace dynlib::partition_map
