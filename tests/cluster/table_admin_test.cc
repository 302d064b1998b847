#include "dynlib/cluster/table_admin.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/fake_storage.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

ClusterConfig Cluster(size_t nodes) {
  ClusterConfig config;
  for (size_t i = 0; i < nodes; ++i) {
    config.nodes.push_back(
        {NodeId{i + 1}, {.zone = "zone-" + std::to_string(i % 3), .rack = {}, .power = {}}});
  }
  for (size_t i = 0; i < std::min<size_t>(nodes, 3); ++i)
    config.catalogue_nodes.push_back(NodeId{i + 1});
  return config;
}

TableSpec Spec(size_t partitions, const std::string& name = "users") {
  return {.name = name,
          .schema = {.partition_key = {"id", KeyType::kString}, .sort_key = {}},
          .partitions = partitions};
}

TEST(PlaceTableTest, EveryPartitionHasAReplicaInEachZone) {
  const ClusterConfig config = Cluster(6);
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(config, Spec(12)));
  ASSERT_THAT(table.partitions, SizeIs(12));
  std::map<NodeId, int> replicas, firsts;
  std::set<PartitionId> ids;
  for (const PartitionInfo& partition : table.partitions) {
    std::set<std::string> zones;
    ids.insert(partition.id);
    firsts[partition.members[0].node]++;
    for (const PartitionMember& member : partition.members) {
      zones.insert(config.nodes[ToUint(member.node) - 1].location.zone);
      replicas[member.node]++;
    }
    EXPECT_THAT(zones, SizeIs(3));
  }
  EXPECT_THAT(ids, SizeIs(12));
  for (const NodeInfo& node : config.nodes) {
    EXPECT_EQ(replicas[node.id], 6);
    EXPECT_EQ(firsts[node.id], 2);
  }
}

TEST(PlaceTableTest, ThePartitionsDivideTheKeysEvenly) {
  for (size_t count : {1, 2, 3, 7, 2000}) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(Cluster(3), Spec(count)));
    // Decoding checks that there is neither gap nor overlap.
    EXPECT_THAT(DecodeTableItem(EncodeTableItem(table)), IsOkAndHolds(table));
    for (size_t i = 1; i < count; ++i) {
      const double part = static_cast<double>(HashOfStorageKey(table.partitions[i].first)) / 0x1p64;
      EXPECT_NEAR(part, static_cast<double>(i) / static_cast<double>(count), 1e-9);
    }
  }
}

TEST(PlaceTableTest, OneNodeIsAClusterToo) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(TableInfo table, PlaceTable(Cluster(1), Spec(2)));
  for (const PartitionInfo& partition : table.partitions) EXPECT_THAT(partition.members, SizeIs(1));
}

TEST(PlaceTableTest, BadArgumentsAreNamed) {
  auto message = [](const ClusterConfig& config, const TableSpec& spec) {
    const absl::Status status = PlaceTable(config, spec).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  const ClusterConfig good = Cluster(3);
  EXPECT_THAT(message(good, Spec(0)), HasSubstr("partitions is 0"));
  EXPECT_THAT(message(good, Spec(2001)), HasSubstr("partitions is 2001"));
  EXPECT_THAT(message(good, Spec(1, "ab")), HasSubstr("'ab'"));
  EXPECT_THAT(message(good, Spec(1, "a b c")), HasSubstr("'a b c'"));
  EXPECT_THAT(message(good, Spec(1, std::string(256, 'x'))), HasSubstr("name"));
  EXPECT_THAT(message(good, Spec(1, "catalogue")), HasSubstr("catalogue"));
  EXPECT_THAT(message(Cluster(2), Spec(1)), HasSubstr("2 zones"));
  TableSpec starved = Spec(1);
  starved.throughput = {.on_demand = false, .read_units = 0, .write_units = 5};
  EXPECT_THAT(message(good, starved), HasSubstr("throughput.read_units is 0"));
  TableSpec spec = Spec(1);
  spec.schema.partition_key.name = "";
  message(good, spec);
}

class TableAdminTest : public ::testing::Test {
 protected:
  TableAdminTest() : world_(1), storage_(&world_), config_(Cluster(3)) {
    for (const NodeInfo& node : config_.nodes) storage_.AddNode(node.id);
    storage_.AddTable(CatalogueTable(config_.catalogue_nodes));
    sim::Node* here = world_.AddNode(NodeId{50});
    executor_ = here->NewExecutor("admin");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, here->transport(), kRpcChannel, executor_,
                                 here->clock());
    options_.catalogue_nodes = config_.catalogue_nodes;
    admin_ = NewAdmin(1);
  }

  std::unique_ptr<TableAdmin> NewAdmin(uint64_t client) {
    RouterOptions options = options_;
    options.client = ClientId{client};
    return std::make_unique<TableAdmin>(config_, options, rpc_.get(), executor_,
                                        world_.node(NodeId{50})->clock());
  }
  absl::Status Create(const TableSpec& spec) {
    std::optional<absl::Status> result;
    admin_->CreateTable(spec, [&](absl::Status status) { result = std::move(status); });
    EXPECT_FALSE(result.has_value()) << "inline";
    EXPECT_TRUE(world_.RunUntil([&] { return result.has_value(); }, std::chrono::minutes(1)));
    return *result;
  }
  absl::Status Delete(const std::string& name) {
    std::optional<absl::Status> result;
    admin_->DeleteTable(name, [&](absl::Status status) { result = std::move(status); });
    EXPECT_TRUE(world_.RunUntil([&] { return result.has_value(); }, std::chrono::minutes(1)));
    return *result;
  }
  std::optional<TableInfo> Entry(const std::string& name) {
    for (const TableInfo& table : storage_.Tables()) {
      if (table.name == name) return table;
    }
    return std::nullopt;
  }
  size_t tables() { return storage_.items(kCataloguePartition) - 1; }

  sim::World world_;
  FakeStorage storage_;
  ClusterConfig config_;
  sim::SimExecutor* executor_;
  std::unique_ptr<Rpc> rpc_;
  RouterOptions options_;
  std::unique_ptr<TableAdmin> admin_;
};

TEST_F(TableAdminTest, MakesEveryReplicaThenEntersTheTable) {
  storage_.SetHook([&](const FakeRequest& request) {
    if (request.method == kWrite) {
      EXPECT_THAT(storage_.replicas(), SizeIs(12));
    }
    return FakeFault{};
  });
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  EXPECT_THAT(storage_.replicas(), SizeIs(12));
  EXPECT_EQ(tables(), 1u);
}

TEST_F(TableAdminTest, TheSameAgainIsOk) {
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  const uint64_t asked = storage_.requests(kCreateReplica);
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  EXPECT_EQ(storage_.requests(kCreateReplica), asked);
  EXPECT_EQ(tables(), 1u);
}

TEST_F(TableAdminTest, AnotherTableOfTheNameAlreadyExists) {
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  auto refusal = [&](const TableSpec& spec) {
    const absl::Status status = Create(spec);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kAlreadyExists));
    return std::string(status.message());
  };
  EXPECT_EQ(refusal(Spec(5)),
            "table 'users' exists, but its number of partitions is 4, asked for 5");
  TableSpec other = Spec(4);
  other.schema.partition_key.type = KeyType::kNumber;
  EXPECT_EQ(refusal(other),
            "table 'users' exists, but its schema is partition key 'id' (string) and no sort key, "
            "asked for partition key 'id' (number) and no sort key");
  other = Spec(4);
  other.throughput = {.on_demand = false, .read_units = 5, .write_units = 6};
  EXPECT_EQ(refusal(other),
            "table 'users' exists, but its throughput is on demand, asked for 5 read and 6 write "
            "units a second");
}

TEST_F(TableAdminTest, ATableThatChangesWhileItIsDeletedIsReadAgain) {
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  int changes = 0;
  storage_.SetHook([&](const FakeRequest& request) {
    if (request.method == kWrite && changes++ < 3) {
      TableInfo table = *Entry("users");
      ++table.version;
      storage_.AddTable(table);
    }
    return FakeFault{};
  });
  DYNLIB_EXPECT_OK(Delete("users"));
  EXPECT_EQ(changes, 4);
  EXPECT_TRUE(Entry("users")->deleting);
}

TEST_F(TableAdminTest, ATableThatChangesForEverIsLeftInTheEnd) {
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  storage_.SetHook([&](const FakeRequest& request) {
    if (request.method == kWrite) {
      TableInfo table = *Entry("users");
      ++table.version;
      storage_.AddTable(table);
    }
    return FakeFault{};
  });
  EXPECT_THAT(Delete("users"), StatusIs(absl::StatusCode::kAborted));
}

TEST_F(TableAdminTest, ACreationThatWasCutCanBeRepeated) {
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_reply = request.method == kCreateReplica && request.node == NodeId{2}};
  });
  EXPECT_THAT(Create(Spec(4)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(tables(), 0u);
  storage_.SetHook(nullptr);
  admin_ = NewAdmin(2);
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  EXPECT_THAT(storage_.replicas(), SizeIs(12));
}

TEST_F(TableAdminTest, OneThatWasCutDoesNotStandInTheWayOfAnother) {
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_reply = request.method == kCreateReplica && request.node == NodeId{2}};
  });
  EXPECT_THAT(Create(Spec(4)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  storage_.SetHook(nullptr);
  DYNLIB_ASSERT_OK(Create(Spec(8)));
}

TEST_F(TableAdminTest, TwoAtOnceMakeOneTable) {
  const std::unique_ptr<TableAdmin> other = NewAdmin(2);
  std::vector<absl::Status> results;
  for (TableAdmin* admin : {admin_.get(), other.get()})
    admin->CreateTable(Spec(4), [&](absl::Status status) { results.push_back(status); });
  EXPECT_TRUE(world_.RunUntil([&] { return results.size() == 2; }, std::chrono::seconds(30)));
  for (const absl::Status& status : results) DYNLIB_EXPECT_OK(status);
  EXPECT_EQ(tables(), 1u);
}

TEST_F(TableAdminTest, BusyNodesAreAskedAgain) {
  int busy = 5;
  storage_.SetHook([&](const FakeRequest& request) {
    const bool fail = request.method == kCreateReplica && busy-- > 0;
    return FakeFault{.code = fail ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk};
  });
  DYNLIB_ASSERT_OK(Create(Spec(4)));
}

TEST_F(TableAdminTest, ARefusalEndsIt) {
  storage_.SetHook([&](const FakeRequest& request) {
    const bool fail = request.method == kCreateReplica && request.node == NodeId{3};
    return FakeFault{.code = fail ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kOk};
  });
  const absl::Status status = Create(Spec(4));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(status.message()), HasSubstr("node 3"));
  EXPECT_EQ(tables(), 0u);
}

TEST_F(TableAdminTest, ADeletedTableIsMarkedForTheAutoAdmin) {
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  EXPECT_THAT(Delete("other"), StatusIs(absl::StatusCode::kNotFound));
  DYNLIB_EXPECT_OK(Delete("users"));
  DYNLIB_EXPECT_OK(Delete("users"));
  EXPECT_THAT(Create(Spec(4)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(TableAdminTest, BadSpecsAreRefused) {
  EXPECT_THAT(Create(Spec(0)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(storage_.requests(kRead), 0u);
}

TEST_F(TableAdminTest, ItsEndCancelsCreations) {
  storage_.SetHook([](const FakeRequest&) { return FakeFault{.lose_request = true}; });
  std::vector<absl::Status> results;
  admin_->CreateTable(Spec(1), [&](absl::Status status) { results.push_back(status); });
  world_.RunFor(std::chrono::milliseconds(100));
  admin_ = nullptr;
  world_.RunFor(std::chrono::seconds(20));
  ASSERT_THAT(results, SizeIs(1));
  EXPECT_THAT(results[0], StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace dynlib::cluster
