#include "dynlib/store/scanner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

// So far ahead of the scan the next rows are asked for: further than a visitor takes, nearer than
// the first of them would be forgotten.
constexpr uint32_t kRowsAhead = 6;

// memcpy without a call, for the few bytes that a key is long as a rule.
inline void CopyShort(char* to, const char* from, size_t bytes) {
  if (bytes > 16 || bytes < 4) {
    std::memcpy(to, from, bytes);
  } else if (bytes >= 8) {
    StoreFixed<uint64_t>(to, LoadFixed<uint64_t>(from));
    StoreFixed<uint64_t>(to + bytes - 8, LoadFixed<uint64_t>(from + bytes - 8));
  } else {
    StoreFixed<uint32_t>(to, LoadFixed<uint32_t>(from));
    StoreFixed<uint32_t>(to + bytes - 4, LoadFixed<uint32_t>(from + bytes - 4));
  }
}

}  // namespace

absl::Status Scanner::Run(Node& root) {
  return RunIn(root, {std::string(start_), std::string(end_)});
}

absl::Status Scanner::RunIn(Node& root, const Range& all) {
  if (!end_.empty() && start_ >= end_) return absl::OkStatus();
  absl::StatusOr<OpenPage> page = nodes_->Open(root, NodeStore::Expect::kTreePage, mode_);
  return (page.ok() ? Visit(*page, all, Next()) : Missing(page.status(), all)).status();
}

absl::StatusOr<bool> Scanner::Visit(const OpenPage& page, const Range& range, const Next& next) {
  PageView view = page.view();
  bool branch = view.level() > 0;
  // Of a branch, the children [first, last) can hold keys of the range.
  uint32_t first = 0;
  if (!start_.empty()) {
    first = branch ? view.ChildFor(start_) : view.FindCell(start_, /*whole=*/true).index;
  }
  uint32_t last = view.count() + (branch ? 1 : 0);
  if (!end_.empty()) last = view.Find(end_).index + (branch ? 1 : 0);
  if (!branch) return VisitLeaf(page, first, last, next);
  const bool ask = view.level() == 1 && mode_ != ReadMode::kFromDisk;
  for (uint32_t i = first; i < last; ++i) {
    const uint32_t index = reverse_ ? last - 1 - (i - first) : i;
    Range below;
    if (unreadable_ != nullptr) below = RangeOfChild(view, index, range);
    Next after;
    if (ask) {
      if (i == first) nodes_->AskForChild(page, index);
      if (i + 1 < last) {
        after = {&page, reverse_ ? index - 1 : index + 1};
        nodes_->AskForChild(page, after.index);
      }
    }
    absl::StatusOr<OpenPage> child = nodes_->OpenChild(page, index, mode_);
    bool more;
    if (!child.ok()) {
      DYNLIB_ASSIGN_OR_RETURN(more, Missing(child.status(), below));
    } else {
      DYNLIB_ASSIGN_OR_RETURN(more, Visit(*child, below, after));
    }
    if (!more) return false;
  }
  return true;
}

absl::StatusOr<bool> Scanner::VisitLeaf(const OpenPage& page, uint32_t first, uint32_t last,
                                        const Next& next) {
  const PageView view = page.view();
  const auto row = [&](uint32_t i) { return reverse_ ? last - 1 - (i - first) : i; };
  key_.assign(view.prefix());
  prefix_ = key_.size();
  for (uint32_t i = first; i < std::min(last, first + kRowsAhead); ++i) view.AskForRow(row(i));
  const uint32_t near_end = std::max(first + kRowsAhead, last) - kRowsAhead;
  for (uint32_t i = first; i < last; ++i) {
    if (i < near_end) view.AskForRow(row(i + kRowsAhead));
    if (i == near_end && next.parent != nullptr) {
      nodes_->AskForRowsOfChild(*next.parent, next.index, kRowsAhead, reverse_);
    }
    const uint32_t index = row(i);
    const std::string_view key = Key(view.suffix(index));
    const LeafValue value = view.value(index);
    if (!value.overflow) {
      if (!visit_(key, value.inlined)) return false;
      continue;
    }
    DYNLIB_ASSIGN_OR_RETURN(bool more, VisitOverflow(page, value.child));
    if (!more) return false;
  }
  return true;
}

// In key_.
std::string_view Scanner::Key(std::string_view suffix) {
  const size_t length = prefix_ + suffix.size();
  if (key_.size() != length) key_.resize(length);
  CopyShort(key_.data() + prefix_, suffix.data(), suffix.size());
  return key_;
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
