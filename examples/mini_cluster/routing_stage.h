// Routers find partitions: look-ups that metadata nodes get for each request, with cold caches and
// with warm ones, and what happens while there are no metadata nodes.
//
// Threads: the main one, which may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_ROUTING_STAGE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_ROUTING_STAGE_H_

#include "absl/status/status.h"
#include "examples/mini_cluster/stage.h"

namespace dynlib::mini_cluster {

absl::Status ShowRouting(Stage& stage);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_ROUTING_STAGE_H_
