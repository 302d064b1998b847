// The writing half of a NodeLog: what its methods share with whoever writes.
//
// Appends gather in batches; each batch is one write. One thread at a time writes: it holds the
// *role*. That is either a task on the log's executor or a thread that waits for its own append
// (an inline leader). Who has written a batch passes the role on, to a thread that waits for the
// next batch if there is one, and only then answers its own batch: so the next batch is written
// while the last one's threads wake up.
//
// Three kinds of state:
//  - the queue, the role and the counters, under mutex_, held for a few stores;
//  - the index, under index_mutex_. A batch that is durable is handed to it at once and counted in
//    when somebody next looks (CatchUpLocked), so that nobody waits for that;
//  - the active segment and the numbers of the batches, which belong to the role.
// No mutex is held across a file call. Where both are taken, mutex_ comes first.
//
// What is not on an append's way is the task's alone: making segments, giving them back, copying
// forward, refusing when space is out, closing. Each task does a bounded piece of work (one batch,
// one piece of copying, a megabyte of a new segment) and posts the next.
//
// Threads: as each part says.
#ifndef DYNLIB_STORE_NODE_LOG_WRITER_H_
#define DYNLIB_STORE_NODE_LOG_WRITER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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
#include "dynlib/store/aligned_buffer.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_index.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/node_log_recovery.h"
#include "dynlib/store/node_log_segments.h"

namespace dynlib::store {

// Appends that are written together.
struct NodeLog::Batch {
  struct Pending {
    std::vector<LogRecord> records;
    std::optional<StreamId> drop;  // Instead of records.
    // Who is answered: one of these, or nobody (a drop).
    Executor* executor = nullptr;
    absl::AnyInvocable<void(absl::Status)> done;
    PendingAppend* append = nullptr;
  };

  // Under mutex_ until the batch is taken from the queue, then of the role, then of who answers.
  std::vector<Pending> pending;
  uint64_t bytes = 0;
  uint64_t appends = 0;  // Of `pending`, those that are no drops.
  Instant since;         // Of the first append.
  // Some of it nobody waits for: the task sees to it if nobody else does.
  bool wants_task = false;
  bool queued = true;
  // A thread waits for `lead`, and may be handed the role.
  bool has_candidate = false;

  // What became of it; valid once `settled` is not 0.
  absl::Status status;
  std::atomic<uint32_t> settled{0};
  enum Lead : uint32_t { kWait, kHasRole, kIsSettled };
  std::atomic<uint32_t> lead{kWait};
};

// What a thread that waits for an append does while the bytes are on their way, once, and how it
// waits for the disk if it writes the batch.
class NodeLog::Meanwhile {
 public:
  explicit Meanwhile(DiskWait wait) : wait_(wait), ran_(true) {}
  Meanwhile(absl::FunctionRef<void()> work, DiskWait wait) : work_(work), wait_(wait) {}
  void Run() {
    if (!std::exchange(ran_, true)) (*work_)();
  }
  bool has_work() const { return !ran_; }
  DiskWait wait() const { return wait_; }

 private:
  const std::optional<absl::FunctionRef<void()>> work_;
  const DiskWait wait_;
  bool ran_ = false;
};

class NodeLog::Impl : public std::enable_shared_from_this<NodeLog::Impl> {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  Impl(const Options& options, Disk* disk, std::string dir, Executor* log_executor,
       const Clock* clock, MetricsSink* metrics, std::unique_ptr<DiskLock> lock, LogIndex index,
       const RecoveredLog& recovered);

  // Takes over the files, makes the first segment if there is none, and makes durable what recovery
  // learnt about losses. Once, where file calls are allowed, before anything else.
  absl::Status Start(const RecoveredLog& recovered);

  // The methods of NodeLog. Any thread.
  void Append(std::vector<LogRecord> records, Executor* executor, Done done);
  absl::Status Append(std::vector<LogRecord> records, PendingAppend* append);
  // `meanwhile` is run before this returns.
  absl::Status Wait(const std::shared_ptr<Batch>& batch, Meanwhile& meanwhile);
  void Release(StreamId stream, uint64_t through_slot);
  void Drop(StreamId stream);
  void ReleaseSpace();
  void Close(Executor* executor, Done done);
  void Stop();
  std::optional<Instant> OldestPendingSince() const;
  void SetArchived(StreamId stream, uint64_t through_slot);
  uint64_t RetainedBytes(StreamId stream) const;
  uint64_t UnarchivedBytes(StreamId stream) const;
  absl::Status Health() const;
  uint64_t LastDurableBatch() const;
  Stats GetStats() const;
  absl::Status ReadEntries(StreamId stream, uint64_t after_slot,
                           absl::FunctionRef<absl::Status(LogRecord)> take) const;
  absl::StatusOr<uint64_t> Verify(absl::FunctionRef<bool(uint64_t)> go_on,
                                  absl::FunctionRef<void(const absl::Status&)> fault) const;

 private:
  using Pending = Batch::Pending;
  using BatchRef = std::shared_ptr<Batch>;

  struct EntryPlace {
    uint64_t slot = 0;
    LogIndex::Ref ref;
    LogIndex::Segment segment;  // Its generation and number alone.
  };
  std::optional<EntryPlace> FindEntryAfter(StreamId stream, uint64_t after_slot) const;

  struct Answer {
    Executor* executor = nullptr;
    Done done;
    absl::Status status;
  };
  // What one batch is made of.
  struct Plan {
    BatchRef batch;  // Null: appends are not concerned.
    std::vector<FrameInfo> marks;
    std::vector<uint64_t> frees;
    std::vector<FrameInfo> frames;  // All of them, in order.
    std::vector<std::string_view> payloads;
    std::vector<std::string_view> rests;  // of each, what follows its payload
    std::deque<std::string> copied;       // What some payloads point into.
    uint64_t payload_bytes = 0;
    uint64_t records = 0;  // Of the appends.
    uint64_t copied_from = 0;

    void Add(const FrameInfo& frame, std::string_view payload = {}, std::string_view rest = {});
    uint64_t Length(uint32_t block_bytes) const;
  };
  struct Copying {
    LogIndex::Segment source;
    std::vector<LogIndex::LiveRecord> records;
    size_t next = 0;
  };
  struct Active {
    uint64_t number = 0;
    uint64_t generation = 0;
    uint64_t first_sequence = 0;
    uint64_t bytes = 0;
    uint64_t offset = 0;
    bool begun = false;  // Its header is on disk, and it is in the index.
    std::unique_ptr<File> file;
  };
  struct Durable {
    BatchHeader header;
    uint64_t offset = 0;
  };

  // Appends: node_log_appends.cc.
  absl::Status Enqueue(Pending& pending, uint64_t bytes);
  absl::Status CheckUnarchived(const std::vector<LogRecord>& records);
  void LeadInline(Meanwhile& meanwhile);
  void ReleaseRole();
  void AnswerSettled();
  void AnswerBatch(Batch& batch);
  void TellListeners(Batch& batch);
  static void Deliver(std::vector<Answer> answers);
  // With mutex_ held.
  absl::Status AdmitLocked(uint64_t bytes);
  const BatchRef& OpenBatchLocked(const Pending& pending, uint64_t bytes);
  bool MayLeadLocked(const Batch& batch) const;
  void WakeLocked();
  bool HasWorkLocked() const;
  bool IsDroppedLocked(StreamId stream) const;
  void SettleLocked(BatchRef batch, absl::Status status);
  void SettleQueueLocked(const absl::Status& status);
  void SettleCloseLocked(const absl::Status& status);

  // With the role: node_log_writer.cc.
  enum class Wrote { kSomething, kNothing, kNeedsTask };
  // `meanwhile`: of a thread that leads inline; null in the task.
  Wrote WriteQueued(Meanwhile* meanwhile);
  BatchRef TakeBatchLocked();
  Plan PlanBatch(BatchRef batch);
  void PlanMarksLocked(Plan& plan, size_t max_frames);  // With index_mutex_ held.
  absl::Status Write(Plan& plan, Meanwhile* meanwhile = nullptr);
  bool HasRoom(const Plan& plan) const;
  bool MakeRoomNow(Plan& plan);
  absl::Status MakeRoom(Plan& plan);
  absl::Status NameHolder(const absl::Status& why) const;
  void BeginSegment(SegmentFiles::Segment segment, Plan& plan);
  absl::Status WriteHere(Plan& plan, Meanwhile* meanwhile = nullptr);
  absl::Status WriteAndSync(const Plan& plan, uint64_t offset, std::string_view bytes,
                            Meanwhile* meanwhile);
  void Written(Plan& plan, BatchHeader header);
  bool FreeSomething();
  void Unplan(Plan& plan);
  void Refuse(const absl::Status& why);
  void CloseForGood(Plan& plan, const absl::Status& why);
  absl::Status LogLosses(const RecoveredLog& recovered);
  absl::Status Activate(uint64_t generation, uint64_t offset);

  // In the task: node_log_housekeeping.cc.
  void Step();
  bool TakeRole();
  bool StepWithRole();
  void ReturnFreed();
  bool PrepareSpare();
  bool Shrink();       // With the role.
  bool CopyForward();  // With the role.
  void TryClose();     // With the role.
  bool IsClosing() const;
  bool MayRollLocked() const;
  bool BeginCopying();
  absl::Status PlanCopy(Plan& plan);
  absl::Status PlanCopyOf(const LogIndex::LiveRecord& record, Plan& plan);

  // With index_mutex_ held.
  void CatchUpLocked() const;
  std::optional<uint64_t> CopyVictimLocked() const;
  uint64_t CopiedBytes(const LogIndex::Segment& segment) const;
  void NoteIndexLocked() const;
  void NameHoldersLocked(Stats& stats) const;

  const Options options_;
  const uint64_t max_batch_bytes_;
  const size_t max_marks_;  // Frames of marks in one batch.
  const uint64_t rest_bytes_;
  Disk* const disk_;
  const std::string dir_;
  Executor* const log_executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  mutable std::mutex mutex_;
  std::deque<BatchRef> queue_;
  uint64_t queued_bytes_ = 0;  // With what is being written.
  uint64_t queued_appends_ = 0;
  uint64_t queued_drops_ = 0;
  std::optional<Instant> writing_since_;
  bool has_role_ = false;         // Somebody writes, or is handed the writing.
  bool task_has_role_ = false;    // The task that is posted does.
  bool task_wants_role_ = false;  // It is to be handed it before anybody else.
  bool running_ = false;          // A task is posted or runs.
  bool blocked_ = false;  // The last try found no space: no work of its own accord until a call.
  bool stopped_ = false;  // The NodeLog is gone.
  // Since ReleaseSpace: not done yet; and, until the next append, no spares.
  bool shrinking_ = false;
  bool small_ = false;
  absl::Status health_;
  std::optional<Answer> close_;
  std::deque<BatchRef> settled_;  // To be answered, in this order.
  bool answering_ = false;        // Somebody does.
  size_t last_batch_size_ = 1;
  std::vector<LogIndex::Segment> freed_;  // Files to be given back.
  Stats stats_;

  mutable std::mutex index_mutex_;
  mutable LogIndex index_;
  mutable std::deque<Durable> durable_;  // Not yet in the index.
  uint64_t active_generation_ = 0;
  // What the index has to say in the next batch: marks, or segments to free.
  mutable std::atomic<bool> index_has_marks_{false};
  mutable std::atomic<bool> index_has_dead_{false};
  mutable std::atomic<bool> index_has_full_{false};  // Archived streams at their bound.

  // Of the role.
  std::unique_ptr<DiskLock> lock_;
  SegmentFiles files_;  // Takes care of itself.
  Active active_;
  std::atomic<uint64_t> spare_pace_{0};  // where active_ is, for the task
  uint64_t last_sequence_;
  uint64_t last_checksum_;
  uint64_t last_generation_;
  AlignedBuffer buffer_;

  // Of the task.
  std::optional<Copying> copying_;
  PayloadReader reader_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_WRITER_H_
