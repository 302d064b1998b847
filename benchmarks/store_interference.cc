// What one kind of work costs another.
//
//   read_while_writing/900   one reader; p99 of its reads beside a durable writer, by the p99
//                            without one
//   checkpoint_p99/900       16 writers, each updating one row after the other, durably; p99 of the
//                            updates that ended while a checkpoint ran, by the p99 while none did
//
// A figure is a ratio; the rows .../p99_alone and .../p99_beside have the microseconds.
#include <array>
#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/load.h"
#include "benchmarks/stats.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr int kWriters = 16;

// Of one run, in microseconds.
struct Latencies {
  double alone = 0;
  double beside = 0;
};

double P99(std::vector<uint64_t>& latencies_ns) {
  return static_cast<double>(Quantile(latencies_ns, 0.99)) * 1e-3;
}

struct Clients {
  explicit Clients(int count) : random(static_cast<size_t>(count)) {
    for (size_t i = 0; i < random.size(); ++i) random[i].value = NowNs() + (i << 40);
  }
  uint64_t Next(int client) { return Mix(++random[static_cast<size_t>(client)].value); }

  struct alignas(128) Random {
    uint64_t value = 0;
  };
  std::vector<Random> random;
};

absl::Status Update(KvPeer& store, const Rows& rows, Clients& clients, int client) {
  const uint64_t row = clients.Next(client) % rows.count;
  return store.Put(client, RowKey(row).view(), rows.Value(row, clients.Next(client)));
}

// --- read_while_writing ---

absl::StatusOr<double> ReadP99(KvPeer& store, const Rows& rows, double seconds) {
  Clients clients(1);
  uint64_t seen = 0;
  DYNLIB_ASSIGN_OR_RETURN(RunResult run, RunClosedLoop(1, seconds, [&](int) {
                            return store.Get(0, RowKey(clients.Next(0) % rows.count).view(),
                                             [&](std::string_view value) {
                                               seen += static_cast<unsigned char>(value.front());
                                             });
                          }));
  return P99(run.latencies_ns);
}

absl::StatusOr<Latencies> ReadWhileWriting(KvPeer& store, const Rows& rows, double seconds) {
  Latencies latencies;
  DYNLIB_ASSIGN_OR_RETURN(latencies.alone, ReadP99(store, rows, seconds));
  std::atomic<bool> stop{false};
  absl::Status written;
  std::thread writer([&] {
    Clients clients(2);
    while (!stop && written.ok()) written = Update(store, rows, clients, 1);
  });
  const absl::StatusOr<double> beside = ReadP99(store, rows, seconds);
  stop = true;
  writer.join();
  DYNLIB_RETURN_IF_ERROR(written);
  DYNLIB_ASSIGN_OR_RETURN(latencies.beside, beside);
  return latencies;
}

// --- checkpoint_p99 ---

absl::StatusOr<Latencies> UpdatesAndCheckpoint(const NamedKvPeer& system, const Rows& rows,
                                               const RunContext& context) {
  {
    DYNLIB_ASSIGN_OR_RETURN(
        const std::unique_ptr<KvPeer> empty,
        system.open({.folder = context.folder, .fill = KvOptions::Fill::kSorted}));
    DYNLIB_RETURN_IF_ERROR(FillStore(*empty, rows, /*sorted=*/true));
  }
  DYNLIB_ASSIGN_OR_RETURN(
      const std::unique_ptr<KvPeer> store,
      system.open({.folder = context.folder, .clients = kWriters, .checkpoints_by_itself = false}));
  Latencies latencies;
  Clients clients(kWriters);
  auto update = [&](int client) { return Update(*store, rows, clients, client); };
  DYNLIB_ASSIGN_OR_RETURN(RunResult alone, RunClosedLoop(kWriters, context.seconds, update));
  latencies.alone = P99(alone.latencies_ns);

  // All that ended before the checkpoint did; it has to write what the first part left.
  std::atomic<bool> done{false};
  absl::Status checkpointed;
  std::thread checkpoint([&] {
    checkpointed = store->Checkpoint();
    done = true;
  });
  std::mutex mutex;
  std::vector<uint64_t> beside_ns;
  absl::Status failed;
  std::vector<std::thread> writers;
  for (int client = 0; client < kWriters; ++client) {
    writers.emplace_back([&, client] {
      std::vector<uint64_t> mine_ns;
      absl::Status status;
      while (!done && status.ok()) {
        const uint64_t begin = NowNs();
        status = update(client);
        mine_ns.push_back(NowNs() - begin);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      beside_ns.insert(beside_ns.end(), mine_ns.begin(), mine_ns.end());
      if (failed.ok()) failed = status;
    });
  }
  for (std::thread& writer : writers) writer.join();
  checkpoint.join();
  DYNLIB_RETURN_IF_ERROR(failed);
  DYNLIB_RETURN_IF_ERROR(checkpointed);
  latencies.beside = P99(beside_ns);
  return latencies;
}

using Measure = std::function<absl::StatusOr<Latencies>(const NamedKvPeer&, const RunContext&)>;

// The ratio, and behind it the two figures that it was made of in the same rounds.
void MeasureLatencies(Harness& harness, const std::string& workload, const Measure& measure) {
  const std::vector<NamedKvPeer> stores = Stores();
  std::vector<FigureSystem> ratios;
  std::array<std::vector<std::pair<std::string, std::vector<double>>>, 2> microseconds;
  for (auto& part : microseconds) {
    for (const NamedKvPeer& store : stores) part.push_back({store.name, {}});
  }
  for (size_t i = 0; i < stores.size(); ++i) {
    ratios.push_back({stores[i].name, [&, i](const RunContext& context) -> absl::StatusOr<double> {
                        DYNLIB_ASSIGN_OR_RETURN(const Latencies found, measure(stores[i], context));
                        microseconds[0][i].second.push_back(found.alone);
                        microseconds[1][i].second.push_back(found.beside);
                        return found.beside / found.alone;
                      }});
  }
  harness.MeasureFigures(workload, {"times", false}, std::move(ratios), /*in_quick_set=*/false);
  harness.Report(workload + "/p99_alone", {"us", false}, microseconds[0]);
  harness.Report(workload + "/p99_beside", {"us", false}, microseconds[1]);
}

}  // namespace

void MeasureReadWhileWriting(Harness& harness, KvFixtures& fixtures) {
  const Rows rows = LargeRows(harness);
  MeasureLatencies(
      harness, "read_while_writing/900",
      [&](const NamedKvPeer& system, const RunContext& context) -> absl::StatusOr<Latencies> {
        DYNLIB_ASSIGN_OR_RETURN(KvPeer * store, fixtures.Filled(system, rows));
        return ReadWhileWriting(*store, rows, context.seconds);
      });
}

void MeasureCheckpoints(Harness& harness) {
  const Rows rows{50'000, LargeRows(harness).value_bytes};
  MeasureLatencies(harness, "checkpoint_p99/900",
                   [&](const NamedKvPeer& system, const RunContext& context) {
                     return UpdatesAndCheckpoint(system, rows, context);
                   });
}

}  // namespace dynlib::bench
