// etcd from the system's package, as three processes on this machine, driven through its own API.
#ifndef DYNLIB_BENCHMARKS_ETCD_CLUSTER_H_
#define DYNLIB_BENCHMARKS_ETCD_CLUSTER_H_

#include <cstddef>

#include "benchmarks/harness.h"

namespace dynlib::bench {

// Starts a new cluster of three on free ports of the loopback address, each member with a folder of
// its own and etcd's own defaults (each member syncs its log before it answers), and keeps
// `clients` puts in flight: 20-byte keys, values of `value_bytes`. They go over native gRPC, from
// one thread with a completion queue, straight to the leader, which spares etcd the hop that a
// follower would add.
Runner EtcdPuts(int clients, size_t value_bytes);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_ETCD_CLUSTER_H_
