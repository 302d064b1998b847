// One scan on its way down and along a version of a tree.
//
// Internal to the store: Snapshot::Scan and ScanReadable. Threads: one; blocks on the disk as its
// mode says.
#ifndef DYNLIB_STORE_SCANNER_H_
#define DYNLIB_STORE_SCANNER_H_

#include <algorithm>
#include <cstdint>
#include <optional>
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
  absl::Status RunUnclipped(Node& root);

 private:
  // Of the keys below a page that the scan is for; no bound above when `end` is empty. Followed
  // only when somebody wants to know what is unreadable.
  struct Range {
    std::string first;
    std::string end;
  };

  // Which ends of the scan may lie in what a page holds.
  struct Ends {
    bool start = true;
    bool end = true;
  };
  // Slots of a page, or children, that the scan is for: [first, last).
  struct Part {
    uint32_t first = 0;
    uint32_t last = 0;

    uint32_t size() const { return std::max(first, last) - first; }
  };
  // A leaf, and how many of its rows were asked for: see VisitLeaves.
  struct Leaf {
    OpenPage page;
    LeafRows rows;
    Part part;
    uint32_t asked = 0;
  };
  // The leaf after one that is visited: child At(children, place) of its parent, if there is one.
  struct NextLeaf {
    const OpenPage* parent = nullptr;
    Ends ends;  // of the parent
    Part children;
    uint32_t place = 0;
    bool tried = false;  // to open it
    std::optional<Leaf> leaf;
  };

  // The key that is visited: the prefix of a leaf, which stays, and a suffix.
  class KeyBuffer {
   public:
    void SetPrefix(std::string_view prefix) {
      Reserve(prefix.size());
      std::copy(prefix.begin(), prefix.end(), data_);
      prefix_ = prefix.size();
    }
    // Until the next one.
    std::string_view WithSuffix(std::string_view suffix);

   private:
    void Reserve(size_t bytes) {
      if (bytes > bytes_) [[unlikely]]
        Grow(bytes);
    }
    void Grow(size_t bytes);

    char* data_ = short_;
    size_t bytes_ = sizeof(short_);
    size_t prefix_ = 0;
    std::string long_;
    char short_[64];
  };

  absl::Status RunIn(Node& root, const Range* all);
  // Each is false when a visitor has had enough. `range` is null without `unreadable_`.
  absl::StatusOr<bool> Visit(OpenPage page, const Range* range, Ends ends);
  absl::StatusOr<bool> VisitChildren(const OpenPage& page, const Range* range, Ends ends,
                                     Part children);
  absl::StatusOr<bool> VisitLeaves(const OpenPage& parent, Ends ends, Part children);
  absl::StatusOr<bool> VisitLeaf(Leaf& leaf, NextLeaf& next);
  absl::StatusOr<bool> VisitOverflow(const OpenPage& page, std::string_view key, uint32_t child);

  Part PartOf(const PageView& page, Ends ends) const;
  Ends EndsOfChild(Ends ends, Part children, uint32_t index) const {
    return {ends.start && index == children.first, ends.end && index + 1 == children.last};
  }
  // The i-th on the way.
  uint32_t At(Part part, uint32_t i) const { return reverse_ ? part.last - 1 - i : part.first + i; }
  Leaf MakeLeaf(OpenPage page, Ends ends) const;
  void AskForRowOf(NextLeaf& next);
  void Open(NextLeaf& next);
  // The page that has what is in `range` could not be had.
  absl::StatusOr<bool> Missing(const absl::Status& status, const Range* range);
  Range RangeOfChild(const PageView& branch, uint32_t index, const Range& range) const;

  NodeStore* const nodes_;
  const std::string_view start_;
  const std::string_view end_;
  const bool reverse_;
  const Visitor visit_;
  const UnreadableVisitor* const unreadable_;
  const ReadMode mode_;
  KeyBuffer key_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_SCANNER_H_
