// Reading a Store: one version of all its trees, and what a scan is told and tells.
//
//   StoreSnapshot snapshot = store->snapshot("nightly report");
//   ScanOptions range = {.prefix = "user/", .max_rows = 100};
//   DYNLIB_ASSIGN_OR_RETURN(ScanResult page, snapshot.Scan(range, visit));
//   if (page.resume.has_value()) range.start = *page.resume;    // the next hundred
//
// Pages that only a snapshot holds stay in the file: one that is never let go makes the file grow
// with every overwrite. Store::stats() names the oldest by its label.
//
// Threads: any. Ownership: a StoreSnapshot may outlive its Store, and then keeps the file open.
#ifndef DYNLIB_STORE_STORE_SNAPSHOT_H_
#define DYNLIB_STORE_STORE_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/cursor.h"
#include "dynlib/store/node.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/tree.h"

namespace dynlib::store {

struct ScanOptions {
  NamedTree tree{};
  // Keys in [start, end) that start with `prefix`; an empty `end` is no bound.
  std::string start{};
  std::string end{};
  std::string prefix{};
  ScanOrder order = ScanOrder::kForward;
  uint64_t max_rows = UINT64_MAX;
  uint64_t max_bytes = UINT64_MAX;  // of keys and values; the row that reaches it is visited
  ReadMode mode = ReadMode::kMayBlock;
};

struct ScanResult {
  uint64_t rows = 0;
  uint64_t bytes = 0;
  // There may be more, because a bound was reached or the visitor had enough: the `start` to go on
  // from or, in reverse, the `end`.
  std::optional<std::string> resume;
};

class StoreSnapshot {
 public:
  struct TreeVersion {
    NamedTree tree;
    Snapshot snapshot;
  };

  // Empty, at position 0.
  StoreSnapshot() = default;

  // kNotFound for a tree that is not in it.
  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const {
    return Get(NamedTree(), key);
  }
  absl::StatusOr<std::optional<std::string>> Get(const NamedTree& tree, std::string_view key,
                                                 ReadMode mode = ReadMode::kMayBlock) const;
  absl::StatusOr<ScanResult> Scan(const ScanOptions& options, Snapshot::Visitor visit) const;
  absl::StatusOr<Cursor> NewCursor(const NamedTree& tree = NamedTree(),
                                   const CursorOptions& options = {}) const;

  // Sequence of the newest write in it.
  uint64_t position() const { return pin_ == nullptr ? 0 : pin_->position; }
  // The default tree, then the others by name.
  const std::vector<TreeVersion>& trees() const;
  // Null for a tree that is not in it.
  const Snapshot* Find(const NamedTree& tree) const;

 private:
  friend class Store;
  struct Pin {
    std::vector<TreeVersion> trees;
    uint64_t position = 0;
    std::string label;
  };
  explicit StoreSnapshot(std::shared_ptr<const Pin> pin) : pin_(std::move(pin)) {}
  absl::StatusOr<const Snapshot*> Existing(const NamedTree& tree) const;

  std::shared_ptr<const Pin> pin_;
};

// Scan of one tree's version.
absl::StatusOr<ScanResult> ScanTree(const Snapshot& snapshot, const ScanOptions& options,
                                    Snapshot::Visitor visit);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_SNAPSHOT_H_
