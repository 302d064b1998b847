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
constexpr Duration kPoll = std::chrono::milliseconds(20);
// Shorter than a lease, so that a node that lost its power is noticed before another leads.
constexpr Duration kAttemptTimeout = std::chrono::milliseconds(300);

absl::Status ToStatus(const cluster::wire::Outcome& outcome) {
  return absl::Status(static_cast<absl::StatusCode>(outcome.code()), outcome.message());
}

// Why the partition is not yet as WaitUntilCaughtUp wants it; empty: it is. `target`: what it is to
// have applied.
std::string Behind(const cluster::PartitionInfo& partition, const std::vector<ReplicaState>& states,
                   uint64_t target) {
  const std::string name = Cat("partition ", partition.id, ": ");
  if (states.size() != partition.members.size())
    return Cat(name, states.size(), " of ", partition.members.size(), " replicas answer");
  bool led = false;
  for (const ReplicaState& state : states) {
    led = led || state.leads;
    if (state.failed) return Cat(name, "the replica on node ", state.node, " has failed");
    if (state.applied < target) {
      return Cat(name, "node ", state.node, " has applied ", state.applied, " of ", target);
    }
  }
  return led ? "" : Cat(name, "no leader");
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
    router_ = std::make_unique<cluster::Router>(router, rpc_.get(), &executor_, cluster->clock());
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

absl::StatusOr<std::string> Client::Call(NodeId node, Rpc::Method method, std::string request) {
  return RunAndWait<absl::StatusOr<std::string>>(executor_, [&](auto done) {
    rpc_->Call(node, method, std::move(request), kCallTimeout, std::move(done));
  });
}

Client::States Client::GetStates() {
  States states;
  for (const cluster::NodeInfo& info : cluster_->config().nodes) {
    if (!cluster_->IsUp(info.id)) continue;
    const absl::StatusOr<std::string> bytes = Call(info.id, cluster::kNodeStatus, "");
    cluster::wire::NodeStatusReply reply;
    if (!bytes.ok() || !reply.ParseFromString(*bytes)) continue;
    for (const cluster::wire::ReplicaStatus& replica : reply.replicas()) {
      states[PartitionId{replica.partition()}].push_back({.node = info.id,
                                                          .leads = replica.role() == "leader",
                                                          .holds_lease = replica.holds_lease(),
                                                          .failed = replica.failed(),
                                                          .chosen = replica.chosen(),
                                                          .applied = replica.applied()});
    }
  }
  return states;
}

absl::Status Client::WaitUntilCaughtUp(const cluster::TableInfo& table, Duration limit) {
  const Instant deadline = clock().Now() + limit;
  // What had been chosen when all were first seen.
  std::map<PartitionId, uint64_t> targets;
  std::string behind;
  do {
    States states = GetStates();
    behind.clear();
    for (const cluster::PartitionInfo& partition : table.partitions) {
      const std::vector<ReplicaState>& replicas = states[partition.id];
      if (replicas.size() == partition.members.size() && !targets.contains(partition.id)) {
        for (const ReplicaState& replica : replicas)
          targets[partition.id] = std::max(targets[partition.id], replica.chosen);
      }
      std::string why = Behind(partition, replicas, targets[partition.id]);
      if (!why.empty()) behind = std::move(why);
    }
    if (behind.empty()) return absl::OkStatus();
    std::this_thread::sleep_for(kPoll);
  } while (clock().Now() < deadline);
  return absl::DeadlineExceededError(
      Cat("the replicas have not caught up within ", ToMicros(limit) / 1000, " ms: ", behind));
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
                            Call(node, cluster::kQuery, request.SerializeAsString()));
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
