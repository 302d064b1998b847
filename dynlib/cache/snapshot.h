// What a cache holds, as bytes, so that the next process starts warm.
//
//   std::string bytes = SaveSnapshot(routes, clock, EncodeRoute);   // now and then, to a file
//   DYNLIB_ASSIGN_OR_RETURN(size_t held, LoadSnapshot(routes, clock, bytes, DecodeRoute));
//
// encode(value) returns bytes, decode(bytes) a StatusOr<Value>. Loaded values are hints: they
// replace nothing that is as new. Their ages go on, by wall time, from where they were saved; a
// wall clock that stepped back makes them look younger, never newer.
//
// A snapshot is read whole or not at all: kDataLoss for damage, or what decode returned. Nothing is
// promised across releases: what a newer one does not understand is kDataLoss too, and the cache
// starts cold, which costs its directory nothing.
//
// Bytes: "dynlib cache 1\n", varint count; for each value fixed64 wall time of its confirmation in
// nanoseconds and the length-prefixed bytes; XXH3-64 of all before.
//
// Threads: any; Save holds the index's locks as long as copying its entries takes.
#ifndef DYNLIB_CACHE_SNAPSHOT_H_
#define DYNLIB_CACHE_SNAPSHOT_H_

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"

namespace dynlib::cache {

struct SnapshotEntry {
  WallTime confirmed;
  std::string value;
};

std::string EncodeSnapshot(const std::vector<SnapshotEntry>& entries);
absl::StatusOr<std::vector<SnapshotEntry>> DecodeSnapshot(std::string_view bytes);

template <typename Cache, typename Encode>
std::string SaveSnapshot(const Cache& cache, const Clock& clock, Encode encode) {
  const Instant now = clock.Now();
  const WallTime wall_now = clock.WallNow();
  std::vector<SnapshotEntry> entries;
  for (const auto& entry : cache.Entries())
    entries.push_back({wall_now - entry.AgeAt(now), encode(*entry.value)});
  return EncodeSnapshot(entries);
}

// Returns how many values the snapshot had.
template <typename Cache, typename Decode>
absl::StatusOr<size_t> LoadSnapshot(Cache& cache, const Clock& clock, std::string_view bytes,
                                    Decode decode) {
  DYNLIB_ASSIGN_OR_RETURN(const std::vector<SnapshotEntry> entries, DecodeSnapshot(bytes));
  std::vector<typename Cache::Value> values;
  for (const SnapshotEntry& entry : entries) {
    DYNLIB_ASSIGN_OR_RETURN(typename Cache::Value value, decode(std::string_view(entry.value)));
    values.push_back(std::move(value));
  }
  const WallTime wall_now = clock.WallNow();
  for (size_t i = 0; i < values.size(); ++i) {
    const Duration age = std::max(wall_now - entries[i].confirmed, Duration(0));
    cache.Apply(Cache::Own(std::move(values[i])), age);
  }
  return values.size();
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_SNAPSHOT_H_
