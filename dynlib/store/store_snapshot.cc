#include "dynlib/store/store_snapshot.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

// The smallest string above all that start with `prefix`; empty: there is none.
std::string EndOfPrefix(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

}  // namespace

absl::StatusOr<ScanResult> ScanTree(const Snapshot& snapshot, const ScanOptions& options,
                                    Snapshot::Visitor visit) {
  ScanResult result;
  const std::string start = std::max(options.start, options.prefix);
  std::string end = options.end;
  const std::string prefix_end = EndOfPrefix(options.prefix);
  if (!prefix_end.empty() && (end.empty() || prefix_end < end)) end = prefix_end;
  if (!end.empty() && start >= end) return result;
  const bool reverse = options.order == ScanOrder::kReverse;
  if (options.max_rows == 0 || options.max_bytes == 0) {
    result.resume = reverse ? end : start;
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
  const absl::Status status = snapshot.Scan(start, end, options.order, counted, options.mode);
  if (!status.ok()) return status;
  return result;
}

absl::StatusOr<std::optional<std::string>> StoreSnapshot::Get(const NamedTree& tree,
                                                              std::string_view key,
                                                              ReadMode mode) const {
  const Snapshot* version = Find(tree);
  if (version == nullptr) {
    return absl::NotFoundError(Cat("tree ", Escape(tree.name()), " is not in the snapshot"));
  }
  return version->Get(key, mode);
}

absl::StatusOr<ScanResult> StoreSnapshot::Scan(const ScanOptions& options,
                                               Snapshot::Visitor visit) const {
  const Snapshot* version = Find(options.tree);
  if (version == nullptr) {
    return absl::NotFoundError(
        Cat("tree ", Escape(options.tree.name()), " is not in the snapshot"));
  }
  return ScanTree(*version, options, visit);
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
