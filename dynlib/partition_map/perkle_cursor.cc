#include "dynlib/base/check.h"
#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

using internal::MatchNode;
using internal::NibbleAt;
using internal::NodeNibble;
using internal::PerkleNode;

void PerkleCursor::Push(const PerkleNode* node, uint32_t start) {
  frames_.push_back({node, start, kAtNode});
  key_.resize(start / 2);
  key_ += node->bytes();
}

void PerkleCursor::PushChild(uint32_t index) {
  Frame& top = frames_.back();
  top.child = static_cast<int>(index);
  Push(top.node->child(index), top.node->end);
}

// The key of the node on top, after those below it were left.
void PerkleCursor::StopAtNode() {
  frames_.back().child = kAtNode;
  key_.resize(frames_.back().node->end / 2);
}

// To the first key at or below the node on top: its own comes before its children's.
void PerkleCursor::DescendFirst() {
  while (!frames_.back().node->has_value()) PushChild(0);
  StopAtNode();
}

void PerkleCursor::DescendLast() {
  while (frames_.back().node->bitmap != 0) PushChild(frames_.back().node->child_count() - 1);
  StopAtNode();
}

// From the node on top, all of whose keys are passed, to the next key.
void PerkleCursor::ClimbNext() {
  frames_.pop_back();
  while (!frames_.empty()) {
    const auto next = static_cast<uint32_t>(frames_.back().child + 1);
    if (next < frames_.back().node->child_count()) {
      PushChild(next);
      return DescendFirst();
    }
    frames_.pop_back();
  }
}

void PerkleCursor::ClimbPrevious() {
  frames_.pop_back();
  while (!frames_.empty()) {
    const int previous = frames_.back().child - 1;
    if (previous >= 0) {
      PushChild(static_cast<uint32_t>(previous));
      return DescendLast();
    }
    if (frames_.back().node->has_value()) return StopAtNode();
    frames_.pop_back();
  }
}

// Goes down as far as the key agrees with the tree. Afterwards the node on top is where it does so
// no longer, with `child` the number of its children that are less than the key. The result says
// how the key stands to that node's own place.
PerkleCursor::Place PerkleCursor::Descend(std::string_view key) {
  frames_.clear();
  if (root_ == nullptr) return Place::kNowhere;
  const auto length = static_cast<uint32_t>(2 * key.size());
  Push(root_.get(), 0);
  while (true) {
    Frame& top = frames_.back();
    const uint32_t matched = MatchNode(key, length, *top.node, top.start);
    if (matched < top.node->end) {
      const bool before =
          matched == length || NibbleAt(key, matched) < NodeNibble(*top.node, top.start, matched);
      return before ? Place::kBefore : Place::kAfter;
    }
    if (matched == length) return Place::kAt;
    const uint32_t nibble = NibbleAt(key, matched);
    top.child = static_cast<int>(top.node->Rank(nibble));
    if (!top.node->HasChild(nibble)) return Place::kAmongChildren;
    PushChild(static_cast<uint32_t>(top.child));
  }
}

void PerkleCursor::SeekFirst() {
  frames_.clear();
  if (root_ == nullptr) return;
  Push(root_.get(), 0);
  DescendFirst();
}

void PerkleCursor::SeekLast() {
  frames_.clear();
  if (root_ == nullptr) return;
  Push(root_.get(), 0);
  DescendLast();
}

void PerkleCursor::SeekCeiling(std::string_view key) {
  switch (Descend(key)) {
    case Place::kNowhere:
      return;
    case Place::kBefore:
    case Place::kAt:
      return DescendFirst();
    case Place::kAfter:
      return ClimbNext();
    case Place::kAmongChildren: {
      const auto next = static_cast<uint32_t>(frames_.back().child);
      if (next == frames_.back().node->child_count()) return ClimbNext();
      PushChild(next);
      return DescendFirst();
    }
  }
}

void PerkleCursor::SeekFloor(std::string_view key) {
  switch (Descend(key)) {
    case Place::kNowhere:
      return;
    case Place::kBefore:
      return ClimbPrevious();
    case Place::kAfter:
      return DescendLast();
    case Place::kAt:
      return frames_.back().node->has_value() ? StopAtNode() : ClimbPrevious();
    case Place::kAmongChildren: {
      const int next = frames_.back().child;
      if (next > 0) {
        PushChild(static_cast<uint32_t>(next - 1));
        return DescendLast();
      }
      return frames_.back().node->has_value() ? StopAtNode() : ClimbPrevious();
    }
  }
}

void PerkleCursor::SeekLess(std::string_view key) {
  SeekFloor(key);
  if (valid() && this->key() == key) Previous();
}

void PerkleCursor::SeekGreater(std::string_view key) {
  SeekCeiling(key);
  if (valid() && this->key() == key) Next();
}

std::string_view PerkleCursor::value() const {
  DYNLIB_CHECK(valid());
  return frames_.back().node->value();
}

void PerkleCursor::Next() {
  DYNLIB_CHECK(valid());
  if (frames_.back().node->bitmap == 0) return ClimbNext();
  PushChild(0);
  DescendFirst();
}

void PerkleCursor::Previous() {
  DYNLIB_CHECK(valid());
  ClimbPrevious();
}

}  // namespace dynlib::partition_map
