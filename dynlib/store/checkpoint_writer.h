// Writes the pages of a checkpoint that are not on disk yet, children before parents, into free
// space, in few large writes.
//
// A node counts as written, and has an address, once the write that holds it has succeeded; when
// one fails, the nodes in it are as before and their space is free again.
//
// Internal to the store. Threads: one.
#ifndef DYNLIB_STORE_CHECKPOINT_WRITER_H_
#define DYNLIB_STORE_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/node.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

class CheckpointWriter {
 public:
  // Units of tree pages are added to `tree_units` as they are written.
  CheckpointWriter(NodeStore* nodes, uint64_t write_bytes_max, UnitSet* tree_units)
      : nodes_(nodes), write_bytes_max_(write_bytes_max), tree_units_(tree_units) {}
  ~CheckpointWriter() { TakeBack(); }

  // `root` and all below it. The caller keeps the tree alive.
  absl::Status WriteTree(Node& root);
  // The space of blobs is the caller's to release.
  absl::StatusOr<PageRef> WriteBlob(const PageBytes& page);
  // Writes what is gathered; to be called last.
  absl::Status Flush();

 private:
  struct Gathered {
    Node* node;
    Extent extent;
  };

  absl::StatusOr<Extent> Reserve(uint32_t length);
  PageRef Append(const PageBytes& page, Extent extent, const NodeContent* content);
  void TakeBack();

  NodeStore* const nodes_;
  const uint64_t write_bytes_max_;
  UnitSet* const tree_units_;
  uint64_t first_unit_ = 0;  // of buffer_
  std::string buffer_;       // whole units
  std::vector<Gathered> gathered_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_CHECKPOINT_WRITER_H_
