// The contents of one simulated file: what the kernel has cached, what is durable, and the ordered
// list of what lies between.
//
// Contents are sparse: chunks of 4 KiB, shared between the two images and the list, copied when
// written. A chunk that was never written, or was written with zeros, takes no memory.
//
// Threads: one at a time.
#ifndef DYNLIB_SIM_FILE_IMAGE_H_
#define DYNLIB_SIM_FILE_IMAGE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/time.h"

namespace dynlib::sim {

// What becomes of unsynced writes when the power fails.
enum class UnsyncedFate {
  kAllLost,
  kAllKept,
  kTorn,          // a prefix of them, in order, the last one cut at a sector
  kRandomSubset,  // any subset of their sectors; changes of size survive in order
};

class FileImage {
 public:
  static constexpr uint64_t kSectorBytes = 512;
  static constexpr uint64_t kChunkBytes = 4096;
  static constexpr uint64_t kSectorsPerChunk = kChunkBytes / kSectorBytes;

  // When a sector was last written: the time, and a number that grows with each write of the disk.
  struct Stamp {
    Instant time;
    uint64_t sequence = 0;  // 0 = never written
  };

  uint64_t size() const { return cached_.size; }

  // [offset, offset + out.size()) must be within the file.
  void Read(uint64_t offset, std::span<char> out) const { Read(cached_, offset, out); }
  void Write(uint64_t offset, std::string_view data, Stamp stamp);
  void Resize(uint64_t size);
  // Writes zeros there, and gives up the blocks that lie in it whole.
  void Discard(uint64_t offset, uint64_t length, Stamp stamp);
  // All that was written is durable.
  void Sync();
  // A random part of it is; the rest will never be, short of writing it again. What the cache holds
  // from then on is what was written, or what is durable.
  void FailSync(bool keep_cache, Random& random);
  // The durable image takes its share of what was not synced, and becomes what is cached.
  void LosePower(UnsyncedFate fate, Random& random);
  // Writes and changes of size that are not durable.
  size_t unsynced() const { return pending_.size(); }

  uint64_t durable_size() const { return durable_.size; }
  void ReadDurable(uint64_t offset, std::span<char> out) const { Read(durable_, offset, out); }

  // Blocks that have space of their own.
  uint64_t BlocksMissing(uint64_t offset, uint64_t length) const;
  void TakeBlocks(uint64_t offset, uint64_t length);
  uint64_t blocks() const { return blocks_; }

  // Sectors whose cached and durable contents are the same, and were written: numbers and stamps.
  struct CleanSector {
    uint64_t index;
    Stamp stamp;
  };
  std::vector<CleanSector> CleanSectors() const;
  // Changes both images, unnoticed: no stamp, nothing pending. The bytes must be within the file.
  void Overwrite(uint64_t offset, std::string_view data);

 private:
  struct Chunk {
    char bytes[kChunkBytes];
    Stamp stamps[kSectorsPerChunk];
  };
  using ChunkPtr = std::shared_ptr<const Chunk>;  // null = zeros, never written
  struct Contents {
    uint64_t size = 0;
    std::vector<ChunkPtr> chunks;
  };
  // A change of size, or a write: the chunks after it, of which the sectors first..end count.
  struct Operation {
    bool is_resize = false;
    uint64_t size = 0;
    uint64_t first_sector = 0;
    uint64_t end_sector = 0;
    std::vector<ChunkPtr> chunks = {};
  };

  static void Read(const Contents& contents, uint64_t offset, std::span<char> out);
  static void Resize(Contents& contents, uint64_t size);
  static void Put(Contents& contents, uint64_t offset, std::string_view data, Stamp stamp);
  // Sectors past the end are dropped.
  static void CopySectors(Contents& to, const Operation& from, uint64_t first, uint64_t end);
  void ApplyTorn(Random& random);
  void ApplySubset(Random& random);
  void RecountBlocks();

  Contents cached_;
  Contents durable_;
  std::vector<Operation> pending_;
  std::vector<bool> has_block_;  // a block for a chunk
  uint64_t blocks_ = 0;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_FILE_IMAGE_H_
