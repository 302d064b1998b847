#include "dynlib/runtime/signal.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace dynlib {

#ifdef __linux__

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

void WaitOn(const std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void WakeAll(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

#else

void WaitOn(const std::atomic<uint32_t>& word, uint32_t value) { word.wait(value); }
void WakeAll(const std::atomic<uint32_t>& word) {
  const_cast<std::atomic<uint32_t>&>(word).notify_all();
}

#endif

void Signal::Set() {
  // The waker may touch state_ after a waiter, seeing kSet, has destroyed it; a wake-up of an
  // address that nobody waits on is harmless.
  if (state_.exchange(kSet, std::memory_order_acq_rel) == kAwaited) WakeAll(state_);
}

void Signal::WaitUntilSet() const {
  uint32_t seen = kClear;
  state_.compare_exchange_strong(seen, kAwaited, std::memory_order_acq_rel);
  while (state_.load(std::memory_order_acquire) != kSet) WaitOn(state_, kAwaited);
}

}  // namespace dynlib
