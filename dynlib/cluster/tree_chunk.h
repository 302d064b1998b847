// A piece of a replica's tree on its way to another node: read from a pinned version, verified
// where it arrives, and merged into the tree there.
//
// A chunk has every shared key (TableStateMachine::IsShared) behind `after`, up to and including
// its last row, or up to the end of the keys if it says `done`. Merging makes the receiving tree
// the same in that range: what the chunk does not have is deleted, what differs is overwritten. So
// it does not matter what the range held before, be it the rows of another version that was copied
// half, and merging a chunk twice is as good as once.
//
// Internal to the cluster.
//
// Threads: one at a time; everything blocks on files.
#ifndef DYNLIB_CLUSTER_TREE_CHUNK_H_
#define DYNLIB_CLUSTER_TREE_CHUNK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::cluster {

namespace wire {
class CopyTreeReply;
}  // namespace wire

// What a chunk may be asked to hold. With the one row that it has in any case, and what the
// encoding adds, it stays far below Rpc::kMaxRequestBytes.
inline constexpr size_t kTreeChunkBytesMin = 1 << 10;
inline constexpr size_t kTreeChunkBytesMax = 16 << 20;

// Sets the rows, `done` and the checksum: as many rows behind `after` as `bytes_max` takes, and one
// at least if there is one. Pages that had to be read are not kept in memory. On an error, that of
// the snapshot, the chunk has no rows.
absl::Status ReadTreeChunk(const store::Snapshot& snapshot, std::string_view after,
                           size_t bytes_max, wire::CopyTreeReply& chunk);

// XXH3-64 over the rows, each key and value length-prefixed.
uint64_t TreeChunkChecksum(const wire::CopyTreeReply& chunk);

// kDataLoss if it is not what a source read behind `after`: the checksum, keys that do not ascend
// or are not shared, or no row and no end.
absl::Status CheckTreeChunk(std::string_view after, const wire::CopyTreeReply& chunk);

// Merges one chunk that was checked, in batches, so that the work between two of them is bounded,
// whatever is to be deleted.
class TreeChunkMerge {
 public:
  // `into` outlives it, is at position 0, and has no other writer meanwhile.
  TreeChunkMerge(std::string after, wire::CopyTreeReply chunk, store::Tree* into);
  ~TreeChunkMerge();

  // Applies one batch. True if more is to be done; the tree's errors.
  absl::StatusOr<bool> Step();

  const wire::CopyTreeReply& chunk() const { return *chunk_; }
  // Where the chunk ends: `after` of the next one.
  const std::string& last() const { return last_; }
  // Of keys and values.
  size_t bytes() const { return bytes_; }
  // Rows that were written or deleted so far.
  uint64_t changed() const { return changed_; }

 private:
  bool HasRowBelow(std::string_view key) const;
  void PutRow(store::WriteBatch& batch);
  // Looks at one local key; false if the batch was full before.
  bool Visit(std::string_view key, std::string_view value, store::WriteBatch& batch);

  const std::unique_ptr<wire::CopyTreeReply> chunk_;  // rows before next_ were taken from
  std::string last_;
  size_t bytes_ = 0;
  store::Tree* const into_;
  std::string start_;  // local keys below were looked at
  std::string end_;    // empty: none
  int next_ = 0;
  uint64_t changed_ = 0;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TREE_CHUNK_H_
