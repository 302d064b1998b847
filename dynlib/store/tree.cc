#include "dynlib/store/tree.h"

#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

absl::Status CheckLimits(const WriteBatch& batch) {
  for (const WriteBatch::Operation& operation : batch.operations()) {
    if (operation.key.size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(
          Cat("key of ", operation.key.size(), " bytes; at most ", kMaxKeyBytes));
    }
    if (operation.value.has_value() && operation.value->size() > kMaxValueBytes) {
      return absl::InvalidArgumentError(
          Cat("value of ", operation.value->size(), " bytes; at most ", kMaxValueBytes));
    }
  }
  return absl::OkStatus();
}

// One scan on its way down and along a version.
class Scanner {
 public:
  Scanner(NodeStore* nodes, std::string_view start, std::string_view end, ScanOrder order,
          Snapshot::Visitor visit, ReadMode mode)
      : nodes_(nodes), start_(start), end_(end), order_(order), visit_(visit), mode_(mode) {}

  // False when the visitor has had enough.
  absl::StatusOr<bool> Visit(const NodeContent& content) {
    PageView view = content.view();
    bool branch = view.level() > 0;
    // Of a branch, the children [first, last) can hold keys of the range.
    uint32_t first = 0;
    if (!start_.empty()) first = branch ? view.ChildFor(start_) : view.Find(start_).index;
    uint32_t last = view.count() + (branch ? 1 : 0);
    if (!end_.empty()) last = view.Find(end_).index + (branch ? 1 : 0);
    for (uint32_t i = first; i < last; ++i) {
      uint32_t index = order_ == ScanOrder::kForward ? i : last - 1 - (i - first);
      DYNLIB_ASSIGN_OR_RETURN(
          bool more, branch ? VisitChild(content, index) : VisitEntry(content, view, index));
      if (!more) return false;
    }
    return true;
  }

 private:
  absl::StatusOr<bool> VisitChild(const NodeContent& content, uint32_t index) {
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* child, nodes_->LoadChild(content, index, mode_));
    return Visit(*child);
  }

  absl::StatusOr<bool> VisitEntry(const NodeContent& content, const PageView& view,
                                  uint32_t index) {
    key_.assign(view.prefix());
    key_.append(view.suffix(index));
    LeafValue value = view.value(index);
    if (!value.overflow) return visit_(key_, value.inlined);
    DYNLIB_ASSIGN_OR_RETURN(const NodeContent* overflow,
                            nodes_->LoadChild(content, value.child, mode_));
    return visit_(key_, overflow->view().payload());
  }

  NodeStore* const nodes_;
  const std::string_view start_;
  const std::string_view end_;
  const ScanOrder order_;
  const Snapshot::Visitor visit_;
  const ReadMode mode_;
  std::string key_;
};

}  // namespace

absl::StatusOr<std::optional<std::string>> Snapshot::Get(std::string_view key,
                                                         ReadMode mode) const {
  if (root_ == nullptr) return std::nullopt;
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

absl::Status Snapshot::Scan(std::string_view start, std::string_view end, ScanOrder order,
                            Visitor visit, ReadMode mode) const {
  if (root_ == nullptr || (!end.empty() && start >= end)) return absl::OkStatus();
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content,
                          nodes_->Load(*root_, NodeStore::Expect::kTreePage, mode));
  return Scanner(nodes_.get(), start, end, order, visit, mode).Visit(*content).status();
}

Tree::Tree(std::shared_ptr<NodeStore> nodes, TreeId id, NodeRef root, uint64_t position)
    : nodes_(std::move(nodes)), id_(id), root_(std::move(root)), position_(position) {}

absl::Status Tree::Apply(const WriteBatch& batch, uint64_t position) {
  DYNLIB_CHECK(!writing_.exchange(true, std::memory_order_acquire));  // one writer at a time
  absl::Status status = ApplyAlone(batch, position);
  writing_.store(false, std::memory_order_release);
  return status;
}

absl::Status Tree::ApplyAlone(const WriteBatch& batch, uint64_t position) {
  DYNLIB_RETURN_IF_ERROR(CheckLimits(batch));
  NodeRef root;
  uint64_t epoch;
  {
    std::lock_guard lock(mutex_);
    if (position < position_) {
      return absl::InvalidArgumentError(
          Cat("tree ", id_, " is at position ", position_, ", and cannot go back to ", position));
    }
    root = root_;
    epoch = epoch_;
  }
  TreeUpdate update(nodes_.get(), id_, epoch);
  DYNLIB_ASSIGN_OR_RETURN(NodeRef new_root, update.Run(root, batch));
  Publish(std::move(new_root), position, epoch, update.TakeReplaced());
  return absl::OkStatus();
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

Tree::Capture Tree::CaptureForCheckpoint() {
  std::lock_guard lock(mutex_);
  ++epoch_;
  return {root_, position_, std::exchange(retired_, {})};
}

void Tree::SetDurable(uint64_t newest, uint64_t older) {
  fallback_position_.store(older, std::memory_order_release);
  durable_position_.store(newest, std::memory_order_release);
}

}  // namespace dynlib::store
