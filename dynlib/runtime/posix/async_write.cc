#include "dynlib/runtime/posix/async_write.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace dynlib {

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
