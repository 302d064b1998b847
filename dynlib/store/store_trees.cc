// The named trees of a Store: made, found and dropped.

#include <unordered_map>
#include <utility>

#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_catalogue.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

absl::Status Store::Impl::LoadCatalogue() {
  DYNLIB_ASSIGN_OR_RETURN(const Catalogue catalogue, ReadCatalogue(catalogue_->snapshot()));
  next_tree_id_ = catalogue.next_id;
  last_sequence_ = catalogue_->position();
  for (const auto& [name, id] : catalogue.trees) {
    if (AddEntry(name, id) == nullptr) {
      return absl::DataLossError(
          Cat("the catalogue names tree ", Escape(name), ", of which nothing is there"));
    }
  }
  return absl::OkStatus();
}

std::shared_ptr<NamedTree::Entry> Store::Impl::AddEntry(std::string_view name, TreeId id) {
  auto entry = std::make_shared<Entry>();
  entry->store = this;
  entry->id = id;
  entry->name = name;
  entry->tree = pages_->ShareTree(id);
  if (entry->tree == nullptr) return nullptr;
  std::lock_guard lock(trees_mutex_);
  return trees_[entry->name] = entry;
}

std::optional<NamedTree> Store::Impl::FindTree(std::string_view name) const {
  std::lock_guard lock(trees_mutex_);
  auto at = trees_.find(name);
  if (at == trees_.end()) return std::nullopt;
  return NamedTree(at->second);
}

void Store::Impl::ForgetReleasedLocked() const {
  while (!snapshots_.empty() && snapshots_.front().expired()) snapshots_.pop_front();
  // Behind one that is held long there may be many that are gone.
  if (snapshots_.size() < 2 * snapshots_held_ + 16) return;
  std::erase_if(snapshots_, [](const auto& pin) { return pin.expired(); });
  snapshots_held_ = snapshots_.size();
}

StoreSnapshot Store::Impl::SnapshotAll(std::string_view label) const {
  auto pin = std::make_shared<StoreSnapshot::Pin>();
  pin->label = label;
  std::unordered_map<uint64_t, Snapshot> versions;
  for (auto& [id, version] : pages_->SnapshotTrees()) {
    if (id == kCatalogueTree) {
      pin->position = version.position();
    } else {
      versions.emplace(ToUint(id), std::move(version));
    }
  }
  pin->trees.push_back({NamedTree(), std::move(versions[ToUint(kDefaultTree)])});
  std::lock_guard lock(trees_mutex_);
  for (const auto& [name, entry] : trees_) {
    auto at = versions.find(ToUint(entry->id));
    if (at == versions.end()) continue;  // made a moment later
    pin->trees.push_back({NamedTree(entry), std::move(at->second)});
  }
  ForgetReleasedLocked();
  snapshots_.push_back(pin);
  return StoreSnapshot(std::move(pin));
}

std::vector<std::string> Store::Impl::ListTrees() const {
  std::lock_guard lock(trees_mutex_);
  std::vector<std::string> names;
  names.reserve(trees_.size());
  for (const auto& [name, entry] : trees_) names.push_back(name);
  return names;
}

absl::Status Store::Impl::CheckName(std::string_view name) {
  if (!name.empty() && name.size() <= kMaxTreeNameBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("a tree name of ", name.size(), " bytes; 1 to ", kMaxTreeNameBytes));
}

absl::StatusOr<NamedTree> Store::Impl::OpenTree(std::string_view name) {
  if (std::optional<NamedTree> found = FindTree(name)) return *std::move(found);
  DYNLIB_RETURN_IF_ERROR(CheckName(name));
  Request request;
  request.change = TreeChange{.name = std::string(name)};
  request.bytes = GroupEncoder::kPartOverhead + name.size();
  SubmitAndWait(request);
  if (!request.result.ok()) return request.result.status;
  return NamedTree(request.change->entry);
}

void Store::Impl::OpenTree(std::string_view name, Executor* executor,
                           absl::AnyInvocable<void(absl::StatusOr<NamedTree>)> done) {
  absl::Status wrong = CheckName(name);
  if (!wrong.ok()) {
    return executor->Post([done = std::move(done), wrong]() mutable { std::move(done)(wrong); });
  }
  auto request = std::make_unique<Request>();
  request->change = TreeChange{.name = std::string(name)};
  request->bytes = GroupEncoder::kPartOverhead + name.size();
  request->executor = executor;
  request->done = [self = shared_from_this(), name = std::string(name),
                   done = std::move(done)](WriteResult result) mutable {
    if (!result.ok()) return std::move(done)(result.status);
    std::optional<NamedTree> made = self->FindTree(name);
    if (made.has_value()) return std::move(done)(*std::move(made));
    std::move(done)(absl::AbortedError(Cat("tree ", Escape(name), " was dropped meanwhile")));
  };
  Submit(std::move(request));
}

absl::StatusOr<Store::Impl::TreeChange> Store::Impl::Dropping(const NamedTree& tree) const {
  if (tree.is_default()) {
    return absl::InvalidArgumentError("the default tree cannot be dropped");
  }
  if (!Owns(tree)) {
    return absl::InvalidArgumentError(Cat("tree ", Escape(tree.name()), " is of another store"));
  }
  return TreeChange{.name = tree.name(), .entry = tree.entry_, .drop = true};
}

absl::Status Store::Impl::DropTree(const NamedTree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(TreeChange change, Dropping(tree));
  Request request;
  request.change = std::move(change);
  request.bytes = GroupEncoder::kPartOverhead;
  SubmitAndWait(request);
  return request.result.status;
}

void Store::Impl::DropTree(const NamedTree& tree, Executor* executor, Done done) {
  absl::StatusOr<TreeChange> change = Dropping(tree);
  if (!change.ok()) {
    return executor->Post([done = std::move(done), wrong = change.status()]() mutable {
      std::move(done)(std::move(wrong));
    });
  }
  auto request = std::make_unique<Request>();
  request->change = *std::move(change);
  request->bytes = GroupEncoder::kPartOverhead;
  request->executor = executor;
  request->done = [done = std::move(done)](WriteResult result) mutable {
    std::move(done)(std::move(result.status));
  };
  Submit(std::move(request));
}

absl::Status Store::Impl::PrepareChange(TreeChange& change, bool* nothing_to_do) {
  if (change.drop) {
    if (change.entry->dropped) {
      return absl::NotFoundError(Cat("tree ", Escape(change.name), " was dropped before"));
    }
    encoder_.DropTree(change.entry->id);
    return absl::OkStatus();
  }
  if (std::optional<NamedTree> found = FindTree(change.name)) {
    change.entry = found->entry_;
    *nothing_to_do = true;
    return absl::OkStatus();
  }
  change.id = TreeId{next_tree_id_++};
  encoder_.CreateTree(change.id, change.name);
  return absl::OkStatus();
}

// What the catalogue says is published after a tree was made, and before it is gone.
absl::Status Store::Impl::ApplyChange(TreeChange& change, WriteBatch& catalogue) {
  if (!change.drop) {
    DYNLIB_RETURN_IF_ERROR(pages_->CreateTree(change.id).status());
    change.entry = AddEntry(change.name, change.id);
    AddTreeRow(change.name, change.id, catalogue);
    return absl::OkStatus();
  }
  const TreeId id = change.entry->id;
  DeleteTreeRow(change.name, catalogue);
  change.entry->dropped.store(true, std::memory_order_release);
  {
    std::lock_guard lock(trees_mutex_);
    trees_.erase(change.name);
  }
  // Its pages are looked for where that holds up no write. What a crash leaves, Open drops.
  executors_.checkpoint->Post(
      [self = shared_from_this(), id] { self->pages_->DropTree(id).IgnoreError(); });
  return absl::OkStatus();
}

}  // namespace dynlib::store
