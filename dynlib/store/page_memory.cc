#include "dynlib/store/page_memory.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "dynlib/base/huge_array.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace dynlib::store {
namespace {

constexpr size_t kHugePage = 2 << 20;
constexpr size_t kSmallPage = 4096;

// So that the address sanitizer sees who uses a slot that was given back: all of it but the first
// bytes, which say that it is free.
void Poison([[maybe_unused]] char* slot, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  if (bytes <= sizeof(NodeContent)) return;
  ASAN_POISON_MEMORY_REGION(slot + sizeof(NodeContent), bytes - sizeof(NodeContent));
#endif
}
void Unpoison([[maybe_unused]] char* slot, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(slot, bytes);
#endif
}

// The links of the list of free slots: where a content has its node, and its length is zero; where
// a node has its content.
size_t LinkOffset(const MemorySpan& span) {
  return span.slot_bytes == sizeof(Node) ? 0 : offsetof(NodeContent, node);
}
void SetLink(const MemorySpan& span, char* slot, char* next) {
  if (span.slot_bytes != sizeof(Node)) std::memset(slot, 0, sizeof(NodeContent));
  std::memcpy(slot + LinkOffset(span), &next, sizeof(next));
}
char* Link(const MemorySpan& span, const char* slot) {
  char* next;
  std::memcpy(&next, slot + LinkOffset(span), sizeof(next));
  return next;
}

}  // namespace

struct MemoryRegion {
  explicit MemoryRegion(size_t bytes)
      : bytes(bytes), base(static_cast<char*>(AllocateHuge(bytes, PageMemory::kSpanBytes))) {}
  ~MemoryRegion() {
    Unpoison(base, bytes);
    FreeHuge(base, bytes, PageMemory::kSpanBytes);
  }
  void Touch() {
    for (size_t at = 0; at < bytes; at += kSmallPage) base[at] = 0;
  }

  const size_t bytes;
  char* const base;
  size_t idle = 0;  // spans
  std::vector<std::unique_ptr<MemorySpan>> spans;
};

PageMemory::PageMemory() = default;

PageMemory::~PageMemory() {
  for (MemorySpan* span : content_spans_) {
    if (span->region != nullptr) continue;
    ::operator delete (span->base, std::align_val_t{64});
    delete span;
  }
}

bool PageMemory::WantsSpare(uint64_t resident_max) const {
  return spare_bytes() < uint64_t{spares_goal_.load(std::memory_order_relaxed)} * kHugePage &&
         resident_bytes() + kHugePage <= resident_max;
}

void PageMemory::MakeSpares(uint64_t resident_max) {
  while (WantsSpare(resident_max)) {
    auto region = std::make_unique<MemoryRegion>(kHugePage);
    region->Touch();
    std::lock_guard lock(mutex_);
    spares_.push_back(std::move(region));
    spare_bytes_.fetch_add(kHugePage, std::memory_order_relaxed);
    resident_.fetch_add(kHugePage, std::memory_order_relaxed);
  }
}

// Null: there is none. The goal doubles then; it is halved when less than half of it was needed for
// a while.
std::unique_ptr<MemoryRegion> PageMemory::TakeSpare() {
  constexpr uint32_t kLookAfter = 32;
  const uint32_t goal = spares_goal_.load(std::memory_order_relaxed);
  if (spares_.empty()) {
    spares_goal_.store(std::clamp(2 * goal, kSparesMin, kSparesMax), std::memory_order_relaxed);
    spares_taken_ = 0;
    spares_low_ = kSparesMax;
    return nullptr;
  }
  std::unique_ptr<MemoryRegion> region = std::move(spares_.back());
  spares_.pop_back();
  spare_bytes_.fetch_sub(kHugePage, std::memory_order_relaxed);
  resident_.fetch_sub(kHugePage, std::memory_order_relaxed);
  spares_low_ = std::min(spares_low_, static_cast<uint32_t>(spares_.size()));
  if (++spares_taken_ < kLookAfter) return region;
  if (spares_low_ > goal / 2) spares_goal_.store(goal / 2, std::memory_order_relaxed);
  spares_taken_ = 0;
  spares_low_ = kSparesMax;
  return region;
}

void PageMemory::AddRegion() {
  const bool small = regions_.size() < kSmallRegions;
  if (regions_.size() == kSmallRegions - 2) spares_goal_ = kSparesMin;  // Soon it needs some.
  std::unique_ptr<MemoryRegion> region = small ? nullptr : TakeSpare();
  if (region == nullptr) region = std::make_unique<MemoryRegion>(small ? kSpanBytes : kHugePage);
  for (size_t at = 0; at < region->bytes; at += kSpanBytes) {
    region->spans.push_back(std::make_unique<MemorySpan>());
    region->spans.back()->memory = region->base + at;
    region->spans.back()->region = region.get();
    idle_.push_back(region->spans.back().get());
  }
  region->idle = region->spans.size();
  resident_.fetch_add(region->bytes, std::memory_order_relaxed);
  regions_.push_back(std::move(region));
}

void PageMemory::DropRegion(MemoryRegion* region) {
  std::erase_if(idle_, [&](MemorySpan* span) { return span->region == region; });
  resident_.fetch_sub(region->bytes, std::memory_order_relaxed);
  std::erase_if(regions_, [&](const auto& each) { return each.get() == region; });
}

void PageMemory::Link(MemorySpan* span) {
  MemorySpan*& head = with_free_[span->size_class];
  span->previous = nullptr;
  span->next = head;
  if (head != nullptr) head->previous = span;
  head = span;
  span->has_free = true;
}

void PageMemory::Unlink(MemorySpan* span) {
  if (span->previous != nullptr) span->previous->next = span->next;
  if (span->next != nullptr) span->next->previous = span->previous;
  if (with_free_[span->size_class] == span) with_free_[span->size_class] = span->next;
  span->has_free = false;
}

MemorySpan* PageMemory::NewSpan(size_t size_class, size_t slot_bytes) {
  if (idle_.empty()) AddRegion();
  MemorySpan* span = idle_.back();
  idle_.pop_back();
  --span->region->idle;
  span->size_class = size_class;
  span->slot_bytes = static_cast<uint32_t>(slot_bytes);
  span->slots = static_cast<uint32_t>(kSpanBytes / slot_bytes);
  span->base = span->memory;
  if (size_class == kNodes) {  // which have no room for a pointer to their span
    std::memcpy(span->memory, &span, sizeof(span));
    span->base += Node::kSpanHeaderBytes;
    span->slots = Node::kInSpan;
  }
  span->used = 0;
  span->fresh = 0;
  span->free_slot = nullptr;
  std::vector<MemorySpan*>& list = size_class == kNodes ? node_spans_ : content_spans_;
  span->index = list.size();
  list.push_back(span);
  Link(span);
  return span;
}

MemorySpan* PageMemory::LargeSpan(size_t bytes) {
  auto* span = new MemorySpan;
  span->memory = span->base = static_cast<char*>(::operator new (bytes, std::align_val_t{64}));
  span->slot_bytes = static_cast<uint32_t>(bytes);
  span->slots = span->used = span->fresh = 1;
  span->size_class = kClasses;
  span->index = content_spans_.size();
  content_spans_.push_back(span);
  resident_.fetch_add(bytes, std::memory_order_relaxed);
  return span;
}

void PageMemory::DropSpan(MemorySpan* span) {
  std::vector<MemorySpan*>& list = span->size_class == kNodes ? node_spans_ : content_spans_;
  list[span->index] = list.back();
  list[span->index]->index = span->index;
  list.pop_back();
  if (span->region == nullptr) {
    resident_.fetch_sub(span->slot_bytes, std::memory_order_relaxed);
    ::operator delete (span->base, std::align_val_t{64});
    delete span;
    return;
  }
  Unlink(span);
  idle_.push_back(span);
  MemoryRegion* region = span->region;
  // What was idle before is spare enough.
  if (++region->idle == region->spans.size() && idle_.size() > kHugePage / kSpanBytes) {
    DropRegion(region);
  }
}

char* PageMemory::TakeSlot(size_t size_class, size_t slot_bytes, MemorySpan*& from) {
  MemorySpan* span = with_free_[size_class];
  if (span == nullptr) span = NewSpan(size_class, slot_bytes);
  from = span;
  char* slot = span->free_slot;
  if (slot != nullptr) {
    span->free_slot = store::Link(*span, slot);
    Unpoison(slot, slot_bytes);
  } else {
    slot = span->base + size_t{span->fresh++} * slot_bytes;
  }
  if (++span->used == span->slots) Unlink(span);
  return slot;
}

void PageMemory::ReturnSlot(MemorySpan* span, char* slot) {
  if (span->region == nullptr) return DropSpan(span);
  SetLink(*span, slot, span->free_slot);
  span->free_slot = slot;
  Poison(slot, span->slot_bytes);
  if (!span->has_free) Link(span);
  if (--span->used > 0) return;
  Unpoison(span->memory, kSpanBytes);
  DropSpan(span);
}

NodeContent* PageMemory::NewContent(uint32_t length, uint32_t children) {
  return New(NodeContent::BytesFor(length, children), length, children, /*tailed=*/false);
}

NodeContent* PageMemory::NewLeaf(uint32_t length, size_t tail_bytes) {
  return New(NodeContent::BytesWithTail(length, tail_bytes), length, /*children=*/0,
             /*tailed=*/true);
}

NodeContent* PageMemory::New(size_t bytes, uint32_t length, uint32_t children, bool tailed) {
  std::lock_guard lock(mutex_);
  MemorySpan* span = nullptr;
  char* slot = nullptr;
  if (bytes <= kLargestSlot) {
    const size_t size_class = (bytes + kStep - 1) / kStep;
    slot = TakeSlot(size_class, size_class * kStep, span);
  } else {
    span = LargeSpan((bytes + 63) / 64 * 64);
    slot = span->base;
  }
  used_.fetch_add(span->slot_bytes, std::memory_order_relaxed);
  contents_.fetch_add(1, std::memory_order_relaxed);
  auto* content = new (slot) NodeContent;
  content->length = length;
  content->child_count = children;
  content->span = span;
  if (tailed) {
    content->MakeTail(
        static_cast<uint32_t>(span->slot_bytes - NodeContent::BytesWithTail(length, 0)));
  }
  return content;
}

void PageMemory::Free(NodeContent* content) {
  std::lock_guard lock(mutex_);
  used_.fetch_sub(content->span->slot_bytes, std::memory_order_relaxed);
  contents_.fetch_sub(1, std::memory_order_relaxed);
  ReturnSlot(content->span, reinterpret_cast<char*>(content));
}

char* PageMemory::TakeNode() {
  MemorySpan* span;
  nodes_.fetch_add(1, std::memory_order_relaxed);
  return TakeSlot(kNodes, sizeof(Node), span);
}

Node* PageMemory::NewNode(NodeContent* content) {
  std::lock_guard lock(mutex_);
  return new (TakeNode()) Node(content);
}

void PageMemory::NewNodes(std::span<const OnDisk> pages, Node** out) {
  std::lock_guard lock(mutex_);
  for (const OnDisk& page : pages) *out++ = new (TakeNode()) Node(page.address, page.birth);
}

void PageMemory::Free(Node* node) {
  std::lock_guard lock(mutex_);
  nodes_.fetch_sub(1, std::memory_order_relaxed);
  char* slot = reinterpret_cast<char*>(node);
  MemorySpan* span;
  std::memcpy(&span, slot - reinterpret_cast<uintptr_t>(slot) % kSpanBytes, sizeof(span));
  ReturnSlot(span, slot);
}

}  // namespace dynlib::store
