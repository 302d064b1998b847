// The constant-work cache as the benchmarks run it.
#ifndef DYNLIB_BENCHMARKS_CACHE_DYNLIB_H_
#define DYNLIB_BENCHMARKS_CACHE_DYNLIB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmarks/cache_peers.h"

namespace dynlib::bench {

// Its executor is stepped by the benchmark, and its directory answers at once.
class DynlibRoutes : public RouteMap {
 public:
  // Works off the refresh intents that FindAll left, on the calling thread, while nobody else
  // calls. False if one was shed: a thread may leave 4,096 in between.
  virtual bool Refresh() = 0;
};

// FlatIndex with all of `routes` held.
std::unique_ptr<DynlibRoutes> MakeDynlibRoutes(const std::vector<CachedRoute>& routes);

// Requests that arrived at the directory by Gets * fan-out, in a simulated minute.
enum class DirectoryState { kAllWarm, kAllCold, kHalfLost };
absl::StatusOr<double> DirectoryRequestsPerGet(DirectoryState state);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_CACHE_DYNLIB_H_
