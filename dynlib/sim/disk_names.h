// The names on a simulated disk: folders and files, as the kernel has them and as they are durable.
//
// Every creation, rename and removal is an operation of one folder, in a list until SyncDir of that
// folder or a loss of power. A rename belongs to the folder of its new name and is never half done.
//
// Paths are given as Disk takes them and checked by CheckPath. Threads: one at a time.
#ifndef DYNLIB_SIM_DISK_NAMES_H_
#define DYNLIB_SIM_DISK_NAMES_H_

#include <map>
#include <memory>
#include <set>
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
  absl::Status Rename(std::string_view from, std::string_view to);
  absl::Status Remove(std::string_view path);
  absl::Status CreateDir(std::string_view path);
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) const;
  absl::Status SyncDir(std::string_view path);

  void LosePower(UnsyncedFate fate, Random& random);

  const std::map<std::string, ImagePtr, std::less<>>& files() const { return now_.files; }
  size_t unsynced() const { return pending_.size(); }
  // Every file image that is named now or durably, each once, in a fixed order.
  std::vector<ImagePtr> AllImages() const;

 private:
  struct Names {
    std::map<std::string, ImagePtr, std::less<>> files;
    std::set<std::string, std::less<>> dirs = {""};
  };
  enum class Kind { kCreate, kRename, kRemove, kCreateDir };
  struct Operation {
    Kind kind;
    std::string folder;  // whose SyncDir makes it durable
    std::string path;    // the old name, for a rename
    std::string to = {};
    ImagePtr image = nullptr;
  };

  static void Apply(Names& names, const Operation& operation);
  // What is in a folder that is not there.
  static void RemoveOrphans(Names& names);
  absl::Status CheckParent(std::string_view path) const;

  Names now_;
  Names durable_;
  std::vector<Operation> pending_;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_DISK_NAMES_H_
