#include "dynlib/cluster/router_admission.h"

#include <algorithm>
#include <utility>

#include "dynlib/admission/gac_message.h"
#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/gac_service.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

using admission::GacDecision;
using admission::Operation;
using admission::RequestUnits;

constexpr uint64_t kMilliunitsOfHalf = 500;
constexpr Duration kForgetAfter = std::chrono::minutes(10);
constexpr Duration kForgetInterval = std::chrono::minutes(1);
constexpr Duration kTooLargeRetry = std::chrono::seconds(1);
constexpr Operation kOperations[] = {Operation::kRead, Operation::kWrite};

}  // namespace

RouterAdmission::RouterAdmission(const RouterAdmissionOptions& options,
                                 const std::vector<NodeId>& metadata_nodes, ClientId client,
                                 uint64_t seed, Rpc* rpc, Executor* executor, const Clock* clock,
                                 MetricsSink* metrics)
    : options_(options),
      rpc_(rpc),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      self_(std::make_shared<RouterAdmission*>(this)) {
  DYNLIB_CHECK(Validate(options).ok());
  if (!options.enabled || metadata_nodes.empty()) return;
  const admission::GacClient::Options gac{
      .client = client,
      .incarnation = static_cast<uint64_t>(clock->WallNow().nanos()),
      .seed = seed,
      .saved_seconds = options.saved_seconds,
      .request_units_max = RequestUnits::Whole(options.request_units_max).halves,
      .reply_timeout = options.reply_timeout,
      .limits_max = 2 * options.tables_max};
  absl::StatusOr<std::unique_ptr<admission::GacClient>> made =
      admission::GacClient::Create(gac, metadata_nodes);
  DYNLIB_CHECK(made.ok());  // The options were validated.
  client_ = *std::move(made);
}

RouterAdmission::~RouterAdmission() { executor_->Cancel(timer_); }

// ---- Requests ----

absl::Status RouterAdmission::Admit(const TableInfo& table, Operation operation,
                                    RequestUnits units) {
  const Instant now = clock_->Now();
  if (client_ == nullptr || !Learn(table, now)) return absl::OkStatus();
  const GacDecision decision =
      client_->TryAdmit(admission::LimitOf(table.id, operation), units.halves, now);
  // It was learnt just now, so kUnknown does not come.
  if (decision.admitted() || decision.outcome == GacDecision::Outcome::kUnknown)
    return absl::OkStatus();
  metrics_->Count("router.throttled", 1);
  const bool read = operation == Operation::kRead;
  return ThrottledError(
      Cat("table '", Escape(table.name), "' is over its throughput of ",
          read ? table.throughput.read_units : table.throughput.write_units,
          read ? " read" : " write", " units a second; nothing was sent"),
      decision.outcome == GacDecision::Outcome::kThrottled ? decision.retry_after : kTooLargeRetry);
}

void RouterAdmission::Settle(TableId table, Operation operation, RequestUnits admitted,
                             uint64_t consumed_milliunits) {
  if (!tables_.contains(table)) return;
  const admission::LimitId limit = admission::LimitOf(table, operation);
  const auto consumed = static_cast<int64_t>(consumed_milliunits / kMilliunitsOfHalf);
  const int64_t more = consumed - admitted.halves;
  if (more > 0) client_->TakeMore(limit, more, clock_->Now());
  if (more < 0) client_->GiveBack(limit, -more, clock_->Now());
}

std::optional<RouterAdmission::Rate> RouterAdmission::RateOf(TableId table,
                                                             Operation operation) const {
  if (client_ == nullptr) return std::nullopt;
  const std::optional<admission::GacClient::LimitStatus> status =
      client_->Status(admission::LimitOf(table, operation), clock_->Now());
  if (!status.has_value()) return std::nullopt;
  return Rate{status->granted, status->units_per_second / 2, status->server};
}

// ---- Limits ----

bool RouterAdmission::Learn(const TableInfo& table, Instant now) {
  const auto found = tables_.find(table.id);
  if (found != tables_.end() && table.version <= found->second.version) {
    found->second.used = now;
    return true;
  }
  if (table.throughput.on_demand) {
    if (found != tables_.end()) Remove(table.id);
    return false;
  }
  if (found == tables_.end() && tables_.size() >= options_.tables_max) {
    Forget(now);
    if (tables_.size() >= options_.tables_max) {
      metrics_->Count("router.admission_full", 1);
      return false;
    }
  }
  tables_[table.id] = {table.version, table.throughput, now};
  for (Operation operation : kOperations) {
    const std::optional<admission::LimitRate> limit =
        LimitOf(TableThroughput{table.version, table.throughput}, operation);
    const absl::Status set = client_->SetLimit(
        admission::LimitOf(table.id, operation),
        {.limit = limit, .safe_units_per_second = options_.safe_share * limit->units_per_second},
        now);
    DYNLIB_CHECK(set.ok());  // Two a table, within the bounds of rates.
  }
  Arm();
  return true;
}

void RouterAdmission::Remove(TableId table) {
  for (Operation operation : kOperations)
    client_->RemoveLimit(admission::LimitOf(table, operation));
  tables_.erase(table);
}

void RouterAdmission::Forget(Instant now) {
  next_forget_ = now + kForgetInterval;
  std::vector<TableId> unused;
  for (const auto& [table, known] : tables_) {
    if (now - known.used >= kForgetAfter) unused.push_back(table);
  }
  for (TableId table : unused) Remove(table);
}

// ---- Reports ----

void RouterAdmission::Arm() {
  if (timer_ != Executor::kNoTimer) return;
  timer_ = executor_->RunAt(clock_->Now() + options_.poll_interval,
                            [weak = std::weak_ptr<RouterAdmission*>(self_)] {
                              if (auto self = weak.lock()) (*self)->Poll();
                            });
}

void RouterAdmission::Poll() {
  timer_ = Executor::kNoTimer;
  const Instant now = clock_->Now();
  if (now >= next_forget_) Forget(now);
  for (admission::GacClient::Outgoing& outgoing : client_->Poll(now)) Report(std::move(outgoing));
  if (!tables_.empty()) Arm();
}

void RouterAdmission::Report(admission::GacClient::Outgoing outgoing) {
  metrics_->Count("router.admission_reports", 1);
  wire::AdmissionReportRequest request;
  request.set_report(admission::Encode(outgoing.report));
  rpc_->Call(outgoing.server, kAdmissionReport, request.SerializeAsString(), options_.reply_timeout,
             [weak = std::weak_ptr<RouterAdmission*>(self_), server = outgoing.server,
              sequence = outgoing.report.sequence](absl::StatusOr<std::string> result) {
               if (auto self = weak.lock()) (*self)->OnReply(server, sequence, std::move(result));
             });
}

void RouterAdmission::OnReply(NodeId server, uint64_t sequence,
                              absl::StatusOr<std::string> result) {
  const Instant now = clock_->Now();
  wire::AdmissionReportReply reply;
  if (result.ok() && reply.ParseFromString(*result) && reply.outcome().code() == 0) {
    const absl::StatusOr<admission::GacGrants> grants = admission::DecodeGacGrants(reply.grant());
    if (grants.ok()) return client_->OnGrants(server, *grants, now);
  }
  metrics_->Count("router.admission_unanswered", 1);
  client_->OnFailure(server, sequence, now);
}

}  // namespace dynlib::cluster
