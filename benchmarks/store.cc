// Embedded stores under durable writes.
//
//   durable_put/V/N   N threads, each putting one pair after the other: a 20-byte key, a value of V
//   bytes that does not compress;
//                     a put returns when it would survive the loss of power. From an empty store.
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/kv_dynlib.h"
#include "benchmarks/kv_peer.h"
#include "benchmarks/limits.h"
#include "benchmarks/load.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr size_t kKeyBytes = 20;

struct DurablePut {
  size_t value_bytes;
  int clients;
  bool in_quick_set;
};

constexpr DurablePut kDurablePuts[] = {
    {900, 1, true}, {900, 16, false}, {900, 64, true}, {100, 1, false}};

Runner PutRunner(const OpenKvPeer& open, const DurablePut& workload) {
  return [open, workload](const RunContext& context) -> absl::StatusOr<RunResult> {
    DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                            open(context.folder, workload.clients));
    std::vector<PutStream> streams;
    for (int client = 0; client < workload.clients; ++client)
      streams.emplace_back(client, workload.value_bytes);
    return RunClosedLoop(workload.clients, context.seconds, [&](int client) {
      PutStream& stream = streams[static_cast<size_t>(client)];
      return store->Put(client, stream.NextKey(), stream.NextValue());
    });
  };
}

void MeasureDurablePut(Harness& harness, const DurablePut& workload) {
  std::vector<System> systems = {{kOurs, PutRunner(OpenDynlib, workload)},
                                 {"dynlib_log", PutRunner(OpenDynlibLog, workload)}};
  for (const NamedKvPeer& peer : KvPeers())
    systems.push_back({peer.name, PutRunner(peer.open, workload)});
  const size_t pair_bytes = kKeyBytes + workload.value_bytes;
  const size_t group_bytes = pair_bytes * static_cast<size_t>(workload.clients);
  systems.push_back({"limit:zeroed_sync", ZeroedSync(group_bytes, workload.clients)});
  systems.push_back({"limit:growing_sync", GrowingSync(group_bytes, workload.clients)});
  if (workload.clients == 1) systems.push_back({"limit:zeroed_sync_4k", ZeroedSync(4096, 1)});
  harness.Measure(Cat("durable_put/", workload.value_bytes, "/", workload.clients),
                  std::move(systems), workload.in_quick_set);
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  dynlib::bench::Harness harness("store", argc, argv);
  for (const auto& workload : dynlib::bench::kDurablePuts)
    dynlib::bench::MeasureDurablePut(harness, workload);
  return harness.Finish();
}
