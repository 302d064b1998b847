#include "dynlib/cluster/storage_node.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kPartition = 20;
const TableSchema kSchema{.partition_key = {"id", KeyType::kString}, .sort_key = std::nullopt};

Item MakeItem(const std::string& id, const std::string& value) {
  return {{"id", Value::String(id)}, {"value", Value::String(value)}};
}
std::string KeyFor(const std::string& id) { return *EncodeKey(kSchema, Value::String(id)); }

class StorageNodeTest : public testing::Test {
 protected:
  struct Server {
    StorageNode::Environment environment;
    std::unique_ptr<StorageNode> node;
    absl::Status opened;
    std::optional<absl::Status> started;
    std::vector<absl::Status> fatal;
  };

  StorageNodeTest() {
    options_.new_cluster = true;
    options_.log.segment_bytes = 128 << 10;
    options_.log.copy_forward_above = 2;
    options_.log.max_queued_bytes = 1 << 20;
    options_.log.max_segments = 32;
    options_.replication.group.proposal_bytes_max = 16 << 10;
    options_.replication.group.unchosen_bytes_max = 64 << 10;
    options_.pages.growth_bytes_min = 64 << 10;
  }
  ~StorageNodeTest() override { world_.CrashAll(); }

  void Boot(uint64_t size) {
    config_ = {};
    for (uint64_t id = 1; id <= size; ++id) {
      world_.AddNode(NodeId{id});
      config_.nodes.push_back(
          {NodeId{id}, {.zone = "z" + std::to_string(id), .rack = "r", .power = "p"}});
      config_.catalogue_nodes.push_back(NodeId{id});
    }
    sim::Node* client = world_.AddNode(NodeId{100});
    client_ = client->NewExecutor("client");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, client->transport(), kRpcChannel, client_,
                                 client->clock());
  }
  void BootAndOpen(uint64_t size) {
    Boot(size);
    for (uint64_t id = 1; id <= size; ++id) ASSERT_TRUE(Open(id));
  }
  // On fibers, so that calls of the disk take time.
  bool Open(uint64_t id) {
    Server& server = servers_[id];
    server = {};
    sim::Node* node = world_.node(NodeId{id});
    server.environment = {.disk = node->disk(),
                          .transport = node->transport(),
                          .clock = node->clock(),
                          .executor = node->NewExecutor("main"),
                          .log_executor = node->NewBlockingExecutor("log"),
                          .checkpoint_executor = node->NewBlockingExecutor("checkpoint"),
                          .apply_executor = node->NewBlockingExecutor("apply")};
    StorageNodeOptions options = options_;
    options.id = NodeId{id};
    bool done = false;
    server.environment.checkpoint_executor->Post([&] {
      absl::StatusOr<std::unique_ptr<StorageNode>> opened =
          StorageNode::Open(options, config_, server.environment);
      server.opened = opened.status();
      if (opened.ok()) server.node = *std::move(opened);
      done = true;
    });
    world_.RunUntil([&] { return done; }, seconds(10));
    if (server.node == nullptr) return false;
    server.node->OnFatal([&server](absl::Status why) { server.fatal.push_back(std::move(why)); });
    server.node->Start([&server](absl::Status status) { server.started = std::move(status); });
    world_.RunUntil([&] { return server.started.has_value(); }, seconds(10));
    return server.started.has_value() && server.started->ok();
  }
  absl::Status Stop(uint64_t id) {
    std::optional<absl::Status> stopped;
    servers_[id].node->Stop([&](absl::Status status) { stopped = std::move(status); });
    EXPECT_TRUE(world_.RunUntil([&] { return stopped.has_value(); }, seconds(10)));
    return stopped.value_or(absl::DeadlineExceededError("no end"));
  }
  void PowerOff(uint64_t id) {
    world_.node(NodeId{id})->PowerOff(sim::UnsyncedFate::kAllLost);
    servers_[id] = {};
  }
  void Restart(uint64_t id) {
    servers_[id].node = nullptr;
    if (world_.node(NodeId{id})->up()) world_.node(NodeId{id})->Crash();
    servers_[id] = {};
    world_.node(NodeId{id})->Restart();
    ASSERT_TRUE(Open(id)) << servers_[id].opened << " "
                          << servers_[id].started.value_or(absl::UnknownError("no word"));
  }

  using Answer = std::shared_ptr<std::vector<absl::StatusOr<std::string>>>;
  Answer Send(uint64_t id, Rpc::Method method, std::string request) {
    auto answer = std::make_shared<std::vector<absl::StatusOr<std::string>>>();
    client_->Post([this, id, method, request = std::move(request), answer] {
      rpc_->Call(
          NodeId{id}, method, request, seconds(5),
          [answer](absl::StatusOr<std::string> reply) { answer->push_back(std::move(reply)); });
    });
    return answer;
  }
  template <typename Reply>
  Reply Call(uint64_t id, Rpc::Method method, const std::string& request) {
    Answer answer = Send(id, method, request);
    world_.RunUntil([&] { return !answer->empty(); }, seconds(10));
    return Parse<Reply>(answer);
  }
  template <typename Reply>
  Reply Parse(const Answer& answer) {
    Reply reply;
    if (answer->size() != 1 || !answer->front().ok() || !reply.ParseFromString(*answer->front())) {
      ADD_FAILURE() << "answers: " << answer->size()
                    << (answer->empty() ? "" : answer->front().status().ToString());
    }
    return reply;
  }
  static absl::Status ToStatus(const wire::Outcome& outcome) {
    return absl::Status(static_cast<absl::StatusCode>(outcome.code()), outcome.message());
  }

  std::string Description(uint64_t partition, std::string first = "", std::string end = "") const {
    wire::CreateReplicaRequest request;
    request.mutable_partition()->set_id(partition);
    request.mutable_partition()->set_table(2);
    request.mutable_partition()->set_first(std::move(first));
    request.mutable_partition()->set_end(std::move(end));
    for (const NodeInfo& node : config_.nodes) {
      wire::Member& member = *request.mutable_partition()->add_members();
      member.set_replica(ToUint(node.id));
      member.set_node(ToUint(node.id));
    }
    request.set_schema(EncodeSchema(kSchema));
    return request.SerializeAsString();
  }
  absl::Status Create(uint64_t id, const std::string& description) {
    return ToStatus(Call<wire::CreateReplicaReply>(id, kCreateReplica, description).outcome());
  }
  void CreateEverywhere() {
    for (auto& [id, server] : servers_) DYNLIB_ASSERT_OK(Create(id, Description(kPartition)));
  }
  std::string WriteRequest(const std::string& item, const std::string& value) {
    wire::WriteRequest request;
    request.set_partition(kPartition);
    request.mutable_command()->set_key(KeyFor(item));
    request.mutable_command()->set_put(EncodeItem(MakeItem(item, value)));
    request.set_client(9);
    request.set_sequence(++sequence_);
    request.set_acknowledged(sequence_ - 1);
    return request.SerializeAsString();
  }
  // Of any node that leads.
  bool Write(const std::string& item, const std::string& value) {
    const std::string request = WriteRequest(item, value);
    for (int tries = 0; tries < 100; ++tries) {
      for (auto& [id, server] : servers_) {
        if (server.node == nullptr) continue;
        if (Call<wire::WriteReply>(id, kWrite, request).outcome().code() == 0) return true;
      }
      world_.RunFor(milliseconds(100));
    }
    return false;
  }
  wire::ReadReply Read(uint64_t id, const std::string& item, bool strong) {
    wire::ReadRequest request;
    request.set_partition(kPartition);
    request.set_key(KeyFor(item));
    request.set_strong(strong);
    return Call<wire::ReadReply>(id, kRead, request.SerializeAsString());
  }
  // From whoever answers a strong read.
  std::string StrongRead(const std::string& item) {
    for (int tries = 0; tries < 100; ++tries) {
      for (auto& [id, server] : servers_) {
        if (server.node == nullptr) continue;
        const wire::ReadReply reply = Read(id, item, true);
        if (reply.outcome().code() != 0) continue;
        if (!reply.found()) return "";
        return DecodeItem(reply.item())->at("value").string();
      }
      world_.RunFor(milliseconds(100));
    }
    return "no answer";
  }
  wire::QueryReply Query(uint64_t id, std::string first, std::string end, uint32_t limit,
                         bool reverse = false, bool strong = false) {
    wire::QueryRequest request;
    request.set_partition(kPartition);
    request.set_first(std::move(first));
    request.set_end(std::move(end));
    request.set_limit(limit);
    request.set_reverse(reverse);
    request.set_strong(strong);
    return Call<wire::QueryReply>(id, kQuery, request.SerializeAsString());
  }
  absl::Status OpenWith(const std::function<void(StorageNodeOptions&, ClusterConfig&)>& change) {
    StorageNodeOptions options = options_;
    options.id = NodeId{1};
    ClusterConfig config = config_;
    change(options, config);
    sim::Node* node = world_.node(NodeId{1});
    return StorageNode::Open(options, config,
                             {.disk = node->disk(),
                              .transport = node->transport(),
                              .clock = node->clock(),
                              .executor = node->NewExecutor("m"),
                              .log_executor = node->NewBlockingExecutor("l"),
                              .checkpoint_executor = node->NewBlockingExecutor("c"),
                              .apply_executor = node->NewBlockingExecutor("a")})
        .status();
  }

  sim::World world_{/*seed=*/11};
  StorageNodeOptions options_;
  ClusterConfig config_;
  std::map<uint64_t, Server> servers_;
  sim::SimExecutor* client_ = nullptr;
  std::unique_ptr<Rpc> rpc_;
  uint64_t sequence_ = 0;
};

TEST_F(StorageNodeTest, OptionsOutOfRangeAreNamedAndTheDiskIsNotTouched) {
  Boot(3);
  auto expect = [&](const std::function<void(StorageNodeOptions&, ClusterConfig&)>& change,
                    const std::string& field, const std::string& value) {
    EXPECT_THAT(OpenWith(change), StatusIs(absl::StatusCode::kInvalidArgument,
                                           AllOf(HasSubstr(field), HasSubstr(value))));
  };
  using Options = StorageNodeOptions;
  using Config = ClusterConfig;
  expect([](Options& o, Config&) { o.id = {}; }, "node.id is 0", "at least 1");
  expect([](Options& o, Config&) { o.id = NodeId{9}; }, "does not list node 9", "");
  expect([](Options& o, Config&) { o.checkpoint_log_bytes = 4095; },
         "node.checkpoint_log_bytes is 4095", "at least 4,096");
  expect([](Options& o, Config&) { o.checkpoint_interval = milliseconds(9); },
         "node.checkpoint_interval is 9000", "at least 10,000");
  expect([](Options& o, Config&) { o.log.max_batch_bytes = 8192; }, "log.max_batch_bytes is 8192",
         "17408");
  expect([](Options& o, Config&) { o.replication.waiting_reads_max = 0; }, "waiting_reads_max is 0",
         "at least 1");
  expect([](Options& o, Config&) { o.rpc.max_calls = 0; }, "rpc.max_calls is 0", "at least 1");
  expect([](Options& o, Config&) { o.rpc.max_serving = 0; }, "rpc.max_serving is 0", "at least 1");
  expect([](Options&, Config& c) { c.nodes.push_back(c.nodes[1]); }, "node 2 twice", "");
  expect([](Options&, Config& c) { c.catalogue_nodes.pop_back(); }, "lists 2 nodes", "1, 3 or 5");
  expect([](Options&, Config& c) { c.catalogue_nodes[1] = NodeId{8}; }, "node 8", "config.nodes");
  expect([](Options&, Config& c) { c.nodes[1].location.zone = "z1"; }, "two nodes in zone z1", "");
  EXPECT_TRUE(world_.node(NodeId{1})->disk()->Paths().empty());
}

TEST_F(StorageNodeTest, CreatingAReplicaAgainIsHarmlessAndAnotherOneIsRefused) {
  BootAndOpen(1);
  DYNLIB_EXPECT_OK(Create(1, Description(kPartition)));
  DYNLIB_EXPECT_OK(Create(1, Description(kPartition)));
  EXPECT_THAT(Create(1, Description(kPartition, "a", "b")),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("20")));
  Restart(1);
  DYNLIB_EXPECT_OK(Create(1, Description(kPartition)));
  EXPECT_EQ(servers_[1].node->Groups().size(), 2u);
  // Asked twice at once.
  Answer first = Send(1, kCreateReplica, Description(30));
  Answer second = Send(1, kCreateReplica, Description(30));
  world_.RunFor(seconds(1));
  DYNLIB_EXPECT_OK(ToStatus(Parse<wire::CreateReplicaReply>(first).outcome()));
  EXPECT_THAT(ToStatus(Parse<wire::CreateReplicaReply>(second).outcome()),
              StatusIs(absl::StatusCode::kUnavailable));
}

// No description, whatever is in it, may keep the node from serving or from opening again.
TEST_F(StorageNodeTest, BadDescriptionsAreRefusedAndLeaveNothingBehind) {
  BootAndOpen(1);
  wire::CreateReplicaRequest foreign;
  ASSERT_TRUE(foreign.ParseFromString(Description(kPartition)));
  foreign.mutable_partition()->mutable_members(0)->set_node(2);
  wire::CreateReplicaRequest no_schema;
  ASSERT_TRUE(no_schema.ParseFromString(Description(kPartition)));
  no_schema.clear_schema();
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "partition.id is 0"},
      {"\xff\xff", "does not parse"},
      {Description(0), "partition.id is 0"},
      {Description(UINT64_MAX), "partition.id is 18446744073709551615"},
      {Description(kPartition, "b", "a"), "not after its first key"},
      {Description(kPartition, std::string(2 << 20, 'a')), "description is"},
      {foreign.SerializeAsString(), "no member on node 1"},
      {no_schema.SerializeAsString(), "schema"}};
  for (const auto& [description, why] : bad) {
    EXPECT_THAT(Create(1, description),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  }
  DYNLIB_EXPECT_OK(Create(1, Description(UINT64_MAX - 1)));
  world_.RunFor(seconds(1));
  EXPECT_TRUE(servers_[1].fatal.empty());
  DYNLIB_EXPECT_OK(Stop(1));
  Restart(1);
  EXPECT_EQ(servers_[1].node->Groups().size(), 2u);
  CreateEverywhere();
  EXPECT_TRUE(Write("a", "1"));
}

// What the replica's group would refuse would keep the node from opening again, were it made first.
TEST_F(StorageNodeTest, ALearnerIsCheckedBeforeItIsMade) {
  BootAndOpen(1);
  wire::CreateReplicaRequest sound;
  ASSERT_TRUE(sound.ParseFromString(Description(kPartition)));
  sound.set_learner(true);
  sound.set_kind(wire::LOG);
  sound.set_replica(5);
  sound.mutable_partition()->mutable_members(0)->set_node(2);
  auto refused = [&](const std::function<void(wire::CreateReplicaRequest&)>& change,
                     const std::string& why) {
    wire::CreateReplicaRequest request = sound;
    change(request);
    EXPECT_THAT(Create(1, request.SerializeAsString()),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  refused([](auto& r) { r.set_replica(0); }, "replica is 0; allowed: 1 to 65535");
  refused([](auto& r) { r.set_replica(65'536); }, "replica is 65536; allowed: 1 to 65535");
  refused([](auto& r) { r.set_replica(1); }, "the member on node 2");
  refused([](auto& r) { r.set_base(UINT64_MAX); },
          "base is 18446744073709551615; allowed: 0 to 4611686018427387903");
  refused(
      [](auto& r) {
        replication::Configuration later{.epoch = 9, .members = {{ReplicaId{7}, NodeId{2}}}};
        r.set_configuration(replication::EncodeConfiguration(later));
        r.set_base(8);
      },
      "configuration.epoch is 9; allowed: 0 to base, which is 8");
  Restart(1);
  EXPECT_EQ(servers_[1].node->Groups().size(), 1u);
  // The last id of all, as far from the log's beginning as it can be.
  sound.set_replica(65'535);
  sound.set_base(replication::kSlotMax);
  DYNLIB_EXPECT_OK(Create(1, sound.SerializeAsString()));
  Restart(1);
  EXPECT_EQ(servers_[1].node->Groups().size(), 2u);
  EXPECT_TRUE(servers_[1].fatal.empty());
}

TEST_F(StorageNodeTest, AReplicaThatCannotBeAddedAtTheStartIsLostAndItsNodeStarts) {
  BootAndOpen(3);
  wire::CreateReplicaRequest request;
  ASSERT_TRUE(request.ParseFromString(Description(kPartition)));
  request.mutable_partition()->mutable_members()->DeleteSubrange(1, 2);
  DYNLIB_ASSERT_OK(Create(1, request.SerializeAsString()));
  // A configuration from after the tree that it copies.
  request.set_learner(true);
  request.set_replica(5);
  request.set_copy_from(1);
  request.set_configuration(replication::EncodeConfiguration(
      {.epoch = 1'000'000, .members = {{ReplicaId{1}, NodeId{1}}}}));
  DYNLIB_ASSERT_OK(Create(2, request.SerializeAsString()));
  auto status = [&] {
    wire::ReplicaStatus found;
    const auto reply = Call<wire::NodeStatusReply>(2, kNodeStatus, "");
    for (const wire::ReplicaStatus& replica : reply.replicas()) {
      if (replica.partition() == kPartition) found = replica;
    }
    return found;
  };
  for (int tries = 0; tries < 50 && !status().failed(); ++tries) world_.RunFor(milliseconds(100));
  EXPECT_FALSE(status().copying());
  Restart(2);
  EXPECT_EQ(status().replica(), 5u);
  EXPECT_TRUE(status().failed());
  EXPECT_THAT(ToStatus(Read(2, "a", false).outcome()), StatusIs(absl::StatusCode::kNotFound));
  wire::DropReplicaRequest drop;
  drop.set_partition(kPartition);
  drop.set_replica(5);
  DYNLIB_EXPECT_OK(
      ToStatus(Call<wire::DropReplicaReply>(2, kDropReplica, drop.SerializeAsString()).outcome()));
  Restart(2);
  EXPECT_EQ(status().replica(), 0u);
}

TEST_F(StorageNodeTest, KeysOutsideThePartitionAreOutOfRange) {
  BootAndOpen(1);
  const std::string middle = KeyFor("m");
  DYNLIB_ASSERT_OK(Create(1, Description(kPartition, middle, middle + "x")));
  EXPECT_TRUE(Write("m", "1"));
  const wire::ReadReply reply = Read(1, "a", false);
  EXPECT_THAT(ToStatus(reply.outcome()),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("partition 20")));
  EXPECT_THAT(ToStatus(Call<wire::WriteReply>(1, kWrite, WriteRequest("a", "1")).outcome()),
              StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(ToStatus(Query(1, "", "", 0).outcome()), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(ToStatus(Query(1, middle, "", 0).outcome()), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_EQ(Query(1, middle, middle + "x", 0).rows_size(), 1);
  wire::ReadRequest elsewhere;
  elsewhere.set_partition(4242);
  EXPECT_THAT(ToStatus(Call<wire::ReadReply>(1, kRead, elsewhere.SerializeAsString()).outcome()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("4242")));
}

TEST_F(StorageNodeTest, BadWritesAreInvalidArguments) {
  BootAndOpen(1);
  CreateEverywhere();
  ASSERT_TRUE(Write("a", "0"));
  ASSERT_TRUE(Write("a", "1"));  // Acknowledges the first.
  auto refused = [&](const std::function<void(wire::WriteRequest&)>& change) {
    wire::WriteRequest request;
    ASSERT_TRUE(request.ParseFromString(WriteRequest("a", "2")));
    change(request);
    EXPECT_THAT(ToStatus(Call<wire::WriteReply>(1, kWrite, request.SerializeAsString()).outcome()),
                StatusIs(absl::StatusCode::kInvalidArgument));
  };
  refused([](auto& r) { r.set_client(0); });
  refused([](auto& r) { r.set_sequence(0); });
  refused([](auto& r) { r.set_sequence(1), r.set_acknowledged(0); });  // Acknowledged already.
  refused([](auto& r) { r.mutable_command()->clear_change(); });
  refused([](auto& r) { r.mutable_command()->set_put("junk"); });
  refused([](auto& r) { r.mutable_command()->set_key("junk"); });
  refused([](auto& r) { r.mutable_command()->set_key(KeyFor("b")); });
  refused([](auto& r) { r.mutable_command()->set_key(std::string(10'000, 'k')); });
  refused([](auto& r) { r.mutable_command()->set_condition("junk"); });
  refused([](auto& r) {
    r.mutable_command()->set_put(EncodeItem(MakeItem("a", std::string(17 << 10, 'x'))));
  });
  EXPECT_EQ(StrongRead("a"), "1");
}

TEST_F(StorageNodeTest, RandomRequestsAreAnsweredAndHarmless) {
  BootAndOpen(1);
  CreateEverywhere();
  ASSERT_TRUE(Write("a", "1"));
  Random random(2);
  wire::ReadRequest read;
  read.set_partition(kPartition);
  read.set_key(KeyFor("a"));
  read.set_strong(true);
  wire::QueryRequest query;
  query.set_partition(kPartition);
  query.set_first("b");
  query.set_end("a");
  const std::vector<std::pair<Rpc::Method, std::string>> good = {
      {kWrite, WriteRequest("z", "2")},
      {kRead, read.SerializeAsString()},
      {kQuery, query.SerializeAsString()},
      {kCreateReplica, Description(21)},
      {kNodeStatus, ""}};
  std::vector<Answer> answers;
  size_t invalid = 0;
  for (int i = 0; i < 3'000; ++i) {
    auto [method, bytes] = good[random.Below(good.size())];
    if (i % 3 == 0) {
      bytes.resize(random.Below(50));
      for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    } else if (!bytes.empty()) {
      bytes.resize(random.Below(bytes.size() + 1));
      for (uint64_t flips = random.Below(3); flips > 0 && !bytes.empty(); --flips)
        bytes[random.Below(bytes.size())] = static_cast<char>(random.Below(256));
    }
    Answer answer = Send(1, method, bytes);
    world_.RunUntil([&] { return !answer->empty(); }, seconds(6));
    ASSERT_EQ(answer->size(), 1u);
    ASSERT_TRUE(answer->front().ok()) << answer->front().status();
    wire::WriteReply reply;  // All replies have the outcome as their field 1.
    ASSERT_TRUE(reply.ParseFromString(*answer->front()));
    invalid += reply.outcome().code() == static_cast<int>(absl::StatusCode::kInvalidArgument);
  }
  EXPECT_GT(invalid, 1000u);
  EXPECT_TRUE(servers_[1].fatal.empty());
  EXPECT_EQ(StrongRead("a"), "1");
  DYNLIB_EXPECT_OK(Stop(1));
  Restart(1);
  EXPECT_EQ(StrongRead("a"), "1");
}

TEST_F(StorageNodeTest, EveryReplicaAnswersEventualReadsAndOneStrongOnes) {
  BootAndOpen(3);
  CreateEverywhere();
  ASSERT_TRUE(Write("a", "1"));
  world_.RunFor(seconds(1));
  int strong = 0;
  for (uint64_t id = 1; id <= 3; ++id) {
    EXPECT_TRUE(Read(id, "a", false).found());
    EXPECT_FALSE(Read(id, "absent", false).found());
    EXPECT_EQ(Query(id, "", "", 0).rows_size(), 1);
    const wire::ReadReply reply = Read(id, "a", true);
    if (reply.outcome().code() == 0) {
      ++strong;
    } else {
      EXPECT_THAT(ToStatus(reply.outcome()), StatusIs(absl::StatusCode::kFailedPrecondition));
      EXPECT_NE(reply.outcome().leader_node(), id);
      EXPECT_TRUE(Read(reply.outcome().leader_node(), "a", true).found());
      EXPECT_EQ(Query(reply.outcome().leader_node(), "", "", 0, false, true).rows_size(), 1);
    }
  }
  EXPECT_EQ(strong, 1);
}

TEST_F(StorageNodeTest, QueriesPageByItemsAndByBytes) {
  options_.replication.group.proposal_bytes_max = 24 << 10;
  BootAndOpen(1);
  CreateEverywhere();
  const int items = 120;
  for (int i = 0; i < items; ++i)
    ASSERT_TRUE(Write("k" + std::to_string(i), std::string(20'000, 'v')));
  for (uint32_t limit : {0u, 7u, 120u, 1000u}) {
    for (bool reverse : {false, true}) {
      std::vector<std::string> keys;
      std::string first, end;
      size_t pages = 0;
      while (true) {
        const wire::QueryReply reply = Query(1, first, end, limit, reverse);
        DYNLIB_ASSERT_OK(ToStatus(reply.outcome()));
        ++pages;
        size_t bytes = 0;
        for (const wire::QueryReply::Row& row : reply.rows()) {
          keys.push_back(row.key());
          bytes += row.key().size() + row.item().size();
        }
        EXPECT_LE(bytes, kQueryBytesMax);
        EXPECT_TRUE(limit == 0 || reply.rows_size() <= static_cast<int>(limit));
        if (!reply.more()) break;
        ASSERT_GT(reply.rows_size(), 0);
        if (reverse) {
          end = keys.back();
        } else {
          first = keys.back() + std::string(1, '\0');
        }
      }
      EXPECT_EQ(keys.size(), static_cast<size_t>(items));
      if (reverse) std::reverse(keys.begin(), keys.end());
      EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
      EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
      EXPECT_EQ(pages, limit == 7 ? 18u : 3u);
    }
  }
}

TEST_F(StorageNodeTest, StopThenOpenFindsEverything) {
  BootAndOpen(1);
  CreateEverywhere();
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(Write("k" + std::to_string(i), std::to_string(i)));
  DYNLIB_EXPECT_OK(Stop(1));
  Restart(1);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(StrongRead("k" + std::to_string(i)), std::to_string(i));
}

TEST_F(StorageNodeTest, PowerFailureLosesNothingThatWasAcknowledged) {
  BootAndOpen(1);
  CreateEverywhere();
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 10; ++i)
      ASSERT_TRUE(Write("k" + std::to_string(i), std::to_string(round * 10 + i)));
    PowerOff(1);
    Restart(1);
    for (int i = 0; i < 10; ++i)
      EXPECT_EQ(StrongRead("k" + std::to_string(i)), std::to_string(round * 10 + i));
  }
}

TEST_F(StorageNodeTest, ADirectoryCanBeMadeAgainWhereverThePowerFailed) {
  Boot(1);
  bool opened = false;
  for (uint64_t call = 1; !opened; ++call) {
    sim::Node* node = world_.node(NodeId{1});
    for (const std::string& path : node->disk()->Paths()) node->disk()->Remove(path).IgnoreError();
    node->disk()->SyncDir("log").IgnoreError();
    DYNLIB_ASSERT_OK(node->disk()->SyncDir(""));
    node->disk()->FailCall(call, sim::DiskFault::kPowerOff, sim::UnsyncedFate::kTorn);
    opened = Open(1);
    node->disk()->ClearFailCall();
    servers_[1].node = nullptr;
    if (!opened) {
      world_.RunFor(milliseconds(10));
      node->PowerOff(sim::UnsyncedFate::kTorn);
      Restart(1);
      node->Crash();
      servers_[1] = {};
      node->Restart();
    } else {
      node->Crash();
    }
    ASSERT_LT(call, 500u);
    ASSERT_FALSE(HasFailure()) << "call " << call;
  }
}

TEST_F(StorageNodeTest, StopAnswersWhatIsInFlight) {
  BootAndOpen(3);
  CreateEverywhere();
  ASSERT_TRUE(Write("a", "1"));
  std::vector<Answer> answers;
  for (auto& [id, server] : servers_) {
    for (int i = 0; i < 5; ++i) answers.push_back(Send(id, kWrite, WriteRequest("b", "2")));
    for (bool strong : {true, false}) {
      wire::ReadRequest read;
      read.set_partition(kPartition);
      read.set_key(KeyFor("a"));
      read.set_strong(strong);
      answers.push_back(Send(id, kRead, read.SerializeAsString()));
    }
    answers.push_back(Send(id, kCreateReplica, Description(40)));
  }
  world_.RunFor(std::chrono::microseconds(130));  // They have arrived.
  std::vector<absl::Status> stopped;
  std::vector<absl::Status> checkpoints;
  for (auto& [id, server] : servers_) {
    for (int i = 0; i < 3; ++i)
      server.node->Checkpoint([&](absl::Status s) { checkpoints.push_back(std::move(s)); });
    server.node->Stop([&](absl::Status s) { stopped.push_back(std::move(s)); });
  }
  ASSERT_TRUE(world_.RunUntil([&] { return stopped.size() == 3; }, seconds(2)));
  for (const absl::Status& status : stopped) DYNLIB_EXPECT_OK(status);
  world_.RunFor(milliseconds(10));
  for (const Answer& answer : answers) {
    ASSERT_EQ(answer->size(), 1u);
    DYNLIB_EXPECT_OK(answer->front());
  }
  EXPECT_EQ(checkpoints.size(), 9u);
  // Another process may have the directory now: nothing more is written.
  const uint64_t calls = world_.node(NodeId{1})->disk()->calls();
  servers_[1].node->Checkpoint([&](absl::Status s) {
    EXPECT_THAT(s, StatusIs(absl::StatusCode::kCancelled));
    checkpoints.push_back(std::move(s));
  });
  world_.RunFor(seconds(1));
  EXPECT_EQ(checkpoints.size(), 10u);
  EXPECT_EQ(world_.node(NodeId{1})->disk()->calls(), calls);
}

TEST_F(StorageNodeTest, CheckpointsComeByBytesAndTheLogIsReleased) {
  options_.checkpoint_log_bytes = 64 << 10;
  options_.checkpoint_interval = std::chrono::hours(1);
  BootAndOpen(1);
  CreateEverywhere();
  auto segments = [&] {
    const std::vector<std::string> paths = world_.node(NodeId{1})->disk()->Paths();
    return std::count_if(paths.begin(), paths.end(),
                         [](const std::string& path) { return path.starts_with("log/"); });
  };
  for (int i = 0; i < 300; ++i)  // Some 3 MB of log: 24 segments, were none recycled.
    ASSERT_TRUE(Write("k" + std::to_string(i % 5), std::string(10'000, 'v')));
  EXPECT_LE(segments(), 10);
  const std::vector<replication::GroupStatus> groups = servers_[1].node->Groups();
  for (const replication::GroupStatus& group : groups) {
    EXPECT_TRUE(group.group != PartitionId{kPartition} || group.released > 200) << group.released;
  }
}

TEST_F(StorageNodeTest, CheckpointsComeByTime) {
  options_.checkpoint_interval = seconds(2);
  BootAndOpen(1);
  CreateEverywhere();
  ASSERT_TRUE(Write("a", "1"));
  auto durable = [&] {
    const auto reply = Call<wire::NodeStatusReply>(1, kNodeStatus, "");
    for (const wire::ReplicaStatus& replica : reply.replicas()) {
      if (replica.partition() == kPartition) return replica.durable();
    }
    return uint64_t{0};
  };
  EXPECT_EQ(durable(), 0u);
  world_.RunFor(seconds(3));
  EXPECT_GE(durable(), 2u);
}

TEST_F(StorageNodeTest, ADirectoryInUseOrOfAnotherNodeIsRefused) {
  BootAndOpen(3);
  EXPECT_THAT(OpenWith([](auto&, auto&) {}), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(OpenWith([](StorageNodeOptions& o, auto&) { o.id = NodeId{2}; }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("belongs to node 1")));
}

}  // namespace
}  // namespace dynlib::cluster
