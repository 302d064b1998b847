#include "dynlib/store/versions.h"

#include <algorithm>

#include "dynlib/base/check.h"

namespace dynlib::store {

std::shared_ptr<const VersionPin> Versions::PinLocked(const std::shared_ptr<NodeStore>& nodes,
                                                      const std::shared_ptr<TreeVersions>& tree,
                                                      Node* root, uint64_t position) {
  if (!tree->pins.empty()) {
    VersionPin* last = tree->pins.back();
    // A move of the position alone is a version too, so one version has one position.
    if (last->version == tree->version) {
      if (std::shared_ptr<const VersionPin> shared = last->self_.lock()) return shared;
    }
  }
  auto pin = std::make_shared<VersionPin>(nodes, tree, root, tree->version, position);
  pin->self_ = pin;
  tree->pins.push_back(pin.get());
  if (tree->pins.size() > 1) return pin;
  if (spare_.empty()) {
    pinned_.insert(tree.get());
  } else {
    spare_.value() = tree.get();
    pinned_.insert(std::move(spare_));
  }
  return pin;
}

VersionPin* Versions::YoungestIn(const TreeVersions& tree, uint64_t from, uint64_t to,
                                 const VersionPin* but) {
  auto at = std::lower_bound(
      tree.pins.begin(), tree.pins.end(), to,
      [](const VersionPin* pin, uint64_t version) { return pin->version < version; });
  while (at != tree.pins.begin()) {
    --at;
    if ((*at)->version < from) return nullptr;
    if (*at != but) return *at;
  }
  return nullptr;
}

VersionPin* Versions::HolderOf(const Node& node, const TreeVersions& tree,
                               const VersionPin* but) const {
  VersionPin* holder = YoungestIn(tree, node.birth(), node.retired_at(), but);
  if (holder != nullptr || node.birth() >= tree.created_at) return holder;
  for (const TreeVersions* other : pinned_) {
    if (other == &tree) continue;
    holder = YoungestIn(*other, node.birth(), tree.created_at, but);
    if (holder != nullptr) return holder;
  }
  return nullptr;
}

void Versions::RetireLocked(const std::shared_ptr<TreeVersions>& tree, std::span<Node* const> nodes,
                            uint64_t version, std::vector<Node*>& free) {
  uint64_t borrowers = 0;
  for (Node* node : nodes) {
    DYNLIB_CHECK(!node->retired());
    node->Retire(version);
    if (NodeContent* content = node->content(); content != nullptr) {
      content->owns_children.store(false, std::memory_order_relaxed);
      if (content->child_count > 0) ++borrowers;
    }
    if (node->on_disk()) {
      left_on_disk_.push_back(node->address().extent());
    } else if (capturing_) {
      node->set_listed(true);
      left_unwritten_.push_back(node);
    }
    VersionPin* holder = HolderOf(*node, *tree, nullptr);
    if (holder != nullptr) {
      holder->held_.push_back({node, tree});
    } else {
      free.push_back(node);
    }
  }
  if (borrowers == 0) return;
  borrowers_[version] += borrowers;
  oldest_borrower_.store(borrowers_.begin()->first, std::memory_order_release);
}

void Versions::BorrowerGoneLocked(uint64_t retired_at) {
  auto at = borrowers_.find(retired_at);
  if (--at->second > 0) return;
  borrowers_.erase(at);
  oldest_borrower_.store(borrowers_.empty() ? UINT64_MAX : borrowers_.begin()->first,
                         std::memory_order_release);
}

void Versions::Release(VersionPin& pin, std::vector<Node*>& free) {
  std::lock_guard lock(mutex_);
  std::erase(pin.tree->pins, &pin);
  if (pin.tree->pins.empty()) spare_ = pinned_.extract(pin.tree.get());
  for (VersionPin::Held& held : pin.held_) {
    VersionPin* holder = HolderOf(*held.node, *held.tree, nullptr);
    if (holder != nullptr) {
      holder->held_.push_back(std::move(held));
    } else {
      free.push_back(held.node);
    }
  }
  pin.held_.clear();
}

Versions::Captured Versions::CaptureLocked(uint64_t generation) {
  Captured captured;
  // Those that waited have their address by now, or will never get one: checkpoints do not overlap.
  for (Node* node : left_unwritten_) {
    if (!node->address().null()) left_on_disk_.push_back(node->address().extent());
    node->set_listed(false);
    if (node->dead()) captured.dead.push_back(node);
  }
  left_unwritten_.clear();
  capturing_ = true;
  for (const TreeVersions* tree : pinned_) {
    for (const VersionPin* pin : tree->pins) {
      if (captures_.empty() || pin->version >= captures_.back().second) break;
      if (auto held = pin->self_.lock(); held != nullptr) captured.old.push_back(std::move(held));
    }
  }
  // Older ones say nothing any more when no pin is that old.
  uint64_t oldest_pin = newest_;
  for (const TreeVersions* tree : pinned_) {
    oldest_pin = std::min(oldest_pin, tree->pins.front()->version);
  }
  while (captures_.size() > 1 && captures_[1].second <= oldest_pin) captures_.pop_front();
  if (!captures_.empty() && captures_.back().first == generation) captures_.pop_back();
  captures_.emplace_back(generation, newest_);
  captured.left = std::exchange(left_on_disk_, {});
  return captured;
}

void Versions::CheckpointEnded() {
  std::lock_guard lock(mutex_);
  capturing_ = false;
}

bool Versions::LeaveToCaptureLocked(Node* node) {
  if (!node->listed()) return false;
  node->set_dead();
  return true;
}

uint64_t Versions::BirthOf(uint32_t generation) const {
  std::lock_guard lock(mutex_);
  for (const auto& [before, newest] : captures_) {
    if (PageRef::Generation(before + 1) == generation) return newest + 1;
  }
  return 0;
}

std::vector<PinStats> Versions::Stats() const {
  std::lock_guard lock(mutex_);
  std::vector<PinStats> all;
  for (const TreeVersions* tree : pinned_) {
    for (const VersionPin* pin : tree->pins) {
      PinStats stats{
          tree->tree, pin->version, pin->position, newest_ - pin->version, pin->held_.size(), 0};
      for (const VersionPin::Held& held : pin->held_) {
        if (HolderOf(*held.node, *held.tree, pin) != nullptr) continue;
        // Until it is written, its address is the checkpoint's.
        if (held.node->on_disk()) stats.bytes += held.node->address().extent().count * kUnitBytes;
      }
      all.push_back(stats);
    }
  }
  return all;
}

}  // namespace dynlib::store
