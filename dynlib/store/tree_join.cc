// Cut and Join of TreeUpdate: along one path pages are built anew, everything else changes hands.

#include <algorithm>
#include <iterator>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {

absl::StatusOr<TreeUpdate::Halves> TreeUpdate::Cut(Node* root, std::string_view key) {
  Halves halves;
  if (root == nullptr) return halves;
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(root));
  Pieces below;
  Pieces above;
  DYNLIB_RETURN_IF_ERROR(CutPage(root, *content, {}, key, below, above));
  DYNLIB_ASSIGN_OR_RETURN(halves.below, MakeRoot(std::move(below)));
  DYNLIB_ASSIGN_OR_RETURN(halves.above, MakeRoot(std::move(above)));
  return halves;
}

absl::Status TreeUpdate::CutPage(Node* node, const NodeContent& content, std::string_view separator,
                                 std::string_view key, Pieces& below, Pieces& above) {
  PageView view = content.view();
  if (view.level() == 0) {
    CutLeaf(node, content, separator, key, below, above);
    return absl::OkStatus();
  }
  const uint32_t at = view.ChildFor(key);
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* child, LoadChild(content, at));
  Pieces children = AllChildren(content);
  Pieces left;
  Pieces right;
  DYNLIB_RETURN_IF_ERROR(
      CutPage(children[at].node, *child, children[at].separator, key, left, right));
  if (right.empty() && at + 1 == children.size()) {
    below.push_back({node, separator});
    return absl::OkStatus();
  }
  if (left.empty() && at == 0) {
    above.push_back({node, key});
    return absl::OkStatus();
  }
  Replace(node);
  left.insert(left.begin(), children.begin(), children.begin() + at);
  right.insert(right.end(), children.begin() + at + 1, children.end());
  DYNLIB_RETURN_IF_ERROR(FinishBranch(std::move(left), view.level(), separator, below));
  return FinishBranch(std::move(right), view.level(), key, above);
}

void TreeUpdate::CutLeaf(Node* node, const NodeContent& content, std::string_view separator,
                         std::string_view key, Pieces& below, Pieces& above) {
  const uint32_t count = content.view().count();
  const uint32_t at = content.view().Find(key).index;
  if (at == count) return below.push_back({node, separator});
  if (at == 0) return above.push_back({node, key});
  Replace(node);
  std::vector<Item> items;
  AppendItems(content, 0, count, items);
  std::span<const Item> all(items);
  below.push_back(Made(MakeLeaf(all.first(at)), separator));
  above.push_back(Made(MakeLeaf(all.subspan(at)), key));
}

absl::Status TreeUpdate::FinishBranch(Pieces children, uint32_t level, std::string_view separator,
                                      Pieces& out) {
  if (children.empty()) return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(MergeSmallNeighbours(children, level - 1));
  BuildBranches(children, level, separator, out);
  return absl::OkStatus();
}

absl::StatusOr<Node*> TreeUpdate::Join(Node* left, Node* right) {
  if (left == nullptr) return right;
  if (right == nullptr) return left;
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* a, LoadTreePage(left));
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* b, LoadTreePage(right));
  DYNLIB_ASSIGN_OR_RETURN(std::string_view last, EdgeKey(left, true));
  DYNLIB_ASSIGN_OR_RETURN(std::string_view first, EdgeKey(right, false));
  if (last >= first) {
    return absl::InvalidArgumentError("trees to be joined: keys of the left are not all below");
  }
  const std::string_view boundary = ShortestSeparator(last, first);
  const uint32_t level_a = a->view().level();
  const uint32_t level_b = b->view().level();
  Pieces pieces;
  if (level_a > level_b) {
    DYNLIB_RETURN_IF_ERROR(Graft(left, *a, {}, {right, level_b, boundary, true}, pieces));
  } else if (level_a < level_b) {
    DYNLIB_RETURN_IF_ERROR(Graft(right, *b, {}, {left, level_a, boundary, false}, pieces));
  } else {
    pieces.push_back({left, {}, true});
    pieces.push_back({right, boundary, true});
    DYNLIB_RETURN_IF_ERROR(MergeSmallNeighbours(pieces, level_a));
  }
  return MakeRoot(std::move(pieces));
}

absl::StatusOr<std::string_view> TreeUpdate::EdgeKey(Node* root, bool last) {
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, LoadTreePage(root));
  while (content->view().level() > 0) {
    const uint32_t child = last ? content->view().count() : 0;
    DYNLIB_ASSIGN_OR_RETURN(content, LoadChild(*content, child));
  }
  return Key(content->view(), last ? content->view().count() - 1 : 0);
}

absl::Status TreeUpdate::Graft(Node* node, const NodeContent& content, std::string_view separator,
                               const Grafted& lower, Pieces& out) {
  const uint32_t level = content.view().level();
  const uint32_t at = lower.at_end ? content.view().count() : 0;
  Pieces children = AllChildren(content);
  if (level == lower.level + 1) {
    if (lower.at_end) {
      children.push_back({lower.root, lower.boundary, true});
    } else {
      children[0].separator = lower.boundary;
      children.insert(children.begin(), {lower.root, {}, true});
    }
  } else {
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* child, LoadChild(content, at));
    Pieces below;
    DYNLIB_RETURN_IF_ERROR(Graft(children[at].node, *child, children[at].separator, lower, below));
    children.erase(children.begin() + at);
    children.insert(children.begin() + at, std::make_move_iterator(below.begin()),
                    std::make_move_iterator(below.end()));
  }
  Replace(node);
  return FinishBranch(std::move(children), level, separator, out);
}

}  // namespace dynlib::store
