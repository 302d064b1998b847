// Puts and deletes that a Tree applies together.
//
//   WriteBatch batch;
//   batch.Put("user#7", bytes);
//   batch.Delete("user#8");
//   tree->Apply(batch, position);
//
// A later operation on a key replaces an earlier one on the same key. Deleting a key that is not
// there is no error. Limits (kMaxKeyBytes, kMaxValueBytes) are checked by Tree::Apply.
//
// Threads: one at a time; any number may read one that no longer changes.
#ifndef DYNLIB_STORE_WRITE_BATCH_H_
#define DYNLIB_STORE_WRITE_BATCH_H_

#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dynlib::store {

class WriteBatch {
 public:
  struct Operation {
    std::string key;
    std::optional<std::string> value;  // none: delete the key
  };

  void Put(std::string key, std::string value) {
    bytes_ += key.size() + value.size();
    operations_.push_back({std::move(key), std::move(value)});
  }
  void Delete(std::string key) {
    bytes_ += key.size();
    operations_.push_back({std::move(key), std::nullopt});
  }
  // As if what `other` holds had been called here.
  void Append(WriteBatch other) {
    if (operations_.empty()) {
      *this = std::move(other);
      return;
    }
    bytes_ += other.bytes_;
    operations_.insert(operations_.end(), std::make_move_iterator(other.operations_.begin()),
                       std::make_move_iterator(other.operations_.end()));
  }
  void Clear() {
    operations_.clear();
    bytes_ = 0;
  }

  // In the order of the calls.
  const std::vector<Operation>& operations() const { return operations_; }
  bool empty() const { return operations_.empty(); }
  size_t size() const { return operations_.size(); }
  // Of keys and values.
  size_t bytes() const { return bytes_; }

 private:
  std::vector<Operation> operations_;
  size_t bytes_ = 0;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_WRITE_BATCH_H_
