// Three nodes of the replication block on this machine, and what is measured of them.
#ifndef DYNLIB_BENCHMARKS_GROUP_CLUSTER_H_
#define DYNLIB_BENCHMARKS_GROUP_CLUSTER_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "benchmarks/harness.h"

namespace dynlib::bench {

// Starts three nodes (GroupNode), each a process with a folder of its own (this program, started
// again: call ServeIfGroupNode first in main), which replicate one group, and keeps `clients` puts
// of a 20-byte key and `value_bytes` in flight. The client is one thread of this process, as etcd's
// is, and sends straight to the leader, by rpc. A put is remembered for exactly-once, durable on
// two of three nodes, and applied to the leader's map before the reply.
Runner GroupPuts(int clients, size_t value_bytes);

// The same with the three nodes in this process, messages that go by moving a string, and `groups`
// groups, which `callers` asynchronous callers share evenly. A caller runs on the executor of the
// node that leads its group.
Runner LocalGroupPuts(int callers, int groups, size_t value_bytes);

// As GroupPuts, but an open loop: half as many puts a second as `clients` got through in a run just
// before, on the same nodes. The latencies are those of the second run. The figure: p99 by p50.
absl::StatusOr<double> TailAtHalfLoad(const RunContext& context, int clients, size_t value_bytes);

// Reads of the newest state under the leader's lease, all on the leader's own thread, 64 in flight,
// from a map of 10,000 keys. Fails if any node sent a message of a group while they ran: heartbeats
// between nodes go on, and are none.
Runner LeaseReads();

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_GROUP_CLUSTER_H_
