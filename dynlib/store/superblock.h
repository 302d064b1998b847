// The two superblocks of a page file, and the two blobs that each of them names: the directory of
// trees, and the bitmap of units that those trees lie in. Bytes: docs/format/btree.md.
//
// Internal to the store. Pure functions.
#ifndef DYNLIB_STORE_SUPERBLOCK_H_
#define DYNLIB_STORE_SUPERBLOCK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

inline constexpr uint32_t kPageFileVersion = 2;
inline constexpr uint32_t kSuperblockBytes = kUnitBytes;
inline constexpr uint64_t kSuperblockUnits = 2;

struct Superblock {
  Digest128 file_id;
  uint64_t generation = 0;  // of the checkpoint; superblock generation % 2 holds it
  uint64_t file_units = 0;  // the file is at least this long
  PageRef directory;        // null: no trees
  PageRef bitmap;           // null: no units
  // Of the owner's log the number of a batch that was durable when this was written; 0: not known.
  uint64_t log_batch = 0;
};

struct TreeRecord {
  TreeId id;
  uint64_t position = 0;
  PageRef root;  // null: an empty tree
  friend bool operator==(const TreeRecord&, const TreeRecord&) = default;
};

// A checkpoint that is on disk.
struct CheckpointRecord {
  Superblock superblock;
  std::vector<TreeRecord> trees;  // ascending
  UnitSet tree_units;             // what the bitmap says
  // All that must not be overwritten while a superblock names this checkpoint: the trees, the
  // directory and the bitmap.
  std::shared_ptr<const UnitSet> held_units;
};

std::shared_ptr<const UnitSet> HeldUnits(const Superblock& superblock, const UnitSet& tree_units);

// A block of kSuperblockBytes.
std::string EncodeSuperblock(const Superblock& superblock);
// `index` is where the block was read: 0 or 1.
//   kInvalidArgument     it does not start as a superblock does
//   kFailedPrecondition  intact, of a newer format or with units of another size
//   kDataLoss            it does not verify
absl::StatusOr<Superblock> DecodeSuperblock(std::string_view block, uint64_t index);

PageBytes EncodeDirectory(const std::vector<TreeRecord>& trees);
absl::StatusOr<std::vector<TreeRecord>> DecodeDirectory(const PageBytes& page);

PageBytes EncodeBitmap(const UnitSet& units);
absl::StatusOr<UnitSet> DecodeBitmap(const PageBytes& page, uint64_t file_units);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_SUPERBLOCK_H_
