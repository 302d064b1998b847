// What the disk pays for.
//
//   space/V        bytes on disk a user byte, after a load in no order, one checkpoint (of the
//                  peers: what their documents advise to make files small) and 30 s of rest. All
//                  files of the store count, by the blocks that they hold; dynlib_without_log is
//                  what is left when those of the log, which are of a fixed size, do not
//   space_deleted  what is left on disk of that, in percent, once all rows of space/100 were
//                  deleted, after another checkpoint and rest
//   device_bytes/900/64   bytes written to the device, a user byte: 40,000 puts by
//                  64 clients, with five checkpoints in between and one at the end. dynlib_log:
//                  the log alone. What an Open writes once (the zeros of log segments, which are
//                  used again for ever) does not count
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/cleanup.h"
#include "benchmarks/harness.h"
#include "benchmarks/kv_dynlib.h"
#include "benchmarks/load.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr int kRestSeconds = 30;
constexpr uint64_t kRowsPerDelete = 1000;

double DiskBytes(const std::filesystem::path& folder, bool with_log = true) {
  double bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    struct stat info {};
    if (!with_log && entry.path().extension() == ".seg") continue;
    if (stat(entry.path().c_str(), &info) == 0) bytes += static_cast<double>(info.st_blocks) * 512;
  }
  return bytes;
}

// One store of one size, through all of it.
struct Resident {
  std::string system;
  Rows rows;
  TemporaryFolder folder;
  std::unique_ptr<KvPeer> store;
  double filled_bytes = 0;
};

absl::StatusOr<Resident> Load(const NamedKvPeer& system, const Rows& rows,
                              const std::filesystem::path& dir) {
  DYNLIB_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::Create(dir));
  {
    DYNLIB_ASSIGN_OR_RETURN(
        const std::unique_ptr<KvPeer> empty,
        system.open({.folder = folder.path(), .fill = KvOptions::Fill::kAnyOrder}));
    DYNLIB_RETURN_IF_ERROR(FillStore(*empty, rows, /*sorted=*/false));
  }
  Resident resident{system.name, rows, std::move(folder), nullptr, 0};
  DYNLIB_ASSIGN_OR_RETURN(resident.store, system.open({.folder = resident.folder.path()}));
  DYNLIB_RETURN_IF_ERROR(system.name == kOurs ? resident.store->Checkpoint()
                                              : resident.store->Compact());
  return resident;
}

absl::Status DeleteAll(Resident& resident) {
  for (uint64_t first = 0; first < resident.rows.count; first += kRowsPerDelete) {
    std::vector<std::string> keys;
    for (uint64_t row = first; row < std::min(resident.rows.count, first + kRowsPerDelete); ++row)
      keys.emplace_back(RowKey(row).view());
    DYNLIB_RETURN_IF_ERROR(resident.store->Delete(keys));
  }
  return resident.system == kOurs ? resident.store->Checkpoint() : resident.store->Compact();
}

void Rest() { std::this_thread::sleep_for(std::chrono::seconds(kRestSeconds)); }

// --- device_bytes ---

// By the device that the folder is on, so by other processes too: run it alone. (What
// /proc/self/io says is of no use: a kernel with large folios counts a whole folio for each 4 KiB
// that were written to it.)
absl::StatusOr<uint64_t> WrittenBytes(const std::filesystem::path& folder) {
  struct stat info {};
  if (stat(folder.c_str(), &info) != 0) return absl::NotFoundError(folder.string());
  sync();
  const std::string path =
      Cat("/sys/dev/block/", major(info.st_dev), ":", minor(info.st_dev), "/stat");
  std::ifstream file(path);
  constexpr int kSectorsWritten = 6;  // Documentation/block/stat.rst
  constexpr uint64_t kSectorBytes = 512;
  uint64_t value = 0;
  for (int i = 0; i <= kSectorsWritten; ++i) file >> value;
  if (!file) return absl::NotFoundError(Cat("no figures in ", path));
  return value * kSectorBytes;
}

constexpr int kDeviceClients = 64;
constexpr uint64_t kDevicePuts = 40'000;
constexpr int kDeviceParts = 6;
constexpr size_t kDeviceValueBytes = 900;

absl::Status PutMany(KvPeer& store, std::vector<PutStream>& streams, uint64_t count) {
  std::atomic<uint64_t> begun{0};
  std::vector<absl::Status> statuses(streams.size());
  std::vector<std::thread> threads;
  for (size_t client = 0; client < streams.size(); ++client) {
    threads.emplace_back([&, client] {
      while (begun++ < count && statuses[client].ok()) {
        const std::string key(streams[client].NextKey());
        statuses[client] = store.Put(static_cast<int>(client), key, streams[client].NextValue());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) DYNLIB_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::StatusOr<double> DeviceBytesAUserByte(const OpenKvPeer& open, bool checkpoints,
                                            const std::filesystem::path& folder) {
  DYNLIB_ASSIGN_OR_RETURN(
      const std::unique_ptr<KvPeer> store,
      open({.folder = folder, .clients = kDeviceClients, .checkpoints_by_itself = false}));
  std::vector<PutStream> streams;
  for (int client = 0; client < kDeviceClients; ++client)
    streams.emplace_back(client, kDeviceValueBytes);
  DYNLIB_RETURN_IF_ERROR(PutMany(*store, streams, 1000));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // spare segments are made
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t before, WrittenBytes(folder));
  for (int part = 0; part < kDeviceParts; ++part) {
    DYNLIB_RETURN_IF_ERROR(PutMany(*store, streams, kDevicePuts / kDeviceParts));
    if (checkpoints) DYNLIB_RETURN_IF_ERROR(store->Checkpoint());
  }
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t after, WrittenBytes(folder));
  return static_cast<double>(after - before) /
         static_cast<double>(kDevicePuts * (kKeyBytes + kDeviceValueBytes));
}

}  // namespace

void MeasureSpace(Harness& harness) {
  const std::map<size_t, std::string> workloads = {{100, "space/100"}, {900, "space/900"}};
  const bool deleted = harness.Wants("space_deleted", /*in_quick_set=*/false);
  std::vector<Resident> residents;
  for (const Rows& rows : {SmallRows(), LargeRows(harness)}) {
    const std::string& workload = workloads.at(rows.value_bytes);
    const bool small = rows.value_bytes == SmallRows().value_bytes;
    if (!harness.Wants(workload, false) && !(small && deleted)) continue;
    for (const NamedKvPeer& system : Stores()) {
      if (!harness.Wants(system.name)) continue;
      absl::StatusOr<Resident> resident = Load(system, rows, harness.flags().dir);
      if (!resident.ok()) {
        harness.Failed(workload, system.name, resident.status());
        continue;
      }
      residents.push_back(*std::move(resident));
    }
  }
  if (residents.empty()) return;
  Rest();  // all at once
  std::map<size_t, std::vector<Harness::Figures>> used;
  for (Resident& resident : residents) {
    resident.filled_bytes = DiskBytes(resident.folder.path());
    used[resident.rows.value_bytes].push_back(
        {resident.system, {resident.filled_bytes / static_cast<double>(resident.rows.bytes())}});
    if (resident.system != kOurs) continue;
    const double without_log = DiskBytes(resident.folder.path(), /*with_log=*/false);
    used[resident.rows.value_bytes].push_back(
        {Cat(kOurs, "_without_log"), {without_log / static_cast<double>(resident.rows.bytes())}});
  }
  for (const auto& [value_bytes, figures] : used)
    harness.Report(workloads.at(value_bytes), {"times", false}, figures);
  if (!deleted) return;
  std::erase_if(residents, [](const Resident& resident) {
    return resident.rows.value_bytes != SmallRows().value_bytes;
  });
  for (Resident& resident : residents) {
    if (const absl::Status status = DeleteAll(resident); !status.ok())
      harness.Failed("space_deleted", resident.system, status);
  }
  Rest();
  std::vector<Harness::Figures> left;
  for (const Resident& resident : residents) {
    left.push_back(
        {resident.system, {100 * DiskBytes(resident.folder.path()) / resident.filled_bytes}});
    if (resident.system != kOurs) continue;
    const double without_log = DiskBytes(resident.folder.path(), /*with_log=*/false);
    left.push_back({Cat(kOurs, "_without_log"), {100 * without_log / resident.filled_bytes}});
  }
  harness.Report("space_deleted", {"%", false}, left);
}

void MeasureDeviceBytes(Harness& harness) {
  constexpr char kWorkload[] = "device_bytes/900/64";
  if (!harness.Wants(kWorkload, /*in_quick_set=*/false)) return;
  std::vector<NamedKvPeer> systems = Stores();
  constexpr char kLog[] = "dynlib_log";
  systems.push_back({kLog, OpenDynlibLog});
  std::vector<Harness::Figures> figures;
  for (const NamedKvPeer& system : systems) {
    if (!harness.Wants(system.name)) continue;
    const absl::StatusOr<TemporaryFolder> folder = TemporaryFolder::Create(harness.flags().dir);
    const absl::StatusOr<double> written =
        folder.ok() ? DeviceBytesAUserByte(system.open, system.name != kLog, folder->path())
                    : folder.status();
    if (written.ok()) {
      figures.push_back({system.name, {*written}});
    } else {
      harness.Failed(kWorkload, system.name, written.status());
    }
  }
  harness.Report(kWorkload, {"times", false}, figures);
}

}  // namespace dynlib::bench
