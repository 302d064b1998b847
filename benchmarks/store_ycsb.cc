// The core workloads of YCSB (Cooper et al., "Benchmarking cloud serving systems with YCSB", 2010)
// that have no scans and no inserts, on a filled store; rows chosen by zipf 0.99, updates durable.
//
//   ycsb_a/900/16   16 threads, half reads, half updates
//   ycsb_b/900/16   16 threads, 95 % reads
//   ycsb_c/900/2    2 threads, reads alone
//
// LMDB, which has no group commit, is measured behind a commit queue too.
#include <memory>
#include <utility>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/kv_commit_queue.h"
#include "benchmarks/load.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

struct Ycsb {
  char name;
  int clients;
  uint64_t update_percent;
  bool in_quick_set;
};

constexpr Ycsb kYcsb[] = {{'a', 16, 50, true}, {'b', 16, 5, false}, {'c', 2, 0, false}};

struct alignas(128) Client {
  uint64_t random = 0;
  uint64_t seen = 0;
};

absl::StatusOr<RunResult> Run(KvPeer& store, const Rows& rows, const Zipf& zipf,
                              const Ycsb& workload, double seconds) {
  std::vector<Client> clients(static_cast<size_t>(workload.clients));
  for (size_t i = 0; i < clients.size(); ++i) clients[i].random = NowNs() + (i << 40);
  return RunClosedLoop(workload.clients, seconds, [&](int client) {
    Client& me = clients[static_cast<size_t>(client)];
    // The hot rows lie anywhere among the keys, since neighbours in rows are not so in keys.
    const uint64_t row = zipf.Rank(Mix(++me.random));
    const RowKey key(row);
    if (Mix(++me.random) % 100 < workload.update_percent)
      return store.Put(client, key.view(), rows.Value(row, ++me.random));
    size_t bytes = 0;
    DYNLIB_RETURN_IF_ERROR(store.Get(client, key.view(), [&](std::string_view value) {
      bytes = value.size();
      me.seen += static_cast<unsigned char>(value.front());
    }));
    return bytes == rows.value_bytes ? absl::OkStatus() : absl::DataLossError(Cat("row ", row));
  });
}

}  // namespace

void MeasureYcsb(Harness& harness, KvFixtures& fixtures) {
  const Rows rows = LargeRows(harness);
  const auto zipf = std::make_shared<Zipf>(rows.count);
  for (const Ycsb& workload : kYcsb) {
    std::vector<NamedKvPeer> stores = Stores();
    if (workload.update_percent > 0) {
      for (const NamedKvPeer& store : KvPeers()) {
        if (store.name == "lmdb") stores.push_back(Queued(store));
      }
    }
    std::vector<System> systems;
    for (const NamedKvPeer& store : stores) {
      systems.push_back(
          {store.name, [=, &fixtures](const RunContext& context) -> absl::StatusOr<RunResult> {
             DYNLIB_ASSIGN_OR_RETURN(KvPeer * filled, fixtures.Filled(store, rows));
             return Run(*filled, rows, *zipf, workload, context.seconds);
           }});
    }
    harness.Measure(Cat("ycsb_", std::string(1, workload.name), "/900/", workload.clients),
                    std::move(systems), workload.in_quick_set);
  }
}

}  // namespace dynlib::bench
