#include "dynlib/runtime/posix/byte_rate.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "dynlib/base/check.h"

namespace dynlib {

ByteRate::ByteRate(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {
  DYNLIB_CHECK(bytes_per_second >= 1);
}

void ByteRate::operator()(uint64_t bytes) {
  constexpr std::chrono::duration<double> kLongest(1);
  const std::chrono::duration<double> takes(static_cast<double>(bytes) /
                                            static_cast<double>(bytes_per_second_));
  const Instant now = clock_.Now();
  due_ = std::max(due_, now) + std::chrono::duration_cast<Duration>(std::min(takes, kLongest));
  std::this_thread::sleep_for(due_ - now);
}

}  // namespace dynlib
