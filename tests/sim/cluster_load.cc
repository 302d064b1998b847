#include "tests/sim/cluster_load.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib {
namespace {

using cluster::Clause;
using cluster::Condition;
using cluster::Consistency;
using cluster::Item;
using cluster::PrimaryKey;
using cluster::Value;

constexpr int kClients = 2;
constexpr int kLoopsAClient = 4;
constexpr int kKeys = 12;
constexpr size_t kPartitions = 2;
constexpr char kTable[] = "registers";

std::string KeyName(int i) { return Cat("key-", i); }

cluster::TableSchema Schema() {
  return {.partition_key = {"id", cluster::KeyType::kString}, .sort_key = std::nullopt};
}

std::string StorageKey(const std::string& key) {
  return *cluster::EncodeKey(Schema(), PrimaryKey{Value::String(key), std::nullopt});
}

Condition Expect(const sim::Register& expected) {
  if (!expected.has_value()) return {{{"id", Clause::Op::kNotExists, {}}}};
  return {{{"value", Clause::Op::kEqual, Value::String(*expected)}}};
}

}  // namespace

ClusterLoad::ClusterLoad(const SimulationOptions& options, const ClusterShape& shape,
                         const cluster::ClusterConfig& config, sim::World* world, Random* random,
                         MetricsSink* metrics)
    : options_(options), shape_(shape), config_(config), world_(world), random_(random) {
  for (int i = 0; i < kClients; ++i) {
    auto client = std::make_unique<Client>();
    client->id = ClientId{1000 + static_cast<uint64_t>(i)};
    client->node = world_->AddNode(NodeId{101 + static_cast<uint64_t>(i)});
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
    // One of them may have to do without metadata nodes, though there are any.
    if (i > 0 || options_.seed % 4 != 0) router.metadata_nodes = config_.metadata_nodes;
    client->asks_metadata = !router.metadata_nodes.empty();
    router.faults = options_.router_mutant;
    client->router = std::make_unique<cluster::Router>(router, client->rpc.get(), client->executor,
                                                       client->node->clock(), metrics);
    clients_.push_back(std::move(client));
  }
}

absl::Status ClusterLoad::CreateTable() {
  Client& client = *clients_.front();
  cluster::RouterOptions options;
  options.client = ClientId{77};
  options.catalogue_nodes = config_.catalogue_nodes;
  cluster::TableAdmin admin(config_, options, client.rpc.get(), client.executor,
                            client.node->clock());
  auto status = std::make_shared<std::optional<absl::Status>>();
  client.executor->Post([&admin, status] {
    admin.CreateTable({.name = kTable, .schema = Schema(), .partitions = kPartitions},
                      [status](absl::Status s) { *status = std::move(s); });
  });
  world_->RunUntil([&] { return status->has_value(); }, std::chrono::seconds(60));
  return status->value_or(absl::DeadlineExceededError("no answer"));
}

std::optional<cluster::TableInfo> ClusterLoad::Table() {
  Client& client = *clients_.front();
  auto answer = std::make_shared<std::optional<cluster::TableInfo>>();
  auto done = std::make_shared<bool>(false);
  client.executor->Post([&client, answer, done] {
    client.router->Get(
        std::string(cluster::kCatalogueName), PrimaryKey{Value::String(kTable), std::nullopt},
        Consistency::kStrong, [answer, done](absl::StatusOr<std::optional<Item>> item) {
          *done = true;
          if (!item.ok() || !item->has_value()) return;
          absl::StatusOr<cluster::TableInfo> table = cluster::DecodeTableItem(**item);
          if (table.ok()) *answer = *std::move(table);
        });
  });
  world_->RunUntil([&] { return *done; }, std::chrono::seconds(10));
  return *answer;
}

void ClusterLoad::Start() {
  working_ = true;
  for (auto& client : clients_) {
    for (int loop = 0; loop < kLoopsAClient; ++loop) Again(*client);
  }
}

bool ClusterLoad::Stop() {
  working_ = false;
  return world_->RunUntil(
      [this] {
        return std::all_of(clients_.begin(), clients_.end(),
                           [](const auto& client) { return client->busy == 0; });
      },
      std::chrono::seconds(30));
}

Item ClusterLoad::MakeItem(const std::string& key, const std::string& value) {
  Item item;
  item["id"] = Value::String(key);
  item["value"] = Value::String(value);
  if (shape_.padding > 0) item["padding"] = Value::String(std::string(shape_.padding, 'p'));
  return item;
}

std::string ClusterLoad::AnyStorageKey() {
  return StorageKey(KeyName(static_cast<int>(random_->Below(kKeys))));
}

void ClusterLoad::CheckRoute(Client& client, const std::string& key) {
  if (!client.asks_metadata) return;
  std::optional<partition_map::PartitionRecord> route =
      client.router->FindRoute(kTable, StorageKey(key));
  std::optional<partition_map::PartitionRecord>& last = client.routes[key];
  if (route.has_value() && last.has_value() && partition_map::IsNewer(*last, *route)) {
    routes_went_back_ +=
        Cat("\nclient ", client.id, " knew of ", key, " partition ", last->partition, " epoch ",
            last->epoch, ", and now partition ", route->partition, " epoch ", route->epoch);
  }
  last = std::move(route);
}

void ClusterLoad::ReadOne(Client& client, const std::string& key,
                          std::function<void(bool ok)> then) {
  const sim::History::OpId op = history_.InvokeRead(client.id, key, world_->Now());
  client.router->Get(
      kTable, PrimaryKey{Value::String(key), std::nullopt}, Consistency::kStrong,
      [this, &client, key, op, then = std::move(then)](absl::StatusOr<std::optional<Item>> item) {
        if (item.ok()) {
          sim::Register seen;
          if (item->has_value()) seen = (*item)->at("value").string();
          client.last_seen[key] = seen;
          history_.ReturnRead(op, seen, world_->Now());
        } else {
          history_.ReturnUnknown(op, world_->Now());
        }
        then(item.ok());
      });
}

void ClusterLoad::WriteOne(Client& client, const std::string& key, bool conditional, bool erase,
                           std::function<void(bool ok)> then) {
  const std::string value = Cat("v", ++values_);
  const sim::Register expected = client.last_seen[key];
  sim::Register written;
  if (!erase) written = value;
  sim::History::OpId op;
  if (conditional) {
    op = history_.InvokeConditionalWrite(client.id, key, expected, written, world_->Now());
  } else if (erase) {
    op = history_.InvokeDelete(client.id, key, world_->Now());
  } else {
    op = history_.InvokeWrite(client.id, key, value, world_->Now());
  }
  auto done = [this, &client, key, op, written, then = std::move(then)](absl::Status status) {
    switch (status.code()) {
      case absl::StatusCode::kOk:
        client.last_seen[key] = written;
        ++acknowledged_;
        history_.ReturnDone(op, world_->Now());
        break;
      case absl::StatusCode::kAborted:
        history_.ReturnConditionFailed(op, world_->Now());
        break;
      case absl::StatusCode::kResourceExhausted:
      case absl::StatusCode::kNotFound:
        history_.ReturnNotDone(op, world_->Now());
        break;
      default:
        history_.ReturnUnknown(op, world_->Now());
    }
    then(status.ok());
  };
  const Condition condition = conditional ? Expect(expected) : Condition{};
  if (erase) {
    client.router->Delete(kTable, PrimaryKey{Value::String(key), std::nullopt}, condition,
                          std::move(done));
  } else {
    client.router->Put(kTable, MakeItem(key, value), condition, std::move(done));
  }
}

void ClusterLoad::RunOne(Client& client) {
  if (!working_) return;
  ++operations_;
  ++client.busy;
  const std::string key = KeyName(static_cast<int>(random_->Below(kKeys)));
  auto then = [this, &client, key](bool) {
    CheckRoute(client, key);
    --client.busy;
    Again(client);
  };
  const uint64_t dice = random_->Below(100);
  if (dice < 40) {
    ReadOne(client, key, then);
  } else {
    WriteOne(client, key, /*conditional=*/dice >= 70, /*erase=*/dice % 10 == 0, then);
  }
}

void ClusterLoad::Again(Client& client) {
  const Duration think = std::chrono::microseconds(random_->Between(500, 60'000));
  client.executor->RunAt(client.node->clock()->Now() + think, [this, &client] { RunOne(client); });
}

bool ClusterLoad::EveryKeyWorks(bool write_all, Duration limit) {
  Client& client = *clients_.front();
  int left = kKeys;
  auto retry = [&client](std::function<void()> again) {
    client.executor->RunAt(client.node->clock()->Now() + std::chrono::milliseconds(50),
                           std::move(again));
  };
  std::function<void(std::string)> read = [&](std::string key) {
    ReadOne(client, key, [&, key](bool ok) {
      if (ok) {
        --left;
      } else {
        retry([&read, key] { read(key); });
      }
    });
  };
  std::function<void(std::string)> write = [&](std::string key) {
    WriteOne(client, key, /*conditional=*/false, /*erase=*/false, [&, key](bool ok) {
      if (ok) return read(key);
      retry([&write, key] { write(key); });
    });
  };
  for (int i = 0; i < kKeys; ++i) {
    const bool writes = write_all || i % 2 == 0;
    client.executor->Post([&read, &write, i, writes] {
      if (writes) {
        write(KeyName(i));
      } else {
        read(KeyName(i));
      }
    });
  }
  const bool worked = world_->RunUntil([&] { return left == 0; }, limit);
  // What is still in flight refers to this frame.
  if (!worked) client.node->Crash();
  return worked;
}

}  // namespace dynlib
