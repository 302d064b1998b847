// What must be so in a simulated cluster some time after all faults ended.
#ifndef TESTS_SIM_CLUSTER_CHECKS_H_
#define TESTS_SIM_CLUSTER_CHECKS_H_

#include <cstdint>
#include <string>

#include "dynlib/base/time.h"
#include "dynlib/sim/world.h"
#include "tests/sim/cluster_load.h"
#include "tests/sim/simulated_cluster.h"

namespace dynlib {

// Every partition is led, has its full number of storage replicas, all in step, and is in the
// catalogue; nothing else is left on any node. Waits for that up to `limit`; "", or what is not so.
std::string CheckWhole(SimulatedCluster& cluster, ClusterLoad& load, sim::World& world,
                       uint64_t table, Duration limit);

// Every partition that some node knows, its range, and what came of it, for people.
std::string DescribePartitions(SimulatedCluster& cluster, sim::World& world, uint64_t table);

// The items of every partition are the same on each of its replicas. "", or what differs.
// Scrubs everything: all of the table's partitions are compared to the end, and nothing is left
// that differs.
std::string CheckScrubbed(SimulatedCluster& cluster, sim::World& world, uint64_t table,
                          Duration limit);
std::string CheckEqual(SimulatedCluster& cluster, sim::World& world, uint64_t table);

}  // namespace dynlib

#endif  // TESTS_SIM_CLUSTER_CHECKS_H_
