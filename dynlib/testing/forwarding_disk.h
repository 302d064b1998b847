// A disk that hands each call on to another: a base for disks that count, delay or fail some.
//
//   class CountingDisk final : public ForwardingDisk {
//    public:
//     using ForwardingDisk::ForwardingDisk;
//     absl::Status SyncDir(std::string_view path) override {
//       ++syncs;
//       return ForwardingDisk::SyncDir(path);
//     }
//     int syncs = 0;
//   };
//
// Calls of a File that are made of others (WriteDurably, WriteDirect and so on) are not handed on
// but made of those: so who overrides WriteAt and Sync sees every one. It costs the other disk's
// quicker ways.
//
// Threads: as the other disk.
#ifndef DYNLIB_TESTING_FORWARDING_DISK_H_
#define DYNLIB_TESTING_FORWARDING_DISK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"

namespace dynlib {

class ForwardingFile : public File {
 public:
  explicit ForwardingFile(std::unique_ptr<File> file) : file_(std::move(file)) {}

  absl::Status ReadAt(uint64_t offset, std::span<char> out) override {
    return file_->ReadAt(offset, out);
  }
  absl::Status WriteAt(uint64_t offset, std::string_view data) override {
    return file_->WriteAt(offset, data);
  }
  absl::Status Sync() override { return file_->Sync(); }
  absl::Status Allocate(uint64_t offset, uint64_t length) override {
    return file_->Allocate(offset, length);
  }
  absl::Status Truncate(uint64_t size) override { return file_->Truncate(size); }
  absl::Status Discard(uint64_t offset, uint64_t length) override {
    return file_->Discard(offset, length);
  }
  absl::StatusOr<uint64_t> Size() override { return file_->Size(); }

 protected:
  File& forwarded() { return *file_; }

 private:
  const std::unique_ptr<File> file_;
};

class ForwardingDisk : public Disk {
 public:
  // Of the other one, which outlives it.
  explicit ForwardingDisk(Disk* disk) : disk_(disk) {}

  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override {
    return disk_->Open(path, mode);
  }
  absl::Status Rename(std::string_view from, std::string_view to) override {
    return disk_->Rename(from, to);
  }
  absl::Status Remove(std::string_view path) override { return disk_->Remove(path); }
  absl::Status CreateDir(std::string_view path) override { return disk_->CreateDir(path); }
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override {
    return disk_->List(path);
  }
  absl::Status SyncDir(std::string_view path) override { return disk_->SyncDir(path); }
  absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) override {
    return disk_->Lock(path);
  }

 private:
  Disk* const disk_;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_FORWARDING_DISK_H_
