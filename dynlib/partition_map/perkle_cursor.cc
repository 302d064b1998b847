#include "dynlib/base/check.h"
#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

using internal::LeafBlock;
using internal::LeafSlot;
using internal::MatchBranch;
using internal::NibbleAt;
using internal::Nibbles;
using internal::PerkleNode;
using internal::SlotOf;

// At an entry, its key told by what is in the leaf before it.
void PerkleCursor::Stand(const PerkleNode* leaf, const LeafSlot& slot) {
  leaf_ = leaf;
  slot_ = slot;
  leaf->block().ReadKey(slot, key_);
  ReadValue();
}

void PerkleCursor::ReadValue() {
  rest_ = leaf_->block().ValueRest(slot_);
  if (!rest_.empty()) joined_.assign(slot_.value).append(rest_);
}

void PerkleCursor::DescendFirst(const PerkleNode* node) {
  while (!node->is_leaf()) {
    frames_.push_back({node, 0});
    node = node->child(0);
  }
  Stand(node, node->block().First());
}

void PerkleCursor::DescendLast(const PerkleNode* node) {
  while (!node->is_leaf()) {
    const int last = static_cast<int>(node->child_count()) - 1;
    frames_.push_back({node, last});
    node = node->child(last);
  }
  Stand(node, node->block().Last());
}

// From a subtree that is passed, to the next entry.
void PerkleCursor::ClimbNext() {
  leaf_ = nullptr;
  while (!frames_.empty()) {
    Frame& top = frames_.back();
    if (++top.child < static_cast<int>(top.node->child_count())) {
      return DescendFirst(top.node->child(top.child));
    }
    frames_.pop_back();
  }
}

void PerkleCursor::ClimbPrevious() {
  leaf_ = nullptr;
  while (!frames_.empty()) {
    Frame& top = frames_.back();
    if (--top.child >= 0) return DescendLast(top.node->child(top.child));
    frames_.pop_back();
  }
}

void PerkleCursor::SeekFirst() {
  frames_.clear();
  leaf_ = nullptr;
  if (!(root_ == nullptr)) DescendFirst(root_.get());
}

void PerkleCursor::SeekLast() {
  frames_.clear();
  leaf_ = nullptr;
  if (!(root_ == nullptr)) DescendLast(root_.get());
}

void PerkleCursor::SeekFloor(std::string_view key) {
  frames_.clear();
  leaf_ = nullptr;
  const PerkleNode* node = root_.get();
  if (node == nullptr) return;
  uint32_t start = 0;
  while (!node->is_leaf()) {
    const uint32_t matched = MatchBranch(key, Nibbles(key), *node, start);
    if (matched < node->end) {
      const bool less = matched == Nibbles(key) ||
                        NibbleAt(key, matched) < NibbleAt(node->bytes(), matched - start / 2 * 2);
      return less ? ClimbPrevious() : DescendLast(node);
    }
    const uint32_t slot = SlotOf(key, node->end);
    const int index = node->ChildAt(slot);
    if (index < 0) return ClimbPrevious();
    frames_.push_back({node, index});
    const bool within = node->StartsAt(slot);
    start = node->end;
    node = node->child(index);
    if (!within && !node->is_leaf()) return DescendLast(node);
  }
  LeafBlock::Found found;
  if (!node->block().Floor(key, found)) return ClimbPrevious();
  Stand(node, found.slot);
}

void PerkleCursor::SeekCeiling(std::string_view key) {
  SeekFloor(key);
  if (!valid()) return SeekFirst();
  if (this->key() != key) Next();
}

void PerkleCursor::SeekLess(std::string_view key) {
  SeekFloor(key);
  if (valid() && this->key() == key) Previous();
}

void PerkleCursor::SeekGreater(std::string_view key) {
  SeekFloor(key);
  if (!valid()) return SeekFirst();
  Next();
}

void PerkleCursor::Next() {
  DYNLIB_CHECK(valid());
  if (!leaf_->block().Next(slot_, slot_)) return ClimbNext();
  key_.resize(slot_.shared);
  key_ += slot_.added;
  ReadValue();
}

void PerkleCursor::Previous() {
  DYNLIB_CHECK(valid());
  LeafSlot previous;
  if (!leaf_->block().Previous(slot_, previous)) return ClimbPrevious();
  Stand(leaf_, previous);
}

}  // namespace dynlib::partition_map
