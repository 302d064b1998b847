// The branches of TreeUpdate: what becomes of one when something happens below it.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

using Operation = WriteBatch::Operation;

// A page below this is merged with a neighbour, when the two together come to less than
// kMergedBytesMax: well below a full page, so that the next insertion does not split it again.
constexpr uint32_t kSmallPageBytes = kPageTargetBytes / 4;
constexpr uint32_t kMergedBytesMax = kPageTargetBytes * 3 / 4;
// A branch may be longer than the target until it has this many children, so that long keys cannot
// make a tree that is all height.
constexpr size_t kBranchChildrenMin = 4;

}  // namespace

absl::Status TreeUpdate::UpdateBranch(Node* node, const NodeContent& content,
                                      std::string_view separator, Operations operations,
                                      Pieces& out) {
  Changes changes;
  DYNLIB_RETURN_IF_ERROR(UpdateChildren(content, separator, operations, changes));
  if (std::none_of(changes.pieces.begin(), changes.pieces.end(),
                   [](const Piece& piece) { return piece.fresh; }) &&
      changes.pieces.size() == changes.children.size()) {
    out.push_back({node, separator});  // nothing happened below
    return absl::OkStatus();
  }
  Replace(node);
  if (ChangeBranch(content, separator, changes, out)) return absl::OkStatus();
  const uint32_t level = content.view().level();
  Pieces children = AllChildren(content, changes);
  DYNLIB_RETURN_IF_ERROR(MergeSmallNeighbours(children, level - 1));
  if (!children.empty()) BuildBranches(children, level, separator, out);
  return absl::OkStatus();
}

absl::Status TreeUpdate::UpdateChildren(const NodeContent& content, std::string_view separator,
                                        Operations operations, Changes& changes) {
  const PageView view = content.view();
  uint32_t child = view.ChildFor(operations.front()->key);
  while (!operations.empty()) {
    const size_t count = CountBelow(view, child, operations);
    const Operations here = operations.first(count);
    operations = operations.subspan(count);
    const uint32_t next = operations.empty() ? child : view.ChildFor(operations.front()->key);
    // Its misses come while this one is built.
    if (next != child) content.child(next)->content_with_slots();
    const std::string_view own = child == 0 ? separator : Key(view, child - 1);
    Node* const node = content.child(child);
    Quickly quickly = Quickly::kNotInMemory;
    if (view.level() == 1) quickly = ChangeLeaf(node, own, here, changes.pieces);
    if (quickly != Quickly::kDone) {
      DYNLIB_ASSIGN_OR_RETURN(const NodeContent* below, LoadChild(content, child));
      if (view.level() == 1) {
        UpdateLeaf(node, below, own, here, quickly == Quickly::kNotInMemory, changes.pieces);
      } else {
        DYNLIB_RETURN_IF_ERROR(UpdateBranch(node, *below, own, here, changes.pieces));
      }
    }
    changes.children.push_back({child, static_cast<uint32_t>(changes.pieces.size())});
    child = next;
  }
  return absl::OkStatus();
}

// How many of the operations, of which the first is one, are for that child.
size_t TreeUpdate::CountBelow(const PageView& view, uint32_t child, Operations operations) {
  if (child == view.count() || operations.size() == 1) return operations.size();
  const std::string_view bound = Key(view, child);
  if (operations[1]->key >= bound) return 1;
  return static_cast<size_t>(
      std::partition_point(operations.begin() + 2, operations.end(),
                           [bound](const Operation* operation) { return operation->key < bound; }) -
      operations.begin());
}

bool TreeUpdate::ChangeBranch(const NodeContent& content, std::string_view separator,
                              const Changes& changes, Pieces& out) {
  const PageView branch = content.view();
  const std::string_view prefix = branch.prefix();
  added_.clear();
  uint32_t at = 0;
  for (const auto& [child, end] : changes.children) {
    if (at == end) return false;
    for (uint32_t i = at; i < end; ++i) {
      const Piece& piece = changes.pieces[i];
      if (piece.fresh && piece.bytes < kSmallPageBytes) return false;
      if (i == at) continue;
      if (piece.separator.compare(0, prefix.size(), prefix) != 0) return false;
      added_.push_back({child, piece.separator});
    }
    at = end;
  }
  const uint32_t length = ChangedBranchLength(branch, added_);
  if (length > kPageTargetBytes && !added_.empty()) return false;
  const auto child_count = content.child_count + static_cast<uint32_t>(added_.size());
  NodeContent* page = nodes_->NewContent(length, child_count);
  ChangeBranchAt(page->data(), tree_, branch, added_);
  Node* const* old = content.children();
  Node** to = page->children();
  uint32_t from = 0;
  at = 0;
  for (const auto& [child, end] : changes.children) {
    to = std::copy(old + from, old + child, to);
    for (; at < end; ++at) *to++ = changes.pieces[at].node;
    from = child + 1;
  }
  std::copy(old + from, old + content.child_count, to);
  out.push_back(Made(MakeNode(page), separator));
  return true;
}

TreeUpdate::Pieces TreeUpdate::AllChildren(const NodeContent& content, const Changes& changes) {
  const PageView view = content.view();
  Pieces all;
  all.reserve(content.child_count + changes.pieces.size());
  auto change = changes.children.begin();
  auto piece = changes.pieces.begin();
  for (uint32_t i = 0; i < content.child_count; ++i) {
    if (change != changes.children.end() && change->child == i) {
      const auto end = changes.pieces.begin() + change->end;
      all.insert(all.end(), piece, end);
      piece = end;
      ++change;
    } else {
      all.push_back({content.child(i), i == 0 ? std::string_view() : Key(view, i - 1)});
    }
  }
  return all;
}

absl::Status TreeUpdate::MergeSmallNeighbours(Pieces& pieces, uint32_t level) {
  // Of others than fresh ones only the neighbours of small ones are looked at: that misses the
  // processor's caches.
  auto bytes = [&](const Piece& piece) {
    return piece.bytes != 0 ? piece.bytes : nodes_->Length(*piece.node);
  };
  auto small = [&](const Piece& piece) { return piece.fresh && bytes(piece) < kSmallPageBytes; };
  size_t kept = 0;  // pieces[0, kept) are final but for the last
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (kept > 0) {
      Piece& left = pieces[kept - 1];
      Piece& right = pieces[i];
      if (merges_ && !left.tailed && !right.tailed && (small(left) || small(right)) &&
          bytes(left) + bytes(right) <= kMergedBytesMax) {
        absl::StatusOr<Node*> merged = Merge(left, right, level);
        // A page that is damaged stays as it is: only who needs what is in it has to fail.
        if (!merged.ok() && !absl::IsDataLoss(merged.status())) return merged.status();
        if (merged.ok() && *merged != nullptr) {
          Replace(left.node);
          Replace(right.node);
          left = Made(*merged, left.separator);
          continue;
        }
      }
    }
    if (kept != i) pieces[kept] = pieces[i];
    ++kept;
  }
  pieces.resize(kept);
  return absl::OkStatus();
}

absl::StatusOr<Node*> TreeUpdate::Merge(const Piece& left, const Piece& right, uint32_t level) {
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* a, LoadTreePage(left.node));
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* b, LoadTreePage(right.node));
  if (level == 0) {
    std::vector<Item> items;
    AppendItems(*a, 0, a->view().count(), items);
    AppendItems(*b, 0, b->view().count(), items);
    PageSizer page = PageSizer::Leaf();
    for (const Item& item : items) {
      page.Add(item.entry.key, item.entry.value.size(), item.entry.overflow ? 1 : 0);
    }
    // Less prefix in common may make the whole longer than its parts.
    return page.length() <= kPageTargetBytes ? MakeLeaf(items) : nullptr;
  }
  Pieces children = AllChildren(*a);
  Pieces more = AllChildren(*b);
  more[0].separator = right.separator;
  std::move(more.begin(), more.end(), std::back_inserter(children));
  PageSizer page = PageSizer::Branch();
  for (size_t i = 1; i < children.size(); ++i) page.Add(children[i].separator, 0, 1);
  return page.length() <= kPageTargetBytes ? MakeBranch(children, level) : nullptr;
}

void TreeUpdate::BuildBranches(std::span<const Piece> children, uint32_t level,
                               std::string_view separator, Pieces& out) {
  PageSizer all = PageSizer::Branch();
  for (const Piece& child : children.subspan(1)) all.Add(child.separator, 0, 1);
  if (all.length() <= kPageTargetBytes || children.size() <= kBranchChildrenMin) {
    out.push_back(Made(MakeBranch(children, level), separator));
    return;
  }
  size_t goal = GoalBytes(all.length());
  size_t start = 0;
  PageSizer page = PageSizer::Branch();
  auto close = [&](size_t end) {
    out.push_back(Made(MakeBranch(children.subspan(start, end - start), level), separator));
    if (end < children.size()) separator = children[end].separator;
    start = end;
    page = PageSizer::Branch();
  };
  for (size_t i = 1; i < children.size(); ++i) {
    // Not before two children are left for the next page.
    if (i - start >= kBranchChildrenMin && i + 1 < children.size() &&
        (page.length() >= goal ||
         page.length_with(children[i].separator, 0, 1) > kPageTargetBytes)) {
      close(i);
    } else {
      page.Add(children[i].separator, 0, 1);
    }
  }
  close(children.size());
}

Node* TreeUpdate::MakeBranch(std::span<const Piece> children, uint32_t level) {
  std::vector<std::string_view> separators;
  separators.reserve(children.size());
  for (const Piece& child : children.subspan(1)) separators.push_back(child.separator);
  NodeContent* page =
      nodes_->NewContent(BranchLength(separators), static_cast<uint32_t>(children.size()));
  BuildBranchAt(page->data(), tree_, level, separators);
  for (size_t i = 0; i < children.size(); ++i) page->children()[i] = children[i].node;
  return MakeNode(page);
}

}  // namespace dynlib::store
