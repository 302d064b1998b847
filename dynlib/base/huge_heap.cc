#include "dynlib/base/huge_heap.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <mutex>
#include <new>

#include "dynlib/base/check.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define DYNLIB_MEMORY_IS_CHECKED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define DYNLIB_MEMORY_IS_CHECKED 1
#endif
#endif

namespace dynlib {
namespace {

#ifdef DYNLIB_MEMORY_IS_CHECKED
constexpr size_t kObjectMax = 0;
#else
constexpr size_t kObjectMax = 64 << 10;
#endif
constexpr size_t kChunkBytes = 2 << 20;
constexpr size_t kAlignment = 16;

// Blocks follow one another in their chunk. The header lies before what the user gets; the last
// word of a free block repeats its size, for the block behind it.
struct Block {
  static constexpr size_t kUsed = 1;
  static constexpr size_t kUsedBefore = 2;  // the block before it is in use, or there is none

  size_t head;  // size in bytes, a multiple of 16, and the marks
  // Of a free block.
  Block* next;
  Block* previous;

  size_t size() const { return head & ~(kUsed | kUsedBefore); }
  bool used() const { return (head & kUsed) != 0; }
  bool used_before() const { return (head & kUsedBefore) != 0; }
  Block* behind() { return At(reinterpret_cast<char*>(this) + size()); }
  Block* before() {
    return At(reinterpret_cast<char*>(this) - *(reinterpret_cast<size_t*>(this) - 1));
  }
  void* memory() { return &next; }
  static Block* Of(void* memory) { return At(static_cast<char*>(memory) - sizeof(size_t)); }
  static Block* At(char* place) { return reinterpret_cast<Block*>(place); }
};
constexpr size_t kBlockMin = 32;  // the head, two pointers, and the size again

// The first block begins where its memory is aligned; a head alone ends the chunk.
constexpr size_t kFirst = kAlignment - sizeof(size_t);
constexpr size_t kWhole = kChunkBytes - kFirst - sizeof(size_t);
static_assert(kWhole % kAlignment == 0);

// Of twice the size the part that is aligned is kept.
char* MapChunk() {
#ifdef __linux__
  void* const mapped = mmap(nullptr, 2 * kChunkBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, /*fd=*/-1, 0);
  DYNLIB_CHECK(mapped != MAP_FAILED);
  char* const start = static_cast<char*>(mapped);
  const size_t before = -reinterpret_cast<uintptr_t>(mapped) % kChunkBytes;
  if (before > 0) munmap(start, before);
  munmap(start + before + kChunkBytes, kChunkBytes - before);
  // Advice: a system without huge pages refuses it, and nothing is lost.
  madvise(start + before, kChunkBytes, MADV_HUGEPAGE);
  return start + before;
#else
  return static_cast<char*>(::operator new (kChunkBytes, std::align_val_t{kChunkBytes}));
#endif
}

void UnmapChunk(char* chunk) {
#ifdef __linux__
  munmap(chunk, kChunkBytes);
#else
  ::operator delete (chunk, std::align_val_t{kChunkBytes});
#endif
}

class Heap {
 public:
  void* Allocate(size_t bytes) {
    const size_t size = SizeFor(bytes);
    const std::lock_guard lock(mutex_);
    Block* block = Find(size);
    if (block == nullptr) block = NewChunk();
    Remove(block);
    if (block->size() - size >= kBlockMin) {
      Block* const rest = Block::At(reinterpret_cast<char*>(block) + size);
      rest->head = (block->size() - size) | Block::kUsedBefore;
      block->head = size | (block->head & Block::kUsedBefore);
      Insert(rest);
    } else {
      block->behind()->head |= Block::kUsedBefore;
    }
    block->head |= Block::kUsed;
    used_bytes_ += block->size();
    return block->memory();
  }

  void Free(void* memory, size_t bytes) {
    const std::lock_guard lock(mutex_);
    Block* block = Block::Of(memory);
    DYNLIB_CHECK(block->used() && block->size() - SizeFor(bytes) < kBlockMin);
    used_bytes_ -= block->size();
    size_t size = block->size();
    if (Block* const behind = block->behind(); !behind->used()) {
      Remove(behind);
      size += behind->size();
    }
    if (!block->used_before()) {
      block = block->before();
      Remove(block);
      size += block->size();
    }
    block->head = size | Block::kUsedBefore;  // of two neighbours one is always in use
    Block* const behind = block->behind();
    behind->head &= ~Block::kUsedBefore;
    if (size == kWhole && spare_) return FreeChunk(block);
    if (size == kWhole) spare_ = true;
    Insert(block);
  }

  HugeHeap::Stats GetStats() {
    const std::lock_guard lock(mutex_);
    return {.chunk_bytes = chunk_bytes_, .used_bytes = used_bytes_};
  }

 private:
  // Lists of free blocks: sixteen for each power of two.
  static constexpr size_t kSecond = 16;
  static constexpr size_t kFirstLevels = 18;  // 32 bytes to 2 MiB
  struct Place {
    size_t first, second;
  };

  static size_t SizeFor(size_t bytes) {
    const size_t size = (bytes + sizeof(size_t) + kAlignment - 1) / kAlignment * kAlignment;
    return std::max(size, kBlockMin);
  }
  // The list that a block of `size` is in.
  static Place PlaceOf(size_t size) {
    const auto log = static_cast<size_t>(std::bit_width(size)) - 1;
    return {log - 5, (size >> (log - 4)) % kSecond};
  }

  // A free block of `size` at least: the first of the lists that have no smaller ones.
  Block* Find(size_t size) const {
    const auto log = static_cast<size_t>(std::bit_width(size)) - 1;
    Place at = PlaceOf(size + (size_t{1} << (log - 4)) - 1);
    uint32_t lists = filled_[at.first] >> at.second << at.second;
    if (lists == 0) {
      const uint32_t levels = levels_ >> (at.first + 1) << (at.first + 1);
      if (levels == 0) return nullptr;
      at.first = static_cast<size_t>(std::countr_zero(levels));
      lists = filled_[at.first];
    }
    return lists_[at.first][static_cast<size_t>(std::countr_zero(lists))];
  }

  void Insert(Block* block) {
    const Place at = PlaceOf(block->size());
    Block*& list = lists_[at.first][at.second];
    block->previous = nullptr;
    block->next = list;
    if (list != nullptr) list->previous = block;
    list = block;
    filled_[at.first] |= uint32_t{1} << at.second;
    levels_ |= uint32_t{1} << at.first;
    *(reinterpret_cast<size_t*>(block->behind()) - 1) = block->size();
  }

  void Remove(Block* block) {
    if (block->size() == kWhole) spare_ = false;
    const Place at = PlaceOf(block->size());
    if (block->next != nullptr) block->next->previous = block->previous;
    if (block->previous != nullptr) {
      block->previous->next = block->next;
      return;
    }
    lists_[at.first][at.second] = block->next;
    if (block->next != nullptr) return;
    filled_[at.first] &= ~(uint32_t{1} << at.second);
    if (filled_[at.first] == 0) levels_ &= ~(uint32_t{1} << at.first);
  }

  Block* NewChunk() {
    char* const chunk = MapChunk();
    chunk_bytes_ += kChunkBytes;
    Block* const block = Block::At(chunk + kFirst);
    block->head = kWhole | Block::kUsedBefore;
    block->behind()->head = Block::kUsed;
    Insert(block);
    return block;
  }

  void FreeChunk(Block* block) {
    chunk_bytes_ -= kChunkBytes;
    UnmapChunk(reinterpret_cast<char*>(block) - kFirst);
  }

  std::mutex mutex_;
  bool spare_ = false;  // a chunk that is free as a whole
  size_t chunk_bytes_ = 0;
  size_t used_bytes_ = 0;
  uint32_t levels_ = 0;  // with a list that is not empty
  std::array<uint32_t, kFirstLevels> filled_{};
  std::array<std::array<Block*, kSecond>, kFirstLevels> lists_{};
};

// Never destroyed: objects may outlive it.
Heap& TheHeap() {
  static Heap* const heap = new Heap;
  return *heap;
}

}  // namespace

void* HugeHeap::Allocate(size_t bytes) {
  return bytes > kObjectMax ? ::operator new(bytes) : TheHeap().Allocate(bytes);
}

void HugeHeap::Free(void* memory, size_t bytes) {
  if (bytes > kObjectMax) return ::operator delete(memory);
  TheHeap().Free(memory, bytes);
}

HugeHeap::Stats HugeHeap::GetStats() { return TheHeap().GetStats(); }

}  // namespace dynlib
