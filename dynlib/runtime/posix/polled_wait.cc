#include "dynlib/runtime/posix/polled_wait.h"

#include "dynlib/base/strings.h"

namespace dynlib {

absl::Status PolledWait::Check(const Options& options) {
  constexpr Duration kMost = std::chrono::milliseconds(10);
  if (options.poll_max >= Duration::zero() && options.poll_max <= kMost) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("poll_max is ", options.poll_max.count(), " ns; it may be 0 to ", kMost.count(), " ns"));
}

bool PolledWait::Begin() {
  if (options_.poll_max == Duration::zero()) return false;
  // Where it was late says nothing about there.
  if (Move()) poll_.Helped();
  return poll_.Next();
}

void PolledWait::End(bool in_time) {
  if (before_.has_value()) {
    sched_setaffinity(0, sizeof(*before_), &*before_);
    before_.reset();
  }
  // One that was in time by chance says nothing about those that were not.
  if (!in_time) poll_.DidNotHelp();
  in_time_ = in_time ? in_time_ + 1 : 0;
  if (in_time_ == kSteady) poll_.Helped();
}

bool PolledWait::Move() {
  if (!options_.follow_interrupts || !processor_.has_value() || *processor_ >= CPU_SETSIZE)
    return false;
  if (sched_getcpu() == *processor_) {
    if (++stayed_ == kStays) move_.Helped();
    return false;
  }
  stayed_ = 0;
  if (!move_.Next()) return false;
  cpu_set_t before;
  if (sched_getaffinity(0, sizeof(before), &before) != 0) return false;
  move_.DidNotHelp();
  if (!CPU_ISSET(*processor_, &before)) return false;
  cpu_set_t there;
  CPU_ZERO(&there);
  CPU_SET(*processor_, &there);
  if (sched_setaffinity(0, sizeof(there), &there) != 0) return false;
  before_ = before;
  return true;
}

}  // namespace dynlib
