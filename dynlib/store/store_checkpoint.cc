// Checkpoints of a Store, and its end.

#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

void Store::Impl::CheckpointIfDue(bool log_is_full) {
  {
    std::lock_guard lock(mutex_);
    const bool due = log_is_full || bytes_since_checkpoint_ >= options_.checkpoint_after_bytes ||
                     pages_->CheckpointDue();
    if (!due || checkpoint_due_ || !HealthLocked().ok()) return;
    checkpoint_due_ = true;
    bytes_since_checkpoint_ = 0;
  }
  executors_.checkpoint->Post([self = shared_from_this(), log_is_full] {
    const absl::Status status = self->RunCheckpoint(log_is_full);
    {
      std::lock_guard lock(self->mutex_);
      self->checkpoint_due_ = false;
    }
    // If it failed the next write tries again, and not this, as often as the disk can say no.
    if (status.ok()) self->CheckpointIfDue(false);
  });
}

// `twice`: the log is full. It is kept from the older checkpoint on, since either superblock alone
// is to bring everything back; when both hold the same, all of it before that can go.
absl::Status Store::Impl::RunCheckpoint(bool twice) {
  {
    // Trees that lack what is owed are for readers alone.
    std::lock_guard lock(mutex_);
    DYNLIB_RETURN_IF_ERROR(damaged_);
  }
  // What this checkpoint vouches for: without its log it is not all that was acknowledged.
  if (const std::shared_ptr<NodeLog> log = Log()) pages_->SetLogBatch(log->LastDurableBatch());
  const absl::Status status = twice ? pages_->CheckpointTwice() : pages_->Checkpoint();
  {
    std::lock_guard lock(mutex_);
    last_checkpoint_ = status;
  }
  DYNLIB_RETURN_IF_ERROR(status);
  if (std::shared_ptr<NodeLog> log = Log()) {
    log->Release(kStoreStream, catalogue_->fallback_position());
  }
  RetryLog();
  return absl::OkStatus();
}

void Store::Impl::Checkpoint(Executor* executor, Done done) {
  executors_.checkpoint->Post(
      [self = shared_from_this(), executor, done = std::move(done)]() mutable {
        executor->Post([done = std::move(done), status = self->RunCheckpoint(false)]() mutable {
          std::move(done)(std::move(status));
        });
        self->WatchForRest();
      });
}

absl::Status Store::Impl::CheckpointAndWait(bool twice) {
  absl::Status status;
  Signal signal;
  executors_.checkpoint->Post([&, self = shared_from_this()] {
    status = self->RunCheckpoint(twice);
    self->WatchForRest();
    signal.Set();
  });
  signal.Wait();
  return status;
}

// Where there are threads: on the one whose task is to read, as checkpoints keep theirs for long.
void Store::Impl::MakeMemoryIfDue() {
  if (executors_.answer == nullptr || !pages_->WantsMemoryAhead()) return;
  if (making_memory_.exchange(true, std::memory_order_acquire)) return;
  executors_.read->Post([self = shared_from_this()] {
    self->pages_->MakeMemoryAhead();
    self->making_memory_.store(false, std::memory_order_release);
  });
}

void Store::Impl::Close(Executor* executor, Done done) {
  pages_->Hurry();
  bool read_only = false;  // There is nothing to close.
  {
    std::lock_guard lock(mutex_);
    const bool again = closing_.has_value() || closed_ || log_ == nullptr;
    read_only = read_only_ && !std::exchange(closed_, true);
    FailLocked(absl::UnavailableError("it is closed"));
    if (!again) {
      closing_ = {executor, std::move(done)};
      if (TakeLeadLocked()) PostDrive();
      return;
    }
  }
  const absl::Status closed =
      read_only ? absl::OkStatus() : absl::UnavailableError("the store is being closed");
  executor->Post([done = std::move(done), closed]() mutable { std::move(done)(closed); });
}

absl::Status Store::Impl::CloseAndWait() {
  absl::Status status;
  Signal signal;
  Close(executors_.checkpoint, [&](absl::Status closed) {
    status = std::move(closed);
    signal.Set();
  });
  signal.Wait();
  return status;
}

// All that was queued is applied, and logged unless the log is full.
bool Store::Impl::CloseIfIdleLocked() {
  if (!closing_.has_value() || log_ == nullptr || !queue_.empty() || durable_in_log_ ||
      logging_ > 0) {
    return false;
  }
  // Behind all answers that are due.
  Executor* const on = executors_.answer != nullptr ? executors_.answer : executors_.apply;
  log_->Close(on, [self = shared_from_this(), executor = closing_->executor,
                   done = std::move(closing_->done)](absl::Status status) mutable {
    executor->Post([done = std::move(done), status = std::move(status)]() mutable {
      std::move(done)(std::move(status));
    });
  });
  leading_ = false;
  closing_.reset();
  closed_ = true;
  return true;
}

void Store::Impl::Stop() {
  pages_->Hurry();
  std::shared_ptr<NodeLog> log;  // Destroyed outside the lock: it answers what it holds.
  std::lock_guard lock(mutex_);
  executors_.checkpoint->Cancel(std::exchange(rest_.timer, Executor::kNoTimer));
  FailLocked(absl::UnavailableError("it was destroyed"));
  if (refused_.ok()) refused_ = absl::CancelledError("the store was destroyed first");
  log.swap(log_);
  if (closing_.has_value()) {
    closing_->executor->Post([done = std::move(closing_->done)]() mutable {
      std::move(done)(absl::CancelledError("the store was destroyed first"));
    });
    closing_.reset();
  }
  if (TakeLeadLocked()) PostDrive();
}

absl::Status Store::Impl::Health() const {
  std::lock_guard lock(mutex_);
  return HealthLocked();
}

NodeLog::Stats Store::Impl::LogStats() const {
  const std::shared_ptr<NodeLog> log = Log();
  return log == nullptr ? NodeLog::Stats() : log->GetStats();
}

}  // namespace dynlib::store
