// Replace of TreeUpdate: a range of keys gets other rows, whatever became of the pages that held
// it; and ranges that are deleted, which get none.

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {

bool TreeUpdate::Range::Contains(const Range& other) const {
  return first <= other.first && (end.empty() || (!other.end.empty() && other.end <= end));
}

bool TreeUpdate::Range::Overlaps(const Range& other) const {
  return (end.empty() || other.first < end) && (other.end.empty() || first < other.end);
}

absl::StatusOr<Node*> TreeUpdate::Replace(Node* root, std::string_view first, std::string_view end,
                                          const WriteBatch& rows) {
  rebuild_ = true;
  const WriteBatch* one = &rows;
  return ReplaceRange(root, {first, end}, Sorted(Batches(&one, 1)));
}

absl::StatusOr<Node*> TreeUpdate::RunWithRanges(Node* root, Batches batches) {
  tails_since_.reset();  // It goes over pages more than once.
  std::vector<Range> ranges;
  for (const WriteBatch* batch : batches) {
    for (const WriteBatch::Operation& operation : batch->operations()) {
      if (operation.range_end.has_value()) ranges.push_back({operation.key, *operation.range_end});
    }
  }
  for (const Range& range : ranges) {
    if (root == nullptr) break;
    DYNLIB_ASSIGN_OR_RETURN(root, ReplaceRange(root, range, {}));
  }
  return RunSorted(root, Sorted(batches));
}

absl::StatusOr<Node*> TreeUpdate::ReplaceRange(Node* root, const Range& replaced,
                                               Operations sorted) {
  Pieces pieces;
  if (root == nullptr || replaced.Contains({})) {
    if (root != nullptr) DYNLIB_RETURN_IF_ERROR(Discard(root));
    BuildSubtree(sorted, 0, {}, pieces);
  } else {
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(root));
    DYNLIB_RETURN_IF_ERROR(ReplacePage(root, *content, {}, {}, replaced, sorted, pieces));
  }
  return MakeRoot(std::move(pieces));
}

absl::Status TreeUpdate::ReplacePage(Node* node, const NodeContent& content,
                                     std::string_view separator, const Range& range,
                                     const Range& replaced, Operations rows, Pieces& out) {
  const PageView view = content.view();
  if (view.level() == 0) {
    ReplaceInLeaf(node, content, separator, replaced, rows, out);
    return absl::OkStatus();
  }
  Pieces children;
  bool changed = rebuild_;
  for (uint32_t i = 0; i < content.child_count; ++i) {
    Node* child = content.child(i);
    const std::string_view own = i == 0 ? separator : Key(view, i - 1);
    const Range below{i == 0 ? range.first : own, i < view.count() ? Key(view, i) : range.end};
    if (!below.Overlaps(replaced)) {
      children.push_back({child, own});
      continue;
    }
    const auto count = std::partition_point(rows.begin(), rows.end(),
                                            [&](const WriteBatch::Operation* row) {
                                              return below.end.empty() || row->key < below.end;
                                            }) -
                       rows.begin();
    const Operations here = rows.first(static_cast<size_t>(count));
    rows = rows.subspan(static_cast<size_t>(count));
    if (replaced.Contains(below)) {
      DYNLIB_RETURN_IF_ERROR(Discard(child));
      BuildSubtree(here, view.level() - 1, own, children);
      changed = true;
      continue;
    }
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* loaded, LoadChild(content, i));
    const size_t before = children.size();
    DYNLIB_RETURN_IF_ERROR(ReplacePage(child, *loaded, own, below, replaced, here, children));
    changed |= children.size() != before + 1 || children[before].node != child;
  }
  if (!changed) {
    out.push_back({node, separator});
    return absl::OkStatus();
  }
  Replace(node);
  return FinishBranch(std::move(children), view.level(), separator, out);
}

void TreeUpdate::ReplaceInLeaf(Node* node, const NodeContent& content, std::string_view separator,
                               const Range& replaced, Operations rows, Pieces& out) {
  const PageView view = content.view();
  const uint32_t from = view.Find(replaced.first).index;
  const uint32_t to = replaced.end.empty() ? view.count() : view.Find(replaced.end).index;
  if (from == to && !rebuild_) {
    out.push_back({node, separator});
    return;
  }
  Replace(node);
  for (uint32_t i = from; i < to; ++i) {
    if (view.value(i).overflow) Replace(content.child(view.value(i).child));
  }
  std::vector<Item> items;
  AppendItems(content, 0, from, items);
  for (const WriteBatch::Operation* row : rows) ApplyTo(nullptr, 0, false, *row, items);
  AppendItems(content, to, view.count(), items);
  if (!items.empty()) BuildLeaves(items, /*append=*/false, separator, out);
}

void TreeUpdate::BuildSubtree(Operations rows, uint32_t level, std::string_view separator,
                              Pieces& out) {
  if (rows.empty()) return;
  std::vector<Item> items;
  for (const WriteBatch::Operation* row : rows) ApplyTo(nullptr, 0, false, *row, items);
  Pieces pieces;
  BuildLeaves(items, /*append=*/false, separator, pieces);
  for (uint32_t above = 1; above <= level; ++above) {
    Pieces branches;
    BuildBranches(pieces, above, separator, branches);
    pieces = std::move(branches);
  }
  std::move(pieces.begin(), pieces.end(), std::back_inserter(out));
}

absl::Status TreeUpdate::Discard(Node* node) {
  Replace(node);
  if (node->on_disk() && node->address().childless) return absl::OkStatus();  // not even read
  absl::StatusOr<const NodeContent*> content = LoadTreePage(node);
  if (absl::IsDataLoss(content.status())) return absl::OkStatus();
  if (!content.ok()) return content.status();
  for (Node* child : (*content)->all_children()) {
    if ((*content)->view().level() == 0) {
      Replace(child);  // an overflow value: nothing is below it
    } else {
      DYNLIB_RETURN_IF_ERROR(Discard(child));
    }
  }
  return absl::OkStatus();
}

}  // namespace dynlib::store
