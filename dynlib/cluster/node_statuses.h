// What every node says of its replicas.
//
//   AskNodeStatuses(nodes, &rpc, timeout, [](NodeStatuses statuses) { ... });
//
// Internal to the cluster. Threads: everything on the rpc's executor; `done` is called once, when
// all have answered or timed out, never inline.
#ifndef DYNLIB_CLUSTER_NODE_STATUSES_H_
#define DYNLIB_CLUSTER_NODE_STATUSES_H_

#include <map>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

// Of the nodes that answered.
using NodeStatuses = std::map<NodeId, wire::NodeStatusReply>;

// `nodes`: at least one.
void AskNodeStatuses(const std::vector<NodeId>& nodes, Rpc* rpc, Duration timeout,
                     absl::AnyInvocable<void(NodeStatuses)> done);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_NODE_STATUSES_H_
