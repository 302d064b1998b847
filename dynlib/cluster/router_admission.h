// Global admission control in a router: a request to a table with provisioned throughput is let
// through, or refused on the spot, by the rate that a metadata node granted this router (USENIX ATC
// '22, "DynamoDB", section 4.2; dynlib/admission has the rules).
//
//   RouterAdmission admission(options, metadata_nodes, client, &rpc, executor, clock, metrics);
//   absl::Status status = admission.Admit(table, operation, WriteUnits(item_bytes));
//   if (!status.ok()) return done(status);               // RetryAfter(status) says when
//   ... the request's last reply came ...
//   admission.Settle(table.id, operation, WriteUnits(item_bytes), consumed_milliunits);
//
// A table that is on demand passes, and so does everything while the cluster has no metadata nodes
// or `enabled` is off: the partitions' own limits hold in any case. Limits follow the table's
// descriptor. Rates are asked for in the background, of the metadata node that serves the table; a
// node that does not answer is given up for a while, and the table moves to the next one. Until a
// grant is there, or after it ended without another, `safe_share` of the table's limit applies.
//
// A router may save up half a second of its rate and two of the largest requests, so several
// routers together exceed a table's limit by that much after a pause, and no more.
//
// Counted: "router.throttled" (refused here), "router.admission_reports",
// "router.admission_unanswered", "router.admission_full" (a table passed because tables_max were
// known).
//
// Internal to the cluster: Router holds one.
//
// Threads: everything on `executor`. Ownership: rpc, executor, clock and metrics outlive it.
#ifndef DYNLIB_CLUSTER_ROUTER_ADMISSION_H_
#define DYNLIB_CLUSTER_ROUTER_ADMISSION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/gac_client.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/router_admission_options.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class RouterAdmission {
 public:
  // `options` must be valid (DYNLIB_CHECK). `client`: the router's own, not 0.
  RouterAdmission(const RouterAdmissionOptions& options, const std::vector<NodeId>& metadata_nodes,
                  ClientId client, uint64_t seed, Rpc* rpc, Executor* executor, const Clock* clock,
                  MetricsSink* metrics = MetricsSink::None());
  ~RouterAdmission();

  // OK, or kResourceExhausted with a time to come back.
  absl::Status Admit(const TableInfo& table, admission::Operation operation,
                     admission::RequestUnits units);
  // What an admitted request really cost, as replies said: 0 when nothing was carried out.
  void Settle(TableId table, admission::Operation operation, admission::RequestUnits admitted,
              uint64_t consumed_milliunits);

  // The rate of this table, in units a second, and whether a metadata node granted it.
  struct Rate {
    bool granted = false;
    double units_per_second = 0;
    NodeId server{};
  };
  std::optional<Rate> RateOf(TableId table, admission::Operation operation) const;

 private:
  struct Known {
    uint64_t version = 0;
    Throughput throughput;
    Instant used;
  };
  // False: there is no limit for it.
  bool Learn(const TableInfo& table, Instant now);
  void Forget(Instant now);
  void Remove(TableId table);
  void Arm();
  void Poll();
  void Report(admission::GacClient::Outgoing outgoing);
  void OnReply(NodeId server, uint64_t sequence, absl::StatusOr<std::string> result);

  const RouterAdmissionOptions options_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  std::unique_ptr<admission::GacClient> client_;  // null: everything passes
  std::map<TableId, Known> tables_;
  Executor::TimerId timer_ = Executor::kNoTimer;
  Instant next_forget_;
  // What callbacks hold weakly.
  std::shared_ptr<RouterAdmission*> self_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_ADMISSION_H_
