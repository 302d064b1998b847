// Bounds the rate at which a thread writes, by sleeping after its writes.
//
//   options.pages.after_checkpoint_write = ByteRate(32 << 20);   // bytes a second
//
// Time in which nothing was written is not made up for.
//
// Threads: one at a time.
#ifndef DYNLIB_RUNTIME_POSIX_BYTE_RATE_H_
#define DYNLIB_RUNTIME_POSIX_BYTE_RATE_H_

#include <cstdint>

#include "dynlib/base/time.h"
#include "dynlib/runtime/posix/system_clock.h"

namespace dynlib {

class ByteRate {
 public:
  // At least 1 (DYNLIB_CHECK).
  explicit ByteRate(uint64_t bytes_per_second);

  // So many bytes were written: sleeps until they may have been, a second at most.
  void operator()(uint64_t bytes);

 private:
  SystemClock clock_;
  uint64_t bytes_per_second_;
  Instant due_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_BYTE_RATE_H_
