#include "dynlib/runtime/posix/async_write.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <utility>

namespace dynlib {
namespace {

// What lies at a context's address: struct aio_ring of the kernel's fs/aio.c, which has been part
// of what it shows to programs since 2002. Completions are added at the tail by the kernel, and
// taken from the head by it (io_getevents) or by whoever waits.
struct Ring {
  uint32_t id;
  uint32_t size;
  uint32_t head;
  uint32_t tail;
  uint32_t magic;
  uint32_t compatible_features;
  uint32_t incompatible_features;
  uint32_t header_length;
  io_event events[];
};
constexpr uint32_t kRingMagic = 0xa10a10a1;

Ring& RingOf(uint64_t context) { return *reinterpret_cast<Ring*>(context); }

std::chrono::steady_clock::time_point Now() { return std::chrono::steady_clock::now(); }

}  // namespace

std::unique_ptr<AsyncWrite> AsyncWrite::Make() {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 1, &context) != 0) return nullptr;
  return std::unique_ptr<AsyncWrite>(new AsyncWrite(context));
}

AsyncWrite::~AsyncWrite() { syscall(SYS_io_destroy, context_); }

bool AsyncWrite::Start(int fd, uint64_t offset, std::string_view data) {
  iocb write = {};
  write.aio_fildes = static_cast<uint32_t>(fd);
  write.aio_lio_opcode = IOCB_CMD_PWRITE;
  write.aio_buf = reinterpret_cast<uintptr_t>(data.data());
  write.aio_nbytes = data.size();
  write.aio_offset = static_cast<int64_t>(offset);
  iocb* writes[] = {&write};
  long started;
  do {
    started = syscall(SYS_io_submit, context_, 1, writes);
  } while (started < 0 && errno == EINTR);
  return started == 1;
}

int64_t AsyncWrite::Wait() {
  io_event event = {};
  long got;
  do {
    got = syscall(SYS_io_getevents, context_, 1, 1, &event, nullptr);
  } while (got == 0 || (got < 0 && errno == EINTR));
  return got < 0 ? -errno : event.res;
}

bool AsyncWrite::CanPoll() const {
  const Ring& ring = RingOf(context_);
  return ring.magic == kRingMagic && ring.incompatible_features == 0 && ring.size > 0 &&
         ring.header_length == sizeof(Ring);
}

std::optional<int64_t> AsyncWrite::TakeFromRing() {
  Ring& ring = RingOf(context_);
  std::atomic_ref head_word(ring.head);
  const uint32_t head = head_word.load(std::memory_order_relaxed);
  if (head == std::atomic_ref(ring.tail).load(std::memory_order_acquire)) return std::nullopt;
  const int64_t result = ring.events[head].res;
  head_word.store((head + 1) % ring.size, std::memory_order_release);
  return result;
}

AsyncWrite::Polled AsyncWrite::Poll(const Bounds& bounds) {
  if (!CanPoll()) return {.result = Wait()};
  const auto start = Now();
  auto last = start;
  while (true) {
    if (const std::optional<int64_t> result = TakeFromRing()) {
      return {.result = *result, .in_time = true};
    }
    sched_yield();
    const auto now = Now();
    if (now - start > bounds.total || now - last > bounds.yield) return {.result = Wait()};
    last = now;
  }
}

std::unique_ptr<AsyncWrite> AsyncWritePool::Take() {
  {
    std::lock_guard lock(mutex_);
    if (none_) return nullptr;
    if (!idle_.empty()) {
      std::unique_ptr<AsyncWrite> write = std::move(idle_.back());
      idle_.pop_back();
      return write;
    }
  }
  std::unique_ptr<AsyncWrite> write = AsyncWrite::Make();
  if (write != nullptr) return write;
  std::lock_guard lock(mutex_);
  none_ = true;
  return nullptr;
}

void AsyncWritePool::Return(std::unique_ptr<AsyncWrite> write) {
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(write));
}

}  // namespace dynlib
