// Three of dynlib's storage nodes on this machine, driven through the request router.
#ifndef DYNLIB_BENCHMARKS_DYNLIB_CLUSTER_H_
#define DYNLIB_BENCHMARKS_DYNLIB_CLUSTER_H_

#include <cstddef>

#include "benchmarks/harness.h"

namespace dynlib::bench {

// Starts a new cluster of three storage nodes with dynlib's own defaults, each a process with a
// folder of its own (this program, started again: call ServeIfMember first in main), makes a table
// of one partition, and keeps `clients` puts of whole items in flight: a key of 20 bytes and an
// attribute of `value_bytes`. A put goes through everything that an application's would: router,
// rpc, checks of the item, a condition that is empty, the exactly-once table, the trees of all
// members. The client is one thread of this process, as etcd's is, and a router sends straight to
// the leader.
Runner DynlibPuts(int clients, size_t value_bytes);

// The same with the three nodes and the client in this process, and messages that go by moving a
// string: what is left without sockets and process switches.
Runner DynlibLocalPuts(int clients, size_t value_bytes);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_DYNLIB_CLUSTER_H_
