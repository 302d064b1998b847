#include "dynlib/cluster/gac_service.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr Duration kExpireInterval = std::chrono::seconds(1);

}  // namespace

std::optional<admission::LimitRate> LimitOf(const TableThroughput& table,
                                            admission::Operation operation) {
  const Throughput& throughput = table.throughput;
  if (throughput.on_demand) return std::nullopt;
  const uint64_t units =
      operation == admission::Operation::kRead ? throughput.read_units : throughput.write_units;
  const double halves = 2 * static_cast<double>(units);
  return admission::LimitRate{
      .version = table.version,
      .units_per_second = std::clamp(halves, 1.0, admission::BucketRate::kUnitsPerSecondMax)};
}

absl::StatusOr<std::shared_ptr<GacService>> GacService::Create(
    admission::GacServer::Options options, ThroughputOf throughput_of, Executor* executor,
    const Clock* clock, MetricsSink* metrics) {
  if (options.generation == 0) options.generation = static_cast<uint64_t>(clock->WallNow().nanos());
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<admission::GacServer> server,
                          admission::GacServer::Create(options));
  return std::shared_ptr<GacService>(
      new GacService(std::move(server), std::move(throughput_of), executor, clock, metrics));
}

GacService::GacService(std::unique_ptr<admission::GacServer> server, ThroughputOf throughput_of,
                       Executor* executor, const Clock* clock, MetricsSink* metrics)
    : server_(std::move(server)),
      throughput_of_(std::move(throughput_of)),
      executor_(executor),
      clock_(clock),
      metrics_(metrics) {}

GacService::~GacService() { executor_->Cancel(timer_); }

void GacService::Register(Rpc* rpc) {
  rpc->Handle(kAdmissionReport,
              [weak = weak_from_this()](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
                if (auto service = weak.lock()) service->Report(bytes, std::move(reply));
              });
  Expire();
}

void GacService::Report(const std::string& bytes, Rpc::Reply reply) {
  metrics_->Count("gac.reports", 1);
  absl::StatusOr<std::string> grant = Answer(bytes);
  wire::AdmissionReportReply message;
  message.mutable_outcome()->set_code(static_cast<int>(grant.status().code()));
  if (grant.ok()) {
    message.set_grant(*std::move(grant));
  } else {
    metrics_->Count("gac.refused", 1);
    message.mutable_outcome()->set_message(std::string(ToStd(grant.status().message())));
  }
  reply(message.SerializeAsString());
}

absl::StatusOr<std::string> GacService::Answer(const std::string& bytes) {
  wire::AdmissionReportRequest request;
  if (!request.ParseFromString(bytes))
    return absl::InvalidArgumentError("the request does not parse");
  DYNLIB_ASSIGN_OR_RETURN(admission::GacReport report,
                          admission::DecodeGacReport(request.report()));
  for (admission::GacReportEntry& entry : report.entries) BringUpToDate(entry);
  DYNLIB_ASSIGN_OR_RETURN(const admission::GacGrants grants,
                          server_->HandleReport(report, clock_->Now()));
  return admission::Encode(grants);
}

// The limit goes in with the report, and is forgotten when there are no more reports of it.
void GacService::BringUpToDate(admission::GacReportEntry& entry) {
  const TableId table{ToUint(entry.limit) >> 1};
  const auto operation = static_cast<admission::Operation>(ToUint(entry.limit) & 1);
  const std::optional<TableThroughput> known = throughput_of_(table);
  if (!known.has_value() || known->version <= entry.rate.version) return;
  // A router that still counts against the limit of a table that has none now will hear of it.
  const std::optional<admission::LimitRate> limit = LimitOf(*known, operation);
  if (limit.has_value()) entry.rate = *limit;
}

void GacService::Expire() {
  const Instant now = clock_->Now();
  server_->Expire(now);
  timer_ = executor_->RunAt(now + kExpireInterval, [weak = weak_from_this()] {
    if (auto service = weak.lock()) service->Expire();
  });
}

std::optional<admission::GacServer::LimitStatus> GacService::Status(
    TableId table, admission::Operation operation) const {
  return server_->Status(admission::LimitOf(table, operation), clock_->Now());
}

}  // namespace dynlib::cluster
