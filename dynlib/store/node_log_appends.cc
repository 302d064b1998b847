// Appends from the call to the answer: the queue, the role of the writer, answering in order.
#include <algorithm>
#include <utility>

#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_writer.h"

namespace dynlib::store {
namespace {

absl::Status CheckRecords(const std::vector<LogRecord>& records, uint64_t bytes, uint64_t max) {
  if (records.empty()) return absl::InvalidArgumentError("an append without records");
  for (const LogRecord& record : records) {
    if (ToUint(record.stream) == 0) return absl::InvalidArgumentError("stream 0");
    if (record.kind != RecordKind::kEntry && record.kind != RecordKind::kState) {
      return absl::InvalidArgumentError(
          Cat("record kind ", static_cast<uint64_t>(record.kind), " does not exist"));
    }
  }
  if (bytes <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("an append of ", bytes, " bytes; max_batch_bytes is ", max));
}

uint64_t BytesOf(const std::vector<LogRecord>& records) {
  uint64_t bytes = 0;
  for (const LogRecord& record : records) {
    bytes += record.payload_bytes() + NodeLog::kRecordOverheadBytes;
  }
  return bytes;
}

void WaitWhile(const std::atomic<uint32_t>& word, uint32_t value) {
  while (word.load(std::memory_order_acquire) == value) {
    word.wait(value, std::memory_order_acquire);
  }
}

}  // namespace

void NodeLog::Impl::Append(std::vector<LogRecord> records, Executor* executor, Done done) {
  const uint64_t bytes = BytesOf(records);
  Pending pending = {.records = std::move(records), .executor = executor, .done = std::move(done)};
  absl::Status refused = Enqueue(pending, bytes);
  if (refused.ok()) return;
  std::vector<Answer> answers;
  answers.push_back({executor, std::move(pending.done), std::move(refused)});
  Deliver(std::move(answers));
}

absl::Status NodeLog::Impl::Append(std::vector<LogRecord> records, PendingAppend* append) {
  const uint64_t bytes = BytesOf(records);
  Pending pending = {.records = std::move(records), .append = append};
  append->log_ = shared_from_this();
  return Enqueue(pending, bytes);
}

// Takes `pending`, or says why not and leaves it.
absl::Status NodeLog::Impl::Enqueue(Pending& pending, uint64_t bytes) {
  DYNLIB_RETURN_IF_ERROR(CheckRecords(pending.records, bytes, max_batch_bytes_));
  if (index_has_full_) DYNLIB_RETURN_IF_ERROR(CheckUnarchived(pending.records));
  std::lock_guard lock(mutex_);
  DYNLIB_RETURN_IF_ERROR(AdmitLocked(bytes));
  const BatchRef& batch = OpenBatchLocked(pending, bytes);
  if (batch->appends++ == 0) batch->since = clock_->Now();
  ++queued_appends_;
  blocked_ = false;
  shrinking_ = false;
  if (std::exchange(small_, false)) WakeLocked();  // For a spare.
  if (pending.append == nullptr || !pending.append->waited_for_) batch->wants_task = true;
  if (pending.append != nullptr) pending.append->batch_ = batch;
  batch->pending.push_back(std::move(pending));
  if (batch->wants_task && !has_role_) WakeLocked();
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::CheckUnarchived(const std::vector<LogRecord>& records) {
  StreamId full{};
  uint64_t bytes = 0;
  {
    std::lock_guard lock(index_mutex_);
    CatchUpLocked();
    for (const LogRecord& record : records) {
      if (record.kind != RecordKind::kEntry) continue;
      if (!index_.full_streams().contains(record.stream)) continue;
      full = record.stream;
      bytes = index_.FindStream(full)->unarchived_bytes;
      break;
    }
  }
  if (ToUint(full) == 0) return absl::OkStatus();
  std::lock_guard lock(mutex_);
  ++stats_.refused_unarchived;
  return absl::ResourceExhaustedError(Cat(dir_, ": stream ", ToUint(full), " has ", bytes,
                                          " bytes that are not archived; max_unarchived_bytes is ",
                                          options_.max_unarchived_bytes));
}

absl::Status NodeLog::Impl::AdmitLocked(uint64_t bytes) {
  DYNLIB_RETURN_IF_ERROR(health_);
  if (close_.has_value()) return absl::UnavailableError(Cat(dir_, " is being closed"));
  if (queued_bytes_ + bytes <= options_.max_queued_bytes) return absl::OkStatus();
  ++stats_.refused_queue_full;
  return absl::ResourceExhaustedError(Cat(dir_, ": ", queued_bytes_,
                                          " bytes wait to be written; max_queued_bytes is ",
                                          options_.max_queued_bytes));
}

// The batch that `pending` goes to. A drop does not go behind records: it must not hit them.
const NodeLog::Impl::BatchRef& NodeLog::Impl::OpenBatchLocked(const Pending& pending,
                                                              uint64_t bytes) {
  const bool fits = !queue_.empty() && queue_.back()->bytes + bytes <= max_batch_bytes_ &&
                    !(pending.drop.has_value() && queue_.back()->appends > 0);
  if (!fits) {
    queue_.push_back(std::make_shared<Batch>());
    queue_.back()->pending.reserve(last_batch_size_);
  }
  queue_.back()->bytes += bytes;
  queued_bytes_ += bytes;
  return queue_.back();
}

// Waiting.

absl::Status NodeLog::Impl::Wait(const BatchRef& batch, Meanwhile& meanwhile) {
  bool lead = false;
  bool candidate = false;
  if (batch->settled.load(std::memory_order_acquire) == 0) {
    std::lock_guard lock(mutex_);
    lead = MayLeadLocked(*batch);
    if (lead) has_role_ = true;
    candidate = !lead && batch->queued && !batch->has_candidate;
    if (candidate) batch->has_candidate = true;
  }
  if (!lead) meanwhile.Run();
  if (candidate) {
    WaitWhile(batch->lead, Batch::kWait);
    lead = batch->lead.load(std::memory_order_relaxed) == Batch::kHasRole;
  }
  if (lead) LeadInline(meanwhile);
  meanwhile.Run();
  WaitWhile(batch->settled, 0);
  return batch->status;
}

bool NodeLog::Impl::MayLeadLocked(const Batch& batch) const {
  return !has_role_ && !task_wants_role_ && !stopped_ && health_.ok() && !queue_.empty() &&
         queue_.front().get() == &batch;
}

void NodeLog::Impl::LeadInline(Meanwhile& meanwhile) {
  const Wrote wrote = WriteQueued(&meanwhile);
  if (wrote == Wrote::kNeedsTask) {
    std::lock_guard lock(mutex_);
    task_wants_role_ = true;
  }
  ReleaseRole();
  AnswerSettled();
}

// Hands the role to whoever is to have it next.
void NodeLog::Impl::ReleaseRole() {
  BatchRef next;
  {
    std::lock_guard lock(mutex_);
    has_role_ = false;
    task_has_role_ = false;
    if (stopped_ || !health_.ok()) return;
    if (task_wants_role_) {
      task_wants_role_ = false;
      has_role_ = task_has_role_ = true;
      WakeLocked();
    } else if (!queue_.empty() && queue_.front()->has_candidate) {
      has_role_ = true;
      next = queue_.front();
    } else if (HasWorkLocked()) {
      WakeLocked();
    }
  }
  if (next == nullptr) return;
  next->lead.store(Batch::kHasRole, std::memory_order_release);
  next->lead.notify_one();
}

void NodeLog::Impl::WakeLocked() {
  if (running_ || stopped_ || !health_.ok()) return;
  running_ = true;
  log_executor_->Post([self = shared_from_this()] { self->Step(); });
}

// Whether there is something for the task to write that nobody else may see to.
bool NodeLog::Impl::HasWorkLocked() const {
  if (close_.has_value()) return true;
  const auto wants_task = [](const BatchRef& batch) {
    return batch->appends > 0 && batch->wants_task;
  };
  if (queued_appends_ > 0 && std::any_of(queue_.begin(), queue_.end(), wants_task)) return true;
  if (blocked_) return false;
  return queued_drops_ > 0 || index_has_dead_;
}

// Answering.

void NodeLog::Impl::SettleLocked(BatchRef batch, absl::Status status) {
  queued_bytes_ -= batch->bytes;
  batch->status = std::move(status);
  settled_.push_back(std::move(batch));
}

// What is queued gets `status`.
void NodeLog::Impl::SettleQueueLocked(const absl::Status& status) {
  for (BatchRef& batch : queue_) {
    batch->queued = false;
    SettleLocked(std::move(batch), status);
  }
  queue_.clear();
  queued_appends_ = 0;
  queued_drops_ = 0;
  SettleCloseLocked(status);
}

// Closing is answered as an append would be, so after all of them.
void NodeLog::Impl::SettleCloseLocked(const absl::Status& status) {
  if (!close_.has_value()) return;
  auto batch = std::make_shared<Batch>();
  batch->pending.push_back({.executor = close_->executor, .done = std::move(close_->done)});
  close_.reset();
  SettleLocked(std::move(batch), status);
}

// Answers what is settled, unless somebody is at it: then they do.
void NodeLog::Impl::AnswerSettled() {
  std::unique_lock lock(mutex_);
  if (answering_) return;
  answering_ = true;
  while (!settled_.empty()) {
    const BatchRef batch = std::move(settled_.front());
    settled_.pop_front();
    lock.unlock();
    AnswerBatch(*batch);
    lock.lock();
  }
  answering_ = false;
  if (!has_role_ && HasWorkLocked()) WakeLocked();
}

void NodeLog::Impl::AnswerBatch(Batch& batch) {
  TellListeners(batch);
  std::vector<Answer> answers;
  for (Pending& pending : batch.pending) {
    if (pending.executor == nullptr) continue;
    answers.push_back({pending.executor, std::move(pending.done), batch.status});
  }
  Deliver(std::move(answers));
  batch.settled.store(1, std::memory_order_release);
  batch.settled.notify_all();
  batch.lead.store(Batch::kIsSettled, std::memory_order_release);
  if (batch.has_candidate) batch.lead.notify_one();
  batch.pending.clear();
  // Last: nobody waits for it.
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
}

// A call for each listener that the batch's appends name: mostly one.
void NodeLog::Impl::TellListeners(Batch& batch) {
  std::vector<PendingAppend*> appends;
  for (size_t i = 0; i < batch.pending.size(); ++i) {
    PendingAppend* const first = batch.pending[i].append;
    if (first == nullptr || first->listener_ == nullptr) continue;
    Listener* const listener = first->listener_;
    appends.clear();
    for (size_t j = i; j < batch.pending.size(); ++j) {
      PendingAppend*& append = batch.pending[j].append;
      if (append == nullptr || append->listener_ != listener) continue;
      appends.push_back(std::exchange(append, nullptr));
    }
    listener->OnSettled(appends, batch.status);
  }
}

// One task for each executor, in the order of the answers.
void NodeLog::Impl::Deliver(std::vector<Answer> answers) {
  std::vector<std::pair<Executor*, std::vector<Answer>>> by_executor;
  for (Answer& answer : answers) {
    if (answer.done == nullptr) continue;
    auto it = std::find_if(by_executor.begin(), by_executor.end(),
                           [&](const auto& group) { return group.first == answer.executor; });
    if (it == by_executor.end()) {
      by_executor.emplace_back(answer.executor, std::vector<Answer>());
      it = std::prev(by_executor.end());
    }
    it->second.push_back(std::move(answer));
  }
  for (auto& [executor, group] : by_executor) {
    executor->Post([group = std::move(group)]() mutable {
      for (Answer& answer : group) std::move(answer.done)(std::move(answer.status));
    });
  }
}

// The other methods of NodeLog.

void NodeLog::Impl::Release(StreamId stream, uint64_t through_slot) {
  {
    std::lock_guard lock(mutex_);
    if (!health_.ok() || stopped_) return;
    // What is about to be dropped needs no release; and the release could hit its successor.
    if (queued_drops_ > 0 && IsDroppedLocked(stream)) return;
  }
  {
    std::lock_guard lock(index_mutex_);
    CatchUpLocked();
    if (index_.FindStream(stream) == nullptr) return;
    index_.Release(stream, through_slot);
    NoteIndexLocked();
  }
  if (!index_has_dead_) return;
  std::lock_guard lock(mutex_);
  blocked_ = false;
  if (!has_role_) WakeLocked();
}

void NodeLog::Impl::SetArchived(StreamId stream, uint64_t through_slot) {
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
  index_.SetArchived(stream, through_slot);
  NoteIndexLocked();
}

bool NodeLog::Impl::IsDroppedLocked(StreamId stream) const {
  const auto drops = [&](const Pending& pending) { return pending.drop == stream; };
  return std::any_of(queue_.begin(), queue_.end(), [&](const BatchRef& batch) {
    return std::any_of(batch->pending.begin(), batch->pending.end(), drops);
  });
}

void NodeLog::Impl::Drop(StreamId stream) {
  std::lock_guard lock(mutex_);
  if (!health_.ok() || close_.has_value()) return;
  ++queued_drops_;
  Pending pending = {.drop = stream};
  const BatchRef& batch = OpenBatchLocked(pending, kRecordOverheadBytes);
  batch->pending.push_back(std::move(pending));
  blocked_ = false;
  if (!has_role_) WakeLocked();
}

void NodeLog::Impl::ReleaseSpace() {
  std::lock_guard lock(mutex_);
  if (!health_.ok() || close_.has_value() || queued_appends_ > 0) return;
  shrinking_ = small_ = true;
  WakeLocked();
}

void NodeLog::Impl::Close(Executor* executor, Done done) {
  std::vector<Answer> answers;
  {
    std::lock_guard lock(mutex_);
    if (health_.ok() && !close_.has_value()) {
      close_ = {executor, std::move(done), absl::OkStatus()};
      blocked_ = false;
      WakeLocked();
      return;
    }
    answers.push_back(
        {executor, std::move(done),
         health_.ok() ? absl::UnavailableError(Cat(dir_, " is being closed")) : health_});
  }
  Deliver(std::move(answers));
}

void NodeLog::Impl::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    SettleQueueLocked(absl::CancelledError("the log was destroyed before this was written"));
    if (health_.ok()) health_ = absl::UnavailableError(Cat(dir_, " was destroyed"));
  }
  AnswerSettled();
}

std::optional<Instant> NodeLog::Impl::OldestPendingSince() const {
  std::lock_guard lock(mutex_);
  if (writing_since_.has_value()) return writing_since_;
  for (const BatchRef& batch : queue_) {
    if (batch->appends > 0) return batch->since;
  }
  return std::nullopt;
}

uint64_t NodeLog::Impl::RetainedBytes(StreamId stream) const {
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
  const LogIndex::Stream* found = index_.FindStream(stream);
  return found == nullptr ? 0 : found->retained_bytes;
}

uint64_t NodeLog::Impl::UnarchivedBytes(StreamId stream) const {
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
  const LogIndex::Stream* found = index_.FindStream(stream);
  return found == nullptr ? 0 : found->unarchived_bytes;
}

absl::Status NodeLog::Impl::Health() const {
  std::lock_guard lock(mutex_);
  return health_;
}

NodeLog::Stats NodeLog::Impl::GetStats() const {
  Stats stats;
  {
    std::lock_guard lock(mutex_);
    stats = stats_;
    stats.queued_bytes = queued_bytes_;
  }
  stats.segments_spare = files_.spares();
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
  stats.segments_in_use = index_.segments().size();
  for (const auto& [generation, segment] : index_.segments()) {
    stats.segment_file_bytes += segment.segment_bytes;
  }
  stats.full_streams = index_.full_streams().size();
  NameHoldersLocked(stats);
  return stats;
}

void NodeLog::Impl::NameHoldersLocked(Stats& stats) const {
  const auto raise = [](StreamId id, uint64_t bytes, StreamId& most, uint64_t& most_bytes) {
    if (bytes <= most_bytes) return;
    most = id;
    most_bytes = bytes;
  };
  for (const auto& [id, stream] : index_.streams()) {
    raise(id, stream.retained_bytes, stats.largest_stream, stats.largest_stream_bytes);
  }
  if (index_.segments().empty()) return;
  for (StreamId id : index_.segments().begin()->second.streams) {
    raise(id, index_.FindStream(id)->retained_bytes, stats.oldest_stream,
          stats.oldest_stream_bytes);
  }
}

}  // namespace dynlib::store
