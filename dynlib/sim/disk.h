// A disk in memory that loses, tears, flips, stalls and fills up: the Disk of a simulated node, and
// of tests that crash a store at every call.
//
//   sim::SimDisk disk(seed);                          // stands alone: calls take no time
//   auto store = Store::Open(options, &disk);
//   disk.FailCall(17, sim::DiskFault::kPowerOff, sim::UnsyncedFate::kTorn);
//   ... write until it fails; destroy the store ...
//   disk.Restart();
//   store = Store::Open(options, &disk);              // what survived
//
// The model. A write goes to the kernel's cache and is readable at once. Each file has a durable
// image beside what is cached, and an ordered list of what was not synced: writes, as whole sectors
// of 512 bytes, and changes of size. Names (created, renamed, removed) are likewise durable only
// after SyncDir of their folder; a rename is one step, made durable by SyncDir of the folder of the
// new name. Space is counted in blocks of 4 KiB.
//
// Crash() ends the process: open files and locks become dead, contents stay as the kernel has them,
// still not durable. PowerOff() does the same and then decides what the unsynced part comes to.
// While the disk is down, and for ever on a File of an earlier incarnation, calls return kAborted.
// Restart() begins the next incarnation.
//
// With a Scheduler each call made on a fiber takes virtual time, and time during which the world
// goes on; a stalled disk holds its callers only. A write takes effect in two parts with time
// between.
//
// Errors: those of runtime/disk.h; kAborted as above.
// Threads: as Disk says, for the part that is the Disk interface; the rest while no call is being
// made.
#ifndef DYNLIB_SIM_DISK_H_
#define DYNLIB_SIM_DISK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk_names.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/sim/scheduler.h"

namespace dynlib::sim {

// What one chosen call meets. kNoSpace hits the first call, from the chosen one on, that needs
// space.
enum class DiskFault { kEio, kNoSpace, kPowerOff };

class SimDisk final : public Disk {
 public:
  // Corruption spares what was written less than this ago ...
  static constexpr Duration kCorruptibleAge = std::chrono::seconds(2);
  // ... and the sectors of a file written last: damage to the only copy of a tail that nothing
  // vouches for yet is beyond any protocol.
  static constexpr uint64_t kCorruptibleTailBytes = 64 << 10;

  explicit SimDisk(uint64_t seed);
  // `scheduler` and `faults` may be null; `faults` is read at each call.
  SimDisk(uint64_t seed, Scheduler* scheduler, const FaultOptions* faults);

  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override;
  absl::Status Rename(std::string_view from, std::string_view to) override;
  absl::Status Remove(std::string_view path) override;
  absl::Status CreateDir(std::string_view path) override;
  absl::StatusOr<std::vector<std::string>> List(std::string_view path) override;
  absl::Status SyncDir(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) override;

  // Process and power. Crash and PowerOff do nothing to a disk that is down, except that power may
  // fail after a crash.
  void Crash();
  void PowerOff(UnsyncedFate fate);
  void Restart();
  bool down() const;
  // Another disk in its place, which is empty. The power is off (DYNLIB_CHECK).
  void Replace();

  // Calls of Disk and File made so far, whatever came of them; closing is not one.
  uint64_t calls() const;
  // The n-th call from now (1 is the next) meets `fault`. When the power fails in a write, that
  // write is unsynced like the others; in a Sync, nothing of it has happened. A later FailCall
  // replaces this one.
  void FailCall(uint64_t n, DiskFault fault, UnsyncedFate fate = UnsyncedFate::kAllLost);
  void ClearFailCall() { fail_at_call_ = 0; }
  // Runs after the power failed by FailCall; the call that met it returns kAborted.
  void OnPowerOff(absl::AnyInvocable<void()> callback) { on_power_off_ = std::move(callback); }

  // Calls on a fiber wait until then; no effect outside one.
  void StallUntil(Instant when) { stalled_until_ = when; }
  // No new space while true.
  void SetFull(bool full) { full_ = full; }
  // Total space; default unbounded.
  void SetCapacity(uint64_t bytes) { capacity_blocks_ = bytes / FileImage::kChunkBytes; }
  uint64_t used_bytes() const;

  // Damage to durable sectors that kCorruptibleAge and kCorruptibleTailBytes admit, chosen at
  // random. False if there is none.
  bool FlipRandomBit();
  bool MisdirectRandomWrite();

  // Straight access, for tests: no faults, no time, no incarnation. Both images change; `path` must
  // exist (DYNLIB_CHECK), and so must the bytes.
  void FlipBit(std::string_view path, uint64_t bit_offset);
  std::string ReadRaw(std::string_view path) const;
  // What would remain if all unsynced writes were lost.
  std::string ReadDurable(std::string_view path) const;
  void WriteRaw(std::string_view path, uint64_t offset, std::string_view data);
  // All files, sorted.
  std::vector<std::string> Paths() const;
  // Writes and changes of size or name that are not durable.
  size_t UnsyncedOperations() const;

 private:
  class SimFile;
  class SimLock;
  enum class Call { kMeta, kRead, kWrite, kSync };
  enum class Outcome { kProceed, kEio, kPowerOff };
  struct Sector {
    FileImage* image;
    uint64_t index;
  };

  // Counts the call and decides what it meets; kAborted if its incarnation is over.
  absl::StatusOr<Outcome> Begin(Call call, uint64_t incarnation, std::string_view what);
  // Begin, the call's latency, and the outcomes that are alike for most calls. OK: go on.
  absl::Status Start(Call call, uint64_t incarnation, std::string_view what);
  absl::Status Wait(Call call, uint64_t incarnation, std::string_view what);
  absl::Status FailPower(std::string_view what);
  void EndIncarnation();
  absl::Status TakeSpace(FileImage& image, uint64_t offset, uint64_t length, std::string_view what);
  void WritePart(FileImage& image, uint64_t offset, std::string_view data);
  absl::Status FailSync(SimFile& file, std::string_view what);
  void RecountSpace();
  void CountFault(std::string_view name);
  Instant Now() const;
  uint64_t incarnation() const;
  FileImage& ImageOf(std::string_view path) const;
  std::vector<Sector> CorruptibleSectors() const;

  absl::Status ReadFile(SimFile& file, uint64_t offset, std::span<char> out);
  absl::Status WriteFile(SimFile& file, uint64_t offset, std::string_view data);
  absl::Status SyncFile(SimFile& file);
  absl::Status AllocateFile(SimFile& file, uint64_t offset, uint64_t length);
  absl::Status TruncateFile(SimFile& file, uint64_t size);
  absl::Status DiscardFile(SimFile& file, uint64_t offset, uint64_t length);
  absl::StatusOr<uint64_t> SizeOfFile(SimFile& file);
  void Unlock(const std::string& path, uint64_t incarnation);

  Scheduler* const scheduler_;
  const FaultOptions* const faults_;

  mutable std::mutex mutex_;  // never held while time passes
  Random random_;
  DiskNames names_;
  std::set<std::string, std::less<>> locked_;
  uint64_t incarnation_ = 1;
  bool down_ = false;
  uint64_t calls_ = 0;
  uint64_t fail_at_call_ = 0;  // 0 = none
  DiskFault fail_fault_ = DiskFault::kEio;
  UnsyncedFate fail_fate_ = UnsyncedFate::kAllLost;
  absl::AnyInvocable<void()> on_power_off_;
  Instant stalled_until_;
  bool full_ = false;
  uint64_t capacity_blocks_ = UINT64_MAX;
  uint64_t used_blocks_ = 0;
  uint64_t write_sequence_ = 0;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_DISK_H_
