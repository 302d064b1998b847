#include "dynlib/base/huge_array.h"

#include <cstdint>

#include "dynlib/base/check.h"

// The address sanitizer would not see what is done with memory that is not the heap's.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define DYNLIB_MAPS_HUGE_MEMORY 1
#include <sys/mman.h>
#endif

namespace dynlib {
namespace {

constexpr size_t kHugePage = 2 << 20;

std::align_val_t AlignmentOf(size_t bytes, size_t alignment) {
  return std::align_val_t{bytes >= kHugePage ? std::max(kHugePage, alignment) : alignment};
}

#ifdef DYNLIB_MAPS_HUGE_MEMORY

size_t ToSmallPages(size_t bytes) {
  constexpr size_t kSmallPage = 4096;
  return (bytes + kSmallPage - 1) / kSmallPage * kSmallPage;
}

char* Map(size_t bytes) {
  void* const mapped =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, /*fd=*/-1, 0);
  DYNLIB_CHECK(mapped != MAP_FAILED);
  return static_cast<char*>(mapped);
}

// Fresh from the system: memory of the heap that was in use before stays in small pages, as 60 of
// the 136 MB of a store did that was opened after another was closed.
void* MapHuge(size_t bytes, size_t alignment) {
  const size_t length = ToSmallPages(bytes);
  char* start = Map(length);
  if (reinterpret_cast<uintptr_t>(start) % alignment != 0) {
    munmap(start, length);
    start = Map(length + alignment);
    const size_t before = -reinterpret_cast<uintptr_t>(start) % alignment;
    if (before > 0) munmap(start, before);
    munmap(start + before + length, alignment - before);
    start += before;
  }
  // Advice: a system without huge pages refuses it, and nothing is lost.
  madvise(start, length, MADV_HUGEPAGE);
  return start;
}

#endif  // DYNLIB_MAPS_HUGE_MEMORY

}  // namespace

void* AllocateHuge(size_t bytes, size_t alignment) {
  const std::align_val_t aligned = AlignmentOf(bytes, alignment);
#ifdef DYNLIB_MAPS_HUGE_MEMORY
  if (bytes >= kHugePage) return MapHuge(bytes, static_cast<size_t>(aligned));
#endif
  return ::operator new(bytes, aligned);
}

void FreeHuge(void* memory, size_t bytes, size_t alignment) {
#ifdef DYNLIB_MAPS_HUGE_MEMORY
  if (bytes >= kHugePage) {
    munmap(memory, ToSmallPages(bytes));
    return;
  }
#endif
  ::operator delete(memory, AlignmentOf(bytes, alignment));
}

}  // namespace dynlib
