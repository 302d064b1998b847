#include "dynlib/testing/power_loss_disk.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/overlay.h"

namespace dynlib {

// What the files and locks of one disk share.
class PowerLossDisk::Power {
 public:
  Power(Disk* below, Options options) : below(below), options(options) {}

  // A call on the disk or one of its files: PowerOff waits for its end.
  class Use {
   public:
    explicit Use(Power& power) : lock_(power.in_use_), is_on_(power.is_on_) {}
    absl::Status status() const {
      return is_on_ ? absl::OkStatus() : absl::UnavailableError("the disk has lost its power");
    }

   private:
    const std::shared_lock<std::shared_mutex> lock_;
    const bool is_on_;
  };

  void TurnOff();

  Disk* const below;
  const Options options;
  std::atomic<size_t> unsynced_bytes{0};

  // Held over calls below that change names, so that `files` agrees with them.
  std::mutex names_mutex;
  std::map<std::string, std::shared_ptr<Contents>> files;  // open, or with something not synced
  std::map<uint64_t, std::unique_ptr<DiskLock>> locks;
  uint64_t next_lock = 0;

 private:
  std::shared_mutex in_use_;
  bool is_on_ = true;  // guarded by in_use_
};

// The bytes of a file, shared by all that have it open.
class PowerLossDisk::Contents {
 public:
  explicit Contents(Power* power) : power_(power) {}
  ~Contents() { Forget(); }

  absl::Status Read(File& below, uint64_t offset, std::span<char> out);
  absl::Status Write(const std::shared_ptr<File>& below, uint64_t offset, std::string_view data);
  // Moves what is in memory to the file below.
  absl::Status PassOn();
  absl::Status Truncate(File& below, uint64_t size);
  absl::StatusOr<uint64_t> Size(File& below);
  void Forget();
  bool HasUnsynced();

  // Guarded by Power::names_mutex.
  int opened = 0;
  std::string path;  // empty once removed

 private:
  absl::Status PassOnLocked();
  void CountLocked(size_t before);

  Power* const power_;  // lives as long as any file of it
  std::shared_mutex mutex_;
  Overlay unsynced_;
  std::shared_ptr<File> writer_;  // of the latest write: PassOn may come from a reader
};

class PowerLossDisk::PowerLossFile final : public File {
 public:
  PowerLossFile(std::shared_ptr<Power> power, std::shared_ptr<Contents> contents,
                std::shared_ptr<File> below, std::string name, bool writable)
      : power_(std::move(power)),
        contents_(std::move(contents)),
        below_(std::move(below)),
        name_(std::move(name)),
        writable_(writable) {}

  ~PowerLossFile() override {
    std::lock_guard lock(power_->names_mutex);
    // What is not synced outlives the file, as in a kernel's cache.
    if (--contents_->opened > 0 || contents_->HasUnsynced()) return;
    const auto found = power_->files.find(contents_->path);
    if (found != power_->files.end() && found->second == contents_) power_->files.erase(found);
  }

  absl::Status ReadAt(uint64_t offset, std::span<char> out) override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    if (offset > INT64_MAX || out.size() > INT64_MAX - offset) {
      return absl::InvalidArgumentError(Cat("read ", name_, " at ", offset, ": past 2^63"));
    }
    return contents_->Read(*below_, offset, out);
  }

  absl::Status WriteAt(uint64_t offset, std::string_view data) override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    DYNLIB_RETURN_IF_ERROR(CheckWritable("write"));
    if (offset > INT64_MAX || data.size() > INT64_MAX - offset) {
      return absl::InvalidArgumentError(Cat("write ", name_, " at ", offset, ": past 2^63"));
    }
    return contents_->Write(below_, offset, data);
  }

  absl::Status Sync() override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    if (writable_) DYNLIB_RETURN_IF_ERROR(CheckWritable("sync"));
    absl::Status status = contents_->PassOn();
    if (status.ok()) status = below_->Sync();
    if (!status.ok()) sync_failed_ = true;
    return status;
  }

  absl::Status Allocate(uint64_t offset, uint64_t length) override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    DYNLIB_RETURN_IF_ERROR(CheckWritable("allocate"));
    return below_->Allocate(offset, length);
  }

  absl::Status Truncate(uint64_t size) override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    DYNLIB_RETURN_IF_ERROR(CheckWritable("truncate"));
    return contents_->Truncate(*below_, size);
  }

  absl::Status Discard(uint64_t offset, uint64_t length) override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    DYNLIB_RETURN_IF_ERROR(CheckWritable("discard"));
    return below_->Discard(offset, length);
  }

  absl::StatusOr<uint64_t> Size() override {
    const Power::Use use(*power_);
    DYNLIB_RETURN_IF_ERROR(use.status());
    return contents_->Size(*below_);
  }

 private:
  absl::Status CheckWritable(std::string_view operation) const {
    if (!writable_) {
      return absl::PermissionDeniedError(Cat(operation, " ", name_, ": opened for reading"));
    }
    if (sync_failed_) {
      return absl::DataLossError(Cat(operation, " ", name_, ": an earlier sync failed"));
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<Power> power_;
  const std::shared_ptr<Contents> contents_;
  const std::shared_ptr<File> below_;
  const std::string name_;
  const bool writable_;
  std::atomic<bool> sync_failed_{false};  // rule L3
};

class PowerLossDisk::PowerLossLock final : public DiskLock {
 public:
  PowerLossLock(std::shared_ptr<Power> power, uint64_t id) : power_(std::move(power)), id_(id) {}
  ~PowerLossLock() override {
    std::lock_guard lock(power_->names_mutex);
    power_->locks.erase(id_);
  }

 private:
  const std::shared_ptr<Power> power_;
  const uint64_t id_;
};

void PowerLossDisk::Power::TurnOff() {
  std::map<std::string, std::shared_ptr<Contents>> gone;
  std::unique_lock use(in_use_);
  is_on_ = false;
  std::lock_guard lock(names_mutex);
  locks.clear();
  gone.swap(files);
  for (auto& [path, contents] : gone) contents->Forget();
}

absl::Status PowerLossDisk::Contents::Read(File& below, uint64_t offset, std::span<char> out) {
  std::shared_lock lock(mutex_);
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t below_size, below.Size());
  const uint64_t end = offset + out.size();
  // The disk below words the error of a read past the end.
  if (end > std::max(below_size, unsynced_.end())) return below.ReadAt(offset, out);
  const uint64_t there = offset < below_size ? std::min(end, below_size) - offset : 0;
  DYNLIB_RETURN_IF_ERROR(below.ReadAt(offset, out.first(there)));
  std::fill(out.begin() + static_cast<ptrdiff_t>(there), out.end(), '\0');
  unsynced_.ApplyTo(offset, out);
  return absl::OkStatus();
}

absl::Status PowerLossDisk::Contents::Write(const std::shared_ptr<File>& below, uint64_t offset,
                                            std::string_view data) {
  std::lock_guard lock(mutex_);
  writer_ = below;
  if (power_->unsynced_bytes + data.size() > power_->options.max_unsynced_bytes) {
    DYNLIB_RETURN_IF_ERROR(PassOnLocked());
    return below->WriteAt(offset, data);
  }
  const size_t before = unsynced_.bytes();
  unsynced_.Write(offset, data);
  CountLocked(before);
  return absl::OkStatus();
}

absl::Status PowerLossDisk::Contents::PassOn() {
  std::lock_guard lock(mutex_);
  return PassOnLocked();
}

absl::Status PowerLossDisk::Contents::PassOnLocked() {
  for (const auto& [offset, data] : unsynced_.ranges()) {
    DYNLIB_RETURN_IF_ERROR(writer_->WriteAt(offset, data));
  }
  const size_t before = unsynced_.bytes();
  unsynced_.Clear();
  CountLocked(before);
  return absl::OkStatus();
}

absl::Status PowerLossDisk::Contents::Truncate(File& below, uint64_t size) {
  std::lock_guard lock(mutex_);
  const size_t before = unsynced_.bytes();
  unsynced_.Erase(size, UINT64_MAX);
  CountLocked(before);
  return below.Truncate(size);
}

absl::StatusOr<uint64_t> PowerLossDisk::Contents::Size(File& below) {
  std::shared_lock lock(mutex_);
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t below_size, below.Size());
  return std::max(below_size, unsynced_.end());
}

void PowerLossDisk::Contents::Forget() {
  std::lock_guard lock(mutex_);
  const size_t before = unsynced_.bytes();
  unsynced_.Clear();
  writer_ = nullptr;
  CountLocked(before);
}

bool PowerLossDisk::Contents::HasUnsynced() {
  std::shared_lock lock(mutex_);
  return unsynced_.bytes() > 0;
}

void PowerLossDisk::Contents::CountLocked(size_t before) {
  power_->unsynced_bytes += unsynced_.bytes() - before;  // modulo 2^64: may be negative
}

PowerLossDisk::PowerLossDisk(Disk* below, Options options)
    : power_(std::make_shared<Power>(below, options)) {}

PowerLossDisk::~PowerLossDisk() { power_->TurnOff(); }

void PowerLossDisk::PowerOff() { power_->TurnOff(); }

size_t PowerLossDisk::unsynced_bytes() const { return power_->unsynced_bytes; }

absl::StatusOr<std::unique_ptr<File>> PowerLossDisk::Open(std::string_view path, OpenMode mode) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  std::lock_guard lock(power_->names_mutex);
  DYNLIB_ASSIGN_OR_RETURN(std::shared_ptr<File> below, power_->below->Open(path, mode));
  std::string name(path);
  std::shared_ptr<Contents>& contents = power_->files[name];
  if (contents == nullptr) {
    contents = std::make_shared<Contents>(power_.get());
    contents->path = name;
  }
  ++contents->opened;
  return std::make_unique<PowerLossFile>(power_, contents, std::move(below), std::move(name),
                                         mode != OpenMode::kRead);
}

absl::Status PowerLossDisk::Rename(std::string_view from, std::string_view to) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  std::lock_guard lock(power_->names_mutex);
  DYNLIB_RETURN_IF_ERROR(power_->below->Rename(from, to));
  if (from == to) return absl::OkStatus();
  Unlist(to);
  // The file itself, or all in the folder.
  std::vector<std::shared_ptr<Contents>> moved;
  const std::string folder = Cat(from, "/");
  std::erase_if(power_->files, [&](const auto& file) {
    const bool is_it = file.first == from || file.first.starts_with(folder);
    if (is_it) moved.push_back(file.second);
    return is_it;
  });
  for (std::shared_ptr<Contents>& contents : moved) {
    contents->path = Cat(to, contents->path.substr(from.size()));
    power_->files[contents->path] = contents;
  }
  return absl::OkStatus();
}

absl::Status PowerLossDisk::Remove(std::string_view path) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  std::lock_guard lock(power_->names_mutex);
  DYNLIB_RETURN_IF_ERROR(power_->below->Remove(path));
  Unlist(path);
  return absl::OkStatus();
}

// The file lost its name: those that have it open go on.
void PowerLossDisk::Unlist(std::string_view path) {
  const auto found = power_->files.find(std::string(path));
  if (found == power_->files.end()) return;
  if (found->second->opened == 0) found->second->Forget();
  found->second->path.clear();
  power_->files.erase(found);
}

absl::Status PowerLossDisk::CreateDir(std::string_view path) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  return power_->below->CreateDir(path);
}

absl::StatusOr<std::vector<std::string>> PowerLossDisk::List(std::string_view path) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  return power_->below->List(path);
}

absl::Status PowerLossDisk::SyncDir(std::string_view path) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  return power_->below->SyncDir(path);
}

absl::StatusOr<std::unique_ptr<DiskLock>> PowerLossDisk::Lock(std::string_view path) {
  const Power::Use use(*power_);
  DYNLIB_RETURN_IF_ERROR(use.status());
  std::lock_guard lock(power_->names_mutex);
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<DiskLock> below, power_->below->Lock(path));
  const uint64_t id = power_->next_lock++;
  power_->locks.emplace(id, std::move(below));
  return std::make_unique<PowerLossLock>(power_, id);
}

}  // namespace dynlib
