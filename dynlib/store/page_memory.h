// The memory of pages: slabs of equal slots, in pieces that ask for huge pages.
//
// A look-up in a tree of gigabytes misses the processor's caches a few times, and with small pages
// it misses the page table cache each time too; that costs as much again. Slots come in steps of
// 256 bytes (2 % of a full page are lost on average), in spans of 256 KiB that hold one size
// each; eight spans make a huge page. What is larger than 16 KiB has a span of its own size.
//
// Beyond what is in use there are: free slots in spans of a size that is less wanted than before,
// up to a span for each size otherwise; the spans of a huge page that is in use elsewhere; one
// spare huge page. resident_bytes() has all of that, and the evictor asks for the emptiest span
// when it is too much.
//
// The first touch of a huge page takes 0.1 ms, for its zeros, and 5 ms on a virtual machine whose
// host has yet to find it. So that no commit waits for that, a task of the owner's keeps some ahead
// (MakeSpares), which were touched: kSparesMin before the first huge page is needed, then as many
// as the growth asks for, up to kSparesMax. Without one, or when it falls behind, who needs memory
// touches it himself.
//
// Internal to the store. Threads: any.
#ifndef DYNLIB_STORE_PAGE_MEMORY_H_
#define DYNLIB_STORE_PAGE_MEMORY_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "dynlib/store/node.h"

namespace dynlib::store {

struct MemoryRegion;

// Slots of one size.
struct MemorySpan {
  char* memory = nullptr;
  char* base = nullptr;  // of its first slot
  uint32_t slot_bytes = 0;
  uint32_t slots = 0;
  uint32_t used = 0;
  uint32_t fresh = 0;         // slots from here on were never given out
  char* free_slot = nullptr;  // a list of those that came back
  size_t size_class = 0;
  size_t index = 0;                // in the list of all content spans
  MemorySpan* previous = nullptr;  // in the list of those of its class with a free slot
  MemorySpan* next = nullptr;
  bool has_free = false;           // it is in that list
  MemoryRegion* region = nullptr;  // null: it has memory of its own
};

class PageMemory {
 public:
  PageMemory();
  ~PageMemory();
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  // For a page of that length, not written; not yet the content of a node.
  NodeContent* NewContent(uint32_t length, uint32_t children);
  // The same for a leaf without children, with a tail for so many bytes of rows, or more.
  NodeContent* NewLeaf(uint32_t length, size_t tail_bytes);
  void Free(NodeContent* content);

  Node* NewNode(NodeContent* content);
  // One for each address.
  struct OnDisk {
    PageRef address;
    uint64_t birth;
  };
  void NewNodes(std::span<const OnDisk> pages, Node** out);
  void Free(Node* node);

  // Slots in use, and all that was taken from the system.
  uint64_t used_bytes() const {
    return content_bytes() +
           nodes_.load(std::memory_order_relaxed) * (sizeof(Node) + sizeof(NodeFacts));
  }
  // Of used_bytes(), what is not nodes.
  uint64_t content_bytes() const { return used_.load(std::memory_order_relaxed); }
  uint64_t contents() const { return contents_.load(std::memory_order_relaxed); }
  uint64_t resident_bytes() const { return resident_.load(std::memory_order_relaxed); }
  // Of resident_bytes(), huge pages ahead of need.
  uint64_t spare_bytes() const { return spare_bytes_.load(std::memory_order_relaxed); }

  // There are fewer spares than the growth asks for, and room for one below `resident_max`.
  bool WantsSpare(uint64_t resident_max) const;
  // Makes them; one thread at a time.
  void MakeSpares(uint64_t resident_max);
  static size_t SlotBytes(const NodeContent& content) { return content.span->slot_bytes; }

  // Shows `visit` contents, one after the other, and round again, beginning where the last call
  // ended, until it says false or has seen them all twice. No memory is given or taken meanwhile.
  template <typename F>
  void Turn(F visit);
  // The contents of the span with the largest share of free slots.
  template <typename F>
  void ShowEmptiest(F visit);

  static constexpr size_t kSpanBytes = Node::kSpanBytes;
  static constexpr uint32_t kSparesMin = 4;  // huge pages; of what begins to grow
  static constexpr uint32_t kSparesMax = 8;

 private:
  static constexpr size_t kStep = 256;
  static constexpr size_t kLargestSlot = 16 << 10;
  static constexpr size_t kNodes =
      0;  // the class of nodes; then that of kStep bytes, 2 * kStep ...
  static constexpr size_t kClasses = kLargestSlot / kStep + 1;
  static constexpr size_t kSmallRegions = 8;  // single spans, before whole huge pages are taken

  NodeContent* New(size_t bytes, uint32_t length, uint32_t children, bool tailed);
  char* TakeNode();
  char* TakeSlot(size_t size_class, size_t slot_bytes, MemorySpan*& from);
  void ReturnSlot(MemorySpan* span, char* slot);
  MemorySpan* NewSpan(size_t size_class, size_t slot_bytes);
  MemorySpan* LargeSpan(size_t bytes);
  void DropSpan(MemorySpan* span);
  void AddRegion();
  std::unique_ptr<MemoryRegion> TakeSpare();
  void DropRegion(MemoryRegion* region);
  void Link(MemorySpan* span);
  void Unlink(MemorySpan* span);
  template <typename F>
  bool ShowSpan(MemorySpan* span, uint32_t from, F visit);

  mutable std::mutex mutex_;
  std::array<MemorySpan*, kClasses> with_free_{};
  std::vector<MemorySpan*> content_spans_;
  std::vector<MemorySpan*> node_spans_;
  std::vector<MemorySpan*> idle_;  // spans of regions
  std::vector<std::unique_ptr<MemoryRegion>> regions_;
  std::vector<std::unique_ptr<MemoryRegion>> spares_;
  uint32_t spares_taken_ = 0;  // since the goal was last looked at
  uint32_t spares_low_ = 0;    // the fewest that there were since
  std::atomic<uint32_t> spares_goal_{0};
  std::atomic<uint64_t> spare_bytes_{0};
  size_t hand_span_ = 0;
  uint32_t hand_slot_ = 0;
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> nodes_{0};
  std::atomic<uint64_t> contents_{0};
  std::atomic<uint64_t> resident_{0};
};

// False when `visit` said so; the hand then stands behind that slot.
template <typename F>
bool PageMemory::ShowSpan(MemorySpan* span, uint32_t from, F visit) {
  for (uint32_t i = from; i < span->fresh; ++i) {
    auto* content = reinterpret_cast<NodeContent*>(span->base + size_t{i} * span->slot_bytes);
    if (content->length == 0) continue;
    if (!visit(*content)) {
      hand_slot_ = i + 1;
      return false;
    }
  }
  return true;
}

template <typename F>
void PageMemory::Turn(F visit) {
  std::lock_guard lock(mutex_);
  for (size_t left = 2 * content_spans_.size() + 1; left > 0 && !content_spans_.empty(); --left) {
    if (hand_span_ >= content_spans_.size()) {
      hand_span_ = 0;
      hand_slot_ = 0;
    }
    if (!ShowSpan(content_spans_[hand_span_], hand_slot_, visit)) return;
    ++hand_span_;
    hand_slot_ = 0;
  }
}

template <typename F>
void PageMemory::ShowEmptiest(F visit) {
  std::lock_guard lock(mutex_);
  MemorySpan* emptiest = nullptr;
  for (MemorySpan* span : content_spans_) {
    if (span->slots > 1 && (emptiest == nullptr || uint64_t{span->used} * emptiest->slots <
                                                       uint64_t{emptiest->used} * span->slots)) {
      emptiest = span;
    }
  }
  const uint32_t hand = hand_slot_;
  if (emptiest != nullptr) ShowSpan(emptiest, 0, visit);
  hand_slot_ = hand;
}

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_MEMORY_H_
