// Sparse leaves made dense: what random insertions and deletes leave behind is packed anew.

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

// Leaves that use less of their units than this may be worth the writing of new ones ...
constexpr double kDense = 0.92;
// ... if those come to less than this share of their units. (Rows with very long keys never pack
// well.)
constexpr double kWorthwhile = 0.97;
// Neighbouring leaves.
struct Window {
  std::string first;  // keys [first, end); no bound above when `end` is empty
  std::string end;
  uint64_t leaves = 0;
  uint64_t bytes = 0;       // of the pages
  uint64_t unit_bytes = 0;  // of their extents
  uint64_t read_bytes = 0;  // of the pages that it took to find them
  // Of compressed pages: how much longer they are in memory, going by the first. 0: the file does
  // not compress.
  double expansion = 0;

  bool sparse() const {
    double packed = static_cast<double>(bytes);
    // What is compressed ends anywhere in a unit, however well it was packed.
    if (expansion > 0) {
      packed += packed * expansion / DenseLeafBytes(0, /*compressed=*/true) * kUnitBytes / 2;
    }
    return leaves > 1 && packed < kDense * static_cast<double>(unit_bytes);
  }
};

// Gathers leaves, from the one that holds `from` on, until they come to `bytes`.
class WindowFinder {
 public:
  WindowFinder(NodeStore& nodes, std::string_view from, uint64_t bytes)
      : nodes_(nodes), from_(from), bytes_(bytes) {
    window_.first = from;
  }

  absl::StatusOr<Window> Run(Node& root) {
    DYNLIB_ASSIGN_OR_RETURN(const OpenPage page,
                            nodes_.Open(root, NodeStore::Expect::kTreePage, ReadMode::kNotKept));
    if (page.view().level() > 0) DYNLIB_RETURN_IF_ERROR(Visit(page).status());
    return std::move(window_);
  }

 private:
  // False when the window is full. A damaged page ends it too: it stays as it is.
  absl::StatusOr<bool> Visit(const OpenPage& branch) {
    const PageView view = branch.view();
    window_.read_bytes += view.length();
    for (uint32_t i = window_.leaves == 0 ? view.ChildFor(from_) : 0; i <= view.count(); ++i) {
      if (view.level() == 1) {
        if (window_.leaves == 0 && i > 0) window_.first = Separator(view, i - 1);
        const uint32_t length = nodes_.ChildLength(branch, i);
        if (window_.leaves == 0) DYNLIB_RETURN_IF_ERROR(Sample(branch, i, length));
        ++window_.leaves;
        window_.bytes += length;
        window_.unit_bytes += PageRef{.length = length}.extent().count * kUnitBytes;
      } else {
        DYNLIB_ASSIGN_OR_RETURN(const OpenPage child,
                                nodes_.OpenChild(branch, i, ReadMode::kNotKept));
        DYNLIB_ASSIGN_OR_RETURN(const bool more, Visit(child));
        if (!more) {
          if (window_.end.empty() && i < view.count()) window_.end = Separator(view, i);
          return false;
        }
      }
      if (window_.unit_bytes >= bytes_) {
        if (i < view.count()) window_.end = Separator(view, i);
        return false;
      }
    }
    return true;
  }

  absl::Status Sample(const OpenPage& branch, uint32_t i, uint32_t length) {
    if (!nodes_.compressor().enabled()) return absl::OkStatus();
    window_.expansion = 1;
    absl::StatusOr<OpenPage> leaf = nodes_.OpenChild(branch, i, ReadMode::kNotKept);
    if (absl::IsDataLoss(leaf.status())) return absl::OkStatus();
    DYNLIB_RETURN_IF_ERROR(leaf.status());
    window_.read_bytes += length;
    window_.expansion = static_cast<double>(leaf->view().length()) / length;
    return absl::OkStatus();
  }

  static std::string Separator(const PageView& view, uint32_t i) {
    return Cat(view.prefix(), view.suffix(i));
  }

  NodeStore& nodes_;
  const std::string_view from_;
  const uint64_t bytes_;
  Window window_;
};

uint64_t LeafUnitBytes(NodeStore& nodes, std::span<Node* const> made) {
  uint64_t bytes = 0;
  for (Node* node : made) {
    if (node->content()->view().kind() != PageKind::kLeaf) continue;
    bytes += nodes.compressor().UnitsOf(node->content()->bytes()) * kUnitBytes;
  }
  return bytes;
}

}  // namespace

absl::StatusOr<Tree::CompactStep> Tree::Compact(std::string_view from, uint64_t bytes) {
  Writing writing(*this);
  Node* const root = root_.load(std::memory_order_acquire);
  CompactStep step;
  if (root == nullptr) return step;
  DYNLIB_ASSIGN_OR_RETURN(const Window window, WindowFinder(*nodes_, from, bytes).Run(*root));
  step.next = window.end;
  step.read_bytes = window.read_bytes;
  if (!window.sparse()) return step;
  step.read_bytes += window.bytes;
  TreeUpdate update(nodes_.get(), id_);
  DYNLIB_ASSIGN_OR_RETURN(Node * new_root, update.Compact(root, window.first, window.end));
  if (static_cast<double>(LeafUnitBytes(*nodes_, update.made())) >=
      kWorthwhile * static_cast<double>(window.unit_bytes)) {
    return step;
  }
  Publish(new_root, position(), update);
  step.rewritten_bytes = window.bytes;
  return step;
}

}  // namespace dynlib::store
