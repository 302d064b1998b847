// The usual change of a leaf in TreeUpdate: few rows, and one page before and after.

#include <algorithm>
#include <optional>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/store/epochs.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

using Operation = WriteBatch::Operation;

// More rows for one leaf at once are worth a new page.
constexpr size_t kTailRowsAtOnce = 4;
// Of rows, behind a page, unless one row is longer.
constexpr size_t kTailBytesMax = 1024;

}  // namespace

TreeUpdate::Quickly TreeUpdate::ChangeLeaf(Node* node, std::string_view separator,
                                           Operations operations, Pieces& out) {
  Epochs::Guard guard(nodes_->epochs());
  NodeContent* content = node->content();
  if (content == nullptr) return Quickly::kNotInMemory;
  content->Touch();
  const PageView leaf = content->view();
  if (leaf.kind() != PageKind::kLeaf || content->child_count > 0) return Quickly::kNo;
  const std::string_view prefix = leaf.prefix();
  for (const Operation* operation : operations) {
    if (operation->key.compare(0, prefix.size(), prefix) != 0) return Quickly::kNo;
    if (operation->value.has_value() && operation->value->size() > kMaxInlineValueBytes)
      return Quickly::kNo;
  }
  const bool behind = MayHaveTail(*node, operations);
  if (behind && content->tailed &&
      PutBehind(node, content, operations, LengthWith(*content, operations))) {
    out.push_back({.node = node, .separator = separator, .tailed = true});
    return Quickly::kDone;
  }
  if (!CollectChanges(*content, operations)) {
    out.push_back({node, separator});
    return Quickly::kDone;
  }
  const uint32_t length = ChangedLeafLength(leaf, changes_);
  if (length > kPageTargetBytes || length == kPageHeaderBytes + prefix.size()) return Quickly::kNo;
  if (behind && (PutBehind(node, content, operations, length) ||
                 PutBehindCopy(node, content, operations, length))) {
    out.push_back({.node = node, .separator = separator, .tailed = true});
    return Quickly::kDone;
  }
  const size_t tail = TailBytes(operations);
  NodeContent* page =
      tail == 0 ? nodes_->NewContent(length, /*children=*/0) : nodes_->NewLeaf(length, tail);
  ChangeLeafAt(page->data(), tree_, leaf, changes_);
  Replace(node);
  out.push_back(Made(MakeNode(page), separator));
  return Quickly::kDone;
}

bool TreeUpdate::MayHaveTail(const Node& node, Operations operations) const {
  return tails_since_.has_value() && operations.size() <= kTailRowsAtOnce &&
         node.birth() >= *tails_since_ && !node.on_disk() &&
         std::all_of(operations.begin(), operations.end(),
                     [](const Operation* operation) { return operation->value.has_value(); });
}

// For eight rows like these, or as many as fit into kTailBytesMax. 0: it is not worth it.
size_t TreeUpdate::TailBytes(Operations operations) const {
  if (!tails_since_.has_value() || operations.size() > kTailRowsAtOnce) return 0;
  size_t longest = 0;
  size_t all = 0;
  for (const Operation* operation : operations) {
    if (!operation->value.has_value()) return 0;
    const size_t bytes = LeafTail::RowBytes(operation->key.size(), operation->value->size());
    longest = std::max(longest, bytes);
    all += bytes;
  }
  return std::max(all, std::min(LeafTail::kRowsMax * longest, kTailBytesMax));
}

// Without a look at what the page has of these keys.
uint32_t TreeUpdate::LengthWith(const NodeContent& content, Operations operations) const {
  size_t length = content.tail().page_bytes();
  const size_t prefix = content.view().prefix().size();
  for (const Operation* operation : operations) {
    length +=
        kSlotBytes + kLeafCellBytes + operation->key.size() - prefix + operation->value->size();
  }
  return static_cast<uint32_t>(length);
}

bool TreeUpdate::CollectChanges(const NodeContent& content, Operations operations) {
  const PageView leaf = content.view();
  tail_.clear();
  if (content.tailed) TailAsChanges(leaf, content.tail(), content.tail_rows(), tail_);
  changes_.clear();
  bool changed = false;
  auto tail = tail_.begin();
  for (const Operation* operation : operations) {
    for (; tail != tail_.end() && tail->key < operation->key; ++tail) changes_.push_back(*tail);
    std::optional<std::string_view> before;
    PageView::Position at;
    if (tail != tail_.end() && tail->key == operation->key) {
      at = tail->at;
      before = (tail++)->value;
    } else {
      at = leaf.Find(operation->key);
      if (at.found) before = leaf.value(at.index).inlined;
      if (before == operation->value) continue;
    }
    changed |= before != operation->value;
    changes_.push_back({at, operation->key, operation->value});
  }
  changes_.insert(changes_.end(), tail, tail_.end());
  return changed;
}

bool TreeUpdate::PutBehind(Node* node, NodeContent* content, Operations operations,
                           uint32_t length) {
  if (!content->tailed || length > kPageTargetBytes) return false;
  LeafTail& tail = content->tail();
  size_t bytes = 0;
  for (const Operation* operation : operations) {
    bytes += LeafTail::RowBytes(operation->key.size(), operation->value->size());
  }
  if (!tail.HasRoom(static_cast<uint32_t>(operations.size()), bytes)) return false;
  // So that it stays where it is until it is published.
  if (!content->TryPin()) return false;
  pinned_.emplace_back(content);
  const size_t prefix = content->view().prefix().size();
  uint32_t rows = tail.rows();
  for (const Operation* operation : operations) {
    tail.Put(rows++, operation->key, *operation->value, prefix);
  }
  behind_.push_back({node, &tail, rows, length, operations});
  return true;
}

// The rows that are behind the page go into the copy's.
bool TreeUpdate::PutBehindCopy(Node* node, NodeContent* content, Operations operations,
                               uint32_t length) {
  const PageView leaf = content->view();
  NodeContent* copy = nodes_->NewLeaf(ChangedLeafLength(leaf, tail_), TailBytes(operations));
  ChangeLeafAt(copy->data(), tree_, leaf, tail_);
  if (!nodes_->ReplaceContent(*node, *content, copy, /*pinned=*/false)) {
    nodes_->FreeUnused(copy);
    return false;
  }
  copied_.push_back(content);
  return PutBehind(node, copy, operations, length);
}

bool TreeUpdate::CanShowTailsLocked(uint64_t born_since) const {
  return std::all_of(behind_.begin(), behind_.end(), [&](const Behind& behind) {
    return behind.node->birth() >= born_since && !behind.node->on_disk();
  });
}

void TreeUpdate::ShowTails(uint64_t version) {
  uint64_t rows = 0;
  uint64_t bytes = 0;
  for (const Behind& behind : behind_) {
    bytes -= behind.tail->used();
    behind.tail->Publish(behind.rows, version, behind.page_bytes);
    bytes += behind.tail->used();
    rows += behind.operations.size();
  }
  if (rows > 0) nodes_->CountRowsBehind(rows, bytes);
}

// Of the pages that it needs those that were there are pinned, and the others made.
Node* TreeUpdate::TailsToPages(Node* root) {
  std::vector<const Operation*> operations;
  for (const Behind& behind : std::exchange(behind_, {})) {
    operations.insert(operations.end(), behind.operations.begin(), behind.operations.end());
  }
  tails_since_.reset();
  merges_ = false;
  const absl::StatusOr<Node*> with_pages = RunSorted(root, operations);
  DYNLIB_CHECK(with_pages.ok());
  return *with_pages;
}

}  // namespace dynlib::store
