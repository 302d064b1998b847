// Writes join the queue here, and the threads of some of them wait for their answers.

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {
namespace {

absl::Status CheckLimits(const WriteBatch& batch) {
  for (const WriteBatch::Operation& operation : batch.operations()) {
    if (operation.key.size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(
          Cat("a key of ", operation.key.size(), " bytes; the limit is ", kMaxKeyBytes));
    }
    if (operation.range_end.has_value() && operation.range_end->size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(Cat("the end of a range, of ", operation.range_end->size(),
                                            " bytes; the limit is ", kMaxKeyBytes));
    }
    if (operation.value.has_value() && operation.value->size() > kMaxValueBytes) {
      return absl::InvalidArgumentError(
          Cat("a value of ", operation.value->size(), " bytes; the limit is ", kMaxValueBytes));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Store::Impl::CheckRequest(const Request& request) const {
  for (const StoreBatch::Part& part : request.batch.parts()) {
    DYNLIB_RETURN_IF_ERROR(CheckLimits(part.batch));
    if (!Owns(part.tree)) {
      return absl::InvalidArgumentError(
          Cat("tree ", Escape(part.tree.name()), " is of another store"));
    }
  }
  for (const StoreBatch::Condition& condition : request.batch.conditions()) {
    if (!Owns(condition.tree)) {
      return absl::InvalidArgumentError(
          Cat("tree ", Escape(condition.tree.name()), " is of another store"));
    }
  }
  if (request.bytes > max_group_bytes_) {
    return absl::InvalidArgumentError(Cat("a write of ", request.bytes,
                                          " bytes; with log.max_batch_bytes as it is the limit is ",
                                          max_group_bytes_));
  }
  return absl::OkStatus();
}

absl::Status Store::Impl::AdmitLocked(const Request& request) const {
  DYNLIB_RETURN_IF_ERROR(request.repairs ? health_ : HealthLocked());
  if (pending_bytes_ + request.bytes > options_.max_pending_bytes) {
    return absl::ResourceExhaustedError(Cat(pending_bytes_, " bytes of writes are pending; ",
                                            "max_pending_bytes is ", options_.max_pending_bytes));
  }
  return absl::OkStatus();
}

Store::Impl::GroupPtr Store::Impl::EnqueueLocked(Request* request) {
  pending_bytes_ += request->bytes;
  if (queue_.empty() || queue_.back()->bytes + request->bytes > max_group_bytes_ ||
      Alone(*request) || Alone(*queue_.back()->requests.front())) {
    queue_.push_back(std::make_shared<Group>());
  }
  const GroupPtr& group = queue_.back();
  group->requests.push_back(request);
  group->bytes += request->bytes;
  group->durable |= request->durable;
  group->ordered |= Alone(*request) || !request->batch.conditions().empty();
  return group;
}

bool Store::Impl::TakeLeadLocked() {
  if (leading_ || durable_in_log_ || waiting_for_pages_) return false;
  leading_ = true;
  return true;
}

void Store::Impl::Submit(std::unique_ptr<Request> request) {
  absl::Status refused = CheckRequest(*request);
  if (refused.ok()) {
    std::lock_guard lock(mutex_);
    refused = AdmitLocked(*request);
    if (refused.ok()) {
      const GroupPtr group = EnqueueLocked(request.get());
      group->owned.push_back(std::move(request));
      if (TakeLeadLocked()) PostDrive();
      return;
    }
  }
  if (absl::IsResourceExhausted(refused)) MakeRoomInLog();
  Executor* executor = request->executor;
  executor->Post([done = std::move(request->done), refused = std::move(refused)]() mutable {
    std::move(done)({.status = std::move(refused)});
  });
}

// A full log is emptied by a checkpoint: there is one more try after that.
void Store::Impl::SubmitAndWait(Request& request) {
  request.result.status = CheckRequest(request);
  if (!request.result.status.ok()) return;
  TryAndWait(request);
  if (!absl::IsResourceExhausted(request.result.status)) return;
  if (!CheckpointAndWait(/*twice=*/true).ok()) return;
  request.result = {};
  TryAndWait(request);
}

void Store::Impl::TryAndWait(Request& request) {
  GroupPtr group;
  bool lead = false;
  bool first = false;
  while (group == nullptr) {
    std::unique_lock lock(mutex_);
    absl::Status refused = AdmitLocked(request);
    if (!refused.ok()) {
      if (!MayWaitLocked()) {
        request.result.status = std::move(refused);
        return;
      }
      ++waiting_for_room_;
      const uint32_t seen = room_.load(std::memory_order_relaxed);
      lock.unlock();
      WaitOn(room_, seen);
      lock.lock();
      --waiting_for_room_;
      continue;
    }
    group = EnqueueLocked(&request);
    first = !std::exchange(group->has_successor, true);
    lead = TakeLeadLocked();
  }
  if (lead) Drive(group.get());
  if (!first) return group->answered.Wait();
  while (group->successor.Wait()) {
    if (TryLead()) Drive(group.get());
  }
}

bool Store::Impl::TryLead() {
  std::lock_guard lock(mutex_);
  return TakeLeadLocked();
}

void Store::Impl::Successor::Change(uint32_t state) {
  state_.store(state, std::memory_order_release);
  WakeAll(state_);
}

bool Store::Impl::Successor::Wait() {
  uint32_t seen;
  while ((seen = state_.load(std::memory_order_acquire)) == kAsleep) WaitOn(state_, kAsleep);
  return seen == kCalled &&
         state_.compare_exchange_strong(seen, kAsleep, std::memory_order_acq_rel);
}

bool Store::Impl::CallSuccessorLocked() {
  if (executors_.answer == nullptr) return false;
  Group& next = *queue_.front();
  if (!next.has_successor || next.requests.size() > kMostLedByThread) return false;
  leading_ = false;
  next.successor.Call();
  return true;
}

// When writes are refused at the door because others, not durable, wait for a full log, nobody else
// would.
void Store::Impl::MakeRoomInLog() {
  {
    std::lock_guard lock(mutex_);
    if (!log_full_) return;
  }
  CheckpointIfDue(true);
}

void Store::Impl::RetryLog() {
  std::lock_guard lock(mutex_);
  if (!log_full_ || logged_.has_value()) return;
  retry_log_ = true;
  if (TakeLeadLocked()) PostDrive();
}

void Store::Impl::GiveBackLocked(uint64_t bytes) {
  pending_bytes_ -= bytes;
  room_.fetch_add(1, std::memory_order_release);
  if (waiting_for_room_ > 0) WakeAll(room_);
}

void Store::Impl::FailLocked(const absl::Status& why) {
  if (!health_.ok()) return;
  health_ = absl::UnavailableError(Cat("the store takes no writes: ", ToStd(why.message())));
  GiveBackLocked(0);
}

std::shared_ptr<NodeLog> Store::Impl::Log() const {
  std::lock_guard lock(mutex_);
  return log_;
}

void Store::Impl::PostDrive() {
  executors_.apply->Post([self = shared_from_this()] { self->Drive(nullptr); });
}

}  // namespace dynlib::store
