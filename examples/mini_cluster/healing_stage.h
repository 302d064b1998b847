// A node loses its power and stays away: its replicas are covered by log replicas, then rebuilt in
// its zone; when it comes back it lets go of what it had.
//
// Threads: the main one, which may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_HEALING_STAGE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_HEALING_STAGE_H_

#include "absl/status/status.h"
#include "examples/mini_cluster/stage.h"

namespace dynlib::mini_cluster {

absl::Status ShowHealing(Stage& stage);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_HEALING_STAGE_H_
