// A plain map as oracle for trees, and random batches for both.
#ifndef TESTS_STORE_TREE_MODEL_H_
#define TESTS_STORE_TREE_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "dynlib/base/random.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "gtest/gtest.h"
#include "tests/store/model_keys.h"

namespace dynlib::store {

using Model = std::map<std::string, std::string>;

inline std::string ModelValue(Random& random) {
  uint64_t kind = random.Below(100);
  size_t length = kind < 2   ? random.Below(40'000)
                  : kind < 8 ? random.Below(4000)
                             : random.Below(150);
  if (random.Below(3000) == 0) length = kMaxValueBytes;
  return std::string(length, static_cast<char>('a' + random.Below(26))) + "";
}

// The same operations in both. About a third are deletes, and a few of a range of keys.
inline void AddRandomOperations(Random& random, uint64_t key_space, uint64_t count,
                                WriteBatch& batch, Model& model) {
  for (; count > 0; --count) {
    std::string key = ModelKey(random, key_space);
    if (random.Below(60) == 0) {
      auto first = model.lower_bound(key);
      auto end = first;
      for (uint64_t keys = random.Below(40); keys > 0 && end != model.end(); --keys) ++end;
      batch.DeleteRange(key, end == model.end() ? "" : end->first);
      model.erase(first, end);
    } else if (random.Below(3) == 0) {
      model.erase(key);
      batch.Delete(key);
    } else {
      std::string value = ModelValue(random);
      model[key] = value;
      batch.Put(key, value);
    }
  }
}

inline Model Contents(const Snapshot& snapshot, ScanOrder order = ScanOrder::kForward) {
  Model contents;
  std::string last;
  absl::Status status =
      snapshot.Scan("", "", order, [&](std::string_view key, std::string_view value) {
        if (!contents.empty()) {
          EXPECT_TRUE(order == ScanOrder::kForward ? key > last : key < last) << "out of order";
        }
        last = std::string(key);
        contents.emplace(key, value);
        return true;
      });
  EXPECT_TRUE(status.ok()) << status;
  return contents;
}

}  // namespace dynlib::store

#endif  // TESTS_STORE_TREE_MODEL_H_
