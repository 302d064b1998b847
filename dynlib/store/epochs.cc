#include "dynlib/store/epochs.h"

#include <algorithm>

namespace dynlib::store {

Epochs::~Epochs() {
  Block* block = block_.next.load();
  while (block != nullptr) {
    Block* next = block->next.load();
    delete block;
    block = next;
  }
}

Epochs::Slot& Epochs::OwnSlotElsewhere(const char* self, size_t first) {
  for (Block* block = &block_; block != nullptr;
       block = block->next.load(std::memory_order_acquire)) {
    for (size_t i = 0; i < kSlots; ++i) {
      Slot& slot = block->slots[(first + i) % kSlots];
      if (slot.owner.load(std::memory_order_relaxed) == self) return slot;
    }
  }
  std::lock_guard lock(mutex_);
  Block* block = &block_;
  while (true) {
    for (size_t i = 0; i < kSlots; ++i) {
      Slot& slot = block->slots[(first + i) % kSlots];
      if (slot.owner.load(std::memory_order_relaxed) != nullptr) continue;
      slot.owner.store(self, std::memory_order_relaxed);
      return slot;
    }
    if (block->next.load(std::memory_order_relaxed) == nullptr) {
      block->next.store(new Block, std::memory_order_seq_cst);
    }
    block = block->next.load(std::memory_order_relaxed);
  }
}

uint64_t Epochs::OldestReader() const {
  uint64_t oldest = UINT64_MAX;
  for (const Block* block = &block_; block != nullptr;
       block = block->next.load(std::memory_order_seq_cst)) {
    for (const Slot& slot : block->slots) {
      const uint64_t epoch = slot.epoch.load(std::memory_order_seq_cst);
      if (epoch != 0) oldest = std::min(oldest, epoch);
    }
  }
  return oldest;
}

uint64_t Epochs::reads() const {
  uint64_t reads = 0;
  for (const Block* block = &block_; block != nullptr;
       block = block->next.load(std::memory_order_acquire)) {
    for (const Slot& slot : block->slots) reads += slot.reads.load(std::memory_order_relaxed);
  }
  return reads;
}

}  // namespace dynlib::store
