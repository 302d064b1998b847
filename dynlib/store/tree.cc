#include "dynlib/store/tree.h"

#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/range_estimate.h"
#include "dynlib/store/scanner.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
absl::StatusOr<std::optional<std::string>> Snapshot::Get(std::string_view key,
                                                         ReadMode mode) const {
  if (root_ == nullptr) return std::nullopt;
  if (mode == ReadMode::kFromDisk || mode == ReadMode::kNotKept) return GetOpening(key, mode);
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content,
                          nodes_->Load(*root_, NodeStore::Expect::kTreePage, mode));
  while (content->view().level() > 0) {
    DYNLIB_ASSIGN_OR_RETURN(content,
                            nodes_->LoadChild(*content, content->view().ChildFor(key), mode));
  }
  PageView leaf = content->view();
  PageView::Position at = leaf.Find(key);
  if (!at.found) return std::nullopt;
  LeafValue value = leaf.value(at.index);
  if (!value.overflow) return std::string(value.inlined);
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* overflow,
                          nodes_->LoadChild(*content, value.child, mode));
  return std::string(overflow->view().payload());
}

// As Get, for modes in which pages are not kept.
absl::StatusOr<std::optional<std::string>> Snapshot::GetOpening(std::string_view key,
                                                                ReadMode mode) const {
  DYNLIB_ASSIGN_OR_RETURN(OpenPage page, nodes_->Open(*root_, NodeStore::Expect::kTreePage, mode));
  while (page.view().level() > 0) {
    DYNLIB_ASSIGN_OR_RETURN(page, nodes_->OpenChild(page, page.view().ChildFor(key), mode));
  }
  PageView::Position at = page.view().Find(key);
  if (!at.found) return std::nullopt;
  LeafValue value = page.view().value(at.index);
  if (!value.overflow) return std::string(value.inlined);
  DYNLIB_ASSIGN_OR_RETURN(OpenPage overflow, nodes_->OpenChild(page, value.child, mode));
  return std::string(overflow.view().payload());
}

absl::Status Snapshot::Scan(std::string_view start, std::string_view end, ScanOrder order,
                            Visitor visit, ReadMode mode) const {
  if (root_ == nullptr) return absl::OkStatus();
  return Scanner(nodes_.get(), start, end, order == ScanOrder::kReverse, visit, nullptr, mode)
      .Run(*root_);
}

absl::Status Snapshot::ScanReadable(std::string_view start, std::string_view end, Visitor visit,
                                    UnreadableVisitor unreadable, ReadMode mode) const {
  if (root_ == nullptr) return absl::OkStatus();
  return Scanner(nodes_.get(), start, end, false, visit, &unreadable, mode).Run(*root_);
}

absl::StatusOr<std::optional<Snapshot::Unreadable>> Snapshot::FindDamage(std::string_view key,
                                                                         ReadMode mode) const {
  if (root_ == nullptr) return std::nullopt;
  std::optional<Unreadable> found;
  auto unreadable = [&](std::string_view first, std::string_view end, const absl::Status& status) {
    found = Unreadable{std::string(first), std::string(end), status};
    return false;
  };
  auto visit = [](std::string_view, std::string_view) { return false; };
  const std::string after = Cat(key, std::string_view("\0", 1));
  const Scanner::UnreadableVisitor unreadable_visitor(unreadable);
  DYNLIB_RETURN_IF_ERROR(Scanner(nodes_.get(), key, after, false, visit, &unreadable_visitor, mode)
                             .RunUnclipped(*root_));
  return found;
}

absl::StatusOr<RangeStats> Snapshot::ApproximateStats(std::string_view first,
                                                      std::string_view end) const {
  if (root_ == nullptr) return RangeStats{.exact = true};
  return EstimateRange(*nodes_, *root_, first, end);
}

Tree::Writing::Writing(Tree& tree) : tree_(tree) {
  DYNLIB_CHECK(!tree_.writing_.exchange(true, std::memory_order_acquire));  // one at a time
}

Tree::Writing::~Writing() { tree_.writing_.store(false, std::memory_order_release); }

Tree::Tree(std::shared_ptr<NodeStore> nodes, TreeId id, NodeRef root, uint64_t position,
           uint64_t epoch)
    : nodes_(std::move(nodes)),
      id_(id),
      root_(std::move(root)),
      position_(position),
      epoch_(epoch) {}

absl::Status Tree::Apply(const WriteBatch& batch, uint64_t position) {
  Writing writing(*this);
  DYNLIB_ASSIGN_OR_RETURN(Base base, Begin(batch, position));
  TreeUpdate update(nodes_.get(), id_, base.epoch);
  DYNLIB_ASSIGN_OR_RETURN(NodeRef new_root, update.Run(base.root, batch));
  Publish(std::move(new_root), position, base.epoch, update.TakeReplaced());
  return absl::OkStatus();
}

absl::Status Tree::Replace(std::string_view first, std::string_view end, const WriteBatch& rows,
                           uint64_t position) {
  for (const WriteBatch::Operation& row : rows.operations()) {
    if (!row.value.has_value() || row.key < first || (!end.empty() && row.key >= end)) {
      return absl::InvalidArgumentError(
          Cat("replacing [", Escape(first), ", ", Escape(end), "): ", Escape(row.key),
              row.value.has_value() ? " is outside" : " is a delete"));
    }
  }
  if (!end.empty() && end <= first)
    return absl::InvalidArgumentError(Cat("replacing an empty range at ", Escape(first)));
  Writing writing(*this);
  DYNLIB_ASSIGN_OR_RETURN(Base base, Begin(rows, position));
  TreeUpdate update(nodes_.get(), id_, base.epoch);
  DYNLIB_ASSIGN_OR_RETURN(NodeRef new_root, update.Replace(base.root, first, end, rows));
  Publish(std::move(new_root), position, base.epoch, update.TakeReplaced());
  return absl::OkStatus();
}

absl::StatusOr<Tree::Base> Tree::Begin(const WriteBatch& batch, uint64_t position) const {
  DYNLIB_RETURN_IF_ERROR(CheckLimits(batch));
  std::lock_guard lock(mutex_);
  if (position < position_) {
    return absl::InvalidArgumentError(
        Cat("tree ", id_, " is at position ", position_, ", and cannot go back to ", position));
  }
  return Base{root_, epoch_};
}

void Tree::Publish(NodeRef new_root, uint64_t position, uint64_t epoch,
                   std::vector<NodeRef> replaced) {
  // A node that was made after the newest capture is in no checkpoint: it needs no address taken
  // back, and goes with its last reader.
  std::vector<NodeRef> captured;
  for (const NodeRef& node : replaced) {
    node->Retire();
    if (node->epoch() < epoch) captured.push_back(node);
  }
  std::lock_guard lock(mutex_);
  // A checkpoint that captured the old root while this batch was being built has captured them all.
  std::vector<NodeRef>& left = epoch == epoch_ ? captured : replaced;
  if (!left.empty()) retired_.push_back(std::move(left));
  std::swap(root_, new_root);
  position_ = position;
}

Snapshot Tree::snapshot() const {
  std::lock_guard lock(mutex_);
  return Snapshot(nodes_, root_, position_);
}

uint64_t Tree::position() const {
  std::lock_guard lock(mutex_);
  return position_;
}

Tree::Capture Tree::CaptureForCheckpoint(uint64_t epoch) {
  std::lock_guard lock(mutex_);
  epoch_ = epoch;
  return {root_, position_, std::exchange(retired_, {})};
}

void Tree::SetDurable(uint64_t newest, uint64_t older) {
  fallback_position_.store(older, std::memory_order_release);
  durable_position_.store(newest, std::memory_order_release);
}

}  // namespace dynlib::store
