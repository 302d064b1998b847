// A request router: tables and items on one side, partitions and nodes on the other.
//
//   Router router({.client = ClientId{random_64_bits}, .catalogue_nodes = config.catalogue_nodes},
//   &rpc, executor,
//                 clock);
//   router.Put("users", item, {}, [](absl::Status status) { ... });
//   router.Get("users", {.partition = Value::String("u-17")}, Consistency::kStrong,
//              [](absl::StatusOr<std::optional<Item>> item) { ... });
//
// It keeps the catalogue and the last known leader of each partition in memory, and finds out again
// when a node says that it is wrong. A write is sent again, with the same client and sequence,
// until it is answered or `timeout` passes, so it takes effect at most once.
//
// Status of a write:
//   OK                  durable on a quorum, and visible to strong reads from now on
//   kAborted            the condition did not hold; nothing changed
//   kInvalidArgument    the item, key or condition is past a limit, which the message names;
//   nothing was sent kNotFound           no such table kResourceExhausted  too much is in flight,
//   here or there; not applied kDeadlineExceeded   not known whether it was applied: `timeout`
//   passed kCancelled          the router was destroyed; not known whether it was applied
// Status of a read: OK, kInvalidArgument, kNotFound (table), kResourceExhausted, kDeadlineExceeded,
// kCancelled, kDataLoss (no replica that answered has an undamaged copy). An absent item is an
// empty optional.
//
// Threads: everything on `executor`; callbacks run there, exactly once, never inline.
#ifndef DYNLIB_CLUSTER_ROUTER_H_
#define DYNLIB_CLUSTER_ROUTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

enum class Consistency { kStrong, kEventual };

struct RouterOptions {
  ClientId client{};  // unique to this router object, for ever: 64 random bits, say
  std::vector<NodeId> catalogue_nodes;  // at least one
  NodeId near{};  // preferred for eventual reads when it has a replica; 0: any
  Duration timeout = std::chrono::seconds(10);  // of a request, retries included; 1 ms to 10 min
  Duration attempt_timeout = std::chrono::seconds(1);  // of one rpc
  Duration retry_delay =
      std::chrono::milliseconds(10);  // doubles with each attempt up to retry_delay_max
  Duration retry_delay_max = std::chrono::milliseconds(200);
  size_t max_in_flight = 1000;  // requests; 1 to 4,000
  size_t max_batch = 100;       // items of a batch read or write
  uint64_t seed = 1;            // for jitter and for the choice of replicas
};
absl::Status Validate(const RouterOptions& options);

struct Query {
  std::string table;
  Value partition;
  SortCondition sort;
  bool reverse = false;
  size_t limit = 0;                 // items; 0: up to 1 MiB of them
  std::optional<PrimaryKey> after;  // exclusive start: `next` of the last page
  Consistency consistency = Consistency::kStrong;
};
struct QueryPage {
  std::vector<Item> items;
  std::optional<PrimaryKey> next;  // empty when the query is exhausted
};

struct BatchWriteItem {
  std::string table;
  std::optional<Item> put;          // either this
  std::optional<PrimaryKey> erase;  // or this
};
struct BatchGetItem {
  std::string table;
  PrimaryKey key;
};

class Router {
 public:
  using WriteCallback = absl::AnyInvocable<void(absl::Status)>;
  using GetCallback = absl::AnyInvocable<void(absl::StatusOr<std::optional<Item>>)>;
  using QueryCallback = absl::AnyInvocable<void(absl::StatusOr<QueryPage>)>;
  using BatchWriteCallback = absl::AnyInvocable<void(std::vector<absl::Status>)>;
  using BatchGetCallback =
      absl::AnyInvocable<void(std::vector<absl::StatusOr<std::optional<Item>>>)>;

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
  // Each item by itself: one status an item, in order. Not a transaction.
  void BatchWrite(std::vector<BatchWriteItem> items, BatchWriteCallback done);
  void BatchGet(std::vector<BatchGetItem> items, Consistency consistency, BatchGetCallback done);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_H_
