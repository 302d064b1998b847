#include "dynlib/partition_map/perkle.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::partition_map {

using internal::BuildTree;
using internal::LeafBlock;
using internal::LeafItem;
using internal::LeafItems;
using internal::MakeLeaf;
using internal::MatchBranch;
using internal::NibbleAt;
using internal::Nibbles;
using internal::PerkleNode;
using internal::PerkleNodeRef;
using internal::PerkleShape;
using internal::PerkleTree;
using internal::SlotOf;

namespace {

using Pair = std::pair<std::string_view, std::string_view>;

absl::Status CheckLimits(std::string_view key, std::string_view value) {
  if (key.size() <= Perkle::kKeyBytesMax && value.size() <= Perkle::kValueBytesMax) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(Cat("key of ", key.size(), " and value of ", value.size(),
                                        " bytes: at most ", Perkle::kKeyBytesMax, " and ",
                                        Perkle::kValueBytesMax));
}

absl::Status CheckSorted(std::span<const Pair> entries) {
  for (size_t i = 0; i < entries.size(); ++i) {
    DYNLIB_RETURN_IF_ERROR(CheckLimits(entries[i].first, entries[i].second));
    if (i > 0 && entries[i - 1].first >= entries[i].first) {
      return absl::InvalidArgumentError(
          Cat("key ", Escape(entries[i].first), " is not greater than the one before it"));
    }
  }
  return absl::OkStatus();
}

uint64_t WeightOf(std::string_view key, size_t value_bytes) {
  return internal::kItemWeight + key.size() + value_bytes;
}

// The entries of a leaf (none, if it is null) with a key put in or taken out; as what they are at
// `start`, a leaf or a branch or nothing.
struct Edited {
  LeafItems unpacked;
  std::vector<LeafItem> items;
  uint64_t weight = 0;
};
Edited Edit(const PerkleNode* leaf, std::string_view key, std::optional<std::string_view> value) {
  Edited edited;
  if (leaf != nullptr) edited.unpacked.Append(leaf->block(), leaf->weight);
  edited.items = std::move(edited.unpacked.items());
  std::vector<LeafItem>& items = edited.items;
  const auto at =
      std::lower_bound(items.begin(), items.end(), key,
                       [](const LeafItem& item, std::string_view k) { return item.key < k; });
  const bool there = at != items.end() && at->key == key;
  if (!value.has_value()) {
    items.erase(at);
  } else if (there) {
    at->value = *value;
  } else {
    items.insert(at, {key, *value});
  }
  for (const LeafItem& item : items) edited.weight += Weight(item);
  return edited;
}

// The way down to where a key is or would be: branches that all have it in one of their slots.
struct Step {
  const PerkleNode* node;
  uint32_t start;
};

// A branch and a key that leaves it at nibble `at`, or ends within it.
PerkleTree Fork(const PerkleTree& branch, uint32_t start, uint32_t at, std::string_view key,
                std::string_view value) {
  std::string other;
  internal::ReadFirstKey(branch.node.get(), other);
  PerkleShape shape(start, at);
  shape.Set(SlotOf(other, at), internal::WithStart(branch, other, at));
  const LeafItem item{key, value};
  const uint64_t weight = Weight(item);
  shape.Place({.first = SlotOf(key, at)}, MakeLeaf({&item, 1}, weight));
  return std::move(shape).Finish(key, branch.node->entries + 1, branch.node->weight + weight);
}

// A branch with a change to what is in one of its slots, which has no branch.
PerkleTree EditSlot(const PerkleNode& branch, uint32_t start, uint32_t slot, std::string_view key,
                    std::optional<std::string_view> value, uint64_t entries, uint64_t weight) {
  PerkleShape shape(branch, start);
  const PerkleNode* leaf = nullptr;
  const PerkleShape::Block block = shape.BlockOf(slot, &leaf);
  const Edited edited = Edit(leaf, key, value);
  if (leaf != nullptr) shape.Remove(block.first);
  if (edited.items.empty()) {
    shape.Place(block, {});
  } else if (internal::FitLeaf(edited.weight, edited.items.size())) {
    shape.Place(block, MakeLeaf(edited.items, edited.weight));
  } else {
    std::vector<uint64_t> weights = {0};
    for (const LeafItem& item : edited.items) weights.push_back(weights.back() + Weight(item));
    shape.Split(block, edited.items, weights);
  }
  return std::move(shape).Finish(key, static_cast<uint32_t>(entries), weight);
}

std::optional<Perkle::Entry> EntryAt(const PerkleCursor& cursor) {
  if (!cursor.valid()) return std::nullopt;
  return Perkle::Entry{std::string(cursor.key()), std::string(cursor.value())};
}

// The least string greater than all that begin with `prefix`; empty when there is none.
std::string AfterPrefix(std::string_view prefix) {
  std::string after(prefix);
  while (!after.empty() && after.back() == '\xff') after.pop_back();
  if (!after.empty()) after.back() = static_cast<char>(static_cast<uint8_t>(after.back()) + 1);
  return after;
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

PerklePath PerklePath::Of(std::string_view key, uint32_t nibbles) {
  PerklePath path{std::string(key.substr(0, (nibbles + 1) / 2)), nibbles};
  if (nibbles % 2 == 1) path.bytes.back() = static_cast<char>(path.bytes.back() & 0xf0);
  return path;
}

uint32_t PerklePath::CommonWith(const PerklePath& other) const {
  const uint32_t shorter = std::min(nibbles, other.nibbles);
  uint32_t common = 0;
  while (common < shorter && At(common) == other.At(common)) ++common;
  return common;
}

absl::StatusOr<Perkle> Perkle::FromSorted(std::span<const Pair> entries) {
  DYNLIB_RETURN_IF_ERROR(CheckSorted(entries));
  if (entries.size() > UINT32_MAX) {
    return absl::InvalidArgumentError(Cat(entries.size(), " entries: at most ", UINT32_MAX));
  }
  // Keys that share long beginnings make deep trees, and the build recurses as deep: these are put
  // one by one.
  constexpr uint32_t kSharedBytesMax = 64;
  Perkle tree;
  std::vector<LeafItem> items;
  std::vector<Pair> deep;
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& [key, value] = entries[i];
    const bool shares =
        i > 0 && internal::CommonNibbles(entries[i - 1].first, key) > 2 * kSharedBytesMax;
    if (shares) {
      deep.push_back(entries[i]);
    } else {
      items.push_back({key, value});
    }
  }
  if (!items.empty()) tree.root_ = BuildTree(items, 0);
  for (const auto& [key, value] : deep) DYNLIB_RETURN_IF_ERROR(tree.Put(key, value));
  return tree;
}

absl::Status Perkle::Put(std::string_view key, std::string_view value) {
  DYNLIB_RETURN_IF_ERROR(CheckLimits(key, value));
  const Hit old = FloorHit(key);
  if (!old.found() || !old.exact()) {
    Apply({.key = key, .value = value, .entries = 1, .weight = WeightOf(key, value.size())});
    return absl::OkStatus();
  }
  const size_t old_bytes = old.value_head().size() + old.value_rest().size();
  const bool same = old_bytes == value.size() && value.starts_with(old.value_head()) &&
                    value.ends_with(old.value_rest());
  if (same) return absl::OkStatus();
  // What shrinks may fit a leaf with its neighbours; what grows may fit none any more.
  const uint64_t weight = old.node_->weight + value.size() - old_bytes;
  const bool stays = value.size() >= old_bytes && internal::FitLeaf(weight, old.node_->entries);
  Apply({.key = key,
         .value = value,
         .weight = uint64_t{value.size()} - old_bytes,
         .in_place = stays ? &old : nullptr});
  return absl::OkStatus();
}

bool Perkle::Erase(std::string_view key) {
  const Hit old = FloorHit(key);
  if (!old.found() || !old.exact()) return false;
  const size_t old_bytes = old.value_head().size() + old.value_rest().size();
  Apply({.key = key, .entries = uint64_t{0} - 1, .weight = uint64_t{0} - WeightOf(key, old_bytes)});
  return true;
}

void Perkle::Apply(const Change& change) {
  if (!empty() && !root_.node->is_leaf()) return ApplyBelow(change);
  if (change.in_place != nullptr) {
    root_ = internal::WithValue(*root_.node, change.in_place->slot_, *change.value,
                                root_.node->weight + change.weight);
    return;
  }
  const Edited edited = Edit(root_.node.get(), change.key, change.value);
  root_ = edited.items.empty() ? PerkleTree() : BuildTree(edited.items, 0);
}

void Perkle::ApplyBelow(const Change& change) {
  const std::string_view key = change.key;
  std::vector<Step> above;
  above.reserve(8);
  Step at{root_.node.get(), 0};
  Digest128 digest = root_.digest;
  PerkleTree below;
  while (below.node == nullptr) {
    const PerkleNode& node = *at.node;
    const uint64_t entries = node.entries + change.entries;
    const uint64_t weight = node.weight + change.weight;
    const uint32_t matched = MatchBranch(key, Nibbles(key), node, at.start);
    if (matched < node.end) {
      below = Fork({PerkleNodeRef(at.node), digest}, at.start, matched, key, *change.value);
      break;
    }
    const uint32_t slot = SlotOf(key, node.end);
    const int index = node.ChildAt(slot);
    if (index >= 0 && node.StartsAt(slot) && !node.child(index)->is_leaf()) {
      above.push_back(at);
      digest = node.digest(index);
      at = {node.child(index), node.end};
    } else if (change.in_place != nullptr) {
      const PerkleNode& leaf = *node.child(index);
      below = WithChild(
          node, index,
          WithValue(leaf, change.in_place->slot_, *change.value, leaf.weight + change.weight),
          entries, weight);
    } else {
      below = EditSlot(node, at.start, slot, key, change.value, entries, weight);
    }
  }
  for (; !above.empty(); above.pop_back()) {
    const auto [node, start] = above.back();
    const uint64_t entries = node->entries + change.entries;
    const uint64_t weight = node->weight + change.weight;
    const uint32_t slot = SlotOf(key, node->end);
    if (!below.node->is_leaf()) {
      below = WithChild(*node, node->ChildAt(slot), std::move(below), entries, weight);
    } else {
      // It was a branch, and had the slot for itself.
      PerkleShape shape(*node, start);
      shape.Remove(slot);
      shape.Place({.first = slot}, std::move(below));
      below = std::move(shape).Finish(key, static_cast<uint32_t>(entries), weight);
    }
  }
  root_ = std::move(below);
}

absl::Status Perkle::ReplaceRange(std::string_view first, std::string_view end,
                                  std::span<const Pair> entries) {
  DYNLIB_RETURN_IF_ERROR(CheckSorted(entries));
  if (!entries.empty() &&
      (entries.front().first < first || (!end.empty() && entries.back().first >= end))) {
    return absl::InvalidArgumentError(Cat("entries from ", Escape(entries.front().first), " to ",
                                          Escape(entries.back().first), ": not all in [",
                                          Escape(first), ", ", Escape(end), ")"));
  }
  std::vector<std::string> gone;
  auto in = entries.begin();
  Scan(first, end, ScanOrder::kForward, [&](std::string_view key, std::string_view) {
    while (in != entries.end() && in->first < key) ++in;
    if (in == entries.end() || in->first != key) gone.emplace_back(key);
    return true;
  });
  for (const std::string& key : gone) Erase(key);
  for (const auto& [key, value] : entries) DYNLIB_RETURN_IF_ERROR(Put(key, value));
  return absl::OkStatus();
}

std::optional<std::string> Perkle::Find(std::string_view key) const {
  const Hit hit = FloorHit(key);
  if (!hit.found() || !hit.exact()) return std::nullopt;
  std::string value;
  hit.AppendValue(value);
  return value;
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
  const Hit hit = FloorHit(key);
  if (!hit.found()) return std::nullopt;
  Entry entry;
  hit.ReadKey(entry.key);
  hit.AppendValue(entry.value);
  return entry;
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

}  // namespace dynlib::partition_map
