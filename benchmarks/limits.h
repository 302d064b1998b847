// What the disk alone can do: the figures that no durable system beats.
#ifndef DYNLIB_BENCHMARKS_LIMITS_H_
#define DYNLIB_BENCHMARKS_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "absl/status/statusor.h"
#include "benchmarks/harness.h"

namespace dynlib::bench {

// pwrite and fdatasync of `bytes` (rounded up to 1 KiB) at the next position of a file that already
// holds zeros on disk, so that a sync writes data and no metadata. Each sync counts as `operations`
// operations: what they would share in a group commit.
Runner ZeroedSync(size_t bytes, int operations);

// The same into a file that grows: what an append-only log pays.
Runner GrowingSync(size_t bytes, int operations);

// Two threads that write and sync the same `bytes`, each into a file of its own, and wait for one
// another: the two of three syncs that a replicated commit waits for. The latency is that of the
// longer.
Runner LongerOfTwoSyncs(size_t bytes);

// What three logs can do without a protocol: a caller with `in_flight` records of a 20-byte key and
// `value_bytes`, and a thread a log, which writes whatever it was given meanwhile, copied into one
// aligned block, past the cache and synced by the write itself, into a file that holds zeros; as
// the node log does. The caller is a thread that gives each record to all three logs, hears how far
// each is, and makes the next record for each that two of them have. The third follows as it can.
Runner ThreeLogs(int in_flight, size_t value_bytes);

// Seconds to write `bytes` to a new file in the folder, in writes of 1 MiB, and to sync it once.
absl::StatusOr<double> SequentialWrite(const std::filesystem::path& folder, uint64_t bytes);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_LIMITS_H_
