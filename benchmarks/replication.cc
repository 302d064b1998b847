// Three replicas on one machine, each with files of its own: writes that are durable on two of
// three before the reply. The replication block alone, with a map in memory as its state machine
// (benchmarks/replicated_map.h), beside etcd:
//
//   commit/V/N/tcp      N puts in flight, a 20-byte key and a value of V bytes each; the replicas
//                       are three processes that talk over TCP on the loopback address
//   commit/V/N/local    the same with everything in one process
//   commit/V/NxGgroups/local  the same N puts over G groups, led by any of the nodes
//   commit_p99_over_p50/V/half_load  p99 by p50 of an open loop at half of what commit/V/64/tcp
//                       got through just before, on the same nodes
//   lease_read/local    reads of the newest state, under the leader's lease
//
// and the whole storage node, with its trees and checkpoints, behind the request router:
//
//   cluster_put/V/N/tcp, cluster_put/V/N/local
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/dynlib_cluster.h"
#include "benchmarks/dynlib_member.h"
#include "benchmarks/etcd_cluster.h"
#include "benchmarks/group_cluster.h"
#include "benchmarks/group_node.h"
#include "benchmarks/harness.h"
#include "benchmarks/limits.h"
#include "benchmarks/replication_failover.h"
#include "benchmarks/replication_idle.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr size_t kKeyBytes = 20;
constexpr size_t kValueBytes = 900;

// One sync a group of all that are in flight; for a single writer, also what two replicas on one
// disk leave of it.
void AddLimits(int in_flight, std::vector<System>& systems) {
  const size_t group_bytes = (kKeyBytes + kValueBytes) * static_cast<size_t>(in_flight);
  systems.push_back({"limit:zeroed_sync", ZeroedSync(group_bytes, in_flight)});
  if (in_flight == 1)
    systems.push_back({"limit:longer_of_two_syncs", LongerOfTwoSyncs(group_bytes)});
}

void MeasureTcp(Harness& harness, int in_flight) {
  std::vector<System> systems = {{kOurs, GroupPuts(in_flight, kValueBytes)},
                                 {"etcd", EtcdPuts(in_flight, kValueBytes)}};
  AddLimits(in_flight, systems);
  harness.Measure(Cat("commit/", kValueBytes, "/", in_flight, "/tcp"), std::move(systems));
}

void MeasureLocal(Harness& harness, int in_flight) {
  std::vector<System> systems = {{kOurs, LocalGroupPuts(in_flight, 1, kValueBytes)},
                                 {"limit:three_logs", ThreeLogs(in_flight, kValueBytes)},
                                 {"limit:zeroed_sync_4k", ZeroedSync(4096, 1)}};
  AddLimits(in_flight, systems);
  harness.Measure(Cat("commit/", kValueBytes, "/", in_flight, "/local"), std::move(systems),
                  /*in_quick_set=*/false);
}

// Beside one group in the same rounds.
void MeasureGroups(Harness& harness, int in_flight, int groups) {
  harness.Measure(Cat("commit/", kValueBytes, "/", in_flight, "x", groups, "groups/local"),
                  {{kOurs, LocalGroupPuts(in_flight, groups, kValueBytes)},
                   {"dynlib_one_group", LocalGroupPuts(in_flight, 1, kValueBytes)}},
                  /*in_quick_set=*/false);
}

void MeasureHalfLoad(Harness& harness, int in_flight) {
  harness.MeasureFigures(Cat("commit_p99_over_p50/", kValueBytes, "/half_load"),
                         {.name = "p99/p50", .higher_is_better = false},
                         {{kOurs,
                           [=](const RunContext& context) {
                             return TailAtHalfLoad(context, in_flight, kValueBytes);
                           }}},
                         /*in_quick_set=*/false);
}

void MeasureClusterPuts(Harness& harness, int in_flight) {
  const std::string name = Cat("cluster_put/", kValueBytes, "/", in_flight);
  harness.Measure(Cat(name, "/tcp"), {{kOurs, DynlibPuts(in_flight, kValueBytes)}},
                  /*in_quick_set=*/false);
  harness.Measure(Cat(name, "/local"), {{kOurs, DynlibLocalPuts(in_flight, kValueBytes)}},
                  /*in_quick_set=*/false);
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  using namespace dynlib::bench;
  ServeIfGroupNode(argc, argv);
  ServeIfMember(argc, argv);
  Harness harness("replication", argc, argv);
  for (const int in_flight : {64, 1}) MeasureTcp(harness, in_flight);
  MeasureIdleGroups(harness);  // Before the next, since it looks at this process's memory.
  KeepFreedMemory();
  for (const int in_flight : {64, 1}) MeasureLocal(harness, in_flight);
  MeasureGroups(harness, 64, 64);
  MeasureHalfLoad(harness, 64);
  harness.Measure("lease_read/local", {{kOurs, LeaseReads()}}, /*in_quick_set=*/false);
  MeasureFailover(harness);
  MeasureLogReplica(harness);
  for (const int in_flight : {64, 1}) MeasureClusterPuts(harness, in_flight);
  return harness.Finish();
}
