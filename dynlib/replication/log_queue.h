// What the groups of a node give to its log, in order, and again when it did not fit.
//
//   LogQueue queue(&log, executor, &clock, metrics);
//   queue.OnDurable([](const LogQueue::Marks& marks) { ... });   // in the order of the appends
//   queue.OnClosed([](absl::Status why) { ... });                // rule L3: for good
//   queue.Append({.frames = ..., .marks = {{partition, record}}});
//
// The log answers in order. A batch that did not fit is given again with all that came after it,
// since the newest state of a group must be the last in the log.
//
// Threads: one executor's. The log calls back on it.
#ifndef DYNLIB_REPLICATION_LOG_QUEUE_H_
#define DYNLIB_REPLICATION_LOG_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/replica_log.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::replication {

class LogQueue : public std::enable_shared_from_this<LogQueue> {
 public:
  // Whom to tell, and of which of its records.
  using Marks = std::vector<std::pair<PartitionId, uint64_t>>;
  struct Batch {
    std::vector<LogFrame> frames;
    Marks marks;
    bool durable = false;
  };

  LogQueue(ReplicaLog* log, Executor* executor, const Clock* clock, MetricsSink* metrics);

  void OnDurable(absl::AnyInvocable<void(const Marks&)> callback);
  void OnClosed(absl::AnyInvocable<void(absl::Status)> callback);

  // As many appends as the log's bound asks for; the marks are durable with the last.
  void Append(Batch batch);
  // `done` is called when all that was appended before is durable (at once if it is), with the
  // log's status when it closes, or with kCancelled by Stop.
  void AfterAll(absl::AnyInvocable<void(absl::Status)> done);

  // The log has no room.
  bool blocked() const { return blocked_; }
  // Nothing is with the log or waits for room.
  bool idle() const { return at_log_ == 0 && !blocked_; }
  Instant last_append() const { return last_append_; }

  // No more callbacks of the above.
  void Stop();

 private:
  struct Waiting {
    uint64_t end;  // Until every batch before this index is durable.
    absl::AnyInvocable<void(absl::Status)> done;
  };

  void Enqueue(Batch batch);
  void GiveToLog(uint64_t index);
  void OnAppended(uint64_t index, absl::Status status);
  void DeliverDurable();
  void Retry();
  void Close(const absl::Status& status);

  ReplicaLog* const log_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  absl::AnyInvocable<void(const Marks&)> on_durable_;
  absl::AnyInvocable<void(absl::Status)> on_closed_;

  bool stopped_ = false;
  std::deque<Batch> batches_;
  uint64_t first_ = 0;  // Index of batches_.front().
  size_t at_log_ = 0;   // Given to the log and not yet answered.
  bool blocked_ = false;
  uint64_t refused_from_ = 0;  // While blocked: the first batch that did not fit.
  bool retry_scheduled_ = false;
  Instant last_append_;
  std::deque<Waiting> waiting_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_LOG_QUEUE_H_
