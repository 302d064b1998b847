#include "dynlib/runtime/posix/posix_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/posix/posix_file.h"
#include "dynlib/runtime/posix/posix_status.h"

namespace dynlib {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

absl::Status CheckPath(std::string_view path) {
  if (path.empty()) return absl::OkStatus();
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(Cat("path \"", Escape(path, 200), "\": ", why));
  };
  if (path.find('\0') != path.npos) return refuse("has a zero byte");
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty()) return refuse("has an empty part");
    if (part == "." || part == "..") return refuse("has a part \".\" or \"..\"");
    begin = end + 1;
  }
  return absl::OkStatus();
}

// A path that names something in the root, not the root itself.
absl::Status CheckName(std::string_view path) {
  if (path.empty()) return absl::InvalidArgumentError("path \"\": is the root");
  return CheckPath(path);
}

// For the calls that take a folder: the root is "." there.
std::string FolderPath(std::string_view path) { return path.empty() ? "." : std::string(path); }

int OpenFlags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kReadWrite:
      return O_RDWR;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT | O_EXCL;
  }
  return O_RDONLY;
}

class FlockLock final : public DiskLock {
 public:
  explicit FlockLock(int fd) : fd_(fd) {}
  ~FlockLock() override { close(fd_); }

 private:
  const int fd_;
};

// Makes `path`, relative to `at`, and the folders above it.
int MakeFolders(int at, const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    if (mkdirat(at, path.substr(0, slash).c_str(), 0777) != 0 && errno != EEXIST) return -1;
    if (slash == path.npos) return 0;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<PosixDisk>> PosixDisk::Open(Options options) {
  const std::string& root = options.root;
  if (root.empty() || root.find('\0') != root.npos) {
    return absl::InvalidArgumentError(
        Cat("PosixDisk::Options::root is \"", Escape(root), "\": want the path of a folder"));
  }
  DYNLIB_RETURN_IF_ERROR(PolledWait::Check(options.wait));
  if (options.create_root && MakeFolders(AT_FDCWD, root) != 0) {
    return StatusFromErrno("create folder", root);
  }
  const int fd = open(root.c_str(), kFolderFlags);
  if (fd < 0) return StatusFromErrno("open folder", root);
  return std::unique_ptr<PosixDisk>(new PosixDisk(root, fd, options.wait));
}

PosixDisk::~PosixDisk() { close(root_fd_); }

std::string PosixDisk::Show(std::string_view path) const { return Cat(root_, "/", path); }

absl::StatusOr<std::unique_ptr<File>> PosixDisk::Open(std::string_view path, OpenMode mode) {
  DYNLIB_RETURN_IF_ERROR(CheckName(path));
  const int fd = openat(root_fd_, std::string(path).c_str(),
                        OpenFlags(mode) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
  if (fd < 0) return StatusFromErrno("open", Show(path));
  // From here on the file closes the descriptor.
  auto file = std::make_unique<PosixFile>(Show(path), fd, mode != OpenMode::kRead, async_, wait_);
  struct stat info;
  if (fstat(fd, &info) != 0) return StatusFromErrno("stat", Show(path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(Cat("open ", Show(path), ": not a regular file"));
  }
  return file;
}

absl::Status PosixDisk::Rename(std::string_view from, std::string_view to) {
  DYNLIB_RETURN_IF_ERROR(CheckName(from));
  DYNLIB_RETURN_IF_ERROR(CheckName(to));
  if (renameat(root_fd_, std::string(from).c_str(), root_fd_, std::string(to).c_str()) != 0) {
    return StatusFromErrno("rename", Cat(Show(from), " to ", Show(to)));
  }
  return absl::OkStatus();
}

absl::Status PosixDisk::Remove(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(CheckName(path));
  const std::string name(path);
  if (unlinkat(root_fd_, name.c_str(), 0) == 0) return absl::OkStatus();
  if (errno == EISDIR && unlinkat(root_fd_, name.c_str(), AT_REMOVEDIR) == 0) {
    return absl::OkStatus();
  }
  return StatusFromErrno("remove", Show(path));
}

absl::Status PosixDisk::CreateDir(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(CheckPath(path));
  if (path.empty()) return absl::OkStatus();
  if (MakeFolders(root_fd_, std::string(path)) != 0) {
    return StatusFromErrno("create folder", Show(path));
  }
  struct stat info;
  if (fstatat(root_fd_, std::string(path).c_str(), &info, 0) != 0) {
    return StatusFromErrno("create folder", Show(path));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::AlreadyExistsError(Cat("create folder ", Show(path), ": a file has the name"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> PosixDisk::List(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(CheckPath(path));
  const int fd = openat(root_fd_, FolderPath(path).c_str(), kFolderFlags);
  if (fd < 0) return StatusFromErrno("list", Show(path));
  DIR* const dir = fdopendir(fd);
  if (dir == nullptr) {
    const absl::Status status = StatusFromErrno("list", Show(path));
    close(fd);
    return status;
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const absl::Status status = errno == 0 ? absl::OkStatus() : StatusFromErrno("list", Show(path));
  closedir(dir);
  DYNLIB_RETURN_IF_ERROR(status);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status PosixDisk::SyncDir(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(CheckPath(path));
  const int fd = openat(root_fd_, FolderPath(path).c_str(), kFolderFlags);
  if (fd < 0) return StatusFromErrno("sync folder", Show(path));
  const absl::Status status =
      fsync(fd) == 0 ? absl::OkStatus() : StatusFromErrno("sync folder", Show(path));
  close(fd);
  return status;
}

absl::StatusOr<std::unique_ptr<DiskLock>> PosixDisk::Lock(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(CheckName(path));
  const int fd =
      openat(root_fd_, std::string(path).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0) return StatusFromErrno("lock", Show(path));
  // flock belongs to the open file, so a second one of this process is refused as well.
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const absl::Status status =
        errno == EWOULDBLOCK
            ? absl::AlreadyExistsError(Cat("lock ", Show(path), ": held by another user"))
            : StatusFromErrno("lock", Show(path));
    close(fd);
    return status;
  }
  return std::make_unique<FlockLock>(fd);
}

}  // namespace dynlib
