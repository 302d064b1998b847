#include "dynlib/partition_map/perkle.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::partition_map {

using internal::MakeNode;
using internal::MatchNode;
using internal::NibbleAt;
using internal::NodeNibble;
using internal::PerkleNode;
using internal::PerkleNodeRef;
using internal::PerkleShape;
using internal::WithBytes;

namespace {

uint32_t Nibbles(std::string_view key) { return static_cast<uint32_t>(2 * key.size()); }

// The bytes of a node between two places of a key.
std::string NodeBytes(std::string_view key, uint32_t start, uint32_t end) {
  std::string bytes(key.substr(start / 2, (end + 1) / 2 - start / 2));
  if (end % 2 == 1) bytes.back() = static_cast<char>(bytes.back() & 0xf0);
  return bytes;
}

PerkleNodeRef MakeLeaf(std::string_view key, uint32_t start, std::string_view value) {
  return MakeNode({.bytes = key.substr(start / 2), .end = Nibbles(key), .value = value}, key);
}

struct Step {
  const PerkleNode* node;
  uint32_t start;
};

// The nodes on the way to a key. The last one is where the key parts from the tree, or ends.
struct Way {
  std::vector<Step> above;
  Step last{};
  uint32_t matched = 0;  // nibbles of the key

  bool found(std::string_view key) const {
    return matched == Nibbles(key) && last.node->end == matched;
  }
};

// `root` is not null.
Way Descend(const PerkleNode* root, std::string_view key) {
  Way way{.last = {root, 0}};
  while (true) {
    const Step step = way.last;
    way.matched = MatchNode(key, Nibbles(key), *step.node, step.start);
    if (way.matched < step.node->end || way.matched == Nibbles(key)) return way;
    const uint32_t nibble = NibbleAt(key, way.matched);
    if (!step.node->HasChild(nibble)) return way;
    way.above.push_back(step);
    way.last = {step.node->child(step.node->Rank(nibble)), way.matched};
  }
}

// The nodes above with `child` in the place of the one that was below them.
PerkleNodeRef Rebuild(const std::vector<Step>& above, std::string_view key, PerkleNodeRef child) {
  for (size_t i = above.size(); i > 0; --i) {
    PerkleShape shape = PerkleShape::Of(*above[i - 1].node);
    shape.SetChild(NibbleAt(key, shape.end), child.get());
    child = MakeNode(shape, key);
  }
  return child;
}

// The node parts in two where the key leaves it, or ends within it.
PerkleNodeRef Fork(const Step& step, uint32_t at, std::string_view key, std::string_view value) {
  const std::string bytes = NodeBytes(key, step.start, at);
  const PerkleNodeRef lower =
      WithBytes(*step.node, step.node->bytes().substr(at / 2 - step.start / 2));
  PerkleShape upper{.bytes = bytes, .end = at};
  upper.SetChild(NodeNibble(*step.node, step.start, at), lower.get());
  if (at == Nibbles(key)) {
    upper.value = value;
    return MakeNode(upper, key);
  }
  const PerkleNodeRef leaf = MakeLeaf(key, at, value);
  upper.SetChild(NibbleAt(key, at), leaf.get());
  return MakeNode(upper, key);
}

// A node of that shape, or what canonical form has in its place: nothing when it is empty, its only
// child when that is all there is.
PerkleNodeRef MakeCanonical(const PerkleShape& shape, uint32_t start, std::string_view key) {
  if (shape.value.has_value() || shape.child_count() > 1) return MakeNode(shape, key);
  if (shape.bitmap == 0) return nullptr;
  std::string bytes(shape.bytes.substr(0, shape.end / 2 - start / 2));
  bytes += shape.children[0]->bytes();
  return WithBytes(*shape.children[0], bytes);
}

std::optional<Perkle::Entry> EntryAt(const PerkleCursor& cursor) {
  if (!cursor.valid()) return std::nullopt;
  return Perkle::Entry{std::string(cursor.key()), cursor.value()};
}

// The least string greater than all that begin with `prefix`; empty when there is none.
std::string AfterPrefix(std::string_view prefix) {
  std::string after(prefix);
  while (!after.empty() && after.back() == '\xff') after.pop_back();
  if (!after.empty()) after.back() = static_cast<char>(static_cast<uint8_t>(after.back()) + 1);
  return after;
}

// The topmost node all of whose keys begin with `path`; null when no key does.
Step Locate(const PerkleNode* node, const PerklePath& path) {
  uint32_t start = 0;
  while (node != nullptr) {
    const uint32_t matched = MatchNode(path.bytes, path.nibbles, *node, start);
    if (matched == path.nibbles) return {node, start};
    if (matched < node->end) return {nullptr, 0};
    const uint32_t nibble = NibbleAt(path.bytes, matched);
    start = matched;
    node = node->HasChild(nibble) ? node->child(node->Rank(nibble)) : nullptr;
  }
  return {nullptr, 0};
}

}  // namespace

bool PerklePath::valid() const {
  if (bytes.size() != (size_t{nibbles} + 1) / 2) return false;
  return nibbles % 2 == 0 || (bytes.back() & 15) == 0;
}

bool PerklePath::Contains(std::string_view key) const {
  if (Nibbles(key) < nibbles) return false;
  if (key.substr(0, nibbles / 2) != std::string_view(bytes).substr(0, nibbles / 2)) return false;
  return nibbles % 2 == 0 || NibbleAt(key, nibbles - 1) == NibbleAt(bytes, nibbles - 1);
}

PerklePath PerklePath::Child(uint32_t nibble) const {
  PerklePath path = *this;
  if (nibbles % 2 == 0) {
    path.bytes.push_back(static_cast<char>(nibble << 4));
  } else {
    path.bytes.back() = static_cast<char>(path.bytes.back() | static_cast<char>(nibble));
  }
  ++path.nibbles;
  return path;
}

uint32_t PerklePath::CommonWith(const PerklePath& other) const {
  const uint32_t shorter = std::min(nibbles, other.nibbles);
  uint32_t common = 0;
  while (common < shorter && At(common) == other.At(common)) ++common;
  return common;
}

size_t Perkle::size() const { return empty() ? 0 : root_->entries; }

Digest128 Perkle::digest() const { return empty() ? Digest128{} : root_->digest; }

absl::Status Perkle::Put(std::string_view key, std::string_view value) {
  if (key.size() > kKeyBytesMax || value.size() > kValueBytesMax) {
    return absl::InvalidArgumentError(Cat("key of ", key.size(), " and value of ", value.size(),
                                          " bytes: at most ", kKeyBytesMax, " and ",
                                          kValueBytesMax));
  }
  if (empty()) {
    root_ = MakeLeaf(key, 0, value);
    return absl::OkStatus();
  }
  const Way way = Descend(root_.get(), key);
  const PerkleNode& node = *way.last.node;
  PerkleNodeRef replacement;
  if (way.matched < node.end) {
    replacement = Fork(way.last, way.matched, key, value);
  } else if (way.found(key)) {
    if (node.has_value() && node.value() == value) return absl::OkStatus();
    PerkleShape shape = PerkleShape::Of(node);
    shape.value = value;
    replacement = MakeNode(shape, key);
  } else {
    const PerkleNodeRef leaf = MakeLeaf(key, way.matched, value);
    PerkleShape shape = PerkleShape::Of(node);
    shape.SetChild(NibbleAt(key, way.matched), leaf.get());
    replacement = MakeNode(shape, key);
  }
  root_ = Rebuild(way.above, key, std::move(replacement));
  return absl::OkStatus();
}

bool Perkle::Erase(std::string_view key) {
  if (empty()) return false;
  Way way = Descend(root_.get(), key);
  if (!way.found(key) || !way.last.node->has_value()) return false;
  PerkleShape shape = PerkleShape::Of(*way.last.node);
  shape.value.reset();
  PerkleNodeRef replacement = MakeCanonical(shape, way.last.start, key);
  if (replacement == nullptr && !way.above.empty()) {
    // A leaf went; the node above it may have no more reason to be. Those above that one have: no
    // child of theirs went.
    const Step parent = way.above.back();
    way.above.pop_back();
    shape = PerkleShape::Of(*parent.node);
    shape.RemoveChild(NibbleAt(key, shape.end));
    replacement = MakeCanonical(shape, parent.start, key);
  }
  root_ = Rebuild(way.above, key, std::move(replacement));
  return true;
}

std::optional<std::string_view> Perkle::Find(std::string_view key) const {
  const PerkleNode* node = root_.get();
  uint32_t start = 0;
  while (node != nullptr) {
    const uint32_t matched = MatchNode(key, Nibbles(key), *node, start);
    if (matched < node->end) return std::nullopt;
    if (matched == Nibbles(key)) {
      return node->has_value() ? std::make_optional(node->value()) : std::nullopt;
    }
    const uint32_t nibble = NibbleAt(key, matched);
    start = matched;
    node = node->HasChild(nibble) ? node->child(node->Rank(nibble)) : nullptr;
  }
  return std::nullopt;
}

std::optional<Perkle::Entry> Perkle::First() const {
  PerkleCursor cursor(*this);
  cursor.SeekFirst();
  return EntryAt(cursor);
}

std::optional<Perkle::Entry> Perkle::Last() const {
  PerkleCursor cursor(*this);
  cursor.SeekLast();
  return EntryAt(cursor);
}

std::optional<Perkle::Entry> Perkle::Floor(std::string_view key) const {
  PerkleCursor cursor(*this);
  cursor.SeekFloor(key);
  return EntryAt(cursor);
}

std::optional<Perkle::Entry> Perkle::Ceiling(std::string_view key) const {
  PerkleCursor cursor(*this);
  cursor.SeekCeiling(key);
  return EntryAt(cursor);
}

std::optional<Perkle::Entry> Perkle::Less(std::string_view key) const {
  PerkleCursor cursor(*this);
  cursor.SeekLess(key);
  return EntryAt(cursor);
}

std::optional<Perkle::Entry> Perkle::Greater(std::string_view key) const {
  PerkleCursor cursor(*this);
  cursor.SeekGreater(key);
  return EntryAt(cursor);
}

void Perkle::Scan(std::string_view first, std::string_view end, ScanOrder order,
                  Visitor visit) const {
  PerkleCursor cursor(*this);
  if (order == ScanOrder::kForward) {
    for (cursor.SeekCeiling(first); cursor.valid(); cursor.Next()) {
      if (!end.empty() && cursor.key() >= end) return;
      if (!visit(cursor.key(), cursor.value())) return;
    }
    return;
  }
  if (end.empty()) {
    cursor.SeekLast();
  } else {
    cursor.SeekLess(end);
  }
  for (; cursor.valid() && cursor.key() >= first; cursor.Previous()) {
    if (!visit(cursor.key(), cursor.value())) return;
  }
}

void Perkle::ScanPrefix(std::string_view prefix, ScanOrder order, Visitor visit) const {
  Scan(prefix, AfterPrefix(prefix), order, visit);
}

Perkle::Subtree Perkle::Summarize(const PerklePath& path) const {
  const Step at = Locate(root_.get(), path);
  if (at.node == nullptr) return {path, {}, 0};
  return {path, at.node->digest, at.node->entries};
}

std::optional<Perkle::Branch> Perkle::BranchAt(const PerklePath& path) const {
  const Step at = Locate(root_.get(), path);
  if (at.node == nullptr) return std::nullopt;
  Branch branch;
  branch.path.bytes = path.bytes.substr(0, at.start / 2);
  branch.path.bytes += at.node->bytes();
  branch.path.nibbles = at.node->end;
  if (at.node->has_value()) branch.entry = Entry{branch.path.bytes, at.node->value()};
  for (uint32_t nibble = 0; nibble < 16; ++nibble) {
    if (!at.node->HasChild(nibble)) continue;
    const PerkleNode* child = at.node->child(at.node->Rank(nibble));
    branch.children.push_back({branch.path.Child(nibble), child->digest, child->entries});
  }
  return branch;
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

}  // namespace dynlib::partition_map
