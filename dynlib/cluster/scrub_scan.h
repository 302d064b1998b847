// The items of a pinned version of a replica's tree, by storage key, as scrubs read them: from
// disk, so that damage under a good copy in memory is found.
//
// Internal to cluster. Threads: any; blocks on files.
#ifndef DYNLIB_CLUSTER_SCRUB_SCAN_H_
#define DYNLIB_CLUSTER_SCRUB_SCAN_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/scrub/range_digester.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {

// Ends at the first damaged page, and names its keys; what is wrong is added to `damage`.
scrub::ScanEnd ScanItems(const store::Snapshot& version, std::string_view first,
                         std::string_view end, scrub::Visitor visit, std::string* damage);

// Rows of the request's ranges, up to its bytes_max and one at least; kDataLoss if a page cannot be
// read.
absl::Status ReadItems(const store::Snapshot& version, const wire::ScrubReadRequest& request,
                       wire::ScrubReadReply& reply);

// A tree key as a storage key; those before all items are the first.
std::string ToStorageKey(std::string_view tree_key);
// As an end: those behind all items are no end.
std::string ToStorageEnd(std::string_view tree_key);
// And back.
std::string ToTreeEnd(std::string_view storage_end);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SCRUB_SCAN_H_
