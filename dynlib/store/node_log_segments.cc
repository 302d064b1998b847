#include "dynlib/store/node_log_segments.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_recovery.h"

namespace dynlib::store {

SegmentFiles::SegmentFiles(Shape shape, Disk* disk, std::string dir, uint64_t last_number)
    : shape_(shape),
      disk_(disk),
      dir_(std::move(dir)),
      last_number_(last_number),
      has_opening_(shape.spares_at_open == 0) {}

std::string SegmentFiles::UnfinishedPath() const {
  return Cat(SegmentPath(dir_, unfinished_.number), ".new");
}

uint64_t SegmentFiles::spares() const {
  std::lock_guard lock(mutex_);
  return spares_.size();
}

bool SegmentFiles::WantsStep(uint64_t in_use) const {
  const uint64_t ready = spares();
  return !failed_ && ready < shape_.spares_wanted && in_use + ready < shape_.max_segments;
}

uint64_t SegmentFiles::Pace(uint64_t used_bytes, uint64_t segment_bytes) const {
  return 2 * shape_.segment_bytes / segment_bytes * used_bytes;
}

bool SegmentFiles::IsStepDue(uint64_t in_use, uint64_t pace) const {
  return (made_bytes_ < pace + kStepBytes || !has_opening_) && WantsStep(in_use);
}

absl::Status SegmentFiles::Abandon(absl::Status why) {
  failed_ = true;
  unfinished_.file.reset();
  // Should this fail too, the next Open removes it.
  disk_->Remove(UnfinishedPath()).IgnoreError();
  return why;
}

absl::Status SegmentFiles::Begin(uint64_t bytes) {
  unfinished_.bytes = bytes;
  unfinished_.number = ++last_number_;
  absl::StatusOr<std::unique_ptr<File>> file = disk_->Open(UnfinishedPath(), OpenMode::kCreate);
  if (!file.ok()) return Abandon(file.status());
  unfinished_.file = *std::move(file);
  written_ = 0;
  // The one place where the log can run out of space (rule L3).
  const absl::Status allocated = unfinished_.file->Allocate(0, bytes);
  return allocated.ok() ? allocated : Abandon(allocated);
}

absl::Status SegmentFiles::PrepareStep() {
  if (unfinished_.file == nullptr) return Begin(shape_.segment_bytes);
  if (written_ == unfinished_.bytes) return Finish();
  const uint64_t length = std::min(kStepBytes, unfinished_.bytes - written_);
  char* const zeros = zeros_.Get(length);
  std::fill(zeros, zeros + length, '\0');
  const absl::Status status =
      unfinished_.file->WriteDirect(written_, std::string_view(zeros, length));
  if (!status.ok()) return Abandon(status);
  written_ += length;
  made_bytes_ += length;
  return absl::OkStatus();
}

absl::Status SegmentFiles::Finish() {
  absl::Status status = unfinished_.file->Sync();
  if (status.ok()) status = disk_->Rename(UnfinishedPath(), SegmentPath(dir_, unfinished_.number));
  if (status.ok()) status = disk_->SyncDir(dir_);
  if (!status.ok()) return Abandon(status);
  zeros_.Free();
  std::lock_guard lock(mutex_);
  AddLocked(std::exchange(unfinished_, {}));
  return absl::OkStatus();
}

void SegmentFiles::AddLocked(Segment spare) {
  spares_.push_back(std::move(spare));
  if (begun_ && spares_.size() >= shape_.spares_at_open) has_opening_ = true;
}

void SegmentFiles::SetBegun() {
  std::lock_guard lock(mutex_);
  begun_ = true;
}

absl::StatusOr<SegmentFiles::Segment> SegmentFiles::MakeSmall(uint64_t bytes) {
  DropSpares();
  DYNLIB_RETURN_IF_ERROR(Begin(bytes));
  while (unfinished_.file != nullptr) DYNLIB_RETURN_IF_ERROR(PrepareStep());
  return *TakeReady();
}

void SegmentFiles::DropSpares() {
  if (unfinished_.file != nullptr) Abandon(absl::OkStatus()).IgnoreError();
  failed_ = false;
  while (const std::optional<Segment> spare = TakeReady()) {
    // One that stays behind is found unused at the next Open.
    disk_->Remove(SegmentPath(dir_, spare->number)).IgnoreError();
  }
}

absl::StatusOr<SegmentFiles::Segment> SegmentFiles::Take(uint64_t in_use) {
  failed_ = false;
  while (true) {
    std::optional<Segment> ready = TakeReady();
    if (ready.has_value()) {
      first_ = false;
      return *std::move(ready);
    }
    if (in_use >= shape_.max_segments && !first_) {
      return absl::ResourceExhaustedError(
          Cat(dir_, ": all of max_segments = ", shape_.max_segments, " segments are in use"));
    }
    DYNLIB_RETURN_IF_ERROR(PrepareStep());
  }
}

std::optional<SegmentFiles::Segment> SegmentFiles::TakeReady() {
  std::lock_guard lock(mutex_);
  if (spares_.empty()) return std::nullopt;
  Segment segment = std::move(spares_.front());
  spares_.pop_front();
  made_bytes_ = 0;
  begun_ = true;
  if (spares_.size() >= shape_.spares_at_open) has_opening_ = true;
  return segment;
}

absl::Status SegmentFiles::Return(uint64_t number, bool right_shape) {
  const std::string path = SegmentPath(dir_, number);
  if (!right_shape || spares() >= shape_.spares_wanted) return disk_->Remove(path);
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk_->Open(path, OpenMode::kReadWrite));
  std::lock_guard lock(mutex_);
  AddLocked({number, std::move(file), shape_.segment_bytes});
  return absl::OkStatus();
}

}  // namespace dynlib::store
