// An ordered map from byte strings to byte strings: one copy-on-write B-tree in a PageFile.
//
// The one writer builds the next version of the pages that a batch touches and publishes a new root
// together with the position (a replication slot, a sequence number) that the batch brings the tree
// to. Published pages never change, so a reader that pins a root never waits for the writer and
// sees one version for as long as it likes (shadowing: Rodeh, "B-trees, Shadowing, and Clones",
// 2008). A tree has no log of its own: what was applied after the newest checkpoint is applied
// again from the log of whoever owns the tree, starting after durable_position().
//
//   WriteBatch batch;
//   batch.Put("a", "1");
//   DYNLIB_RETURN_IF_ERROR(tree->Apply(batch, /*position=*/17));
//   Snapshot snapshot = tree->snapshot();
//   DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> value, snapshot.Get("a"));
//   snapshot.Scan("a", "b", ScanOrder::kForward, [&](std::string_view key, std::string_view value)
//   {
//     ...; return true; });
//
// Keys are 0 to 8,192 bytes, compared as unsigned bytes; values 0 to 1,048,576 bytes. Values longer
// than 2,048 bytes lie in extents of their own, and do not slow down scans of their neighbours.
//
//   std::string value;   // used again and again: no allocation for each
//   DYNLIB_ASSIGN_OR_RETURN(bool found, tree->GetInto("a", value));
//
// Reads. Get, GetInto and View of a tree need no snapshot, take no lock, and write nothing that
// other threads read. A snapshot's reads see one version and are as fast; taking one costs a short
// lock and an allocation.
//
// Memory: pages are read from disk when first touched, and stay within PageFile's memory_bytes,
// whichever versions are held: a snapshot pins a version, not memory. ReadMode::kNotKept and
// kFromDisk leave memory as it was.
//
// Blocking: a page that is not in memory is read from disk by the caller; call Apply, Get and Scan
// on an executor for files, or pass ReadMode::kMemoryOnly.
//
// Filling a tree: apply batches of about a thousand operations in ascending key order. Each then
// rebuilds the last leaf and the branches above it, and fills pages to the brim.
//
// Errors: kDataLoss for a page that does not verify, naming file, offset and both checksums; the
// rest of the tree stays readable. What the disk says for a failed read.
#ifndef DYNLIB_STORE_TREE_H_
#define DYNLIB_STORE_TREE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/store/epochs.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page.h"
#include "dynlib/store/range_stats.h"
#include "dynlib/store/versions.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

class TreeUpdate;

class NodeStore;

enum class ScanOrder { kForward, kReverse };

// One version of a tree, pinned: immutable, cheap to copy and move.
//
// It keeps alive the pages of its version in the file, and those in memory that no checkpoint has
// written. PageFile::Stats says what each holds back. One that outlives its PageFile keeps the file
// open, but no longer protects its space once the file is opened again (reads then fail with
// kDataLoss; they never return another version's bytes).
//
// Threads: any.
class Snapshot {
 public:
  // Called in key order; the views are valid during the call. False ends the scan.
  using Visitor = absl::FunctionRef<bool(std::string_view key, std::string_view value)>;

  // The empty tree at position 0.
  Snapshot() = default;

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key,
                                                 ReadMode mode = ReadMode::kMayBlock) const;
  // Puts the value into `value`, whose memory is used again. False: there is none.
  absl::StatusOr<bool> GetInto(std::string_view key, std::string& value,
                               ReadMode mode = ReadMode::kMayBlock) const;

  // Visits the keys in [start, end); an empty `end` means no upper bound. kReverse visits the same
  // keys from the last to the first. Keys visited before an error are good.
  absl::Status Scan(std::string_view start, std::string_view end, ScanOrder order, Visitor visit,
                    ReadMode mode = ReadMode::kMayBlock) const;

  // The range of keys [first, end), no upper bound when `end` is empty, that cannot be read: the
  // status is kDataLoss and names the page. False ends the scan.
  using UnreadableVisitor = absl::FunctionRef<bool(std::string_view first, std::string_view end,
                                                   const absl::Status& status)>;

  // As Scan forward, but goes on behind a damaged page: both visitors are called in key order, and
  // every key of [start, end) was visited, is not there, or lies in a range called unreadable,
  // which lies in [start, end) too. A value that alone cannot be read makes a range of its one key.
  // Other errors than damage end the scan.
  absl::Status ScanReadable(std::string_view start, std::string_view end, Visitor visit,
                            UnreadableVisitor unreadable,
                            ReadMode mode = ReadMode::kFromDisk) const;

  struct Unreadable {
    std::string first;  // the keys [first, end), no upper bound when `end` is empty
    std::string end;
    absl::Status status;  // kDataLoss naming the page
  };
  // The damaged page on the way to `key`, with all keys that it may hold; nothing if the key, there
  // or not, can be read. Errors other than damage.
  absl::StatusOr<std::optional<Unreadable>> FindDamage(std::string_view key, ReadMode mode) const;

  // Estimates [first, end), no upper bound when `end` is empty, to choose where to split it. Ranges
  // of up to 64 leaves are counted. In larger ones 64 leaves, spread evenly, stand for their
  // neighbours, and what branches say of the lengths of pages weighs them: the middle then halves
  // the bytes within about 15 % of the whole when the sizes of items change gradually along the
  // keys, and less well when few huge values make up most of the bytes. Reads at most 64 pages for
  // each level of the tree, and keeps none. Damaged pages are passed
  // over, but for the root.
  absl::StatusOr<RangeStats> ApproximateStats(std::string_view first, std::string_view end) const;

  // Stands for what [first, end) holds, no upper bound when `end` is empty: two versions, of this
  // tree or another of the file, that have one digest have the same rows there. The same rows may
  // have many, as their pages are written anew. Nothing for a range with pages that no checkpoint
  // has written. Reads branches alone, a hundredth of the pages, and keeps none.
  absl::StatusOr<std::optional<Digest128>> PagesDigest(std::string_view first,
                                                       std::string_view end) const;

  // Of the newest batch in this version.
  uint64_t position() const { return pin_ == nullptr ? 0 : pin_->position; }
  // Which version of which tree it holds; 0 and 0: none.
  std::pair<TreeId, uint64_t> version() const {
    if (pin_ == nullptr) return {};
    return {pin_->tree->tree, pin_->version};
  }
  bool empty() const { return root() == nullptr; }

 private:
  friend class Cursor;
  friend class PageFile;
  friend class Tree;
  explicit Snapshot(std::shared_ptr<const VersionPin> pin) : pin_(std::move(pin)) {}

  NodeStore& nodes() const { return *pin_->nodes; }
  Node* root() const { return pin_ == nullptr ? nullptr : pin_->root; }
  template <typename Use>
  absl::StatusOr<bool> Find(std::string_view key, ReadMode mode, Use use) const;
  template <typename Use>
  absl::StatusOr<bool> FindLoading(std::string_view key, ReadMode mode, Use use) const;

  std::shared_ptr<const VersionPin> pin_;
};

// A value where it lies in memory, not copied.
//
//   PinnedValue value;   // used again and again
//   DYNLIB_ASSIGN_OR_RETURN(bool found, tree->Pin("a", value));
//   Use(value.view());   // good until the next Pin, Release, or the end of `value`
//
// For short: until it is released, no memory of replaced and evicted pages is freed in its
// PageFile, which it must not outlive.
//
// Threads: stays on the one that called Pin.
class PinnedValue {
 public:
  std::string_view view() const { return view_; }
  void Release() {
    view_ = {};
    guard_ = Epochs::Guard();
  }

 private:
  friend class Tree;
  Epochs::Guard guard_;
  std::string read_;  // what had to be read from disk
  std::string_view view_;
};

// Threads: Apply by one writer at a time (checked; PageFile's Split and Join count as writers of
// the trees that they take keys from); everything else from any thread.
// Ownership: by its PageFile; the pointer is valid until DropTree, RenameTree or the PageFile's
// end.
class Tree {
 public:
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  // Publishes a version with the whole batch in it, at `position`, or changes nothing and says why.
  // Positions never go back; an empty batch moves the position alone. Durable with the next
  // PageFile::Checkpoint that returns OK; until then it is the caller's log that holds the batch.
  //   kInvalidArgument  a key or a value over its limit, or `position` below position()
  absl::Status Apply(const WriteBatch& batch, uint64_t position);

  // Publishes a version in which the puts of `rows` are all that [first, end) holds, no upper bound
  // when `end` is empty. Every page there is built anew, also where nothing changes, so that what
  // is in memory replaces a damaged page on disk; and pages whose keys lie in the range as a whole
  // are not needed for it, so that rows from elsewhere do. Errors as Apply; kInvalidArgument for
  // a delete, or a key outside the range; kDataLoss when a damaged page holds keys on both sides
  // of an end. Extents below a damaged branch stay used until a Verify finds them leaked.
  absl::Status Replace(std::string_view first, std::string_view end, const WriteBatch& rows,
                       uint64_t position);

  struct CompactStep {
    std::string next;         // where to go on; empty: all was looked at
    uint64_t read_bytes = 0;  // of pages that it looked into, in memory or not
    uint64_t rewritten_bytes = 0;
  };
  // Looks at neighbouring leaves, from the one that holds `from` on, that come to `bytes`, and
  // packs their rows anew if they are less than 92 % full. As a writer; the tree's contents and
  // position stay. For times of rest: pages that are full split with the next insertion. Errors:
  // those of reading; a damaged leaf stays as it is.
  absl::StatusOr<CompactStep> Compact(std::string_view from, uint64_t bytes);

  // Of the newest published version, as the methods of Snapshot.
  absl::StatusOr<std::optional<std::string>> Get(std::string_view key,
                                                 ReadMode mode = ReadMode::kMayBlock) const;
  absl::StatusOr<bool> GetInto(std::string_view key, std::string& value,
                               ReadMode mode = ReadMode::kMayBlock) const;
  absl::StatusOr<bool> Pin(std::string_view key, PinnedValue& value,
                           ReadMode mode = ReadMode::kMayBlock) const;
  // Calls view(value) where the value lies. For short: until it returns, no memory of replaced and
  // evicted pages is freed. It makes no file call and does not wait. False: there is none.
  absl::StatusOr<bool> View(std::string_view key, absl::FunctionRef<void(std::string_view)> view,
                            ReadMode mode = ReadMode::kMayBlock) const;

  // The newest published version.
  Snapshot snapshot() const;

  TreeId id() const { return id_; }
  uint64_t position() const { return position_.load(std::memory_order_acquire); }
  // Of this tree in the newest durable checkpoint; 0 when it is in none. Replay starts after it.
  uint64_t durable_position() const { return durable_position_.load(std::memory_order_acquire); }
  // Of this tree in the older of the two checkpoints on disk: a log that is kept from here on can
  // bring the tree back even when the newest superblock is lost.
  uint64_t fallback_position() const { return fallback_position_.load(std::memory_order_acquire); }

 private:
  friend class PageFile;

  // Makes the caller the one writer.
  class Writing {
   public:
    explicit Writing(Tree& tree);
    ~Writing();
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;

   private:
    Tree& tree_;
  };
  Tree(std::shared_ptr<NodeStore> nodes, std::shared_ptr<TreeVersions> versions, Node* root,
       uint64_t position);

  template <typename Use>
  absl::StatusOr<bool> Find(std::string_view key, ReadMode mode, bool copied, Use use) const;

  // The root that a writer begins with. Errors as Apply's.
  absl::StatusOr<Node*> Begin(const WriteBatch& batch, uint64_t position) const;
  void Publish(Node* new_root, uint64_t position, TreeUpdate& update);
  bool TryPublish(Node* new_root, uint64_t position, TreeUpdate& update);
  // Leaves that no version has that somebody holds, be it of this tree or another.
  uint64_t FreeSinceLocked() const;
  uint64_t FreeSince() const;
  // The methods with Locked: under nodes_->versions().mutex().
  void PublishLocked(Node* new_root, uint64_t position, uint64_t version);
  Snapshot SnapshotLocked() const;
  void SetDurable(uint64_t newest, uint64_t older);

  const std::shared_ptr<NodeStore> nodes_;
  const std::shared_ptr<TreeVersions> versions_;
  const TreeId id_;
  std::atomic<bool> writing_{false};
  std::atomic<uint64_t> durable_position_{0};
  std::atomic<uint64_t> fallback_position_{0};
  std::atomic<uint64_t> position_{0};
  // Null: the empty tree. Readers load it under an epoch guard.
  alignas(64) std::atomic<Node*> root_;
  // The newest version that readers see: loaded before the root. Rows behind leaves that are
  // younger do not count, unless the root says that it is younger too.
  std::atomic<uint64_t> visible_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_TREE_H_
