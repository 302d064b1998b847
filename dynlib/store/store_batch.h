// What one write of a Store is made of: changes of any of its named trees, and what must hold for
// them to be made.
//
//   StoreBatch batch;
//   batch.Put("k", "v");                          // in the default tree
//   batch.Put(users, "7", bytes);                 // in a named one
//   batch.IfEquals(balances, "7", "100");         // all conditions hold, or nothing is written
//   batch.Put(balances, "7", "80");
//   WriteResult result = store->Write(std::move(batch));
//   if (result.failed_condition.has_value()) ...
//
// A batch is in whole or not at all, across trees too. Conditions are about the trees as they are
// before the batch and after all writes before it; a later change of a key replaces an earlier one.
//
// Threads: one at a time.
#ifndef DYNLIB_STORE_STORE_BATCH_H_
#define DYNLIB_STORE_STORE_BATCH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/store/page.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

// A tree of a Store, by name; a default NamedTree stands for the tree without a name, which every
// store has. Cheap to copy. It stays valid, though unwritable, when the tree is dropped.
//
// Threads: any.
class NamedTree {
 public:
  NamedTree() = default;

  std::string name() const { return entry_ == nullptr ? "" : entry_->name; }
  bool is_default() const { return entry_ == nullptr; }
  friend bool operator==(const NamedTree&, const NamedTree&) = default;

 private:
  friend class Store;
  struct Entry {
    const void* store = nullptr;  // whose it is
    TreeId id{};
    std::string name;
    std::shared_ptr<Tree> tree;
    std::atomic<bool> dropped{false};
  };
  explicit NamedTree(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
  std::shared_ptr<Entry> entry_;
};

class StoreBatch {
 public:
  struct Condition {
    enum class Kind : uint8_t { kAbsent, kPresent, kEquals, kNotWrittenSince };
    NamedTree tree;
    std::string key;
    Kind kind = Kind::kAbsent;
    std::string value;      // kEquals
    uint64_t sequence = 0;  // kNotWrittenSince
  };
  struct Part {
    NamedTree tree;
    WriteBatch batch;
  };

  StoreBatch() = default;
  // Changes of the default tree.
  explicit StoreBatch(WriteBatch batch) { Add(NamedTree(), std::move(batch)); }

  void Put(std::string_view key, std::string_view value) { For(NamedTree()).Put(key, value); }
  void Put(const NamedTree& tree, std::string_view key, std::string_view value) {
    For(tree).Put(key, value);
  }
  void Delete(std::string_view key) { For(NamedTree()).Delete(key); }
  void Delete(const NamedTree& tree, std::string_view key) { For(tree).Delete(key); }
  // See WriteBatch::DeleteRange.
  void DeleteRange(std::string_view first, std::string_view end) {
    For(NamedTree()).DeleteRange(first, end);
  }
  void DeleteRange(const NamedTree& tree, std::string_view first, std::string_view end) {
    For(tree).DeleteRange(first, end);
  }
  void Add(const NamedTree& tree, WriteBatch batch) { parts_.push_back({tree, std::move(batch)}); }

  void IfAbsent(std::string key) { IfAbsent(NamedTree(), std::move(key)); }
  void IfAbsent(const NamedTree& tree, std::string key) {
    Require({tree, std::move(key), Condition::Kind::kAbsent});
  }
  void IfPresent(std::string key) { IfPresent(NamedTree(), std::move(key)); }
  void IfPresent(const NamedTree& tree, std::string key) {
    Require({tree, std::move(key), Condition::Kind::kPresent});
  }
  void IfEquals(std::string key, std::string value) {
    IfEquals(NamedTree(), std::move(key), std::move(value));
  }
  void IfEquals(const NamedTree& tree, std::string key, std::string value) {
    Require({tree, std::move(key), Condition::Kind::kEquals, std::move(value)});
  }
  // No write after `sequence`, a StoreSnapshot's position() or a WriteResult's sequence, has
  // changed the key: what was read there still holds, be it a value or its absence. The store
  // remembers the newest writes by hash; where it cannot tell (the key shares a slot with one that
  // was written, or the store was opened since) the condition fails: read again and try again.
  void IfNotWrittenSince(const NamedTree& tree, std::string key, uint64_t sequence) {
    Require({tree, std::move(key), Condition::Kind::kNotWrittenSince, {}, sequence});
  }
  void Require(Condition condition) { conditions_.push_back(std::move(condition)); }

  const std::vector<Part>& parts() const { return parts_; }
  const std::vector<Condition>& conditions() const { return conditions_; }
  // Of keys and values.
  size_t bytes() const {
    size_t bytes = 0;
    for (const Part& part : parts_) bytes += part.batch.bytes();
    return bytes;
  }
  void Clear() {
    parts_.clear();
    conditions_.clear();
  }

 private:
  friend class Store;
  WriteBatch& For(const NamedTree& tree) {
    if (parts_.empty() || parts_.back().tree != tree) parts_.push_back({tree, {}});
    return parts_.back().batch;
  }

  std::vector<Part> parts_;
  std::vector<Condition> conditions_;
};

struct WriteOptions {
  // False: answered when applied, without waiting for the disk. A crash then loses at most the
  // newest such writes, never one before another that it keeps: what is found is what the first n
  // writes made, in their order, and holds all that was durable. The log is written all the same,
  // without pause, so what is at risk is what came while the last one or two syncs ran, and at most
  // Store::Options::max_pending_bytes. An empty batch that is durable makes all writes before it
  // so.
  bool durable = true;
};

struct WriteResult {
  // Besides the errors of Store: kFailedPrecondition when a condition does not hold.
  absl::Status status;
  // Position of the write in the order of all writes; 0 unless it is OK.
  uint64_t sequence = 0;
  // Which of StoreBatch::conditions() was the first not to hold. Nothing was written then.
  std::optional<size_t> failed_condition;

  bool ok() const { return status.ok(); }
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_BATCH_H_
