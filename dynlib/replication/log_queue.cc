#include "dynlib/replication/log_queue.h"

#include <algorithm>

namespace dynlib::replication {
namespace {

constexpr Duration kRetry = std::chrono::milliseconds(50);

size_t BytesOf(const LogFrame& frame) {
  return ReplicaLog::kFrameOverheadBytes + frame.header.size() +
         (frame.payload == nullptr ? 0 : frame.payload->size());
}

}  // namespace

LogQueue::LogQueue(ReplicaLog* log, Executor* executor, const Clock* clock, MetricsSink* metrics)
    : log_(log),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      last_append_(clock->Now()) {}

void LogQueue::OnDurable(absl::AnyInvocable<void(const Marks&)> callback) {
  on_durable_ = std::move(callback);
}

void LogQueue::OnClosed(absl::AnyInvocable<void(absl::Status)> callback) {
  on_closed_ = std::move(callback);
}

void LogQueue::Append(Batch batch) {
  last_append_ = clock_->Now();
  const size_t bytes_max = log_->append_bytes_max();
  size_t total = 0;
  for (const LogFrame& frame : batch.frames) total += BytesOf(frame);
  if (total <= bytes_max) return Enqueue(std::move(batch));
  Batch part;
  part.frames.reserve(batch.frames.size());
  size_t bytes = 0;
  for (LogFrame& frame : batch.frames) {
    const size_t size = BytesOf(frame);
    if (!part.frames.empty() && bytes + size > bytes_max) {
      Enqueue(std::exchange(part, {}));
      bytes = 0;
    }
    bytes += size;
    part.frames.push_back(std::move(frame));
  }
  part.marks = std::move(batch.marks);
  Enqueue(std::move(part));
}

void LogQueue::AfterAll(absl::AnyInvocable<void(absl::Status)> done) {
  if (batches_.empty()) {
    executor_->Post([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  waiting_.push_back({first_ + batches_.size(), std::move(done)});
}

void LogQueue::Enqueue(Batch batch) {
  batches_.push_back(std::move(batch));
  if (!blocked_) GiveToLog(first_ + batches_.size() - 1);
}

void LogQueue::GiveToLog(uint64_t index) {
  ++at_log_;
  log_->Append(batches_[index - first_].frames,
               [self = shared_from_this(), index](absl::Status status) {
                 self->OnAppended(index, std::move(status));
               });
}

void LogQueue::OnAppended(uint64_t index, absl::Status status) {
  --at_log_;
  if (stopped_) return;
  if (status.ok()) {
    // What came after one that did not fit is given again too: the newest state must be the last in
    // the log. What came before it stands, also when its answer comes later: so each round of
    // retries gets further, however much waits.
    if (!blocked_ || index < refused_from_) batches_[index - first_].durable = true;
  } else if (status.code() == absl::StatusCode::kResourceExhausted) {
    refused_from_ = blocked_ ? std::min(refused_from_, index) : index;
    blocked_ = true;
    metrics_->Count("replication.log_full", 1);
  } else {
    Close(status);
    return;
  }
  DeliverDurable();
  if (blocked_ && at_log_ == 0 && !retry_scheduled_) {
    retry_scheduled_ = true;
    executor_->RunAt(clock_->Now() + kRetry, [self = shared_from_this()] { self->Retry(); });
  }
}

void LogQueue::DeliverDurable() {
  while (!batches_.empty() && batches_.front().durable) {
    const Batch batch = std::move(batches_.front());
    batches_.pop_front();
    ++first_;
    on_durable_(batch.marks);
  }
  while (!waiting_.empty() && waiting_.front().end <= first_) {
    auto done = std::move(waiting_.front().done);
    waiting_.pop_front();
    done(absl::OkStatus());
  }
}

void LogQueue::Retry() {
  retry_scheduled_ = false;
  if (stopped_) return;
  blocked_ = false;
  const uint64_t end = first_ + batches_.size();
  for (uint64_t index = first_; index < end; ++index) GiveToLog(index);
}

void LogQueue::Close(const absl::Status& status) {
  stopped_ = true;
  on_closed_(status);
  for (Waiting& waiting : std::exchange(waiting_, {})) waiting.done(status);
}

void LogQueue::Stop() {
  if (stopped_) return;
  stopped_ = true;
  for (Waiting& waiting : std::exchange(waiting_, {})) {
    executor_->Post(
        [done = std::move(waiting.done)]() mutable { done(absl::CancelledError("shut down")); });
  }
}

}  // namespace dynlib::replication
