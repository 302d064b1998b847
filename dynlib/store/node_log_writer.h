// The writing half of a NodeLog: what its methods share with the task that writes.
//
// The queue, the index and the counters are under a mutex that is never held across a file call.
// The files, the position in the active segment and the copying belong to the writer's task: there
// is at most one at a time on the log's executor, each does a bounded piece of work (one batch, one
// piece of copying, a megabyte of a new segment) and posts the next.
//
// Threads: as each part says.
#ifndef DYNLIB_STORE_NODE_LOG_WRITER_H_
#define DYNLIB_STORE_NODE_LOG_WRITER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_index.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/node_log_recovery.h"
#include "dynlib/store/node_log_segments.h"

namespace dynlib::store {

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
  void Release(StreamId stream, uint64_t through_slot);
  void Drop(StreamId stream);
  void Close(Executor* executor, Done done);
  void Stop();
  std::optional<Instant> OldestPendingSince() const;
  uint64_t RetainedBytes(StreamId stream) const;
  absl::Status Health() const;
  Stats GetStats() const;

 private:
  struct Answer {
    Executor* executor = nullptr;
    Done done;
    absl::Status status;
  };
  struct Pending {
    std::vector<LogRecord> records;
    std::optional<StreamId> drop;  // Instead of records.
    uint64_t bytes = 0;
    Instant since;
    Executor* executor = nullptr;
    Done done;
  };
  // What one batch is made of.
  struct Plan {
    std::deque<Pending> taken;
    std::vector<FrameInfo> marks;
    std::vector<uint64_t> frees;
    std::vector<FrameInfo> frames;  // All of them, in order.
    std::vector<std::string_view> payloads;
    std::deque<std::string> copied;  // What some payloads point into.
    uint64_t payload_bytes = 0;
    uint64_t copied_from = 0;

    void Add(const FrameInfo& frame, std::string_view payload = {});
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
    uint64_t offset = 0;
    bool begun = false;  // Its header is on disk, and it is in the index.
    std::unique_ptr<File> file;
  };

  // With the mutex held.
  void WakeLocked();
  bool HasWorkLocked() const;
  Plan PlanBatchLocked();
  void PlanMarksLocked(Plan& plan, size_t max_frames);
  std::optional<uint64_t> CopyVictimLocked() const;
  std::vector<Answer> TakeQueueLocked(const absl::Status& status);

  // In the writer's task.
  void Step();
  bool WriteQueued();
  bool CopyForward();
  bool PrepareSpare();
  bool TryClose();
  absl::Status Write(Plan& plan);
  absl::Status MakeRoom(Plan& plan);
  absl::Status WriteHere(Plan& plan);
  absl::Status WriteAndSync(uint64_t offset, std::string_view bytes);
  void Settle(Plan& plan, const BatchHeader& header);
  bool FreeSomething();
  void Unplan(Plan& plan);
  void Refuse(size_t count, const absl::Status& why);
  void CloseForGood(Plan& plan, const absl::Status& why);
  bool BeginCopying();
  absl::Status PlanCopy(Plan& plan);
  absl::Status PlanCopyOf(const LogIndex::LiveRecord& record, Plan& plan);
  absl::Status LogLosses(const RecoveredLog& recovered);
  absl::Status Activate(uint64_t generation, uint64_t offset);
  void CountFiles();

  static void Deliver(std::vector<Answer> answers);

  const Options options_;
  const uint64_t max_batch_bytes_;
  // Kept free at the end of each segment for batches that free others.
  const uint64_t reserve_bytes_;
  const size_t max_marks_;  // Frames of marks in one batch.
  Disk* const disk_;
  const std::string dir_;
  Executor* const log_executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  mutable std::mutex mutex_;
  std::deque<Pending> queue_;
  uint64_t queued_bytes_ = 0;  // With what is being written.
  uint64_t queued_drops_ = 0;
  std::optional<Instant> writing_since_;
  bool running_ = false;  // A task of the writer is posted or runs.
  bool blocked_ = false;  // The last try found no space: no work of its own accord until a call.
  bool stopped_ = false;  // The NodeLog is gone.
  absl::Status health_;
  std::optional<Answer> close_;
  LogIndex index_;
  uint64_t active_generation_ = 0;
  Stats stats_;

  // Of the writer's task.
  std::unique_ptr<DiskLock> lock_;
  SegmentFiles files_;
  Active active_;
  uint64_t last_sequence_;
  uint64_t last_checksum_;
  uint64_t last_generation_;
  std::optional<Copying> copying_;
  PayloadReader reader_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_WRITER_H_
