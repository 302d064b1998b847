#include "dynlib/store/tree.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/leaf_tail.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page_digest.h"
#include "dynlib/store/range_estimate.h"
#include "dynlib/store/scanner.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

enum class Found { kYes, kNo, kNotInMemory };

constexpr uint64_t kAnyVersion = ~uint64_t{0};

// The way from the root to a value, as far as it is in memory, of the version of that root, or
// `version`, if that is younger. Under a guard.
template <typename Use>
Found FindInMemory(Node* root, uint64_t version, std::string_view key, bool copied, Use&& use) {
  if (root == nullptr) return Found::kNo;
  NodeContent* content = root->content();
  while (content != nullptr) {
    content->Touch();
    const PageView view = content->view();
    if (view.level() > 0) {
      const Node* below = content->child(view.ChildFor(key));
      content = view.level() > 1 ? below->content() : below->content_with_slots();
      continue;
    }
    if (content->tailed) {
      const LeafTail& tail = content->tail();
      const uint32_t rows = tail.RowsAt(std::max(version, root->birth()));
      if (const auto value = tail.Find(rows, key, view.prefix().size()); value.has_value()) {
        use(*value);
        return Found::kYes;
      }
    }
    const PageView::Position at = view.FindCell(key, copied);
    if (!at.found) return Found::kNo;
    const LeafValue value = view.value(at.index);
    if (!value.overflow) {
      use(value.inlined);
      return Found::kYes;
    }
    content = content->child(value.child)->content();
    if (content == nullptr) break;
    content->Touch();
    use(content->view().payload());
    return Found::kYes;
  }
  return Found::kNotInMemory;
}

bool FromMemory(ReadMode mode) {
  return mode == ReadMode::kMayBlock || mode == ReadMode::kMemoryOnly;
}

// Of the calls that copy a value.
auto CopyTo(std::optional<std::string>& value) {
  return [&value](std::string_view found) { value.emplace(found); };
}

}  // namespace

template <typename Use>
absl::StatusOr<bool> Snapshot::Find(std::string_view key, ReadMode mode, Use use) const {
  if (root() == nullptr) return false;
  if (FromMemory(mode)) {
    Epochs::Guard guard(nodes().epochs());
    guard.CountRead();
    const Found found = FindInMemory(root(), kAnyVersion, key, /*copied=*/true, use);
    if (found != Found::kNotInMemory) return found == Found::kYes;
  }
  return FindLoading(key, mode, use);
}

template <typename Use>
absl::StatusOr<bool> Snapshot::FindLoading(std::string_view key, ReadMode mode, Use use) const {
  nodes().counters().reads_missed.fetch_add(1, std::memory_order_relaxed);
  DYNLIB_ASSIGN_OR_RETURN(OpenPage page, nodes().Open(*root(), NodeStore::Expect::kTreePage, mode));
  while (page.view().level() > 0) {
    DYNLIB_ASSIGN_OR_RETURN(page, nodes().OpenChild(page, page.view().ChildFor(key), mode));
  }
  PageView::Position at = page.view().Find(key);
  if (!at.found) return false;
  LeafValue value = page.view().value(at.index);
  if (!value.overflow) {
    use(value.inlined);
    return true;
  }
  DYNLIB_ASSIGN_OR_RETURN(OpenPage overflow, nodes().OpenChild(page, value.child, mode));
  use(overflow.view().payload());
  return true;
}

absl::StatusOr<std::optional<std::string>> Snapshot::Get(std::string_view key,
                                                         ReadMode mode) const {
  std::optional<std::string> value;
  DYNLIB_RETURN_IF_ERROR(Find(key, mode, CopyTo(value)).status());
  return value;
}

absl::StatusOr<bool> Snapshot::GetInto(std::string_view key, std::string& value,
                                       ReadMode mode) const {
  return Find(key, mode, [&value](std::string_view found) { value.assign(found); });
}

template <typename Use>
absl::StatusOr<bool> Tree::Find(std::string_view key, ReadMode mode, bool copied, Use use) const {
  if (FromMemory(mode)) {
    Epochs::Guard guard(nodes_->epochs());
    guard.CountRead();
    const uint64_t version = visible_.load(std::memory_order_seq_cst);
    const Found found =
        FindInMemory(root_.load(std::memory_order_seq_cst), version, key, copied, use);
    if (found != Found::kNotInMemory) return found == Found::kYes;
  }
  const Snapshot now = snapshot();
  if (now.empty()) return false;
  return now.FindLoading(key, mode, use);
}

absl::StatusOr<std::optional<std::string>> Tree::Get(std::string_view key, ReadMode mode) const {
  std::optional<std::string> value;
  DYNLIB_RETURN_IF_ERROR(Find(key, mode, /*copied=*/true, CopyTo(value)).status());
  return value;
}

absl::StatusOr<bool> Tree::GetInto(std::string_view key, std::string& value, ReadMode mode) const {
  return Find(key, mode, /*copied=*/true,
              [&value](std::string_view found) { value.assign(found); });
}

absl::StatusOr<bool> Tree::Pin(std::string_view key, PinnedValue& value, ReadMode mode) const {
  value.Release();
  if (FromMemory(mode)) {
    value.guard_ = Epochs::Guard(nodes_->epochs());
    value.guard_.CountRead();
    const uint64_t version = visible_.load(std::memory_order_seq_cst);
    const Found found =
        FindInMemory(root_.load(std::memory_order_seq_cst), version, key, /*copied=*/false,
                     [&value](std::string_view there) { value.view_ = there; });
    if (found == Found::kYes) return true;
    value.Release();
    if (found == Found::kNo) return false;
  }
  DYNLIB_ASSIGN_OR_RETURN(const bool found, snapshot().GetInto(key, value.read_, mode));
  if (found) value.view_ = value.read_;
  return found;
}

absl::StatusOr<bool> Tree::View(std::string_view key,
                                absl::FunctionRef<void(std::string_view)> view,
                                ReadMode mode) const {
  return Find(key, mode, /*copied=*/false, view);
}

absl::Status Snapshot::Scan(std::string_view start, std::string_view end, ScanOrder order,
                            Visitor visit, ReadMode mode) const {
  if (root() == nullptr) return absl::OkStatus();
  return Scanner(&nodes(), start, end, order == ScanOrder::kReverse, visit, nullptr, mode)
      .Run(*root());
}

absl::Status Snapshot::ScanReadable(std::string_view start, std::string_view end, Visitor visit,
                                    UnreadableVisitor unreadable, ReadMode mode) const {
  if (root() == nullptr) return absl::OkStatus();
  return Scanner(&nodes(), start, end, false, visit, &unreadable, mode).Run(*root());
}

absl::StatusOr<std::optional<Snapshot::Unreadable>> Snapshot::FindDamage(std::string_view key,
                                                                         ReadMode mode) const {
  if (root() == nullptr) return std::nullopt;
  std::optional<Unreadable> found;
  auto unreadable = [&](std::string_view first, std::string_view end, const absl::Status& status) {
    found = Unreadable{std::string(first), std::string(end), status};
    return false;
  };
  auto visit = [](std::string_view, std::string_view) { return false; };
  const std::string after = Cat(key, std::string_view("\0", 1));
  const Scanner::UnreadableVisitor unreadable_visitor(unreadable);
  DYNLIB_RETURN_IF_ERROR(
      Scanner(&nodes(), key, after, false, visit, &unreadable_visitor, mode).RunUnclipped(*root()));
  return found;
}

absl::StatusOr<std::optional<Digest128>> Snapshot::PagesDigest(std::string_view first,
                                                               std::string_view end) const {
  if (root() == nullptr) return std::nullopt;
  return DigestOfPages(nodes(), *root(), first, end);
}

absl::StatusOr<RangeStats> Snapshot::ApproximateStats(std::string_view first,
                                                      std::string_view end) const {
  if (root() == nullptr) return RangeStats{.exact = true};
  return EstimateRange(nodes(), *root(), first, end);
}

Tree::Writing::Writing(Tree& tree) : tree_(tree) {
  DYNLIB_CHECK(!tree_.writing_.exchange(true, std::memory_order_acquire));  // one at a time
}

Tree::Writing::~Writing() { tree_.writing_.store(false, std::memory_order_release); }

Tree::Tree(std::shared_ptr<NodeStore> nodes, std::shared_ptr<TreeVersions> versions, Node* root,
           uint64_t position)
    : nodes_(std::move(nodes)),
      versions_(std::move(versions)),
      id_(versions_->tree),
      position_(position),
      root_(root),
      visible_(versions_->version) {}

absl::Status Tree::Apply(const WriteBatch& batch, uint64_t position) {
  Writing writing(*this);
  DYNLIB_ASSIGN_OR_RETURN(Node * root, Begin(batch, position));
  TreeUpdate update(nodes_.get(), id_);
  update.AllowTails(FreeSince());
  DYNLIB_ASSIGN_OR_RETURN(Node * new_root, update.Run(root, batch));
  Publish(new_root, position, update);
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
  DYNLIB_ASSIGN_OR_RETURN(Node * root, Begin(rows, position));
  TreeUpdate update(nodes_.get(), id_);
  DYNLIB_ASSIGN_OR_RETURN(Node * new_root, update.Replace(root, first, end, rows));
  Publish(new_root, position, update);
  return absl::OkStatus();
}

absl::StatusOr<Node*> Tree::Begin(const WriteBatch& batch, uint64_t position) const {
  DYNLIB_RETURN_IF_ERROR(CheckLimits(batch));
  const uint64_t now = this->position();
  if (position < now) {
    return absl::InvalidArgumentError(
        Cat("tree ", id_, " is at position ", now, ", and cannot go back to ", position));
  }
  return root_.load(std::memory_order_acquire);
}

uint64_t Tree::FreeSinceLocked() const {
  // What is older than the tree may be in versions of others. And pages that are being made have no
  // birth yet.
  uint64_t since = std::max<uint64_t>(versions_->created_at, 1);
  if (!versions_->pins.empty()) since = std::max(since, versions_->pins.back()->version + 1);
  return since;
}

uint64_t Tree::FreeSince() const {
  std::lock_guard lock(nodes_->versions().mutex());
  return FreeSinceLocked();
}

void Tree::Publish(Node* new_root, uint64_t position, TreeUpdate& update) {
  if (TryPublish(new_root, position, update)) return;
  TryPublish(update.TailsToPages(new_root), position, update);
}

// False: somebody holds a leaf that was to get rows behind its page.
bool Tree::TryPublish(Node* new_root, uint64_t position, TreeUpdate& update) {
  std::vector<Node*> free;
  {
    Epochs::Guard guard(nodes_->epochs());
    std::lock_guard lock(nodes_->versions().mutex());
    if (!update.CanShowTailsLocked(FreeSinceLocked())) return false;
    const uint64_t version = nodes_->versions().NextLocked();
    for (Node* node : update.made()) node->set_birth(version);
    update.ShowTails(version);
    PublishLocked(new_root, position, version);
    nodes_->versions().RetireLocked(versions_, update.replaced(), version, free);
  }
  update.Published();
  nodes_->FreeLater(std::move(free));
  return true;
}

void Tree::PublishLocked(Node* new_root, uint64_t position, uint64_t version) {
  root_.store(new_root, std::memory_order_seq_cst);
  visible_.store(version, std::memory_order_seq_cst);
  position_.store(position, std::memory_order_release);
  versions_->version = version;
}

Snapshot Tree::snapshot() const {
  std::lock_guard lock(nodes_->versions().mutex());
  return SnapshotLocked();
}

Snapshot Tree::SnapshotLocked() const {
  return Snapshot(nodes_->versions().PinLocked(nodes_, versions_,
                                               root_.load(std::memory_order_relaxed),
                                               position_.load(std::memory_order_relaxed)));
}

void Tree::SetDurable(uint64_t newest, uint64_t older) {
  fallback_position_.store(older, std::memory_order_release);
  durable_position_.store(newest, std::memory_order_release);
}

}  // namespace dynlib::store
