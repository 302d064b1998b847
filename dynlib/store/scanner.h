// One scan on its way down and along a version of a tree.
//
// Internal to the store: Snapshot::Scan and ScanReadable. Threads: one; blocks on the disk as its
// mode says.
#ifndef DYNLIB_STORE_SCANNER_H_
#define DYNLIB_STORE_SCANNER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/node.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

class Scanner {
 public:
  using Visitor = absl::FunctionRef<bool(std::string_view key, std::string_view value)>;
  using UnreadableVisitor = absl::FunctionRef<bool(std::string_view first, std::string_view end,
                                                   const absl::Status& status)>;

  // The keys of [start, end), no bound above when `end` is empty. Without `unreadable`, which is
  // for forward scans, the first damaged page ends the scan.
  Scanner(NodeStore* nodes, std::string_view start, std::string_view end, bool reverse,
          Visitor visit, const UnreadableVisitor* unreadable, ReadMode mode)
      : nodes_(nodes),
        start_(start),
        end_(end),
        reverse_(reverse),
        visit_(visit),
        unreadable_(unreadable),
        mode_(mode) {}

  absl::Status Run(Node& root);
  // As Run, but `unreadable` hears of all keys that a page may hold, in [start, end) or not.
  absl::Status RunUnclipped(Node& root) { return RunIn(root, {}); }

 private:
  // Of the keys below a page that the scan is for; no bound above when `end` is empty. Followed
  // only when somebody wants to know what is unreadable.
  struct Range {
    std::string first;
    std::string end;
  };

  // The leaf behind the one that is visited.
  struct Next {
    const OpenPage* parent = nullptr;  // null: not known
    uint32_t index = 0;
  };

  absl::Status RunIn(Node& root, const Range& all);
  // Each is false when a visitor has had enough.
  absl::StatusOr<bool> Visit(const OpenPage& page, const Range& range, const Next& next);
  absl::StatusOr<bool> VisitLeaf(const OpenPage& page, uint32_t first, uint32_t last,
                                 const Next& next);
  std::string_view Key(std::string_view suffix);
  absl::StatusOr<bool> VisitOverflow(const OpenPage& page, uint32_t child);
  // The page that has what is in `range` could not be had.
  absl::StatusOr<bool> Missing(const absl::Status& status, const Range& range);
  Range RangeOfChild(const PageView& branch, uint32_t index, const Range& range) const;

  NodeStore* const nodes_;
  const std::string_view start_;
  const std::string_view end_;
  const bool reverse_;
  const Visitor visit_;
  const UnreadableVisitor* const unreadable_;
  const ReadMode mode_;
  std::string key_;
  size_t prefix_ = 0;  // of key_, that of the leaf
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_SCANNER_H_
