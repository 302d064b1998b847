// A disk that calls a function before each write and sync, of names too, to put other work in
// the middle of a checkpoint.
#ifndef TESTS_STORE_HOOKED_DISK_H_
#define TESTS_STORE_HOOKED_DISK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"

namespace dynlib::store {

class HookedDisk final : public Disk {
 public:
  explicit HookedDisk(Disk* disk) : disk_(disk) {}

  // The hook is not called for what it does itself.
  void SetHook(std::function<void()> hook) { hook_ = std::move(hook); }

  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override {
    auto file = disk_->Open(path, mode);
    if (!file.ok()) return file.status();
    return std::unique_ptr<File>(new HookedFile(this, *std::move(file)));
  }
  absl::Status Rename(std::string_view from, std::string_view to) override {
    return disk_->Rename(from, to);
  }
  absl::Status Remove(std::string_view path) override { return disk_->Remove(path); }
  absl::Status CreateDir(std::string_view path) override { return disk_->CreateDir(path); }
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override {
    return disk_->List(path);
  }
  absl::Status SyncDir(std::string_view path) override {
    CallHook();
    return disk_->SyncDir(path);
  }
  absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) override {
    return disk_->Lock(path);
  }

 private:
  class HookedFile final : public File {
   public:
    HookedFile(HookedDisk* disk, std::unique_ptr<File> file)
        : disk_(disk), file_(std::move(file)) {}

    absl::Status ReadAt(uint64_t offset, std::span<char> out) override {
      return file_->ReadAt(offset, out);
    }
    absl::Status WriteAt(uint64_t offset, std::string_view data) override {
      disk_->CallHook();
      return file_->WriteAt(offset, data);
    }
    absl::Status Sync() override {
      disk_->CallHook();
      return file_->Sync();
    }
    absl::Status Allocate(uint64_t offset, uint64_t length) override {
      return file_->Allocate(offset, length);
    }
    absl::Status Truncate(uint64_t size) override { return file_->Truncate(size); }
    absl::Status Discard(uint64_t offset, uint64_t length) override {
      return file_->Discard(offset, length);
    }
    absl::StatusOr<uint64_t> Size() override { return file_->Size(); }

   private:
    HookedDisk* const disk_;
    const std::unique_ptr<File> file_;
  };

  void CallHook() {
    std::function<void()> hook = std::exchange(hook_, nullptr);
    if (hook == nullptr) return;
    hook();
    hook_ = std::move(hook);
  }

  Disk* const disk_;
  std::function<void()> hook_;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_HOOKED_DISK_H_
