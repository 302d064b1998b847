#include "dynlib/store/scanner.h"

#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {

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
  for (uint32_t i = first; i < last; ++i) {
    uint32_t index = reverse_ ? last - 1 - (i - first) : i;
    DYNLIB_ASSIGN_OR_RETURN(bool more,
                            branch ? VisitChild(page, index, range) : VisitEntry(page, index));
    if (!more) return false;
  }
  return true;
}

absl::StatusOr<bool> Scanner::VisitChild(const OpenPage& page, uint32_t index, const Range& range) {
  Range below;
  if (unreadable_ != nullptr) below = RangeOfChild(page.view(), index, range);
  absl::StatusOr<OpenPage> child = nodes_->OpenChild(page, index, mode_);
  if (!child.ok()) return Missing(child.status(), below);
  return Visit(*child, below);
}

absl::StatusOr<bool> Scanner::VisitEntry(const OpenPage& page, uint32_t index) {
  PageView view = page.view();
  key_.assign(view.prefix());
  key_.append(view.suffix(index));
  LeafValue value = view.value(index);
  if (!value.overflow) return visit_(key_, value.inlined);
  absl::StatusOr<OpenPage> overflow = nodes_->OpenChild(page, value.child, mode_);
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
