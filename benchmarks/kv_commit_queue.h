// Group commit in front of a store that has none: what a service does that wants many writers over
// LMDB. Writers queue; the first in line writes what waits as one batch, durably, and wakes the
// others.
#ifndef DYNLIB_BENCHMARKS_KV_COMMIT_QUEUE_H_
#define DYNLIB_BENCHMARKS_KV_COMMIT_QUEUE_H_

#include "benchmarks/kv_peer.h"

namespace dynlib::bench {

// That store behind such a queue, named NAME_queued.
NamedKvPeer Queued(const NamedKvPeer& peer);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_COMMIT_QUEUE_H_
