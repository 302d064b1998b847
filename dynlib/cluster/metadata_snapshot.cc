#include "dynlib/cluster/metadata_snapshot.h"

#include <cstdint>
#include <memory>
#include <string_view>

#include "dynlib/base/status_macros.h"

namespace dynlib::cluster {
namespace {

constexpr char kNewPath[] = "metadata.snapshot.new";

// Of a save that did not come to its end.
absl::Status RemoveUnfinished(Disk* disk) {
  const absl::Status removed = disk->Remove(kNewPath);
  return removed.code() == absl::StatusCode::kNotFound ? absl::OkStatus() : removed;
}

}  // namespace

absl::Status SaveMetadataSnapshot(const partition_map::MemDs& memds, Disk* disk) {
  DYNLIB_RETURN_IF_ERROR(RemoveUnfinished(disk));
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          disk->Open(kNewPath, OpenMode::kCreate));
  uint64_t at = 0;
  DYNLIB_RETURN_IF_ERROR(memds.WriteSnapshot([&](std::string_view piece) {
    const absl::Status written = file->WriteAt(at, piece);
    at += piece.size();
    return written;
  }));
  DYNLIB_RETURN_IF_ERROR(file->Sync());
  DYNLIB_RETURN_IF_ERROR(disk->Rename(kNewPath, kMetadataSnapshotPath));
  return disk->SyncDir("");
}

absl::StatusOr<std::string> LoadMetadataSnapshot(Disk* disk) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          disk->Open(kMetadataSnapshotPath, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  std::string bytes(size, '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, bytes));
  return bytes;
}

}  // namespace dynlib::cluster
