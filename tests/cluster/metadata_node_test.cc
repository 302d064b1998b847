#include "dynlib/cluster/metadata_node.h"

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
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/metadata_snapshot.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using partition_map::PartitionRecord;
using partition_map::TableRecord;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr NodeId kA{901}, kB{902}, kClient{50};
constexpr TableId kTable{9};

PartitionRecord Record(uint64_t partition, std::string first, std::string end,
                       uint64_t generation = 1) {
  return {.table = kTable,
          .partition = PartitionId{partition},
          .first = std::move(first),
          .end = std::move(end),
          .generation = generation,
          .epoch = 0,
          .members = {{ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{2}}},
          .leader = NodeId{1},
          .leader_ballot = 5};
}
TableRecord Table() {
  return {.table = kTable, .name = "letters", .version = 1, .descriptor = "as the cluster likes"};
}

class MetadataNodeTest : public ::testing::Test {
 protected:
  MetadataNodeTest() : world_(1) {
    config_.metadata_nodes = {kA, kB};
    for (NodeId id : config_.metadata_nodes) world_.AddNode(id);
    sim::Node* client = world_.AddNode(kClient);
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, client->transport(), kRpcChannel,
                                 client->NewExecutor("client"), client->clock());
    options_.map.warm_up = seconds(15);
    options_.sync_interval = milliseconds(100);
  }

  void Start(NodeId id) {
    options_.id = id;
    sim::Node* node = world_.node(id);
    MetadataNode::Environment environment{.transport = node->transport(),
                                          .clock = node->clock(),
                                          .executor = node->NewExecutor("main")};
    if (!with_disk_) {
      DYNLIB_ASSERT_OK_AND_ASSIGN(nodes_[id], MetadataNode::Create(options_, config_, environment));
      return;
    }
    RunBlocking(id, [&](Disk* disk) {
      environment.disk = disk;
      environment.disk_executor = node->NewBlockingExecutor("disk");
      DYNLIB_ASSERT_OK_AND_ASSIGN(nodes_[id], MetadataNode::Create(options_, config_, environment));
    });
  }
  void RunBlocking(NodeId id, const std::function<void(Disk*)>& task) {
    bool done = false;
    sim::Node* node = world_.node(id);
    node->NewBlockingExecutor("test")->Post([&] {
      task(node->disk());
      done = true;
    });
    world_.RunUntil([&] { return done; }, seconds(5));
    EXPECT_TRUE(done);
  }
  void Kill(NodeId id) {
    world_.node(id)->Crash();
    nodes_.erase(id);
  }
  void Restart(NodeId id) {
    Kill(id);
    world_.node(id)->Restart();
    Start(id);
  }

  absl::StatusOr<std::string> Call(NodeId node, Rpc::Method method, std::string request) {
    std::optional<absl::StatusOr<std::string>> result;
    rpc_->Call(node, method, std::move(request), seconds(1),
               [&](absl::StatusOr<std::string> reply) { result = std::move(reply); });
    world_.RunUntil([&] { return result.has_value(); }, seconds(5));
    return result.value_or(absl::DeadlineExceededError("no end"));
  }
  template <typename Reply>
  Reply Ask(NodeId node, Rpc::Method method, const auto& request) {
    Reply reply;
    absl::StatusOr<std::string> bytes = Call(node, method, request.SerializeAsString());
    DYNLIB_EXPECT_OK(bytes);
    EXPECT_TRUE(bytes.ok() && reply.ParseFromString(*bytes));
    return reply;
  }
  static absl::StatusCode CodeOf(const auto& reply) {
    return static_cast<absl::StatusCode>(reply.outcome().code());
  }
  wire::LookUpReply LookUp(NodeId node, const std::string& key, TableId table = kTable) {
    wire::LookUpRequest request;
    request.set_table(ToUint(table));
    request.set_key(key);
    return Ask<wire::LookUpReply>(node, kLookUp, request);
  }
  std::optional<PartitionRecord> Found(NodeId node, const std::string& key) {
    const wire::LookUpReply reply = LookUp(node, key);
    if (reply.outcome().code() != 0) return std::nullopt;
    return *partition_map::DecodePartitionRecord(reply.record());
  }
  wire::DescribeTableReply Describe(NodeId node, const std::string& name) {
    wire::DescribeTableRequest request;
    request.set_name(name);
    return Ask<wire::DescribeTableReply>(node, kDescribeTable, request);
  }
  wire::PushReply Push(NodeId node, std::vector<PartitionRecord> partitions,
                       std::vector<TableRecord> tables = {}) {
    wire::PushRequest request;
    for (const PartitionRecord& record : partitions)
      request.add_partitions(partition_map::Encode(record));
    for (const TableRecord& record : tables) request.add_tables(partition_map::Encode(record));
    return Ask<wire::PushReply>(node, kPush, request);
  }
  wire::MetadataStatusReply Status(NodeId node) {
    return Ask<wire::MetadataStatusReply>(node, kMetadataStatus, wire::MetadataStatusRequest());
  }

  sim::World world_;
  ClusterConfig config_;
  MetadataNodeOptions options_;
  bool with_disk_ = false;
  std::map<NodeId, std::unique_ptr<MetadataNode>> nodes_;
  std::unique_ptr<Rpc> rpc_;
};

TEST_F(MetadataNodeTest, WhatWasPushedIsFound) {
  Start(kA);
  EXPECT_EQ(CodeOf(Push(kA, {Record(20, "", "m"), Record(21, "m", "")}, {Table()})),
            absl::StatusCode::kOk);
  EXPECT_EQ(Found(kA, "a"), Record(20, "", "m"));
  EXPECT_EQ(Found(kA, "m"), Record(21, "m", ""));
  const wire::DescribeTableReply table = Describe(kA, "letters");
  EXPECT_EQ(*partition_map::DecodeTableRecord(table.table()), Table());
  const wire::MetadataStatusReply status = Status(kA);
  EXPECT_EQ(status.partitions(), 2u);
  EXPECT_EQ(status.tables(), 1u);
  EXPECT_EQ(status.look_ups(), 2u);
  EXPECT_EQ(status.pushes(), 1u);
}

TEST_F(MetadataNodeTest, ChildrenOfASplitTakeTheirKeysInAnyOrder) {
  Start(kA);
  Push(kA, {Record(21, "m", "", 2)});
  Push(kA, {Record(20, "", "", 1)});
  EXPECT_EQ(Found(kA, "z")->partition, PartitionId{21});
  EXPECT_EQ(Found(kA, "a")->partition, PartitionId{20});
}

TEST_F(MetadataNodeTest, ADroppedTableIsNotFound) {
  Start(kA);
  Push(kA, {Record(20, "", "")}, {Table()});
  TableRecord dropped = Table();
  dropped.version = 2;
  dropped.dropped = true;
  Push(kA, {}, {dropped});
  EXPECT_EQ(CodeOf(LookUp(kA, "a")), absl::StatusCode::kNotFound) << "even before it is ready";
  // Late records of it do not bring it back.
  Push(kA, {Record(20, "", "")}, {Table()});
  EXPECT_EQ(CodeOf(LookUp(kA, "a")), absl::StatusCode::kNotFound);
}

TEST_F(MetadataNodeTest, UntilItIsReadyItDoesNotClaimThatSomethingIsAbsent) {
  // Both are new: that they agree on nothing at all proves nothing.
  Start(kA);
  Start(kB);
  world_.RunFor(seconds(5));
  EXPECT_EQ(CodeOf(LookUp(kA, "a")), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(Describe(kA, "letters")), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(Status(kA).ready());
  world_.RunFor(seconds(11));
  EXPECT_EQ(CodeOf(LookUp(kA, "a")), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(Describe(kA, "letters")), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Status(kA).ready());
}

TEST_F(MetadataNodeTest, ANodeThatStartsAgainHasTheMapFromItsPeerAtOnce) {
  Start(kA);
  Start(kB);
  world_.RunFor(seconds(16));
  std::vector<PartitionRecord> records;
  for (int i = 0; i < 500; ++i) {
    std::string first = i == 0 ? "" : "k" + std::to_string(1000 + i);
    std::string end = i == 499 ? "" : "k" + std::to_string(1001 + i);
    records.push_back(Record(100 + i, std::move(first), std::move(end)));
  }
  const uint64_t before = Push(kA, {}, {Table()}).incarnation();
  const uint64_t peer = Push(kB, records).incarnation();
  Restart(kA);
  world_.RunFor(milliseconds(50));
  EXPECT_TRUE(Status(kA).ready());
  EXPECT_EQ(Status(kA).partitions(), 500u);
  EXPECT_EQ(Found(kA, "k1250")->partition, PartitionId{350});
  EXPECT_EQ(CodeOf(LookUp(kA, "a", TableId{10})), absl::StatusCode::kNotFound);
  EXPECT_NE(Push(kA, {}).incarnation(), before) << "who pushes must see that it forgot";
  EXPECT_EQ(Push(kB, {}).incarnation(), peer);
}

TEST_F(MetadataNodeTest, PeersComeInStepWhicheverWasTold) {
  Start(kA);
  Start(kB);
  Push(kA, {Record(20, "", "m")}, {Table()});
  Push(kB, {Record(21, "m", "")});
  world_.RunFor(milliseconds(300));
  for (NodeId node : {kA, kB}) {
    EXPECT_EQ(Found(node, "a"), Record(20, "", "m"));
    EXPECT_EQ(Found(node, "z"), Record(21, "m", ""));
    EXPECT_EQ(CodeOf(Describe(node, "letters")), absl::StatusCode::kOk);
  }
  EXPECT_EQ(Status(kA).digest(), Status(kB).digest());
  // The peer is away; then it is told what it missed.
  Kill(kB);
  Push(kA, {Record(30, "", "c", 2)});
  world_.RunFor(seconds(2));
  world_.node(kB)->Restart();
  Start(kB);
  world_.RunFor(milliseconds(300));
  EXPECT_EQ(Found(kB, "b")->partition, PartitionId{30});
  EXPECT_EQ(Status(kA).digest(), Status(kB).digest());
}

TEST_F(MetadataNodeTest, ComesInStepOverANetworkThatLosesMessages) {
  world_.SetFaults({.network_loss = 0.3, .network_repeat = 0.1});
  options_.sync_timeout = milliseconds(50);
  Start(kA);
  Start(kB);
  world_.SetFaults({});
  Push(kA, {Record(20, "", "m")});
  world_.SetFaults({.network_loss = 0.3, .network_repeat = 0.1});
  world_.RunFor(seconds(10));
  world_.SetFaults({});
  EXPECT_EQ(Found(kB, "a"), Record(20, "", "m"));
}

TEST_F(MetadataNodeTest, ABadRecordDoesNotKeepTheOthersOut) {
  Start(kA);
  wire::PushRequest request;
  request.add_partitions("nonsense");
  request.add_partitions(partition_map::Encode(Record(20, "", "m")));
  const auto reply = Ask<wire::PushReply>(kA, kPush, request);
  EXPECT_EQ(CodeOf(reply), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(reply.outcome().message(), HasSubstr("1 records are refused"));
  EXPECT_NE(reply.incarnation(), 0u);
  EXPECT_EQ(Found(kA, "a"), Record(20, "", "m"));
}

TEST_F(MetadataNodeTest, ABatchIsAnsweredKeyByKey) {
  Start(kA);
  Push(kA, {Record(20, "", "m"), Record(21, "m", "t")});
  wire::LookUpBatchRequest request;
  for (const char* key : {"n", "a", "z"}) {
    request.add_keys()->set_table(ToUint(kTable));
    request.mutable_keys()->rbegin()->set_key(key);
  }
  auto reply = Ask<wire::LookUpBatchReply>(kA, kLookUpBatch, request);
  EXPECT_EQ(CodeOf(reply), absl::StatusCode::kOk);
  ASSERT_EQ(reply.answers_size(), 3);
  EXPECT_THAT(partition_map::DecodePartitionRecord(reply.answers(0).record()),
              IsOkAndHolds(Record(21, "m", "t")));
  EXPECT_THAT(partition_map::DecodePartitionRecord(reply.answers(1).record()),
              IsOkAndHolds(Record(20, "", "m")));
  EXPECT_EQ(CodeOf(reply.answers(2)), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Status(kA).look_ups(), 3u);

  for (int i = 0; i < 1000; ++i) request.add_keys();
  reply = Ask<wire::LookUpBatchReply>(kA, kLookUpBatch, request);
  EXPECT_EQ(CodeOf(reply), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(reply.outcome().message(), HasSubstr("1003 keys; allowed: up to 1000"));
}

TEST_F(MetadataNodeTest, StatusSaysHowStaleItMayBe) {
  Start(kA);
  EXPECT_FALSE(Status(kA).has_since_in_step_us());
  EXPECT_FALSE(Status(kA).has_oldest_source_age_us());
  Start(kB);
  Push(kA, {Record(20, "", "m")});
  world_.RunFor(seconds(1));
  EXPECT_LT(Status(kA).since_in_step_us(), 500'000u);
  Kill(kB);
  world_.RunFor(seconds(7));
  const wire::MetadataStatusReply status = Status(kA);
  EXPECT_GE(status.since_in_step_us(), 6'500'000u);
  EXPECT_EQ(status.sources(), 1u);
  EXPECT_GE(status.oldest_source_age_us(), 7'500'000u);
}

// A node that comes back alone has what it saved, and does not claim to know more.
TEST_F(MetadataNodeTest, ItStartsFromItsSnapshot) {
  with_disk_ = true;
  options_.snapshot_interval = seconds(2);
  Start(kA);
  Push(kA, {Record(20, "", "m"), Record(21, "m", "t")}, {Table()});
  world_.RunFor(seconds(5));
  Restart(kA);
  EXPECT_EQ(Found(kA, "n"), Record(21, "m", "t"));
  EXPECT_EQ(CodeOf(LookUp(kA, "z")), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(Describe(kA, "letters")), absl::StatusCode::kOk);
  EXPECT_EQ(Status(kA).from_snapshot(), 3u);

  // Damaged, it is not used.
  RunBlocking(kA, [&](Disk* disk) {
    const auto file = disk->Open(kMetadataSnapshotPath, OpenMode::kReadWrite);
    DYNLIB_ASSERT_OK(file);
    DYNLIB_EXPECT_OK((*file)->WriteAt(60, "x"));
    DYNLIB_EXPECT_OK((*file)->Sync());
  });
  Restart(kA);
  EXPECT_EQ(Status(kA).from_snapshot(), 0u);
  EXPECT_EQ(CodeOf(LookUp(kA, "n")), absl::StatusCode::kUnavailable);
}

TEST_F(MetadataNodeTest, RequestsThatDoNotParseAreRefused) {
  Start(kA);
  for (Rpc::Method method :
       {kLookUp, kLookUpBatch, kDescribeTable, kPush, kMetadataSync, kMetadataStatus}) {
    absl::StatusOr<std::string> bytes = Call(kA, method, "\xff\xff\xff");
    DYNLIB_ASSERT_OK(bytes);
    wire::LookUpReply reply;
    ASSERT_TRUE(reply.ParseFromString(*bytes));
    EXPECT_EQ(CodeOf(reply), absl::StatusCode::kInvalidArgument);
  }
  wire::MetadataSyncRequest request;
  request.set_message("nonsense");
  EXPECT_EQ(CodeOf(Ask<wire::MetadataSyncReply>(kA, kMetadataSync, request)),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(MetadataNodeTest, OtherServicesShareItsChannel) {
  Start(kA);
  constexpr Rpc::Method kOther{99};
  nodes_[kA]->rpc()->Handle(
      kOther, [](NodeId, Instant, std::string, Rpc::Reply reply) { reply(std::string("here")); });
  EXPECT_THAT(Call(kA, kOther, ""), IsOkAndHolds("here"));
}

TEST_F(MetadataNodeTest, OptionsAreChecked) {
  sim::Node* node = world_.node(kA);
  const MetadataNode::Environment environment{.transport = node->transport(),
                                              .clock = node->clock(),
                                              .executor = node->NewExecutor("main")};
  options_.id = kA;
  auto message = [&](auto change) {
    MetadataNodeOptions options = options_;
    ClusterConfig config = config_;
    change(options, config);
    const absl::Status status = MetadataNode::Create(options, config, environment).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  EXPECT_THAT(message([](auto& o, auto&) { o.id = NodeId{}; }), HasSubstr("id is 0"));
  EXPECT_THAT(message([](auto& o, auto&) { o.id = NodeId{1}; }), HasSubstr("metadata_nodes"));
  EXPECT_THAT(message([](auto& o, auto&) { o.rpc.max_calls = 0; }), HasSubstr("max_calls"));
  EXPECT_THAT(message([](auto& o, auto&) { o.rpc.max_serving = 0; }), HasSubstr("max_serving"));
  EXPECT_THAT(message([](auto& o, auto&) { o.sync_interval = {}; }), HasSubstr("sync_interval"));
  EXPECT_THAT(message([](auto& o, auto&) { o.sync_timeout = std::chrono::hours(1); }),
              HasSubstr("sync_timeout"));
  EXPECT_THAT(message([](auto& o, auto&) { o.snapshot_interval = seconds(0); }),
              HasSubstr("snapshot_interval is 0 us; allowed: 1000000 to"));
  MetadataNode::Environment half = environment;
  half.disk = node->disk();
  EXPECT_THAT(MetadataNode::Create(options_, config_, half),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("disk_executor")));
  EXPECT_THAT(message([](auto& o, auto&) { o.map.sources_max = 0; }), HasSubstr("sources_max"));
  EXPECT_THAT(message([](auto&, auto& c) { c.metadata_nodes.resize(17, kA); }),
              HasSubstr("metadata_nodes"));
}

}  // namespace
}  // namespace dynlib::cluster
