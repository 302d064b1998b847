// Good rows in the place of damaged pages.

#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

absl::Status Store::Impl::ReplaceDamaged(const NamedTree& tree, Tree& target,
                                         const Snapshot::Unreadable& found, const FetchRows& fetch,
                                         std::vector<DamagedRange>* ranges) {
  const DamagedRange range = {tree, found.first, found.end, found.status};
  absl::StatusOr<WriteBatch> rows = fetch(range);
  if (!rows.ok()) {
    return absl::Status(rows.status().code(),
                        ToAbsl(Cat("no good copy of [", Escape(found.first), ", ",
                                   Escape(found.end), "): ", ToStd(rows.status().message()))));
  }
  DYNLIB_RETURN_IF_ERROR(target.Replace(found.first, found.end, *rows, target.position()));
  if (ranges != nullptr) ranges->push_back(range);
  return absl::OkStatus();
}

// Before a group is applied again that met a damaged page: by whoever leads.
absl::Status Store::Impl::RepairFor(const Group& group) {
  for (const Request* request : group.requests) {
    if (request->result.sequence == 0) continue;
    for (const StoreBatch::Part& part : request->batch.parts()) {
      Tree* tree = part.tree.is_default() ? default_tree_ : part.tree.entry_->tree.get();
      for (const WriteBatch::Operation& operation : part.batch.operations()) {
        DYNLIB_ASSIGN_OR_RETURN(const std::optional<Snapshot::Unreadable> found,
                                tree->snapshot().FindDamage(operation.key, ReadMode::kNotKept));
        if (!found.has_value()) continue;
        DYNLIB_RETURN_IF_ERROR(
            ReplaceDamaged(part.tree, *tree, *found, options_.fetch_rows, nullptr));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Store::DamagedRange>> Store::Impl::Repair(const NamedTree& tree,
                                                                     const FetchRows& fetch) {
  if (TreeOf(tree) == nullptr) {
    return absl::NotFoundError(Cat("tree ", Escape(tree.name()), " was dropped"));
  }
  Tree* target = tree.is_default() ? default_tree_ : tree.entry_->tree.get();
  std::vector<DamagedRange> ranges;
  Request request;
  request.bytes = GroupEncoder::kPartOverhead;
  request.task = [&]() -> absl::Status {
    std::vector<Snapshot::Unreadable> damaged;
    DYNLIB_RETURN_IF_ERROR(target->snapshot().ScanReadable(
        "", "", [](std::string_view, std::string_view) { return true; },
        [&](std::string_view first, std::string_view end, const absl::Status& status) {
          damaged.push_back({std::string(first), std::string(end), status});
          return true;
        }));
    for (const Snapshot::Unreadable& found : damaged) {
      DYNLIB_RETURN_IF_ERROR(ReplaceDamaged(tree, *target, found, fetch, &ranges));
    }
    return absl::OkStatus();
  };
  SubmitAndWait(request);
  DYNLIB_RETURN_IF_ERROR(request.result.status);
  if (!ranges.empty()) DYNLIB_RETURN_IF_ERROR(CheckpointAndWait());
  return ranges;
}

}  // namespace dynlib::store
