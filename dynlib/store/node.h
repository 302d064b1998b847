// Pages in memory: reference-counted nodes of copy-on-write trees, read from disk when first
// touched.
//
// A node is made once for each page: by the writer with its content, or by the parent's content,
// when that is read, as a mere reference whose content follows on demand. All versions of a tree
// that hold a page hold the same node, so the number of references to it says whether any version
// in memory still needs the page's extent.
//
// Life of an extent (rule L5): a checkpoint gives a node its address; the writer that replaces the
// node retires it; when the last version lets go of a retired node, its extent is released to the
// allocator, which still keeps it until neither checkpoint on disk holds it.
//
// Internal to the store.
//
// Threads: references and content from any thread. The address is the checkpoint's alone, and the
// destructor's; anyone's once on_disk() has said so.
#ifndef DYNLIB_STORE_NODE_H_
#define DYNLIB_STORE_NODE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "dynlib/store/page.h"

namespace dynlib::store {

class Node;
class NodeStore;

enum class ReadMode {
  kMayBlock,    // reads pages from disk as needed, and keeps them in memory
  kMemoryOnly,  // never touches the disk: kUnavailable when a page is not in memory
  kNotKept,     // as kMayBlock, but what was read is not kept: for passes over a whole tree
  // Trusts no page in memory that was written: reads it from disk, against the checksum in its
  // parent, and does not keep it. Only pages that no checkpoint has written yet are read in memory.
  kFromDisk,
};

// Shared ownership of a Node.
class NodeRef {
 public:
  NodeRef() = default;
  NodeRef(std::nullptr_t) {}
  explicit NodeRef(Node* node);
  NodeRef(const NodeRef& other);
  NodeRef(NodeRef&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  NodeRef& operator=(NodeRef other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~NodeRef();

  Node* get() const { return node_; }
  Node* operator->() const { return node_; }
  Node& operator*() const { return *node_; }
  friend bool operator==(const NodeRef& a, const NodeRef& b) { return a.node_ == b.node_; }
  friend bool operator==(const NodeRef& a, std::nullptr_t) { return a.node_ == nullptr; }

 private:
  Node* node_ = nullptr;
};

// What a page says; immutable.
struct NodeContent {
  PageBytes bytes;
  std::vector<NodeRef> children;  // a branch's subtrees, a leaf's overflow values

  PageView view() const { return PageView(bytes.data.get()); }
};

class Node {
 public:
  // A page that the writer made. `epoch` is the page file's count of captures when it began.
  Node(NodeStore* nodes, uint64_t epoch, NodeContent* content)
      : nodes_(nodes), epoch_(epoch), content_(content) {}
  // A page on disk.
  Node(NodeStore* nodes, const PageRef& address)
      : nodes_(nodes), address_(address), on_disk_(true) {}
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Null until it was read.
  const NodeContent* content() const { return content_.load(std::memory_order_acquire); }
  // Takes ownership, unless another thread was faster; returns the one that counts.
  const NodeContent* SetContent(NodeContent* content);

  uint64_t epoch() const { return epoch_; }
  // Null until a checkpoint wrote the page.
  const PageRef& address() const { return address_; }
  void set_address(const PageRef& address) { address_ = address; }
  // The write that gave the page its address has succeeded: the address no longer changes.
  void SetOnDisk() { on_disk_.store(true, std::memory_order_release); }
  bool on_disk() const { return on_disk_.load(std::memory_order_acquire); }
  // Of the page, read or not.
  uint32_t length() const {
    const NodeContent* there = content();
    return there != nullptr ? there->bytes.length : address_.length;
  }

  // The page has left the newest version of its tree for good.
  void Retire() { retired_.store(true, std::memory_order_relaxed); }

 private:
  friend class NodeRef;

  NodeStore* const nodes_;
  const uint64_t epoch_ = 0;
  PageRef address_;
  std::atomic<NodeContent*> content_{nullptr};
  std::atomic<uint32_t> references_{0};
  std::atomic<bool> retired_{false};
  std::atomic<bool> on_disk_{false};
};

inline NodeRef::NodeRef(Node* node) : node_(node) {
  if (node_ != nullptr) node_->references_.fetch_add(1, std::memory_order_relaxed);
}
inline NodeRef::NodeRef(const NodeRef& other) : NodeRef(other.node_) {}
inline NodeRef::~NodeRef() {
  if (node_ != nullptr && node_->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    delete node_;
  }
}

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_H_
