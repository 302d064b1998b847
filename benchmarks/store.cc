// Embedded stores for ordered keys: durable writes, reads, scans, loads, recovery, space.
#include <string>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/kv_dynlib.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {

std::vector<NamedKvPeer> Stores() {
  std::vector<NamedKvPeer> stores = KvPeers();
  stores.insert(stores.begin(), {kOurs, OpenDynlib});
  return stores;
}

absl::StatusOr<NamedKvPeer> FindStore(const std::string& name) {
  for (NamedKvPeer& store : Stores()) {
    if (store.name == name) return std::move(store);
  }
  return absl::NotFoundError(Cat("no store '", name, "'"));
}

Rows SmallRows() { return {1'000'000, 100}; }

Rows LargeRows(const Harness& harness) {
  return {harness.flags().quick ? uint64_t{25'000} : uint64_t{250'000}, 900};
}

namespace {

int Run(int argc, char** argv) {
  Harness harness("store", argc, argv, {.full = 0.6, .quick = 0.25});
  MeasureDurablePuts(harness);
  KvFixtures fixtures(harness.flags().dir, kFixtureClients);
  MeasureReads(harness, fixtures);
  MeasureReadWhileWriting(harness, fixtures);
  MeasureYcsb(harness, fixtures);
  fixtures.Clear();
  MeasureCheckpoints(harness);
  MeasureReopen(harness);
  MeasureDeviceBytes(harness);
  MeasureMemory(harness);
  MeasureLoads(harness);
  MeasureSpace(harness);
  return harness.Finish();
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (dynlib::bench::IsStoreChild(arguments)) return dynlib::bench::RunStoreChild(arguments);
  return dynlib::bench::Run(argc, argv);
}
