// A place in one version of a tree, moved from key to key in either direction.
//
//   DYNLIB_ASSIGN_OR_RETURN(Cursor cursor, store->NewCursor(users, {.prefix = "user/"}));
//   for (cursor.Seek("user/7"); cursor.valid(); cursor.Next()) {
//     Use(cursor.key(), cursor.value());
//   }
//   DYNLIB_RETURN_IF_ERROR(cursor.status());   // the end of the keys, or a page that is damaged
//
// It sees the version of the tree at its making, whatever is written, dropped or checkpointed
// later: it holds a snapshot, which counts in Store::stats() as any. Where each row is looked at
// once, in order, Scan does with less work; a cursor is for who goes back and forth, merges several
// trees, or leaves off and comes back.
//
// Memory: the pages on the way to its place stay in memory beyond the budget, one for each level of
// the tree, four as a rule, and one large value.
//
// Errors: a page that cannot be read makes it invalid, and status() says why (kDataLoss naming the
// page, kUnavailable with ReadMode::kMemoryOnly); Seek behind the damage goes on. Moving on from
// where it is not valid does nothing.
//
// Threads: one at a time. Blocks on the disk as its ReadMode says.
#ifndef DYNLIB_STORE_CURSOR_H_
#define DYNLIB_STORE_CURSOR_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/store/node.h"
#include "dynlib/store/tree.h"

namespace dynlib::store {

struct CursorOptions {
  // It goes over the keys in [start, end) that start with `prefix`; an empty `end` is no bound.
  std::string start{};
  std::string end{};
  std::string prefix{};
  ReadMode mode = ReadMode::kMayBlock;
};

class Cursor {
 public:
  // At no key: to be moved first.
  explicit Cursor(Snapshot snapshot, const CursorOptions& options = {});
  ~Cursor();
  Cursor(Cursor&& other) noexcept;
  Cursor& operator=(Cursor&& other) noexcept;

  // Each returns valid().
  bool SeekToFirst();
  bool SeekToLast();
  // The first key that is not below `key`, and the last one that is not above it.
  bool Seek(std::string_view key);
  bool SeekBack(std::string_view key);
  bool Next();
  bool Prev();

  // It is at a key.
  bool valid() const;
  // OK where it is valid, and where there are no more keys.
  const absl::Status& status() const;
  // Of where it is valid; until it is moved.
  std::string_view key() const;
  std::string_view value() const;

  // The version that it sees.
  const Snapshot& snapshot() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_CURSOR_H_
