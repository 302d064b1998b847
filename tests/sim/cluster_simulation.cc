#include "tests/sim/cluster_simulation.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/fault_injector.h"
#include "dynlib/sim/history.h"
#include "dynlib/sim/linearizability.h"
#include "dynlib/sim/world.h"

namespace dynlib {
namespace {

using cluster::Clause;
using cluster::Condition;
using cluster::Consistency;
using cluster::Item;
using cluster::PrimaryKey;
using cluster::Value;

constexpr int kNodes = 3;
constexpr int kClients = 2;
constexpr int kLoopsAClient = 4;
constexpr int kKeys = 12;
constexpr size_t kPartitions = 2;
constexpr char kTable[] = "registers";
constexpr Duration kProgressLimit = std::chrono::seconds(90);

class CountingSink : public MetricsSink {
 public:
  explicit CountingSink(const SimulationOptions& options) : trace_(options.trace) {}
  void Count(std::string_view name, int64_t delta) override { counts_[std::string(name)] += delta; }
  void Event(std::string_view name, std::span<const EventField> fields) override {
    ++counts_[std::string(name)];
    if (!trace_) return;
    std::string line = Cat("  event ", name);
    for (const EventField& field : fields) line += Cat(" ", field.name, "=", field.value);
    trace_(line);
  }
  const std::map<std::string, uint64_t, std::less<>>& counts() const { return counts_; }

 private:
  const std::function<void(std::string_view)> trace_;
  std::map<std::string, uint64_t, std::less<>> counts_;
};

class Simulation {
 public:
  explicit Simulation(const SimulationOptions& options);
  ~Simulation() { world_.CrashAll(); }

  SimulationResult Run();

 private:
  struct Server {
    sim::Node* node = nullptr;
    Executor* executor = nullptr;
    std::unique_ptr<cluster::StorageNode> storage;
    bool dead = false;  // Its disk is damaged beyond what a node may go on with (R3).
  };
  struct Client {
    ClientId id{};
    sim::Node* node = nullptr;
    Executor* executor = nullptr;
    std::unique_ptr<Rpc> rpc;
    std::unique_ptr<cluster::Router> router;
    std::map<std::string, sim::Register> last_seen;
    int busy = 0;
  };

  cluster::StorageNodeOptions NodeOptions(NodeId id) const;
  void OpenServer(NodeId id);
  void OnOpened(NodeId id, absl::StatusOr<std::unique_ptr<cluster::StorageNode>> opened);
  void MakeClients();
  bool CreateTable();
  void RunOne(Client& client, int loop);
  void Again(Client& client, int loop);
  void ReadOne(Client& client, const std::string& key, std::function<void()> then);
  void WriteOne(Client& client, const std::string& key, bool conditional, bool erase,
                std::function<void()> then);
  bool EveryKeyWorks();
  bool ReplicasSettle();
  bool ReplicasAgree();
  std::string DescribeGroups();
  void Fail(std::string why) {
    if (result_.failure.empty()) result_.failure = std::move(why);
  }

  const SimulationOptions options_;
  CountingSink metrics_;
  sim::World world_;
  Random random_;
  cluster::ClusterConfig config_;
  std::map<NodeId, Server> servers_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::unique_ptr<sim::FaultInjector> injector_;
  sim::History history_;
  bool working_ = false;
  uint64_t values_ = 0;
  SimulationResult result_;
};

Simulation::Simulation(const SimulationOptions& options)
    : options_(options), metrics_(options), world_(options.seed), random_(options.seed ^ 0x5eed) {
  if (options_.trace) world_.SetTrace(options_.trace);
  std::vector<NodeId> ids;
  const int64_t drift_bound = replication::LivenessOptions().drift_ppm;
  const sim::FaultOptions faults =
      options_.faults.value_or(sim::RandomFaults(options_.seed, drift_bound));
  for (uint64_t i = 1; i <= kNodes; ++i) {
    const NodeId id{i};
    ids.push_back(id);
    servers_[id].node = world_.AddNode(
        id, random_.Between(-faults.clock_drift_ppm_max, faults.clock_drift_ppm_max));
    config_.nodes.push_back({id, {.zone = Cat("zone-", i), .rack = "r", .power = "p"}});
    config_.catalogue_nodes.push_back(id);
  }
  // What a group survives: damage on one member.
  world_.AllowCorruption(ids[random_.Below(ids.size())]);
  // In every third world all nodes may be down at once, as when a building loses its power.
  const size_t nodes_down = options_.seed % 3 == 0 ? kNodes : 1;
  injector_ = std::make_unique<sim::FaultInjector>(
      &world_, sim::FaultInjector::Options{.nodes = ids, .max_nodes_down = nodes_down},
      [this](NodeId id) { servers_[id].storage = nullptr; }, [this](NodeId id) { OpenServer(id); });
  for (NodeId id : ids) OpenServer(id);
  MakeClients();
}

cluster::StorageNodeOptions Simulation::NodeOptions(NodeId id) const {
  cluster::StorageNodeOptions options;
  options.id = id;
  options.replication.seed = options_.seed * 31 + ToUint(id);
  options.replication.faults = options_.replication_mutant;
  options.replication.group.proposal_bytes_max = 64 << 10;
  options.replication.group.unchosen_bytes_max = 256 << 10;
  // Small, so that segments are recycled and checkpoints taken often.
  options.log.segment_bytes = 512 << 10;
  options.log.copy_forward_above = 4;
  options.log.max_queued_bytes = 1 << 20;
  options.log.max_segments = 32;
  options.pages.growth_bytes_min = 128 << 10;
  options.pages.growth_bytes_max = 1 << 20;
  options.checkpoint_log_bytes = 96 << 10;
  options.checkpoint_interval = std::chrono::seconds(2);
  options.faults = options_.cluster_mutant;
  return options;
}

void Simulation::OpenServer(NodeId id) {
  Server& server = servers_[id];
  if (server.dead) return;
  sim::Node* node = server.node;
  server.executor = node->NewExecutor("main");
  const cluster::StorageNode::Environment environment{
      .disk = node->disk(),
      .transport = node->transport(),
      .clock = node->clock(),
      .executor = server.executor,
      .log_executor = node->NewBlockingExecutor("log"),
      .checkpoint_executor = node->NewBlockingExecutor("checkpoint"),
      .apply_executor = node->NewBlockingExecutor("apply"),
      .metrics = &metrics_};
  environment.checkpoint_executor->Post([this, id, environment] {
    auto opened = std::make_shared<absl::StatusOr<std::unique_ptr<cluster::StorageNode>>>(
        cluster::StorageNode::Open(NodeOptions(id), config_, environment));
    environment.executor->Post([this, id, opened] { OnOpened(id, std::move(*opened)); });
  });
}

void Simulation::OnOpened(NodeId id, absl::StatusOr<std::unique_ptr<cluster::StorageNode>> opened) {
  Server& server = servers_[id];
  absl::Status status = opened.status();
  world_.Note(id, Cat("opened: ", std::string(ToStd(status.message()))));
  if (!status.ok()) {
    // A damaged disk stays as it is; a device that failed for once may work the next time.
    const bool damaged = absl::IsDataLoss(status) && world_.corruptible().contains(id) &&
                         world_.faults().disk_eio == 0;
    if (damaged) {
      server.dead = true;
    } else {
      injector_->RequestRestart(id);
    }
    return;
  }
  server.storage = *std::move(opened);
  server.storage->OnFatal([this, id](absl::Status why) {
    world_.Note(id, Cat("fatal: ", std::string(ToStd(why.message()))));
    injector_->RequestRestart(id);
  });
  server.storage->Start([this, id](absl::Status started) {
    if (!started.ok()) injector_->RequestRestart(id);
  });
}

void Simulation::MakeClients() {
  for (int i = 0; i < kClients; ++i) {
    auto client = std::make_unique<Client>();
    client->id = ClientId{1000 + static_cast<uint64_t>(i)};
    client->node = world_.AddNode(NodeId{101 + static_cast<uint64_t>(i)});
    client->executor = client->node->NewExecutor("client");
    client->rpc =
        std::make_unique<Rpc>(Rpc::Options{}, client->node->transport(), cluster::kRpcChannel,
                              client->executor, client->node->clock());
    cluster::RouterOptions router;
    router.client = client->id;
    router.catalogue_nodes = config_.catalogue_nodes;
    router.timeout = std::chrono::seconds(4);
    router.attempt_timeout = std::chrono::milliseconds(400);
    router.seed = options_.seed + i;
    client->router = std::make_unique<cluster::Router>(router, client->rpc.get(), client->executor,
                                                       client->node->clock());
    clients_.push_back(std::move(client));
  }
}

bool Simulation::CreateTable() {
  Client& client = *clients_.front();
  cluster::RouterOptions options;
  options.client = ClientId{77};
  options.catalogue_nodes = config_.catalogue_nodes;
  cluster::TableAdmin admin(config_, options, client.rpc.get(), client.executor,
                            client.node->clock());
  auto status = std::make_shared<std::optional<absl::Status>>();
  const cluster::TableSchema schema{.partition_key = {"id", cluster::KeyType::kString},
                                    .sort_key = std::nullopt};
  auto create = std::make_shared<std::function<void()>>();
  *create = [&admin, schema, status] {
    admin.CreateTable({.name = kTable, .schema = schema, .partitions = kPartitions},
                      [status](absl::Status s) { *status = std::move(s); });
  };
  client.executor->Post([create] { (*create)(); });
  const bool done = world_.RunUntil([&] { return status->has_value(); }, std::chrono::seconds(60));
  if (!done || !(*status)->ok()) {
    Fail(Cat("the table was not created: ",
             done ? std::string(ToStd((*status)->message())) : "no answer"));
    return false;
  }
  return true;
}

Item MakeItem(const std::string& key, const std::string& value) {
  Item item;
  item["id"] = Value::String(key);
  item["value"] = Value::String(value);
  return item;
}

Condition Expect(const sim::Register& expected) {
  if (!expected.has_value()) return {{{"id", Clause::Op::kNotExists, {}}}};
  return {{{"value", Clause::Op::kEqual, Value::String(*expected)}}};
}

void Simulation::ReadOne(Client& client, const std::string& key, std::function<void()> then) {
  const sim::History::OpId op = history_.InvokeRead(client.id, key, world_.Now());
  client.router->Get(
      kTable, PrimaryKey{Value::String(key), std::nullopt}, Consistency::kStrong,
      [this, &client, key, op, then = std::move(then)](absl::StatusOr<std::optional<Item>> item) {
        if (item.ok()) {
          sim::Register seen;
          if (item->has_value()) seen = (*item)->at("value").string();
          client.last_seen[key] = seen;
          history_.ReturnRead(op, seen, world_.Now());
        } else {
          history_.ReturnUnknown(op, world_.Now());
        }
        then();
      });
}

void Simulation::WriteOne(Client& client, const std::string& key, bool conditional, bool erase,
                          std::function<void()> then) {
  const std::string value = Cat("v", ++values_);
  const sim::Register expected = client.last_seen[key];
  sim::Register written;
  if (!erase) written = value;
  sim::History::OpId op;
  if (conditional) {
    op = history_.InvokeConditionalWrite(client.id, key, expected, written, world_.Now());
  } else if (erase) {
    op = history_.InvokeDelete(client.id, key, world_.Now());
  } else {
    op = history_.InvokeWrite(client.id, key, value, world_.Now());
  }
  auto done = [this, &client, key, op, written, then = std::move(then)](absl::Status status) {
    switch (status.code()) {
      case absl::StatusCode::kOk:
        client.last_seen[key] = written;
        ++result_.acknowledged;
        history_.ReturnDone(op, world_.Now());
        break;
      case absl::StatusCode::kAborted:
        history_.ReturnConditionFailed(op, world_.Now());
        break;
      case absl::StatusCode::kResourceExhausted:
      case absl::StatusCode::kNotFound:
        history_.ReturnNotDone(op, world_.Now());
        break;
      default:
        history_.ReturnUnknown(op, world_.Now());
    }
    then();
  };
  const Condition condition = conditional ? Expect(expected) : Condition{};
  if (erase) {
    client.router->Delete(kTable, PrimaryKey{Value::String(key), std::nullopt}, condition,
                          std::move(done));
  } else {
    client.router->Put(kTable, MakeItem(key, value), condition, std::move(done));
  }
}

void Simulation::RunOne(Client& client, int loop) {
  if (!working_) return;
  ++result_.operations;
  ++client.busy;
  const std::string key = Cat("key-", random_.Below(kKeys));
  auto then = [this, &client, loop] {
    --client.busy;
    Again(client, loop);
  };
  const uint64_t dice = random_.Below(100);
  if (dice < 40) {
    ReadOne(client, key, then);
  } else {
    WriteOne(client, key, /*conditional=*/dice >= 70, /*erase=*/dice % 10 == 0, then);
  }
}

void Simulation::Again(Client& client, int loop) {
  const Duration think = std::chrono::microseconds(random_.Between(500, 60'000));
  client.executor->RunAt(client.node->clock()->Now() + think,
                         [this, &client, loop] { RunOne(client, loop); });
}

bool Simulation::EveryKeyWorks() {
  Client& client = *clients_.front();
  int left = kKeys;
  std::string last_error;
  // Each key: written until that is acknowledged, then read.
  std::function<void(std::string)> work = [&](std::string key) {
    const uint64_t before = result_.acknowledged;
    WriteOne(client, key, /*conditional=*/false, /*erase=*/false, [&, key, before] {
      if (result_.acknowledged == before) {
        client.executor->RunAt(client.node->clock()->Now() + std::chrono::milliseconds(50),
                               [&work, key] { work(key); });
        return;
      }
      ReadOne(client, key, [&left] { --left; });
    });
  };
  for (int i = 0; i < kKeys; ++i) client.executor->Post([&work, i] { work(Cat("key-", i)); });
  const bool worked = world_.RunUntil([&] { return left == 0; }, kProgressLimit);
  if (!worked) {
    Fail(Cat(left, " of ", kKeys, " keys could not be written and read within ",
             ToMicros(kProgressLimit) / 1'000'000, " s after healing"));
    // What is still in flight refers to this frame.
    clients_.front()->node->Crash();
  }
  return worked;
}

bool Simulation::ReplicasSettle() {
  return world_.RunUntil(
      [this] {
        std::map<PartitionId, std::set<Slot>> applied;
        for (auto& [id, server] : servers_) {
          if (server.storage == nullptr) {
            if (!server.dead) return false;
            continue;
          }
          for (const replication::GroupStatus& group : server.storage->Groups()) {
            if (group.failed) continue;
            // A follower's log may end with entries that no leader chose; a leader's does not.
            const bool leads = group.role == replication::Role::kLeader;
            if (group.applied != (leads ? group.last : group.chosen)) return false;
            applied[group.group].insert(group.applied);
          }
        }
        return std::all_of(applied.begin(), applied.end(),
                           [](const auto& entry) { return entry.second.size() == 1; });
      },
      kProgressLimit);
}

std::string Simulation::DescribeGroups() {
  std::string text;
  for (auto& [id, server] : servers_) {
    if (server.storage == nullptr) {
      text += Cat("\nnode ", id, server.dead ? " is dead" : " is not open");
      continue;
    }
    for (const replication::GroupStatus& group : server.storage->Groups()) {
      text += Cat("\nnode ", id, " partition ", group.group, " ", replication::RoleName(group.role),
                  " ballot ", group.promised.round(), ".", group.promised.proposer(),
                  group.failed ? " failed" : "", group.holds_lease ? " lease" : "", " released ",
                  group.released, " applied ", group.applied, " chosen ", group.chosen, " last ",
                  group.last);
    }
  }
  return text;
}

bool Simulation::ReplicasAgree() {
  if (!ReplicasSettle()) {
    Fail(Cat("replicas did not come to hold the same slots after healing", DescribeGroups()));
    return false;
  }
  // The partition's rows, as each replica has them.
  Client& client = *clients_.front();
  std::map<uint64_t, std::map<std::string, std::vector<NodeId>>> contents;
  int pending = 0;
  for (auto& [id, server] : servers_) {
    if (server.storage == nullptr) continue;
    for (const replication::GroupStatus& group : server.storage->Groups()) {
      if (group.failed || group.group == cluster::kCataloguePartition) continue;
      ++pending;
      cluster::wire::QueryRequest request;
      request.set_partition(ToUint(group.group));
      const uint64_t partition = ToUint(group.group);
      auto collect = [&contents, &pending, partition, id = id](absl::StatusOr<std::string> bytes) {
        cluster::wire::QueryReply reply;
        std::string rows = "no answer";
        if (bytes.ok() && reply.ParseFromString(*bytes)) {
          rows = reply.outcome().code() == 0 ? "" : Cat("error: ", reply.outcome().message());
          for (const cluster::wire::QueryReply::Row& row : reply.rows())
            rows += Cat(Escape(row.key()), "=", Escape(row.item(), 200), "\n");
        }
        contents[partition][rows].push_back(id);
        --pending;
      };
      const cluster::PartitionRange range = server.storage->RangeOf(group.group);
      request.set_first(range.first);
      request.set_end(range.end);
      client.executor->Post([&client, id = id, request, collect] {
        client.rpc->Call(id, cluster::kQuery, request.SerializeAsString(), std::chrono::seconds(5),
                         collect);
      });
    }
  }
  world_.RunUntil([&] { return pending == 0; }, std::chrono::seconds(20));
  for (const auto& [partition, variants] : contents) {
    if (variants.size() == 1) continue;
    std::string why = Cat("replicas of partition ", partition, " differ:");
    for (const auto& [rows, nodes] : variants)
      why += Cat("\nnode ", nodes.front(), " and ", nodes.size() - 1, " more:\n", rows);
    Fail(why);
    return false;
  }
  return true;
}

SimulationResult Simulation::Run() {
  const bool up = world_.RunUntil(
      [this] {
        return std::all_of(servers_.begin(), servers_.end(),
                           [](const auto& s) { return s.second.storage != nullptr; });
      },
      std::chrono::seconds(30));
  if (!up) Fail("the nodes did not start");
  if (up && CreateTable()) {
    const int64_t drift_bound = replication::LivenessOptions().drift_ppm;
    world_.SetFaults(options_.faults.value_or(sim::RandomFaults(options_.seed, drift_bound)));
    injector_->Start();
    working_ = true;
    for (auto& client : clients_) {
      for (int loop = 0; loop < kLoopsAClient; ++loop) Again(*client, loop);
    }
    world_.RunFor(options_.fault_time);
    working_ = false;
    injector_->Heal();
    world_.RunUntil(
        [this] {
          return std::all_of(clients_.begin(), clients_.end(),
                             [](const auto& c) { return c->busy == 0; });
        },
        std::chrono::seconds(30));
    if (EveryKeyWorks()) ReplicasAgree();
    const sim::CheckResult check = sim::CheckLinearizable(history_);
    if (!check.ok()) Fail(check.explanation);
  }
  result_.trace_hash = world_.TraceHash();
  result_.events = world_.events();
  result_.faults = world_.FaultCounts();
  result_.metrics = metrics_.counts();
  world_.CrashAll();
  return result_;
}

}  // namespace

SimulationResult RunClusterSimulation(const SimulationOptions& options) {
  return Simulation(options).Run();
}

}  // namespace dynlib
