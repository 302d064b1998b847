// One file that holds many copy-on-write B-trees, checkpointed together.
//
// A storage node has one: each partition is a tree in it, found by a root in the directory that the
// superblock points to (rule L5). Pages are written nowhere but into free space, and a checkpoint
// becomes the truth when one of the two superblocks, overwritten in turn, names it (shadow paging:
// Lorie, 1977). A parent's reference to a page carries the page's checksum, so that the superblock
// vouches for every byte that is read.
//
//   DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PageFile> file,
//                           PageFile::Open({}, disk, "node7/pages"));
//   DYNLIB_ASSIGN_OR_RETURN(Tree* tree, file->CreateTree(TreeId{7}));
//   DYNLIB_RETURN_IF_ERROR(tree->Apply(batch, 1));
//   DYNLIB_RETURN_IF_ERROR(file->Checkpoint());   // now position 1 is durable
//
// Splitting and joining trees moves whole subtrees from root to root: a tree of any size is split
// by building the pages along the cut anew, and no item is copied.
//
// Pace: a checkpoint has one write at a time on its way to the device, a small one as long as trees
// are being written, so that whoever syncs a log beside it waits for that at most. With nobody at
// work the writes are large.
//
// Durability: Checkpoint alone. After a crash Open finds the newest checkpoint that was durable, or
// the one that was being written: for each tree the version that Checkpoint captured, and its
// position. Creating, dropping, splitting, joining and renaming trees is durable with the next
// checkpoint; any checkpoint has all of such a step or nothing of it.
//
// Space: an extent is used again only when no version in memory and neither checkpoint on disk
// holds it. So under steady overwriting the file settles at the live pages, what two checkpoints
// changed, and what snapshots pin. A file of which more than half is free gives that back to the
// file system with a checkpoint, any other with ReleaseSpace: the end is cut off, and runs of at
// least 64 KiB in the middle become holes; ReleaseShortRuns goes on with shorter ones. With a
// quarter of it free new pages go to the start.
//
// Threads: all methods from any thread; Checkpoint, Verify, DropTree, RenameTree, Split and Join
// block on the disk, no lock is held meanwhile, and readers and writers of the trees go on. Destroy
// it when no call is running. One process at a time: the caller holds the folder's DiskLock.
//
// Metrics: store.checkpoint_pages, store.checkpoint_bytes, store.pages_read, store.page_damaged
// (with an event), store.file_growth_bytes.
#ifndef DYNLIB_STORE_PAGE_FILE_H_
#define DYNLIB_STORE_PAGE_FILE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/superblock.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/verify.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

class PageFile {
 public:
  struct Options {
    // False: an absent file is kNotFound.
    bool create_if_missing = true;
    // Of the log that the owner has before the file: the newest batch that is durable
    // (NodeLog::Recovery::last_batch). A file that says that there were later ones is refused, as
    // segments are missing then. None: there is no log.
    std::optional<uint64_t> log_batch;
    // Identity of the file, kept in it. Zero: any when opening, zero when creating.
    Digest128 file_id;
    // The file grows by an eighth of itself, at least and at most this much (each a multiple of
    // 4,096, from 64 KiB to 1 GiB), or by what one page needs.
    uint64_t growth_bytes_min = 1 << 20;
    uint64_t growth_bytes_max = 64 << 20;
    // Bytes gathered into one write of a checkpoint; each 4,096 to 16 MiB. The second bounds them
    // too while trees are being written and nobody waits for the checkpoint's end: the sync of a
    // log on the same device waits behind one such write at most.
    uint64_t write_bytes_max = 1 << 20;
    uint64_t busy_write_bytes = 64 << 10;
    // Called after each write of a checkpoint with its bytes, on the checkpoint's thread: one that
    // sleeps bounds the rate, for a disk that others need too (ByteRate). Not while somebody waits
    // for the checkpoint's end (WhenRoom, Hurry), nor in CheckpointTwice. Null: no bound.
    std::function<void(uint64_t bytes)> after_checkpoint_write = nullptr;
    // Of pages in memory, for all trees together: clean pages are evicted to stay below it. From 1
    // MiB to 16 TiB. Pages that no checkpoint has written yet cannot be evicted: when they come to
    // an eighth of this a checkpoint is due, and at a half writers are to wait (see WhenRoom).
    uint64_t memory_bytes = uint64_t{1} << 30;
    // Of leaves and large values, page by page, where that saves at least one unit of 4,096 bytes.
    // Pages that are there stay as they are until they are written again: it can be on at one
    // opening and off at the next. Level: zstd's, 1 to 19. What it costs at level 1 for a page of 8
    // KiB: about 25 us of a checkpoint's thread, and 8 us more to read it from disk.
    Compression compression = Compression::kNone;
    int compression_level = 1;
    // Where the newest checkpoint's list of trees or of units is damaged: open the one before it,
    // and say so in fallback(). For who has a log from there on (Tree::fallback_position) and sees
    // that it is there, before the first checkpoint. False: that is kDataLoss.
    bool fall_back = false;
    // Nothing is written to the file, or created; no checkpoint can be made. Trees can be written
    // in memory.
    bool read_only = false;
    // Breaks rule L5 on purpose, for tests of the tests (rule S3): what a checkpoint on disk holds
    // is given out again.
    bool reuse_pages_early_for_test = false;
  };

  struct Stats {
    uint64_t file_bytes = 0;
    uint64_t used_bytes = 0;       // held by a version in memory or by a checkpoint on disk
    uint64_t discarded_bytes = 0;  // free, and given back to the file system
    uint64_t generation = 0;       // of the newest durable checkpoint
    uint64_t checkpoints = 0;
    uint64_t pages_written = 0;
    uint64_t bytes_written = 0;
    uint64_t pages_compressed = 0;         // of pages_written
    uint64_t compression_saved_bytes = 0;  // by those, in whole units
    uint64_t pages_read = 0;
    uint64_t page_memory_bytes = 0;  // pages in memory, all versions
    uint64_t resident_bytes = 0;     // taken from the system for that; see page_memory.h
    uint64_t spare_bytes = 0;        // of resident_bytes, made ahead of need
    uint64_t dirty_bytes = 0;        // of page_memory_bytes, what no checkpoint has written
    uint64_t pages_evicted = 0;
    uint64_t rows_behind_leaves = 0;  // written there, without a copy of their page
    uint64_t reads = 0;               // Gets
    uint64_t reads_missed = 0;        // those that did not find all of their pages in memory
    std::vector<PinStats> held;       // the versions that snapshots, and a running checkpoint, hold
  };

  using VerifyReport = store::VerifyReport;

  // One of the trees of a Split or Join, and what it gets in the same step.
  struct Part {
    TreeId tree{};
    WriteBatch batch;       // applied after the keys were moved
    uint64_t position = 0;  // of the tree from then on; not below that of a tree that exists
  };
  struct SplitSpec {
    Part source;       // keeps its keys < from
    Part left;         // new; gets the source's keys in [from, at)
    Part right;        // new; gets the source's keys >= at
    std::string from;  // at most `at`
    std::string at;
  };
  struct JoinSpec {
    Part left;    // keeps its keys < from
    Part right;   // likewise
    Part target;  // new; gets the keys >= from of both
    std::string from;
  };
  struct MoveSpec {
    Part source;  // keeps its keys < from
    Part target;  // new; gets the others
    std::string from;
  };

  // kInvalidArgument naming the field, its value and its range: what Open says before all else.
  static absl::Status Validate(const Options& options);

  // What is at `path`. kNotFound: nothing; else what Open would say of a file that is no page file
  // or of a newer format. Changes nothing.
  enum class Content { kNoTrees, kTrees };
  static absl::StatusOr<Content> Peek(Disk* disk, std::string_view path);
  // Makes a file without trees, durably, where there is none.
  static absl::Status Create(const Options& options, Disk* disk, const std::string& path);

  // Opens or creates `path`, whose folder exists.
  //   kInvalidArgument     an option out of range, or not a page file
  //   kNotFound            absent, and create_if_missing is false
  //   kFailedPrecondition  written by a newer format, or its file_id is another
  //   kDataLoss            no superblock, or not the directory or bitmap it names, is intact; or
  //                        the file is shorter than it says; or options.log_batch is before what
  //                        it says
  // The file is not changed in these cases.
  static absl::StatusOr<std::unique_ptr<PageFile>> Open(Options options, Disk* disk,
                                                        std::string_view path,
                                                        MetricsSink* metrics = MetricsSink::None());
  ~PageFile();

  // kAlreadyExists when there is one of that id. Empty, at position 0.
  absl::StatusOr<Tree*> CreateTree(TreeId id);
  // Null when there is none.
  Tree* FindTree(TreeId id) const;
  // As FindTree, for those who may hold it when it is dropped: it is then empty, and not to be
  // written.
  std::shared_ptr<Tree> ShareTree(TreeId id) const;
  // Removes the tree and gives its space back; kNotFound when there is none. Reads every page of
  // the tree. No writer may be at work on it; snapshots of it stay good. Damaged pages are no
  // error: extents below one are not found, and stay used until a Verify finds them leaked.
  absl::Status DropTree(TreeId id);

  // One tree becomes three or two, or two trees three, in one step for readers, writers and
  // checkpoints. Each page that is not on the way to a cut goes over as it is: the cost is a few
  // pages for each level. Nobody else may write the trees that exist (checked) or make the ones
  // that do not; snapshots stay good. Pages along the cuts may be less full than others until they
  // are written.
  //   kNotFound         a tree that keys are to be taken from is not there
  //   kAlreadyExists    a tree to be made is there
  //   kInvalidArgument  from > at; two parts are the same tree; keys of `left` that are not all
  //                     below those of `right`; else as Tree::Apply
  //   kDataLoss         a page on the way is damaged
  // Nothing has changed then.
  absl::Status Split(const SplitSpec& spec);
  absl::Status Join(const JoinSpec& spec);
  absl::Status Move(const MoveSpec& spec);

  // The tree `from` takes the name `to`, in the place of the tree of that name, if there is one,
  // which is dropped: for a copy that was built to replace a damaged tree. Returns the tree under
  // its new name; pointers to both trees end. Its durable_position() stays that of the old `to`
  // until the next checkpoint. Costs, and errors, as DropTree of `to`; kInvalidArgument when the
  // two are one.
  absl::StatusOr<Tree*> RenameTree(TreeId from, TreeId to);
  // In ascending order.
  std::vector<TreeId> Trees() const;

  // Tree::Apply of several trees to one position, in one step for checkpoints and for
  // SnapshotTrees; those of one tree one after the other. Nothing has changed when it fails.
  struct TreeBatch {
    Tree* tree;
    const WriteBatch* batch;
  };
  absl::Status ApplyTogether(std::span<const TreeBatch> batches, uint64_t position);
  // The same in two steps: all of the work, and that readers see it. In between, which may be as
  // long as it takes to make the batches durable elsewhere, the trees have their writer; destroyed
  // unpublished, it was nothing. The batches outlive it.
  class Prepared {
   public:
    Prepared();
    ~Prepared();
    Prepared(Prepared&& other) noexcept;
    Prepared& operator=(Prepared&& other) noexcept;
    bool empty() const { return parts_.empty(); }

   private:
    friend class PageFile;
    struct Part;
    std::vector<Part> parts_;
    uint64_t position_ = 0;
  };
  absl::StatusOr<Prepared> Prepare(std::span<const TreeBatch> batches, uint64_t position);
  void Publish(Prepared prepared);
  // The newest versions of all trees at one moment, in ascending order of their ids.
  std::vector<std::pair<TreeId, Snapshot>> SnapshotTrees() const;

  // Makes durable the newest version of every tree as of some moment in this call. Does nothing
  // when nothing has changed.
  //   kUnavailable        another Checkpoint is running
  //   kResourceExhausted  no space: all is as it was, and a later call may succeed
  // Any other error is for good (rule L3): every later Checkpoint returns it, while trees can still
  // be read and written in memory. Open the file again to see what is in it.
  absl::Status Checkpoint();
  // From now on checkpoints, also one that runs, do without after_checkpoint_write: the owner wants
  // to close.
  void Hurry() { hurries_ = true; }
  // Pages in memory that no checkpoint has written: they cannot be evicted. True when they have
  // come to an eighth of memory_bytes. The owner looks after each batch, and starts a checkpoint.
  bool CheckpointDue() const;
  // They are less than half of memory_bytes. Apply is never refused for want of it: the owner asks
  // before, and lets whoever writes wait. What one batch makes, and whoever does not ask, goes
  // beyond.
  bool HasRoom() const;
  // Calls go_on() once there is room: now, or at the end of a checkpoint, on its thread. Also when
  // there will be none, as a checkpoint has failed: ask again, or give up.
  void WhenRoom(absl::AnyInvocable<void()> go_on);

  // Memory for pages grows, and the next pieces of it can be made ahead, so that no writer waits
  // for the system to find them: up to 16 MiB, and within memory_bytes. The owner who has a thread
  // to spare looks after each batch, and has MakeMemoryAhead called there, by one at a time.
  bool WantsMemoryAhead() const;
  void MakeMemoryAhead();

  // Batches of the owner's log up to this one are durable: what checkpoints say from then on, where
  // Options has a log.
  void SetLogBatch(uint64_t batch) { log_batch_.store(batch, std::memory_order_relaxed); }

  // Makes both checkpoints on disk hold what one Checkpoint would: from then on the loss of the
  // newest superblock loses nothing of it. Errors as Checkpoint.
  absl::Status CheckpointTwice();

  // Gives free space back to the file system, for times of rest: what is free is used again sooner
  // than made. CheckpointTwice before it frees what only the older checkpoint holds. Errors as
  // Checkpoint.
  absl::Status ReleaseSpace();
  // Goes on where ReleaseSpace ends, a portion at a time: free runs shorter than 64 KiB become
  // holes too, the longest first, until the free space that the file keeps is less than 1/64 of
  // what is used. About `holes` of them are made by one call; progress->done says that it was the
  // last. Errors as Checkpoint.
  struct ReleaseProgress {
    uint64_t run_bytes = 32 << 10;  // runs of at least that length are at work
    uint64_t from_unit = 0;
    uint64_t holes = 0;  // made so far
    bool done = false;
  };
  absl::Status ReleaseShortRuns(size_t holes, ReleaseProgress* progress);

  // Reads both superblocks, and all that they name, from disk and checks it: directories, bitmaps,
  // of all pages checksums, structure, key order, that no two overlap and that all are marked as
  // used. A superblock that a checkpoint is writing is left out. Returns the first fault found,
  // after having looked at everything that can be reached. Space that the newest checkpoint marks
  // and, being whole, does not reach (a damaged tree was dropped) is free with the next checkpoint.
  absl::Status Verify(VerifyReport* report = nullptr, const VerifyProgress& progress = nullptr);

  // Why the newest checkpoint on disk is not the one that was opened; OK if it is.
  const absl::Status& fallback() const { return fallback_; }

  // From now on a page that was found damaged is not read again: it stays kDataLoss, also where the
  // device would have its bytes the next time. For who leaves out what belongs into such pages.
  void RememberDamage();

  // What Open found damaged and could do without: a checkpoint beside the one that counts. Its
  // superblock names the same as the other since then.
  const std::vector<std::string>& notes() const { return notes_; }
  Stats stats() const;
  Digest128 file_id() const { return file_id_; }

 private:
  using RecordPtr = std::shared_ptr<const CheckpointRecord>;
  using TreePtr = std::shared_ptr<Tree>;
  struct CapturedTree {
    TreePtr tree;
    Snapshot version;
  };

  PageFile(const Options& options, std::shared_ptr<NodeStore> nodes,
           std::array<RecordPtr, 2> records, uint64_t generation);

  static absl::StatusOr<std::unique_ptr<PageFile>> Load(const Options& options,
                                                        std::unique_ptr<File> file,
                                                        std::string_view path,
                                                        MetricsSink* metrics);

  // The next version of a tree that a step changes or makes.
  struct Successor {
    const Part* part;
    TreePtr tree;  // null: to be made
    Node* root;    // without the part's batch
  };

  absl::StatusOr<TreePtr> Existing(TreeId id) const;
  absl::Status CheckAbsentLocked(TreeId id) const;
  absl::Status CheckNew(std::initializer_list<const Part*> parts) const;
  absl::Status PublishTogether(std::vector<Successor> successors, TreeUpdate& update);
  TreePtr MakeTreeLocked(TreeId id, Node* root, uint64_t position, uint64_t version);
  // All nodes of the newest version, and what has to stay in memory until they are retired.
  struct NodesOfTree {
    std::vector<Node*> nodes;
    std::vector<ContentRef> pinned;
  };
  absl::StatusOr<NodesOfTree> NodesOf(const Tree& tree);
  absl::Status CollectNodes(Node* node, NodesOfTree& out);
  void Retire(const Tree& tree, NodesOfTree nodes);

  void HoldCheckpoints();
  absl::Status AbandonNewest();
  absl::Status CheckpointTimes(int times);
  absl::Status Exclusively(absl::FunctionRef<absl::Status()> work);
  absl::Status DiscardFree();
  absl::Status Discard(const std::vector<Extent>& extents);
  absl::Status RunCheckpoint(bool into_both);
  // Fills in `old`: see Versions::Captured.
  std::vector<CapturedTree> CaptureTrees(uint64_t generation,
                                         std::vector<std::shared_ptr<const VersionPin>>& old);
  RecordPtr NewestRecord() const;
  bool IsAwaited() const;
  absl::StatusOr<CheckpointRecord> WritePages(
      const std::vector<CapturedTree>& trees,
      const std::vector<std::shared_ptr<const VersionPin>>& old, uint64_t generation, bool paced);
  absl::Status WriteSuperblock(const Superblock& superblock);
  absl::Status RepeatNewest();
  absl::Status CheckSuperblock(uint64_t index);
  void Install(RecordPtr record, const std::vector<CapturedTree>& trees);

  const Options options_;
  const std::shared_ptr<NodeStore> nodes_;
  Digest128 file_id_;
  std::vector<std::string> notes_;
  // What the newest capture holds of what was written; touched by one running Checkpoint.
  UnitSet tree_units_;
  std::atomic<bool> hurries_{false};
  std::atomic<uint64_t> log_batch_{0};

  mutable std::mutex mutex_;  // guards what follows; never held across a file call
  std::map<TreeId, TreePtr> trees_;
  UnitSet leaked_;                    // to be freed by the next capture
  std::array<RecordPtr, 2> records_;  // by superblock; null when damaged, until Open has mended it
  // By superblock: grows as a checkpoint begins to write it, and as that is done.
  std::array<uint64_t, 2> superblock_writes_{};
  uint64_t generation_ = 0;  // of the newest
  uint64_t checkpoints_ = 0;
  bool checkpointing_ = false;
  std::vector<absl::AnyInvocable<void()>> waiting_;  // for room
  absl::Status fallback_;
  bool abandoned_ = false;  // the newest checkpoint, after a fallback, for good
  absl::Status broken_;     // rule L3: the error that closed the file for writing
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_FILE_H_
