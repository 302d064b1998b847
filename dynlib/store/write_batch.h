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
// Threads: one at a time; any number may read one that no longer changes.
#ifndef DYNLIB_STORE_WRITE_BATCH_H_
#define DYNLIB_STORE_WRITE_BATCH_H_

#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dynlib::store {

class WriteBatch {
 public:
  struct Operation {
    std::string key;
    std::optional<std::string> value;  // none: delete the key
    // Delete the keys of [key, range_end); no upper bound when it is empty.
    std::optional<std::string> range_end;

    // Whether the key `other` is as this operation leaves it.
    bool Covers(std::string_view other) const {
      if (!range_end.has_value()) return other == key;
      return other >= key && (range_end->empty() || other < *range_end);
    }
  };

  void Put(std::string key, std::string value) {
    bytes_ += key.size() + value.size();
    operations_.push_back({std::move(key), std::move(value), std::nullopt});
  }
  void Delete(std::string key) {
    bytes_ += key.size();
    operations_.push_back({std::move(key), std::nullopt, std::nullopt});
  }
  // The keys of [first, end), no upper bound when `end` is empty; none when `end` is not above
  // `first`. Costs a few pages at either end, and the pages above those between: leaves that lie in
  // the range as a whole are not read, unless they have values in pages of their own.
  void DeleteRange(std::string first, std::string end) {
    if (!end.empty() && end <= first) return;
    bytes_ += first.size() + end.size();
    operations_.push_back({std::move(first), std::nullopt, std::move(end)});
    ++ranges_;
  }
  // As if what `other` holds had been called here.
  void Append(WriteBatch other) {
    if (operations_.empty()) {
      *this = std::move(other);
      return;
    }
    bytes_ += other.bytes_;
    ranges_ += other.ranges_;
    operations_.insert(operations_.end(), std::make_move_iterator(other.operations_.begin()),
                       std::make_move_iterator(other.operations_.end()));
  }
  void Clear() {
    operations_.clear();
    bytes_ = 0;
    ranges_ = 0;
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
  std::vector<Operation> operations_;
  size_t bytes_ = 0;
  size_t ranges_ = 0;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_WRITE_BATCH_H_
