// The names on a simulated disk: folders and files, as the kernel has them and as they are durable.
//
// Every creation, rename and removal is an operation of one folder, in a list until SyncDir of that
// folder or a loss of power. A rename belongs to the folder of its new name and is never half done.
//
// Paths are given as Disk takes them and checked by CheckPath. Threads: one at a time.
#ifndef DYNLIB_SIM_DISK_NAMES_H_
#define DYNLIB_SIM_DISK_NAMES_H_

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/sim/file_image.h"

namespace dynlib::sim {

class DiskNames {
 public:
  using ImagePtr = std::shared_ptr<FileImage>;

  // kInvalidArgument for a path that leaves the root or is not normal ("a//b", "a/."); "" is the
  // root, allowed only where `may_be_root`.
  static absl::Status CheckPath(std::string_view path, bool may_be_root);

  // Null if there is no such file.
  ImagePtr Find(std::string_view path) const;
  bool IsDir(std::string_view path) const;

  // An empty file. kAlreadyExists, kNotFound if the folder does not exist.
  absl::StatusOr<ImagePtr> Create(std::string_view path);
  // A file replaces a file, a folder an empty folder.
  absl::Status Rename(std::string_view from, std::string_view to);
  // A file, or an empty folder.
  absl::Status Remove(std::string_view path);
  absl::Status CreateDir(std::string_view path);
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) const;
  absl::Status SyncDir(std::string_view path);

  void LosePower(UnsyncedFate fate, Random& random);

  struct NamedFile {
    std::string path;
    ImagePtr image;
  };
  // Sorted by path.
  std::vector<NamedFile> Files() const;
  size_t unsynced() const { return pending_.size(); }
  // Every file image that is named now or durably, each once, in a fixed order.
  std::vector<ImagePtr> AllImages() const;

 private:
  // Folders have numbers, so that a renamed one keeps what is in it.
  using DirId = uint64_t;
  static constexpr DirId kRoot = 1;
  struct Place {
    DirId dir;
    std::string name;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  // A file or a folder.
  struct Entry {
    ImagePtr file;
    DirId dir = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  using Names = std::map<Place, Entry>;

  enum class Kind { kLink, kMove, kUnlink };
  struct Operation {
    Kind kind;
    Place place;  // its folder's SyncDir makes it durable
    Entry entry;
  };

  static void Apply(Names& names, const Operation& operation);
  // What is in folders that are not there.
  static void RemoveOrphans(Names& names);
  void Do(Operation operation);
  std::optional<Entry> Lookup(std::string_view path) const;
  // Where a name is or would be; kNotFound if its folder is not there.
  absl::StatusOr<Place> PlaceOf(std::string_view path) const;
  bool IsEmptyDir(DirId dir) const;
  void AddFiles(DirId dir, const std::string& prefix, std::vector<NamedFile>& files) const;

  Names now_;
  Names durable_;
  std::vector<Operation> pending_;
  DirId last_dir_ = kRoot;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_DISK_NAMES_H_
