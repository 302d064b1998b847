// The families of workloads that `store` measures; each in a file of its own, which says what its
// rows are.
#ifndef DYNLIB_BENCHMARKS_STORE_WORKLOADS_H_
#define DYNLIB_BENCHMARKS_STORE_WORKLOADS_H_

#include <string>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/kv_fixtures.h"
#include "benchmarks/kv_peer.h"
#include "benchmarks/kv_rows.h"

namespace dynlib::bench {

// dynlib and all its peers.
std::vector<NamedKvPeer> Stores();
absl::StatusOr<NamedKvPeer> FindStore(const std::string& name);

// A million rows of 100 bytes; a quarter of a million of 900 (a tenth with --quick).
Rows SmallRows();
Rows LargeRows(const Harness& harness);

// Clients that the fixtures are opened for.
inline constexpr int kFixtureClients = 16;

void MeasureDurablePuts(Harness& harness);
void MeasureReads(Harness& harness, KvFixtures& fixtures);
void MeasureYcsb(Harness& harness, KvFixtures& fixtures);
void MeasureReadWhileWriting(Harness& harness, KvFixtures& fixtures);
void MeasureLoads(Harness& harness);
void MeasureCheckpoints(Harness& harness);
void MeasureReopen(Harness& harness);
void MeasureMemory(Harness& harness);
void MeasureSpace(Harness& harness);
void MeasureDeviceBytes(Harness& harness);

// What this program does when a workload starts it as a child: arguments[0] says which.
bool IsStoreChild(const std::vector<std::string>& arguments);
int RunStoreChild(const std::vector<std::string>& arguments);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_STORE_WORKLOADS_H_
