// Three replicas on one machine, each with files of its own: writes that are durable on two of
// three before the reply.
//
//   commit/V/N/tcp   N writes in flight, a 20-byte key and a value of V bytes each; the replicas
//   are three processes that talk over
//                    TCP on the loopback address.
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/etcd_cluster.h"
#include "benchmarks/harness.h"
#include "benchmarks/limits.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr size_t kValueBytes = 900;

// A system is a name and a Runner; one more joins the comparison with a line here.
std::vector<System> TcpSystems(int in_flight) {
  return {{"etcd", EtcdPuts(in_flight, kValueBytes)}};
}

void MeasureCommit(Harness& harness, int in_flight) {
  std::vector<System> systems = TcpSystems(in_flight);
  if (in_flight == 1)
    systems.push_back({"limit:longer_of_two_syncs", LongerOfTwoSyncs(kValueBytes)});
  harness.Measure(Cat("commit/", kValueBytes, "/", in_flight, "/tcp"), std::move(systems));
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  dynlib::bench::Harness harness("replication", argc, argv);
  for (const int in_flight : {64, 1}) dynlib::bench::MeasureCommit(harness, in_flight);
  return harness.Finish();
}
