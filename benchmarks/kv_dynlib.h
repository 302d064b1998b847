// dynlib's node log and B-tree as one stand-alone store, behind the interface that its peers have.
#ifndef DYNLIB_BENCHMARKS_KV_DYNLIB_H_
#define DYNLIB_BENCHMARKS_KV_DYNLIB_H_

#include <memory>

#include "absl/status/statusor.h"
#include "benchmarks/kv_peer.h"

namespace dynlib::bench {

// The whole path of a storage node's write: a put is appended to the node log, and when it is
// durable there, applied to a tree of the page file, then answered. Every 64 MiB of log the page
// file is checkpointed, while puts go on, and the log released.
absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlib(const KvOptions& options);

// The log alone: answered when durable, never applied. What the tree costs is the difference.
absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlibLog(const KvOptions& options);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_DYNLIB_H_
