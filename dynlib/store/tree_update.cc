#include "dynlib/store/tree_update.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

using Operation = WriteBatch::Operation;

constexpr size_t kArenaBlockBytes = 64 << 10;

bool KeyBelow(const Operation* a, const Operation* b) { return a->key < b->key; }

// Stable. By the first eight bytes of the keys, as numbers, as far as these tell them apart.
void SortByKey(std::vector<const Operation*>& operations) {
  struct ByHead {
    uint64_t head;
    const Operation* operation;
  };
  std::vector<ByHead> heads;
  heads.reserve(operations.size());
  for (const Operation* operation : operations) {
    uint64_t head = 0;
    const std::string_view key = operation->key;
    if (!key.empty()) std::memcpy(&head, key.data(), std::min(sizeof(head), key.size()));
    heads.push_back({__builtin_bswap64(head), operation});
  }
  std::stable_sort(heads.begin(), heads.end(), [](const ByHead& a, const ByHead& b) {
    return a.head != b.head ? a.head < b.head : a.operation->key < b.operation->key;
  });
  for (size_t i = 0; i < heads.size(); ++i) operations[i] = heads[i].operation;
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

size_t TreeUpdate::GoalBytes(size_t total) {
  size_t pages = (total + kPageTargetBytes - 1) / kPageTargetBytes;
  return total / pages;
}

std::vector<const WriteBatch::Operation*> TreeUpdate::Sorted(Batches batches) {
  std::vector<const Operation*> sorted;
  size_t size = 0;
  for (const WriteBatch* batch : batches) size += batch->size();
  sorted.reserve(size);
  std::vector<const Operation*> later;  // ranges that are deleted after the operation
  for (size_t b = batches.size(); b-- > 0;) {
    const std::vector<Operation>& all = batches[b]->operations();
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
  }
  std::reverse(sorted.begin(), sorted.end());
  if (!std::is_sorted(sorted.begin(), sorted.end(), KeyBelow)) SortByKey(sorted);
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
  for (Node* node : std::exchange(made_, {})) nodes_->Unmake(node);
  Published();
}

void TreeUpdate::Published() {
  made_.clear();
  behind_.clear();
  pinned_.clear();
  for (NodeContent* content : std::exchange(flat_, {})) nodes_->FreeUnused(content);
  if (copied_.empty()) return;
  nodes_->DropLater(std::exchange(copied_, {}));
  nodes_->KeepToBudget();
}

const NodeContent* TreeUpdate::Pin(ContentRef content) {
  if (content->tail_rows() > 0) {
    flat_.push_back(nodes_->NewFlat(*content));
    return flat_.back();
  }
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

absl::StatusOr<Node*> TreeUpdate::Run(Node* root, Batches batches) {
  const bool ranges = std::any_of(batches.begin(), batches.end(),
                                  [](const WriteBatch* batch) { return batch->has_ranges(); });
  if (ranges) return RunWithRanges(root, batches);
  sorted_ = Sorted(batches);
  return RunSorted(root, sorted_);
}

absl::StatusOr<Node*> TreeUpdate::RunSorted(Node* root, Operations operations) {
  if (operations.empty()) return root;
  Pieces pieces;
  if (root == nullptr) {
    UpdateLeaf(root, nullptr, {}, operations, /*quickly=*/false, pieces);
  } else if (ChangeLeaf(root, {}, operations, pieces) != Quickly::kDone) {
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(root));
    DYNLIB_RETURN_IF_ERROR(Update(root, *content, {}, operations, pieces));
  }
  if (pieces.size() == 1 && pieces[0].node == root) return root;
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
    // One that is damaged stays below: only who needs what is in it has to fail.
    const absl::Status below = LoadTreePage(child).status();
    if (absl::IsDataLoss(below)) return top;
    DYNLIB_RETURN_IF_ERROR(below);
    Replace(top);  // harmless for a node that this update made: it never gets an address
    top = child;
  }
}

absl::Status TreeUpdate::Update(Node* node, const NodeContent& content, std::string_view separator,
                                Operations operations, Pieces& out) {
  if (content.view().level() > 0) return UpdateBranch(node, content, separator, operations, out);
  UpdateLeaf(node, &content, separator, operations, /*quickly=*/true, out);
  return absl::OkStatus();
}

void TreeUpdate::UpdateLeaf(Node* node, const NodeContent* content, std::string_view separator,
                            Operations operations, bool quickly, Pieces& out) {
  if (quickly && ChangeLeaf(node, separator, operations, out) == Quickly::kDone) return;
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

bool TreeUpdate::MergeIntoLeaf(const NodeContent* content, Operations operations,
                               std::vector<Item>& items) {
  uint32_t count = content == nullptr ? 0 : content->view().count();
  items.reserve(count + operations.size());
  bool changed = false;
  uint32_t next = 0;
  for (const Operation* operation : operations) {
    PageView::Position at{next, false};
    if (next < count) {  // else it comes behind all that is there
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
  const size_t longest = dense_ ? DenseLeafBytes((all.length() - kPageHeaderBytes) / items.size(),
                                                 nodes_->compressor().enabled())
                                : kPageTargetBytes;
  if (all.length() <= longest) {
    out.push_back(Made(MakeLeaf(items), separator));
    return;
  }
  size_t goal = append ? longest : GoalBytes(all.length());
  size_t start = 0;
  PageSizer page = PageSizer::Leaf();
  auto close = [&](size_t end) {
    out.push_back(Made(MakeLeaf(items.subspan(start, end - start)), separator));
    if (end == items.size()) return;
    separator = ShortestSeparator(items[end - 1].entry.key, items[end].entry.key);
    start = end;
    page = PageSizer::Leaf();
  };
  for (size_t i = 0; i < items.size(); ++i) {
    const LeafEntry& entry = items[i].entry;
    auto add = [&] { page.Add(entry.key, entry.value.size(), entry.overflow ? 1 : 0); };
    const PageSizer before = page;
    add();
    if (before.count() > 0 && (before.length() >= goal || page.length() > longest)) {
      close(i);
      add();
    }
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

}  // namespace dynlib::store
