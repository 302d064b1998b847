#include "dynlib/store/page_change.h"

#include <algorithm>
#include <cstring>

#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"

namespace dynlib::store {

// The cells of a page lie in the order of their keys, one behind the other, so a run of them is one
// piece, and its slots differ by how far it moved.
class PageChanger {
 public:
  // The header and the prefix of `old`, for so many slots and references.
  PageChanger(char* page, TreeId tree, const PageView& old, uint32_t length, uint32_t count,
              uint32_t children)
      : page_(page),
        old_(old),
        slot_(page + kPageHeaderBytes + kPageRefBytes * children),
        cell_(slot_ + kSlotBytes * count) {
    std::memcpy(page, old.page_, kPageHeaderBytes);
    StoreFixed<uint64_t>(page + 8, static_cast<uint64_t>(tree));
    StoreFixed<uint32_t>(page + 16, length);
    StoreFixed<uint32_t>(page + 20, count);
    StoreFixed<uint32_t>(page + 24, children);
    Append(old.prefix());
  }

  void CopyRun(uint32_t from, uint32_t to) {
    if (from == to) return;
    const char* first = old_.cell(from);
    const char* end = to < old_.count() ? old_.cell(to) : old_.page_ + old_.length();
    const uint64_t moved = static_cast<uint32_t>((cell_ - page_) - (first - old_.page_));
    const char* old = old_.slots() + kSlotBytes * from;
    for (uint32_t i = from; i < to; ++i, old += kSlotBytes, slot_ += kSlotBytes) {
      StoreFixed<uint64_t>(slot_, LoadFixed<uint64_t>(old) + (moved << 32));
    }
    Append({first, static_cast<size_t>(end - first)});
  }

  void PutRow(std::string_view suffix, std::string_view value) {
    StartCell(suffix);
    StoreFixed<uint16_t>(cell_ + 2, kInlinedValue);
    StoreFixed<uint32_t>(cell_ + 4, static_cast<uint32_t>(value.size()));
    cell_ += kLeafCellBytes;
    Append(suffix);
    Append(value);
  }

  void PutSeparator(std::string_view suffix) {
    StartCell(suffix);
    cell_ += kBranchCellBytes;
    Append(suffix);
  }

  uint32_t length() const { return static_cast<uint32_t>(cell_ - page_); }

 private:
  void StartCell(std::string_view suffix) {
    StoreFixed<uint32_t>(slot_, SuffixHead(suffix));
    StoreFixed<uint32_t>(slot_ + 4, static_cast<uint32_t>(cell_ - page_));
    slot_ += kSlotBytes;
    StoreFixed<uint16_t>(cell_, static_cast<uint16_t>(suffix.size()));
  }
  void Append(std::string_view bytes) {
    if (!bytes.empty()) std::memcpy(cell_, bytes.data(), bytes.size());
    cell_ += bytes.size();
  }

  char* const page_;
  const PageView& old_;
  char* slot_;
  char* cell_;
};

uint32_t ChangedLeafLength(const PageView& leaf, std::span<const LeafChange> changes) {
  const size_t prefix = leaf.prefix().size();
  size_t length = leaf.length();
  for (const LeafChange& change : changes) {
    if (change.at.found) length -= kSlotBytes + leaf.CellBytes(change.at.index);
    if (change.value.has_value()) {
      length += kSlotBytes + kLeafCellBytes + change.key.size() - prefix + change.value->size();
    }
  }
  return static_cast<uint32_t>(length);
}

void ChangeLeafAt(char* page, TreeId tree, const PageView& leaf,
                  std::span<const LeafChange> changes) {
  uint32_t count = leaf.count();
  for (const LeafChange& change : changes) {
    count += (change.value.has_value() ? 1 : 0) - (change.at.found ? 1 : 0);
  }
  const uint32_t length = ChangedLeafLength(leaf, changes);
  PageChanger changer(page, tree, leaf, length, count, /*children=*/0);
  const size_t prefix = leaf.prefix().size();
  uint32_t next = 0;
  for (const LeafChange& change : changes) {
    changer.CopyRun(next, change.at.index);
    if (change.value.has_value()) changer.PutRow(change.key.substr(prefix), *change.value);
    next = change.at.index + (change.at.found ? 1 : 0);
  }
  changer.CopyRun(next, leaf.count());
  DYNLIB_CHECK(changer.length() == length);
}

uint32_t ChangedBranchLength(const PageView& branch, std::span<const NewSeparator> added) {
  const size_t prefix = branch.prefix().size();
  size_t length = branch.length();
  for (const NewSeparator& separator : added) {
    length += kPageRefBytes + kSlotBytes + kBranchCellBytes + separator.key.size() - prefix;
  }
  return static_cast<uint32_t>(length);
}

void ChangeBranchAt(char* page, TreeId tree, const PageView& branch,
                    std::span<const NewSeparator> added) {
  const auto more = static_cast<uint32_t>(added.size());
  const uint32_t length = ChangedBranchLength(branch, added);
  PageChanger changer(page, tree, branch, length, branch.count() + more,
                      branch.child_count() + more);
  const size_t prefix = branch.prefix().size();
  uint32_t next = 0;
  for (const NewSeparator& separator : added) {
    changer.CopyRun(next, separator.before);
    changer.PutSeparator(separator.key.substr(prefix));
    next = separator.before;
  }
  changer.CopyRun(next, branch.count());
  DYNLIB_CHECK(changer.length() == length);
}

}  // namespace dynlib::store
