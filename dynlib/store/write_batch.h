// Puts and deletes, of keys and of ranges of keys, that a Tree applies together.
//
//   WriteBatch batch;
//   batch.Put("user#7", bytes);
//   batch.Delete("user#8");
//   batch.DeleteRange("user#9", "user#:");   // [first, end)
//   tree->Apply(batch, position);
//
// A later operation on a key replaces an earlier one on the same key: a range that is deleted takes
// earlier puts of the batch with it, and leaves later ones alone. Deleting what is not there is no
// error. Limits (kMaxKeyBytes, kMaxValueBytes) are checked by Tree::Apply.
//
// The batch keeps copies of what it is given, all in a few pieces of memory: a row costs no
// allocation of its own. What operations() shows is good until the batch is changed or ends, and
// stays where it is when the batch is moved.
//
// Threads: one at a time; any number may read one that no longer changes.
#ifndef DYNLIB_STORE_WRITE_BATCH_H_
#define DYNLIB_STORE_WRITE_BATCH_H_

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace dynlib::store {

class WriteBatch {
 public:
  struct Operation {
    std::string_view key;
    std::optional<std::string_view> value;  // none: delete the key
    // Delete the keys of [key, range_end); no upper bound when it is empty.
    std::optional<std::string_view> range_end;

    // Whether the key `other` is as this operation leaves it.
    bool Covers(std::string_view other) const {
      if (!range_end.has_value()) return other == key;
      return other >= key && (range_end->empty() || other < *range_end);
    }
  };

  WriteBatch() = default;
  WriteBatch(const WriteBatch& other) { AppendCopies(other); }
  WriteBatch(WriteBatch&& other) noexcept { Swap(other); }
  WriteBatch& operator=(WriteBatch other) noexcept {
    Swap(other);
    return *this;
  }
  ~WriteBatch() = default;

  void Put(std::string_view key, std::string_view value) {
    bytes_ += key.size() + value.size();
    char* to = Take(key.size() + value.size());
    key = Copy(key, to);
    operations_.push_back({key, Copy(value, to), std::nullopt});
  }
  void Delete(std::string_view key) {
    bytes_ += key.size();
    char* to = Take(key.size());
    operations_.push_back({Copy(key, to), std::nullopt, std::nullopt});
  }
  // The keys of [first, end), no upper bound when `end` is empty; none when `end` is not above
  // `first`. Costs a few pages at either end, and the pages above those between: leaves that lie in
  // the range as a whole are not read, unless they have values in pages of their own.
  void DeleteRange(std::string_view first, std::string_view end) {
    if (!end.empty() && end <= first) return;
    bytes_ += first.size() + end.size();
    char* to = Take(first.size() + end.size());
    first = Copy(first, to);
    operations_.push_back({first, std::nullopt, Copy(end, to)});
    ++ranges_;
  }
  // As if what `other` holds had been called here.
  void Append(WriteBatch other) {
    if (operations_.empty()) return Swap(other);
    bytes_ += other.bytes_;
    ranges_ += other.ranges_;
    operations_.insert(operations_.end(), other.operations_.begin(), other.operations_.end());
    blocks_.insert(blocks_.end(), std::make_move_iterator(other.blocks_.begin()),
                   std::make_move_iterator(other.blocks_.end()));
  }
  void Clear() { *this = WriteBatch(); }
  // Memory for so many more operations that come to so many bytes of keys and values.
  void Reserve(size_t operations, size_t bytes) {
    operations_.reserve(operations_.size() + operations);
    if (bytes > left_) NewBlock(bytes);
  }

  // In the order of the calls.
  const std::vector<Operation>& operations() const { return operations_; }
  bool empty() const { return operations_.empty(); }
  size_t size() const { return operations_.size(); }
  // Of keys and values.
  size_t bytes() const { return bytes_; }
  // Whether a range is deleted.
  bool has_ranges() const { return ranges_ > 0; }

 private:
  static constexpr size_t kBlockBytesMax = 64 << 10;

  char* Take(size_t bytes) {
    // The first block is as large as it must be: most batches are of one row.
    if (bytes > left_) NewBlock(blocks_.empty() ? bytes : std::max(bytes, NextBlockBytes()));
    char* taken = free_;
    free_ += bytes;
    left_ -= bytes;
    return taken;
  }
  size_t NextBlockBytes() const { return std::min(2 * bytes_, kBlockBytesMax); }
  void NewBlock(size_t bytes) {
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(bytes));
    free_ = blocks_.back().get();
    left_ = bytes;
  }
  static std::string_view Copy(std::string_view bytes, char*& to) {
    if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
    to += bytes.size();
    return {to - bytes.size(), bytes.size()};
  }
  void AppendCopies(const WriteBatch& other) {
    Reserve(other.size(), other.bytes());
    for (const Operation& operation : other.operations_) {
      if (operation.range_end.has_value()) {
        DeleteRange(operation.key, *operation.range_end);
      } else if (operation.value.has_value()) {
        Put(operation.key, *operation.value);
      } else {
        Delete(operation.key);
      }
    }
  }
  void Swap(WriteBatch& other) {
    std::swap(operations_, other.operations_);
    std::swap(blocks_, other.blocks_);
    std::swap(free_, other.free_);
    std::swap(left_, other.left_);
    std::swap(bytes_, other.bytes_);
    std::swap(ranges_, other.ranges_);
  }

  std::vector<Operation> operations_;
  std::vector<std::unique_ptr<char[]>> blocks_;
  char* free_ = nullptr;  // in one of the blocks
  size_t left_ = 0;
  size_t bytes_ = 0;
  size_t ranges_ = 0;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_WRITE_BATCH_H_
