// A cluster of storage nodes in the simulator, with a router and a table admin on a node of their
// own: for tests of what only several nodes together do.
#ifndef TESTS_CLUSTER_SIM_CLUSTER_H_
#define TESTS_CLUSTER_SIM_CLUSTER_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/metadata_node.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/world.h"

namespace dynlib::cluster {

// Counts, and keeps the names of events.
class CountingSink : public MetricsSink {
 public:
  void Count(std::string_view name, int64_t delta) override { counts[std::string(name)] += delta; }
  void Event(std::string_view name, std::span<const EventField> fields) override {
    std::string line(name);
    for (const EventField& field : fields)
      line += " " + std::string(field.name) + "=" + field.value;
    counts[std::string(name)] += 1;
    events.push_back(std::move(line));
  }
  std::map<std::string, int64_t> counts;
  std::vector<std::string> events;
};

class SimCluster {
 public:
  static constexpr NodeId kClient{1000};

  // `nodes` storage nodes in three zones (or as many as there are nodes), the first three of which
  // hold the catalogue. Metadata nodes are those that config() names.
  explicit SimCluster(uint64_t nodes, uint64_t seed = 1) : world_(seed) {
    for (uint64_t id = 1; id <= nodes; ++id) {
      world_.AddNode(NodeId{id});
      config_.nodes.push_back({NodeId{id},
                               {.zone = std::string(1, static_cast<char>('a' + (id - 1) % 3)),
                                .rack = "r" + std::to_string(id),
                                .power = "p" + std::to_string(id)}});
      if (id <= 3) config_.catalogue_nodes.push_back(NodeId{id});
    }
    if (nodes < 3) config_.catalogue_nodes = {NodeId{1}};
    sim::Node* client = world_.AddNode(kClient);
    client_ = client->NewExecutor("client");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, client->transport(), kRpcChannel, client_,
                                 client->clock());
    options_.new_cluster = true;
    options_.log.segment_bytes = 1 << 20;
    options_.log.max_queued_bytes = 4 << 20;
    options_.log.max_segments = 64;
    options_.replication.group.proposal_bytes_max = 64 << 10;
    options_.replication.group.unchosen_bytes_max = 1 << 20;
    options_.pages.growth_bytes_min = 64 << 10;
    options_.checkpoint_interval = std::chrono::milliseconds(500);
    options_.auto_admin.interval = std::chrono::milliseconds(200);
    options_.auto_admin.death_after = std::chrono::seconds(1);
  }
  ~SimCluster() {
    router_ = nullptr;
    admin_ = nullptr;
    rpc_ = nullptr;
    world_.CrashAll();
  }

  // Before Boot.
  StorageNodeOptions& options() { return options_; }
  ClusterConfig& config() { return config_; }

  absl::Status Boot() {
    for (const NodeInfo& node : config_.nodes) {
      if (absl::Status status = Open(node.id); !status.ok()) return status;
    }
    for (NodeId id : config_.metadata_nodes) {
      world_.AddNode(id);
      if (absl::Status status = OpenMetadata(id); !status.ok()) return status;
    }
    RouterOptions router{.client = ClientId{77},
                         .catalogue_nodes = config_.catalogue_nodes,
                         .metadata_nodes = config_.metadata_nodes};
    router_ = std::make_unique<Router>(router, rpc_.get(), client_, world_.node(kClient)->clock(),
                                       &sink_);
    router.client = ClientId{78};
    admin_ = std::make_unique<TableAdmin>(config_, router, rpc_.get(), client_,
                                          world_.node(kClient)->clock());
    return absl::OkStatus();
  }

  absl::Status OpenMetadata(NodeId id) {
    sim::Node* node = world_.node(id);
    absl::StatusOr<std::unique_ptr<MetadataNode>> made =
        MetadataNode::Create({.id = id}, config_,
                             {.transport = node->transport(),
                              .clock = node->clock(),
                              .executor = node->NewExecutor("metadata"),
                              .metrics = &sink_});
    if (made.ok()) metadata_[id] = *std::move(made);
    return made.status();
  }
  void CrashMetadata(NodeId id) {
    world_.node(id)->Crash();
    metadata_.erase(id);
  }

  absl::Status Open(NodeId id) {
    Server& server = servers_[id];
    server = {};
    sim::Node* node = world_.node(id);
    server.environment = {.disk = node->disk(),
                          .transport = node->transport(),
                          .clock = node->clock(),
                          .executor = node->NewExecutor("main"),
                          .log_executor = node->NewBlockingExecutor("log"),
                          .checkpoint_executor = node->NewBlockingExecutor("checkpoint"),
                          .apply_executor = node->NewBlockingExecutor("apply"),
                          .metrics = &sink_};
    StorageNodeOptions options = options_;
    options.id = id;
    std::optional<absl::Status> result;
    server.environment.checkpoint_executor->Post([&] {
      absl::StatusOr<std::unique_ptr<StorageNode>> opened =
          StorageNode::Open(options, config_, server.environment);
      if (opened.ok()) server.node = *std::move(opened);
      result = opened.status();
    });
    world_.RunUntil([&] { return result.has_value(); }, std::chrono::seconds(30));
    if (server.node == nullptr) return result.value_or(absl::DeadlineExceededError("open"));
    result.reset();
    server.node->Start([&](absl::Status status) { result = std::move(status); });
    world_.RunUntil([&] { return result.has_value(); }, std::chrono::seconds(30));
    return result.value_or(absl::DeadlineExceededError("start"));
  }
  void PowerOff(NodeId id) {
    world_.node(id)->PowerOff(sim::UnsyncedFate::kAllLost);
    servers_[id] = {};
  }
  absl::Status Restart(NodeId id) {
    if (world_.node(id)->up()) PowerOff(id);
    world_.node(id)->Restart();
    return Open(id);
  }

  bool RunUntil(const std::function<bool()>& done, Duration most = std::chrono::seconds(60)) {
    return world_.RunUntil(done, most);
  }
  void RunFor(Duration time) { world_.RunFor(time); }

  static TableSchema Schema() {
    return {.partition_key = {"id", KeyType::kString}, .sort_key = std::nullopt};
  }
  absl::Status CreateTable(const std::string& name, size_t partitions) {
    return Await<absl::Status>([&](auto done) {
      admin_->CreateTable({.name = name, .schema = Schema(), .partitions = partitions},
                          std::move(done));
    });
  }
  void StartCreate(const std::string& name, size_t partitions,
                   std::function<void(absl::Status)> done) {
    client_->Post([=, this] {
      admin_->CreateTable({.name = name, .schema = Schema(), .partitions = partitions}, done);
    });
  }
  absl::Status DeleteTable(const std::string& name) {
    return Await<absl::Status>([&](auto done) { admin_->DeleteTable(name, std::move(done)); });
  }
  static Item MakeItem(const std::string& id, const std::string& value) {
    return {{"id", Value::String(id)}, {"value", Value::String(value)}};
  }
  absl::Status Put(const std::string& table, const std::string& id, const std::string& value) {
    return Await<absl::Status>(
        [&](auto done) { router_->Put(table, MakeItem(id, value), {}, std::move(done)); });
  }
  // "" for an absent item, and what went wrong in brackets.
  std::string Get(const std::string& table, const std::string& id,
                  Consistency consistency = Consistency::kStrong) {
    const auto item = Await<absl::StatusOr<std::optional<Item>>>([&](auto done) {
      router_->Get(table, {.partition = Value::String(id), .sort = {}}, consistency,
                   std::move(done));
    });
    if (!item.ok()) return "[" + item.status().ToString() + "]";
    return item->has_value() ? (*item)->at("value").string() : "";
  }
  // Many at once; the first failure.
  absl::Status PutMany(const std::string& table, const std::map<std::string, std::string>& items) {
    size_t open = 0;
    absl::Status first;
    for (const auto& [id, value] : items) {
      if (open >= 200) RunUntil([&] { return open < 100; });
      ++open;
      client_->Post([&, item = MakeItem(id, value)]() mutable {
        router_->Put(table, std::move(item), {}, [&](absl::Status status) {
          --open;
          if (first.ok()) first = std::move(status);
        });
      });
    }
    if (!RunUntil([&] { return open == 0; })) return absl::DeadlineExceededError("puts");
    return first;
  }

  template <typename Reply, typename Request>
  absl::StatusOr<Reply> Call(NodeId node, Rpc::Method method, const Request& request) {
    const auto bytes = Await<absl::StatusOr<std::string>>([&](auto done) {
      rpc_->Call(node, method, request.SerializeAsString(), std::chrono::seconds(5),
                 std::move(done));
    });
    if (!bytes.ok()) return bytes.status();
    Reply reply;
    if (!reply.ParseFromString(*bytes)) return absl::InternalError("malformed");
    if (reply.outcome().code() != 0) {
      return absl::Status(static_cast<absl::StatusCode>(reply.outcome().code()),
                          reply.outcome().message());
    }
    return reply;
  }

  // What every node that is up says of its replicas.
  struct Seen {
    NodeId node;
    wire::ReplicaStatus status;
  };
  std::vector<Seen> Replicas() {
    std::vector<Seen> all;
    for (const NodeInfo& node : config_.nodes) {
      if (servers_[node.id].node == nullptr) continue;
      const auto reply =
          Call<wire::NodeStatusReply>(node.id, kNodeStatus, wire::NodeStatusRequest());
      if (!reply.ok()) continue;
      for (const wire::ReplicaStatus& status : reply->replicas()) all.push_back({node.id, status});
    }
    return all;
  }
  // Leaders of the table's partitions, by first key.
  std::map<std::string, Seen> Leaders(TableId table) {
    std::map<std::string, Seen> leaders;
    for (Seen& seen : Replicas()) {
      const bool leads = seen.status.leads() && seen.status.ended() == 0;
      if (leads && seen.status.table() == ToUint(table))
        leaders[seen.status.first()] = std::move(seen);
    }
    return leaders;
  }
  // Keeps asking, in simulated time.
  bool Until(const std::function<bool()>& done, Duration most = std::chrono::seconds(60)) {
    for (Duration spent{0}; spent < most; spent += std::chrono::milliseconds(100)) {
      if (done()) return true;
      RunFor(std::chrono::milliseconds(100));
    }
    return done();
  }
  std::optional<TableInfo> Table(const std::string& name) {
    const auto item = Await<absl::StatusOr<std::optional<Item>>>([&](auto done) {
      router_->Get(std::string(kCatalogueName), {.partition = Value::String(name), .sort = {}},
                   Consistency::kStrong, std::move(done));
    });
    if (!item.ok() || !item->has_value()) return std::nullopt;
    absl::StatusOr<TableInfo> table = DecodeTableItem(**item);
    return table.ok() ? std::optional<TableInfo>(*std::move(table)) : std::nullopt;
  }

  MetadataNode* metadata(NodeId id) { return metadata_[id].get(); }
  StorageNode* node(NodeId id) { return servers_[id].node.get(); }
  sim::World& world() { return world_; }
  CountingSink& sink() { return sink_; }
  Router& router() { return *router_; }
  sim::SimExecutor* client() { return client_; }

 private:
  struct Server {
    StorageNode::Environment environment;
    std::unique_ptr<StorageNode> node;
  };

  template <typename Result, typename Start>
  Result Await(Start start) {
    auto result = std::make_shared<std::optional<Result>>();
    client_->Post(
        [&start, result] { start([result](Result value) { *result = std::move(value); }); });
    if (!world_.RunUntil([&] { return result->has_value(); }, std::chrono::minutes(1)))
      return Result(absl::DeadlineExceededError("no answer in the test"));
    return **std::move(result);
  }

  CountingSink sink_;  // outlives the world
  sim::World world_;
  ClusterConfig config_;
  StorageNodeOptions options_;
  sim::SimExecutor* client_;
  std::unique_ptr<Rpc> rpc_;
  std::map<NodeId, Server> servers_;
  std::map<NodeId, std::unique_ptr<MetadataNode>> metadata_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<TableAdmin> admin_;
};

}  // namespace dynlib::cluster

#endif  // TESTS_CLUSTER_SIM_CLUSTER_H_
