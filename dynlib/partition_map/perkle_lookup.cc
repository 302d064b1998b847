// The hot path: floors, one at a time and several side by side.
#include <algorithm>
#include <array>

#include "dynlib/base/check.h"
#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

using internal::LeafBlock;
using internal::LeafSlot;
using internal::MatchBranch;
using internal::Nibbles;
using internal::PerkleNode;
using internal::SlotOf;

namespace {

constexpr size_t kCacheLine = 64;

// Of a run, at most; nearly all are shorter. The processor fetches the lines side by side.
constexpr size_t kRunBytes = 8 * kCacheLine;

// Inlined always: GCC 12 takes a function that only prefetches for one without effect, and drops
// calls of it.
[[gnu::always_inline]] inline void Prefetch(const void* at, size_t bytes) {
  const auto* from = static_cast<const char*>(at);
  for (size_t offset = 0; offset < bytes; offset += kCacheLine) __builtin_prefetch(from + offset);
}

[[gnu::always_inline]] inline void PrefetchRun(const LeafBlock::Run& run) {
  if (run.begin == nullptr) return;
  Prefetch(run.begin, std::min(kRunBytes, static_cast<size_t>(run.end - run.begin)));
}

// A leaf whose header is not in the cache yet: its run is about as far into the block as the key is
// into the slots that the leaf covers, if keys are spread evenly there, as those of random tables
// are. Fetching both side by side saves the time of one access to memory of the three that a
// look-up takes (0.75 of the time of a look-up in a million entries). A wrong guess costs a few
// lines.
constexpr size_t kGuessBytes = 5 * kCacheLine;  // to either side

[[gnu::always_inline]] inline void PrefetchLeaf(const PerkleNode& branch, int index, uint32_t slot,
                                                std::string_view key) {
  const size_t size = branch.child_size(index);
  const auto* leaf = reinterpret_cast<const char*>(branch.child(index));
  Prefetch(leaf, 2 * kCacheLine);
  if (slot == 0 || Nibbles(key) < branch.end + 3u) return;
  const uint32_t later = branch.starts >> slot >> 1;
  const auto first =
      31 - static_cast<uint32_t>(std::countl_zero(branch.starts & ((2u << slot) - 1)));
  const uint32_t after =
      later == 0 ? internal::kSlots : slot + 1 + static_cast<uint32_t>(std::countr_zero(later));
  const size_t place = (size_t{slot - first} << 8) +
                       (internal::NibbleAt(key, branch.end + 1) << 4) +
                       internal::NibbleAt(key, branch.end + 2);
  const size_t guess = size * place / (size_t{after - first} << 8);
  const size_t from = std::max(2 * kCacheLine, guess - std::min(guess, kGuessBytes));
  const size_t to = std::min(guess + kGuessBytes + kCacheLine, size);
  if (from < to) Prefetch(leaf + from, to - from);
}

// A look-up on its way down.
struct Descent {
  std::string_view key;
  const PerkleNode* node;
  uint32_t start = 0;
  // The last child before the way, which has the floor when the leaf at its end has none.
  const PerkleNode* before = nullptr;
  // All of `node` is less than the key: its last entry is the floor.
  bool last = false;

  // From a branch to a child; null when all keys are greater.
  void Step() {
    if (last) {
      node = node->child(static_cast<int>(node->child_count()) - 1);
      return;
    }
    // With no nibbles between, the parent has compared all.
    if (node->end != start + 1 || start == 0) {
      const uint32_t matched = MatchBranch(key, Nibbles(key), *node, start);
      if (matched < node->end) return Leave(matched);
    }
    const uint32_t slot = SlotOf(key, node->end);
    const int index = node->ChildAt(slot);
    if (index < 0) {
      node = nullptr;
      return;
    }
    if (index > 0) before = node->child(index - 1);
    const bool within = node->StartsAt(slot);
    if (node->child_size(index) != 0) {
      PrefetchLeaf(*node, index, slot, key);
    } else {
      Prefetch(node->child(index), 2 * kCacheLine);
    }
    start = node->end;
    node = node->child(index);
    // A branch has one slot: this one is before the key's. Of leaves the search finds it out.
    last = !within && !node->is_leaf();
  }

  // The key parts from all keys of the branch at the same nibble.
  void Leave(uint32_t matched) {
    const bool less =
        matched == Nibbles(key) || internal::NibbleAt(key, matched) <
                                       internal::NibbleAt(node->bytes(), matched - start / 2 * 2);
    if (less) {
      node = nullptr;
    } else {
      last = true;
    }
  }
};

}  // namespace

void Perkle::Hit::ReadKey(std::string& key) const {
  DYNLIB_CHECK(found());
  node_->block().ReadKey(slot_, key);
}

// What is found in a leaf, or else the last entry before it.
void Perkle::Take(const internal::PerkleNode* leaf, const LeafBlock& block,
                  const LeafBlock::Found& found, Hit& hit) {
  hit.node_ = leaf;
  hit.slot_ = found.slot;
  hit.rest_ = block.ValueRest(found.slot);
  hit.matched_ = found.matched;
  hit.exact_ = found.exact;
}

void Perkle::TakeLast(const internal::PerkleNode* node, std::string_view key, Hit& hit) {
  if (node == nullptr) {
    hit = {};
    return;
  }
  while (!node->is_leaf()) node = node->child(static_cast<int>(node->child_count()) - 1);
  const LeafBlock block = node->block();
  LeafBlock::Found found{.slot = block.Last()};
  std::string own;
  block.ReadKey(found.slot, own);
  found.matched = internal::CommonNibbles(own, key) / 2;
  Take(node, block, found, hit);
}

Perkle::Hit Perkle::FloorHit(std::string_view key) const {
  Hit hit;
  if (empty()) return hit;
  Descent descent{.key = key, .node = root_.node.get()};
  while (descent.node != nullptr && !descent.node->is_leaf()) descent.Step();
  if (descent.node != nullptr && descent.last) {
    TakeLast(descent.node, key, hit);
    return hit;
  }
  if (descent.node != nullptr) {
    const LeafBlock block = descent.node->block();
    const LeafBlock::Run run = block.FindRun(key);
    PrefetchRun(run);
    LeafBlock::Found found;
    if (block.FloorInRun(key, run, found)) {
      Take(descent.node, block, found, hit);
      return hit;
    }
  }
  TakeLast(descent.before, key, hit);
  return hit;
}

void Perkle::FloorHits(std::span<const std::string_view> keys, std::span<Hit> hits) const {
  constexpr size_t kLanes = 32;
  DYNLIB_CHECK(hits.size() == keys.size());
  std::array<Descent, kLanes> lanes;
  std::array<LeafBlock::Run, kLanes> runs;
  for (size_t from = 0; from < keys.size(); from += kLanes) {
    const size_t count = std::min(kLanes, keys.size() - from);
    if (empty()) {
      std::fill_n(hits.begin() + static_cast<std::ptrdiff_t>(from), count, Hit());
      continue;
    }
    for (size_t i = 0; i < count; ++i) {
      lanes[i] = {.key = keys[from + i], .node = root_.node.get()};
    }
    for (bool all_down = false; !all_down;) {
      all_down = true;
      for (size_t i = 0; i < count; ++i) {
        Descent& lane = lanes[i];
        if (lane.node == nullptr || lane.node->is_leaf()) continue;
        lane.Step();
        all_down = false;
      }
    }
    for (size_t i = 0; i < count; ++i) {
      if (lanes[i].node == nullptr || lanes[i].last) continue;
      runs[i] = lanes[i].node->block().FindRun(lanes[i].key);
      PrefetchRun(runs[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      const Descent& lane = lanes[i];
      Hit& hit = hits[from + i];
      if (lane.node != nullptr && lane.last) {
        TakeLast(lane.node, lane.key, hit);
        continue;
      }
      LeafBlock::Found found;
      if (lane.node != nullptr) {
        const LeafBlock block = lane.node->block();
        if (block.FloorInRun(lane.key, runs[i], found)) {
          Take(lane.node, block, found, hit);
          continue;
        }
      }
      TakeLast(lane.before, lane.key, hit);
    }
  }
}

}  // namespace dynlib::partition_map
