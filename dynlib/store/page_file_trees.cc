// The trees of a page file as a whole: made, dropped, renamed, split and joined.

#include <algorithm>
#include <iterator>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/epochs.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree_update.h"

namespace dynlib::store {
namespace {

using Part = PageFile::Part;

absl::Status CheckDistinct(const Part& a, const Part& b, const Part& c) {
  if (a.tree != b.tree && b.tree != c.tree && c.tree != a.tree) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("trees ", a.tree, ", ", b.tree, " and ", c.tree, " are not three"));
}

}  // namespace

absl::StatusOr<Tree*> PageFile::CreateTree(TreeId id) {
  std::lock_guard lock(mutex_);
  DYNLIB_RETURN_IF_ERROR(CheckAbsentLocked(id));
  uint64_t version;
  {
    std::lock_guard versions_lock(nodes_->versions().mutex());
    version = nodes_->versions().NextLocked();
  }
  return trees_.emplace(id, MakeTreeLocked(id, nullptr, 0, version)).first->second.get();
}

PageFile::TreePtr PageFile::MakeTreeLocked(TreeId id, Node* root, uint64_t position,
                                           uint64_t version) {
  auto versions = std::make_shared<TreeVersions>(id, version);
  versions->version = version;
  return TreePtr(new Tree(nodes_, std::move(versions), root, position));
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
  DYNLIB_ASSIGN_OR_RETURN(NodesOfTree nodes, NodesOf(*tree));
  {
    std::lock_guard lock(mutex_);
    auto at = trees_.find(id);
    if (at == trees_.end() || at->second != tree) return absl::NotFoundError(Cat("no tree ", id));
    trees_.erase(at);
  }
  Retire(*tree, std::move(nodes));
  return absl::OkStatus();
}

absl::StatusOr<Tree*> PageFile::RenameTree(TreeId from, TreeId to) {
  if (from == to) return absl::InvalidArgumentError(Cat("tree ", from, " renamed to itself"));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr tree, Existing(from));
  TreePtr replaced = Existing(to).value_or(nullptr);
  NodesOfTree nodes;
  if (replaced != nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(nodes, NodesOf(*replaced));
  }
  Tree* renamed;
  {
    std::lock_guard lock(mutex_);
    auto at = trees_.find(to);
    if (!trees_.contains(from) || (at == trees_.end() ? nullptr : at->second) != replaced) {
      return absl::AbortedError(Cat("trees ", from, " and ", to, " changed meanwhile"));
    }
    trees_.erase(from);
    uint64_t version;
    {
      std::lock_guard versions_lock(nodes_->versions().mutex());
      version = nodes_->versions().NextLocked();
    }
    TreePtr made = MakeTreeLocked(to, tree->root_.load(), tree->position(), version);
    if (replaced != nullptr) {
      made->SetDurable(replaced->durable_position(), replaced->fallback_position());
    }
    renamed = (trees_[to] = std::move(made)).get();
  }
  if (replaced != nullptr) Retire(*replaced, std::move(nodes));
  return renamed;
}

absl::StatusOr<PageFile::NodesOfTree> PageFile::NodesOf(const Tree& tree) {
  NodesOfTree all;
  Node* root = tree.root_.load();
  if (root != nullptr) DYNLIB_RETURN_IF_ERROR(CollectNodes(root, all));
  return all;
}

// `node` and all below it. Those under a damaged page are unknown.
absl::Status PageFile::CollectNodes(Node* node, NodesOfTree& out) {
  out.nodes.push_back(node);
  if (node->on_disk() && node->address().childless) return absl::OkStatus();
  absl::StatusOr<ContentRef> loaded =
      nodes_->Load(*node, NodeStore::Expect::kTreePage, ReadMode::kMayBlock);
  if (absl::IsDataLoss(loaded.status())) return absl::OkStatus();
  if (!loaded.ok()) return loaded.status();
  const NodeContent* content = loaded->get();
  if (content->child_count == 0) return absl::OkStatus();
  out.pinned.push_back(*std::move(loaded));
  for (Node* child : content->all_children()) {
    if (content->view().level() == 0) {
      out.nodes.push_back(child);  // an overflow value: nothing is below it
    } else {
      DYNLIB_RETURN_IF_ERROR(CollectNodes(child, out));
    }
  }
  return absl::OkStatus();
}

void PageFile::Retire(const Tree& tree, NodesOfTree nodes) {
  std::vector<Node*> free;
  {
    Epochs::Guard guard(nodes_->epochs());
    std::lock_guard lock(nodes_->versions().mutex());
    Versions& versions = nodes_->versions();
    versions.RetireLocked(tree.versions_, nodes.nodes, versions.NextLocked(), free);
  }
  nodes.pinned.clear();
  nodes_->FreeLater(std::move(free));
}

struct PageFile::Prepared::Part {
  Tree* tree;
  std::unique_ptr<Tree::Writing> writing;
  std::unique_ptr<TreeUpdate> update;
  Node* root;
};

PageFile::Prepared::Prepared() = default;
PageFile::Prepared::~Prepared() = default;
PageFile::Prepared::Prepared(Prepared&& other) noexcept = default;
PageFile::Prepared& PageFile::Prepared::operator=(Prepared&& other) noexcept = default;

absl::StatusOr<PageFile::Prepared> PageFile::Prepare(std::span<const TreeBatch> batches,
                                                     uint64_t position) {
  struct OfTree {
    Tree* tree;
    std::vector<const WriteBatch*> batches;
  };
  std::vector<OfTree> trees;
  for (const TreeBatch& batch : batches) {
    auto at = std::find_if(trees.begin(), trees.end(),
                           [&](const OfTree& other) { return other.tree == batch.tree; });
    if (at == trees.end()) at = trees.insert(at, {batch.tree, {}});
    at->batches.push_back(batch.batch);
  }
  Prepared prepared;
  prepared.position_ = position;
  prepared.parts_.reserve(trees.size());
  for (const OfTree& next : trees) {
    Prepared::Part part{next.tree, std::make_unique<Tree::Writing>(*next.tree),
                        std::make_unique<TreeUpdate>(nodes_.get(), next.tree->id()), nullptr};
    for (const WriteBatch* batch : next.batches) {
      DYNLIB_ASSIGN_OR_RETURN(part.root, next.tree->Begin(*batch, position));
    }
    part.update->AllowTails(next.tree->FreeSince());
    DYNLIB_ASSIGN_OR_RETURN(part.root, part.update->Run(part.root, next.batches));
    prepared.parts_.push_back(std::move(part));
  }
  return prepared;
}

void PageFile::Publish(Prepared prepared) {
  // A checkpoint captures all trees under this lock: it sees all of the step, or nothing of it.
  std::lock_guard lock(mutex_);
  for (Prepared::Part& part : prepared.parts_) {
    part.tree->Publish(part.root, prepared.position_, *part.update);
  }
}

absl::Status PageFile::ApplyTogether(std::span<const TreeBatch> batches, uint64_t position) {
  DYNLIB_ASSIGN_OR_RETURN(Prepared prepared, Prepare(batches, position));
  Publish(std::move(prepared));
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
  DYNLIB_ASSIGN_OR_RETURN(Node * root, source->Begin(spec.source.batch, spec.source.position));

  TreeUpdate update(nodes_.get(), spec.source.tree);
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves moved, update.Cut(root, spec.from));
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves sides, update.Cut(moved.above, spec.at));
  return PublishTogether({{&spec.source, source, moved.below},
                          {&spec.left, nullptr, sides.below},
                          {&spec.right, nullptr, sides.above}},
                         update);
}

absl::Status PageFile::Move(const MoveSpec& spec) {
  if (spec.source.tree == spec.target.tree) {
    return absl::InvalidArgumentError(
        Cat("keys of tree ", spec.source.tree, " are to be moved to itself"));
  }
  DYNLIB_RETURN_IF_ERROR(CheckNew({&spec.target}));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr source, Existing(spec.source.tree));
  Tree::Writing writing(*source);
  DYNLIB_ASSIGN_OR_RETURN(Node * root, source->Begin(spec.source.batch, spec.source.position));
  TreeUpdate update(nodes_.get(), spec.source.tree);
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves moved, update.Cut(root, spec.from));
  return PublishTogether(
      {{&spec.source, source, moved.below}, {&spec.target, nullptr, moved.above}}, update);
}

absl::Status PageFile::Join(const JoinSpec& spec) {
  DYNLIB_RETURN_IF_ERROR(CheckDistinct(spec.left, spec.right, spec.target));
  DYNLIB_RETURN_IF_ERROR(CheckNew({&spec.target}));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr left, Existing(spec.left.tree));
  DYNLIB_ASSIGN_OR_RETURN(TreePtr right, Existing(spec.right.tree));
  Tree::Writing writing_left(*left);
  Tree::Writing writing_right(*right);
  DYNLIB_ASSIGN_OR_RETURN(Node * a, left->Begin(spec.left.batch, spec.left.position));
  DYNLIB_ASSIGN_OR_RETURN(Node * b, right->Begin(spec.right.batch, spec.right.position));

  TreeUpdate update(nodes_.get(), spec.target.tree);
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves from_left, update.Cut(a, spec.from));
  DYNLIB_ASSIGN_OR_RETURN(TreeUpdate::Halves from_right, update.Cut(b, spec.from));
  DYNLIB_ASSIGN_OR_RETURN(Node * joined, update.Join(from_left.above, from_right.above));
  return PublishTogether({{&spec.left, left, from_left.below},
                          {&spec.right, right, from_right.below},
                          {&spec.target, nullptr, joined}},
                         update);
}

absl::Status PageFile::CheckNew(std::initializer_list<const Part*> parts) const {
  for (const Part* part : parts) DYNLIB_RETURN_IF_ERROR(CheckLimits(part->batch));
  std::lock_guard lock(mutex_);
  for (const Part* part : parts) DYNLIB_RETURN_IF_ERROR(CheckAbsentLocked(part->tree));
  return absl::OkStatus();
}

absl::Status PageFile::PublishTogether(std::vector<Successor> successors, TreeUpdate& update) {
  std::vector<std::unique_ptr<TreeUpdate>> batches;
  for (Successor& next : successors) {
    batches.push_back(std::make_unique<TreeUpdate>(nodes_.get(), next.part->tree));
    DYNLIB_ASSIGN_OR_RETURN(next.root, batches.back()->Run(next.root, next.part->batch));
  }
  std::vector<TreeUpdate*> updates = {&update};
  for (const auto& batch : batches) updates.push_back(batch.get());
  std::vector<Node*> free;
  {
    // A checkpoint captures all trees under this lock: it sees all of the step, or nothing of it.
    std::lock_guard lock(mutex_);
    for (const Successor& next : successors) {
      if (next.tree == nullptr) DYNLIB_RETURN_IF_ERROR(CheckAbsentLocked(next.part->tree));
    }
    Versions& versions = nodes_->versions();
    Epochs::Guard guard(nodes_->epochs());
    std::lock_guard versions_lock(versions.mutex());
    const uint64_t version = versions.NextLocked();
    for (const TreeUpdate* done : updates) {
      for (Node* node : done->made()) node->set_birth(version);
    }
    std::shared_ptr<TreeVersions> newest;
    for (const Successor& next : successors) {
      const Part& part = *next.part;
      if (next.tree != nullptr) {
        next.tree->PublishLocked(next.root, part.position, version);
      } else {
        TreePtr tree = MakeTreeLocked(part.tree, next.root, part.position, version);
        newest = tree->versions_;
        trees_.emplace(part.tree, std::move(tree));
      }
    }
    // As pages of a tree that is made now: so it makes no difference whose they were before.
    for (const TreeUpdate* done : updates) {
      versions.RetireLocked(newest, done->replaced(), version, free);
    }
  }
  for (TreeUpdate* done : updates) done->Published();
  nodes_->FreeLater(std::move(free));
  return absl::OkStatus();
}

}  // namespace dynlib::store
