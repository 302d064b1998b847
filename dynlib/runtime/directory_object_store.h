// A folder of a Disk as an ObjectStore.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto store, DirectoryObjectStore::Open(disk, "archive"));
//
// Each object is a file: 32 bytes of header (size, content checksum, header checksum bound to the
// object's name), then the data. A Put writes a file aside, syncs it, renames it into place, and
// syncs the folders: OK means durable, and readers never see a part. Bytes that changed, or that
// belong to another object, are kDataLoss at Get.
//
// It works over any Disk, also in simulation. One store at a time uses a folder: Open locks it,
// kAlreadyExists if another has it. An object is held in memory whole while it is put or got.
//
// How names become paths: a part of a name that is a folder ends in ',' there, so that "a" and
// "a/b" can both be objects; parts of more than 200 bytes are cut into folders that end in '~'.
//
// List walks the folders that can hold an answer: its time grows with their number of entries, its
// memory with `limit`.
#ifndef DYNLIB_RUNTIME_DIRECTORY_OBJECT_STORE_H_
#define DYNLIB_RUNTIME_DIRECTORY_OBJECT_STORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/object_store.h"

namespace dynlib {

class DirectoryObjectStore final : public ObjectStore {
 public:
  // Makes `folder` if it is missing, and removes what Puts that did not finish left there.
  static absl::StatusOr<std::unique_ptr<DirectoryObjectStore>> Open(Disk* disk,
                                                                    std::string_view folder);

  absl::Status Put(std::string_view name, std::string_view data, uint64_t checksum) override;
  absl::StatusOr<std::string> Get(std::string_view name) override;
  absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix, std::string_view after,
                                               size_t limit) override;
  absl::Status Delete(std::string_view name) override;

  // The file on the disk that holds the object, for tools and tests.
  std::string PathOf(std::string_view name) const;

 private:
  class Walk;

  DirectoryObjectStore(Disk* disk, std::string folder) : disk_(disk), folder_(std::move(folder)) {}

  std::string ObjectsFolder() const;
  std::string AsideFolder() const;
  absl::Status WriteAside(const std::string& path, std::string_view name, std::string_view data,
                          uint64_t checksum);
  absl::Status MoveIntoPlace(const std::string& aside, const std::string& path);
  absl::Status SyncFoldersAbove(std::string_view path);

  Disk* const disk_;
  const std::string folder_;
  std::unique_ptr<DiskLock> lock_;
  std::atomic<uint64_t> next_aside_{0};
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_DIRECTORY_OBJECT_STORE_H_
