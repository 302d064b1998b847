#include "examples/mini_cluster/client.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "examples/mini_cluster/wait.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kCallTimeout = std::chrono::seconds(5);
constexpr Duration kScrubTimeout = std::chrono::minutes(5);
constexpr Duration kPoll = std::chrono::milliseconds(20);
// Shorter than a lease, so that a node that lost its power is noticed before another leads.
constexpr Duration kAttemptTimeout = std::chrono::milliseconds(300);

absl::Status ToStatus(const cluster::wire::Outcome& outcome) {
  return absl::Status(static_cast<absl::StatusCode>(outcome.code()), outcome.message());
}

// Why the partition is not yet as WaitUntilWhole wants it; empty: it is. `target`: what it is to
// have applied; set when all replicas are there for the first time.
std::string Behind(const cluster::PartitionInfo& partition, const std::vector<ReplicaState>& states,
                   std::optional<uint64_t>& target) {
  const std::string name = Cat("partition ", partition.id, ": ");
  std::vector<const ReplicaState*> members;
  bool led = false;
  for (const cluster::PartitionMember& member : partition.members) {
    if (member.log) return Cat(name, "node ", member.node, " has a log replica");
    for (const ReplicaState& state : states) {
      if (state.replica == member.replica && state.node == member.node) members.push_back(&state);
    }
  }
  if (members.size() != partition.members.size())
    return Cat(name, members.size(), " of ", partition.members.size(), " replicas answer");
  uint64_t chosen = 0;
  for (const ReplicaState* state : members) {
    led = led || state->leads;
    chosen = std::max(chosen, state->chosen);
    if (state->failed) return Cat(name, "the replica on node ", state->node, " has failed");
    if (state->copying) return Cat(name, "node ", state->node, " is copying");
    if (state->ended) return Cat(name, "it was split");
  }
  if (!led) return Cat(name, "no leader");
  if (!target.has_value()) target = chosen;
  for (const ReplicaState* state : members) {
    if (state->applied < *target)
      return Cat(name, "node ", state->node, " has applied ", state->applied, " of ", *target);
  }
  return "";
}

ReplicaState ToState(NodeId node, const cluster::wire::ReplicaStatus& replica) {
  ReplicaState state{.node = node,
                     .partition = PartitionId{replica.partition()},
                     .table = TableId{replica.table()},
                     .replica = ReplicaId{replica.replica()},
                     .epoch = replica.epoch(),
                     .members = {},
                     .first = replica.first(),
                     .end = replica.end(),
                     .leads = replica.role() == "leader",
                     .supported = replica.leads(),
                     .failed = replica.failed(),
                     .removed = replica.removed(),
                     .copying = replica.copying(),
                     .log = replica.kind() == cluster::wire::LOG,
                     .ended = replica.ended() != 0,
                     .chosen = replica.chosen(),
                     .applied = replica.applied(),
                     .read_units = static_cast<double>(replica.read_milliunits()) / 1000,
                     .write_units = static_cast<double>(replica.write_milliunits()) / 1000,
                     .throttled = replica.throttled()};
  for (const cluster::wire::Member& member : replica.members()) {
    state.members.push_back(
        {ReplicaId{member.replica()}, NodeId{member.node()}, member.kind() == cluster::wire::LOG});
  }
  return state;
}

}  // namespace

Client::Client(MiniCluster* cluster, const Options& options)
    : cluster_(cluster),
      executor_({.name = Cat("client", options.id)}),
      transport_(cluster->network()->Attach(options.id)) {
  RunThere(executor_, [&] {
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, transport_.get(), cluster::kRpcChannel, &executor_,
                                 cluster->clock());
    cluster::RouterOptions router;
    router.client = options.client;
    router.catalogue_nodes = cluster->config().catalogue_nodes;
    router.timeout = options.timeout;
    router.attempt_timeout = kAttemptTimeout;
    router.max_in_flight = options.max_in_flight;
    router.seed = options.seed;
    router.metadata_nodes = cluster->config().metadata_nodes;
    if (!options.switches.cache) router.cache_mode = cluster::CacheMode::kConventional;
    router.admission.enabled = options.switches.admission;
    router_ = std::make_unique<cluster::Router>(router, rpc_.get(), &executor_, cluster->clock(),
                                                &counters_);
    // An id of its own: the router above has the other.
    router.client = ClientId{ToUint(options.client) ^ 1};
    admin_ = std::make_unique<cluster::TableAdmin>(cluster->config(), router, rpc_.get(),
                                                   &executor_, cluster->clock());
  });
}

Client::~Client() {
  RunThere(executor_, [this] {
    admin_ = nullptr;
    router_ = nullptr;
    rpc_ = nullptr;
  });
  executor_.ShutDown();
}

absl::Status Client::CreateTable(const cluster::TableSpec& spec) {
  return RunAndWait<absl::Status>(executor_,
                                  [&](auto done) { admin_->CreateTable(spec, std::move(done)); });
}

absl::StatusOr<std::optional<cluster::Item>> Client::Get(const std::string& table,
                                                         cluster::PrimaryKey key) {
  return RunAndWait<absl::StatusOr<std::optional<cluster::Item>>>(executor_, [&](auto done) {
    router_->Get(table, std::move(key), cluster::Consistency::kStrong, std::move(done));
  });
}

absl::StatusOr<cluster::QueryPage> Client::RunQuery(cluster::Query query) {
  return RunAndWait<absl::StatusOr<cluster::QueryPage>>(
      executor_, [&](auto done) { router_->RunQuery(std::move(query), std::move(done)); });
}

absl::StatusOr<std::string> Client::Call(NodeId node, Rpc::Method method, std::string request,
                                         Duration timeout) {
  return RunAndWait<absl::StatusOr<std::string>>(executor_, [&](auto done) {
    rpc_->Call(node, method, std::move(request), timeout, std::move(done));
  });
}

absl::StatusOr<cluster::TableInfo> Client::ReadTable(const std::string& table) {
  DYNLIB_ASSIGN_OR_RETURN(std::optional<cluster::Item> item,
                          Get(std::string(cluster::kCatalogueName),
                              {.partition = cluster::Value::String(table), .sort = {}}));
  if (!item.has_value()) return absl::NotFoundError(Cat("the catalogue has no table ", table));
  return cluster::DecodeTableItem(*item);
}

std::vector<ReplicaState> Client::GetReplicas() {
  std::vector<ReplicaState> states;
  for (const cluster::NodeInfo& info : cluster_->config().nodes) {
    if (!cluster_->IsUp(info.id)) continue;
    const absl::StatusOr<std::string> bytes = Call(info.id, cluster::kNodeStatus, "", kCallTimeout);
    cluster::wire::NodeStatusReply reply;
    if (!bytes.ok() || !reply.ParseFromString(*bytes)) continue;
    for (const cluster::wire::ReplicaStatus& replica : reply.replicas())
      states.push_back(ToState(info.id, replica));
  }
  return states;
}

Client::States Client::GetStates() {
  States states;
  for (ReplicaState& state : GetReplicas()) states[state.partition].push_back(std::move(state));
  return states;
}

absl::StatusOr<cluster::TableInfo> Client::WaitUntilWhole(const std::string& name, Duration limit) {
  const Instant deadline = clock().Now() + limit;
  std::map<PartitionId, std::optional<uint64_t>> targets;
  std::string behind;
  do {
    DYNLIB_ASSIGN_OR_RETURN(cluster::TableInfo table, ReadTable(name));
    const States states = GetStates();
    behind.clear();
    for (const cluster::PartitionInfo& partition : table.partitions) {
      const auto found = states.find(partition.id);
      std::string why =
          Behind(partition, found == states.end() ? std::vector<ReplicaState>() : found->second,
                 targets[partition.id]);
      if (!why.empty()) behind = std::move(why);
    }
    if (behind.empty()) return table;
    std::this_thread::sleep_for(kPoll);
  } while (clock().Now() < deadline);
  return absl::DeadlineExceededError(
      Cat("table ", name, " is not whole after ", ToMicros(limit) / 1000, " ms: ", behind));
}

absl::Status Client::WaitUntilCaughtUp(const cluster::TableInfo& table, Duration limit) {
  const Instant deadline = clock().Now() + limit;
  std::map<PartitionId, std::optional<uint64_t>> targets;
  std::string behind;
  do {
    States states = GetStates();
    behind.clear();
    for (const cluster::PartitionInfo& partition : table.partitions) {
      std::string why = Behind(partition, states[partition.id], targets[partition.id]);
      if (!why.empty()) behind = std::move(why);
    }
    if (behind.empty()) return absl::OkStatus();
    std::this_thread::sleep_for(kPoll);
  } while (clock().Now() < deadline);
  return absl::DeadlineExceededError(
      Cat("the replicas have not caught up within ", ToMicros(limit) / 1000, " ms: ", behind));
}

absl::StatusOr<Client::MetadataState> Client::GetMetadataState() {
  MetadataState state{.look_ups = 0, .partitions_min = UINT64_MAX, .tables_min = UINT64_MAX};
  for (NodeId node : cluster_->config().metadata_nodes) {
    DYNLIB_ASSIGN_OR_RETURN(std::string bytes,
                            Call(node, cluster::kMetadataStatus, "", kCallTimeout));
    cluster::wire::MetadataStatusReply reply;
    if (!reply.ParseFromString(bytes)) return absl::InternalError("a reply does not parse");
    state.look_ups += reply.look_ups();
    state.partitions_min = std::min(state.partitions_min, reply.partitions());
    state.tables_min = std::min(state.tables_min, reply.tables());
  }
  return state;
}

absl::StatusOr<ScrubReport> Client::ScrubNow(PartitionId partition) {
  cluster::wire::ScrubNowRequest request;
  request.set_partition(ToUint(partition));
  const Instant deadline = clock().Now() + kScrubTimeout;
  cluster::wire::ScrubNowReply reply;
  // The scrubber acts where the catalogue is led, which may change.
  while (true) {
    absl::Status refused = absl::UnavailableError("no node leads the catalogue");
    const States states = GetStates();
    const auto catalogue = states.find(cluster::kCataloguePartition);
    for (const ReplicaState& state :
         catalogue == states.end() ? std::vector<ReplicaState>() : catalogue->second) {
      if (!state.supported) continue;
      absl::StatusOr<std::string> bytes =
          Call(state.node, cluster::kScrubNow, request.SerializeAsString(), kScrubTimeout);
      refused = bytes.status();
      if (!bytes.ok()) continue;
      if (!reply.ParseFromString(*bytes)) return absl::InternalError("a reply does not parse");
      refused = ToStatus(reply.outcome());
    }
    if (refused.ok()) break;
    if (clock().Now() > deadline) return refused;
    std::this_thread::sleep_for(kPoll);
  }
  ScrubReport report;
  for (const auto& one : reply.reports()) {
    if (const absl::Status status = ToStatus(one.outcome()); !status.ok()) {
      report.failures.push_back(Cat("partition ", one.partition(), ": ", ToStd(status.message())));
      continue;
    }
    report.partitions++;
    report.items += one.items();
    report.bytes += one.bytes();
    report.differences += one.differences();
    report.repaired += one.repaired();
    report.unrepaired += one.unrepaired();
  }
  return report;
}

absl::Status Client::ScanReplica(
    const cluster::PartitionInfo& partition, NodeId node,
    absl::FunctionRef<void(const std::string& key, const std::string& item)> visit) {
  cluster::wire::QueryRequest request;
  request.set_partition(ToUint(partition.id));
  request.set_first(partition.first);
  request.set_end(partition.end);
  while (true) {
    DYNLIB_ASSIGN_OR_RETURN(std::string bytes,
                            Call(node, cluster::kQuery, request.SerializeAsString(), kCallTimeout));
    cluster::wire::QueryReply reply;
    if (!reply.ParseFromString(bytes)) return absl::InternalError("a reply does not parse");
    DYNLIB_RETURN_IF_ERROR(ToStatus(reply.outcome()));
    for (const auto& row : reply.rows()) visit(row.key(), row.item());
    if (!reply.more()) return absl::OkStatus();
    if (reply.rows().empty()) return absl::InternalError("a page of a query has no row");
    request.set_first(reply.rows().rbegin()->key() + '\0');
  }
}

}  // namespace dynlib::mini_cluster
