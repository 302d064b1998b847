#include "dynlib/runtime/directory_object_store.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/object_name.h"

namespace dynlib {
namespace {

constexpr size_t kHeaderBytes = 32;
constexpr std::string_view kMagic{"DYNOBJ\x01\0", 8};
constexpr size_t kMaxPartBytes = 200;  // file systems take 255
constexpr char kFolderMark = ',';
constexpr char kLongPartMark = '~';

std::string Join(std::string_view folder, std::string_view name) {
  return folder.empty() ? std::string(name) : Cat(folder, "/", name);
}

// The header's checksum is seeded by the name: a file under another object's name does not verify.
uint64_t HeaderChecksum(std::string_view fields, std::string_view name) {
  return Checksum(fields, Checksum(name));
}

std::string EncodeHeader(std::string_view name, uint64_t size, uint64_t checksum) {
  std::string header(kMagic);
  PutFixed64(header, size);
  PutFixed64(header, checksum);
  PutFixed64(header, HeaderChecksum(header, name));
  return header;
}

// The path of an object below the objects' folder.
std::string EncodeName(std::string_view name) {
  std::string path;
  for (size_t in_part = 0; char c : name) {
    if (c == '/') {
      path += kFolderMark;
      path += '/';
      in_part = 0;
      continue;
    }
    if (in_part == kMaxPartBytes) {
      path += kLongPartMark;
      path += '/';
      in_part = 0;
    }
    path += c;
    ++in_part;
  }
  return path;
}

std::string_view FolderOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == path.npos ? std::string_view() : path.substr(0, slash);
}

absl::StatusOr<std::string> ReadWhole(Disk* disk, const std::string& path) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  std::string bytes(size, '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, bytes));
  return bytes;
}

// The names of the folder, or none if there is no such folder.
absl::StatusOr<std::vector<std::string>> ListIfThere(Disk* disk, const std::string& path) {
  absl::StatusOr<std::vector<std::string>> names = disk->List(path);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectoryObjectStore>> DirectoryObjectStore::Open(
    Disk* disk, std::string_view folder) {
  auto store =
      std::unique_ptr<DirectoryObjectStore>(new DirectoryObjectStore(disk, std::string(folder)));
  DYNLIB_RETURN_IF_ERROR(disk->CreateDir(folder));
  DYNLIB_ASSIGN_OR_RETURN(store->lock_, disk->Lock(Join(folder, "LOCK")));
  DYNLIB_RETURN_IF_ERROR(disk->CreateDir(store->ObjectsFolder()));
  DYNLIB_RETURN_IF_ERROR(disk->CreateDir(store->AsideFolder()));
  DYNLIB_RETURN_IF_ERROR(store->SyncFoldersAbove(store->ObjectsFolder()));
  DYNLIB_ASSIGN_OR_RETURN(const auto unfinished, disk->List(store->AsideFolder()));
  for (const std::string& name : unfinished) {
    DYNLIB_RETURN_IF_ERROR(disk->Remove(Join(store->AsideFolder(), name)));
  }
  return store;
}

std::string DirectoryObjectStore::ObjectsFolder() const { return Join(folder_, "objects"); }

std::string DirectoryObjectStore::AsideFolder() const { return Join(folder_, "aside"); }

std::string DirectoryObjectStore::PathOf(std::string_view name) const {
  return Join(ObjectsFolder(), EncodeName(name));
}

absl::Status DirectoryObjectStore::Put(std::string_view name, std::string_view data,
                                       uint64_t checksum) {
  DYNLIB_RETURN_IF_ERROR(CheckObjectName(name));
  const uint64_t actual = Checksum(data);
  if (actual != checksum) {
    return absl::DataLossError(Cat("put object ", name, ": its checksum is ", Hex(actual),
                                   ", the caller's ", Hex(checksum)));
  }
  const std::string aside =
      Join(AsideFolder(), Cat(next_aside_.fetch_add(1, std::memory_order_relaxed)));
  absl::Status status = WriteAside(aside, name, data, checksum);
  if (status.ok()) status = MoveIntoPlace(aside, PathOf(name));
  // What stays aside is removed at the next Open if not here.
  if (!status.ok()) disk_->Remove(aside).IgnoreError();
  return status;
}

absl::Status DirectoryObjectStore::WriteAside(const std::string& path, std::string_view name,
                                              std::string_view data, uint64_t checksum) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, disk_->Open(path, OpenMode::kCreate));
  DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, EncodeHeader(name, data.size(), checksum)));
  DYNLIB_RETURN_IF_ERROR(file->WriteAt(kHeaderBytes, data));
  return file->Sync();
}

absl::Status DirectoryObjectStore::MoveIntoPlace(const std::string& aside,
                                                 const std::string& path) {
  absl::Status moved = disk_->Rename(aside, path);
  if (absl::IsNotFound(moved)) {
    DYNLIB_RETURN_IF_ERROR(disk_->CreateDir(FolderOf(path)));
    moved = disk_->Rename(aside, path);
  }
  DYNLIB_RETURN_IF_ERROR(moved);
  return SyncFoldersAbove(path);
}

// All of them each time: another Put may have made one and not synced it yet.
absl::Status DirectoryObjectStore::SyncFoldersAbove(std::string_view path) {
  do {
    path = FolderOf(path);
    DYNLIB_RETURN_IF_ERROR(disk_->SyncDir(path));
  } while (!path.empty());
  return absl::OkStatus();
}

absl::StatusOr<std::string> DirectoryObjectStore::Get(std::string_view name) {
  DYNLIB_RETURN_IF_ERROR(CheckObjectName(name));
  const std::string path = PathOf(name);
  absl::StatusOr<std::string> bytes = ReadWhole(disk_, path);
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(Cat("get object ", name, ": no such object"));
  }
  DYNLIB_RETURN_IF_ERROR(bytes.status());

  const auto damaged = [&](std::string_view what, uint64_t wanted, uint64_t found) {
    return absl::DataLossError(Cat("get object ", name, " from ", path, ": ", what, " is ",
                                   Hex(found), ", want ", Hex(wanted)));
  };
  ByteReader in(*bytes);
  const std::string_view magic = in.Bytes(kMagic.size());
  const uint64_t size = in.Fixed64();
  const uint64_t checksum = in.Fixed64();
  const uint64_t header_checksum = in.Fixed64();
  if (!in.ok() || magic != kMagic) {
    return absl::DataLossError(Cat("get object ", name, " from ", path, ": not an object's file"));
  }
  const uint64_t header_found =
      HeaderChecksum(std::string_view(*bytes).substr(0, kHeaderBytes - 8), name);
  if (header_found != header_checksum) {
    return damaged("the header's checksum", header_checksum, header_found);
  }
  if (in.rest().size() != size) return damaged("the size", size, in.rest().size());
  const uint64_t found = Checksum(in.rest());
  if (found != checksum) return damaged("the data's checksum", checksum, found);
  bytes->erase(0, kHeaderBytes);
  return bytes;
}

absl::Status DirectoryObjectStore::Delete(std::string_view name) {
  DYNLIB_RETURN_IF_ERROR(CheckObjectName(name));
  const std::string path = PathOf(name);
  const absl::Status removed = disk_->Remove(path);
  if (absl::IsNotFound(removed)) return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(removed);
  return disk_->SyncDir(FolderOf(path));
}

// Collects the first `limit` objects of a listing, leaving out folders that cannot hold one. Not
// recursive: on small stacks too, names may be deep.
class DirectoryObjectStore::Walk {
 public:
  Walk(Disk* disk, std::string_view prefix, std::string_view after, size_t limit)
      : disk_(disk), prefix_(prefix), after_(after), limit_(limit) {}

  absl::Status Run(std::string root) {
    if (limit_ == 0) return absl::OkStatus();
    pending_.push_back({.path = std::move(root), .name = "", .is_folder = true});
    while (!pending_.empty()) {
      Entry entry = std::move(pending_.back());
      pending_.pop_back();
      if (!entry.is_folder) {
        AddObject(std::move(entry));
      } else if (MayHoldAnswers(entry.name)) {
        DYNLIB_RETURN_IF_ERROR(Descend(entry));
      }
    }
    return absl::OkStatus();
  }

  // By name, with the path.
  const std::map<std::string, std::string>& found() const { return found_; }

 private:
  struct Entry {
    std::string path;
    std::string name;  // of the object, or what the names of all objects in the folder start with
    bool is_folder;
  };

  bool IsFull() const { return found_.size() == limit_; }

  bool MayHoldAnswers(std::string_view start) const {
    if (!start.starts_with(prefix_) && !prefix_.starts_with(start)) return false;
    if (start < after_ && !after_.starts_with(start)) return false;
    return !IsFull() || start <= found_.rbegin()->first;
  }

  void AddObject(Entry entry) {
    if (!entry.name.starts_with(prefix_) || (!after_.empty() && entry.name <= after_)) return;
    found_.emplace(std::move(entry.name), std::move(entry.path));
    if (found_.size() > limit_) found_.erase(std::prev(found_.end()));
  }

  absl::Status Descend(const Entry& folder) {
    DYNLIB_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListIfThere(disk_, folder.path));
    std::vector<Entry> entries;
    for (const std::string& file : names) {
      Entry entry{.path = Cat(folder.path, "/", file), .name = folder.name, .is_folder = false};
      const char mark = file.back();
      entry.is_folder = mark == kFolderMark || mark == kLongPartMark;
      entry.name += entry.is_folder ? file.substr(0, file.size() - 1) : file;
      if (mark == kFolderMark) entry.name += '/';
      entries.push_back(std::move(entry));
    }
    // The first name is looked at first, so that the answers fill up with what will stay.
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.name > b.name; });
    std::move(entries.begin(), entries.end(), std::back_inserter(pending_));
    return absl::OkStatus();
  }

  Disk* const disk_;
  const std::string_view prefix_;
  const std::string_view after_;
  const size_t limit_;
  std::vector<Entry> pending_;
  std::map<std::string, std::string> found_;
};

absl::StatusOr<std::vector<ObjectInfo>> DirectoryObjectStore::List(std::string_view prefix,
                                                                   std::string_view after,
                                                                   size_t limit) {
  Walk walk(disk_, prefix, after, limit);
  DYNLIB_RETURN_IF_ERROR(walk.Run(ObjectsFolder()));
  std::vector<ObjectInfo> objects;
  for (const auto& [name, path] : walk.found()) {
    const absl::StatusOr<std::unique_ptr<File>> file = disk_->Open(path, OpenMode::kRead);
    if (absl::IsNotFound(file.status())) continue;  // Deleted meanwhile.
    DYNLIB_RETURN_IF_ERROR(file.status());
    DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, (*file)->Size());
    objects.push_back({.name = name, .size_bytes = size - std::min<uint64_t>(size, kHeaderBytes)});
  }
  return objects;
}

}  // namespace dynlib
