// When a thread that waits for a disk polls for the end of a write instead of sleeping, and where.
//
// Asleep it learns of the end by an interrupt, a wake-up and, mostly, a processor that has to come
// out of its own sleep: a sixth to a quarter of a durable write of one block. Polling it looks at
// the completions in memory, and offers its processor to any other thread between two looks. What
// that does not cure is seen to here:
//
//  - Polling loses where others want the processors: a yield then takes as long as their time
//    slice, and so may the kernel's own part of the completion. A wait that was not over within its
//    bounds is followed by some that sleep, twice as many each time in a row.
//  - With `follow_interrupts` a thread that is elsewhere is moved to the processor that takes the
//    disk's interrupts (see InterruptProcessor), if it may run there: for the length of one write
//    its affinity is that processor alone, then what it was before, and the scheduler leaves it
//    there as long as it has no reason not to. The others' threads are interrupted less. Rarely:
//    when the thread does not stay it is tried after ever more writes. Writes that sleep count, and
//    after a move polling is tried afresh: a thread that computes there makes each polled write
//    late until it is driven away.
//
// For one write at a time. Internal to the posix runtime, but for its Options. Threads: one at a
// time; Begin and End of one write by the same.
#ifndef DYNLIB_RUNTIME_POSIX_POLLED_WAIT_H_
#define DYNLIB_RUNTIME_POSIX_POLLED_WAIT_H_

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "dynlib/base/time.h"

namespace dynlib {

class PolledWait {
 public:
  struct Options {
    // How long a write is polled for before its thread sleeps after all; 0: not at all. The whole
    // of this is processor time, if nobody else wants it. At most 10 ms. Writes that take longer
    // are soon hardly ever polled for.
    Duration poll_max = std::chrono::microseconds(300);
    // To be turned off where threads are given their processors by somebody else while they run.
    bool follow_interrupts = true;
  };
  // kInvalidArgument for what is out of range.
  static absl::Status Check(const Options& options);

  // Waits, counted in writes: it comes after `first` of them, and after twice as many each time it
  // was of no use.
  class Pace {
   public:
    explicit Pace(uint32_t first) : first_(first) {}
    // Is it time?
    bool Next() { return left_ == 0 || --left_ == 0; }
    void Helped() {
      pause_ = first_;
      left_ = 0;
    }
    void DidNotHelp() {
      left_ = pause_;
      pause_ = std::min(2 * pause_, kMost);
    }

   private:
    static constexpr uint32_t kMost = 4096;
    const uint32_t first_;
    uint32_t pause_ = first_;
    uint32_t left_ = 0;
  };

  // `processor`: that takes the interrupts of the disk, if it is known.
  PolledWait(const Options& options, std::optional<int> processor)
      : options_(options), processor_(processor) {}

  // Before the write is started. False: this one is to be slept for, and there is no End.
  bool Begin();
  // After it is over, which was seen within the bounds or not.
  void End(bool in_time);

  Duration poll_max() const { return options_.poll_max; }

 private:
  // True: it was moved now.
  bool Move();

  static constexpr uint32_t kFirstSleeps = 2;
  static constexpr uint32_t kFirstStay = 16;
  static constexpr uint32_t kStays = 64;
  static constexpr uint32_t kSteady = 8;

  const Options options_;
  const std::optional<int> processor_;
  Pace poll_{kFirstSleeps};
  uint32_t in_time_ = 0;  // so many in a row
  Pace move_{kFirstStay};
  uint32_t stayed_ = 0;              // for so many writes in a row
  std::optional<cpu_set_t> before_;  // of a thread that is moved
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_POLLED_WAIT_H_
