// A crash-safe ordered map in a folder: named copy-on-write B-trees in one file, and the
// write-ahead log in front of them.
//
// The stand-alone form of the store. A write is durable when its log record is, and is then applied
// to its trees; a checkpoint makes the trees durable and lets go of the log before it. (A
// replicated tree has the same two parts, with its group's log in between.)
//
//   store::Store::Executors on = {.log = &log_thread, .apply = &apply_thread,
//                                 .checkpoint = &checkpoint_thread};
//   DYNLIB_ASSIGN_OR_RETURN(auto store, store::Store::Open({}, disk, "db", on, &clock));
//   DYNLIB_RETURN_IF_ERROR(store->Put("k", "v"));
//   DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> value, store->Get("k"));
//
//   DYNLIB_ASSIGN_OR_RETURN(store::NamedTree users, store->OpenTree("users"));
//   store::StoreBatch batch;               // whole or not at all, across trees
//   batch.Put(users, "7", bytes);
//   batch.Delete("k");
//   store->Write(std::move(batch), {}, executor, [](store::WriteResult result) { ... });
//
// LocalStore (local_store.h) is this with threads, files and clock of its own.
//
// Guarantees: writes take effect in one order, that of the calls of a thread. Once a write has
// answered OK it is durable (but see WriteOptions), and a read that starts after that sees it.
//
// Blocking: forms without a callback wait for an answer of the executors: call them on threads that
// are none of these, and not in a simulation. Those with a callback wait for nothing.
//
// Recovery (rule L2): Open = the newest checkpoint and the log after it. A torn last batch of the
// log was never acknowledged: it is cut, and Recovery::notes says so. Damage below what was known
// to be durable is kDataLoss, unless a checkpoint has what was in it.
//
// Errors of a write: kInvalidArgument (over a limit), kFailedPrecondition (a condition does not
// hold, or a tree was dropped), kResourceExhausted (disk full, or, where the caller cannot wait,
// too much pending; nothing was written, try again later), kUnknown (a write or sync failed: it may
// or may not be there at the next Open; the store takes no more writes), kDataLoss (it is logged,
// and a page that it needs is damaged: it is applied once the page has its good copy, and no more
// writes are taken until then; see Repair), kUnavailable (the store takes none), kCancelled (it was
// destroyed first).
//
// Threads: all methods from any thread. Get, Scan and snapshots never wait for writers; a page that
// is not in memory is read by the caller, or for GetAsync by the `read` executor.
//
// Ownership: disk, clock, executors and metrics outlive the store and the last task it has on the
// executors; drain log, checkpoint, read, apply and answer, in this order, before they go.
// Destroying a store without Close is like a crash: answers that are due still come. No blocking
// call may be running then.
#ifndef DYNLIB_STORE_STORE_H_
#define DYNLIB_STORE_STORE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/cursor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/verify.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

class Store {
 public:
  // A range of keys that cannot be read, and why: kDataLoss, naming file, offset and both
  // checksums.
  struct DamagedRange {
    NamedTree tree;
    std::string first;
    std::string end;  // empty: no bound
    absl::Status status;
  };
  // The rows of the range as they should be, puts alone.
  using FetchRows = std::function<absl::StatusOr<WriteBatch>(const DamagedRange&)>;

  // How far Open is: it reads the log, and then applies what no checkpoint has.
  struct OpenProgress {
    uint64_t log_bytes = 0;
    uint64_t log_bytes_total = 0;
    uint64_t applied_bytes = 0;        // of writes, with what the log adds to each
    uint64_t applied_bytes_total = 0;  // at most; 0 until the log was read
  };

  struct Options {
    NodeLog::Options log;
    PageFile::Options pages;
    // False: a folder that holds no store is kNotFound.
    bool create_if_missing = true;
    // A checkpoint begins by itself after this many bytes of writes; 64 KiB to 1 TiB.
    uint64_t checkpoint_after_bytes = 64 << 20;
    // After so long without a write the store packs its sparse pages, reading and rewriting at
    // most so many bytes a second, makes a checkpoint, and gives free space back to the file
    // system. From 1 ms; Duration::max(): never. The rate: 64 KiB to 1 TiB.
    Duration rest_after = std::chrono::seconds(2);
    uint64_t rest_bytes_per_second = 64 << 20;
    // Bound of writes that wait to be logged or applied; at least NodeLog::MaxBatchBytes(log). At
    // the bound blocking writes wait, the others get kResourceExhausted.
    uint64_t max_pending_bytes = 64 << 20;
    // Where the good copy of a damaged page comes from, when a write meets one: a replica, say.
    // Null, or an error: such a write is answered with kDataLoss, and no more are taken until
    // Repair. Called by whoever applies writes: the thread of `apply`, one that writes, or that of
    // Open, when the log's writes are applied again; the tree's name() is then all there is of it.
    FetchRows fetch_rows = nullptr;
    // Called by Open, on its thread, about once for each mebibyte of the log that it reads or
    // applies. False ends it, with kCancelled: the next one begins anew.
    std::function<bool(const OpenProgress&)> open_progress = nullptr;
    // Where Open would be kDataLoss for damage in the log, the catalogue of trees or the list of a
    // checkpoint's trees: opens what is whole for reading, and changes nothing on disk. That is the
    // newest whole checkpoint and the log after it, up to the first damage: it may lack writes that
    // were acknowledged. Health, and what writes and checkpoints are answered, is then kDataLoss,
    // naming file, offset and checksums; there is no Repair. Costs each Open a second reading of
    // the log.
    bool read_only_if_damaged = false;
  };

  // Each may block on files. They may be one; then writes wait for checkpoints.
  struct Executors {
    Executor* log = nullptr;
    Executor* apply = nullptr;
    Executor* checkpoint = nullptr;
    Executor* read = nullptr;  // of GetAsync; null: `checkpoint`
    // Wakes up those whose writes are done, and hands callbacks to their executors. Then `apply`,
    // which is a thread of its own, syncs the log itself, makes a group's pages meanwhile, and has
    // the next group on its way to the disk while the last one's threads wake up. Null, as in a
    // simulation: the log's executor syncs, and `apply` answers.
    Executor* answer = nullptr;
  };

  struct Recovery {
    bool clean_close = false;
    uint64_t replayed_batches = 0;   // Writes.
    uint64_t cut_batches = 0;        // Groups of writes, torn at the log's end, never acknowledged.
    std::vector<std::string> notes;  // What was damaged or cut, for people.
    Duration took{};                 // Of Open, from its call.
    Duration log_took{};             // Of that, reading the log,
    Duration apply_took{};           // and applying what no checkpoint has.
  };

  using WriteDone = absl::AnyInvocable<void(WriteResult)>;
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // Creates the folder if needed. Blocking.
  //   kInvalidArgument     an option, named with its value and range
  //   kNotFound            no store there, and create_if_missing is false
  //   kFailedPrecondition  a folder with other things in it, a store of a newer format, or one that
  //                        is open, here or in another process
  //   kDataLoss            damage, naming file and offset; but see read_only_if_damaged
  // Nothing on disk has changed in the first three cases.
  // Damaged pages of the trees are no error. If the log has writes to one, and Options::fetch_rows
  // no good copy, the store is open for reading: all that was acknowledged can be read, but for the
  // keys of that page; writes and checkpoints are refused, and Health says why, until Repair.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const Options& options, Disk* disk,
                                                     std::string dir, Executors executors,
                                                     const Clock* clock,
                                                     MetricsSink* metrics = MetricsSink::None(),
                                                     Recovery* found = nullptr);
  ~Store();

  // Blocking: waits for its turn, and at a bound for room, unless the disk is full.
  WriteResult Write(StoreBatch batch, WriteOptions options = {});
  WriteResult Write(WriteBatch batch, WriteOptions options = {});
  absl::Status Put(std::string_view key, std::string_view value, WriteOptions options = {});
  absl::Status Delete(std::string_view key, WriteOptions options = {});
  // `done` runs on `executor`.
  void Write(StoreBatch batch, WriteOptions options, Executor* executor, WriteDone done);

  // Trees are created and dropped in the order of the writes, and durably. Names are 1 to 255
  // bytes. OpenTree creates the tree if it is missing; it blocks.
  absl::StatusOr<NamedTree> OpenTree(std::string_view name);
  void OpenTree(std::string_view name, Executor* executor,
                absl::AnyInvocable<void(absl::StatusOr<NamedTree>)> done);
  // Nothing when there is none of that name.
  std::optional<NamedTree> FindTree(std::string_view name) const;
  // Writes to it fail from then on, and new reads find nothing; snapshots stay good. Its space
  // comes back in the background.
  absl::Status DropTree(const NamedTree& tree);
  void DropTree(const NamedTree& tree, Executor* executor, Done done);
  // Without the default tree, sorted.
  std::vector<std::string> ListTrees() const;

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const;
  absl::StatusOr<std::optional<std::string>> Get(const NamedTree& tree, std::string_view key) const;
  // The value is put into `value`, whose memory is used again: no allocation for each read. False:
  // there is none.
  absl::StatusOr<bool> GetInto(const NamedTree& tree, std::string_view key,
                               std::string& value) const;
  // Calls view(value) where the value lies; see Tree::View.
  absl::StatusOr<bool> View(const NamedTree& tree, std::string_view key,
                            absl::FunctionRef<void(std::string_view)> view) const;
  // Answered at once, through `executor`, when the pages are in memory, else when they were read.
  void GetAsync(const NamedTree& tree, std::string_view key, Executor* executor,
                absl::AnyInvocable<void(absl::StatusOr<std::optional<std::string>>)> done) const;
  // All of one version, in the order of the keys given.
  std::vector<absl::StatusOr<std::optional<std::string>>> MultiGet(
      const NamedTree& tree, std::span<const std::string_view> keys) const;
  absl::StatusOr<ScanResult> Scan(const ScanOptions& options, Snapshot::Visitor visit) const;
  // A place among the keys of the tree as it is now; see cursor.h.
  absl::StatusOr<Cursor> NewCursor(const NamedTree& tree = NamedTree(),
                                   const CursorOptions& options = {}) const;
  // All trees as of one moment, between two writes. `label` is what Stats call it.
  StoreSnapshot snapshot(std::string_view label = "") const;
  // One tree's version alone: the cheapest to pin.
  Snapshot snapshot(const NamedTree& tree) const;

  // Makes durable in the trees what was applied before, and frees the log up to the checkpoint
  // before it. kUnavailable if one is running.
  absl::Status Checkpoint();
  void Checkpoint(Executor* executor, Done done);

  // Refuses new writes, finishes the others, marks the log as closed cleanly, releases the folder.
  absl::Status Close();
  void Close(Executor* executor, Done done);

  // Reads everything from disk and checks it: STORE; both superblocks, the directories and bitmaps
  // they name, all pages of both checkpoints (PageFile::Verify); and of the log's segments in use
  // all that was durable when this came to them (NodeLog::Verify). Not read: free space, segments
  // not in use, what is in memory alone. Returns the first fault found, after all that can be
  // reached was looked at; `report` has the first hundred. Writes go on meanwhile. Blocking.
  absl::Status Verify(PageFile::VerifyReport* report = nullptr,
                      const VerifyProgress& progress = nullptr);
  // Calls `fetch` for each damaged range of the tree, puts what it returns in the place of what was
  // there, and makes a checkpoint. Writes wait meanwhile. Returns the ranges; the first error of
  // `fetch` ends it. Where writes were logged that could not be applied for damage, they are
  // applied then, and once none is left, in any tree, the store takes writes again. Blocking.
  absl::StatusOr<std::vector<DamagedRange>> Repair(const NamedTree& tree, const FetchRows& fetch);

  struct Stats {
    struct PinnedSnapshot {
      std::string label;
      uint64_t position = 0;    // writes up to it are in it
      uint64_t kept_bytes = 0;  // of the file, for no other version than its own
    };
    struct TreeStats {
      std::string name;  // "": the default tree
      uint64_t position = 0;
    };
    NodeLog::Stats log;
    PageFile::Stats pages;
    uint64_t position = 0;       // of the newest write applied
    uint64_t checkpointed = 0;   // writes up to it are in the newest checkpoint
    uint64_t log_bytes = 0;      // needed by recovery, for writes since the checkpoint before it
    uint64_t pending_bytes = 0;  // writes queued, being logged or, not durable, still to be logged
    uint64_t writes = 0;         // answered OK since Open
    uint64_t groups = 0;         // in which they were logged
    uint64_t conditions_failed = 0;
    std::vector<PinnedSnapshot> snapshots;  // oldest first
    std::vector<TreeStats> trees;           // default first, then by name
    // Who makes log or file larger than the data needs, a sentence each.
    std::vector<std::string> culprits;
  };
  Stats stats() const;

  // OK while writes are taken; else why not: kDataLoss if Repair can change that.
  absl::Status Health() const;
  NodeLog::Stats LogStats() const;

 private:
  class Impl;
  class Replay;
  static absl::Status EnsureTrees(PageFile& pages);
  static absl::StatusOr<std::shared_ptr<Impl>> OpenIfDamaged(
      const Options& options, Disk* disk, const std::string& dir, const Executors& executors,
      const Clock* clock, MetricsSink* metrics, Recovery* found, std::unique_ptr<DiskLock>& lock);
  explicit Store(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_H_
