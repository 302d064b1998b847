// Keeps what one replica reads below so many bytes a second: each request is charged before it is
// sent, and given back what it did not read.
//
// Pure. Threads: one at a time.
#ifndef DYNLIB_SCRUB_THROTTLE_H_
#define DYNLIB_SCRUB_THROTTLE_H_

#include <algorithm>
#include <cstdint>

#include "dynlib/base/time.h"

namespace dynlib::scrub {

class Throttle {
 public:
  explicit Throttle(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // A request may be sent from then on. Time in which none was sent is not saved up.
  Instant ready_at() const { return ready_at_; }
  void Charge(uint64_t bytes, Instant now) { ready_at_ = std::max(ready_at_, now) + Cost(bytes); }
  // A request that was charged for `charged` bytes read `read`.
  void Settle(uint64_t charged, uint64_t read) {
    // What a replica claims to have read beyond belief is cut, lest one answer stops the scrub.
    read = std::min(read, charged + kExcessMax);
    ready_at_ =
        read < charged ? ready_at_ - Cost(charged - read) : ready_at_ + Cost(read - charged);
  }

 private:
  static constexpr uint64_t kExcessMax = 16 << 20;

  // Bytes are at most 144 MiB, so this does not overflow.
  Duration Cost(uint64_t bytes) const {
    return Duration(static_cast<int64_t>(bytes * 1'000'000'000 / bytes_per_second_));
  }

  const uint64_t bytes_per_second_;
  Instant ready_at_;
};

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_THROTTLE_H_
