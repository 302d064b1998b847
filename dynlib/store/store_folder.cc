#include "dynlib/store/store_folder.h"

#include <algorithm>
#include <span>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr std::string_view kMagic("DLSTORE\0", 8);
constexpr size_t kMarkBytes = 64;
constexpr std::string_view kMark = "STORE";
constexpr std::string_view kDraft = "STORE.new";
constexpr std::string_view kLock = "LOCK";
constexpr std::string_view kRestoring = "RESTORING";

bool Contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

absl::Status CheckMark(Disk* disk, const std::string& path) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  std::string bytes(std::min<uint64_t>(size, kMarkBytes + 1), '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, std::span<char>(bytes)));
  absl::StatusOr<uint32_t> version = DecodeStoreMark(bytes);
  if (!version.ok()) {
    return absl::DataLossError(Cat(path, ": ", ToStd(version.status().message())));
  }
  if (*version <= kStoreVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(Cat(path, ": a store of format version ", *version,
                                           "; this program knows versions up to ", kStoreVersion));
}

absl::Status WriteMark(Disk* disk, std::string_view dir) {
  const std::string draft = Cat(dir, "/", kDraft);
  absl::Status removed = disk->Remove(draft);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(draft, OpenMode::kCreate));
    DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, EncodeStoreMark(kStoreVersion)));
    DYNLIB_RETURN_IF_ERROR(file->Sync());
  }
  DYNLIB_RETURN_IF_ERROR(disk->Rename(draft, Cat(dir, "/", kMark)));
  return disk->SyncDir(dir);
}

absl::StatusOr<std::unique_ptr<DiskLock>> LockFolder(Disk* disk, std::string_view dir) {
  absl::StatusOr<std::unique_ptr<DiskLock>> lock = disk->Lock(Cat(dir, "/", kLock));
  if (!absl::IsAlreadyExists(lock.status())) return lock;
  return absl::FailedPreconditionError(Cat(dir, ": in use by this or another process"));
}

absl::Status MakeFolder(Disk* disk, std::string_view dir) {
  DYNLIB_RETURN_IF_ERROR(disk->CreateDir(dir));
  while (!dir.empty()) {
    const size_t slash = dir.rfind('/');
    dir = slash == std::string_view::npos ? std::string_view() : dir.substr(0, slash);
    DYNLIB_RETURN_IF_ERROR(disk->SyncDir(dir));
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeStoreMark(uint32_t version) {
  std::string bytes(kMagic);
  PutFixed32(bytes, version);
  bytes.resize(kMarkBytes - 8);
  PutFixed64(bytes, Checksum(bytes));
  return bytes;
}

absl::StatusOr<uint32_t> DecodeStoreMark(std::string_view bytes) {
  if (bytes.size() != kMarkBytes) {
    return absl::DataLossError(Cat(bytes.size(), " bytes long, not ", kMarkBytes));
  }
  const uint64_t stored = LoadFixed<uint64_t>(bytes.data() + kMarkBytes - 8);
  const uint64_t found = Checksum(bytes.substr(0, kMarkBytes - 8));
  if (stored != found) {
    return absl::DataLossError(
        Cat("at offset 0: checksum ", Hex(found), ", and ", Hex(stored), " is stored"));
  }
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError("does not start as the mark of a store does");
  }
  return LoadFixed<uint32_t>(bytes.data() + kMagic.size());
}

absl::StatusOr<std::unique_ptr<DiskLock>> BeginRestore(Disk* disk, std::string_view dir) {
  absl::StatusOr<std::vector<std::string>> names = disk->List(dir);
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  if (names.ok() && !names->empty()) {
    return absl::FailedPreconditionError(
        Cat(dir, ": a backup is restored into an empty folder; this has ", Escape(names->front())));
  }
  DYNLIB_RETURN_IF_ERROR(MakeFolder(disk, dir));
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<DiskLock> lock, LockFolder(disk, dir));
  DYNLIB_RETURN_IF_ERROR(disk->Open(Cat(dir, "/", kRestoring), OpenMode::kCreate).status());
  DYNLIB_RETURN_IF_ERROR(WriteMark(disk, dir));
  return lock;
}

absl::Status EndRestore(Disk* disk, std::string_view dir) {
  DYNLIB_RETURN_IF_ERROR(disk->Remove(Cat(dir, "/", kRestoring)));
  return disk->SyncDir(dir);
}

absl::StatusOr<std::unique_ptr<DiskLock>> OpenFolder(Disk* disk, std::string_view dir,
                                                     bool create) {
  absl::StatusOr<std::vector<std::string>> names = disk->List(dir);
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  const bool there = names.ok() && Contains(*names, kMark);
  if (there) {
    DYNLIB_RETURN_IF_ERROR(CheckMark(disk, Cat(dir, "/", kMark)));
    if (Contains(*names, kRestoring)) {
      return absl::FailedPreconditionError(
          Cat(dir, ": a restore into it did not finish; restore into an empty folder"));
    }
  } else {
    if (!create) return absl::NotFoundError(Cat(dir, ": no store"));
    for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
      if (name == kDraft || name == kLock) continue;
      return absl::FailedPreconditionError(
          Cat(dir, ": not a store, and not empty: it has ", Escape(name)));
    }
    DYNLIB_RETURN_IF_ERROR(MakeFolder(disk, dir));
  }
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<DiskLock> lock, LockFolder(disk, dir));
  if (!there) DYNLIB_RETURN_IF_ERROR(WriteMark(disk, dir));
  return lock;
}

}  // namespace dynlib::store
