#include "dynlib/store/tree_update.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

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
constexpr size_t kArenaBlockBytes = 64 << 10;

// How long a page may get when `total` bytes are spread over as few pages as possible. Evenly, to
// leave room in each.
size_t GoalBytes(size_t total) {
  size_t pages = (total + kPageTargetBytes - 1) / kPageTargetBytes;
  return total / pages;
}

}  // namespace

absl::Status CheckLimits(const WriteBatch& batch) {
  for (const Operation& operation : batch.operations()) {
    if (operation.key.size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(
          Cat("key of ", operation.key.size(), " bytes; at most ", kMaxKeyBytes));
    }
    if (operation.range_end.has_value() && operation.range_end->size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(
          Cat("end of a range of ", operation.range_end->size(), " bytes; at most ", kMaxKeyBytes));
    }
    if (operation.value.has_value() && operation.value->size() > kMaxValueBytes) {
      return absl::InvalidArgumentError(
          Cat("value of ", operation.value->size(), " bytes; at most ", kMaxValueBytes));
    }
  }
  return absl::OkStatus();
}

std::vector<const WriteBatch::Operation*> TreeUpdate::Sorted(const WriteBatch& batch) {
  std::vector<const Operation*> sorted;
  sorted.reserve(batch.size());
  const std::vector<Operation>& all = batch.operations();
  std::vector<const Operation*> later;  // ranges that are deleted after the operation
  for (size_t i = all.size(); i-- > 0;) {
    const bool gone = std::any_of(later.begin(), later.end(), [&](const Operation* range) {
      return range->Covers(all[i].key);
    });
    if (all[i].range_end.has_value()) {
      later.push_back(&all[i]);
    } else if (!gone) {
      sorted.push_back(&all[i]);
    }
  }
  std::reverse(sorted.begin(), sorted.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Operation* a, const Operation* b) { return a->key < b->key; });
  size_t kept = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i + 1 < sorted.size() && sorted[i + 1]->key == sorted[i]->key) continue;
    sorted[kept++] = sorted[i];
  }
  sorted.resize(kept);
  return sorted;
}

std::string_view TreeUpdate::ShortestSeparator(std::string_view left, std::string_view right) {
  size_t n = std::min(left.size(), right.size());
  size_t same = std::mismatch(left.begin(), left.begin() + n, right.begin()).first - left.begin();
  return right.substr(0, same + 1);
}

std::string_view TreeUpdate::Arena::Concat(std::string_view a, std::string_view b) {
  size_t length = a.size() + b.size();
  if (length == 0) return {};
  if (length > left_) {
    left_ = std::max(length, kArenaBlockBytes);
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(left_));
    free_ = blocks_.back().get();
  }
  char* to = free_;
  std::copy(a.begin(), a.end(), to);
  std::copy(b.begin(), b.end(), to + a.size());
  free_ += length;
  left_ -= length;
  return {to, length};
}

std::string_view TreeUpdate::Key(const PageView& view, uint32_t index) {
  std::string_view prefix = view.prefix();
  return prefix.empty() ? view.suffix(index) : arena_.Concat(prefix, view.suffix(index));
}

TreeUpdate::~TreeUpdate() {
  pinned_.clear();
  for (Node* node : made_) nodes_->Unmake(node);
}

const NodeContent* TreeUpdate::Pin(ContentRef content) {
  pinned_.push_back(std::move(content));
  return pinned_.back().get();
}

absl::StatusOr<const NodeContent*> TreeUpdate::LoadTreePage(Node* node) {
  DYNLIB_ASSIGN_OR_RETURN(ContentRef content,
                          nodes_->Load(*node, NodeStore::Expect::kTreePage, ReadMode::kMayBlock));
  return Pin(std::move(content));
}

absl::StatusOr<const NodeContent*> TreeUpdate::LoadChild(const NodeContent& parent,
                                                         uint32_t index) {
  DYNLIB_ASSIGN_OR_RETURN(ContentRef content,
                          nodes_->LoadChild(parent, index, ReadMode::kMayBlock));
  return Pin(std::move(content));
}

Node* TreeUpdate::MakeNode(NodeContent* content) {
  made_.push_back(nodes_->MakeNode(content));
  return made_.back();
}

absl::StatusOr<Node*> TreeUpdate::Run(Node* root, const WriteBatch& batch) {
  if (batch.has_ranges()) return RunWithRanges(root, batch);
  return RunSorted(root, Sorted(batch));
}

absl::StatusOr<Node*> TreeUpdate::RunSorted(Node* root, Operations operations) {
  if (operations.empty()) return root;
  Pieces pieces;
  if (root == nullptr) {
    UpdateLeaf(root, nullptr, {}, operations, pieces);
  } else {
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(root));
    DYNLIB_RETURN_IF_ERROR(Update(root, *content, {}, operations, pieces));
  }
  return MakeRoot(std::move(pieces));
}

absl::StatusOr<Node*> TreeUpdate::MakeRoot(Pieces pieces) {
  while (pieces.size() > 1) {
    Pieces above;
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* below, LoadTreePage(pieces[0].node));
    BuildBranches(pieces, below->view().level() + 1, {}, above);
    pieces = std::move(above);
  }
  if (pieces.empty()) return nullptr;
  Node* top = pieces[0].node;
  while (true) {  // a root with a single child gives way to it
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(top));
    if (content->view().level() == 0 || content->child_count > 1) return top;
    Node* child = content->child(0);
    Replace(top);  // harmless for a node that this update made: it never gets an address
    top = std::move(child);
  }
}

absl::Status TreeUpdate::Update(Node* node, const NodeContent& content, std::string_view separator,
                                Operations operations, Pieces& out) {
  if (content.view().level() > 0) return UpdateBranch(node, content, separator, operations, out);
  UpdateLeaf(node, &content, separator, operations, out);
  return absl::OkStatus();
}

void TreeUpdate::UpdateLeaf(Node* node, const NodeContent* content, std::string_view separator,
                            Operations operations, Pieces& out) {
  if (content != nullptr && ChangeLeaf(node, *content, separator, operations, out)) return;
  std::vector<Item> items;
  if (!MergeIntoLeaf(content, operations, items)) {
    if (node != nullptr) out.push_back({node, separator});
    return;
  }
  bool append = content == nullptr || content->view().count() == 0 ||
                operations.front()->key > Key(content->view(), content->view().count() - 1);
  if (node != nullptr) Replace(node);
  if (!items.empty()) BuildLeaves(items, append, separator, out);
}

bool TreeUpdate::ChangeLeaf(Node* node, const NodeContent& content, std::string_view separator,
                            Operations operations, Pieces& out) {
  if (content.child_count > 0) return false;
  const PageView leaf = content.view();
  const std::string_view prefix = leaf.prefix();
  changes_.clear();
  for (const Operation* operation : operations) {
    if (operation->key.compare(0, prefix.size(), prefix) != 0) return false;
    const PageView::Position at = leaf.Find(operation->key);
    if (!operation->value.has_value()) {
      if (at.found) changes_.push_back({at, operation->key, std::nullopt});
      continue;
    }
    if (operation->value->size() > kMaxInlineValueBytes) return false;
    if (at.found && leaf.value(at.index).inlined == *operation->value) continue;
    changes_.push_back({at, operation->key, *operation->value});
  }
  if (changes_.empty()) {
    out.push_back({node, separator});
    return true;
  }
  const uint32_t length = ChangedLeafLength(leaf, changes_);
  if (length > kPageTargetBytes || length == kPageHeaderBytes + prefix.size()) return false;
  NodeContent* page = nodes_->NewContent(length, /*children=*/0);
  ChangeLeafAt(page->data(), tree_, leaf, changes_);
  Replace(node);
  out.push_back({MakeNode(page), separator, true});
  return true;
}

bool TreeUpdate::MergeIntoLeaf(const NodeContent* content, Operations operations,
                               std::vector<Item>& items) {
  uint32_t count = content == nullptr ? 0 : content->view().count();
  items.reserve(count + operations.size());
  bool changed = false;
  uint32_t next = 0;
  for (const Operation* operation : operations) {
    PageView::Position at{0, false};
    if (count > 0) {
      at = content->view().Find(operation->key);
      AppendItems(*content, next, at.index, items);
    }
    changed |= ApplyTo(content, at.index, at.found, *operation, items);
    next = at.index + (at.found ? 1 : 0);
  }
  if (count > 0) AppendItems(*content, next, count, items);
  return changed;
}

bool TreeUpdate::ApplyTo(const NodeContent* content, uint32_t index, bool found,
                         const Operation& operation, std::vector<Item>& items) {
  if (found) {
    LeafValue old = content->view().value(index);
    if (operation.value.has_value() && !old.overflow && old.inlined == *operation.value) {
      AppendItems(*content, index, index + 1, items);
      return false;
    }
    if (old.overflow) Replace(content->child(old.child));
  }
  if (!operation.value.has_value()) return found;
  Item item{{.key = operation.key}, nullptr};
  if (operation.value->size() <= kMaxInlineValueBytes) {
    item.entry.value = *operation.value;
  } else {
    item.entry.overflow = true;
    item.entry.value_length = static_cast<uint32_t>(operation.value->size());
    NodeContent* page = nodes_->NewContent(
        static_cast<uint32_t>(kPageHeaderBytes + operation.value->size()), /*children=*/0);
    BuildBlobAt(page->data(), PageKind::kOverflow, tree_, 0, *operation.value);
    item.overflow = MakeNode(page);
  }
  items.push_back(std::move(item));
  return true;
}

void TreeUpdate::AppendItems(const NodeContent& content, uint32_t from, uint32_t to,
                             std::vector<Item>& items) {
  PageView view = content.view();
  for (uint32_t i = from; i < to; ++i) {
    LeafValue value = view.value(i);
    items.push_back({{Key(view, i), value.inlined, value.length, value.overflow},
                     value.overflow ? content.child(value.child) : nullptr});
  }
}

void TreeUpdate::BuildLeaves(std::span<const Item> items, bool append, std::string_view separator,
                             Pieces& out) {
  PageSizer all = PageSizer::Leaf();
  for (const Item& item : items) {
    all.Add(item.entry.key, item.entry.value.size(), item.entry.overflow ? 1 : 0);
  }
  const size_t longest =
      dense_ ? DenseLeafBytes((all.length() - kPageHeaderBytes) / items.size()) : kPageTargetBytes;
  if (all.length() <= longest) {
    out.push_back({MakeLeaf(items), separator, true});
    return;
  }
  size_t goal = append ? longest : GoalBytes(all.length());
  size_t start = 0;
  PageSizer page = PageSizer::Leaf();
  auto close = [&](size_t end) {
    out.push_back({MakeLeaf(items.subspan(start, end - start)), separator, true});
    if (end == items.size()) return;
    separator = ShortestSeparator(items[end - 1].entry.key, items[end].entry.key);
    start = end;
    page = PageSizer::Leaf();
  };
  for (size_t i = 0; i < items.size(); ++i) {
    const LeafEntry& entry = items[i].entry;
    size_t children = entry.overflow ? 1 : 0;
    if (page.count() > 0 && (page.length() >= goal ||
                             page.length_with(entry.key, entry.value.size(), children) > longest)) {
      close(i);
    }
    page.Add(entry.key, entry.value.size(), children);
  }
  close(items.size());
}

Node* TreeUpdate::MakeLeaf(std::span<const Item> items) {
  entries_.clear();
  uint32_t overflows = 0;
  for (const Item& item : items) {
    entries_.push_back(item.entry);
    overflows += item.entry.overflow ? 1 : 0;
  }
  NodeContent* page = nodes_->NewContent(LeafLength(entries_), overflows);
  BuildLeafAt(page->data(), tree_, entries_);
  Node** child = page->children();
  for (const Item& item : items) {
    if (item.entry.overflow) *child++ = item.overflow;
  }
  return MakeNode(page);
}

absl::Status TreeUpdate::UpdateBranch(Node* node, const NodeContent& content,
                                      std::string_view separator, Operations operations,
                                      Pieces& out) {
  DYNLIB_ASSIGN_OR_RETURN(std::vector<Change> changes,
                          UpdateChildren(content, separator, operations));
  bool same = true;        // nothing happened below
  bool one_to_one = true;  // every child is still one child of decent size
  for (const Change& change : changes) {
    bool single = change.pieces.size() == 1;
    same &= single && !change.pieces[0].fresh;
    one_to_one &= single && (!change.pieces[0].fresh ||
                             nodes_->Length(*change.pieces[0].node) >= kSmallPageBytes);
  }
  if (same) {
    out.push_back({node, separator});
    return absl::OkStatus();
  }
  Replace(node);
  if (one_to_one) {
    out.push_back({ReplaceChildren(content, changes), separator, true});
    return absl::OkStatus();
  }
  uint32_t level = content.view().level();
  Pieces children = AllChildren(content, std::move(changes));
  DYNLIB_RETURN_IF_ERROR(MergeSmallNeighbours(children, level - 1));
  if (!children.empty()) BuildBranches(children, level, separator, out);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TreeUpdate::Change>> TreeUpdate::UpdateChildren(
    const NodeContent& content, std::string_view separator, Operations operations) {
  PageView view = content.view();
  std::vector<Change> changes;
  while (!operations.empty()) {
    uint32_t child = view.ChildFor(operations.front()->key);
    auto end = operations.end();
    if (child < view.count()) {
      end = std::partition_point(operations.begin() + 1, operations.end(),
                                 [bound = Key(view, child)](const Operation* operation) {
                                   return operation->key < bound;
                                 });
    }
    size_t count = end - operations.begin();
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* below, LoadChild(content, child));
    changes.push_back({child, {}});
    DYNLIB_RETURN_IF_ERROR(Update(content.child(child), *below,
                                  child == 0 ? separator : Key(view, child - 1),
                                  operations.first(count), changes.back().pieces));
    operations = operations.subspan(count);
  }
  return changes;
}

Node* TreeUpdate::ReplaceChildren(const NodeContent& content, const std::vector<Change>& changes) {
  // The separators are as they were, so the bytes are too.
  NodeContent* page = nodes_->NewContent(content.length, content.child_count);
  std::memcpy(page->data(), content.data(), content.length);
  std::copy_n(content.children(), content.child_count, page->children());
  for (const Change& change : changes) page->children()[change.child] = change.pieces[0].node;
  return MakeNode(page);
}

TreeUpdate::Pieces TreeUpdate::AllChildren(const NodeContent& content,
                                           std::vector<Change> changes) {
  PageView view = content.view();
  Pieces all;
  auto change = changes.begin();
  for (uint32_t i = 0; i < content.child_count; ++i) {
    if (change != changes.end() && change->child == i) {
      std::move(change->pieces.begin(), change->pieces.end(), std::back_inserter(all));
      ++change;
    } else {
      all.push_back({content.child(i), i == 0 ? std::string_view() : Key(view, i - 1)});
    }
  }
  return all;
}

absl::Status TreeUpdate::MergeSmallNeighbours(Pieces& pieces, uint32_t level) {
  size_t kept = 0;  // pieces[0, kept) are final but for the last
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (kept > 0) {
      Piece& left = pieces[kept - 1];
      Piece& right = pieces[i];
      uint32_t a = nodes_->Length(*left.node);
      uint32_t b = nodes_->Length(*right.node);
      if ((left.fresh || right.fresh) && std::min(a, b) < kSmallPageBytes &&
          a + b <= kMergedBytesMax) {
        absl::StatusOr<Node*> merged = Merge(left, right, level);
        // A page that is damaged stays as it is: only who needs what is in it has to fail.
        if (!merged.ok() && !absl::IsDataLoss(merged.status())) return merged.status();
        if (merged.ok() && *merged != nullptr) {
          Replace(left.node);
          Replace(right.node);
          left = {*std::move(merged), left.separator, true};
          continue;
        }
      }
    }
    if (kept != i) pieces[kept] = std::move(pieces[i]);
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
  Pieces children = AllChildren(*a, {});
  Pieces more = AllChildren(*b, {});
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
    out.push_back({MakeBranch(children, level), separator, true});
    return;
  }
  size_t goal = GoalBytes(all.length());
  size_t start = 0;
  PageSizer page = PageSizer::Branch();
  auto close = [&](size_t end) {
    out.push_back({MakeBranch(children.subspan(start, end - start), level), separator, true});
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
