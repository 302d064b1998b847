// dynlib's store, and its node log alone, behind the interface that their peers have.
#ifndef DYNLIB_BENCHMARKS_KV_DYNLIB_H_
#define DYNLIB_BENCHMARKS_KV_DYNLIB_H_

#include <memory>

#include "absl/status/statusor.h"
#include "benchmarks/kv_peer.h"

namespace dynlib::bench {

// store::LocalStore with its defaults, and the budget of memory.
absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlib(const KvOptions& options);

// The log alone: puts are answered when durable, and never applied; nothing can be read. What the
// store costs above it is the difference.
absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlibLog(const KvOptions& options);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_DYNLIB_H_
