// Writes a data set, many items in flight.
//
// Threads: one that may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_LOAD_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

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
  uint64_t throttled = 0;  // answers; those items were written later
  Duration took{};
  Latencies latencies;  // of the writes that were not throttled
};

// Puts every item of the data set, `in_flight` of them at a time, through each of the clients in
// turn, and notes what was acknowledged in `journal` unless it is null. A write that is throttled
// is begun again when the answer says. `progress` is called about every second with the number of
// items written. The first write that fails ends it, with that error.
absl::StatusOr<LoadResult> Load(const std::vector<Client*>& clients, const DataSet& data,
                                size_t in_flight, Journal* journal,
                                absl::AnyInvocable<void(uint64_t written)> progress);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_LOAD_H_
