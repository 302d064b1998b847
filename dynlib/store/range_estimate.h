// Estimates what lies in a range of keys, from branches and a few leaves.
//
// Internal to the store: Snapshot::ApproximateStats. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_RANGE_ESTIMATE_H_
#define DYNLIB_STORE_RANGE_ESTIMATE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/store/node.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/range_stats.h"

namespace dynlib::store {

absl::StatusOr<RangeStats> EstimateRange(NodeStore& nodes, Node& root, std::string_view first,
                                         std::string_view end);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_RANGE_ESTIMATE_H_
