#include "dynlib/store/store_snapshot.h"

#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/key_range.h"

namespace dynlib::store {
absl::StatusOr<ScanResult> ScanTree(const Snapshot& snapshot, const ScanOptions& options,
                                    Snapshot::Visitor visit) {
  ScanResult result;
  const KeyRange range = WithPrefix({options.start, options.end}, options.prefix);
  if (range.empty()) return result;
  const bool reverse = options.order == ScanOrder::kReverse;
  if (options.max_rows == 0 || options.max_bytes == 0) {
    result.resume = reverse ? range.end : range.start;
    return result;
  }
  auto counted = [&](std::string_view key, std::string_view value) {
    const bool wanted = visit(key, value);
    ++result.rows;
    result.bytes += key.size() + value.size();
    if (wanted && result.rows < options.max_rows && result.bytes < options.max_bytes) return true;
    result.resume = std::string(key);
    if (!reverse) result.resume->push_back('\0');
    return false;
  };
  const absl::Status status =
      snapshot.Scan(range.start, range.end, options.order, counted, options.mode);
  if (!status.ok()) return status;
  return result;
}

absl::StatusOr<const Snapshot*> StoreSnapshot::Existing(const NamedTree& tree) const {
  if (const Snapshot* version = Find(tree)) return version;
  return absl::NotFoundError(Cat("tree ", Escape(tree.name()), " is not in the snapshot"));
}

absl::StatusOr<std::optional<std::string>> StoreSnapshot::Get(const NamedTree& tree,
                                                              std::string_view key,
                                                              ReadMode mode) const {
  DYNLIB_ASSIGN_OR_RETURN(const Snapshot* version, Existing(tree));
  return version->Get(key, mode);
}

absl::StatusOr<ScanResult> StoreSnapshot::Scan(const ScanOptions& options,
                                               Snapshot::Visitor visit) const {
  DYNLIB_ASSIGN_OR_RETURN(const Snapshot* version, Existing(options.tree));
  return ScanTree(*version, options, visit);
}

absl::StatusOr<Cursor> StoreSnapshot::NewCursor(const NamedTree& tree,
                                                const CursorOptions& options) const {
  DYNLIB_ASSIGN_OR_RETURN(const Snapshot* version, Existing(tree));
  return Cursor(*version, options);
}

const std::vector<StoreSnapshot::TreeVersion>& StoreSnapshot::trees() const {
  static const auto* const kNone = new std::vector<TreeVersion>();
  return pin_ == nullptr ? *kNone : pin_->trees;
}

const Snapshot* StoreSnapshot::Find(const NamedTree& tree) const {
  for (const TreeVersion& version : trees()) {
    if (version.tree == tree) return &version.snapshot;
  }
  return nullptr;
}

}  // namespace dynlib::store
