// Writes the pages of a checkpoint that are not on disk yet, children before parents, into free
// space, in few large writes; compressed, if the file's options say so.
//
// Each write goes to the device before the next is begun, and a small one unless `busy` said no
// after each of the last sixteen: so whoever syncs a log waits for one small write at most.
//
// A node counts as written, and has an address, once the write that holds it has succeeded; when
// one fails, the nodes in it are as before and their space is free again.
//
// Internal to the store. Threads: one.
#ifndef DYNLIB_STORE_CHECKPOINT_WRITER_H_
#define DYNLIB_STORE_CHECKPOINT_WRITER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/aligned_buffer.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/node.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

// What a failed sync of a checkpoint is: nothing is retried (rule L3), whatever the error says.
absl::Status NeverRetried(const absl::Status& status);

class CheckpointWriter {
 public:
  struct Pace {
    uint64_t write_bytes_max;
    uint64_t busy_write_bytes;
    std::function<bool()> busy;  // asked after each write: do others need the device?
    std::function<void(uint64_t bytes)> after_write;
  };

  // Units of tree pages are added to `tree_units` as they are written.
  CheckpointWriter(NodeStore* nodes, Pace pace, uint64_t generation, UnitSet* tree_units)
      : nodes_(nodes),
        pace_(std::move(pace)),
        generation_(PageRef::Generation(generation)),
        tree_units_(tree_units) {}
  ~CheckpointWriter() { TakeBack(); }

  // `root` and all below it. The caller keeps the tree alive.
  absl::Status WriteTree(Node& root);
  // The same of a version that the checkpoint is not of: so that its pages can leave memory.
  absl::Status WriteOldVersion(Node& root);
  // The space of blobs is the caller's to release.
  absl::StatusOr<PageRef> WriteBlob(const PageBytes& page);
  // Writes what is gathered; to be called last, and followed by a sync.
  absl::Status Flush();

 private:
  struct Gathered {
    Node* node;
    Extent extent;
    bool of_checkpoint;
    uint32_t expanded_length;  // of a compressed page
  };

  bool Compress(std::string_view page, std::span<Node* const> children);
  absl::StatusOr<Extent> Reserve(size_t length);
  // `children`: whose addresses are still to be put into it.
  PageRef Append(std::string_view page, Extent extent, std::span<Node* const> children);
  static void PutChildren(std::span<Node* const> children, char* page);
  void CountCompressed(const Gathered& page);
  void TakeBack();
  uint64_t write_bytes() const;  // of a write, at most

  NodeStore* const nodes_;
  const Pace pace_;
  const uint32_t generation_;
  UnitSet* const tree_units_;
  uint64_t first_unit_ = 0;  // of buffer_
  AlignedBuffer buffer_;
  size_t buffered_ = 0;   // whole units
  int quiet_writes_ = 0;  // in a row, up to now
  std::vector<Gathered> gathered_;
  std::string whole_;          // a page with the addresses of its children, to be compressed
  std::string compressed_;     // what came of it
  bool of_checkpoint_ = true;  // what is being written
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_CHECKPOINT_WRITER_H_
