// A piece of a replica's tree on its way to another node: read from a pinned version, verified
// where it arrives, and merged into the tree there.
//
// Who asks may have some of the rows already, of a copy that was cut or of an older version. It
// says so in parts, each by the digest of its rows; a part that the source
// has as well is named in the chunk, and its rows are not in it.
//
// A chunk has every other shared key (TableStateMachine::IsShared) behind `after`, up to and
// including its end, or up to the end of the keys if it says `done`. Merging makes the receiving
// tree the same in that range: what the chunk does not have is deleted, what differs is
// overwritten. So it does not matter what the range held before, be it the rows of another version
// that was copied half, and merging a chunk twice is as good as once.
//
// Digests are XXH3-128 under a seed of the copy's: they find what differs, and are no defence
// against someone who knows the seed and chooses the rows.
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
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::cluster {

namespace wire {
class CopyTreeReply;
class CopyTreeRequest;
}  // namespace wire

// What a chunk may be asked to hold. With the one row, or the one part, that it has in any case,
// and what the encoding adds, it stays far below Rpc::kMaxRequestBytes.
inline constexpr size_t kTreeChunkBytesMin = 1 << 10;
inline constexpr size_t kTreeChunkBytesMax = 16 << 20;
// A part ends with the row that makes it as long as a 256th of a chunk, and up to so long. A key
// and 30 bytes are sent for it; the rows of the whole part, if any of them differs.
inline constexpr size_t kHeldPartBytes = 4 << 10;

// Adds to the request what is held behind its `after`: the parts of a chunk of `bytes_max`, and
// whether there is more. The snapshot's errors.
absl::Status ReadHeldParts(const store::Snapshot& snapshot, size_t bytes_max,
                           wire::CopyTreeRequest& request);
// kInvalidArgument if the parts do not ascend behind `after`, or one is longer than parts are.
absl::Status CheckHeldParts(const wire::CopyTreeRequest& request);

// Sets the rows, which parts are the same, `through`, `done` and the checksum: as many rows behind
// the request's `after` as `bytes_max` takes, and one at least if there is one to send. Pages that
// had to be read are not kept in memory. On an error, that of the snapshot, the chunk has no rows.
absl::Status ReadTreeChunk(const store::Snapshot& snapshot, const wire::CopyTreeRequest& request,
                           size_t bytes_max, wire::CopyTreeReply& chunk);

uint64_t TreeChunkChecksum(const wire::CopyTreeReply& chunk);

// Of the parts that the chunk says are the same.
uint64_t BytesSame(const wire::CopyTreeRequest& request, const wire::CopyTreeReply& chunk);

// kDataLoss if it is not what a source may answer: the checksum, keys that do not ascend, are not
// shared or lie in a part that is the same, or no way made and no end.
absl::Status CheckTreeChunk(const wire::CopyTreeRequest& request, const wire::CopyTreeReply& chunk);

// Merges one chunk that was checked, in batches, so that the work between two of them is bounded,
// whatever is to be deleted.
class TreeChunkMerge {
 public:
  // `into` outlives it, is at position 0, and has had no other writer since its parts were read.
  TreeChunkMerge(const wire::CopyTreeRequest& request, wire::CopyTreeReply chunk,
                 store::Tree* into);
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
  // Keys [start, end) that the chunk speaks of; an empty end is none.
  struct Stretch {
    std::string start;  // local keys below were looked at
    std::string end;

    bool EndsAt(std::string_view key) const { return !end.empty() && key >= end; }
  };

  // The first stretch, until the batch is full; false if it was.
  absl::StatusOr<bool> FillFrom(Stretch& stretch, store::WriteBatch& batch);
  bool HasRowBelow(std::string_view key) const;
  void PutRow(store::WriteBatch& batch);
  // Looks at one local key; false if the batch was full before.
  bool Visit(std::string_view key, std::string_view value, store::WriteBatch& batch);

  const std::unique_ptr<wire::CopyTreeReply> chunk_;  // rows before next_ were taken from
  std::string last_;
  size_t bytes_ = 0;
  store::Tree* const into_;
  std::vector<Stretch> stretches_;
  size_t stretch_ = 0;  // those before it are merged
  int next_ = 0;
  uint64_t changed_ = 0;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TREE_CHUNK_H_
