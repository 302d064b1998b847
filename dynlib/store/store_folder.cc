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
constexpr std::string_view kPages = "pages";
constexpr std::string_view kPagesDraft = "pages.new";
constexpr std::string_view kLog = "log";
constexpr uint32_t kHasPages = 1;
constexpr uint32_t kHasLog = 2;

bool Contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

absl::StatusOr<StoreMark> ReadMark(Disk* disk, std::string_view dir) {
  const std::string path = Cat(dir, "/", kMark);
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  std::string bytes(std::min<uint64_t>(size, kMarkBytes + 1), '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, std::span<char>(bytes)));
  absl::StatusOr<StoreMark> mark = DecodeStoreMark(bytes);
  if (!mark.ok()) return absl::DataLossError(Cat(path, ": ", ToStd(mark.status().message())));
  if (mark->version <= kStoreVersion) return mark;
  return absl::FailedPreconditionError(Cat(path, ": a store of format version ", mark->version,
                                           "; this program knows versions up to ", kStoreVersion));
}

absl::Status WriteMark(Disk* disk, std::string_view dir, const StoreMark& mark) {
  const std::string draft = Cat(dir, "/", kDraft);
  absl::Status removed = disk->Remove(draft);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(draft, OpenMode::kCreate));
    DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, EncodeStoreMark(mark)));
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

absl::Status CheckParts(Disk* disk, std::string_view dir, const std::vector<std::string>& names,
                        const StoreMark& mark) {
  const auto missing = [&](std::string_view name) {
    return absl::DataLossError(Cat(dir, "/", name, ": missing, and this store had it"));
  };
  if (mark.has_pages && !Contains(names, kPages)) return missing(kPages);
  if (mark.has_log && !Contains(names, kLog)) return missing(kLog);
  if (!Contains(names, kPages)) return absl::OkStatus();
  return PageFile::Peek(disk, Cat(dir, "/", kPages)).status();
}

// Without STORE: nothing but what the beginning of a creation leaves.
absl::Status CheckUnfinished(Disk* disk, std::string_view dir,
                             const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const bool known = name == kDraft || name == kLock || name == kPages || name == kPagesDraft ||
                       (name == kLog && Contains(names, kPages));
    if (known) continue;
    return absl::FailedPreconditionError(
        Cat(dir, ": not a store, and not empty: it has ", Escape(name)));
  }
  if (!Contains(names, kPages)) return absl::OkStatus();
  const absl::StatusOr<PageFile::Content> content = PageFile::Peek(disk, Cat(dir, "/", kPages));
  if (!content.ok()) return content.status();
  if (*content == PageFile::Content::kNoTrees) return absl::OkStatus();
  return absl::DataLossError(
      Cat(dir, "/", kMark, ": missing, and ", dir, "/", kPages, " was used"));
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

std::string EncodeStoreMark(const StoreMark& mark) {
  std::string bytes(kMagic);
  PutFixed32(bytes, mark.version);
  PutFixed32(bytes, (mark.has_pages ? kHasPages : 0) | (mark.has_log ? kHasLog : 0));
  bytes.resize(kMarkBytes - 8);
  PutFixed64(bytes, Checksum(bytes));
  return bytes;
}

absl::StatusOr<StoreMark> DecodeStoreMark(std::string_view bytes) {
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
  ByteReader in(bytes.substr(kMagic.size()));
  StoreMark mark;
  mark.version = in.Fixed32();
  const uint32_t parts = in.Fixed32();
  mark.has_pages = (parts & kHasPages) != 0;
  mark.has_log = (parts & kHasLog) != 0;
  return mark;
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
  DYNLIB_RETURN_IF_ERROR(WriteMark(disk, dir, {.has_pages = true}));
  return lock;
}

absl::Status EndRestore(Disk* disk, std::string_view dir) {
  DYNLIB_RETURN_IF_ERROR(disk->Remove(Cat(dir, "/", kRestoring)));
  return disk->SyncDir(dir);
}

absl::StatusOr<StoreFolder> OpenFolder(Disk* disk, std::string_view dir, bool create,
                                       const PageFile::Options& pages) {
  absl::StatusOr<std::vector<std::string>> names = disk->List(dir);
  if (absl::IsNotFound(names.status())) names = std::vector<std::string>();
  if (!names.ok()) return names.status();
  StoreFolder folder;
  if (Contains(*names, kMark)) {
    DYNLIB_ASSIGN_OR_RETURN(folder.mark, ReadMark(disk, dir));
    if (Contains(*names, kRestoring)) {
      return absl::FailedPreconditionError(
          Cat(dir, ": a restore into it did not finish; restore into an empty folder"));
    }
    DYNLIB_RETURN_IF_ERROR(CheckParts(disk, dir, *names, folder.mark));
    DYNLIB_ASSIGN_OR_RETURN(folder.lock, LockFolder(disk, dir));
    return folder;
  }
  const absl::Status unfinished = CheckUnfinished(disk, dir, *names);
  if (!create && !absl::IsDataLoss(unfinished)) return absl::NotFoundError(Cat(dir, ": no store"));
  DYNLIB_RETURN_IF_ERROR(unfinished);
  DYNLIB_RETURN_IF_ERROR(MakeFolder(disk, dir));
  DYNLIB_ASSIGN_OR_RETURN(folder.lock, LockFolder(disk, dir));
  DYNLIB_ASSIGN_OR_RETURN(names, disk->List(dir));
  if (Contains(*names, kMark)) {
    return absl::FailedPreconditionError(Cat(dir, ": made by another process just now"));
  }
  if (!Contains(*names, kPages)) {
    DYNLIB_RETURN_IF_ERROR(PageFile::Create(pages, disk, Cat(dir, "/", kPages)));
  }
  folder.mark.has_pages = true;
  return folder;
}

absl::Status VerifyFolder(Disk* disk, std::string_view dir) {
  const absl::Status read = ReadMark(disk, dir).status();
  if (!absl::IsNotFound(read)) return read;
  return absl::DataLossError(Cat(dir, "/", kMark, ": missing"));
}

absl::Status CompleteFolder(Disk* disk, std::string_view dir) {
  return WriteMark(disk, dir, {.has_pages = true, .has_log = true});
}

}  // namespace dynlib::store
