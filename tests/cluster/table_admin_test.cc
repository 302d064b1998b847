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
  // Those that routers see, without the catalogue.
  size_t tables() {
    size_t count = 0;
    for (const TableInfo& table : storage_.Tables()) count += !table.deleting;
    return count - 1;
  }
  // Six nodes, two a zone.
  void Grow() {
    config_ = Cluster(6);
    for (uint64_t id = 4; id <= 6; ++id) storage_.AddNode(NodeId{id});
    admin_ = NewAdmin(9);
  }
  std::set<NodeId> NodesOf(const std::string& name) {
    std::set<NodeId> nodes;
    const std::optional<TableInfo> table = Entry(name);
    for (const PartitionInfo& partition : table->partitions) {
      for (const PartitionMember& member : partition.members) nodes.insert(member.node);
    }
    return nodes;
  }

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
    const std::optional<TableInfo> entry = Entry("users");
    if (request.method == kCreateReplica) {
      EXPECT_TRUE(entry.has_value() && entry->creating && entry->deleting) << "nobody's replica";
    }
    EXPECT_EQ(tables(), 0u);
    return FakeFault{};
  });
  DYNLIB_ASSERT_OK(Create(Spec(4)));
  EXPECT_FALSE(Entry("users")->creating);
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

TEST_F(TableAdminTest, NodesThatAreSilentGetNoReplicas) {
  Grow();
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_request = request.node == NodeId{5}};
  });
  DYNLIB_ASSERT_OK(Create(Spec(8)));
  EXPECT_EQ(NodesOf("users"), (std::set{NodeId{1}, NodeId{2}, NodeId{3}, NodeId{4}, NodeId{6}}));
}

TEST_F(TableAdminTest, FullNodesGetFewerReplicas) {
  Grow();
  storage_.status(NodeId{4}).set_used_bytes(uint64_t{1} << 39);
  DYNLIB_ASSERT_OK(Create(Spec(8)));
  EXPECT_EQ(NodesOf("users"), (std::set{NodeId{1}, NodeId{2}, NodeId{3}, NodeId{5}, NodeId{6}}));
}

TEST_F(TableAdminTest, ANodeThatFallsSilentIsPlacedAroundUnderAnotherId) {
  Grow();
  std::set<TableId> ids;
  storage_.SetHook([&](const FakeRequest& request) {
    if (request.method == kCreateReplica) ids.insert(Entry("users")->id);
    return FakeFault{.lose_request = request.method == kCreateReplica && request.node == NodeId{5}};
  });
  DYNLIB_ASSERT_OK(Create(Spec(8)));
  EXPECT_FALSE(NodesOf("users").contains(NodeId{5}));
  EXPECT_THAT(ids, SizeIs(2));
}

TEST_F(TableAdminTest, WithoutANodeToSpareASilentOneIsWaitedFor) {
  int lost = 0;
  storage_.SetHook([&](const FakeRequest& request) {
    const bool lose = request.node == NodeId{3} && request.method != kRead && lost++ < 6;
    return FakeFault{.lose_request = lose};
  });
  DYNLIB_ASSERT_OK(Create(Spec(1)));
  EXPECT_GE(lost, 6);
}

TEST_F(TableAdminTest, IdsAreNeverDrawnTwice) {
  std::set<TableId> tables;
  std::set<PartitionId> partitions;
  std::vector<std::unique_ptr<TableAdmin>> admins;
  size_t done = 0;
  for (uint64_t i = 0; i < 10; ++i) {
    admins.push_back(NewAdmin(100 + i));
    admins.back()->CreateTable(Spec(2, "table" + std::to_string(i)), [&](absl::Status status) {
      DYNLIB_EXPECT_OK(status);
      ++done;
    });
  }
  ASSERT_TRUE(world_.RunUntil([&] { return done == 10; }, std::chrono::seconds(30)));
  for (const TableInfo& table : storage_.Tables()) {
    tables.insert(table.id);
    for (const PartitionInfo& partition : table.partitions) partitions.insert(partition.id);
  }
  EXPECT_THAT(tables, SizeIs(11));
  EXPECT_THAT(partitions, SizeIs(21));
}

TEST_F(TableAdminTest, OfTwoDifferentAtOnceOneIsMadeAndTheOtherIsTold) {
  const std::unique_ptr<TableAdmin> other = NewAdmin(2);
  std::vector<absl::Status> results;
  auto note = [&](absl::Status status) { results.push_back(std::move(status)); };
  admin_->CreateTable(Spec(4), note);
  other->CreateTable(Spec(5), note);
  EXPECT_TRUE(world_.RunUntil([&] { return results.size() == 2; }, std::chrono::seconds(30)));
  EXPECT_EQ(results[0].ok() + results[1].ok(), 1);
  const absl::Status& refused = results[0].ok() ? results[1] : results[0];
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("number of partitions"));
  EXPECT_EQ(tables(), 1u);
}

TEST_F(TableAdminTest, ACreationThatIsDeletedEnds) {
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_request = request.method == kCreateReplica && request.node == NodeId{2}};
  });
  std::optional<absl::Status> created;
  admin_->CreateTable(Spec(4), [&](absl::Status status) { created = std::move(status); });
  ASSERT_TRUE(world_.RunUntil([&] { return Entry("users").has_value(); }, std::chrono::seconds(5)));
  DYNLIB_EXPECT_OK(Delete("users"));
  storage_.SetHook(nullptr);
  ASSERT_TRUE(world_.RunUntil([&] { return created.has_value(); }, std::chrono::seconds(30)));
  EXPECT_THAT(*created, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(Entry("users")->deleting);
  EXPECT_FALSE(Entry("users")->creating);
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
