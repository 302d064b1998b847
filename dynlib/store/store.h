// A crash-safe ordered map: a write-ahead log and a copy-on-write B-tree, put together.
//
// The stand-alone form of the store: one tree, one stream of the node log. (A replicated tree has
// the same two parts, with its group's log in between.) A write is durable when its log record is,
// and is then applied to the tree; a checkpoint makes the tree durable and lets go of the log
// before it.
//
//   store::Store::Executors on = {.log = &log_thread, .apply = &apply_thread,
//                                 .checkpoint = &checkpoint_thread};
//   DYNLIB_ASSIGN_OR_RETURN(auto store, store::Store::Open({}, disk, "db", on, &clock));
//   store::WriteBatch batch;
//   batch.Put("k", "v");
//   store->Write(batch, executor, [](absl::Status durable) { ... });
//   DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> value, store->Get("k"));
//
// Nothing here waits for another thread, so that it runs in a simulation; a thread that wants to
// wait for its write gives it a callback that fulfils a promise.
//
// Guarantees: a batch is in whole or not at all. Once a write has answered OK it is durable, and a
// Get or snapshot that starts after that sees it. Batches take effect in the order of the calls.
//
// Recovery (rule L2): Open = the newest checkpoint and the log after it. A torn last batch of the
// log was never acknowledged: it is cut, and Recovery::notes says so. Damage below what was known
// to be durable is kDataLoss, unless a checkpoint has what was in it.
//
// Errors of a write: kInvalidArgument (over a limit), kResourceExhausted (queue or disk full;
// nothing was written, try again later), kUnknown (a write or sync failed: it may or may not be
// there at the next Open; the store takes no more writes), kUnavailable (it takes none), kCancelled
// (it was destroyed first).
//
// Threads: all methods from any thread. Snapshots and Get never wait for writers; a page that is
// not in memory is read by the caller.
//
// Ownership: disk, clock, executors and metrics outlive the store and the last task it has on the
// executors; drain log, checkpoint and apply, in this order, before they go. Destroying a store
// without Close is like a crash: answers that are due still come.
#ifndef DYNLIB_STORE_STORE_H_
#define DYNLIB_STORE_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

class Store {
 public:
  struct Options {
    NodeLog::Options log;
    PageFile::Options pages;
    // A checkpoint begins by itself after this many bytes of writes; 64 KiB to 1 TiB.
    uint64_t checkpoint_after_bytes = 64 << 20;
    // Bound of writes that wait to be logged or applied; beyond it they get kResourceExhausted.
    // At least one batch of the log.
    uint64_t max_pending_bytes = 64 << 20;
  };

  // Each may block on files. They may be one; then writes wait for checkpoints.
  struct Executors {
    Executor* log = nullptr;
    Executor* apply = nullptr;
    Executor* checkpoint = nullptr;
  };

  struct Recovery {
    bool clean_close = false;
    uint64_t replayed_batches = 0;
    uint64_t cut_batches = 0;        // Torn at the log's end, never acknowledged.
    std::vector<std::string> notes;  // What was damaged or cut, for people.
  };

  // Creates the folder if needed. Blocking.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const Options& options, Disk* disk,
                                                     std::string dir, Executors executors,
                                                     const Clock* clock,
                                                     MetricsSink* metrics = MetricsSink::None(),
                                                     Recovery* found = nullptr);
  ~Store();

  // `done` runs on `executor`.
  void Write(const WriteBatch& batch, Executor* executor,
             absl::AnyInvocable<void(absl::Status)> done);

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const;
  // One version of everything; scans are made on it. position() is its sequence number.
  Snapshot snapshot() const;

  // Makes durable in the tree what was applied before, and frees the log up to the checkpoint
  // before it. kUnavailable if one is running.
  void Checkpoint(Executor* executor, absl::AnyInvocable<void(absl::Status)> done);

  // Refuses new writes, finishes the others, marks the log as closed cleanly, releases the folder.
  void Close(Executor* executor, absl::AnyInvocable<void(absl::Status)> done);

  // OK while writes are taken; else why not.
  absl::Status Health() const;
  NodeLog::Stats LogStats() const;

 private:
  class Impl;
  explicit Store(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_H_
