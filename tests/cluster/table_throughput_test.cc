// A table's throughput in a whole simulated cluster: the catalogue has it, the auto admin tells the
// metadata nodes, routers learn it from them and share it.
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/sim_cluster.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class TableThroughputTest : public testing::Test {
 protected:
  struct Client {
    sim::Node* node = nullptr;
    sim::SimExecutor* executor = nullptr;
    std::unique_ptr<Rpc> rpc;
    std::unique_ptr<Router> router;
    uint64_t served = 0;
    uint64_t refused = 0;  // and told when to come back
    uint64_t others = 0;
  };

  void Boot(size_t clients) {
    cluster_.config().metadata_nodes = {NodeId{901}, NodeId{902}};
    DYNLIB_ASSERT_OK(cluster_.Boot());
    for (size_t i = 0; i < clients; ++i) AddClient(i + 1);
  }
  ~TableThroughputTest() override {
    open_ = false;
    admin_ = nullptr;
    clients_.clear();
  }

  RouterOptions Options(uint64_t client) {
    return {.client = ClientId{client},
            .catalogue_nodes = cluster_.config().catalogue_nodes,
            .metadata_nodes = cluster_.config().metadata_nodes,
            .admission = {.request_units_max = 1}};
  }
  void AddClient(uint64_t number) {
    auto client = std::make_unique<Client>();
    client->node = cluster_.world().AddNode(NodeId{2000 + number});
    client->executor = client->node->NewExecutor("main");
    client->rpc = std::make_unique<Rpc>(Rpc::Options{}, client->node->transport(), kRpcChannel,
                                        client->executor, client->node->clock());
    client->router = std::make_unique<Router>(Options(500 + number), client->rpc.get(),
                                              client->executor, client->node->clock());
    clients_.push_back(std::move(client));
  }
  void CreateTable(const Throughput& throughput) {
    Client& client = *clients_.front();
    admin_ = std::make_unique<TableAdmin>(cluster_.config(), Options(400), client.rpc.get(),
                                          client.executor, client.node->clock());
    std::optional<absl::Status> created;
    client.executor->Post([&] {
      admin_->CreateTable({.name = "orders",
                           .schema = SimCluster::Schema(),
                           .partitions = 4,
                           .throughput = throughput},
                          [&](absl::Status status) { created = std::move(status); });
    });
    ASSERT_TRUE(cluster_.RunUntil([&] { return created.has_value(); }));
    DYNLIB_ASSERT_OK(*created);
  }
  // As whoever administers the cluster does.
  void ChangeThroughput(const Throughput& throughput) {
    std::optional<TableInfo> table = cluster_.Table("orders");
    ASSERT_TRUE(table.has_value());
    table->version++;
    table->throughput = throughput;
    std::optional<absl::Status> written;
    cluster_.client()->Post([&] {
      cluster_.router().Put(std::string(kCatalogueName), EncodeTableItem(*table), {},
                            [&](absl::Status status) { written = std::move(status); });
    });
    ASSERT_TRUE(cluster_.RunUntil([&] { return written.has_value(); }));
    DYNLIB_ASSERT_OK(*written);
  }

  // Writes evenly, whatever the answers, until the test ends.
  void Demand(Client& client, int per_second) {
    client.executor->RunAt(client.node->clock()->Now() + Duration(seconds(1)) / per_second,
                           [this, &client, per_second] {
                             if (!open_) return;
                             Write(client);
                             Demand(client, per_second);
                           });
  }
  void Write(Client& client) {
    client.router->Put("orders", SimCluster::MakeItem("item-" + std::to_string(++items_), "v"), {},
                       [&client](absl::Status status) {
                         if (status.ok()) {
                           ++client.served;
                         } else if (RetryAfter(status).has_value()) {
                           ++client.refused;
                         } else {
                           ++client.others;
                         }
                       });
  }
  double ServedPerSecond(int for_seconds) {
    auto sum = [&] {
      uint64_t all = 0;
      for (const auto& client : clients_) all += client->served;
      return all;
    };
    const uint64_t before = sum();
    cluster_.RunFor(seconds(for_seconds));
    return static_cast<double>(sum() - before) / for_seconds;
  }

  SimCluster cluster_{3};
  std::vector<std::unique_ptr<Client>> clients_;
  std::unique_ptr<TableAdmin> admin_;
  uint64_t items_ = 0;
  bool open_ = true;
};

TEST_F(TableThroughputTest, RoutersShareItAndFollowItsChanges) {
  Boot(/*clients=*/2);
  CreateTable({.on_demand = false, .read_units = 100, .write_units = 30});
  for (auto& client : clients_) Demand(*client, 30);
  cluster_.RunFor(seconds(10));
  EXPECT_NEAR(ServedPerSecond(10), 30, 1.5);
  // Refused before they were sent: the partitions could do more.
  EXPECT_GT(clients_[0]->refused, 150u);
  EXPECT_EQ(cluster_.sink().counts["node.throttled"], 0);
  EXPECT_GT(cluster_.sink().counts["gac.reports"], 10);

  ChangeThroughput({.on_demand = false, .read_units = 100, .write_units = 45});
  cluster_.RunFor(seconds(10));
  EXPECT_NEAR(ServedPerSecond(10), 45, 2.5);
  ChangeThroughput({.on_demand = true});
  cluster_.RunFor(seconds(5));
  EXPECT_NEAR(ServedPerSecond(5), 60, 1);
  for (const auto& client : clients_) EXPECT_EQ(client->others, 0u);
}

}  // namespace
}  // namespace dynlib::cluster
