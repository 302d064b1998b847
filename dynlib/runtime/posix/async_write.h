// A write past the kernel's cache that its thread need not wait for (Linux AIO).
//
// Of all ways to do so the one with the least behind it: a system call to start, one to wait, no
// thread of the kernel's, and allowed in most sandboxes, which io_uring is not. Making and
// destroying what it needs takes the kernel milliseconds, so these are kept in a pool.
//
// Internal to the posix runtime. Threads: the pool any; an AsyncWrite one at a time.
#ifndef DYNLIB_RUNTIME_POSIX_ASYNC_WRITE_H_
#define DYNLIB_RUNTIME_POSIX_ASYNC_WRITE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "dynlib/base/time.h"

namespace dynlib {

class AsyncWrite {
 public:
  // Null where the kernel, or its limits, have none to give.
  static std::unique_ptr<AsyncWrite> Make();
  // Waits for what is under way.
  ~AsyncWrite();
  AsyncWrite(const AsyncWrite&) = delete;
  AsyncWrite& operator=(const AsyncWrite&) = delete;

  // False: it cannot be started, and nothing was. `data` stays until Wait returns.
  bool Start(int fd, uint64_t offset, std::string_view data);
  // After a Start: the bytes written, or an errno, negative.
  int64_t Wait();
  // The same, but looks for the end in memory, and yields the processor in between, as long as the
  // bounds allow. The kernel's layout of completions is only looked at where it is the known one.
  struct Bounds {
    Duration total;
    // That a single yield may take: others use the processor, and a sleeper gets it back sooner.
    Duration yield = std::chrono::microseconds(100);
  };
  struct Polled {
    int64_t result = 0;  // of Wait
    bool in_time = false;
  };
  Polled Poll(const Bounds& bounds);

 private:
  explicit AsyncWrite(uint64_t context) : context_(context) {}
  bool CanPoll() const;
  std::optional<int64_t> TakeFromRing();

  const uint64_t context_;  // aio_context_t
};

class AsyncWritePool {
 public:
  std::unique_ptr<AsyncWrite> Take();  // null as Make
  void Return(std::unique_ptr<AsyncWrite> write);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<AsyncWrite>> idle_;
  bool none_ = false;  // to be had
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_ASYNC_WRITE_H_
