#include "dynlib/cluster/checkpointer.h"

#include <utility>

namespace dynlib::cluster {

Checkpointer::Checkpointer(Options options, store::PageFile* pages, Executor* executor,
                           Executor* file_executor, const Clock* clock, Done finished)
    : options_(options),
      pages_(pages),
      executor_(executor),
      file_executor_(file_executor),
      clock_(clock),
      finished_(std::move(finished)) {}

void Checkpointer::OnWritten(size_t bytes) {
  written_bytes_ += bytes;
  if (stopped_) return;
  if (written_bytes_ >= options_.log_bytes) {
    Request();
  } else if (timer_ == Executor::kNoTimer) {
    timer_ = executor_->RunAt(clock_->Now() + options_.interval, [self = shared_from_this()] {
      self->timer_ = Executor::kNoTimer;
      self->Request();
    });
  }
}

void Checkpointer::Run(Done done) {
  if (stopped_) {  // The directory may be another's by now.
    executor_->Post(
        [done = std::move(done)]() mutable { done(absl::CancelledError("shut down")); });
    return;
  }
  waiters_.push_back(std::move(done));
  Request();
}

void Checkpointer::Request() {
  if (stopped_) return;
  if (running_) {
    again_ = true;
  } else {
    Begin();
  }
}

void Checkpointer::Begin() {
  running_ = true;
  written_bytes_ = 0;
  file_executor_->Post(
      [self = shared_from_this(), waiters = std::exchange(waiters_, {})]() mutable {
        const absl::Status status =
            self->options_.skip_for_test ? absl::OkStatus() : self->pages_->Checkpoint();
        Executor* executor = self->executor_;
        executor->Post([self = std::move(self), status, waiters = std::move(waiters)]() mutable {
          self->Finish(status, std::move(waiters));
        });
      });
}

void Checkpointer::Finish(const absl::Status& status, std::vector<Done> waiters) {
  running_ = false;
  finished_(status);
  for (Done& done : waiters) done(status);
  const bool again = std::exchange(again_, false);
  if (stopped_ || running_ || (!status.ok() && waiters_.empty())) return;
  if (again) Begin();
}

void Checkpointer::Stop() {
  stopped_ = true;
  if (timer_ != Executor::kNoTimer) executor_->Cancel(timer_);
}

void Checkpointer::Cancel() {
  for (Done& waiter : std::exchange(waiters_, {})) waiter(absl::CancelledError("shut down"));
}

}  // namespace dynlib::cluster
