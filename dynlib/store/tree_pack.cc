// Leaves next to each other packed into as few units as their rows need.

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

// Dense pages of wide rows are as long as it takes to waste little, up to 32 KiB: then rows with
// values of 2,048 bytes, the longest inline ones, fill more than 93 % of a page.
constexpr uint32_t kDenseUnitsMax = 8;
constexpr double kLittleWaste = 0.03;

}  // namespace

uint32_t DenseLeafBytes(size_t row_bytes, bool compressed) {
  if (compressed) return kDenseUnitsMax * kUnitBytes;
  uint32_t best = kPageTargetBytes;
  double least_waste = 1;
  for (uint32_t units = kPageTargetBytes / kUnitBytes; units <= kDenseUnitsMax; ++units) {
    const size_t room = units * kUnitBytes - kPageHeaderBytes;
    const size_t used = room / std::max<size_t>(row_bytes, 1) * row_bytes;
    const double waste = 1 - static_cast<double>(used) / static_cast<double>(units * kUnitBytes);
    if (waste < least_waste) {
      best = units * kUnitBytes;
      least_waste = waste;
    }
    if (waste < kLittleWaste) break;
  }
  return best;
}

absl::StatusOr<Node*> TreeUpdate::Compact(Node* root, std::string_view first,
                                          std::string_view end) {
  dense_ = true;
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(root));
  if (content->view().level() == 0) return root;
  Pieces pieces;
  DYNLIB_RETURN_IF_ERROR(CompactBranch(root, *content, {}, {}, {first, end}, pieces));
  return MakeRoot(std::move(pieces));
}

absl::Status TreeUpdate::CompactBranch(Node* node, const NodeContent& content,
                                       std::string_view separator, const Range& range,
                                       const Range& wanted, Pieces& out) {
  Replace(node);
  const PageView view = content.view();
  Pieces children;
  std::vector<Item> items;  // of leaves next to each other
  std::string_view items_separator;
  auto pack = [&] {
    if (!items.empty()) BuildLeaves(items, /*append=*/true, items_separator, children);
    items.clear();
  };
  for (uint32_t i = 0; i < content.child_count; ++i) {
    Node* child = content.child(i);
    const std::string_view own = i == 0 ? separator : Key(view, i - 1);
    const Range below{i == 0 ? range.first : own, i < view.count() ? Key(view, i) : range.end};
    absl::StatusOr<const NodeContent*> loaded = nullptr;
    if (below.Overlaps(wanted)) loaded = LoadChild(content, i);
    if (!loaded.ok() && !absl::IsDataLoss(loaded.status())) return loaded.status();
    const bool leave = !loaded.ok() || *loaded == nullptr;  // a damaged page stays as it is
    if (leave || view.level() > 1) pack();
    if (leave) {
      children.push_back({child, own});
    } else if (view.level() > 1) {
      DYNLIB_RETURN_IF_ERROR(CompactBranch(child, **loaded, own, below, wanted, children));
    } else {
      if (items.empty()) items_separator = own;
      AppendItems(**loaded, 0, (*loaded)->view().count(), items);
      Replace(child);
    }
  }
  pack();
  return FinishBranch(std::move(children), view.level(), separator, out);
}

}  // namespace dynlib::store
