#include "dynlib/cluster/router_engine.h"

#include <algorithm>

#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

// Hints that a request follows one after the other without a pause.
constexpr int kHintsAtOnce = 3;

}  // namespace

RouterEngine::RouterEngine(RouterOptions options, Rpc* rpc, Executor* executor, const Clock* clock,
                           MetricsSink* metrics)
    : options_(std::move(options)),
      rpc_(rpc),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      random_(options_.seed),
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
  while (!requests_.empty()) {
    Finish(requests_.begin()->second, absl::CancelledError("the router was destroyed"));
  }
}

RouterEngine::TablePtr RouterEngine::FindTable(const std::string& name) const {
  if (name == kCatalogueName) return catalogue_table_;
  const auto found = tables_.find(name);
  return found != tables_.end() && found->second.ok() ? *found->second : nullptr;
}

void RouterEngine::Resolve(Request& request) {
  const std::string& name = request.operation->table();
  if (TablePtr table = FindTable(name); table != nullptr) return Prepare(request, *table);
  if (catalogue_ < request.fresh_catalogue) return WaitForCatalogue(request);
  if (const auto damaged = tables_.find(name); damaged != tables_.end())
    return Finish(request, damaged->second.status());
  Finish(request, absl::NotFoundError(Cat("no table is called '", Escape(name), "'")));
}

void RouterEngine::Prepare(Request& request, const TableInfo& table) {
  absl::Status status = request.operation->Prepare(table);
  if (!status.ok() || request.operation->IsDone()) return Finish(request, std::move(status));
  Attempt(request.id);
}

RouterEngine::Partition& RouterEngine::Known(const PartitionInfo& info) {
  auto [it, is_new] = partitions_.try_emplace(
      info.id, Partition{RouterRoute(), RouterSessions(options_.client, info.id)});
  std::vector<NodeId> nodes;
  for (const PartitionMember& member : info.members) nodes.push_back(member.node);
  if (it->second.route.members() != nodes) it->second.route.SetMembers(std::move(nodes));
  return it->second;
}

void RouterEngine::Attempt(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  Request& request = found->second;
  request.timer = Executor::kNoTimer;
  const Instant now = clock_->Now();
  if (now >= request.deadline) return Expire(request);
  const TablePtr table = FindTable(request.operation->table());
  // It was there when the request was prepared, and may have been dropped since.
  if (table == nullptr) return Retry(request);
  const PartitionInfo& info = table->PartitionOf(request.operation->storage_key());
  Partition& partition = Known(info);
  request.partition = info.id;
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
                            request.operation->EncodeRequest(info.id, stamp),
                            std::min(options_.attempt_timeout, request.deadline - now),
                            [weak = weak_from_this(), id,
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
  const auto found = requests_.find(id);
  if (found == requests_.end() || found->second.attempts != attempt) return;
  Request& request = found->second;
  request.call.reset();
  RouterRoute& route = partitions_.at(request.partition).route;
  if (!result.ok()) return OnNoReply(request, result.status());
  route.Heard(request.node);
  const std::optional<RouterOperation::Reply> reply = request.operation->DecodeReply(*result);
  if (reply.has_value()) return OnOutcome(request, reply->outcome, reply->leader_hint);
  metrics_->Count("router.malformed", 1);
  request.last_failure = Cat("node ", request.node, ": its reply does not parse");
  route.Unable(request.node);
  Retry(request);
}

void RouterEngine::OnNoReply(Request& request, const absl::Status& why) {
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
void RouterEngine::OnOutcome(Request& request, const absl::Status& outcome, NodeId hint) {
  RouterRoute& route = partitions_.at(request.partition).route;
  const NodeId node = request.node;
  request.last_failure = Cat("node ", node, ": ", ToStd(outcome.message()));
  switch (outcome.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kAborted:
      if (request.operation->strong()) route.Leads(node);
      return Finish(request, outcome);
    case absl::StatusCode::kInvalidArgument:
      return Finish(request, outcome);
    case absl::StatusCode::kFailedPrecondition:
      if (route.DoesNotLead(node, hint, clock_->Now()) && ++request.hints <= kHintsAtOnce)
        return Attempt(request.id);
      return Retry(request);
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
      RefreshCatalogue();
      route.Unable(node);
      return Retry(request);
    case absl::StatusCode::kDataLoss:
      return OnDamage(request, outcome);
    case absl::StatusCode::kResourceExhausted:
      return Retry(request);  // the right node, later
    default:
      route.Unable(node);
      return Retry(request);
  }
}

void RouterEngine::OnDamage(Request& request, const absl::Status& outcome) {
  if (request.operation->method() == kWrite) {
    partitions_.at(request.partition).route.Unable(request.node);
    return Retry(request);
  }
  if (request.operation->strong()) return Finish(request, outcome);
  request.damaged.insert(request.node);
  if (request.damaged.size() >= request.replicas.size()) return Finish(request, outcome);
  request.failures++;
  Attempt(request.id);
}

void RouterEngine::Retry(Request& request) {
  metrics_->Count("router.retries", 1);
  const Duration whole =
      std::min(options_.retry_delay * (int64_t{1} << std::min(request.failures, 20)),
               options_.retry_delay_max);
  request.failures++;
  request.hints = 0;
  const int64_t half = whole.count() / 2;
  AttemptAt(request, clock_->Now() + Duration(random_.Between(half, whole.count())));
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
  if (request.call.has_value()) rpc_->Cancel(*request.call);
  if (request.ticket.valid()) {
    if (status.ok() || absl::IsAborted(status)) {
      RouterSessions::Answered(request.ticket);
    } else {
      RouterSessions::Abandoned(request.ticket);
    }
  }
  if (!request.internal) in_flight_--;
  waiting_.erase(request.id);
  Post([operation = std::move(request.operation), status = std::move(status)] {
    operation->Finish(status);
  });
  requests_.erase(request.id);
}

void RouterEngine::WaitForCatalogue(Request& request) {
  waiting_.insert(request.id);
  request.last_failure = "the catalogue could not be read; nothing was sent";
  request.timer = executor_->RunAt(request.deadline, [weak = weak_from_this(), id = request.id] {
    auto router = weak.lock();
    if (router == nullptr) return;
    const auto found = router->requests_.find(id);
    if (found != router->requests_.end()) router->Expire(found->second);
  });
  RefreshCatalogue();
}

// Whatever the reasons, one read each catalogue_interval.
void RouterEngine::RefreshCatalogue() {
  if (reading_) return;
  reading_ = true;
  read_timer_ = executor_->RunAt(std::max(next_read_, clock_->Now()), [weak = weak_from_this()] {
    if (auto router = weak.lock()) router->ReadCatalogue();
  });
}

void RouterEngine::ReadCatalogue() {
  if (closed_) return;
  metrics_->Count("router.catalogue_reads", 1);
  next_read_ = clock_->Now() + options_.catalogue_interval;
  reads_begun_++;
  tables_read_.clear();
  ReadCataloguePage("");
}

void RouterEngine::ReadCataloguePage(std::string first) {
  StartRequest(MakeCatalogueRead(std::move(first),
                                 [weak = weak_from_this()](absl::StatusOr<CataloguePage> page) {
                                   auto router = weak.lock();
                                   if (router != nullptr && !router->closed_)
                                     router->OnCataloguePage(std::move(page));
                                 }),
               /*internal=*/true);
}

void RouterEngine::OnCataloguePage(absl::StatusOr<CataloguePage> page) {
  if (!page.ok()) return OnCatalogue(page.status());
  for (const Item& item : page->items) {
    absl::StatusOr<TableInfo> table = DecodeTableItem(item);
    const auto name = item.find(kCatalogueKey);
    if (name == item.end() || !name->second.is(ValueType::kString)) continue;
    if (IsPlanName(name->second.string()) || (table.ok() && table->deleting)) continue;
    absl::StatusOr<TablePtr> entry =
        table.ok() ? absl::StatusOr<TablePtr>(std::make_shared<const TableInfo>(*std::move(table)))
                   : table.status();
    tables_read_.insert_or_assign(name->second.string(), std::move(entry));
  }
  if (!page->next.empty()) return ReadCataloguePage(std::move(page->next));
  OnCatalogue(absl::OkStatus());
}

void RouterEngine::OnCatalogue(absl::Status status) {
  reading_ = false;
  if (status.ok()) {
    catalogue_ = reads_begun_;
    tables_ = std::move(tables_read_);
  }
  tables_read_.clear();
  for (RequestId id : std::exchange(waiting_, {})) {
    Request& request = requests_.at(id);
    executor_->Cancel(std::exchange(request.timer, Executor::kNoTimer));
    if (!status.ok()) {
      request.last_failure = Cat("reading the catalogue: ", ToStd(status.message()));
      if (clock_->Now() >= request.deadline) {
        Expire(request);
        continue;
      }
    }
    Resolve(request);
  }
}

}  // namespace dynlib::cluster
