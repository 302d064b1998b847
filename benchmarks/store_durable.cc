// Durable puts from an empty store: 20-byte keys in no order, values of V bytes.
//
//   durable_put/V/N        N threads, each putting one pair after the other: a put returns when it
//                          would survive the loss of power. Above one client LMDB, which has no
//                          group commit, is measured behind a commit queue too
//   durable_put/V/async64  two threads that keep 64 puts in flight between them
#include <atomic>
#include <deque>
#include <semaphore>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/kv_commit_queue.h"
#include "benchmarks/kv_dynlib.h"
#include "benchmarks/limits.h"
#include "benchmarks/load.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

struct DurablePut {
  size_t value_bytes;
  int clients;
  bool in_quick_set;
};

constexpr DurablePut kDurablePuts[] = {
    {900, 1, true}, {100, 1, false}, {900, 16, false}, {900, 64, true}, {100, 64, false}};

// More than any system takes in its run; see TouchMemory.
void TouchMemoryFor(double seconds) {
  constexpr double kBytesPerSecond = 256 << 20;
  TouchMemory(static_cast<size_t>((WarmUpSeconds(seconds) + seconds) * kBytesPerSecond));
}

std::vector<PutStream> Streams(int clients, size_t value_bytes) {
  std::vector<PutStream> streams;
  for (int client = 0; client < clients; ++client) streams.emplace_back(client, value_bytes);
  return streams;
}

Runner PutRunner(const OpenKvPeer& open, const DurablePut& workload) {
  return [open, workload](const RunContext& context) -> absl::StatusOr<RunResult> {
    TouchMemoryFor(context.seconds);
    DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                            open({.folder = context.folder, .clients = workload.clients}));
    std::vector<PutStream> streams = Streams(workload.clients, workload.value_bytes);
    return RunClosedLoop(workload.clients, context.seconds, [&](int client) {
      PutStream& stream = streams[static_cast<size_t>(client)];
      return store->Put(client, stream.NextKey(), stream.NextValue());
    });
  };
}

void MeasureDurablePut(Harness& harness, const DurablePut& workload) {
  std::vector<System> systems;
  for (const NamedKvPeer& store : Stores()) {
    systems.push_back({store.name, PutRunner(store.open, workload)});
    if (store.name == "lmdb" && workload.clients > 1) {
      const NamedKvPeer queued = Queued(store);
      systems.push_back({queued.name, PutRunner(queued.open, workload)});
    }
  }
  systems.push_back({"dynlib_log", PutRunner(OpenDynlibLog, workload)});
  const size_t pair_bytes = kKeyBytes + workload.value_bytes;
  const size_t group_bytes = pair_bytes * static_cast<size_t>(workload.clients);
  systems.push_back({"limit:zeroed_sync", ZeroedSync(group_bytes, workload.clients)});
  if (workload.clients == 1) systems.push_back({"limit:zeroed_sync_4k", ZeroedSync(4096, 1)});
  harness.Measure(Cat("durable_put/", workload.value_bytes, "/", workload.clients),
                  std::move(systems), workload.in_quick_set);
}

constexpr int kAsyncThreads = 2;
constexpr int kInFlight = 64;

// The puts that one thread has in flight.
struct Window {
  std::counting_semaphore<kInFlight> free{kInFlight / kAsyncThreads};
  std::atomic<bool> failed{false};
};

Runner AsyncRunner(const OpenKvPeer& open, size_t value_bytes) {
  return [open, value_bytes](const RunContext& context) -> absl::StatusOr<RunResult> {
    TouchMemoryFor(context.seconds);
    std::deque<Window> windows(kAsyncThreads);
    std::vector<PutStream> streams = Streams(kAsyncThreads, value_bytes);
    DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                            open({.folder = context.folder, .clients = kAsyncThreads}));
    // A call counts when it has found a free place, that is, when an earlier put was answered.
    auto result = RunTightLoop(kAsyncThreads, context.seconds, 1, [&](int client) {
      Window& window = windows[static_cast<size_t>(client)];
      PutStream& stream = streams[static_cast<size_t>(client)];
      window.free.acquire();
      if (window.failed) return absl::DataLossError("a put failed");
      return store->PutAsync(client, stream.NextKey(), stream.NextValue(),
                             [&window](absl::Status status) {
                               if (!status.ok()) window.failed = true;
                               window.free.release();
                             });
    });
    if (!result.ok()) return result;
    for (Window& window : windows) {
      for (int i = 0; i < kInFlight / kAsyncThreads; ++i) window.free.acquire();
    }
    return result;
  };
}

}  // namespace

void MeasureDurablePuts(Harness& harness) {
  for (const DurablePut& workload : kDurablePuts) MeasureDurablePut(harness, workload);
  constexpr size_t kValueBytes = 900;
  harness.Measure(
      Cat("durable_put/", kValueBytes, "/async64"),
      {{kOurs, AsyncRunner(OpenDynlib, kValueBytes)},
       {"dynlib_log", AsyncRunner(OpenDynlibLog, kValueBytes)},
       {"limit:zeroed_sync", ZeroedSync(kInFlight * (kKeyBytes + kValueBytes), kInFlight)}},
      /*in_quick_set=*/false);
}

}  // namespace dynlib::bench
