#include "examples/mini_cluster/manifest.h"

#include <algorithm>
#include <memory>
#include <sstream>
#include <string_view>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/posix_disk.h"

namespace dynlib::mini_cluster {
namespace {

constexpr char kFile[] = "CLUSTER";
constexpr char kAside[] = "CLUSTER.new";
constexpr std::string_view kFormat = "dynlib-mini-cluster";
constexpr uint64_t kVersion = 1;
constexpr uint64_t kBytesMax = 4096;

absl::StatusOr<std::string> ReadWhole(Disk& disk, const char* path) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk.Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(uint64_t size, file->Size());
  std::string bytes(std::min(size, kBytesMax), '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, bytes));
  return bytes;
}

absl::StatusOr<Manifest> Parse(const std::string& path, const std::string& text) {
  std::istringstream in(text);
  std::string format;
  uint64_t version = 0;
  in >> format >> version;
  if (in.fail() || format != kFormat)
    return absl::FailedPreconditionError(Cat(path, " is not a mini-cluster's"));
  if (version != kVersion) {
    return absl::FailedPreconditionError(
        Cat(path, " is of format version ", version, "; this program reads version ", kVersion));
  }
  Manifest manifest;
  std::string nodes, partitions, data, loaded;
  in >> nodes >> manifest.nodes >> partitions >> manifest.partitions >> data >> manifest.data >>
      loaded >> manifest.loaded;
  if (in.fail() || nodes != "nodes" || partitions != "partitions" || data != "data" ||
      loaded != "loaded") {
    return absl::DataLossError(Cat(path, " is damaged"));
  }
  return manifest;
}

}  // namespace

absl::StatusOr<std::optional<Manifest>> ReadManifest(const std::string& directory) {
  absl::StatusOr<std::unique_ptr<PosixDisk>> disk =
      PosixDisk::Open({.root = directory, .create_root = false});
  if (absl::IsNotFound(disk.status())) return std::optional<Manifest>();
  if (!disk.ok()) return disk.status();
  DYNLIB_ASSIGN_OR_RETURN(std::vector<std::string> names, (*disk)->List(""));
  if (std::find(names.begin(), names.end(), kFile) == names.end()) {
    // A run that was killed at its very beginning leaves no more than this.
    std::erase(names, kAside);
    if (names.empty()) return std::optional<Manifest>();
    return absl::FailedPreconditionError(
        Cat(directory, " has files in it, and is not a mini-cluster's directory: there is no ",
            kFile, " in it"));
  }
  DYNLIB_ASSIGN_OR_RETURN(std::string text, ReadWhole(**disk, kFile));
  DYNLIB_ASSIGN_OR_RETURN(Manifest manifest, Parse(Cat(directory, "/", kFile), text));
  return std::optional<Manifest>(std::move(manifest));
}

absl::Status WriteManifest(const std::string& directory, const Manifest& manifest) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PosixDisk> disk, PosixDisk::Open({.root = directory}));
  if (absl::Status removed = disk->Remove(kAside); !removed.ok() && !absl::IsNotFound(removed))
    return removed;
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(kAside, OpenMode::kCreate));
  DYNLIB_RETURN_IF_ERROR(file->WriteAt(
      0, Cat(kFormat, " ", kVersion, "\nnodes ", manifest.nodes, "\npartitions ",
             manifest.partitions, "\ndata ", manifest.data, "\nloaded ", manifest.loaded, "\n")));
  DYNLIB_RETURN_IF_ERROR(file->Sync());
  DYNLIB_RETURN_IF_ERROR(disk->Rename(kAside, kFile));
  return disk->SyncDir("");
}

absl::Status CheckManifest(const std::string& directory, const Manifest& found,
                           const Manifest& wanted) {
  auto differs = [&](std::string_view what, const auto& has, const auto& want) {
    return absl::FailedPreconditionError(Cat(directory, " was made with ", what, " ", has, ", not ",
                                             want, "; use the same, or another --dir"));
  };
  if (found.nodes != wanted.nodes) return differs("--nodes", found.nodes, wanted.nodes);
  if (found.partitions != wanted.partitions)
    return differs("--partitions", found.partitions, wanted.partitions);
  if (found.data != wanted.data) {
    return absl::FailedPreconditionError(
        Cat(directory,
            " holds another data set (--input, its keys, or --repeat differ); use the "
            "same, or another --dir"));
  }
  return absl::OkStatus();
}

}  // namespace dynlib::mini_cluster
