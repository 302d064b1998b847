// A whole cluster in the simulator, under whatever faults the seed chooses: three storage nodes in
// three zones, two client nodes with a router each, one table of a few partitions.
//
// A run has three parts. Clients read, write, delete and write on condition while faults happen:
// whatever they are told goes into a history. Then everything is healed, and every key must be
// writable again within a bound of virtual time. Then the replicas must hold the same, and the
// history must be linearizable, which includes that nothing acknowledged was lost and that nothing
// was applied twice.
#ifndef TESTS_SIM_CLUSTER_SIMULATION_H_
#define TESTS_SIM_CLUSTER_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "dynlib/base/time.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/sim/faults.h"

namespace dynlib {

struct SimulationOptions {
  uint64_t seed = 1;
  Duration fault_time = std::chrono::seconds(15);
  // Instead of what the seed chooses.
  std::optional<sim::FaultOptions> faults;
  // Known-bad code, to see that it is caught.
  replication::FaultsForTest replication_mutant;
  cluster::ClusterFaultsForTest cluster_mutant;
  // One line an event of the world, and of what the library reports.
  std::function<void(std::string_view)> trace;
};

struct SimulationResult {
  std::string failure;  // Empty: all is well.
  uint64_t trace_hash = 0;
  uint64_t operations = 0;
  uint64_t acknowledged = 0;
  uint64_t events = 0;
  std::map<std::string, uint64_t, std::less<>> faults;   // By kind, how often injected.
  std::map<std::string, uint64_t, std::less<>> metrics;  // What the library counted.

  bool ok() const { return failure.empty(); }
};

SimulationResult RunClusterSimulation(const SimulationOptions& options);

}  // namespace dynlib

#endif  // TESTS_SIM_CLUSTER_SIMULATION_H_
