// What a storage node tells others of where a partition is.
//
// Threads: the node's executor.
#ifndef DYNLIB_CLUSTER_ROUTING_RECORD_H_
#define DYNLIB_CLUSTER_ROUTING_RECORD_H_

#include "dynlib/cluster/replica.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/replication/hosted_group.h"

namespace dynlib::cluster {

// As of the configuration and the leader that the replica knows. An ended partition's says who had
// the keys; its successors' records take its place.
partition_map::PartitionRecord RoutingRecord(const Replica& replica,
                                             const replication::GroupStatus& status);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTING_RECORD_H_
