// Global admission control over the simulated network: routers' admission against GAC servers of
// metadata nodes.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/gac_service.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/router_admission.h"
#include "dynlib/cluster/router_admission_options.h"
#include "dynlib/cluster/service.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using admission::Operation;
using admission::RequestUnits;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr TableId kTable{7};
constexpr uint64_t kFirstServer = 900;

class GacTest : public testing::Test {
 protected:
  struct Server {
    std::unique_ptr<Rpc> rpc;
    std::shared_ptr<GacService> service;
  };
  struct Client {
    sim::SimExecutor* executor = nullptr;
    std::unique_ptr<Rpc> rpc;
    std::unique_ptr<RouterAdmission> admission;
    TableInfo table;  // as this router knows it
    uint64_t admitted = 0;
    uint64_t refused = 0;
  };

  GacTest() {
    for (uint64_t i = 0; i < 3; ++i) servers_.push_back(NodeId{kFirstServer + i});
    table_.id = kTable;
    table_.name = "orders";
    table_.throughput = {.on_demand = false, .read_units = 1000, .write_units = 500};
  }
  ~GacTest() override {
    open_ = false;
    clients_.clear();
    up_.clear();
  }

  void Boot(size_t clients) {
    for (NodeId id : servers_) {
      world_.AddNode(id);
      StartServer(id);
    }
    for (size_t i = 0; i < clients; ++i) AddClient();
  }
  void StartServer(NodeId id) {
    sim::Node* node = world_.node(id);
    sim::SimExecutor* executor = node->NewExecutor("main");
    Server& server = up_[id];
    server.rpc = std::make_unique<Rpc>(Rpc::Options{}, node->transport(), kRpcChannel, executor,
                                       node->clock());
    absl::StatusOr<std::shared_ptr<GacService>> service = GacService::Create(
        {}, [this](TableId table) { return Known(table); }, executor, node->clock());
    DYNLIB_ASSERT_OK(service.status());
    server.service = *service;
    server.service->Register(server.rpc.get());
  }
  void StopServer(NodeId id) {
    world_.node(id)->Crash();
    up_.erase(id);
  }
  std::optional<TableThroughput> Known(TableId table) const {
    return table == kTable ? server_knows_ : std::nullopt;
  }
  Client& AddClient() {
    const uint64_t number = clients_.size() + 1;
    sim::Node* node = world_.AddNode(NodeId{number});
    auto client = std::make_unique<Client>();
    client->executor = node->NewExecutor("main");
    client->rpc = std::make_unique<Rpc>(Rpc::Options{}, node->transport(), kRpcChannel,
                                        client->executor, node->clock());
    client->admission =
        std::make_unique<RouterAdmission>(options_, servers_, ClientId{number}, /*seed=*/number,
                                          client->rpc.get(), client->executor, node->clock());
    client->table = table_;
    clients_.push_back(std::move(client));
    return *clients_.back();
  }

  // Asks for one unit, evenly, `per_second` times, until the test ends.
  void Demand(Client& client, Operation operation, int per_second) {
    const Duration apart = Duration(seconds(1)) / per_second;
    client.executor->RunAt(world_.node(NodeOf(client))->clock()->Now() + apart,
                           [this, &client, operation, per_second] {
                             if (!open_) return;
                             Ask(client, operation).IgnoreError();
                             Demand(client, operation, per_second);
                           });
  }
  absl::Status Ask(Client& client, Operation operation) {
    const RequestUnits one = RequestUnits::Whole(1);
    absl::Status status = client.admission->Admit(client.table, operation, one);
    status.ok() ? ++client.admitted : ++client.refused;
    if (status.ok()) client.admission->Settle(kTable, operation, one, 1000);
    return status;
  }
  NodeId NodeOf(const Client& client) const {
    for (size_t i = 0; i < clients_.size(); ++i) {
      if (clients_[i].get() == &client) return NodeId{i + 1};
    }
    return {};
  }
  // Admitted by all clients over that time.
  uint64_t AdmittedIn(Duration time) {
    auto sum = [&] {
      uint64_t all = 0;
      for (const auto& client : clients_) all += client->admitted;
      return all;
    };
    const uint64_t before = sum();
    world_.RunFor(time);
    return sum() - before;
  }
  NodeId ServerOf(Operation operation) {
    return clients_.front()->admission->RateOf(kTable, operation)->server;
  }

  sim::World world_{/*seed=*/5};
  RouterAdmissionOptions options_;
  TableInfo table_;
  std::optional<TableThroughput> server_knows_;
  std::vector<NodeId> servers_;
  std::map<NodeId, Server> up_;
  std::vector<std::unique_ptr<Client>> clients_;
  bool open_ = true;
};

TEST_F(GacTest, OptionsOutOfRangeAreNamed) {
  auto with = [](auto change) {
    RouterAdmissionOptions options;
    change(options);
    return Validate(options);
  };
  DYNLIB_EXPECT_OK(with([](auto&) {}));
  EXPECT_THAT(with([](auto& o) { o.safe_share = 0; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("admission.safe_share is 0")));
  EXPECT_THAT(with([](auto& o) { o.saved_seconds = 11; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("saved_seconds is 11")));
  EXPECT_THAT(with([](auto& o) { o.request_units_max = 0; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("request_units_max is 0")));
  EXPECT_THAT(with([](auto& o) { o.poll_interval = {}; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("poll_interval is 0")));
  EXPECT_THAT(with([](auto& o) { o.tables_max = 0; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tables_max is 0")));
}

TEST_F(GacTest, RoutersTogetherKeepATablesLimit) {
  options_.request_units_max = 1;
  Boot(/*clients=*/3);
  // Twice the limit in all, unevenly.
  Demand(*clients_[0], Operation::kWrite, 700);
  Demand(*clients_[1], Operation::kWrite, 250);
  Demand(*clients_[2], Operation::kWrite, 50);
  world_.RunFor(seconds(10));
  for (int i = 0; i < 3; ++i) {
    const uint64_t admitted = AdmittedIn(seconds(5));
    EXPECT_LE(admitted, 2500 * 1.05);
    EXPECT_GE(admitted, 2500 * 0.95);
  }
  // The small one is within its fair share.
  const uint64_t refused = clients_[2]->refused;
  world_.RunFor(seconds(2));
  EXPECT_EQ(clients_[2]->refused, refused);
}

TEST_F(GacTest, ReadsAndWritesHaveLimitsOfTheirOwn) {
  options_.request_units_max = 1;
  Boot(/*clients=*/2);
  for (auto& client : clients_) Demand(*client, Operation::kWrite, 500);
  world_.RunFor(seconds(10));
  for (auto& client : clients_) Demand(*client, Operation::kRead, 400);
  world_.RunFor(seconds(5));
  uint64_t refused = clients_[0]->refused + clients_[1]->refused;
  const uint64_t admitted = AdmittedIn(seconds(5));
  EXPECT_NEAR(static_cast<double>(admitted), 5 * (500 + 800), 130);
  refused = clients_[0]->refused + clients_[1]->refused - refused;
  EXPECT_NEAR(static_cast<double>(refused), 2500, 130);  // writes alone
}

TEST_F(GacTest, ARefusalSaysWhenToComeBackAndThenTheRequestPasses) {
  options_.request_units_max = 1;
  Boot(/*clients=*/1);
  Client& client = *clients_[0];
  std::optional<Duration> wait;
  world_.RunAs(client.executor, [&] {
    for (int i = 0; i < 10'000 && !wait.has_value(); ++i) {
      const absl::Status status = Ask(client, Operation::kWrite);
      if (status.ok()) continue;
      EXPECT_THAT(status,
                  StatusIs(absl::StatusCode::kResourceExhausted,
                           HasSubstr("table 'orders' is over its throughput of 500 write")));
      wait = RetryAfter(status);
      ASSERT_TRUE(wait.has_value());
    }
  });
  ASSERT_TRUE(wait.has_value());
  world_.RunFor(*wait + milliseconds(1));
  world_.RunAs(client.executor, [&] { DYNLIB_EXPECT_OK(Ask(client, Operation::kWrite)); });
}

TEST_F(GacTest, ATableOnDemandPasses) {
  Boot(/*clients=*/1);
  Client& client = *clients_[0];
  client.table.throughput = {};
  world_.RunAs(client.executor, [&] {
    for (int i = 0; i < 100'000; ++i) DYNLIB_ASSERT_OK(Ask(client, Operation::kWrite));
  });
  EXPECT_EQ(client.admission->RateOf(kTable, Operation::kWrite), std::nullopt);
  // It becomes provisioned, and on demand again.
  client.table = table_;
  client.table.version = 2;
  world_.RunAs(client.executor, [&] {
    for (int i = 0; i < 100'000; ++i) Ask(client, Operation::kWrite).IgnoreError();
    EXPECT_GT(client.refused, 90'000u);
    client.table.throughput = {};
    client.table.version = 3;
    for (int i = 0; i < 100'000; ++i) DYNLIB_ASSERT_OK(Ask(client, Operation::kWrite));
  });
}

TEST_F(GacTest, WithoutMetadataNodesOrSwitchedOffEverythingPasses) {
  options_.enabled = false;
  Boot(/*clients=*/1);
  servers_.clear();
  options_.enabled = true;
  AddClient();
  for (auto& client : clients_) {
    world_.RunAs(client->executor, [&] {
      for (int i = 0; i < 10'000; ++i) DYNLIB_ASSERT_OK(Ask(*client, Operation::kWrite));
    });
  }
}

// A router hears of it with the descriptor; the servers take the newer of what they are told.
TEST_F(GacTest, ANewLimitHoldsWhenTheDescriptorChanges) {
  options_.request_units_max = 1;
  Boot(/*clients=*/2);
  for (auto& client : clients_) Demand(*client, Operation::kWrite, 500);
  world_.RunFor(seconds(10));
  for (auto& client : clients_) {
    client->table.version = 2;
    client->table.throughput.write_units = 200;
  }
  world_.RunFor(seconds(7));
  EXPECT_NEAR(static_cast<double>(AdmittedIn(seconds(5))), 1000, 50);
  // This time the metadata nodes know first.
  server_knows_ = TableThroughput{.version = 3, .throughput = {false, 1000, 800}};
  world_.RunFor(seconds(7));
  EXPECT_NEAR(static_cast<double>(AdmittedIn(seconds(5))), 4000, 200);
}

TEST_F(GacTest, WhenTheServerOfATableDiesAnotherTakesOverAndTheLimitHolds) {
  options_.request_units_max = 1;
  Boot(/*clients=*/3);
  for (auto& client : clients_) Demand(*client, Operation::kWrite, 350);
  world_.RunFor(seconds(10));
  const NodeId first = ServerOf(Operation::kWrite);
  StopServer(first);
  for (int i = 0; i < 10; ++i) EXPECT_LE(AdmittedIn(seconds(2)), 1000 * 1.12) << i;
  EXPECT_NE(ServerOf(Operation::kWrite), first);
  EXPECT_NEAR(static_cast<double>(AdmittedIn(seconds(5))), 2500, 125);
}

// Its memory is gone; it learns again who holds what.
TEST_F(GacTest, ARestartedServerDoesNotLetTheTableExceedItsLimitByMuch) {
  options_.request_units_max = 1;
  Boot(/*clients=*/3);
  for (auto& client : clients_) Demand(*client, Operation::kWrite, 350);
  world_.RunFor(seconds(10));
  const NodeId server = ServerOf(Operation::kWrite);
  for (int round = 0; round < 3; ++round) {
    StopServer(server);
    world_.node(server)->Restart();
    StartServer(server);
    for (int i = 0; i < 4; ++i) EXPECT_LE(AdmittedIn(seconds(2)), 1000 * 1.12) << round << " " << i;
  }
  world_.RunFor(seconds(5));
  EXPECT_NEAR(static_cast<double>(AdmittedIn(seconds(5))), 2500, 125);
}

TEST_F(GacTest, WithoutAnyServerEachRouterKeepsToItsSafeShare) {
  options_.request_units_max = 1;
  options_.safe_share = 0.2;
  Boot(/*clients=*/3);
  for (auto& client : clients_) Demand(*client, Operation::kWrite, 350);
  world_.RunFor(seconds(10));
  for (NodeId server : servers_) StopServer(server);
  world_.RunFor(seconds(10));  // the grants end
  EXPECT_NEAR(static_cast<double>(AdmittedIn(seconds(5))), 5 * 3 * 100, 80);
  for (NodeId server : servers_) {
    world_.node(server)->Restart();
    StartServer(server);
  }
  world_.RunFor(seconds(25));
  EXPECT_NEAR(static_cast<double>(AdmittedIn(seconds(5))), 2500, 125);
}

// Units that were not used come back; those that were used beyond are taken from what follows.
TEST_F(GacTest, WhatARequestReallyCostCounts) {
  options_.request_units_max = 1;
  Boot(/*clients=*/1);
  Client& client = *clients_[0];
  auto until_refused = [&](uint64_t milliunits) {
    int passed = 0;
    world_.RunAs(client.executor, [&] {
      const RequestUnits one = RequestUnits::Whole(1);
      while (passed < 1000 && client.admission->Admit(client.table, Operation::kRead, one).ok()) {
        ++passed;
        client.admission->Settle(kTable, Operation::kRead, one, milliunits);
      }
    });
    return passed;
  };
  EXPECT_EQ(until_refused(0), 1000);
  // 0.1 of the limit for half a second, and two requests of one unit.
  EXPECT_EQ(until_refused(10'000), 6);
  world_.RunFor(milliseconds(50));
  EXPECT_EQ(until_refused(1000), 0);  // in debt still
}

}  // namespace
}  // namespace dynlib::cluster
