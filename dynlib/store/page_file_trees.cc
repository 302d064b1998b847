// The trees of a page file as a whole: made, dropped, renamed, split and joined.

#include <algorithm>
#include <iterator>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

using Part = PageFile::Part;

// All nodes of the tree below `node`, and `node`. Those under a damaged page are unknown.
absl::Status CollectNodes(NodeStore& nodes, const NodeRef& node, NodeStore::Expect expect,
                          std::vector<NodeRef>& out) {
  out.push_back(node);
  absl::StatusOr<const NodeContent*> content = nodes.Load(*node, expect, ReadMode::kMayBlock);
  if (absl::IsDataLoss(content.status())) return absl::OkStatus();
  if (!content.ok()) return content.status();
  NodeStore::Expect below =
      (*content)->view().level() > 0 ? NodeStore::Expect::kTreePage : NodeStore::Expect::kOverflow;
  for (const NodeRef& child : (*content)->children) {
    if (below == NodeStore::Expect::kOverflow) {
      out.push_back(child);  // nothing is below it
    } else {
      DYNLIB_RETURN_IF_ERROR(CollectNodes(nodes, child, below, out));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDistinct(const Part& a, const Part& b, const Part& c) {
  if (a.tree != b.tree && b.tree != c.tree && c.tree != a.tree) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("trees ", a.tree, ", ", b.tree, " and ", c.tree, " are not three"));
}

// `root` with the part's own batch applied.
absl::StatusOr<NodeRef> Finish(NodeStore* nodes, const Part& part, const NodeRef& root,
                               uint64_t epoch, std::vector<NodeRef>& replaced) {
  TreeUpdate update(nodes, part.tree, epoch);
  DYNLIB_ASSIGN_OR_RETURN(NodeRef finished, update.Run(root, part.batch));
  std::vector<NodeRef> more = update.TakeReplaced();
  std::move(more.begin(), more.end(), std::back_inserter(replaced));
  return finished;
}

}  // namespace

absl::StatusOr<Tree*> PageFile::CreateTree(TreeId id) {
  std::lock_guard lock(mutex_);
  DYNLIB_RETURN_IF_ERROR(CheckAbsentLocked(id));
  TreePtr tree(new Tree(nodes_, id, nullptr, 0, epoch_));
  return trees_.emplace(id, std::move(tree)).first->second.get();
}

Tree* PageFile::FindTree(TreeId id) const {
  std::lock_guard lock(mutex_);
  auto at = trees_.find(id);
  return at == trees_.end() ? nullptr : at->second.get();
}

std::shared_ptr<Tree> PageFile::ShareTree(TreeId id) const {
  return Existing(id).value_or(nullptr);
}

std::vector<TreeId> PageFile::Trees() const {
  std::lock_guard lock(mutex_);
  std::vector<TreeId> ids;
  for (const auto& [id, tree] : trees_) ids.push_back(id);
  return ids;
}

absl::StatusOr<PageFile::TreePtr> PageFile::Existing(TreeId id) const {
  std::lock_guard lock(mutex_);
  auto at = trees_.find(id);
  if (at == trees_.end()) return absl::NotFoundError(Cat("no tree ", id));
  return at->second;
}

absl::Status PageFile::CheckAbsentLocked(TreeId id) const {
  if (!trees_.contains(id)) return absl::OkStatus();
  return absl::AlreadyExistsError(Cat("tree ", id, " exists"));
}

absl::Status PageFile::DropTree(TreeId id) {
  DYNLIB_ASSIGN_OR_RETURN(TreePtr tree, Existing(id));
  DYNLIB_ASSIGN_OR_RETURN(std::vector<NodeRef> nodes, NodesOf(*tree));
  std::lock_guard lock(mutex_);
  auto at = trees_.find(id);
  if (at == trees_.end() || at->second != tree) return absl::NotFoundError(Cat("no tree ", id));
  DropLocked(*tree, std::move(nodes));
  trees_.erase(at);
  return absl::OkStatus();
}

absl::StatusOr<Tree*> PageFile::RenameTree(TreeId from, TreeId to) {
  if (from == to) return absl::InvalidArgumentError(Cat("tree ", from, " renamed to itself"));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr tree, Existing(from));
  TreePtr replaced = Existing(to).value_or(nullptr);
  std::vector<NodeRef> nodes;
  if (replaced != nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(nodes, NodesOf(*replaced));
  }
  std::lock_guard lock(mutex_);
  auto at = trees_.find(to);
  if (!trees_.contains(from) || (at == trees_.end() ? nullptr : at->second) != replaced) {
    return absl::AbortedError(Cat("trees ", from, " and ", to, " changed meanwhile"));
  }
  trees_.erase(from);
  Tree::Capture version = tree->CaptureForCheckpoint(epoch_);
  TreePtr renamed(new Tree(nodes_, to, std::move(version.root), version.position, epoch_));
  std::move(version.retired.begin(), version.retired.end(), std::back_inserter(dropped_));
  if (replaced != nullptr) {
    DropLocked(*replaced, std::move(nodes));
    renamed->SetDurable(replaced->durable_position(), replaced->fallback_position());
  }
  return (trees_[to] = std::move(renamed)).get();
}

absl::StatusOr<std::vector<NodeRef>> PageFile::NodesOf(const Tree& tree) {
  std::vector<NodeRef> nodes;
  NodeRef root = tree.snapshot().root_;
  if (root != nullptr) {
    DYNLIB_RETURN_IF_ERROR(CollectNodes(*nodes_, root, NodeStore::Expect::kTreePage, nodes));
  }
  return nodes;
}

// Between two captures: the next one takes the tree's pages out of what a checkpoint holds.
void PageFile::DropLocked(Tree& tree, std::vector<NodeRef> nodes) {
  for (const NodeRef& node : nodes) node->Retire();
  Tree::Capture last = tree.CaptureForCheckpoint(epoch_);
  std::move(last.retired.begin(), last.retired.end(), std::back_inserter(dropped_));
  dropped_.push_back(std::move(nodes));
}

absl::Status PageFile::ApplyTogether(std::span<const TreeBatch> batches, uint64_t position) {
  struct Next {
    Tree* tree;
    std::unique_ptr<Tree::Writing> writing;
    uint64_t epoch;
    NodeRef root;
    std::vector<NodeRef> replaced;
  };
  std::vector<Next> successors;
  successors.reserve(batches.size());
  for (const TreeBatch& part : batches) {
    Next next{.tree = part.tree, .writing = std::make_unique<Tree::Writing>(*part.tree)};
    DYNLIB_ASSIGN_OR_RETURN(Tree::Base base, part.tree->Begin(*part.batch, position));
    next.epoch = base.epoch;
    TreeUpdate update(nodes_.get(), part.tree->id(), base.epoch);
    DYNLIB_ASSIGN_OR_RETURN(next.root, update.Run(base.root, *part.batch));
    next.replaced = update.TakeReplaced();
    successors.push_back(std::move(next));
  }
  // A checkpoint captures all trees under this lock: it sees all of the step, or nothing of it.
  std::lock_guard lock(mutex_);
  for (Next& next : successors) {
    next.tree->Publish(std::move(next.root), position, next.epoch, std::move(next.replaced));
  }
  return absl::OkStatus();
}

std::vector<std::pair<TreeId, Snapshot>> PageFile::SnapshotTrees() const {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<TreeId, Snapshot>> versions;
  versions.reserve(trees_.size());
  for (const auto& [id, tree] : trees_) versions.emplace_back(id, tree->snapshot());
  return versions;
}

absl::Status PageFile::Split(const SplitSpec& spec) {
  DYNLIB_RETURN_IF_ERROR(CheckDistinct(spec.source, spec.left, spec.right));
  if (spec.from > spec.at) return absl::InvalidArgumentError("split: `from` is above `at`");
  DYNLIB_RETURN_IF_ERROR(CheckNew({&spec.left, &spec.right}));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr source, Existing(spec.source.tree));
  Tree::Writing writing(*source);
  DYNLIB_ASSIGN_OR_RETURN(Tree::Base base, source->Begin(spec.source.batch, spec.source.position));

  TreeUpdate update(nodes_.get(), spec.source.tree, base.epoch);
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves moved, update.Cut(base.root, spec.from));
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves sides, update.Cut(moved.above, spec.at));
  return PublishTogether({{&spec.source, source, std::move(moved.below)},
                          {&spec.left, nullptr, std::move(sides.below)},
                          {&spec.right, nullptr, std::move(sides.above)}},
                         base.epoch, update.TakeReplaced());
}

absl::Status PageFile::Move(const MoveSpec& spec) {
  if (spec.source.tree == spec.target.tree) {
    return absl::InvalidArgumentError(
        Cat("keys of tree ", spec.source.tree, " are to be moved to itself"));
  }
  DYNLIB_RETURN_IF_ERROR(CheckNew({&spec.target}));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr source, Existing(spec.source.tree));
  Tree::Writing writing(*source);
  DYNLIB_ASSIGN_OR_RETURN(Tree::Base base, source->Begin(spec.source.batch, spec.source.position));
  TreeUpdate update(nodes_.get(), spec.source.tree, base.epoch);
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves moved, update.Cut(base.root, spec.from));
  return PublishTogether({{&spec.source, source, std::move(moved.below)},
                          {&spec.target, nullptr, std::move(moved.above)}},
                         base.epoch, update.TakeReplaced());
}

absl::Status PageFile::Join(const JoinSpec& spec) {
  DYNLIB_RETURN_IF_ERROR(CheckDistinct(spec.left, spec.right, spec.target));
  DYNLIB_RETURN_IF_ERROR(CheckNew({&spec.target}));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr left, Existing(spec.left.tree));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr right, Existing(spec.right.tree));
  Tree::Writing writing_left(*left);
  Tree::Writing writing_right(*right);
  DYNLIB_ASSIGN_OR_RETURN(Tree::Base a, left->Begin(spec.left.batch, spec.left.position));
  DYNLIB_ASSIGN_OR_RETURN(Tree::Base b, right->Begin(spec.right.batch, spec.right.position));

  // With a capture in between, pages made here count as captured: at worst they are listed as
  // retired in vain.
  const uint64_t epoch = std::min(a.epoch, b.epoch);
  TreeUpdate update(nodes_.get(), spec.target.tree, epoch);
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves from_left, update.Cut(a.root, spec.from));
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves from_right, update.Cut(b.root, spec.from));
  DYNLIB_ASSIGN_OR_RETURN(NodeRef joined, update.Join(from_left.above, from_right.above));
  return PublishTogether({{&spec.left, left, std::move(from_left.below)},
                          {&spec.right, right, std::move(from_right.below)},
                          {&spec.target, nullptr, std::move(joined)}},
                         epoch, update.TakeReplaced());
}

absl::Status PageFile::CheckNew(std::initializer_list<const Part*> parts) const {
  for (const Part* part : parts) DYNLIB_RETURN_IF_ERROR(CheckLimits(part->batch));
  std::lock_guard lock(mutex_);
  for (const Part* part : parts) DYNLIB_RETURN_IF_ERROR(CheckAbsentLocked(part->tree));
  return absl::OkStatus();
}

absl::Status PageFile::PublishTogether(std::vector<Successor> successors, uint64_t epoch,
                                       std::vector<NodeRef> replaced) {
  for (Successor& next : successors) {
    DYNLIB_ASSIGN_OR_RETURN(next.root,
                            Finish(nodes_.get(), *next.part, next.root, epoch, replaced));
  }
  // A checkpoint captures all trees under this lock: it sees all of the step, or nothing of it.
  std::lock_guard lock(mutex_);
  for (const Successor& next : successors) {
    if (next.tree == nullptr) DYNLIB_RETURN_IF_ERROR(CheckAbsentLocked(next.part->tree));
  }
  for (Successor& next : successors) {
    const Part& part = *next.part;
    if (next.tree != nullptr) {
      // Whose version it was that a page has left makes no difference: the first takes them all.
      next.tree->Publish(std::move(next.root), part.position, epoch, std::exchange(replaced, {}));
    } else {
      trees_.emplace(part.tree,
                     new Tree(nodes_, part.tree, std::move(next.root), part.position, epoch_));
    }
  }
  return absl::OkStatus();
}

}  // namespace dynlib::store
