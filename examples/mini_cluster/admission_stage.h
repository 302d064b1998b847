// A partition that is asked for more than it may serve: throttled, split for its heat, and served
// twice as much by its halves; and a table that paid for so much and no more, through all routers.
//
// Threads: the main one, which may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_ADMISSION_STAGE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_ADMISSION_STAGE_H_

#include "absl/status/status.h"
#include "examples/mini_cluster/stage.h"

namespace dynlib::mini_cluster {

absl::Status ShowAdmission(Stage& stage);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_ADMISSION_STAGE_H_
