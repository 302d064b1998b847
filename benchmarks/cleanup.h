// What a benchmark leaves behind: nothing, also when it fails or is interrupted.
#ifndef DYNLIB_BENCHMARKS_CLEANUP_H_
#define DYNLIB_BENCHMARKS_CLEANUP_H_

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::bench {

// Has SIGINT, SIGTERM and SIGHUP kill every ChildProcess, remove every TemporaryFolder, and end the
// process. Call it first in main, before any thread exists.
void CleanUpOnSignals();

// A new folder inside `parent`; removed with all it holds.
class TemporaryFolder {
 public:
  static absl::StatusOr<TemporaryFolder> Create(const std::filesystem::path& parent);

  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept;
  ~TemporaryFolder();

  const std::filesystem::path& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::filesystem::path path);
  void Remove();

  std::filesystem::path path_;  // empty when moved from
};

// A program of its own; killed and waited for by the destructor, and killed by the kernel when this
// process dies in any way. Start it from the main thread: the kernel's rule looks at the thread.
class ChildProcess {
 public:
  // arguments[0] is the program, looked up in PATH. Its output goes to the file `output`.
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& arguments,
                                            const std::filesystem::path& output);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  // Whether it still runs.
  bool Running();

 private:
  explicit ChildProcess(pid_t pid);
  void Kill();

  pid_t pid_ = -1;  // -1 when moved from or waited for
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_CLEANUP_H_
