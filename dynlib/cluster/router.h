// A request router: tables and items on one side, partitions and nodes on the other.
//
//   Router router({.client = ClientId{random_64_bits}, .catalogue_nodes = config.catalogue_nodes},
//                 &rpc, executor, clock);
//   router.Put("users", item, {}, [](absl::Status status) { ... });
//   router.Get("users", {.partition = Value::String("u-17")}, Consistency::kStrong,
//              [](absl::StatusOr<std::optional<Item>> item) { ... });
//
// Where a partition is it learns from metadata nodes: each request looks its partition up, once, at
// look_up_fan_out of them, and meanwhile goes to where the last answers said; only what was never
// looked up is waited for. So metadata nodes see as many look-ups as there are requests, whatever
// the router remembers, and when they are all down it goes on with what it remembers
// (cache/constant_work_cache.h). Without metadata nodes it reads the catalogue. Either way a node
// that is asked wrongly says who has the key, and the request goes there at once. A write is sent
// again, with the same client and sequence,
// until it is answered or `timeout` passes, so it takes effect at most once (rule R10). Reads are
// sent again likewise.
//
// Status of a write
//  - OK: durable on a quorum, and visible to strong reads from now on
//  - kAborted: the condition did not hold; nothing changed
//  - kInvalidArgument: the item, key or condition is past a limit, which the message names; nothing
//    changed
//  - kNotFound: no such table; nothing changed
//  - kResourceExhausted: max_in_flight requests are under way here, and nothing was sent; or, when
//    RetryAfter (retry_after.h) says when to come back, the table or the partition has no capacity
//    left, or too much is under way in the partition for as long as `timeout`; nothing changed
//  - kDeadlineExceeded: `timeout` passed. Not known whether it was applied, or whether it will yet
//    be, unless the message says that nothing was sent. Also of a write that had no answer once and
//    found no capacity from then on
//  - kCancelled: the router was destroyed; not known whether it was applied
// Status of a read: the same but kAborted, and kDataLoss (no replica that answered has an undamaged
// copy; of a strong read: the leader has none). An absent item is an empty optional.
//
// Exactly once. Each partition has a session of this router: a ClientId drawn from `client`, and
// sequences that count up. The low-water mark that goes with a write is the highest sequence up to
// which all have their answer; a sequence whose write timed out is never counted as answered, so a
// copy of it that comes late finds its result, or is the first. When more than 2,048 sequences have
// piled up above the mark, new writes begin a session with another ClientId, so that the replica's
// bound on unacknowledged results is never met. A session not used for 15 minutes is not used
// again, well before replicas forget it.
//
// A partition that is split or merged hands its sessions on: a write that was under way is sent to
// the successor with the same client and sequence.
//
// Table "catalogue" can be read and written like others; TableAdmin writes it.
//
// Bounds: max_in_flight requests, max_batch items a batch, of which 16 are under way at a time; the
// catalogue is read again at most every catalogue_interval, by one read for all who wait for it.
//
// Counted: "router.requests", "router.retries", "router.timeouts", "router.refused",
// "router.catalogue_reads", "router.sessions", "router.malformed", "router.hints_applied"; with
// metadata nodes "router.look_ups" and "router.describes" (requests to them, for partitions and for
// tables), "router.cache_hits" and "router.cache_misses" (of partitions), "router.throttled" and
// what else router_admission.h counts.
//
// Threads: everything on `executor`, the rpc's own; callbacks run there, exactly once, never
// inline; a callback may destroy the router. Ownership: rpc, executor and clock outlive it.
#ifndef DYNLIB_CLUSTER_ROUTER_H_
#define DYNLIB_CLUSTER_ROUTER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/router_types.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class RouterEngine;

class Router {
 public:
  using WriteCallback = absl::AnyInvocable<void(absl::Status)>;
  using GetCallback = absl::AnyInvocable<void(absl::StatusOr<std::optional<Item>>)>;
  using QueryCallback = absl::AnyInvocable<void(absl::StatusOr<QueryPage>)>;
  using CatalogueCallback = absl::AnyInvocable<void(absl::StatusOr<CataloguePage>)>;
  using BatchWriteCallback = absl::AnyInvocable<void(std::vector<absl::Status>)>;
  using BatchGetCallback =
      absl::AnyInvocable<void(std::vector<absl::StatusOr<std::optional<Item>>>)>;

  // `options` must be valid (DYNLIB_CHECK).
  Router(RouterOptions options, Rpc* rpc, Executor* executor, const Clock* clock,
         MetricsSink* metrics = MetricsSink::None());
  // Requests in flight end with kCancelled.
  ~Router();

  // Replaces the whole item, if `condition` holds of the item that is there.
  void Put(std::string table, Item item, Condition condition, WriteCallback done);
  void Delete(std::string table, PrimaryKey key, Condition condition, WriteCallback done);
  void Get(std::string table, PrimaryKey key, Consistency consistency, GetCallback done);
  // One page of the items of one partition key, in the order of their sort keys.
  void RunQuery(Query query, QueryCallback done);
  // Each item by itself: one status an item, in order. Not a transaction, and no order among them:
  // of two writes of one key either may come last.
  void BatchWrite(std::vector<BatchWriteItem> items, BatchWriteCallback done);
  void BatchGet(std::vector<BatchGetItem> items, Consistency consistency, BatchGetCallback done);
  // A page of the catalogue, from the storage key `first` on (empty: all), as a strong read.
  void ReadCatalogue(std::string first, CatalogueCallback done);

  // What the router has learnt of where a storage key of a table is; a request may go by what the
  // catalogue says instead. Makes no request. Nothing if the table or the key's place is not known.
  // With metadata nodes never older than what it was before, unless the routes were forgotten, or
  // metadata nodes denied for seconds that there is such a place. Without them a route that proved
  // wrong is forgotten.
  std::optional<partition_map::PartitionRecord> FindRoute(const std::string& table,
                                                          const std::string& storage_key) const;
  // Forgets all tables, partitions and leaders, as if it had just been made. Requests under way go
  // on.
  void ForgetRoutes();

 private:
  std::shared_ptr<RouterEngine> engine_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_H_
