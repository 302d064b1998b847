// How writes of a stand-alone store stand in its log (docs/format/wal.md): one record holds a group
// of writes, one after the other, in the trees that they name.
//
//   GroupEncoder group;
//   group.Add(kDefaultTree, batch);
//   group.EndWrite();
//   std::string payload = group.Take();
//
// Threads: one at a time.
#ifndef DYNLIB_STORE_STORE_RECORD_H_
#define DYNLIB_STORE_STORE_RECORD_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/store/page.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

// The tree that every store has.
inline constexpr TreeId kDefaultTree{1};

// Of what is written; older ones are read.
inline constexpr uint8_t kStoreRecordVersion = 2;

class GroupEncoder {
 public:
  // Each belongs to the write that EndWrite ends.
  void Add(TreeId tree, const WriteBatch& batch);
  void CreateTree(TreeId tree, std::string_view name);
  void DropTree(TreeId tree);
  void EndWrite();
  // The payload; the encoder is empty again.
  std::string Take();
  bool empty() const { return payload_.empty(); }

  // Bound of what Add and EndWrite append, and what a payload has besides.
  static uint64_t BytesFor(const WriteBatch& batch) {
    return batch.bytes() + kOperationOverhead * batch.size() + kPartOverhead;
  }
  static constexpr uint64_t kOperationOverhead = 12;
  static constexpr uint64_t kPartOverhead = 16;

 private:
  void Begin();

  std::string payload_;
  TreeId tree_ = kDefaultTree;
};

// A payload read back.
struct LoggedChange {
  struct Apply {
    WriteBatch batch;
  };
  struct Create {
    std::string name;
  };
  struct Drop {};
  TreeId tree{};
  std::variant<Apply, Create, Drop> what;
};
struct LoggedGroup {
  uint64_t writes = 0;
  std::vector<LoggedChange> changes;  // in order; neighbours of one tree are joined
};

// kDataLoss for bytes that are none; kFailedPrecondition for those of a newer format.
absl::StatusOr<LoggedGroup> DecodeGroup(std::string_view payload);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_RECORD_H_
