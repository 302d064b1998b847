#include "dynlib/store/scanner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

// So far ahead of the visitor rows are asked for: more of them are more misses at once than a
// processor keeps track of.
constexpr uint32_t kRowsAhead = 10;

// memcpy without a call, for the few bytes that a key is long as a rule.
inline void CopyShort(char* to, const char* from, size_t bytes) {
  if (bytes > 32 || bytes < 4) {
    std::memcpy(to, from, bytes);
  } else if (bytes > 16) {
    std::memcpy(to, from, 16);
    std::memcpy(to + bytes - 16, from + bytes - 16, 16);
  } else if (bytes >= 8) {
    std::memcpy(to, from, 8);
    std::memcpy(to + bytes - 8, from + bytes - 8, 8);
  } else {
    std::memcpy(to, from, 4);
    std::memcpy(to + bytes - 4, from + bytes - 4, 4);
  }
}

}  // namespace

inline std::string_view Scanner::KeyBuffer::WithSuffix(std::string_view suffix) {
  const size_t length = prefix_ + suffix.size();
  Reserve(length);
  CopyShort(data_ + prefix_, suffix.data(), suffix.size());
  return {data_, length};
}

void Scanner::KeyBuffer::Grow(size_t bytes) {
  std::string longer(2 * bytes, '\0');
  std::copy_n(data_, prefix_, longer.data());
  long_ = std::move(longer);
  data_ = long_.data();
  bytes_ = long_.size();
}

absl::Status Scanner::Run(Node& root) {
  if (unreadable_ == nullptr) return RunIn(root, nullptr);
  const Range all{std::string(start_), std::string(end_)};
  return RunIn(root, &all);
}

absl::Status Scanner::RunUnclipped(Node& root) {
  const Range all;
  return RunIn(root, &all);
}

absl::Status Scanner::RunIn(Node& root, const Range* all) {
  if (!end_.empty() && start_ >= end_) return absl::OkStatus();
  absl::StatusOr<OpenPage> page = nodes_->Open(root, NodeStore::Expect::kTreePage, mode_);
  return (page.ok() ? Visit(*std::move(page), all, Ends()) : Missing(page.status(), all)).status();
}

absl::StatusOr<bool> Scanner::Visit(OpenPage page, const Range* range, Ends ends) {
  const PageView view = page.view();
  if (view.level() == 0) {
    Leaf leaf = MakeLeaf(std::move(page), ends);
    NextLeaf none;
    return VisitLeaf(leaf, none);
  }
  const Part children = PartOf(view, ends);
  if (view.level() == 1 && range == nullptr) return VisitLeaves(page, ends, children);
  return VisitChildren(page, range, ends, children);
}

Scanner::Part Scanner::PartOf(const PageView& page, Ends ends) const {
  const bool branch = page.level() > 0;
  // Of a branch, the children [first, last) can hold keys of the range.
  Part part{0, page.count() + (branch ? 1 : 0)};
  if (ends.start && !start_.empty()) {
    part.first = branch ? page.ChildFor(start_) : page.FindCell(start_, /*whole=*/true).index;
  }
  if (ends.end && !end_.empty()) part.last = page.Find(end_).index + (branch ? 1 : 0);
  return part;
}

absl::StatusOr<bool> Scanner::VisitChildren(const OpenPage& page, const Range* range, Ends ends,
                                            Part children) {
  for (uint32_t i = 0; i < children.size(); ++i) {
    const uint32_t index = At(children, i);
    std::optional<Range> below;
    if (range != nullptr) below = RangeOfChild(page.view(), index, *range);
    const Range* const below_or_null = below.has_value() ? &*below : nullptr;
    absl::StatusOr<OpenPage> child = nodes_->OpenChild(page, index, mode_);
    absl::StatusOr<bool> more =
        child.ok() ? Visit(*std::move(child), below_or_null, EndsOfChild(ends, children, index))
                   : Missing(child.status(), below_or_null);
    if (!more.ok() || !*more) return more;
  }
  return true;
}

// What the next rows need of the memory is asked for while rows are visited, a row for each, on
// into the next leaf, which is pinned for it. Its slots were asked for a leaf before.
absl::StatusOr<bool> Scanner::VisitLeaves(const OpenPage& parent, Ends ends, Part children) {
  NextLeaf next{&parent, ends, children, 0, false, std::nullopt};
  if (children.size() > 0) nodes_->AskForChild(parent, At(children, 0));
  for (uint32_t i = 0; i < children.size(); ++i) {
    std::optional<Leaf> leaf = std::move(next.leaf);
    next.leaf.reset();
    if (!leaf.has_value()) {
      const uint32_t index = At(children, i);
      DYNLIB_ASSIGN_OR_RETURN(OpenPage page, nodes_->OpenChild(parent, index, mode_));
      leaf = MakeLeaf(std::move(page), EndsOfChild(ends, children, index));
      if (i + 1 < children.size()) nodes_->AskForChild(parent, At(children, i + 1));
    }
    next.place = i + 1;
    next.tried = false;
    DYNLIB_ASSIGN_OR_RETURN(const bool more, VisitLeaf(*leaf, next));
    if (!more) return false;
  }
  return true;
}

Scanner::Leaf Scanner::MakeLeaf(OpenPage page, Ends ends) const {
  const PageView view = page.view();
  return {std::move(page), LeafRows(view), PartOf(view, ends)};
}

absl::StatusOr<bool> Scanner::VisitLeaf(Leaf& leaf, NextLeaf& next) {
  const uint32_t size = leaf.part.size();
  for (; leaf.asked < std::min(size, kRowsAhead); ++leaf.asked) {
    leaf.rows.Ask(At(leaf.part, leaf.asked));
  }
  key_.SetPrefix(leaf.page.view().prefix());
  for (uint32_t i = 0; i < size; ++i) {
    if (leaf.asked < size) {
      leaf.rows.Ask(At(leaf.part, leaf.asked++));
    } else {
      AskForRowOf(next);
    }
    const LeafRows::Row row = leaf.rows.row(At(leaf.part, i));
    const std::string_view key = key_.WithSuffix(row.suffix);
    if (!row.value.overflow) {
      if (!visit_(key, row.value.inlined)) return false;
      continue;
    }
    DYNLIB_ASSIGN_OR_RETURN(const bool more, VisitOverflow(leaf.page, key, row.value.child));
    if (!more) return false;
  }
  return true;
}

void Scanner::AskForRowOf(NextLeaf& next) {
  if (!next.tried) Open(next);
  if (!next.leaf.has_value()) return;
  Leaf& leaf = *next.leaf;
  if (leaf.asked < leaf.part.size()) leaf.rows.Ask(At(leaf.part, leaf.asked++));
}

void Scanner::Open(NextLeaf& next) {
  next.tried = true;
  if (next.place >= next.children.size()) return;
  const uint32_t index = At(next.children, next.place);
  std::optional<OpenPage> page = nodes_->OpenChildInMemory(*next.parent, index, mode_);
  if (!page.has_value()) return;
  next.leaf = MakeLeaf(*std::move(page), EndsOfChild(next.ends, next.children, index));
  if (next.place + 1 < next.children.size()) {
    nodes_->AskForChild(*next.parent, At(next.children, next.place + 1));
  }
}

absl::StatusOr<bool> Scanner::VisitOverflow(const OpenPage& page, std::string_view key,
                                            uint32_t child) {
  absl::StatusOr<OpenPage> overflow = nodes_->OpenChild(page, child, mode_);
  if (overflow.ok()) return visit_(key, overflow->view().payload());
  if (unreadable_ == nullptr) return overflow.status();
  const Range one{std::string(key), std::string(key) + '\0'};
  return Missing(overflow.status(), &one);
}

absl::StatusOr<bool> Scanner::Missing(const absl::Status& status, const Range* range) {
  if (unreadable_ == nullptr || !absl::IsDataLoss(status)) return status;
  return (*unreadable_)(range->first, range->end, status);
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
