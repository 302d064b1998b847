// What differs between two trees. A stack of its own instead of recursion, since keys may be
// thousands of nibbles deep.
#include <algorithm>
#include <utility>

#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

using internal::kSlots;
using internal::PerkleNode;
using internal::PerkleShape;
using internal::SlotOf;

namespace {

struct Part {
  const PerkleNode* node = nullptr;
  Digest128 digest;
  uint32_t start = 0;
  // The slots of its parent that it covers.
  uint32_t first = 0;
  uint32_t after = 0;
};
// Subtrees in key order, next to each other.
using Parts = std::vector<Part>;

Parts ChildrenOf(const Part& branch) {
  Parts parts;
  const PerkleNode& node = *branch.node;
  const PerkleShape shape(node, branch.start);
  int index = 0;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    if (!node.StartsAt(slot)) continue;
    Part part{.node = node.child(index), .digest = node.digest(index), .start = node.end};
    PerkleShape::Block block{.first = slot};
    const PerkleNode* leaf = nullptr;
    if (part.node->is_leaf()) block = shape.BlockOf(slot, &leaf);
    part.first = block.first;
    part.after = block.first + block.size;
    parts.push_back(part);
    ++index;
  }
  return parts;
}

// A subtree as what is in one slot.
Part InSlot(Part part, uint32_t slot) {
  part.first = slot;
  part.after = slot + 1;
  return part;
}

// Visits the entries of subtrees next to each other.
class Entries {
 public:
  explicit Entries(const Parts& parts) : parts_(parts) { Advance(); }
  bool valid() const { return cursor_.valid(); }
  const PerkleCursor& at() const { return cursor_; }
  void Next() {
    cursor_.Next();
    Advance();
  }

 private:
  void Advance() {
    while (!cursor_.valid() && next_ < parts_.size()) {
      cursor_ = PerkleCursor(parts_[next_++].node);
      cursor_.SeekFirst();
    }
  }

  const Parts& parts_;
  size_t next_ = 0;
  PerkleCursor cursor_{static_cast<const PerkleNode*>(nullptr)};
};

class Differ {
 public:
  explicit Differ(Perkle::DiffVisitor visit) : visit_(visit) {}

  void Run(Parts a, Parts b) {
    Push(std::move(a), std::move(b));
    while (!pairs_.empty()) {
      const auto [left, right] = std::move(pairs_.back());
      pairs_.pop_back();
      if (!Step(left, right)) return;
    }
  }

 private:
  // The pair on top comes first in key order.
  void Push(Parts a, Parts b) {
    if (a.empty() && b.empty()) return;
    if (a.size() == 1 && b.size() == 1 && a[0].digest == b[0].digest) return;
    pairs_.emplace_back(std::move(a), std::move(b));
  }

  bool Step(const Parts& a, const Parts& b) {
    const bool branches =
        a.size() == 1 && b.size() == 1 && !a[0].node->is_leaf() && !b[0].node->is_leaf();
    if (!branches) return VisitEntries(a, b);
    std::string in_a, in_b;
    internal::ReadFirstKey(a[0].node, in_a);
    internal::ReadFirstKey(b[0].node, in_b);
    const uint32_t a_end = a[0].node->end, b_end = b[0].node->end;
    const uint32_t common = internal::CommonNibbles(in_a, in_b);
    if (common < std::min(a_end, b_end)) {
      // No key in common: one side after the other.
      const bool a_first = in_a < in_b;
      if (!a_first) Push(a, {});
      Push({}, b);
      if (a_first) Push(a, {});
    } else if (a_end == b_end) {
      PushChildren(ChildrenOf(a[0]), ChildrenOf(b[0]));
    } else if (a_end < b_end) {
      PushChildren(ChildrenOf(a[0]), {InSlot(b[0], SlotOf(in_b, a_end))});
    } else {
      PushChildren({InSlot(a[0], SlotOf(in_a, b_end))}, ChildrenOf(b[0]));
    }
    return true;
  }

  // Cuts both where neither has a child across the cut.
  void PushChildren(const Parts& a, const Parts& b) {
    std::vector<std::pair<Parts, Parts>> groups;
    auto in_a = a.begin(), in_b = b.begin();
    while (in_a != a.end() || in_b != b.end()) {
      std::pair<Parts, Parts> group;
      uint32_t after = 0;
      auto take = [&](Parts::const_iterator& at, Parts::const_iterator end, Parts& to) {
        if (at == end || at->first >= after) return false;
        after = std::max(after, at->after);
        to.push_back(*at++);
        return true;
      };
      after = 1 + std::min(in_a == a.end() ? kSlots : in_a->first,
                           in_b == b.end() ? kSlots : in_b->first);
      while (take(in_a, a.end(), group.first) || take(in_b, b.end(), group.second)) {
      }
      groups.push_back(std::move(group));
    }
    for (auto group = groups.rbegin(); group != groups.rend(); ++group) {
      Push(std::move(group->first), std::move(group->second));
    }
  }

  // Where one side is leaves: entry by entry, which is one leaf's work more than what differs.
  bool VisitEntries(const Parts& a, const Parts& b) {
    Entries in_a(a), in_b(b);
    while (in_a.valid() || in_b.valid()) {
      const bool has_a = in_a.valid() && (!in_b.valid() || in_a.at().key() <= in_b.at().key());
      const bool has_b = in_b.valid() && (!has_a || in_a.at().key() == in_b.at().key());
      const auto value_a = has_a ? std::make_optional(in_a.at().value()) : std::nullopt;
      const auto value_b = has_b ? std::make_optional(in_b.at().value()) : std::nullopt;
      const std::string_view key = has_a ? in_a.at().key() : in_b.at().key();
      if (value_a != value_b && !visit_(key, value_a, value_b)) return false;
      if (has_a) in_a.Next();
      if (has_b) in_b.Next();
    }
    return true;
  }

  Perkle::DiffVisitor visit_;
  std::vector<std::pair<Parts, Parts>> pairs_;
};

}  // namespace

void Perkle::Diff(const Perkle& a, const Perkle& b, DiffVisitor visit) {
  auto parts = [](const Perkle& tree) {
    return tree.empty() ? Parts() : Parts{{tree.root_.node.get(), tree.root_.digest}};
  };
  Differ(visit).Run(parts(a), parts(b));
}

}  // namespace dynlib::partition_map
