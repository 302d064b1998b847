// Three replicas on one machine, each with files of its own: writes that are durable on two of
// three before the reply.
//
//   commit/V/N/tcp     N puts in flight, a 20-byte key and a value of V bytes each; the replicas
//                      are three processes that talk over TCP on the loopback address
//   commit/V/N/local   the same with everything in one process
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/dynlib_cluster.h"
#include "benchmarks/dynlib_member.h"
#include "benchmarks/etcd_cluster.h"
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
  std::vector<System> systems = {{kOurs, DynlibPuts(in_flight, kValueBytes)},
                                 {"etcd", EtcdPuts(in_flight, kValueBytes)}};
  AddLimits(in_flight, systems);
  harness.Measure(Cat("commit/", kValueBytes, "/", in_flight, "/tcp"), std::move(systems));
}

void MeasureLocal(Harness& harness, int in_flight) {
  std::vector<System> systems = {{kOurs, DynlibLocalPuts(in_flight, kValueBytes)}};
  AddLimits(in_flight, systems);
  harness.Measure(Cat("commit/", kValueBytes, "/", in_flight, "/local"), std::move(systems),
                  /*in_quick_set=*/false);
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  dynlib::bench::ServeIfMember(argc, argv);
  dynlib::bench::Harness harness("replication", argc, argv);
  for (const int in_flight : {64, 1}) dynlib::bench::MeasureTcp(harness, in_flight);
  for (const int in_flight : {64, 1}) dynlib::bench::MeasureLocal(harness, in_flight);
  dynlib::bench::MeasureIdleGroups(harness);
  dynlib::bench::MeasureFailover(harness);
  dynlib::bench::MeasureLogReplica(harness);
  return harness.Finish();
}
