#include "dynlib/cluster/router_engine.h"

#include <algorithm>

#include "dynlib/base/strings.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

// Hints that a request follows one after the other without a pause.
constexpr int kHintsAtOnce = 3;

admission::Operation KindOf(const RouterOperation& operation) {
  return operation.method() == kWrite ? admission::Operation::kWrite : admission::Operation::kRead;
}

bool HasItems(const partition_map::PartitionRecord& record) {
  return std::any_of(record.members.begin(), record.members.end(), [](const auto& member) {
    return member.kind == partition_map::MemberKind::kStorage;
  });
}

}  // namespace

RouterEngine::RouterEngine(RouterOptions options, Rpc* rpc, Executor* executor, const Clock* clock,
                           MetricsSink* metrics)
    : options_(std::move(options)),
      rpc_(rpc),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      random_(options_.seed),
      admission_(options_.admission, options_.metadata_nodes, options_.client, options_.seed, rpc,
                 executor, clock, metrics),
      routes_(options_, rpc, executor, clock, metrics),
      tables_asked_(options_.metadata_nodes.empty()
                        ? nullptr
                        : std::make_shared<RouterTables>(options_, rpc, executor, clock, metrics)),
      catalogue_table_(
          std::make_shared<const TableInfo>(CatalogueTable(options_.catalogue_nodes))) {}

void RouterEngine::Start(std::unique_ptr<RouterOperation> operation) {
  if (in_flight_ >= options_.max_in_flight) {
    metrics_->Count("router.refused", 1);
    return Post([this_operation = std::move(operation), bound = options_.max_in_flight] {
      this_operation->Finish(absl::ResourceExhaustedError(
          Cat("router: ", bound, " requests are in flight; nothing was sent")));
    });
  }
  in_flight_++;
  metrics_->Count("router.requests", 1);
  StartRequest(std::move(operation), /*internal=*/false);
}

void RouterEngine::StartRequest(std::unique_ptr<RouterOperation> operation, bool internal) {
  const RequestId id = ++last_request_;
  Request& request = requests_[id];
  request.id = id;
  request.operation = std::move(operation);
  request.deadline = clock_->Now() + options_.timeout;
  request.internal = internal;
  request.fresh_catalogue = reads_begun_ + 1;
  Resolve(request);
}

// After this nothing of the router runs but the posted callbacks.
void RouterEngine::Close() {
  closed_ = true;
  executor_->Cancel(read_timer_);
  if (asks_metadata()) tables_asked_->Close();
  while (!requests_.empty()) {
    Finish(requests_.begin()->second, absl::CancelledError("the router was destroyed"));
  }
}

RouterEngine::Request* RouterEngine::Find(RequestId id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : &found->second;
}

void RouterEngine::Prepare(Request& request, TablePtr table) {
  request.table = std::move(table);
  absl::Status status = request.operation->Prepare(*request.table);
  if (!status.ok() || request.operation->IsDone()) return Finish(request, std::move(status));
  request.key = {request.table->id, request.operation->storage_key()};
  if (status = Admit(request); !status.ok()) return Finish(request, std::move(status));
  Attempt(request.id);
}

// Once a request, however often it is sent.
absl::Status RouterEngine::Admit(Request& request) {
  if (request.admitted.has_value()) return absl::OkStatus();
  const admission::RequestUnits units = request.operation->Estimate();
  absl::Status status = admission_.Admit(*request.table, KindOf(*request.operation), units);
  if (status.ok()) request.admitted = units;
  return status;
}

void RouterEngine::Attempt(RequestId id) {
  Request* request = Find(id);
  if (request == nullptr) return;
  request->timer = Executor::kNoTimer;
  if (clock_->Now() >= request->deadline) return Expire(*request);
  TablePtr table = FindTable(request->operation->table());
  // It was there when the request was prepared, and may have been dropped or made anew since.
  if (table == nullptr || table->id != request->table->id) {
    request->fresh_catalogue = reads_begun_ + 1;
    return Resolve(*request);
  }
  request->table = std::move(table);
  if (NeedsRoute(*request)) return Route(*request);
  Send(*request);
}

void RouterEngine::Send(Request& request) {
  const Instant now = clock_->Now();
  RecordPtr record = Current(request);
  if (request.record != nullptr &&
      (record->partition != request.record->partition || record->epoch != request.record->epoch)) {
    request.replicas.clear();
  }
  request.record = std::move(record);
  if (!HasItems(*request.record)) {
    request.last_failure = "nobody has the partition's items";
    return Retry(request);
  }
  Partition& partition = Known(*request.record, now);
  request.partition = request.record->partition;
  // Kept when the partition was split or merged meanwhile: its successors have its sessions.
  if (request.operation->method() == kWrite && !request.ticket.valid()) {
    const uint64_t sessions = partition.sessions.sessions_begun();
    request.ticket = partition.sessions.Begin(now);
    request.issued = clock_->WallNow();
    if (partition.sessions.sessions_begun() != sessions) metrics_->Count("router.sessions", 1);
  }
  WriteStamp stamp;
  if (request.ticket.valid()) {
    stamp = {request.ticket.client(), request.ticket.sequence(), request.ticket.acknowledged(),
             request.issued};
  }
  request.node = PickNode(request, partition);
  request.attempts++;
  request.call = rpc_->Call(request.node, request.operation->method(),
                            request.operation->EncodeRequest(request.partition, stamp),
                            std::min(options_.attempt_timeout, request.deadline - now),
                            [weak = weak_from_this(), id = request.id,
                             attempt = request.attempts](absl::StatusOr<std::string> result) {
                              if (auto router = weak.lock())
                                router->OnReply(id, attempt, std::move(result));
                            });
}

NodeId RouterEngine::PickNode(Request& request, Partition& partition) {
  return request.operation->strong() ? partition.route.PickLeader(clock_->Now())
                                     : PickReplica(request, partition);
}

// The near one first, the others in an order of the request's own; those that are damaged never,
// those that are silent last.
NodeId RouterEngine::PickReplica(Request& request, const Partition& partition) {
  if (request.replicas.empty()) {
    request.replicas = partition.route.members();
    std::shuffle(request.replicas.begin(), request.replicas.end(), random_);
    std::stable_partition(request.replicas.begin(), request.replicas.end(),
                          [this](NodeId node) { return node == options_.near; });
  }
  const size_t count = request.replicas.size();
  const Instant now = clock_->Now();
  NodeId last_resort = request.replicas.front();
  for (size_t i = 0; i < count; ++i) {
    const NodeId node = request.replicas[(request.failures + i) % count];
    if (request.damaged.contains(node)) continue;
    if (!partition.route.Avoided(node, now)) return node;
    last_resort = node;
  }
  return last_resort;
}

void RouterEngine::OnReply(RequestId id, int attempt, absl::StatusOr<std::string> result) {
  Request* found = Find(id);
  if (found == nullptr || found->attempts != attempt) return;
  Request& request = *found;
  request.call.reset();
  RouterRoute& route = partitions_.at(request.partition).route;
  if (!result.ok()) return OnNoReply(request, result.status());
  route.Heard(request.node);
  const std::optional<RouterOperation::Reply> reply = request.operation->DecodeReply(*result);
  if (reply.has_value()) return OnOutcome(request, *reply);
  metrics_->Count("router.malformed", 1);
  request.uncertain = true;
  request.last_failure = Cat("node ", request.node, ": its reply does not parse");
  route.Unable(request.node);
  Retry(request);
}

void RouterEngine::OnNoReply(Request& request, const absl::Status& why) {
  // Only a bound of rpc says that nothing was handled.
  if (!absl::IsResourceExhausted(why)) request.uncertain = true;
  if (absl::IsCancelled(why)) return Finish(request, why);
  request.last_failure = Cat("node ", request.node, ": ", ToStd(why.message()));
  RouterRoute& route = partitions_.at(request.partition).route;
  if (absl::IsDeadlineExceeded(why)) {
    metrics_->Count("router.timeouts", 1);
    route.Silent(request.node, clock_->Now());
  } else if (!absl::IsResourceExhausted(why)) {
    route.Unable(request.node);
  }
  Retry(request);
}

// service.h says what each code means.
void RouterEngine::OnOutcome(Request& request, const RouterOperation::Reply& reply) {
  RouterRoute& route = partitions_.at(request.partition).route;
  const NodeId node = request.node;
  const absl::Status& outcome = reply.outcome;
  request.last_failure = Cat("node ", node, ": ", ToStd(outcome.message()));
  request.consumed_milliunits = request.consumed_milliunits.value_or(0) + reply.consumed_milliunits;
  // It knows of a newer place, which is worth going to at once, a few times in a row.
  if (!outcome.ok() && Learn(request, reply.newest) && ++request.hints <= kHintsAtOnce)
    return Attempt(request.id);
  switch (outcome.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kAborted:
      if (request.operation->strong()) route.Leads(node);
      return Finish(request, outcome);
    case absl::StatusCode::kInvalidArgument:
      return Finish(request, outcome);
    case absl::StatusCode::kFailedPrecondition:
      if (route.DoesNotLead(node, reply.leader_hint, clock_->Now()) &&
          ++request.hints <= kHintsAtOnce) {
        return Attempt(request.id);
      }
      return Retry(request);
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
      Doubt(request);
      route.Unable(node);
      return Retry(request);
    case absl::StatusCode::kDataLoss:
      return OnDamage(request, outcome);
    case absl::StatusCode::kResourceExhausted:
      return OnExhausted(request, reply);
    default:
      request.uncertain = true;
      route.Unable(node);
      return Retry(request);
  }
}

void RouterEngine::OnDamage(Request& request, const absl::Status& outcome) {
  if (request.operation->method() == kWrite) {
    request.uncertain = true;
    partitions_.at(request.partition).route.Unable(request.node);
    return Retry(request);
  }
  if (request.operation->strong()) return Finish(request, outcome);
  request.damaged.insert(request.node);
  if (request.damaged.size() >= request.replicas.size()) return Finish(request, outcome);
  request.failures++;
  Attempt(request.id);
}

// Want of capacity is for the caller to know; another bound is this router's to wait out, as long
// as the caller has time. So is want of capacity when an earlier attempt may have been applied: the
// caller is promised that nothing changed, and replicas ask for capacity before they look into the
// exactly-once table.
void RouterEngine::OnExhausted(Request& request, const RouterOperation::Reply& reply) {
  const std::optional<Duration> retry_after = RetryAfter(reply.outcome);
  const bool may_be_applied = request.operation->method() == kWrite && request.uncertain;
  const bool in_time =
      reply.full && clock_->Now() + retry_after.value_or(Duration(0)) < request.deadline;
  if (retry_after.has_value() && !in_time && !may_be_applied) return Finish(request, reply.outcome);
  Retry(request, retry_after.value_or(Duration(0)));
}

void RouterEngine::Retry(Request& request, Duration delay_min) {
  metrics_->Count("router.retries", 1);
  const Duration whole =
      std::min(options_.retry_delay * (int64_t{1} << std::min(request.failures, 20)),
               options_.retry_delay_max);
  request.failures++;
  request.hints = 0;
  // Everyone that it knows of has failed it: perhaps it knows the wrong ones.
  if (request.record != nullptr && request.failures % (2 * request.record->members.size()) == 0)
    Doubt(request);
  const int64_t half = whole.count() / 2;
  const Duration delay(random_.Between(half, whole.count()));
  AttemptAt(request, clock_->Now() + std::max(delay, delay_min));
}

// At the deadline at the latest, when there is nothing left but to expire.
void RouterEngine::AttemptAt(Request& request, Instant when) {
  request.timer = executor_->RunAt(std::min(when, request.deadline),
                                   [weak = weak_from_this(), id = request.id] {
                                     if (auto router = weak.lock()) router->Attempt(id);
                                   });
}

void RouterEngine::Expire(Request& request) {
  const std::string waited = Cat("router: no answer within ", ToMicros(options_.timeout) / 1000,
                                 " ms and ", request.attempts, " attempts");
  Finish(request, absl::DeadlineExceededError(Cat(waited, "; last: ", request.last_failure)));
}

void RouterEngine::Finish(Request& request, absl::Status status) {
  executor_->Cancel(request.timer);
  if (request.call.has_value()) {
    rpc_->Cancel(*request.call);
    request.uncertain = true;
  }
  if (request.ticket.valid()) {
    // A write that was refused each time was never logged, and will not be.
    if (status.ok() || absl::IsAborted(status) || !request.uncertain) {
      RouterSessions::Answered(request.ticket);
    } else {
      RouterSessions::Abandoned(request.ticket);
    }
  }
  if (request.admitted.has_value() && request.consumed_milliunits.has_value()) {
    admission_.Settle(request.table->id, KindOf(*request.operation), *request.admitted,
                      *request.consumed_milliunits);
  }
  if (!request.internal) in_flight_--;
  waiting_.erase(request.id);
  Post([operation = std::move(request.operation), status = std::move(status)] {
    operation->Finish(status);
  });
  requests_.erase(request.id);
}

}  // namespace dynlib::cluster
