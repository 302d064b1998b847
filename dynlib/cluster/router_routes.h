// What a router holds of where partitions are: records by table and key, from metadata nodes and
// from storage nodes' hints.
//
// With metadata nodes and kConstantWork each Get makes the same look-ups, hit or miss (see
// cache/constant_work_cache.h); with kConventional only a miss makes one. Without metadata nodes it
// holds hints alone, beside the catalogue.
//
// Part of Router. Counted: "router.look_ups" (requests to metadata nodes), "cache.*" with
// kConstantWork.
//
// Threads: one executor's. Ownership: what is given by pointer outlives it.
#ifndef DYNLIB_CLUSTER_ROUTER_ROUTES_H_
#define DYNLIB_CLUSTER_ROUTER_ROUTES_H_

#include <cstddef>
#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/constant_work_cache.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/range_index.h"
#include "dynlib/cluster/route_traits.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class RouterRoutes {
 public:
  using RecordPtr = std::shared_ptr<const partition_map::PartitionRecord>;
  using Result = absl::StatusOr<RecordPtr>;
  using Callback = absl::AnyInvocable<void(Result)>;

  RouterRoutes(const RouterOptions& options, Rpc* rpc, Executor* executor, const Clock* clock,
               MetricsSink* metrics);

  // Once a request; only with metadata nodes. A hit is returned; so may be an error. After nullopt
  // `done` is called, later, with a record, kNotFound or why there was no answer: kCancelled after
  // Forget or the end of this object.
  std::optional<Result> Get(const RouteKey& key, Instant deadline, Callback done);
  // What is held now, or nullptr. Makes no request.
  RecordPtr Held(const RouteKey& key);
  // From a storage node. True if it changed what is held.
  bool Learn(partition_map::PartitionRecord record);
  // What is held for the key has proved wrong, and nobody said what is right. With kConstantWork
  // the look-ups that every Get makes put it right; otherwise it is forgotten.
  void Doubt(const RouteKey& key);
  // Everything. Gets that wait end with kCancelled.
  void Forget();

 private:
  using Index = cache::RangeIndex<RouteTraits>;
  using Cache = cache::ConstantWorkCache<Index>;
  using Record = partition_map::PartitionRecord;

  void LookUp(size_t server, const RouteKey& key, Duration timeout,
              absl::AnyInvocable<void(absl::StatusOr<Record>)> done);
  void GetMissing(const RouteKey& key, Instant deadline, Callback done);

  const RouterOptions options_;
  const cache::CacheOptions cache_options_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  std::unique_ptr<Cache> cache_;  // kConstantWork
  std::shared_ptr<Index> index_;  // otherwise; waiting look-ups hold it weakly
  size_t turn_;                   // of the metadata nodes, in kConventional
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_ROUTES_H_
