#include "dynlib/sim/file_image.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace dynlib::sim {
namespace {

constexpr uint64_t kSector = FileImage::kSectorBytes;
constexpr uint64_t kChunk = FileImage::kChunkBytes;

uint64_t ChunksFor(uint64_t bytes) { return bytes / kChunk + (bytes % kChunk != 0 ? 1 : 0); }

bool AllZero(std::string_view data) {
  return data.find_first_not_of('\0') == std::string_view::npos;
}

}  // namespace

void FileImage::Read(const Contents& contents, uint64_t offset, std::span<char> out) {
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t at = offset + done;
    const size_t length = std::min<uint64_t>(out.size() - done, kChunk - at % kChunk);
    const ChunkPtr& chunk = contents.chunks[at / kChunk];
    if (chunk == nullptr) {
      std::memset(out.data() + done, 0, length);
    } else {
      std::memcpy(out.data() + done, chunk->bytes + at % kChunk, length);
    }
    done += length;
  }
}

void FileImage::Resize(Contents& contents, uint64_t size) {
  contents.chunks.resize(ChunksFor(size));
  // What a file grows by reads as zeros, also where it was longer before.
  if (size < contents.size && size % kChunk != 0 && contents.chunks.back() != nullptr) {
    auto copy = std::make_shared<Chunk>(*contents.chunks.back());
    std::memset(copy->bytes + size % kChunk, 0, kChunk - size % kChunk);
    contents.chunks.back() = std::move(copy);
  }
  contents.size = size;
}

void FileImage::Put(Contents& contents, uint64_t offset, std::string_view data, Stamp stamp) {
  while (!data.empty()) {
    const uint64_t within = offset % kChunk;
    const size_t length = std::min<uint64_t>(data.size(), kChunk - within);
    const std::string_view piece = data.substr(0, length);
    ChunkPtr& chunk = contents.chunks[offset / kChunk];
    if (chunk != nullptr || !AllZero(piece)) {
      auto copy = chunk == nullptr ? std::make_shared<Chunk>() : std::make_shared<Chunk>(*chunk);
      std::memcpy(copy->bytes + within, piece.data(), length);
      if (stamp.sequence != 0) {
        for (uint64_t s = within / kSector; s <= (within + length - 1) / kSector; ++s) {
          copy->stamps[s] = stamp;
        }
      }
      chunk = std::move(copy);
    }
    offset += length;
    data.remove_prefix(length);
  }
}

void FileImage::Write(uint64_t offset, std::string_view data, Stamp stamp) {
  if (data.empty()) return;
  const uint64_t end = offset + data.size();
  if (end > cached_.size) Resize(end);
  Put(cached_, offset, data, stamp);
  Operation operation;
  operation.first_sector = offset / kSector;
  operation.end_sector = (end - 1) / kSector + 1;
  operation.chunks.assign(cached_.chunks.begin() + offset / kChunk,
                          cached_.chunks.begin() + (end - 1) / kChunk + 1);
  pending_.push_back(std::move(operation));
}

void FileImage::Resize(uint64_t size) {
  if (size == cached_.size) return;
  Resize(cached_, size);
  pending_.push_back({.is_resize = true, .size = size});
  if (has_block_.size() > cached_.chunks.size()) {
    has_block_.resize(cached_.chunks.size());
    RecountBlocks();
  }
}

void FileImage::Discard(uint64_t offset, uint64_t length, Stamp stamp) {
  length = std::min(length, size() - std::min(size(), offset));
  Write(offset, std::string(length, '\0'), stamp);
  const uint64_t end = (offset + length) / kChunk;
  for (uint64_t i = ChunksFor(offset); i < std::min<uint64_t>(end, has_block_.size()); ++i) {
    has_block_[i] = false;
  }
  RecountBlocks();
}

void FileImage::CopySectors(Contents& to, const Operation& from, uint64_t first, uint64_t end) {
  const uint64_t base = from.first_sector / kSectorsPerChunk;
  end = std::min(end, (to.size + kSector - 1) / kSector);
  for (uint64_t sector = first; sector < end;) {
    const uint64_t chunk = sector / kSectorsPerChunk;
    const uint64_t stop = std::min(end, (chunk + 1) * kSectorsPerChunk);
    const ChunkPtr& source = from.chunks[chunk - base];
    ChunkPtr& target = to.chunks[chunk];
    if (source == nullptr && target == nullptr) {
      sector = stop;
      continue;
    }
    auto copy = target == nullptr ? std::make_shared<Chunk>() : std::make_shared<Chunk>(*target);
    const Chunk zeros = {};
    const Chunk& bytes = source == nullptr ? zeros : *source;
    for (; sector < stop; ++sector) {
      const uint64_t s = sector % kSectorsPerChunk;
      std::memcpy(copy->bytes + s * kSector, bytes.bytes + s * kSector, kSector);
      copy->stamps[s] = bytes.stamps[s];
    }
    // A sector snapshot may hold bytes past a later, shorter end.
    const uint64_t chunk_end = (chunk + 1) * kChunk;
    if (to.size < chunk_end) {
      const uint64_t within = to.size - chunk * kChunk;
      std::memset(copy->bytes + within, 0, kChunk - within);
    }
    target = std::move(copy);
  }
}

void FileImage::Sync() {
  for (const Operation& operation : pending_) {
    if (operation.is_resize) {
      Resize(durable_, operation.size);
      continue;
    }
    // Whole chunks are shared, not copied: the cached chunk is what all the operations come to.
    const uint64_t first = operation.first_sector / kSectorsPerChunk;
    for (uint64_t i = 0; i < operation.chunks.size(); ++i) {
      if (first + i < durable_.chunks.size() && first + i < cached_.chunks.size()) {
        durable_.chunks[first + i] = cached_.chunks[first + i];
      }
    }
  }
  pending_.clear();
}

void FileImage::FailSync(bool keep_cache, Random& random) {
  ApplySubset(random);
  pending_.clear();
  if (!keep_cache) {
    cached_ = durable_;
    has_block_.resize(cached_.chunks.size());
    RecountBlocks();
  } else if (cached_.size != durable_.size) {
    // The size is in the journal, not in the pages: it is still to come.
    pending_.push_back({.is_resize = true, .size = cached_.size});
  }
}

void FileImage::LosePower(UnsyncedFate fate, Random& random) {
  switch (fate) {
    case UnsyncedFate::kAllLost:
      break;
    case UnsyncedFate::kAllKept:
      Sync();
      break;
    case UnsyncedFate::kTorn:
      ApplyTorn(random);
      break;
    case UnsyncedFate::kRandomSubset:
      ApplySubset(random);
      break;
  }
  pending_.clear();
  cached_ = durable_;
  has_block_.resize(cached_.chunks.size());
  RecountBlocks();
}

void FileImage::ApplyTorn(Random& random) {
  if (pending_.empty()) return;
  const size_t last = random.Below(pending_.size());
  for (size_t i = 0; i <= last; ++i) {
    const Operation& operation = pending_[i];
    if (operation.is_resize) {
      Resize(durable_, operation.size);
      continue;
    }
    uint64_t end = operation.end_sector;
    if (i == last) end = operation.first_sector + random.Below(end - operation.first_sector + 1);
    CopySectors(durable_, operation, operation.first_sector, end);
  }
}

void FileImage::ApplySubset(Random& random) {
  // Changes of size are journalled: a prefix of them survives. A file whose data may outlive its
  // size would need that size to be there, so sectors past the end are lost.
  const size_t resizes = std::count_if(pending_.begin(), pending_.end(),
                                       [](const Operation& o) { return o.is_resize; });
  size_t resizes_left = random.Below(resizes + 1);
  for (const Operation& operation : pending_) {
    if (operation.is_resize) {
      if (resizes_left > 0) {
        Resize(durable_, operation.size);
        --resizes_left;
      }
      continue;
    }
    for (uint64_t sector = operation.first_sector; sector < operation.end_sector; ++sector) {
      if (random.Below(2) == 0) CopySectors(durable_, operation, sector, sector + 1);
    }
  }
}

uint64_t FileImage::BlocksMissing(uint64_t offset, uint64_t length) const {
  if (length == 0) return 0;
  uint64_t missing = 0;
  const uint64_t last = (offset + length - 1) / kChunk;
  for (uint64_t i = offset / kChunk; i <= last; ++i) {
    if (i >= has_block_.size()) return missing + (last - i + 1);
    if (!has_block_[i]) ++missing;
  }
  return missing;
}

void FileImage::TakeBlocks(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  const uint64_t last = (offset + length - 1) / kChunk;
  if (last >= has_block_.size()) has_block_.resize(last + 1);
  for (uint64_t i = offset / kChunk; i <= last; ++i) {
    if (!has_block_[i]) ++blocks_;
    has_block_[i] = true;
  }
}

void FileImage::RecountBlocks() {
  blocks_ = std::count(has_block_.begin(), has_block_.end(), true);
}

std::vector<FileImage::CleanSector> FileImage::CleanSectors() const {
  std::vector<bool> dirty(cached_.chunks.size());
  for (const Operation& operation : pending_) {
    const uint64_t first = operation.first_sector / kSectorsPerChunk;
    for (uint64_t i = 0; i < operation.chunks.size() && first + i < dirty.size(); ++i) {
      dirty[first + i] = true;
    }
  }
  std::vector<CleanSector> sectors;
  for (uint64_t chunk = 0; chunk < cached_.chunks.size(); ++chunk) {
    // After a failed sync the images differ with nothing pending: such chunks are not durable.
    if (dirty[chunk] || cached_.chunks[chunk] == nullptr) continue;
    if (chunk >= durable_.chunks.size() || durable_.chunks[chunk] != cached_.chunks[chunk])
      continue;
    for (uint64_t s = 0; s < kSectorsPerChunk; ++s) {
      const Stamp& stamp = cached_.chunks[chunk]->stamps[s];
      if (stamp.sequence == 0 || chunk * kChunk + (s + 1) * kSector > cached_.size) continue;
      sectors.push_back({chunk * kSectorsPerChunk + s, stamp});
    }
  }
  return sectors;
}

void FileImage::Overwrite(uint64_t offset, std::string_view data) {
  Put(cached_, offset, data, Stamp());
  const uint64_t in_durable =
      std::min<uint64_t>(data.size(), durable_.size > offset ? durable_.size - offset : 0);
  Put(durable_, offset, data.substr(0, in_durable), Stamp());
  // The images share the chunks that were equal, so that they stay recognisable as clean.
  for (uint64_t i = offset / kChunk; i <= (offset + data.size() - 1) / kChunk; ++i) {
    if (i >= durable_.chunks.size() || cached_.chunks[i] == nullptr) continue;
    const ChunkPtr& durable = durable_.chunks[i];
    if (durable != nullptr && std::memcmp(durable->bytes, cached_.chunks[i]->bytes, kChunk) == 0) {
      durable_.chunks[i] = cached_.chunks[i];
    }
  }
}

}  // namespace dynlib::sim
