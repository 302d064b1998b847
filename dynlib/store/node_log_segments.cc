#include "dynlib/store/node_log_segments.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_recovery.h"

namespace dynlib::store {

SegmentFiles::SegmentFiles(Shape shape, Disk* disk, std::string dir, uint64_t last_number)
    : shape_(shape), disk_(disk), dir_(std::move(dir)), last_number_(last_number) {}

std::string SegmentFiles::UnfinishedPath() const {
  return Cat(SegmentPath(dir_, unfinished_.number), ".new");
}

bool SegmentFiles::WantsStep(uint64_t in_use) const {
  return !failed_ && spares_.size() < shape_.spares_wanted &&
         in_use + spares_.size() < shape_.max_segments;
}

absl::Status SegmentFiles::Abandon(absl::Status why) {
  failed_ = true;
  unfinished_.file.reset();
  // Should this fail too, the next Open removes it.
  disk_->Remove(UnfinishedPath()).IgnoreError();
  return why;
}

absl::Status SegmentFiles::Begin() {
  unfinished_.number = ++last_number_;
  absl::StatusOr<std::unique_ptr<File>> file = disk_->Open(UnfinishedPath(), OpenMode::kCreate);
  if (!file.ok()) return Abandon(file.status());
  unfinished_.file = *std::move(file);
  written_ = 0;
  // The one place where the log can run out of space (rule L3).
  const absl::Status allocated = unfinished_.file->Allocate(0, shape_.segment_bytes);
  return allocated.ok() ? allocated : Abandon(allocated);
}

absl::Status SegmentFiles::PrepareStep() {
  if (unfinished_.file == nullptr) return Begin();
  if (written_ == shape_.segment_bytes) return Finish();
  const uint64_t length = std::min(kStepBytes, shape_.segment_bytes - written_);
  absl::Status status = unfinished_.file->WriteAt(written_, std::string(length, '\0'));
  if (status.ok()) status = unfinished_.file->Sync();
  if (!status.ok()) return Abandon(status);
  written_ += length;
  return absl::OkStatus();
}

absl::Status SegmentFiles::Finish() {
  absl::Status status = disk_->Rename(UnfinishedPath(), SegmentPath(dir_, unfinished_.number));
  if (status.ok()) status = disk_->SyncDir(dir_);
  if (!status.ok()) return Abandon(status);
  spares_.push_back(std::exchange(unfinished_, {}));
  return absl::OkStatus();
}

absl::StatusOr<SegmentFiles::Segment> SegmentFiles::Take(uint64_t in_use) {
  failed_ = false;
  if (spares_.empty() && in_use >= shape_.max_segments && !first_) {
    return absl::ResourceExhaustedError(
        Cat(dir_, ": all of max_segments = ", shape_.max_segments, " segments are in use"));
  }
  while (spares_.empty()) DYNLIB_RETURN_IF_ERROR(PrepareStep());
  first_ = false;
  Segment segment = std::move(spares_.front());
  spares_.pop_front();
  return segment;
}

absl::Status SegmentFiles::Return(uint64_t number, bool right_shape) {
  const std::string path = SegmentPath(dir_, number);
  if (!right_shape || spares_.size() >= shape_.spares_wanted) return disk_->Remove(path);
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk_->Open(path, OpenMode::kReadWrite));
  spares_.push_back({number, std::move(file)});
  return absl::OkStatus();
}

}  // namespace dynlib::store
