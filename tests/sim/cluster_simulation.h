// A whole cluster in the simulator, under whatever faults the seed chooses: storage nodes in three
// zones, metadata nodes, two client nodes with a router each, one table of a few partitions.
//
// A run has three parts. Clients read, write, delete and write on condition while faults happen,
// and, where the shape says so, while partitions are split, merged, moved, rebuilt and scrubbed:
// whatever the clients are told goes into a history. Then everything is healed, and within a bound
// of virtual time every key must be writable again, every partition must have its full number of
// storage replicas, in step and equal, nothing must be left of partitions that ended or of replicas
// that were replaced, the metadata nodes must know all of it, and a scrub of everything must find
// nothing. Then the history must be linearizable, which includes that nothing acknowledged was lost
// and that nothing was applied twice. No scrub may ever have found copies that differ, but for what
// cannot be read on the one disk that is damaged; and what a router knows may never have become
// older.
#ifndef TESTS_SIM_CLUSTER_SIMULATION_H_
#define TESTS_SIM_CLUSTER_SIMULATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/faults.h"

namespace dynlib {

// What the cluster looks like, and what its administrators do beside the faults.
struct ClusterShape {
  int nodes = 3;           // storage nodes, dealt out over three zones
  int metadata_nodes = 0;  // which crash too
  // Means, of the whole cluster, in virtual time under faults.
  double splits_per_minute = 0;
  double merges_per_minute = 0;
  double outages_per_minute = 0;  // a node without power for longer than it takes to be called dead
  Duration scrub_interval{};      // of each partition; 0: none but the last
  // Bytes that each item has beside its value, and of a copy's chunk: so that copies take several.
  size_t padding = 0;
  size_t copy_chunk_bytes = 1 << 20;
  uint64_t copy_bytes_per_second = 0;  // 0: no limit
};

// Of three nodes without such events in most seeds, since they cost the least.
ClusterShape RandomShape(uint64_t seed);

// A call of one storage node's disk, and what it meets.
struct DiskCallFault {
  NodeId node{};
  uint64_t call = 0;  // 1 is the node's first; 0: none, its calls are counted alone
  sim::DiskFault fault = sim::DiskFault::kEio;
  sim::UnsyncedFate fate = sim::UnsyncedFate::kAllLost;  // when the power fails
};

struct SimulationOptions {
  uint64_t seed = 1;
  Duration fault_time = std::chrono::seconds(15);
  // Instead of what the seed chooses.
  std::optional<sim::FaultOptions> faults;
  std::optional<ClusterShape> shape;
  // Its node is also restarted in the middle of the fault time, so that the calls of a recovery are
  // among those that can be chosen; in the end the power of all nodes fails, so that what counts is
  // what their disks hold.
  std::optional<DiskCallFault> disk_call;
  // Known-bad code, to see that it is caught.
  replication::FaultsForTest replication_mutant;
  cluster::ClusterFaultsForTest cluster_mutant;
  cluster::RouterFaultsForTest router_mutant;
  // One line an event of the world, and of what the library reports.
  std::function<void(std::string_view)> trace;
};

struct SimulationResult {
  std::string failure;  // Empty: all is well.
  // The failure is harm: a wrong answer, replicas that differ, or knowledge that became older; not
  // only that something did not come about in time.
  bool harmed = false;
  uint64_t trace_hash = 0;
  uint64_t operations = 0;
  uint64_t acknowledged = 0;
  uint64_t events = 0;
  uint64_t disk_calls = 0;  // of the node of `disk_call`, until all is healed
  std::map<std::string, uint64_t, std::less<>> faults;   // By kind, how often injected.
  std::map<std::string, uint64_t, std::less<>> metrics;  // What the library counted.

  bool ok() const { return failure.empty(); }
};

SimulationResult RunClusterSimulation(const SimulationOptions& options);

}  // namespace dynlib

#endif  // TESTS_SIM_CLUSTER_SIMULATION_H_
