// Writes a data set, many items in flight.
//
// Threads: one that may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_LOAD_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_LOAD_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/time.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/data_set.h"
#include "examples/mini_cluster/journal.h"
#include "examples/mini_cluster/latencies.h"

namespace dynlib::mini_cluster {

struct LoadResult {
  uint64_t written = 0;
  Duration took{};
  Latencies latencies;
};

// Puts every item of the data set, `in_flight` of them at a time, and notes what was acknowledged
// in `journal` unless it is null. `progress` is called about every second with the number of items
// written. The first write that fails ends it, with that error.
absl::StatusOr<LoadResult> Load(Client& client, const DataSet& data, size_t in_flight,
                                Journal* journal,
                                absl::AnyInvocable<void(uint64_t written)> progress);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_LOAD_H_
