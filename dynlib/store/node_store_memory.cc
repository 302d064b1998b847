// How NodeStore evicts and frees, and what the end of a pinned version frees.

#include <algorithm>
#include <utility>

#include "dynlib/store/node_store.h"

namespace dynlib::store {
namespace {

// Evicted at once when the budget is exceeded, so that it need not be looked at for each page.
constexpr uint64_t kEvictAtLeast = 64 << 10;
// Looked at in one call at most, so that nobody who takes memory waits for long; the next call goes
// on from there.
constexpr uint64_t kLooksMax = 2048;
// The most that may lie idle between slots before whole spans are emptied.
constexpr uint64_t kIdleBytesMax = 32 << 20;

}  // namespace

VersionPin::~VersionPin() {
  std::vector<Node*> free;
  nodes->versions().Release(*this, free);
  nodes->FreeLater(std::move(free));
}

void NodeStore::Evict() {
  Limbo victims{};
  const uint64_t oldest_borrower = versions_.oldest_borrower();
  const uint64_t used = memory_.used_bytes();
  const uint64_t goal = used - std::min(used, memory_bytes_) + kEvictAtLeast;
  uint64_t freed = 0;
  uint64_t looks = 0;
  const bool scattered =
      memory_.resident_bytes() - memory_.spare_bytes() > used + used / 8 + kIdleBytesMax;
  auto take = [&](NodeContent& content, bool second_chance) {
    const uint64_t bytes = PageMemory::SlotBytes(content);
    if (!TryEvict(content, oldest_borrower, second_chance)) return;
    victims.contents.emplace_back(&content, content.node->retired_at());
    freed += bytes;
  };
  if (scattered) {
    memory_.ShowEmptiest([&](NodeContent& content) {
      take(content, false);
      return true;
    });
  }
  if (freed < goal) {
    memory_.Turn([&](NodeContent& content) {
      take(content, true);
      return ++looks < kLooksMax && freed < goal;
    });
  }
  counters_.pages_evicted.fetch_add(victims.contents.size(), std::memory_order_relaxed);
  if (freed > 0) {
    looks_in_vain_.store(0, std::memory_order_relaxed);
    evict_above_.store(memory_bytes_, std::memory_order_relaxed);
  } else if (looks_in_vain_.fetch_add(looks, std::memory_order_relaxed) + looks >=
             2 * memory_.contents()) {
    // Nothing is to be had: wait until there is more, or a checkpoint has written something.
    looks_in_vain_.store(0, std::memory_order_relaxed);
    evict_above_.store(std::max(used, memory_bytes_) + memory_bytes_ / 64,
                       std::memory_order_relaxed);
  }
  if (!victims.contents.empty()) Put(std::move(victims));
}

// From here on nobody can pin it, and who has claimed it frees it. False: pinned, or claimed.
bool NodeStore::Claim(NodeContent& content) {
  uint32_t pins = 1;
  return content.pins.compare_exchange_strong(pins, NodeContent::kEvicted | 1,
                                              std::memory_order_acq_rel);
}

bool NodeStore::TryEvict(NodeContent& content, uint64_t oldest_borrower, bool second_chance) {
  // Before it is one for the first time, it has no node.
  if (content.pins.load(std::memory_order_acquire) != 1) return false;
  Node* node = content.node;
  if (!node->on_disk()) return false;
  if (second_chance && content.referenced.load(std::memory_order_relaxed)) {
    content.referenced.store(false, std::memory_order_relaxed);
    return false;
  }
  // Neither who reads can pin it now, and bring in what is below it, nor a writer, and replace it.
  if (!Claim(content)) return false;
  bool alone = true;
  if (content.child_count > 0 && content.owns_children.load(std::memory_order_relaxed)) {
    alone = !content.made || node->retired() || node->birth() < oldest_borrower;
    for (Node* child : content.all_children()) {
      if (!alone) break;
      alone = child->content() == nullptr && child->on_disk();
    }
  }
  if (!alone) {
    content.pins.store(1, std::memory_order_release);
    return false;
  }
  node->ClearContent();
  return true;
}

void NodeStore::FreeLater(std::vector<Node*> nodes) {
  if (nodes.empty()) return Reclaim();
  Put({0, std::move(nodes), {}});
}

void NodeStore::DropLater(std::vector<NodeContent*> replaced) {
  if (replaced.empty()) return;
  Limbo limbo{};
  limbo.contents.reserve(replaced.size());
  for (NodeContent* content : replaced) limbo.contents.emplace_back(content, 0);
  Put(std::move(limbo));
}

void NodeStore::Put(Limbo limbo) {
  {
    std::lock_guard lock(limbo_mutex_);
    limbo.tag = epochs_.Advance();
    limbo_.push_back(std::move(limbo));
    limbo_is_empty_.store(false, std::memory_order_relaxed);
  }
  Reclaim();
}

void NodeStore::Reclaim() {
  if (limbo_is_empty_.load(std::memory_order_relaxed)) return;
  std::vector<Limbo> quiet;
  {
    std::lock_guard lock(limbo_mutex_);
    if (limbo_.empty()) return;
    const uint64_t oldest = epochs_.OldestReader();
    while (!limbo_.empty() && limbo_.front().tag < oldest) {
      quiet.push_back(std::move(limbo_.front()));
      limbo_.pop_front();
    }
    limbo_is_empty_.store(limbo_.empty(), std::memory_order_relaxed);
  }
  for (const Limbo& limbo : quiet) {
    for (const auto& [content, retired_at] : limbo.contents) FreeContent(content, retired_at);
    for (Node* node : limbo.nodes) FreeRetired(node);
  }
}

void NodeStore::FreeRetired(Node* node) {
  // Who reads it would hold the node: but the evictor may have been here first, or be here.
  Epochs::Guard guard(epochs_);
  if (NodeContent* content = node->content(); content != nullptr) {
    if (Claim(*content)) {
      if (!node->on_disk()) {
        counters_.dirty_bytes.fetch_sub(DirtyBytes(*content), std::memory_order_relaxed);
      }
      FreeContent(content, node->retired_at());
    }
  }
  if (!node->address().null()) allocator_.Release(node->address().extent());
  {
    std::lock_guard lock(versions_.mutex());
    if (versions_.LeaveToCaptureLocked(node)) return;
  }
  memory_.Free(node);
}

void NodeStore::FreeDead(std::span<Node* const> nodes) {
  for (Node* node : nodes) memory_.Free(node);
}

void NodeStore::FreeContent(NodeContent* content, uint64_t retired_at) {
  if (content->child_count > 0) {
    if (content->owns_children.load(std::memory_order_relaxed)) {
      Epochs::Guard guard(epochs_);  // the evictor may be at what is below
      for (Node* child : content->all_children()) {
        NodeContent* below = child->content();
        if (below != nullptr && Claim(*below)) FreeContent(below, 0);
        memory_.Free(child);
      }
    } else {
      std::lock_guard lock(versions_.mutex());
      versions_.BorrowerGoneLocked(retired_at);
    }
  }
  memory_.Free(content);
}

}  // namespace dynlib::store
