// What a storage node tells others of where a partition is.
//
// Threads: the node's executor.
#ifndef DYNLIB_CLUSTER_ROUTING_RECORD_H_
#define DYNLIB_CLUSTER_ROUTING_RECORD_H_

#include <cstdint>
#include <map>

#include "dynlib/base/ids.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/replication/hosted_group.h"

namespace dynlib::cluster {

class RoutingRecords {
 public:
  // Zones are numbered from 1 on in the order of their names, so that every node that was started
  // with the same configuration gives the same numbers; 0: a node or a zone without name.
  explicit RoutingRecords(const ClusterConfig& config);

  // As of the configuration and the leader that the replica knows. An ended partition's says who
  // had the keys; its successors' records take its place.
  partition_map::PartitionRecord Of(const Replica& replica,
                                    const replication::GroupStatus& status) const;

 private:
  std::map<NodeId, uint32_t> zones_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTING_RECORD_H_
