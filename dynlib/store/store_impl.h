// The inside of a Store: the way of a write, and what the other methods share with it.
//
// Writes queue up in groups, and a group goes
//
//   queue -> conditions, sequence numbers, encoding -> log (one record) -> trees (one update of
//   each) -> answers (one wake-up)
//
// moved along by whoever leads, one thread at a time. A thread that writes while nobody leads, and
// nothing is in the log's hands, leads its own group to the end, log and all, without waking
// anybody: that is a lone writer's whole path. Then the lead is free, and the first thread that
// waits for the next group is called to take it, unless one that writes is there before. By the
// time it runs most of those that were just answered have written again, so a few threads share
// each sync between all of them; were the next group led at once, they would share it by halves.
// Large groups, and those that no thread waits for, are led by tasks of the apply executor; their
// answers are given by another, so that waking up many threads does not keep the next group from
// the disk. Any leader makes a group's pages while its record is on its way to the disk, and
// publishes them when it is durable. A group with conditions, or that makes or drops trees, waits
// until all before it is applied. A group that need not be durable is applied and answered first,
// and logged then.
//
// Without an answer executor, as in a simulation, nothing waits: the log answers through the apply
// executor, and has the next group before the last one is applied.
//
// Order: groups are prepared, logged and applied in the order of the queue, and there is one append
// at a time in the log's hands, so that one that is refused lets none behind it get past.
//
// Locks: mutex_ guards the queue and the counters, trees_mutex_ the names, for moments only and
// never both.
//
// Internal to the store. Threads: as each part says.
#ifndef DYNLIB_STORE_STORE_IMPL_H_
#define DYNLIB_STORE_STORE_IMPL_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/signal.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_catalogue.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/store_recovery.h"
#include "dynlib/store/store_repair.h"
#include "dynlib/store/tree.h"

namespace dynlib::store {

class Store::Impl : public std::enable_shared_from_this<Store::Impl> {
 public:
  using Entry = NamedTree::Entry;

  Impl(const Options& options, Disk* disk, std::string dir, Executors executors, const Clock* clock,
       std::unique_ptr<NodeLog> log, std::unique_ptr<PageFile> pages,
       std::unique_ptr<DiskLock> lock);
  // Once, before anything else, after recovery: learns the names of the trees.
  absl::Status LoadCatalogue();
  // Before that, what recovery could not apply.
  void Owe(OwedWrites owed);
  // Instead of both: what is there cannot be all. The trees' names.
  void OnlyRead(const absl::Status& damage, const std::map<TreeId, std::string>& names);

  // The methods of Store.
  WriteResult WriteAndWait(StoreBatch batch, WriteOptions options);
  void Write(StoreBatch batch, WriteOptions options, Executor* executor, WriteDone done);
  absl::StatusOr<NamedTree> OpenTree(std::string_view name);
  void OpenTree(std::string_view name, Executor* executor,
                absl::AnyInvocable<void(absl::StatusOr<NamedTree>)> done);
  void DropTree(const NamedTree& tree, Executor* executor, Done done);
  absl::Status DropTree(const NamedTree& tree);
  bool Owns(const NamedTree& tree) const {
    return tree.entry_ == nullptr || tree.entry_->store == this;
  }
  std::optional<NamedTree> FindTree(std::string_view name) const;
  std::vector<std::string> ListTrees() const;

  Snapshot SnapshotOf(const NamedTree& tree) const {
    const Tree* found = TreeOf(tree);
    return found == nullptr ? Snapshot() : found->snapshot();
  }
  StoreSnapshot SnapshotAll(std::string_view label) const;
  void GetAsync(const NamedTree& tree, std::string_view key, Executor* executor,
                absl::AnyInvocable<void(absl::StatusOr<std::optional<std::string>>)> done);

  void Checkpoint(Executor* executor, Done done);
  absl::Status CheckpointAndWait(bool twice = false);
  void Close(Executor* executor, Done done);
  absl::Status CloseAndWait();
  void Stop();
  absl::Status Health() const;
  NodeLog::Stats LogStats() const;
  Stats GetStats() const;
  absl::Status Verify(PageFile::VerifyReport* report, const VerifyProgress& progress);
  absl::StatusOr<std::vector<DamagedRange>> Repair(const NamedTree& tree, const FetchRows& fetch);

  // Null for one that was dropped, or that is another store's. Nothing here is written: readers
  // share no counter.
  const Tree* TreeOf(const NamedTree& tree) const {
    if (tree.entry_ == nullptr) return default_tree_;
    const Entry& entry = *tree.entry_;
    if (entry.store != this || entry.dropped.load(std::memory_order_acquire)) return nullptr;
    return entry.tree.get();
  }

 private:
  // Making or dropping a tree; a write of its own in the order of the writes.
  struct TreeChange {
    std::string name;
    std::shared_ptr<Entry> entry;  // to be dropped; or what was made, or found
    bool drop = false;
    TreeId id{};  // of the one that is made
  };
  struct Request {
    StoreBatch batch;
    std::optional<TreeChange> change;
    std::function<absl::Status()> task;  // instead: run when all before it is applied
    bool repairs = false;                // a task that is run also when damage has stopped writes
    bool durable = true;
    uint64_t bytes = 0;
    WriteResult result;
    Executor* executor = nullptr;  // null: `done` is called where it stands, or a thread waits
    WriteDone done;
  };
  // What one thread waits for a group's answer on, where it may be called to lead before. A call
  // is a hint: who leads, by then, is found under the mutex.
  class Successor {
   public:
    void Call() { Change(kCalled); }
    void Answer() { Change(kAnswered); }
    // True: called, since the last time. False: answered.
    bool Wait();

   private:
    enum : uint32_t { kAsleep, kCalled, kAnswered };
    void Change(uint32_t state);

    std::atomic<uint32_t> state_{kAsleep};
  };
  // Writes that are logged and applied together.
  struct Group {
    std::vector<Request*> requests;
    std::vector<std::unique_ptr<Request>> owned;  // those that no waiting thread owns
    uint64_t bytes = 0;
    bool durable = false;  // one of them is
    bool ordered = false;  // has conditions or tree changes
    uint64_t last_sequence = 0;
    WriteBatch catalogue;         // what it changes in the catalogue
    PageFile::Prepared prepared;  // the pages that it makes, once they are made
    Signal answered;
    bool has_successor = false;
    Successor successor;  // the first of the threads that wait for it; the others: `answered`
  };
  using GroupPtr = std::shared_ptr<Group>;
  struct ToLog {
    LogRecord record;
    uint64_t bytes = 0;  // of pending_bytes_, given back once it is logged
    GroupPtr group;      // waits for it; null: was applied and answered before
  };

  static uint64_t BytesOf(const StoreBatch& batch);

  // store_queue.cc: the way of a write into the queue, and who leads.
  absl::Status CheckRequest(const Request& request) const;
  // OK while writes are taken.
  absl::Status HealthLocked() const { return health_.ok() ? damaged_ : health_; }
  absl::Status AdmitLocked(const Request& request) const;
  bool MayWaitLocked() const { return HealthLocked().ok() && !log_full_; }
  GroupPtr EnqueueLocked(Request* request);
  bool TakeLeadLocked();
  void Submit(std::unique_ptr<Request> request);
  void SubmitAndWait(Request& request);
  void TryAndWait(Request& request);
  bool TryLead();
  bool CallSuccessorLocked();
  // 16 threads: 1.5 times the writes a second. 64: less by a quarter, if threads led there too.
  static constexpr size_t kMostLedByThread = 16;
  void MakeRoomInLog();
  void RetryLog();
  bool TakeRetry();
  void PostDrive();

  // store_commit.cc: the way from there.
  void Drive(const Group* own);
  bool CanTakeLocked() const { return !queue_.empty() && !durable_in_log_ && !waiting_for_pages_; }
  void WaitForPages();
  void Start(GroupPtr group, bool own);
  void Logged(absl::Status status);
  bool Prepare(Group& group);
  absl::Status PrepareRequest(Group& group, size_t index);
  void PumpLog();
  void HandleLogged(const absl::Status& status, bool own);
  void AnswerAll(std::vector<GroupPtr> groups, bool own);
  GroupPtr TakeBehind();
  void Apply(Group& group);
  absl::StatusOr<PageFile::Prepared> PrepareTrees(const Group& group);
  void PreparePages(Group& group);
  absl::Status ApplyToTrees(Group& group);
  void Answer(Group& group);
  void Count(const Group& group);
  static bool Alone(const Request& request) {
    return request.change.has_value() || request.task != nullptr;
  }
  void Refuse(const GroupPtr& group, const absl::Status& why, bool own);
  void GiveBackLocked(uint64_t bytes);
  void FailLocked(const absl::Status& why);
  bool CloseIfIdleLocked();
  // Null once the Store is gone.
  std::shared_ptr<NodeLog> Log() const;

  // store_conditions.cc.
  absl::Status CheckConditions(const Group& group, size_t index);
  absl::StatusOr<std::string> WhyNot(const Group& group, size_t index,
                                     const StoreBatch::Condition& condition);
  absl::StatusOr<std::optional<std::string>> ValueBefore(const Group& group, size_t index,
                                                         const StoreBatch::Condition& condition);
  static size_t RecentSlot(const NamedTree& tree, std::string_view key);
  uint64_t LastWriteOf(const StoreBatch::Condition& condition);
  void NoteWritten(const Request& request);

  // store_trees.cc.
  static absl::Status CheckName(std::string_view name);
  absl::StatusOr<TreeChange> Dropping(const NamedTree& tree) const;
  absl::Status PrepareChange(TreeChange& change, bool* nothing_to_do);
  absl::Status ApplyChange(TreeChange& change, WriteBatch& catalogue);
  void ForgetReleasedLocked() const;
  std::shared_ptr<Entry> AddEntry(std::string_view name, TreeId id);

  // store_stats.cc.
  void BlameSnapshots(Stats& stats) const;
  std::string NameOf(TreeId tree) const;

  // store_repair.cc.
  absl::Status RepairFor(const Group& group);
  void Owe(const Group& group, const absl::Status& why);
  void StopForDamage();
  absl::Status PayOwed();

  // store_rest.cc. Steps run on the checkpoint executor, one at a time.
  void WatchForRest();
  void RunAtRest(Duration delay, void (Impl::*step)());
  bool StillAtRest();
  void EndRest();
  void LookForRest();
  void CompactPortion();
  void PortionCompacted(const Tree::CompactStep& step, const absl::Status& status);
  Duration PauseAfter(uint64_t bytes) const;
  bool ReleaseLog();
  void FinishRest();
  void ReleaseShortRuns();

  // store_checkpoint.cc.
  absl::Status RunCheckpoint(bool twice);
  void CheckpointIfDue(bool log_is_full);
  void MakeMemoryIfDue();

  const Options options_;
  Disk* const disk_;
  const std::string dir_;
  const Executors executors_;
  const Clock* const clock_;
  const uint64_t max_group_bytes_;
  const std::unique_ptr<DiskLock> lock_;
  const std::unique_ptr<PageFile> pages_;
  Tree* const default_tree_;
  Tree* const catalogue_;

  mutable std::mutex mutex_;
  std::shared_ptr<NodeLog> log_;
  absl::Status health_;
  absl::Status refused_;  // what those in the queue get, once nothing is taken any more
  absl::Status damaged_;  // likewise, until a repair: writes are owed
  std::deque<GroupPtr> queue_;
  bool leading_ = false;
  bool durable_in_log_ = false;         // a group waits for the log
  bool waiting_for_pages_ = false;      // for a checkpoint to write dirty pages
  bool pages_full_ = false;             // it did not: who is next is refused
  std::optional<absl::Status> logged_;  // the log has answered; for whoever leads
  uint64_t pending_bytes_ = 0;
  bool log_full_ = false;  // the last append was refused
  bool retry_log_ = false;
  uint64_t bytes_since_checkpoint_ = 0;
  bool checkpoint_due_ = false;  // one is posted
  absl::Status last_checkpoint_;
  uint64_t writes_ = 0;
  uint64_t groups_ = 0;
  uint64_t conditions_failed_ = 0;
  struct Closing {
    Executor* executor;
    Done done;
  };
  std::optional<Closing> closing_;
  bool closed_ = false;
  bool read_only_ = false;  // there is no log
  // Changes when pending_bytes_ shrinks or health_ changes; what writers for whom there is no room
  // wait on.
  std::atomic<uint32_t> room_{0};
  uint32_t waiting_for_room_ = 0;

  struct Rest {
    bool watching = false;  // a timer or a step of it is under way
    uint64_t writes = 0;    // writes_ when the rest began, if it is one
    Executor::TimerId timer = Executor::kNoTimer;
  };
  Rest rest_;

  // Of the steps of a rest.
  std::vector<NamedTree> rest_trees_;  // still to be packed
  std::string rest_from_;              // where in the last of them
  uint64_t rest_rewritten_ = 0;        // bytes since a checkpoint
  PageFile::ReleaseProgress rest_release_;

  std::atomic<bool> making_memory_{false};  // a task is posted

  // Of whoever leads.
  uint64_t last_sequence_ = 0;
  OwedWrites owed_;
  GroupEncoder encoder_;
  std::deque<ToLog> to_log_;
  size_t logging_ = 0;  // how many of to_log_ are in the log's hands
  uint64_t next_tree_id_ = kFirstNamedTree;
  // By hash of tree and key, the newest sequence that may have written it; made when first asked
  // for.
  std::vector<uint64_t> recent_;

  mutable std::mutex trees_mutex_;
  std::map<std::string, std::shared_ptr<Entry>, std::less<>> trees_;
  // In the order in which they were taken; those that are gone are removed now and then.
  mutable std::deque<std::weak_ptr<const StoreSnapshot::Pin>> snapshots_;
  mutable size_t snapshots_held_ = 0;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_IMPL_H_
