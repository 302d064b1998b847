// A folder of the file system as a Disk.
//
//   DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PosixDisk> disk, PosixDisk::Open({.root =
//   "/data/n1"}));
//
// Sync is fdatasync; SyncDir is fsync of the folder; Lock is flock, which the kernel releases when
// the process ends, however it ends. Files are opened without following a link in the last part of
// the path.
//
// Where the file system has no fallocate, Allocate writes: it then takes time in proportion to the
// length.
//
// A thread that waits for a durable write as DiskWait::kPoll says polls for it, and may be moved to
// another processor: see PolledWait, and Options::wait to change or forbid it.
//
// Threads: as Disk says.
#ifndef DYNLIB_RUNTIME_POSIX_POSIX_DISK_H_
#define DYNLIB_RUNTIME_POSIX_POSIX_DISK_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/async_write.h"
#include "dynlib/runtime/posix/polled_wait.h"

namespace dynlib {

class PosixDisk final : public Disk {
 public:
  struct Options {
    std::string root;          // of the file system; not empty
    bool create_root = true;   // make it, and the folders above it, if it is missing
    PolledWait::Options wait;  // of DiskWait::kPoll
  };

  static absl::StatusOr<std::unique_ptr<PosixDisk>> Open(Options options);
  ~PosixDisk() override;

  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override;
  absl::Status Rename(std::string_view from, std::string_view to) override;
  absl::Status Remove(std::string_view path) override;
  absl::Status CreateDir(std::string_view path) override;
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override;
  absl::Status SyncDir(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) override;

 private:
  PosixDisk(std::string root, int root_fd, const PolledWait::Options& wait)
      : root_(std::move(root)), root_fd_(root_fd), wait_(wait) {}

  // The path as messages show it.
  std::string Show(std::string_view path) const;

  const std::string root_;
  const int root_fd_;
  const PolledWait::Options wait_;
  const std::shared_ptr<AsyncWritePool> async_ = std::make_shared<AsyncWritePool>();
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_POSIX_DISK_H_
