// What a Store says of itself, and who is to blame when it grows.

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

namespace {

// By version, what the file keeps for it alone.
using Kept = std::map<std::pair<TreeId, uint64_t>, uint64_t>;

uint64_t KeptFor(const std::vector<StoreSnapshot::TreeVersion>& trees, const Kept& kept) {
  uint64_t bytes = 0;
  for (const StoreSnapshot::TreeVersion& tree : trees) {
    const auto at = kept.find(tree.snapshot.version());
    if (at != kept.end()) bytes += at->second;
  }
  return bytes;
}

}  // namespace

Store::Stats Store::Impl::GetStats() const {
  Stats stats;
  stats.pages = pages_->stats();
  Kept kept;
  for (const PinStats& pin : stats.pages.held) kept[{pin.tree, pin.version}] = pin.bytes;
  stats.position = catalogue_->position();
  stats.checkpointed = catalogue_->durable_position();
  if (const std::shared_ptr<NodeLog> log = Log()) {
    stats.log = log->GetStats();
    stats.log_bytes = log->RetainedBytes(kStoreStream);
  }
  {
    std::lock_guard lock(mutex_);
    stats.pending_bytes = pending_bytes_;
    stats.writes = writes_;
    stats.groups = groups_;
    stats.conditions_failed = conditions_failed_;
    if (log_full_) {
      stats.culprits.push_back(Cat("the log takes no more: it holds ", stats.log_bytes,
                                   " bytes since position ", catalogue_->fallback_position(),
                                   ", and there is no room for another segment"));
    }
    if (!last_checkpoint_.ok()) {
      stats.culprits.push_back(
          Cat("the log is held back since position ", stats.checkpointed,
              ": the last checkpoint failed: ", ToStd(last_checkpoint_.message())));
    }
  }
  stats.trees.push_back({"", default_tree_->position()});
  {
    std::lock_guard lock(trees_mutex_);
    for (const auto& [name, entry] : trees_) stats.trees.push_back({name, entry->tree->position()});
    for (const auto& pin : snapshots_) {
      const auto held = pin.lock();
      if (held == nullptr) continue;
      stats.snapshots.push_back({held->label, held->position, KeptFor(held->trees, kept)});
    }
  }
  BlameSnapshots(stats);
  return stats;
}

void Store::Impl::BlameSnapshots(Stats& stats) const {
  // The checkpoint holds the same as what is not older.
  const auto old = [&](uint64_t position) { return position < stats.checkpointed; };
  uint64_t held = 0;
  const PinStats* worst = nullptr;
  for (const PinStats& pin : stats.pages.held) {
    held += pin.bytes;
    if (!old(pin.position) || pin.bytes == 0) continue;
    if (worst == nullptr || pin.bytes > worst->bytes) worst = &pin;
  }
  // Of those that keep the same, none keeps it alone: then the oldest.
  const Stats::PinnedSnapshot* blamed = nullptr;
  for (const Stats::PinnedSnapshot& snapshot : stats.snapshots) {
    if (!old(snapshot.position)) continue;
    if (blamed == nullptr || snapshot.kept_bytes > blamed->kept_bytes) blamed = &snapshot;
  }
  if (blamed != nullptr) {
    stats.culprits.push_back(
        Cat("the file keeps what ", stats.position - blamed->position,
            " writes have replaced for snapshot ",
            Escape(blamed->label.empty() ? std::string_view("(no label)") : blamed->label),
            ", taken at ", blamed->position, ", one of ", stats.snapshots.size(), ": ",
            blamed->kept_bytes, " bytes for it alone; of ", stats.pages.used_bytes,
            " bytes in use snapshots alone keep ", held));
  } else if (worst != nullptr) {
    stats.culprits.push_back(Cat("of ", stats.pages.used_bytes,
                                 " bytes in use snapshots of one tree and cursors alone keep ",
                                 held, "; ", worst->bytes, " of them for the version ",
                                 worst->position, " of tree ", Escape(NameOf(worst->tree))));
  }
}

std::string Store::Impl::NameOf(TreeId tree) const {
  if (tree == kDefaultTree) return "(default)";
  std::lock_guard lock(trees_mutex_);
  for (const auto& [name, entry] : trees_) {
    if (entry->id == tree) return name;
  }
  return "(dropped)";
}

}  // namespace dynlib::store
