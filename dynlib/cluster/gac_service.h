// The server of global admission control on a metadata node (dynlib/admission/gac_server.h): tells
// routers at which rate each may send requests to a table with provisioned throughput.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto service, GacService::Create(
//       {}, [&](TableId table) { return ...; }, executor, clock, metrics));
//   service->Register(&rpc);
//
// A table's limit is what the newer of two says: the router that reports, or `limit_of`, which
// knows the tables that the metadata node holds. So a node that was started lately, or has not
// heard of a change, serves all the same. Limits that nobody asks for are forgotten.
//
// Nothing is kept on disk: a server that starts learns who holds which rate for one grant's
// lifetime, and exceeds limits by at most the block's learning and transition shares meanwhile.
//
// Limits of tables are counted in half units, the least that a request costs.
//
// Counted: "gac.reports", "gac.refused" (reports that do not parse, are late or repeated).
//
// Threads: everything on `executor`.
#ifndef DYNLIB_CLUSTER_GAC_SERVICE_H_
#define DYNLIB_CLUSTER_GAC_SERVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/gac_message.h"
#include "dynlib/admission/gac_server.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

// What a table's descriptor says; the one with the higher version is newer.
struct TableThroughput {
  uint64_t version = 0;
  Throughput throughput;
};

// The limit of one operation; nothing for a table that is on demand.
std::optional<admission::LimitRate> LimitOf(const TableThroughput& table,
                                            admission::Operation operation);

class GacService : public std::enable_shared_from_this<GacService> {
 public:
  // Nothing: this node does not know the table.
  using ThroughputOf = absl::AnyInvocable<std::optional<TableThroughput>(TableId)>;

  // generation 0: taken from the clock. kInvalidArgument as GacServer::Create.
  static absl::StatusOr<std::shared_ptr<GacService>> Create(
      admission::GacServer::Options options, ThroughputOf throughput_of, Executor* executor,
      const Clock* clock, MetricsSink* metrics = MetricsSink::None());
  ~GacService();

  // Serves kAdmissionReport.
  void Register(Rpc* rpc);

  std::optional<admission::GacServer::LimitStatus> Status(TableId table,
                                                          admission::Operation operation) const;

 private:
  GacService(std::unique_ptr<admission::GacServer> server, ThroughputOf throughput_of,
             Executor* executor, const Clock* clock, MetricsSink* metrics);
  void Report(const std::string& bytes, Rpc::Reply reply);
  absl::StatusOr<std::string> Answer(const std::string& bytes);
  void BringUpToDate(admission::GacReportEntry& entry);
  void Expire();

  const std::unique_ptr<admission::GacServer> server_;
  ThroughputOf throughput_of_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  Executor::TimerId timer_ = Executor::kNoTimer;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_GAC_SERVICE_H_
