#include "dynlib/base/huge_array.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dynlib {
namespace {

constexpr size_t kHugePage = 2 << 20;

std::align_val_t AlignmentOf(size_t bytes, size_t alignment) {
  return std::align_val_t{bytes >= kHugePage ? std::max(kHugePage, alignment) : alignment};
}

}  // namespace

void* AllocateHuge(size_t bytes, size_t alignment) {
  void* memory = ::operator new(bytes, AlignmentOf(bytes, alignment));
#ifdef __linux__
  // Advice: a system without huge pages refuses it, and nothing is lost. Whole pages only, so that
  // none of somebody else's memory is meant.
  if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return memory;
}

void FreeHuge(void* memory, size_t bytes, size_t alignment) {
  ::operator delete(memory, AlignmentOf(bytes, alignment));
}

}  // namespace dynlib
