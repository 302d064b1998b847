// What carries a router's operations to the nodes: tables and routes in memory, the sessions, and
// each request's attempts.
//
// A request is resolved (its table found, waiting for metadata nodes or for a read of the catalogue
// if need be), prepared, routed (its partition looked up, once), and attempted until an answer is
// final or its time is up. What decides is in one place, OnOutcome. Part of Router, whose header
// has the rules.
//
// Threads: one executor's. Held by shared_ptr; timers and rpc callbacks hold it weakly.
#ifndef DYNLIB_CLUSTER_ROUTER_ENGINE_H_
#define DYNLIB_CLUSTER_ROUTER_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/route_traits.h"
#include "dynlib/cluster/router_admission.h"
#include "dynlib/cluster/router_operation.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/router_route.h"
#include "dynlib/cluster/router_routes.h"
#include "dynlib/cluster/router_sessions.h"
#include "dynlib/cluster/router_tables.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class RouterEngine : public std::enable_shared_from_this<RouterEngine> {
 public:
  RouterEngine(RouterOptions options, Rpc* rpc, Executor* executor, const Clock* clock,
               MetricsSink* metrics);

  const RouterOptions& options() const { return options_; }
  bool closed() const { return closed_; }

  void Start(std::unique_ptr<RouterOperation> operation);
  void Close();
  std::optional<partition_map::PartitionRecord> FindRoute(const std::string& table,
                                                          const std::string& storage_key);
  void ForgetRoutes();
  void Post(Executor::Task task) { executor_->Post(std::move(task)); }

 private:
  using RequestId = uint64_t;
  using TablePtr = std::shared_ptr<const TableInfo>;
  using RecordPtr = RouterRoutes::RecordPtr;
  using Record = partition_map::PartitionRecord;

  // A partition as this router sees it.
  struct Partition {
    RouterRoute route;
    RouterSessions sessions;
    // The newest record whose leader was taken over.
    std::pair<uint64_t, uint64_t> leader_version;  // epoch, ballot
    Instant used;
  };

  struct Request {
    RequestId id;
    std::unique_ptr<RouterOperation> operation;
    Instant deadline;
    bool internal = false;         // the catalogue's own read: outside the bound
    uint64_t fresh_catalogue = 0;  // a catalogue read of this number or later began after this

    TablePtr table;    // as of the last attempt; null until it is prepared
    RouteKey key;      // with it
    RecordPtr record;  // where the last attempt went, or the next one is to go
    Instant routed;    // when it was looked up
    // It is not known whether an attempt did something.
    bool uncertain = false;
    // What admission control let in, and what the replies said that it cost.
    std::optional<admission::RequestUnits> admitted;
    std::optional<uint64_t> consumed_milliunits;

    PartitionId partition{};
    RouterSessions::Ticket ticket;
    WallTime issued;

    // At most one of these is set: an attempt is under way, or its time will come.
    std::optional<Rpc::CallId> call;
    Executor::TimerId timer = Executor::kNoTimer;

    NodeId node{};  // of the attempt
    int attempts = 0;
    int failures = 0;
    int hints = 0;                 // followed in a row
    std::vector<NodeId> replicas;  // for eventual reads, in the order to try them
    std::set<NodeId> damaged;
    std::string last_failure = "nothing was sent";
  };

  // Resolve finds the table, Route the partition, Attempt sends, OnReply decides.
  void Resolve(Request& request);
  void OnTable(Request& request, TablePtr table);
  void OnNoTable(Request& request, absl::Status why);
  void Prepare(Request& request, TablePtr table);
  absl::Status Admit(Request& request);
  void Attempt(RequestId id);
  bool NeedsRoute(const Request& request) const;
  void Route(Request& request);
  void OnRoute(Request& request, RouterRoutes::Result result);
  void Send(Request& request);
  NodeId PickNode(Request& request, Partition& partition);
  NodeId PickReplica(Request& request, const Partition& partition);
  void OnReply(RequestId id, int attempt, absl::StatusOr<std::string> result);
  void OnNoReply(Request& request, const absl::Status& why);
  void OnOutcome(Request& request, const RouterOperation::Reply& reply);
  void OnDamage(Request& request, const absl::Status& outcome);
  void OnExhausted(Request& request, const RouterOperation::Reply& reply);
  // After a while, which is `delay_min` at the least.
  void Retry(Request& request, Duration delay_min = Duration(0));
  void AttemptAt(Request& request, Instant when);
  void Expire(Request& request);
  void Finish(Request& request, absl::Status status);
  Request* Find(RequestId id);

  // Where things are.
  bool asks_metadata() const { return tables_asked_ != nullptr; }
  TablePtr FindTable(const std::string& name) const;
  RecordPtr Current(const Request& request);
  bool Learn(Request& request, const std::string& encoded);
  void Doubt(Request& request);
  Partition& Known(const Record& record, Instant now);
  void SweepPartitions(Instant now);

  void ExpireAtDeadline(Request& request);
  void WaitForTable(Request& request);
  void WaitForCatalogue(Request& request);
  void RefreshCatalogue();
  void ReadCatalogue();
  void ReadCataloguePage(std::string first);
  void OnCataloguePage(absl::StatusOr<CataloguePage> page);
  void OnCatalogue(absl::Status status);
  void StartRequest(std::unique_ptr<RouterOperation> operation, bool internal);

  const RouterOptions options_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  Random random_;
  bool closed_ = false;

  std::map<RequestId, Request> requests_;
  RequestId last_request_ = 0;
  size_t in_flight_ = 0;
  std::map<PartitionId, Partition> partitions_;
  Instant next_sweep_;
  // As many sessions as were begun with any partition that is gone from partitions_.
  uint64_t sessions_gone_ = 0;

  RouterAdmission admission_;
  RouterRoutes routes_;
  const std::shared_ptr<RouterTables> tables_asked_;  // of metadata nodes, if there are any

  const TablePtr catalogue_table_;
  // What follows is used without metadata nodes. A table whose entry is damaged has the error.
  std::map<std::string, absl::StatusOr<TablePtr>, std::less<>> tables_;
  std::map<std::string, absl::StatusOr<TablePtr>, std::less<>> tables_read_;  // so far
  uint64_t catalogue_ = 0;  // number of the read that tables_ is from; 0: none
  uint64_t reads_begun_ = 0;
  bool reading_ = false;  // or about to
  Instant next_read_;
  Executor::TimerId read_timer_ = Executor::kNoTimer;
  std::set<RequestId> waiting_;  // for the catalogue
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_ENGINE_H_
