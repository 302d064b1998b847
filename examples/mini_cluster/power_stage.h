// The power of a partition's leader is cut and comes back a little later: how long writes wait for
// another leader.
//
// Threads: the main one, which may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_POWER_STAGE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_POWER_STAGE_H_

#include "absl/status/status.h"
#include "examples/mini_cluster/stage.h"

namespace dynlib::mini_cluster {

absl::Status ShowPowerCut(Stage& stage);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_POWER_STAGE_H_
