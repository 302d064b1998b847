#include "dynlib/store/store_repair.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {
namespace {

using Unreadable = Snapshot::Unreadable;
using Operation = WriteBatch::Operation;

bool Holds(const Unreadable& range, std::string_view key) {
  return key >= range.first && (range.end.empty() || key < range.end);
}

void Add(const Operation& operation, WriteBatch& batch) {
  if (operation.value.has_value()) {
    batch.Put(operation.key, *operation.value);
  } else {
    batch.Delete(operation.key);
  }
}

// The part of [first, end) that lies in [from, to); an empty end is no bound.
void AddPart(std::string_view first, std::string_view end, std::string_view from,
             std::string_view to, WriteBatch& batch) {
  std::string_view upper = end.empty() || (!to.empty() && to < end) ? to : end;
  batch.DeleteRange(std::max(first, from), upper);
}

}  // namespace

absl::StatusOr<std::vector<Unreadable>> DamageInTheWay(const Tree& tree, const WriteBatch& batch) {
  const Snapshot version = tree.snapshot();
  std::vector<Unreadable> found;
  const auto look = [&](std::string_view key) -> absl::Status {
    if (std::any_of(found.begin(), found.end(),
                    [key](const Unreadable& range) { return Holds(range, key); })) {
      return absl::OkStatus();
    }
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Unreadable> damage,
                            version.FindDamage(key, ReadMode::kMayBlock));
    if (damage.has_value()) found.push_back(*std::move(damage));
    return absl::OkStatus();
  };
  for (const Operation& operation : batch.operations()) {
    DYNLIB_RETURN_IF_ERROR(look(operation.key));
    // The page that holds both keys of the range and some behind it is cut.
    if (operation.range_end.has_value() && !operation.range_end->empty()) {
      DYNLIB_RETURN_IF_ERROR(look(*operation.range_end));
    }
  }
  return found;
}

absl::Status ReplaceDamaged(const NamedTree& name, Tree& tree, const Unreadable& found,
                            const Store::FetchRows& fetch) {
  absl::StatusOr<WriteBatch> rows = fetch({name, found.first, found.end, found.status});
  if (!rows.ok()) {
    return absl::Status(rows.status().code(),
                        ToAbsl(Cat("no good copy of [", Escape(found.first), ", ",
                                   Escape(found.end), "): ", ToStd(rows.status().message()))));
  }
  return tree.Replace(found.first, found.end, *rows, tree.position());
}

absl::Status NotReplaced(const absl::Status& damage, const absl::Status& why) {
  return absl::DataLossError(Cat(ToStd(damage.message()), "; ", ToStd(why.message())));
}

void SetAside(const std::string& first, const std::string& end, WriteBatch& batch,
              WriteBatch& aside) {
  const Unreadable range = {first, end, {}};
  WriteBatch rest;
  for (const Operation& operation : batch.operations()) {
    if (!operation.range_end.has_value()) {
      Add(operation, Holds(range, operation.key) ? aside : rest);
      continue;
    }
    if (!first.empty()) AddPart(operation.key, *operation.range_end, "", first, rest);
    AddPart(operation.key, *operation.range_end, first, end, aside);
    if (!end.empty()) AddPart(operation.key, *operation.range_end, end, "", rest);
  }
  batch = std::move(rest);
}

// Before a group is applied again that met a damaged page: by whoever leads.
absl::Status Store::Impl::RepairFor(const Group& group) {
  for (const Request* request : group.requests) {
    if (request->result.sequence == 0) continue;
    for (const StoreBatch::Part& part : request->batch.parts()) {
      Tree* tree = part.tree.is_default() ? default_tree_ : part.tree.entry_->tree.get();
      DYNLIB_ASSIGN_OR_RETURN(const std::vector<Unreadable> damaged,
                              DamageInTheWay(*tree, part.batch));
      for (const Unreadable& found : damaged) {
        const absl::Status replaced = ReplaceDamaged(part.tree, *tree, found, options_.fetch_rows);
        if (!replaced.ok()) return NotReplaced(found.status, replaced);
      }
    }
  }
  return absl::OkStatus();
}

// A group that is logged and cannot be applied. Nothing overtakes it, so the store takes no more.
void Store::Impl::Owe(const Group& group, const absl::Status& why) {
  if (owed_.empty()) owed_.why = why;
  owed_.batches[kCatalogueTree].Append(group.catalogue);
  for (const Request* request : group.requests) {
    if (request->result.sequence == 0) continue;
    for (const StoreBatch::Part& part : request->batch.parts()) {
      const TreeId id = part.tree.is_default() ? kDefaultTree : part.tree.entry_->id;
      owed_.batches[id].Append(part.batch);
    }
  }
  owed_.position = group.last_sequence;
  StopForDamage();
}

void Store::Impl::Owe(OwedWrites owed) {
  owed_ = std::move(owed);
  if (!owed_.empty()) StopForDamage();
}

void Store::Impl::StopForDamage() {
  std::lock_guard lock(mutex_);
  damaged_ = absl::DataLossError(
      Cat("the store takes no writes: ", ToStd(owed_.why.message()),
          "; what was logged and needs this page waits for a good copy: see Store::Repair"));
  GiveBackLocked(0);
}

// What is owed goes to the trees, and both checkpoints have it before anything else is written: a
// torn end of the log may have to be let go of too. If a page is still in the way, that is no
// error: it is of a tree that is to be repaired, too.
absl::Status Store::Impl::PayOwed() {
  std::vector<PageFile::TreeBatch> batches = {{catalogue_, &owed_.batches[kCatalogueTree]}};
  for (const auto& [id, batch] : owed_.batches) {
    Tree* const tree = pages_->FindTree(id);
    if (tree != nullptr && tree != catalogue_) batches.push_back({tree, &batch});
  }
  const absl::Status applied = pages_->ApplyTogether(batches, owed_.position);
  if (absl::IsDataLoss(applied)) return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(applied);
  DYNLIB_RETURN_IF_ERROR(pages_->CheckpointTwice());
  if (const std::shared_ptr<NodeLog> log = Log()) {
    log->Release(kStoreStream, catalogue_->fallback_position());
  }
  owed_ = {};
  std::lock_guard lock(mutex_);
  damaged_ = absl::OkStatus();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Store::DamagedRange>> Store::Impl::Repair(const NamedTree& tree,
                                                                     const FetchRows& fetch) {
  if (TreeOf(tree) == nullptr) {
    return absl::NotFoundError(Cat("tree ", Escape(tree.name()), " was dropped"));
  }
  Tree* target = tree.is_default() ? default_tree_ : tree.entry_->tree.get();
  std::vector<DamagedRange> ranges;
  bool owed = false;
  Request request;
  request.bytes = GroupEncoder::kPartOverhead;
  request.repairs = true;
  request.task = [&]() -> absl::Status {
    std::vector<Unreadable> damaged;
    DYNLIB_RETURN_IF_ERROR(target->snapshot().ScanReadable(
        "", "", [](std::string_view, std::string_view) { return true; },
        [&](std::string_view first, std::string_view end, const absl::Status& status) {
          damaged.push_back({std::string(first), std::string(end), status});
          return true;
        }));
    for (const Unreadable& found : damaged) {
      DYNLIB_RETURN_IF_ERROR(ReplaceDamaged(tree, *target, found, fetch));
      ranges.push_back({tree, found.first, found.end, found.status});
    }
    owed = !owed_.empty();
    return owed ? PayOwed() : absl::OkStatus();
  };
  SubmitAndWait(request);
  DYNLIB_RETURN_IF_ERROR(request.result.status);
  if (!ranges.empty() && !owed) DYNLIB_RETURN_IF_ERROR(CheckpointAndWait());
  return ranges;
}

}  // namespace dynlib::store
