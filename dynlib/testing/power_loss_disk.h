// A Disk over another that can lose its power: what was written and not synced is gone.
//
//   PowerLossDisk disk(posix_disk.get());
//   ... run a node on it ...
//   disk.PowerOff();          // every call, on open files too, now fails with kUnavailable
//   PowerLossDisk again(posix_disk.get());  // what the node finds when it comes back
//
// Writes stay in memory until Sync passes them on and syncs the disk below; PowerOff forgets the
// rest. It adds a copy to each write and nothing else, so it serves under full load.
//
// Kinder than a real power loss, which the simulated disk shows in full, in this:
//  - creating, renaming and removing files, Allocate, Truncate and Discard reach the disk below at
//  once,
//    whether or not a SyncDir or Sync follows;
//  - unsynced writes are lost all or (past max_unsynced_bytes) none, never torn.
// At max_unsynced_bytes over all files, a write pushes what its file holds, and itself, to the disk
// below without a sync. A disk below that is full shows in Sync, not in WriteAt.
//
// For real disks only: it holds locks over calls to the disk below, so not in simulations.
//
// Threads: as Disk says; PowerOff from any; it waits for calls that are under way.
#ifndef DYNLIB_TESTING_POWER_LOSS_DISK_H_
#define DYNLIB_TESTING_POWER_LOSS_DISK_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"

namespace dynlib {

class PowerLossDisk final : public Disk {
 public:
  struct Options {
    size_t max_unsynced_bytes = 256 << 20;
  };

  explicit PowerLossDisk(Disk* below) : PowerLossDisk(below, Options{}) {}
  PowerLossDisk(Disk* below, Options options);
  // Without PowerOff before, unsynced writes are lost all the same.
  ~PowerLossDisk() override;

  // Forgets what was not synced and releases the locks held through this disk.
  void PowerOff();

  size_t unsynced_bytes() const;

  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override;
  absl::Status Rename(std::string_view from, std::string_view to) override;
  absl::Status Remove(std::string_view path) override;
  absl::Status CreateDir(std::string_view path) override;
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override;
  absl::Status SyncDir(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) override;

 private:
  class Power;
  class Contents;
  class PowerLossFile;
  class PowerLossLock;

  void Unlist(std::string_view path);

  std::shared_ptr<Power> power_;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_POWER_LOSS_DISK_H_
