// Which versions of the trees of a file somebody holds, and what is kept for their sake.
//
// Each publication takes the next number of one count for the whole file. A node belongs to the
// versions [birth, retired_at) of its tree. When it is retired, it goes to the youngest pin in that
// stretch, and when that pin is let go, to another; when there is none, it is freed. (So each node
// is looked at once for each pin that held it, as with the dead lists of ZFS, and a snapshot costs
// nothing that grows with the tree.)
//
// Splits and joins pass nodes from tree to tree: those that are older than their tree may be in
// versions of any other from before, so all pins of the file count for them.
//
// Internal to the store. Threads: any; `mutex()` is held for list operations alone.
#ifndef DYNLIB_STORE_VERSIONS_H_
#define DYNLIB_STORE_VERSIONS_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "dynlib/store/node.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

class NodeStore;
class VersionPin;

// What the versions of one tree have in common. Outlives the tree while it has pins.
struct TreeVersions {
  TreeVersions(TreeId tree, uint64_t created_at) : tree(tree), created_at(created_at) {}

  const TreeId tree;
  const uint64_t created_at;
  // Guarded by Versions::mutex().
  uint64_t version = 0;           // the newest
  std::vector<VersionPin*> pins;  // ascending
};

// A version that is held. The last owner of the shared pointer lets go of it.
class VersionPin {
 public:
  VersionPin(std::shared_ptr<NodeStore> nodes, std::shared_ptr<TreeVersions> tree, Node* root,
             uint64_t version, uint64_t position)
      : nodes(std::move(nodes)),
        tree(std::move(tree)),
        root(root),
        version(version),
        position(position) {}
  ~VersionPin();
  VersionPin(const VersionPin&) = delete;
  VersionPin& operator=(const VersionPin&) = delete;

  const std::shared_ptr<NodeStore> nodes;
  const std::shared_ptr<TreeVersions> tree;
  Node* const root;  // null: the empty tree
  const uint64_t version;
  const uint64_t position;

 private:
  friend class Versions;
  struct Held {
    Node* node;
    std::shared_ptr<TreeVersions> tree;
  };
  std::weak_ptr<const VersionPin> self_;
  std::vector<Held> held_;
};

// What a version that somebody holds keeps from being freed.
struct PinStats {
  TreeId tree{};
  uint64_t version = 0;
  uint64_t position = 0;
  uint64_t versions_behind = 0;  // publications of its tree or others since
  uint64_t pages = 0;            // left the tree since, and kept for this version
  uint64_t bytes = 0;            // of the file that only this version keeps
};

class Versions {
 public:
  Versions() = default;
  Versions(const Versions&) = delete;
  Versions& operator=(const Versions&) = delete;

  std::mutex& mutex() const { return mutex_; }

  // The functions with Locked: under mutex().

  uint64_t NextLocked() { return ++newest_; }
  uint64_t NewestLocked() const { return newest_; }
  // Shared with others who hold the same version.
  std::shared_ptr<const VersionPin> PinLocked(const std::shared_ptr<NodeStore>& nodes,
                                              const std::shared_ptr<TreeVersions>& tree, Node* root,
                                              uint64_t position);
  // The nodes have left `tree` with `version`, for good. Adds those that nobody holds to `free`.
  // Under an epoch guard, as content that is not pinned is looked at.
  void RetireLocked(const std::shared_ptr<TreeVersions>& tree, std::span<Node* const> nodes,
                    uint64_t version, std::vector<Node*>& free);
  void Release(VersionPin& pin, std::vector<Node*>& free);

  // A checkpoint of that generation captures the newest versions.
  struct Captured {
    std::vector<Extent> left;  // pages that were on disk and left the trees since the last capture
    std::vector<Node*> dead;   // see LeaveToCapture
    // Versions that were held before the last capture. A page of theirs that no checkpoint wrote
    // was in none: it would stay in memory until they are let go.
    std::vector<std::shared_ptr<const VersionPin>> old;
  };
  Captured CaptureLocked(uint64_t generation);
  void CheckpointEnded();
  // No page that the checkpoint of that generation (PageRef::generation) was the first to hold is
  // older.
  uint64_t BirthOf(uint32_t generation) const;

  // A node is to be freed. True if it still waits in a list for the next capture, which hands it
  // over as dead.
  bool LeaveToCaptureLocked(Node* node);

  // Content that only borrows its nodes is in memory for each of these versions, in which it was
  // replaced. UINT64_MAX: there is none.
  uint64_t oldest_borrower() const { return oldest_borrower_.load(std::memory_order_acquire); }
  void BorrowerGoneLocked(uint64_t retired_at);

  std::vector<PinStats> Stats() const;

 private:
  // Somebody for whose sake the node is kept, or null.
  VersionPin* HolderOf(const Node& node, const TreeVersions& tree, const VersionPin* but) const;
  static VersionPin* YoungestIn(const TreeVersions& tree, uint64_t from, uint64_t to,
                                const VersionPin* but);

  // Not by address, so that what a checkpoint writes, and in which order, is the same in each run.
  struct ByAge {
    bool operator()(const TreeVersions* a, const TreeVersions* b) const {
      return std::tie(a->created_at, a->tree, a) < std::tie(b->created_at, b->tree, b);
    }
  };

  mutable std::mutex mutex_;
  uint64_t newest_ = 0;
  using Trees = std::set<TreeVersions*, ByAge>;
  Trees pinned_;            // trees that have pins
  Trees::node_type spare_;  // so that a snapshot for each read allocates none
  // Since the last capture: pages that were on disk when they left, and those that the running
  // checkpoint may be giving an address.
  std::vector<Extent> left_on_disk_;
  std::vector<Node*> left_unwritten_;
  bool capturing_ = false;
  std::deque<std::pair<uint64_t, uint64_t>> captures_;  // generation, newest version then
  std::map<uint64_t, uint64_t> borrowers_;              // contents by version
  std::atomic<uint64_t> oldest_borrower_{UINT64_MAX};
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_VERSIONS_H_
