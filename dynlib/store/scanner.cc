#include "dynlib/store/scanner.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

// So far ahead of the scan the next cells are asked for: further than a visitor takes, nearer than
// the first of them would be forgotten.
constexpr uint32_t kCellsAhead = 6;

}  // namespace

absl::Status Scanner::Run(Node& root) {
  return RunIn(root, {std::string(start_), std::string(end_)});
}

absl::Status Scanner::RunIn(Node& root, const Range& all) {
  if (!end_.empty() && start_ >= end_) return absl::OkStatus();
  absl::StatusOr<OpenPage> page = nodes_->Open(root, NodeStore::Expect::kTreePage, mode_);
  return (page.ok() ? Visit(*page, all) : Missing(page.status(), all)).status();
}

absl::StatusOr<bool> Scanner::Visit(const OpenPage& page, const Range& range) {
  PageView view = page.view();
  bool branch = view.level() > 0;
  // Of a branch, the children [first, last) can hold keys of the range.
  uint32_t first = 0;
  if (!start_.empty()) first = branch ? view.ChildFor(start_) : view.Find(start_).index;
  uint32_t last = view.count() + (branch ? 1 : 0);
  if (!end_.empty()) last = view.Find(end_).index + (branch ? 1 : 0);
  if (!branch) return VisitLeaf(page, first, last);
  // The next page is pinned while this one is visited, so that its slots, and then its first cells,
  // are on their way when it is its turn.
  ContentRef next;
  for (uint32_t i = first; i < last; ++i) {
    const uint32_t index = reverse_ ? last - 1 - (i - first) : i;
    Range below;
    if (unreadable_ != nullptr) below = RangeOfChild(view, index, range);
    absl::StatusOr<OpenPage> child =
        next ? OpenPage(std::move(next)) : nodes_->OpenChild(page, index, mode_);
    next = ContentRef();
    bool more;
    if (!child.ok()) {
      DYNLIB_ASSIGN_OR_RETURN(more, Missing(child.status(), below));
    } else {
      if (i + 1 < last && view.level() == 1 && mode_ != ReadMode::kFromDisk) {
        next = nodes_->AskForChild(page, reverse_ ? index - 1 : index + 1);
      }
      DYNLIB_ASSIGN_OR_RETURN(more, Visit(*child, below));
    }
    if (!more) return false;
    if (next) AskForCells(next->view());
  }
  return true;
}

// The first cells of a leaf that comes next.
void Scanner::AskForCells(const PageView& leaf) const {
  const uint32_t count = leaf.count();
  for (uint32_t i = 0; i < std::min(count, kCellsAhead); ++i) {
    leaf.PrefetchKey(reverse_ ? count - 1 - i : i);
  }
}

absl::StatusOr<bool> Scanner::VisitLeaf(const OpenPage& page, uint32_t first, uint32_t last) {
  const PageView view = page.view();
  const size_t prefix = view.prefix().size();
  key_.assign(view.prefix());
  for (uint32_t i = first; i < last; ++i) {
    const uint32_t index = reverse_ ? last - 1 - (i - first) : i;
    if (last - i > kCellsAhead) {
      view.PrefetchKey(reverse_ ? index - kCellsAhead : index + kCellsAhead);
    }
    key_.resize(prefix);
    key_.append(view.suffix(index));
    const LeafValue value = view.value(index);
    if (!value.overflow) {
      if (!visit_(key_, value.inlined)) return false;
      continue;
    }
    DYNLIB_ASSIGN_OR_RETURN(bool more, VisitOverflow(page, value.child));
    if (!more) return false;
  }
  return true;
}

absl::StatusOr<bool> Scanner::VisitOverflow(const OpenPage& page, uint32_t child) {
  absl::StatusOr<OpenPage> overflow = nodes_->OpenChild(page, child, mode_);
  if (!overflow.ok()) return Missing(overflow.status(), {key_, key_ + '\0'});
  return visit_(key_, overflow->view().payload());
}

absl::StatusOr<bool> Scanner::Missing(const absl::Status& status, const Range& range) {
  if (unreadable_ == nullptr || !absl::IsDataLoss(status)) return status;
  return (*unreadable_)(range.first, range.end, status);
}

Scanner::Range Scanner::RangeOfChild(const PageView& branch, uint32_t index,
                                     const Range& range) const {
  Range below = range;
  if (index > 0) {
    std::string low = Cat(branch.prefix(), branch.suffix(index - 1));
    if (low > below.first) below.first = std::move(low);
  }
  if (index < branch.count()) {
    std::string high = Cat(branch.prefix(), branch.suffix(index));
    if (below.end.empty() || high < below.end) below.end = std::move(high);
  }
  return below;
}

}  // namespace dynlib::store
