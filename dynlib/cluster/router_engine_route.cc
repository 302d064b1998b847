// How a router's engine knows where things are: tables, partitions, hints.
#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/router_engine.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

// A request that gets nowhere looks its partition up again after this.
constexpr Duration kRouteAgain = std::chrono::seconds(1);
constexpr Duration kSweepInterval = std::chrono::minutes(1);
constexpr size_t kPartitionsMax = 100'000;

partition_map::PartitionRecord RecordOf(const TableInfo& table, const PartitionInfo& info) {
  partition_map::PartitionRecord record{.table = table.id,
                                        .partition = info.id,
                                        .first = info.first,
                                        .end = info.end,
                                        .generation = info.generation,
                                        .epoch = 0,
                                        .members = {},
                                        .leader = {},
                                        .leader_ballot = 0};
  for (const PartitionMember& member : info.members) {
    record.members.push_back(
        {member.replica, member.node,
         member.log ? partition_map::MemberKind::kLog : partition_map::MemberKind::kStorage});
  }
  return record;
}

std::vector<NodeId> NodesWithItems(const partition_map::PartitionRecord& record) {
  std::vector<NodeId> nodes;
  for (const partition_map::PartitionMember& member : record.members) {
    if (member.kind == partition_map::MemberKind::kStorage) nodes.push_back(member.node);
  }
  return nodes;
}

}  // namespace

void RouterEngine::ForgetRoutes() {
  routes_.Forget();
  if (asks_metadata()) tables_asked_->Forget();
  tables_.clear();
  catalogue_ = 0;
  // The sessions stay: their sequences must not begin again.
  for (auto& [id, partition] : partitions_) {
    partition.route = RouterRoute();
    partition.leader_version = {};
  }
}

std::optional<partition_map::PartitionRecord> RouterEngine::FindRoute(
    const std::string& table, const std::string& storage_key) {
  const TablePtr known = FindTable(table);
  const RecordPtr held = known == nullptr ? nullptr : routes_.Held({known->id, storage_key});
  if (held == nullptr) return std::nullopt;
  return *held;
}

RouterEngine::TablePtr RouterEngine::FindTable(const std::string& name) const {
  if (name == kCatalogueName) return catalogue_table_;
  if (asks_metadata()) return tables_asked_->Find(name);
  const auto found = tables_.find(name);
  return found != tables_.end() && found->second.ok() ? *found->second : nullptr;
}

void RouterEngine::Resolve(Request& request) {
  const std::string& name = request.operation->table();
  if (TablePtr table = FindTable(name); table != nullptr) return OnTable(request, std::move(table));
  if (asks_metadata()) return WaitForTable(request);
  if (catalogue_ < request.fresh_catalogue) return WaitForCatalogue(request);
  if (const auto damaged = tables_.find(name); damaged != tables_.end())
    return OnNoTable(request, damaged->second.status());
  OnNoTable(request, absl::NotFoundError(Cat("no table is called '", Escape(name), "'")));
}

void RouterEngine::OnTable(Request& request, TablePtr table) {
  if (request.table == nullptr) return Prepare(request, std::move(table));
  if (request.table->id == table->id) return Attempt(request.id);
  // What was known was old. Nothing was done to the one that is gone, and the keys are the same.
  if (!request.uncertain && request.table->schema == table->schema) {
    request.table = std::move(table);
    return Attempt(request.id);
  }
  OnNoTable(request, absl::NotFoundError(Cat("table '", Escape(table->name),
                                             "' was deleted; another has its name")));
}

void RouterEngine::OnNoTable(Request& request, absl::Status why) {
  if (!request.uncertain) return Finish(request, std::move(why));
  request.last_failure = Cat(request.last_failure, "; then: ", ToStd(why.message()));
  Retry(request);
}

void RouterEngine::ExpireAtDeadline(Request& request) {
  request.timer = executor_->RunAt(request.deadline, [weak = weak_from_this(), id = request.id] {
    auto router = weak.lock();
    if (router == nullptr) return;
    if (Request* found = router->Find(id)) router->Expire(*found);
  });
}

void RouterEngine::WaitForTable(Request& request) {
  if (request.attempts == 0)
    request.last_failure = "no metadata node could say what the table is; nothing was sent";
  ExpireAtDeadline(request);
  tables_asked_->Ask(request.operation->table(), request.deadline,
                     [weak = weak_from_this(), id = request.id](absl::StatusOr<TablePtr> table) {
                       auto router = weak.lock();
                       Request* found = router == nullptr ? nullptr : router->Find(id);
                       if (found == nullptr) return;
                       router->executor_->Cancel(std::exchange(found->timer, Executor::kNoTimer));
                       if (table.ok()) return router->OnTable(*found, *std::move(table));
                       router->OnNoTable(*found, table.status());
                     });
}

// The catalogue's own place is known from the start; a table read in it comes with its partitions.
bool RouterEngine::NeedsRoute(const Request& request) const {
  if (!request.table->partitions.empty()) return false;
  return request.record == nullptr || clock_->Now() - request.routed >= kRouteAgain;
}

void RouterEngine::Route(Request& request) {
  request.routed = clock_->Now();
  std::optional<RouterRoutes::Result> result =
      routes_.Get(request.key, request.deadline,
                  [weak = weak_from_this(), id = request.id](RouterRoutes::Result answer) {
                    auto router = weak.lock();
                    Request* found = router == nullptr ? nullptr : router->Find(id);
                    if (found != nullptr) router->OnRoute(*found, std::move(answer));
                  });
  const bool hit = result.has_value() && result->ok();
  metrics_->Count(hit ? "router.cache_hits" : "router.cache_misses", 1);
  if (result.has_value()) return OnRoute(request, *std::move(result));
  ExpireAtDeadline(request);
}

void RouterEngine::OnRoute(Request& request, RouterRoutes::Result result) {
  executor_->Cancel(std::exchange(request.timer, Executor::kNoTimer));
  if (!result.ok() && request.record == nullptr) {
    const std::string why = Cat("looking up the partition: ", ToStd(result.status().message()));
    request.last_failure = request.attempts == 0 ? Cat(why, "; nothing was sent") : why;
    return Retry(request);
  }
  if (result.ok()) request.record = *std::move(result);
  Send(request);
}

// The newest that is known of the partition that has the request's key.
RouterEngine::RecordPtr RouterEngine::Current(const Request& request) {
  RecordPtr held = routes_.Held(request.key);
  if (request.table->partitions.empty()) return held != nullptr ? held : request.record;
  Record entered = RecordOf(*request.table, request.table->PartitionOf(request.key.key));
  if (held != nullptr && !partition_map::IsNewer(entered, *held)) return held;
  return std::make_shared<const Record>(std::move(entered));
}

// True if it says of a newer place than where the request went.
bool RouterEngine::Learn(Request& request, const std::string& encoded) {
  if (encoded.empty()) return false;
  absl::StatusOr<Record> record = partition_map::DecodePartitionRecord(encoded);
  if (!record.ok() || record->table != request.key.table || NodesWithItems(*record).empty()) {
    metrics_->Count("router.malformed", 1);
    return false;
  }
  if (routes_.Learn(*std::move(record))) metrics_->Count("router.hints_applied", 1);
  const RecordPtr current = Current(request);
  return current != nullptr && partition_map::IsNewer(*current, *request.record);
}

// Where the request went was wrong, and nobody said where to go.
void RouterEngine::Doubt(Request& request) {
  routes_.Doubt(request.key);
  if (!request.table->partitions.empty()) {
    if (request.key.table != kCatalogueTable && !asks_metadata()) RefreshCatalogue();
  } else if (options_.cache_mode == CacheMode::kConventional) {
    request.record = nullptr;
  }
}

RouterEngine::Partition& RouterEngine::Known(const Record& record, Instant now) {
  auto found = partitions_.find(record.partition);
  if (found == partitions_.end()) {
    SweepPartitions(now);
    found = partitions_
                .emplace(record.partition,
                         Partition{.route = {},
                                   .sessions = RouterSessions(options_.client, record.partition,
                                                              sessions_gone_),
                                   .leader_version = {},
                                   .used = now})
                .first;
  }
  Partition& partition = found->second;
  partition.used = now;
  std::vector<NodeId> nodes = NodesWithItems(record);
  if (partition.route.members() != nodes) partition.route.SetMembers(std::move(nodes));
  const std::pair version(record.epoch, record.leader_ballot);
  if (record.leader != NodeId{} && version > partition.leader_version) {
    partition.leader_version = version;
    partition.route.Suggest(record.leader);
  }
  return partition;
}

// A partition not used for as long as its sessions are good for is gone, by a split or a merge
// perhaps. So are, at the bound, those used least recently.
void RouterEngine::SweepPartitions(Instant now) {
  if (now < next_sweep_ && partitions_.size() < kPartitionsMax) return;
  next_sweep_ = now + kSweepInterval;
  std::set<PartitionId> needed;
  for (const auto& [id, request] : requests_) needed.insert(request.partition);
  Instant too_old = now - RouterSessions::kIdleMax;
  if (partitions_.size() >= kPartitionsMax) {
    std::vector<Instant> used;
    for (const auto& [id, partition] : partitions_) used.push_back(partition.used);
    auto quarter = used.begin() + static_cast<ptrdiff_t>(used.size() / 4);
    std::nth_element(used.begin(), quarter, used.end());
    too_old = std::max(too_old, *quarter);
  }
  std::erase_if(partitions_, [&](const auto& entry) {
    if (entry.second.used > too_old || needed.contains(entry.first)) return false;
    sessions_gone_ = std::max(sessions_gone_, entry.second.sessions.sessions_begun());
    return true;
  });
}

void RouterEngine::WaitForCatalogue(Request& request) {
  waiting_.insert(request.id);
  if (request.attempts == 0)
    request.last_failure = "the catalogue could not be read; nothing was sent";
  ExpireAtDeadline(request);
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
    if (!IsTableName(name->second.string()) || (table.ok() && table->deleting)) continue;
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
