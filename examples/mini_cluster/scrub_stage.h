// A byte changes on one replica's disk: a scrub finds it, names the bad copy, and repairs it.
//
// Threads: the main one, which may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_SCRUB_STAGE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_SCRUB_STAGE_H_

#include "absl/status/status.h"
#include "examples/mini_cluster/stage.h"

namespace dynlib::mini_cluster {

absl::Status ShowScrub(Stage& stage);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_SCRUB_STAGE_H_
