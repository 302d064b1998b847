// A disk that calls a function before each write and sync, of names too, to put other work in
// the middle of a checkpoint.
#ifndef TESTS_STORE_HOOKED_DISK_H_
#define TESTS_STORE_HOOKED_DISK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/testing/forwarding_disk.h"

namespace dynlib::store {

class HookedDisk final : public ForwardingDisk {
 public:
  using ForwardingDisk::ForwardingDisk;

  // The hook is not called for what it does itself.
  void SetHook(std::function<void()> hook) { hook_ = std::move(hook); }

  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, ForwardingDisk::Open(path, mode));
    return std::unique_ptr<File>(new HookedFile(this, std::move(file)));
  }
  absl::Status SyncDir(std::string_view path) override {
    CallHook();
    return ForwardingDisk::SyncDir(path);
  }

 private:
  class HookedFile final : public ForwardingFile {
   public:
    HookedFile(HookedDisk* disk, std::unique_ptr<File> file)
        : ForwardingFile(std::move(file)), disk_(disk) {}

    absl::Status WriteAt(uint64_t offset, std::string_view data) override {
      disk_->CallHook();
      return ForwardingFile::WriteAt(offset, data);
    }
    absl::Status Sync() override {
      disk_->CallHook();
      return ForwardingFile::Sync();
    }

   private:
    HookedDisk* const disk_;
  };

  void CallHook() {
    std::function<void()> hook = std::exchange(hook_, nullptr);
    if (hook == nullptr) return;
    hook();
    hook_ = std::move(hook);
  }

  std::function<void()> hook_;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_HOOKED_DISK_H_
