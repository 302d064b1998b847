#include "dynlib/sim/disk.h"

#include <algorithm>
#include <limits>
#include <span>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::sim {
namespace {

constexpr uint64_t kSector = FileImage::kSectorBytes;
// Offsets stay clear of overflow.
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 46;

std::string What(std::string_view operation, std::string_view path) {
  return Cat(operation, " '", Escape(path, 200), "'");
}
std::string What(std::string_view operation, std::string_view path, uint64_t offset) {
  return Cat(What(operation, path), " at ", offset);
}

}  // namespace

class SimDisk::SimFile final : public File {
 public:
  SimFile(SimDisk* disk, std::shared_ptr<FileImage> image, std::string_view path, bool writable,
          uint64_t incarnation)
      : disk_(disk),
        image_(std::move(image)),
        path_(path),
        writable_(writable),
        incarnation_(incarnation) {}

  absl::Status ReadAt(uint64_t offset, std::span<char> out) override {
    return disk_->ReadFile(*this, offset, out);
  }
  absl::Status WriteAt(uint64_t offset, std::string_view data) override {
    return disk_->WriteFile(*this, offset, data);
  }
  absl::Status Sync() override { return disk_->SyncFile(*this); }
  absl::Status Allocate(uint64_t offset, uint64_t length) override {
    return disk_->AllocateFile(*this, offset, length);
  }
  absl::Status Truncate(uint64_t size) override { return disk_->TruncateFile(*this, size); }
  absl::Status Discard(uint64_t offset, uint64_t length) override {
    return disk_->DiscardFile(*this, offset, length);
  }
  absl::StatusOr<uint64_t> Size() override { return disk_->SizeOfFile(*this); }

  FileImage& image() { return *image_; }
  const std::string& path() const { return path_; }
  uint64_t incarnation() const { return incarnation_; }
  void SetFailed() { failed_ = true; }

  // Whether this File takes changes to [offset, offset + length).
  absl::Status CheckWritable(std::string_view what, uint64_t offset, uint64_t length) const {
    if (!writable_) return absl::PermissionDeniedError(Cat(what, ": opened for reading"));
    if (offset > kMaxFileBytes || length > kMaxFileBytes - offset) {
      return absl::InvalidArgumentError(Cat(what, ": past the largest file size"));
    }
    return CheckSynced(what);
  }
  absl::Status CheckSynced(std::string_view what) const {
    if (!failed_) return absl::OkStatus();
    return absl::DataLossError(Cat(what, ": an earlier sync of this file failed"));
  }

 private:
  SimDisk* const disk_;
  const std::shared_ptr<FileImage> image_;
  const std::string path_;
  const bool writable_;
  const uint64_t incarnation_;
  bool failed_ = false;
};

class SimDisk::SimLock final : public DiskLock {
 public:
  SimLock(SimDisk* disk, std::string_view path, uint64_t incarnation)
      : disk_(disk), path_(path), incarnation_(incarnation) {}
  ~SimLock() override { disk_->Unlock(path_, incarnation_); }

 private:
  SimDisk* const disk_;
  const std::string path_;
  const uint64_t incarnation_;
};

SimDisk::SimDisk(uint64_t seed) : SimDisk(seed, nullptr, nullptr) {}

SimDisk::SimDisk(uint64_t seed, Scheduler* scheduler, const FaultOptions* faults)
    : scheduler_(scheduler), faults_(faults), random_(seed) {}

// What a call meets.

absl::StatusOr<SimDisk::Outcome> SimDisk::Begin(Call call, uint64_t incarnation,
                                                std::string_view what) {
  std::lock_guard lock(mutex_);
  if (down_ || incarnation != incarnation_) {
    return absl::AbortedError(Cat(what, ": the process has ended"));
  }
  ++calls_;
  if (fail_at_call_ != 0 && calls_ >= fail_at_call_ && fail_fault_ != DiskFault::kNoSpace) {
    fail_at_call_ = 0;
    return fail_fault_ == DiskFault::kEio ? Outcome::kEio : Outcome::kPowerOff;
  }
  if (faults_ == nullptr) return Outcome::kProceed;
  const double probability = call == Call::kSync ? faults_->disk_failed_sync : faults_->disk_eio;
  return probability > 0 && random_.Chance(probability) ? Outcome::kEio : Outcome::kProceed;
}

absl::Status SimDisk::Wait(Call call, uint64_t incarnation, std::string_view what) {
  if (scheduler_ == nullptr) return absl::OkStatus();
  Duration latency =
      call == Call::kSync ? std::chrono::microseconds(200) : std::chrono::microseconds(20);
  if (faults_ != nullptr && faults_->disk_latency_us_max > 0) {
    CountFault("disk.latency");
    latency += std::chrono::microseconds(
        random_.Between(faults_->disk_latency_us_min, faults_->disk_latency_us_max));
  }
  bool alive = true;
  do {
    const Instant before = Now();
    alive = scheduler_->Delay(latency);
    if (Now() == before) break;  // not on a fiber: nothing to wait for
    latency = stalled_until_ - Now();
  } while (alive && latency > Duration::zero());
  std::lock_guard lock(mutex_);
  if (alive && !down_ && incarnation == incarnation_) return absl::OkStatus();
  return absl::AbortedError(Cat(what, ": the process has ended"));
}

absl::Status SimDisk::Start(Call call, uint64_t incarnation, std::string_view what) {
  DYNLIB_ASSIGN_OR_RETURN(Outcome outcome, Begin(call, incarnation, what));
  DYNLIB_RETURN_IF_ERROR(Wait(call, incarnation, what));
  if (outcome == Outcome::kPowerOff) return FailPower(what);
  if (outcome == Outcome::kProceed) return absl::OkStatus();
  CountFault("disk.eio");
  return absl::DataLossError(Cat(what, ": input/output error"));
}

absl::Status SimDisk::FailPower(std::string_view what) {
  PowerOff(fail_fate_);
  if (on_power_off_) on_power_off_();
  return absl::AbortedError(Cat(what, ": the power failed"));
}

void SimDisk::CountFault(std::string_view name) {
  if (scheduler_ != nullptr) scheduler_->CountFault(name);
}

Instant SimDisk::Now() const { return scheduler_ == nullptr ? Instant() : scheduler_->Now(); }

uint64_t SimDisk::incarnation() const {
  std::lock_guard lock(mutex_);
  return incarnation_;
}

// Files.

absl::Status SimDisk::ReadFile(SimFile& file, uint64_t offset, std::span<char> out) {
  const std::string what = What("read", file.path(), offset);
  DYNLIB_RETURN_IF_ERROR(Start(Call::kRead, file.incarnation(), what));
  std::lock_guard lock(mutex_);
  const uint64_t size = file.image().size();
  if (offset > size || out.size() > size - offset) {
    return absl::OutOfRangeError(Cat(what, ": ", out.size(), " bytes wanted, the file has ", size));
  }
  file.image().Read(offset, out);
  return absl::OkStatus();
}

void SimDisk::WritePart(FileImage& image, uint64_t offset, std::string_view data) {
  std::lock_guard lock(mutex_);
  image.Write(offset, data, {Now(), ++write_sequence_});
}

absl::Status SimDisk::WriteFile(SimFile& file, uint64_t offset, std::string_view data) {
  const std::string what = What("write", file.path(), offset);
  DYNLIB_RETURN_IF_ERROR(file.CheckWritable(what, offset, data.size()));
  DYNLIB_ASSIGN_OR_RETURN(Outcome outcome, Begin(Call::kWrite, file.incarnation(), what));
  DYNLIB_RETURN_IF_ERROR(TakeSpace(file.image(), offset, data.size(), what));
  if (outcome == Outcome::kPowerOff) {
    WritePart(file.image(), offset, data);
    return FailPower(what);
  }
  // Part of it reaches the cache before the time passes, or before the error.
  size_t first = data.size();
  if (scheduler_ != nullptr || outcome == Outcome::kEio) {
    std::lock_guard lock(mutex_);
    first = std::min<uint64_t>(first, kSector * random_.Below(data.size() / kSector + 2));
  }
  WritePart(file.image(), offset, data.substr(0, first));
  DYNLIB_RETURN_IF_ERROR(Wait(Call::kWrite, file.incarnation(), what));
  if (outcome == Outcome::kEio) {
    CountFault("disk.eio");
    return absl::DataLossError(Cat(what, ": input/output error"));
  }
  if (first < data.size()) WritePart(file.image(), offset + first, data.substr(first));
  return absl::OkStatus();
}

absl::Status SimDisk::SyncFile(SimFile& file) {
  const std::string what = What("sync", file.path());
  DYNLIB_RETURN_IF_ERROR(file.CheckSynced(what));
  DYNLIB_ASSIGN_OR_RETURN(Outcome outcome, Begin(Call::kSync, file.incarnation(), what));
  DYNLIB_RETURN_IF_ERROR(Wait(Call::kSync, file.incarnation(), what));
  if (outcome == Outcome::kPowerOff) return FailPower(what);
  if (outcome == Outcome::kEio) return FailSync(file, what);
  std::lock_guard lock(mutex_);
  file.image().Sync();
  return absl::OkStatus();
}

absl::Status SimDisk::FailSync(SimFile& file, std::string_view what) {
  CountFault("disk.failed_sync");
  std::lock_guard lock(mutex_);
  file.SetFailed();
  file.image().FailSync(faults_ != nullptr && faults_->disk_failed_sync_keeps_cache, random_);
  RecountSpace();
  return absl::DataLossError(Cat(what, ": input/output error"));
}

absl::Status SimDisk::TakeSpace(FileImage& image, uint64_t offset, uint64_t length,
                                std::string_view what) {
  std::lock_guard lock(mutex_);
  const uint64_t missing = image.BlocksMissing(offset, length);
  if (missing == 0) return absl::OkStatus();
  const bool chosen = fail_at_call_ != 0 && calls_ >= fail_at_call_;
  if (chosen) fail_at_call_ = 0;
  if (chosen || full_ || missing > capacity_blocks_ - std::min(capacity_blocks_, used_blocks_)) {
    CountFault("disk.full");
    return absl::ResourceExhaustedError(Cat(what, ": no space left"));
  }
  image.TakeBlocks(offset, length);
  used_blocks_ += missing;
  return absl::OkStatus();
}

absl::Status SimDisk::AllocateFile(SimFile& file, uint64_t offset, uint64_t length) {
  const std::string what = What("allocate", file.path(), offset);
  DYNLIB_RETURN_IF_ERROR(file.CheckWritable(what, offset, length));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, file.incarnation(), what));
  DYNLIB_RETURN_IF_ERROR(TakeSpace(file.image(), offset, length, what));
  std::lock_guard lock(mutex_);
  if (offset + length > file.image().size()) file.image().Resize(offset + length);
  return absl::OkStatus();
}

absl::Status SimDisk::TruncateFile(SimFile& file, uint64_t size) {
  const std::string what = What("truncate", file.path(), size);
  DYNLIB_RETURN_IF_ERROR(file.CheckWritable(what, size, 0));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, file.incarnation(), what));
  std::lock_guard lock(mutex_);
  file.image().Resize(size);
  RecountSpace();
  return absl::OkStatus();
}

absl::Status SimDisk::DiscardFile(SimFile& file, uint64_t offset, uint64_t length) {
  const std::string what = What("discard", file.path(), offset);
  DYNLIB_RETURN_IF_ERROR(file.CheckWritable(what, offset, length));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, file.incarnation(), what));
  std::lock_guard lock(mutex_);
  file.image().Discard(offset, length, {Now(), ++write_sequence_});
  RecountSpace();
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SimDisk::SizeOfFile(SimFile& file) {
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, file.incarnation(), What("size", file.path())));
  std::lock_guard lock(mutex_);
  return file.image().size();
}

// Names.

absl::StatusOr<std::unique_ptr<File>> SimDisk::Open(std::string_view path, OpenMode mode) {
  const std::string what = What("open", path);
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(path, /*may_be_root=*/false));
  const uint64_t incarnation = this->incarnation();
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, incarnation, what));
  std::lock_guard lock(mutex_);
  std::shared_ptr<FileImage> image;
  if (mode == OpenMode::kCreate) {
    DYNLIB_ASSIGN_OR_RETURN(image, names_.Create(path));
  } else {
    image = names_.Find(path);
    if (image == nullptr && names_.IsDir(path)) {
      return absl::InvalidArgumentError(Cat(what, ": it is a folder"));
    }
    if (image == nullptr) return absl::NotFoundError(Cat(what, ": no such file"));
  }
  return std::make_unique<SimFile>(this, std::move(image), path, mode != OpenMode::kRead,
                                   incarnation);
}

absl::Status SimDisk::Rename(std::string_view from, std::string_view to) {
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(from, /*may_be_root=*/false));
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(to, /*may_be_root=*/false));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, incarnation(), What("rename", from)));
  std::lock_guard lock(mutex_);
  DYNLIB_RETURN_IF_ERROR(names_.Rename(from, to));
  RecountSpace();
  return absl::OkStatus();
}

absl::Status SimDisk::Remove(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(path, /*may_be_root=*/false));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, incarnation(), What("remove", path)));
  std::lock_guard lock(mutex_);
  DYNLIB_RETURN_IF_ERROR(names_.Remove(path));
  RecountSpace();
  return absl::OkStatus();
}

absl::Status SimDisk::CreateDir(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(path, /*may_be_root=*/true));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, incarnation(), What("create folder", path)));
  std::lock_guard lock(mutex_);
  return names_.CreateDir(path);
}

absl::StatusOr<std::vector<std::string>> SimDisk::List(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(path, /*may_be_root=*/true));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, incarnation(), What("list", path)));
  std::lock_guard lock(mutex_);
  return names_.List(path);
}

absl::Status SimDisk::SyncDir(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(path, /*may_be_root=*/true));
  DYNLIB_RETURN_IF_ERROR(Start(Call::kSync, incarnation(), What("sync folder", path)));
  std::lock_guard lock(mutex_);
  return names_.SyncDir(path);
}

absl::StatusOr<std::unique_ptr<DiskLock>> SimDisk::Lock(std::string_view path) {
  const std::string what = What("lock", path);
  DYNLIB_RETURN_IF_ERROR(DiskNames::CheckPath(path, /*may_be_root=*/false));
  const uint64_t incarnation = this->incarnation();
  DYNLIB_RETURN_IF_ERROR(Start(Call::kMeta, incarnation, what));
  std::lock_guard lock(mutex_);
  if (names_.Find(path) == nullptr) {
    auto created = names_.Create(path);
    if (!created.ok()) return created.status();
  }
  if (!locked_.insert(std::string(path)).second) {
    return absl::AlreadyExistsError(Cat(what, ": it is locked"));
  }
  return std::make_unique<SimLock>(this, path, incarnation);
}

void SimDisk::Unlock(const std::string& path, uint64_t incarnation) {
  std::lock_guard lock(mutex_);
  if (incarnation == incarnation_) locked_.erase(path);
}

// Process and power.

void SimDisk::EndIncarnation() {
  if (down_) return;
  down_ = true;
  ++incarnation_;
  locked_.clear();
}

void SimDisk::Crash() {
  std::lock_guard lock(mutex_);
  EndIncarnation();
}

void SimDisk::PowerOff(UnsyncedFate fate) {
  std::lock_guard lock(mutex_);
  EndIncarnation();
  // Before the names, which forget the files that they lose.
  for (const auto& image : names_.AllImages()) image->LosePower(fate, random_);
  names_.LosePower(fate, random_);
  RecountSpace();
}

void SimDisk::Restart() {
  std::lock_guard lock(mutex_);
  DYNLIB_CHECK(down_);
  down_ = false;
}

void SimDisk::Replace() {
  std::lock_guard lock(mutex_);
  DYNLIB_CHECK(down_);
  names_ = DiskNames();
  RecountSpace();
}

bool SimDisk::down() const {
  std::lock_guard lock(mutex_);
  return down_;
}

uint64_t SimDisk::calls() const {
  std::lock_guard lock(mutex_);
  return calls_;
}

uint64_t SimDisk::used_bytes() const {
  std::lock_guard lock(mutex_);
  return used_blocks_ * FileImage::kChunkBytes;
}

void SimDisk::FailCall(uint64_t n, DiskFault fault, UnsyncedFate fate) {
  DYNLIB_CHECK(n > 0);
  std::lock_guard lock(mutex_);
  fail_at_call_ = calls_ + n;
  fail_fault_ = fault;
  fail_fate_ = fate;
}

void SimDisk::RecountSpace() {
  used_blocks_ = 0;
  for (const auto& [path, image] : names_.Files()) used_blocks_ += image->blocks();
}

// Damage.

std::vector<SimDisk::Sector> SimDisk::CorruptibleSectors() const {
  const size_t spared = kCorruptibleTailBytes / kSector;
  std::vector<Sector> result;
  for (const auto& [path, image] : names_.Files()) {
    std::vector<FileImage::CleanSector> sectors = image->CleanSectors();
    std::sort(sectors.begin(), sectors.end(), [](const auto& a, const auto& b) {
      return std::pair(a.stamp.sequence, a.index) > std::pair(b.stamp.sequence, b.index);
    });
    for (size_t i = spared; i < sectors.size(); ++i) {
      if (scheduler_ != nullptr && Now() - sectors[i].stamp.time < kCorruptibleAge) continue;
      result.push_back({image.get(), sectors[i].index});
    }
  }
  return result;
}

bool SimDisk::FlipRandomBit() {
  const std::vector<Sector> sectors = CorruptibleSectors();
  if (sectors.empty()) return false;
  const Sector chosen = sectors[random_.Below(sectors.size())];
  const uint64_t offset = chosen.index * kSector + random_.Below(kSector);
  char byte;
  chosen.image->Read(offset, {&byte, 1});
  byte = static_cast<char>(byte ^ (1 << random_.Below(8)));
  chosen.image->Overwrite(offset, {&byte, 1});
  CountFault("disk.bit_flip");
  return true;
}

bool SimDisk::MisdirectRandomWrite() {
  const std::vector<Sector> sectors = CorruptibleSectors();
  if (sectors.size() < 2) return false;
  const size_t meant = random_.Below(sectors.size());
  const size_t hit = (meant + 1 + random_.Below(sectors.size() - 1)) % sectors.size();
  std::string bytes(kSector, '\0'), overwritten(kSector, '\0');
  sectors[meant].image->Read(sectors[meant].index * kSector, bytes);
  sectors[hit].image->Read(sectors[hit].index * kSector, overwritten);
  if (bytes == overwritten) return false;
  sectors[hit].image->Overwrite(sectors[hit].index * kSector, bytes);
  // Where it should have gone is then what was there before: something else of the kind.
  if (random_.Below(2) == 0) {
    sectors[meant].image->Overwrite(sectors[meant].index * kSector, overwritten);
  }
  CountFault("disk.misdirected_write");
  return true;
}

FileImage& SimDisk::ImageOf(std::string_view path) const {
  const std::shared_ptr<FileImage> image = names_.Find(path);
  DYNLIB_CHECK(image != nullptr);
  return *image;  // kept by names_
}

void SimDisk::FlipBit(std::string_view path, uint64_t bit_offset) {
  FileImage& image = ImageOf(path);
  DYNLIB_CHECK(bit_offset / 8 < image.size());
  char byte;
  image.Read(bit_offset / 8, {&byte, 1});
  byte = static_cast<char>(byte ^ (1 << (bit_offset % 8)));
  image.Overwrite(bit_offset / 8, {&byte, 1});
}

std::string SimDisk::ReadRaw(std::string_view path) const {
  const FileImage& image = ImageOf(path);
  std::string bytes(image.size(), '\0');
  image.Read(0, bytes);
  return bytes;
}

std::string SimDisk::ReadDurable(std::string_view path) const {
  const FileImage& image = ImageOf(path);
  std::string bytes(image.durable_size(), '\0');
  image.ReadDurable(0, bytes);
  return bytes;
}

void SimDisk::WriteRaw(std::string_view path, uint64_t offset, std::string_view data) {
  FileImage& image = ImageOf(path);
  DYNLIB_CHECK(offset <= image.size() && data.size() <= image.size() - offset);
  if (!data.empty()) image.Overwrite(offset, data);
}

std::vector<std::string> SimDisk::Paths() const {
  std::vector<std::string> paths;
  for (const auto& [path, image] : names_.Files()) paths.push_back(path);
  return paths;
}

size_t SimDisk::UnsyncedOperations() const {
  size_t count = names_.unsynced();
  for (const auto& image : names_.AllImages()) count += image->unsynced();
  return count;
}

}  // namespace dynlib::sim
