// Pages in memory: the nodes of copy-on-write trees, and what they say, which comes and goes.
//
// A Node stands for a page of a tree: where it is on disk, since which version it is part of the
// tree, and, while that is in memory, its content. Nodes point to one another through the content
// of branches, and all versions of a tree that hold a page hold the same node, as long as what
// points to it stays in memory.
//
// Ownership. A node is freed when no version that anybody holds has it (see versions.h), with its
// content. Content is also evicted, when memory is short and a checkpoint has written the page. The
// nodes below a page belong to its content: a writer that replaces a branch passes them on to the
// branch that comes in its place, and the old content only borrows them from then on. Evicting
// content that owns its nodes frees them, which is allowed when none of them has content of its own
// and nobody borrows them.
//
// Life of an extent (rule L5): a checkpoint gives a node its address; the writer that replaces the
// node retires it; when the last version lets go of a retired node, its extent is released to the
// allocator, which still keeps it until neither checkpoint on disk holds it.
//
// Internal to the store.
//
// Threads: content may be looked at under an Epochs::Guard, or pinned (ContentRef). The address is
// the checkpoint's alone; anyone's once on_disk() has said so.
#ifndef DYNLIB_STORE_NODE_H_
#define DYNLIB_STORE_NODE_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string_view>
#include <utility>

#include "dynlib/base/prefetch.h"
#include "dynlib/store/leaf_tail.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

class Node;
struct MemorySpan;

enum class ReadMode {
  kMayBlock,    // reads pages from disk as needed, and keeps them in memory
  kMemoryOnly,  // never touches the disk: kUnavailable when a page is not in memory
  kNotKept,     // as kMayBlock, but what was read is not kept: for passes over a whole tree
  // Trusts no page in memory that was written: reads it from disk, against the checksum in its
  // parent, and does not keep it. Only pages that no checkpoint has written yet are read in memory.
  kFromDisk,
};

// What a page says; immutable, but for rows that come behind a leaf (leaf_tail.h). One piece of
// memory: this, the page's bytes, the pointers to the nodes below, or the tail. So a look-up that
// has the address of the content meets the slots of the page with its first or second cache miss,
// and the header of the page shares a line with this.
struct NodeContent {
  static constexpr uint32_t kEvicted = uint32_t{1} << 31;

  // 1 for the node that has it, and one for each ContentRef; kEvicted is set for good when it is
  // about to be freed. 0: not the content of a node yet.
  std::atomic<uint32_t> pins{0};
  uint32_t length = 0;  // of the page; 0: this memory is free
  uint32_t child_count = 0;
  std::atomic<bool> referenced{true};  // since the evictor came by
  std::atomic<bool> owns_children{true};
  bool made = false;    // by a writer, which may have taken its nodes over from another
  bool tailed = false;  // there is room for rows behind the page of a leaf
  Node* node = nullptr;
  MemorySpan* span = nullptr;

  static size_t BytesFor(uint32_t length, uint32_t children) {
    return sizeof(NodeContent) + (length + 7) / 8 * 8 + sizeof(Node*) * children;
  }
  // Of a leaf with a tail for so many bytes of rows.
  static size_t BytesWithTail(uint32_t length, size_t tail_bytes) {
    return TailOffset(length) + sizeof(LeafTail) + tail_bytes;
  }
  char* data() { return reinterpret_cast<char*>(this + 1); }
  const char* data() const { return reinterpret_cast<const char*>(this + 1); }
  std::string_view bytes() const { return {data(), length}; }
  PageView view() const { return PageView(data()); }

  // A branch's subtrees, a leaf's overflow values.
  Node** children() { return reinterpret_cast<Node**>(data() + (length + 7) / 8 * 8); }
  Node* const* children() const {
    return reinterpret_cast<Node* const*>(data() + (length + 7) / 8 * 8);
  }
  std::span<Node* const> all_children() const { return {children(), child_count}; }
  Node* child(uint32_t i) const { return children()[i]; }

  // If `tailed`.
  LeafTail& tail() { return *reinterpret_cast<LeafTail*>(TailAddress()); }
  const LeafTail& tail() const { return *reinterpret_cast<const LeafTail*>(TailAddress()); }
  // Behind the page; 0: the page says all.
  uint32_t tail_rows() const { return tailed ? tail().rows() : 0; }
  void MakeTail(uint32_t capacity) {
    tailed = true;
    new (TailAddress()) LeafTail(capacity, length);
  }
  static size_t TailOffset(uint32_t length) {
    return (sizeof(NodeContent) + length + kTailAlignment - 1) / kTailAlignment * kTailAlignment;
  }

  // For the evictor; written once in a while only, as other threads read the line.
  void Touch() {
    if (!referenced.load(std::memory_order_relaxed)) {
      referenced.store(true, std::memory_order_relaxed);
    }
  }
  // False: it is being evicted, and counts as gone.
  bool TryPin() {
    uint32_t count = pins.load(std::memory_order_relaxed);
    while ((count & kEvicted) == 0) {
      if (pins.compare_exchange_weak(count, count + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

 private:
  static constexpr size_t kTailAlignment = 64;  // as content has
  char* TailAddress() const {
    return const_cast<char*>(reinterpret_cast<const char*>(this)) + TailOffset(length);
  }
};
static_assert(sizeof(NodeContent) == 32);

// Keeps content in memory. For those who hold a version in which its node is, or write the tree.
class ContentRef {
 public:
  ContentRef() = default;
  // Takes over a pin.
  explicit ContentRef(NodeContent* pinned) : content_(pinned) {}
  ContentRef(ContentRef&& other) noexcept : content_(std::exchange(other.content_, nullptr)) {}
  ContentRef& operator=(ContentRef&& other) noexcept {
    std::swap(content_, other.content_);
    return *this;
  }
  ~ContentRef() {
    if (content_ != nullptr) content_->pins.fetch_sub(1, std::memory_order_release);
  }

  const NodeContent* get() const { return content_; }
  const NodeContent* operator->() const { return content_; }
  const NodeContent& operator*() const { return *content_; }
  explicit operator bool() const { return content_ != nullptr; }

 private:
  NodeContent* content_ = nullptr;
};

// What is said of a node apart from its content.
struct NodeFacts {
  PageRef address;
  uint64_t birth = 0;
  std::atomic<uint64_t> retired_at{0};
  std::atomic<bool> on_disk{false};
  bool listed = false;
  bool dead = false;
};

// Eight bytes, the pointer to the content, and beside it how many lines of the processor's cache
// the content's header and slots take, so that a search can ask for them all at once; the rest lies
// elsewhere in the same span of memory (see page_memory.h), at a place that follows from the
// address. So the nodes of a gigabyte of pages fit into the processor's cache, and the way down a
// tree seldom misses it for their sake.
class Node {
 public:
  // A page that the writer made; the version of its birth follows when it is published.
  explicit Node(NodeContent* content) : content_(Tagged(content)) {
    new (&facts()) NodeFacts;
    content->node = this;
    content->made = true;
    content->pins.store(1, std::memory_order_release);
  }
  // A page on disk, which was not part of the tree before version `birth`.
  Node(const PageRef& address, uint64_t birth) {
    new (&facts()) NodeFacts{.address = address, .birth = birth, .on_disk = true};
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Null while it is not in memory. Under a guard.
  NodeContent* content() const {
    return reinterpret_cast<NodeContent*>(content_.load(std::memory_order_seq_cst) & ~kLinesMask);
  }
  // The same, of a page that is hardly in the processor's cache. The misses of a search for a slot
  // come together then, and not one after the other: reads of 100-byte values are 25 % faster.
  NodeContent* content_with_slots() const {
    const uintptr_t tagged = content_.load(std::memory_order_seq_cst);
    auto* content = reinterpret_cast<NodeContent*>(tagged & ~kLinesMask);
    const char* line = reinterpret_cast<const char*>(content);
    for (uintptr_t lines = tagged & kLinesMask; lines > 0; --lines, line += kLineBytes) {
      Prefetch(line);
    }
    return content;
  }
  // False: it has some.
  bool Install(NodeContent* content) {
    uintptr_t there = 0;
    return content_.compare_exchange_strong(there, Tagged(content), std::memory_order_seq_cst);
  }
  // By who has claimed what is there.
  void ReplaceContent(NodeContent* content) {
    content_.store(Tagged(content), std::memory_order_seq_cst);
  }
  void ClearContent() { content_.store(0, std::memory_order_seq_cst); }

  // Null until a checkpoint wrote the page.
  const PageRef& address() const { return facts().address; }
  void set_address(const PageRef& address) { facts().address = address; }
  // The write that gave the page its address has succeeded: the address no longer changes.
  void SetOnDisk() { facts().on_disk.store(true, std::memory_order_release); }
  bool on_disk() const { return facts().on_disk.load(std::memory_order_acquire); }

  // It is part of the versions [birth, retired_at) of its tree; a page that was read from disk may
  // be younger than `birth` says.
  uint64_t birth() const { return facts().birth; }
  void set_birth(uint64_t birth) { facts().birth = birth; }
  uint64_t retired_at() const { return facts().retired_at.load(std::memory_order_relaxed); }
  bool retired() const { return retired_at() != 0; }
  void Retire(uint64_t version) { facts().retired_at.store(version, std::memory_order_relaxed); }

  // Of who keeps the lists of retired nodes: it waits in one for the next checkpoint, and it is
  // freed but for that.
  bool listed() const { return facts().listed; }
  void set_listed(bool listed) { facts().listed = listed; }
  bool dead() const { return facts().dead; }
  void set_dead() { facts().dead = true; }

  // A span of nodes: at a multiple of its size; a header; the nodes; their facts.
  static constexpr size_t kSpanBytes = 256 << 10;
  static constexpr size_t kSpanHeaderBytes = 64;
  static constexpr size_t kInSpan = (kSpanBytes - kSpanHeaderBytes) / (8 + sizeof(NodeFacts));

 private:
  NodeFacts& facts() const {
    const uintptr_t self = reinterpret_cast<uintptr_t>(this);
    const uintptr_t span = self & ~(kSpanBytes - 1);
    const size_t index = (self - span - kSpanHeaderBytes) / 8;
    return reinterpret_cast<NodeFacts*>(span + kSpanHeaderBytes + 8 * kInSpan)[index];
  }

  static constexpr size_t kLineBytes = 64;
  // Content lies at multiples of this.
  static constexpr uintptr_t kLinesMask = kLineBytes - 1;

  static uintptr_t Tagged(const NodeContent* content) {
    constexpr size_t kLinesMax = 12;  // more than fit into a processor's queue of misses
    const size_t slots =
        content->view().is_tree_page() ? kSlotBytes * size_t{content->view().count()} : 0;
    const size_t bytes = sizeof(NodeContent) + kPageHeaderBytes + slots;
    const size_t lines = (bytes + kLineBytes - 1) / kLineBytes;
    return reinterpret_cast<uintptr_t>(content) | std::min(lines, kLinesMax);
  }

  std::atomic<uintptr_t> content_{0};
};
static_assert(sizeof(Node) == 8);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_H_
