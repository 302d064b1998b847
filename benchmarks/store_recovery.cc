// What is seen from outside a process: how it comes back after it was killed, and its memory.
//
//   reopen/900   a process writes batches of 100 rows, each durable before the next, and is killed
//                (SIGKILL) at some moment after 200 MB, none of it checkpointed. A figure is the
//                seconds from the call of Open to the answer of the first read, on a copy of what
//                was left. Each time all rows that the process knew to be durable are looked up.
//                LMDB has no log, and nothing to replay
//   memory/100   a process whose store has a million rows and a cache of 64 MiB reads a million of
//                them and scans all; the most memory that was resident in it, less the cache, in
//                MiB. LMDB's is its map: the kernel's cache, which no budget binds
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/cleanup.h"
#include "benchmarks/harness.h"
#include "benchmarks/load.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr char kWriteChild[] = "--child-writes-until-killed";
constexpr char kMemoryChild[] = "--child-memory";

constexpr Rows kCrashRows{1 << 30, 900};  // as many as it takes
constexpr uint64_t kRowsPerBatch = 100;
constexpr uint64_t kCrashBytes = 200'000'000;
constexpr size_t kTouchedBytes = 512 << 20;  // what 200 MB may need
constexpr uint64_t kMemoryBudget = 64 << 20;
constexpr uint64_t kMemoryReads = 1'000'000;

absl::StatusOr<std::string> LastLine(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!file.eof()) last = line;  // a line without its end may be half a number
  }
  return last;
}

uint64_t Number(const std::string& text) {
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// --- In the child: arguments are the kind, the system, the folder. ---

absl::Status WriteUntilKilled(const NamedKvPeer& system, const std::filesystem::path& folder) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                          system.open({.folder = folder, .checkpoints_by_itself = false}));
  for (uint64_t row = 0;; row += kRowsPerBatch) {
    std::vector<RowKey> keys;
    std::vector<KvRow> batch;
    keys.reserve(kRowsPerBatch);
    for (uint64_t i = row; i < row + kRowsPerBatch; ++i) {
      keys.emplace_back(i);
      batch.push_back({keys.back().view(), kCrashRows.Value(i)});
    }
    DYNLIB_RETURN_IF_ERROR(store->Write(0, batch));
    std::printf("%llu\n", static_cast<unsigned long long>(row + kRowsPerBatch));
    std::fflush(stdout);
  }
}

absl::Status ReportMemory(const NamedKvPeer& system, const std::filesystem::path& folder) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                          system.open({.folder = folder, .cache_bytes = kMemoryBudget}));
  const Rows rows = SmallRows();
  for (uint64_t i = 0; i < kMemoryReads; ++i) {
    DYNLIB_RETURN_IF_ERROR(
        store->Get(0, RowKey(Mix(i) % rows.count).view(), [](std::string_view) {}));
  }
  DYNLIB_RETURN_IF_ERROR(store->Scan(0, "user", static_cast<int>(rows.count),
                                     [](std::string_view, std::string_view) {}));
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) {
      std::printf("%llu\n", static_cast<unsigned long long>(
                                Number(line.substr(line.find_first_of("0123456789")))));
      std::fflush(stdout);
      return absl::OkStatus();
    }
  }
  return absl::NotFoundError("no VmHWM in /proc/self/status");
}

// --- In the parent. ---

absl::StatusOr<ChildProcess> StartChild(const char* kind, const NamedKvPeer& system,
                                        const std::filesystem::path& folder,
                                        const std::filesystem::path& output) {
  return ChildProcess::Start({std::filesystem::read_symlink("/proc/self/exe").string(), kind,
                              system.name, folder.string()},
                             output);
}

void SleepMs(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

// What a killed process left.
struct Crashed {
  TemporaryFolder folder;  // the store's is "store" in it
  uint64_t durable_rows = 0;
};

absl::StatusOr<Crashed> WriteAndKill(const NamedKvPeer& system, const std::filesystem::path& dir) {
  DYNLIB_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::Create(dir));
  const std::filesystem::path store = folder.path() / "store";
  const std::filesystem::path output = folder.path() / "output";
  std::filesystem::create_directory(store);
  constexpr uint64_t kRows = kCrashBytes / (kKeyBytes + 900);
  {
    DYNLIB_ASSIGN_OR_RETURN(ChildProcess child, StartChild(kWriteChild, system, store, output));
    for (uint64_t rows = 0; rows < kRows;) {
      SleepMs(20);
      DYNLIB_ASSIGN_OR_RETURN(const std::string line, LastLine(output));
      rows = Number(line);
      if (!child.Running()) return absl::InternalError(Cat(system.name, " ended: ", line));
    }
  }  // killed here
  DYNLIB_ASSIGN_OR_RETURN(const std::string line, LastLine(output));
  return Crashed{std::move(folder), Number(line)};
}

absl::StatusOr<double> SecondsToReopen(const NamedKvPeer& system, const Crashed& crashed,
                                       const std::filesystem::path& folder) {
  std::filesystem::copy(crashed.folder.path() / "store", folder,
                        std::filesystem::copy_options::recursive);
  sync();  // the copy is not to be written while the time runs
  TouchMemory(kTouchedBytes);
  const uint64_t begin = NowNs();
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                          system.open({.folder = folder, .checkpoints_by_itself = false}));
  DYNLIB_RETURN_IF_ERROR(
      store->Get(0, RowKey(crashed.durable_rows - 1).view(), [](std::string_view) {}));
  const uint64_t end = NowNs();
  for (uint64_t row = 0; row < crashed.durable_rows; ++row) {
    bool right = false;
    DYNLIB_RETURN_IF_ERROR(store->Get(0, RowKey(row).view(), [&](std::string_view value) {
      right = value == kCrashRows.Value(row);
    }));
    if (!right) return absl::DataLossError(Cat("row ", row));
  }
  return static_cast<double>(end - begin) * 1e-9;
}

absl::StatusOr<double> MiBBeyondBudget(const NamedKvPeer& system,
                                       const std::filesystem::path& folder) {
  const std::filesystem::path store = folder / "store";
  const std::filesystem::path output = folder / "output";
  std::filesystem::create_directory(store);
  {
    DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> empty,
                            system.open({.folder = store, .fill = KvOptions::Fill::kSorted}));
    DYNLIB_RETURN_IF_ERROR(FillStore(*empty, SmallRows(), /*sorted=*/true));
  }
  DYNLIB_ASSIGN_OR_RETURN(ChildProcess child, StartChild(kMemoryChild, system, store, output));
  while (child.Running()) SleepMs(20);
  DYNLIB_ASSIGN_OR_RETURN(const std::string line, LastLine(output));
  const uint64_t kib = Number(line);
  if (kib == 0) return absl::InternalError(Cat(system.name, " said: ", line));
  return static_cast<double>(kib) / 1024 - static_cast<double>(kMemoryBudget >> 20);
}

}  // namespace

void MeasureReopen(Harness& harness) {
  std::vector<FigureSystem> systems;
  std::map<std::string, Crashed> crashed;
  for (const NamedKvPeer& store : Stores()) {
    systems.push_back({store.name, [&, store](const RunContext& context) -> absl::StatusOr<double> {
                         auto at = crashed.find(store.name);
                         if (at == crashed.end()) {
                           DYNLIB_ASSIGN_OR_RETURN(Crashed left,
                                                   WriteAndKill(store, harness.flags().dir));
                           at = crashed.emplace(store.name, std::move(left)).first;
                         }
                         return SecondsToReopen(store, at->second, context.folder);
                       }});
  }
  harness.MeasureFigures("reopen/900", {"s", false}, std::move(systems), /*in_quick_set=*/false);
}

void MeasureMemory(Harness& harness) {
  if (!harness.Wants("memory/100", /*in_quick_set=*/false)) return;
  std::vector<Harness::Figures> figures;
  for (const NamedKvPeer& store : Stores()) {
    if (!harness.Wants(store.name)) continue;
    figures.push_back({store.name, {}});
    const absl::Status status = [&]() -> absl::Status {
      DYNLIB_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                              TemporaryFolder::Create(harness.flags().dir));
      DYNLIB_ASSIGN_OR_RETURN(const double mib, MiBBeyondBudget(store, folder.path()));
      figures.back().second.push_back(mib);
      return absl::OkStatus();
    }();
    if (!status.ok()) harness.Failed("memory/100", store.name, status);
  }
  harness.Report("memory/100", {"MiB", false}, figures);
}

bool IsStoreChild(const std::vector<std::string>& arguments) {
  return arguments.size() == 3 && (arguments[0] == kWriteChild || arguments[0] == kMemoryChild);
}

int RunStoreChild(const std::vector<std::string>& arguments) {
  const absl::Status status = [&]() -> absl::Status {
    DYNLIB_ASSIGN_OR_RETURN(const NamedKvPeer system, FindStore(arguments[1]));
    return arguments[0] == kWriteChild ? WriteUntilKilled(system, arguments[2])
                                       : ReportMemory(system, arguments[2]);
  }();
  if (!status.ok()) std::printf("%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace dynlib::bench
