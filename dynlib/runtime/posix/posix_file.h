// An open file descriptor as a File. For PosixDisk, and for tests that bring a descriptor.
#ifndef DYNLIB_RUNTIME_POSIX_POSIX_FILE_H_
#define DYNLIB_RUNTIME_POSIX_POSIX_FILE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/async_write.h"
#include "dynlib/runtime/posix/polled_wait.h"

namespace dynlib {

class PosixFile final : public File {
 public:
  // Takes over `fd`. `name` is what messages call it.
  // `async`, if it is not null, has what StartWriteDurably needs. `wait` has been checked.
  PosixFile(std::string name, int fd, bool writable,
            std::shared_ptr<AsyncWritePool> async = nullptr, const PolledWait::Options& wait = {})
      : name_(std::move(name)),
        fd_(fd),
        writable_(writable),
        async_(std::move(async)),
        wait_options_(wait) {}
  ~PosixFile() override;

  absl::Status ReadAt(uint64_t offset, std::span<char> out) override;
  absl::Status WriteAt(uint64_t offset, std::string_view data) override;
  absl::Status Sync() override;
  absl::Status WriteDurably(uint64_t offset, std::string_view data) override;
  absl::Status StartWriteDurably(uint64_t offset, std::string_view data, DiskWait wait) override;
  absl::Status FinishWriteDurably() override;
  absl::Status WriteDirect(uint64_t offset, std::string_view data) override;
  absl::Status Allocate(uint64_t offset, uint64_t length) override;
  absl::Status Truncate(uint64_t size) override;
  absl::Status Discard(uint64_t offset, uint64_t length) override;
  absl::StatusOr<uint64_t> Size() override;

 private:
  absl::Status Error(std::string_view operation, uint64_t offset) const;
  absl::Status CheckRange(std::string_view operation, uint64_t offset, uint64_t length) const;
  absl::Status CheckWritable(std::string_view operation) const;
  absl::Status WriteWhole(uint64_t offset, std::string_view data);
  absl::Status AllocateByWriting(uint64_t offset, uint64_t length);
  // The same file past the kernel's cache; opened when first wanted.
  struct Direct {
    enum class State { kNotTried, kOpen, kNone };
    State state = State::kNotTried;
    int fd = -1;
  };
  bool OpenDirect(Direct& direct, int flags);
  static bool IsAligned(uint64_t offset, std::string_view data);
  ssize_t PutDirect(Direct& direct, int flags, uint64_t offset, std::string_view data);

  const std::string name_;
  const int fd_;
  const bool writable_;
  std::atomic<bool> sync_failed_{false};  // rule L3
  Direct direct_;
  Direct durable_;  // each write synced
  // Of StartWriteDurably, until it is finished.
  struct Started {
    enum class Way {
      kCached,   // written; to be synced
      kDirect,   // under way; to be synced
      kPolled,   // under way, and synced by the write itself
      kNotBegun  // the second half does it all
    };
    Way way = Way::kCached;
    std::unique_ptr<AsyncWrite> write;
    uint64_t offset = 0;
    std::string_view data;
  };
  bool StartAsync(Started::Way way, Direct& direct, int flags);
  bool BeginPolling();
  absl::Status FinishAsync(Direct& direct, int64_t put);

  const std::shared_ptr<AsyncWritePool> async_;
  Started started_;
  const PolledWait::Options wait_options_;
  std::optional<PolledWait> polled_wait_;  // once it is wanted
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_POSIX_FILE_H_
