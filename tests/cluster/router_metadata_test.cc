// A router that learns from metadata nodes where partitions are: real metadata nodes, storage nodes
// played by the test.
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/metadata_node.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/router_sessions.h"
#include "dynlib/cluster/router_types.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/clock.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/fake_storage.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::cluster {
namespace {

using partition_map::PartitionRecord;
using partition_map::TableRecord;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Optional;

constexpr NodeId kOne{1}, kTwo{2}, kThree{3}, kFour{4};
constexpr NodeId kA{901}, kB{902}, kC{903};
constexpr PartitionId kLow{100}, kHigh{101};
constexpr char kTable[] = "letters";

std::vector<PartitionMember> Members(std::vector<NodeId> nodes) {
  std::vector<PartitionMember> members;
  for (NodeId node : nodes) members.push_back({ReplicaId{members.size() + 1}, node});
  return members;
}

TableInfo Letters() {
  const std::string middle = HashBoundary(uint64_t{1} << 63);
  return {.id = TableId{9},
          .name = kTable,
          .schema = {.partition_key = {"category", KeyType::kString},
                     .sort_key = KeyAttribute{"code", KeyType::kString}},
          .partitions = {{kLow, "", middle, Members({kOne, kTwo, kThree})},
                         {kHigh, middle, "", Members({kTwo, kThree, kOne})}}};
}

PartitionRecord RecordOf(const PartitionInfo& partition, uint64_t epoch = 1, uint64_t ballot = 1) {
  PartitionRecord record{.table = TableId{9},
                         .partition = partition.id,
                         .first = partition.first,
                         .end = partition.end,
                         .generation = partition.generation,
                         .epoch = epoch,
                         .members = {},
                         .leader = partition.members.front().node,
                         .leader_ballot = ballot};
  for (const PartitionMember& member : partition.members) {
    record.members.push_back(
        {member.replica, member.node,
         member.log ? partition_map::MemberKind::kLog : partition_map::MemberKind::kStorage});
  }
  return record;
}

TableRecord RecordOf(const TableInfo& table) {
  return {.table = table.id,
          .name = table.name,
          .version = table.version,
          .dropped = table.deleting,
          .descriptor = EncodeDescriptor(table)};
}

PrimaryKey KeyOf(const std::string& category, const std::string& code) {
  return {Value::String(category), Value::String(code)};
}

Item Letter(const std::string& category, const std::string& code, int64_t number = 1) {
  Item item;
  item["category"] = Value::String(category);
  item["code"] = Value::String(code);
  item["number"] = Value::Number(number);
  return item;
}

class RouterMetadataTest : public ::testing::Test {
 protected:
  RouterMetadataTest() : world_(1), storage_(&world_) {
    for (NodeId node : {kOne, kTwo, kThree, kFour}) storage_.AddNode(node);
    for (const PartitionInfo& partition : Letters().partitions) storage_.Place(partition);
    config_.metadata_nodes = {kA, kB, kC};
    for (NodeId node : config_.metadata_nodes) {
      world_.AddNode(node);
      StartMetadata(node);
    }
    sim::Node* here = world_.AddNode(NodeId{50});
    clock_ = here->clock();
    executor_ = here->NewExecutor("router");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, here->transport(), kRpcChannel, executor_, clock_);
    options_.client = ClientId{77};
    options_.catalogue_nodes = {kOne, kTwo, kThree};
    options_.metadata_nodes = config_.metadata_nodes;
    Tell(Letters());
    for (const PartitionInfo& partition : Letters().partitions) Tell(RecordOf(partition));
  }

  void StartMetadata(NodeId id) {
    sim::Node* node = world_.node(id);
    MetadataNodeOptions options{.id = id};
    options.map.warm_up = seconds(0);
    options.sync_interval = std::chrono::minutes(10);
    metadata_[id] = *MetadataNode::Create(options, config_,
                                          {.transport = node->transport(),
                                           .clock = node->clock(),
                                           .executor = node->NewExecutor("m")});
  }
  void StopMetadata(NodeId id) {
    world_.node(id)->Crash();
    metadata_.erase(id);
  }
  void StopAllMetadata() {
    for (NodeId node : config_.metadata_nodes) StopMetadata(node);
  }

  void Push(const wire::PushRequest& request, const std::vector<NodeId>& nodes) {
    for (NodeId node : nodes) {
      bool done = false;
      rpc_->Call(node, kPush, request.SerializeAsString(), seconds(1),
                 [&](absl::StatusOr<std::string> reply) {
                   DYNLIB_ASSERT_OK(reply);
                   done = true;
                 });
      world_.RunUntil([&] { return done; }, seconds(2));
    }
  }
  void Tell(const PartitionRecord& record, const std::vector<NodeId>& nodes = {kA, kB, kC}) {
    wire::PushRequest request;
    request.add_partitions(partition_map::Encode(record));
    Push(request, nodes);
  }
  void Tell(const TableInfo& table, const std::vector<NodeId>& nodes = {kA, kB, kC}) {
    wire::PushRequest request;
    request.add_tables(partition_map::Encode(RecordOf(table)));
    Push(request, nodes);
  }

  Router& router() {
    if (router_ == nullptr)
      router_ = std::make_unique<Router>(options_, rpc_.get(), executor_, clock_, &sink_);
    return *router_;
  }
  template <typename Result>
  Result Await(std::function<void(absl::AnyInvocable<void(Result)>)> start) {
    auto result = std::make_shared<std::optional<Result>>();
    start([result](Result r) {
      EXPECT_FALSE(result->has_value()) << "called twice";
      result->emplace(std::move(r));
    });
    EXPECT_FALSE(result->has_value()) << "called inline";
    EXPECT_TRUE(world_.RunUntil([&] { return result->has_value(); }, std::chrono::minutes(2)));
    return std::move(result->value());
  }
  absl::Status Put(Item item, Condition condition = {}, const std::string& table = kTable) {
    return Await<absl::Status>([&](auto done) {
      router().Put(table, std::move(item), std::move(condition), std::move(done));
    });
  }
  absl::StatusOr<std::optional<Item>> Get(PrimaryKey key,
                                          Consistency consistency = Consistency::kStrong) {
    return Await<absl::StatusOr<std::optional<Item>>>(
        [&](auto done) { router().Get(kTable, std::move(key), consistency, std::move(done)); });
  }
  // A category of that partition.
  std::string CategoryIn(PartitionId partition, int skip = 0) {
    const TableInfo table = Letters();
    for (int i = 0;; ++i) {
      std::string category = "c" + std::to_string(i);
      if (table.PartitionOf(*EncodeKey(table.schema, KeyOf(category, "x"))).id == partition &&
          skip-- == 0) {
        return category;
      }
    }
  }
  // Of all requests to storage nodes.
  uint64_t Attempts() { return storage_.requests(kWrite) + storage_.requests(kRead); }

  sim::World world_;
  FakeStorage storage_;
  ClusterConfig config_;
  std::map<NodeId, std::unique_ptr<MetadataNode>> metadata_;
  CountingSink sink_;
  sim::SimClock* clock_;
  sim::SimExecutor* executor_;
  std::unique_ptr<Rpc> rpc_;
  RouterOptions options_;
  std::unique_ptr<Router> router_;
};

TEST_F(RouterMetadataTest, WritesAndReadsWithoutTheCatalogue) {
  for (PartitionId partition : {kLow, kHigh}) {
    const std::string category = CategoryIn(partition);
    DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
    EXPECT_EQ(storage_.items(partition), 1u);
    EXPECT_THAT(Get(KeyOf(category, "a")), IsOkAndHolds(Optional(Letter(category, "a"))));
    EXPECT_THAT(Get(KeyOf(category, "a"), Consistency::kEventual),
                IsOkAndHolds(Optional(Letter(category, "a"))));
  }
  EXPECT_EQ(storage_.requests(kQuery), 0u) << "reads of the catalogue";
  EXPECT_EQ(Attempts(), 6u) << "each at once to the right node";
  EXPECT_EQ(storage_.writes().back().table(), 9u);
}

TEST_F(RouterMetadataTest, EachRequestMakesTheSameLookUpsColdOrWarm) {
  const std::string low = CategoryIn(kLow), high = CategoryIn(kHigh);
  for (int i = 0; i < 100; ++i) {
    if (i % 10 == 0) router().ForgetRoutes();
    DYNLIB_ASSERT_OK(Put(Letter(i % 2 == 0 ? low : high, "a")));
  }
  EXPECT_EQ(sink_["router.requests"], 100);
  EXPECT_EQ(sink_["router.look_ups"], 200);
  EXPECT_EQ(sink_["router.cache_misses"], 20) << "two partitions, ten times cold";
  EXPECT_EQ(sink_["router.cache_hits"], 80);
}

TEST_F(RouterMetadataTest, AConventionalCacheAsksWhenItMissesAlone) {
  options_.cache_mode = CacheMode::kConventional;
  const std::string low = CategoryIn(kLow), high = CategoryIn(kHigh);
  for (int i = 0; i < 100; ++i) DYNLIB_ASSERT_OK(Put(Letter(i % 2 == 0 ? low : high, "a")));
  EXPECT_EQ(sink_["router.look_ups"], 2);
  // Cold, and everyone at once: the burst that takes a directory down.
  router().ForgetRoutes();
  int answers = 0;
  for (int i = 0; i < 100; ++i) {
    router().Put(kTable, Letter(low, std::to_string(i)), {}, [&](absl::Status status) {
      DYNLIB_ASSERT_OK(status);
      ++answers;
    });
  }
  EXPECT_TRUE(world_.RunUntil([&] { return answers == 100; }, seconds(5)));
  EXPECT_EQ(sink_["router.look_ups"], 102);
}

TEST_F(RouterMetadataTest, WithMetadataNodesDownItGoesOnWithWhatItHas) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  StopAllMetadata();
  for (int i = 0; i < 20; ++i) {
    const Instant start = world_.Now();
    DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
    EXPECT_LT(world_.Now() - start, milliseconds(20)) << "nobody is waited for";
    world_.RunFor(seconds(1));
  }
  // What it never saw it cannot find.
  options_.timeout = seconds(2);
  router_ = nullptr;
  const absl::Status status = Put(Letter(low, "c"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(std::string(status.message()), HasSubstr("nothing was sent"));
}

TEST_F(RouterMetadataTest, OneMetadataNodeThatIsDownCostsAMissNothing) {
  StopMetadata(kB);
  for (int i = 0; i < 20; ++i) {
    router().ForgetRoutes();
    const Instant start = world_.Now();
    DYNLIB_ASSERT_OK(Put(Letter(CategoryIn(kLow), "a")));
    EXPECT_LT(world_.Now() - start, milliseconds(50));
  }
}

TEST_F(RouterMetadataTest, ANewPartitionIsWaitedFor) {
  TableInfo table = Letters();
  table.id = TableId{10};
  table.name = "later";
  Tell(table);
  std::optional<absl::Status> result;
  router().Put("later", Letter("L", "a"), {}, [&](absl::Status status) { result = status; });
  world_.RunFor(seconds(1));
  EXPECT_FALSE(result.has_value());
  PartitionInfo whole{PartitionId{300}, "", "", Members({kOne, kTwo, kThree})};
  storage_.Place(whole);
  PartitionRecord record = RecordOf(whole);
  record.table = table.id;
  Tell(record, {kC});
  world_.RunFor(seconds(1));
  EXPECT_THAT(result, Optional(IsOk()));
}

TEST_F(RouterMetadataTest, APartitionThatNobodyKnowsIsADeadline) {
  options_.timeout = seconds(2);
  TableInfo table = Letters();
  table.id = TableId{10};
  table.name = "empty";
  Tell(table);
  const absl::Status status = Put(Letter("L", "a"), {}, "empty");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(std::string(status.message()), HasSubstr("nothing was sent"));
}

TEST_F(RouterMetadataTest, AStaleRouteCostsOneMoreAttempt) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  StopAllMetadata();
  // The partition moves to other nodes; those that had it know.
  PartitionInfo moved = Letters().partitions[0];
  moved.members = {{ReplicaId{4}, kFour}, {ReplicaId{3}, kThree}};
  storage_.Place(moved);
  storage_.Know(RecordOf(moved, /*epoch=*/7));
  const uint64_t before = Attempts();
  const Instant start = world_.Now();
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  EXPECT_EQ(Attempts(), before + 2);
  EXPECT_LT(world_.Now() - start, milliseconds(10)) << "without a pause";
  EXPECT_EQ(sink_["router.hints_applied"], 1);
  EXPECT_EQ(sink_["router.look_ups"], 4) << "two for each request, not for each attempt";
  DYNLIB_ASSERT_OK(Put(Letter(low, "c")));
  EXPECT_EQ(Attempts(), before + 3);
  EXPECT_EQ(storage_.requests(kFour, kWrite), 2u);
}

TEST_F(RouterMetadataTest, WhatStorageSaidIsNotUndoneByADirectoryThatIsBehind) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  PartitionInfo moved = Letters().partitions[0];
  moved.members = {{ReplicaId{4}, kFour}, {ReplicaId{3}, kThree}};
  storage_.Place(moved);
  storage_.Know(RecordOf(moved, /*epoch=*/7));
  const uint64_t before = Attempts();
  constexpr int kPuts = 20;
  for (int i = 0; i < kPuts; ++i) DYNLIB_ASSERT_OK(Put(Letter(low, "b", i)));
  EXPECT_EQ(Attempts(), before + kPuts + 1) << "one retry, once";
  EXPECT_EQ(storage_.requests(kFour, kWrite), uint64_t{kPuts});
  EXPECT_EQ(sink_["router.look_ups"], 2 * (kPuts + 1)) << "each asked the directory nevertheless";
  EXPECT_GE(sink_["cache.stale_refused"], kPuts) << "and what it answered was older";
}

TEST_F(RouterMetadataTest, ASplitIsSeenThroughHintsAndAWriteUnderWayTakesEffectOnce) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  StopAllMetadata();
  // The write is applied by the parent, its reply is lost, and then the parent splits.
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_reply = request.partition == kLow};
  });
  std::optional<absl::Status> result;
  const Condition is_new{{{"code", Clause::Op::kNotExists, {}}}};
  router().Put(kTable, Letter(low, "b"), is_new, [&](absl::Status status) { result = status; });
  world_.RunFor(milliseconds(100));
  EXPECT_EQ(storage_.items(kLow), 2u);
  storage_.SetHook(nullptr);
  const PartitionInfo parent = Letters().partitions[0];
  const std::string at = HashBoundary(uint64_t{1} << 62);
  PartitionInfo left{PartitionId{200}, "", at, Members({kTwo, kOne, kThree}), 1};
  PartitionInfo right{PartitionId{201}, at, parent.end, Members({kThree, kOne, kTwo}), 1};
  storage_.Split(kLow, left, right);
  storage_.Know(RecordOf(left));
  storage_.Know(RecordOf(right));
  ASSERT_TRUE(world_.RunUntil([&] { return result.has_value(); }, seconds(5)));
  DYNLIB_ASSERT_OK(*result) << "a second application would not be new";
  EXPECT_EQ(storage_.applied(), 2u);
  const wire::WriteRequest retried = storage_.writes().back();
  EXPECT_EQ(retried.sequence(), 2u);
  EXPECT_EQ(retried.client(), storage_.writes().front().client());
  // A new write to the child is of a session of the child.
  DYNLIB_ASSERT_OK(Put(Letter(low, "c")));
  EXPECT_EQ(storage_.writes().back().partition(), retried.partition());
  EXPECT_EQ(storage_.writes().back().sequence(), 1u);
  EXPECT_NE(storage_.writes().back().client(), retried.client());
  // The other child's keys, which the router has not seen, cost one hint too.
  const bool was_left = retried.partition() == 200;
  std::string other;
  for (int i = 0; other.empty(); ++i) {
    const std::string category = CategoryIn(kLow, i);
    const std::string key = *EncodeKey(Letters().schema, KeyOf(category, "x"));
    if ((key < at) != was_left) other = category;
  }
  const uint64_t before = Attempts();
  DYNLIB_ASSERT_OK(Put(Letter(other, "d")));
  EXPECT_EQ(Attempts(), before + 2);
}

TEST_F(RouterMetadataTest, TheRefreshFollowsAMoveWithoutAnyHint) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  PartitionInfo moved = Letters().partitions[0];
  moved.members = {{ReplicaId{4}, kFour}, {ReplicaId{3}, kThree}};
  storage_.Place(moved);  // those that had it know nothing
  Tell(RecordOf(moved, /*epoch=*/7));
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  DYNLIB_ASSERT_OK(Put(Letter(low, "c")));
  EXPECT_EQ(storage_.requests(kFour, kWrite), 2u);
}

TEST_F(RouterMetadataTest, LogReplicasAreNotAskedForItems) {
  PartitionInfo healing = Letters().partitions[0];
  healing.members = {{ReplicaId{1}, kOne}, {ReplicaId{2}, kTwo}, {ReplicaId{5}, kFour, true}};
  Tell(RecordOf(healing, /*epoch=*/7));
  const std::string low = CategoryIn(kLow);
  for (int i = 0; i < 30; ++i) DYNLIB_ASSERT_OK(Get(KeyOf(low, "a"), Consistency::kEventual));
  EXPECT_EQ(storage_.requests(kFour, kRead), 0u);
  EXPECT_GT(storage_.requests(kTwo, kRead), 0u);
}

TEST_F(RouterMetadataTest, HintsThatAreNonsenseChangeNothing) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  // Of another table.
  PartitionRecord other = RecordOf(Letters().partitions[0], 9);
  other.table = TableId{77};
  storage_.Know(other);
  int fails = 1;
  storage_.SetHook([&](const FakeRequest& request) {
    return FakeFault{.code = request.method == kWrite && fails-- > 0 ? absl::StatusCode::kNotFound
                                                                     : absl::StatusCode::kOk};
  });
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  EXPECT_EQ(sink_["router.hints_applied"], 0);
}

TEST_F(RouterMetadataTest, AttemptsMakeNoLookUps) {
  const std::string low = CategoryIn(kLow);
  int busy = 5;
  storage_.SetHook([&](const FakeRequest&) {
    return FakeFault{.code =
                         busy-- > 0 ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk};
  });
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  EXPECT_EQ(Attempts(), 6u);
  EXPECT_EQ(sink_["router.look_ups"], 2);
}

TEST_F(RouterMetadataTest, AThrottledRequestEndsAndSaysWhenToComeBack) {
  const std::string low = CategoryIn(kLow);
  int refusals = 1;
  storage_.SetHook([&](const FakeRequest&) {
    if (refusals-- <= 0) return FakeFault();
    return FakeFault{.code = absl::StatusCode::kResourceExhausted, .retry_after_us = 7000};
  });
  const absl::Status status = Put(Letter(low, "a"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(RetryAfter(status), milliseconds(7));
  EXPECT_EQ(Attempts(), 1u);
  // It was never logged, so nothing has to be kept for it.
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  EXPECT_EQ(storage_.writes().back().sequence(), 2u);
  EXPECT_EQ(storage_.writes().back().acknowledged(), 1u);
}

TEST_F(RouterMetadataTest, AFullGroupIsTriedAgainWhenItSaysAndTheCallerIsToldWhenThereIsNoTime) {
  const std::string low = CategoryIn(kLow);
  int refusals = 2;
  storage_.SetHook([&](const FakeRequest&) {
    if (refusals-- <= 0) return FakeFault();
    return FakeFault{
        .code = absl::StatusCode::kResourceExhausted, .retry_after_us = 300'000, .full = true};
  });
  const Instant begun = world_.Now();
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  EXPECT_EQ(Attempts(), 3u);
  EXPECT_GE(world_.Now() - begun, milliseconds(600));

  refusals = 1'000'000;
  const absl::Status status = Put(Letter(low, "b"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(RetryAfter(status), milliseconds(300));
  refusals = 0;
  DYNLIB_ASSERT_OK(Put(Letter(low, "c")));
  EXPECT_EQ(storage_.writes().back().acknowledged(), 2u);  // It was never logged.
}

TEST_F(RouterMetadataTest, AWriteThatMayBeAppliedIsNotThrottledButSentAgainWhenThereIsCapacity) {
  const std::string low = CategoryIn(kLow);
  int n = 0;
  storage_.SetHook([&](const FakeRequest&) {
    if (++n == 1) return FakeFault{.lose_reply = true};
    if (n > 3) return FakeFault();
    return FakeFault{.code = absl::StatusCode::kResourceExhausted, .retry_after_us = 300'000};
  });
  const Instant begun = world_.Now();
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  EXPECT_EQ(storage_.applied(), 1u);
  EXPECT_EQ(Attempts(), 4u);
  EXPECT_GE(world_.Now() - begun, milliseconds(600));  // As it was told, twice.
}

TEST_F(RouterMetadataTest, AWriteThatMayBeAppliedAndFindsNoCapacityIsNotKnownToBeApplied) {
  const std::string low = CategoryIn(kLow);
  int n = 0;
  storage_.SetHook([&](const FakeRequest&) {
    if (++n == 1) return FakeFault{.lose_reply = true};
    return FakeFault{.code = absl::StatusCode::kResourceExhausted, .retry_after_us = 7000};
  });
  const absl::Status status = Put(Letter(low, "a"));
  EXPECT_EQ(storage_.applied(), 1u);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_FALSE(RetryAfter(status).has_value()) << status;
}

TEST_F(RouterMetadataTest, ASessionIsNeverBegunAgainWhenItsPartitionWasForgotten) {
  const std::string low = CategoryIn(kLow), high = CategoryIn(kHigh);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  world_.RunFor(RouterSessions::kIdleMax + seconds(1));
  DYNLIB_ASSERT_OK(Put(Letter(high, "a")));
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  EXPECT_EQ(storage_.writes().back().sequence(), 1u);
  EXPECT_NE(storage_.writes().back().client(), storage_.writes().front().client());
}

TEST_F(RouterMetadataTest, TablesAreAskedForAtAConstantRateWhateverTheTraffic) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  const int64_t first = sink_["router.describes"];
  EXPECT_EQ(first, 2);
  for (int i = 0; i < 500; ++i) DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  world_.RunFor(options_.table_interval * 10);
  EXPECT_GE(sink_["router.describes"], first + 9);
  EXPECT_LE(sink_["router.describes"], first + 15);
  EXPECT_EQ(sink_["router.look_ups"], 2 * 501);
}

TEST_F(RouterMetadataTest, AnUnknownTableIsNotFoundAndOneThatIsMadeLaterIsFound) {
  EXPECT_THAT(Put(Letter("L", "a"), {}, "later"), StatusIs(absl::StatusCode::kNotFound));
  TableInfo table = Letters();
  table.id = TableId{10};
  table.name = "later";
  PartitionRecord record = RecordOf(Letters().partitions[0]);
  record.table = table.id;
  record.end = "";
  Tell(record);
  Tell(table, {kB});  // one that knows it is enough, in time
  absl::Status status = absl::NotFoundError("");
  for (int i = 0; i < 3 && !status.ok(); ++i) status = Put(Letter("L", "a"), {}, "later");
  DYNLIB_ASSERT_OK(status);
}

TEST_F(RouterMetadataTest, ADeletedTableIsNotFoundAndALaggingNodeDeletesNothing) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  // One that forgot everything says that there is no such table.
  StopMetadata(kB);
  world_.node(kB)->Restart();
  StartMetadata(kB);
  world_.RunFor(seconds(10));
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  TableInfo deleted = Letters();
  deleted.deleting = true;
  deleted.version++;
  Tell(deleted);
  world_.RunFor(seconds(5));
  const uint64_t before = Attempts();
  EXPECT_THAT(Put(Letter(low, "c")), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(Attempts(), before);
}

TEST_F(RouterMetadataTest, SchemaAndVersionOfATableAreFollowed) {
  const std::string low = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  // A table of the same name, made anew with another key.
  TableInfo again = Letters();
  again.id = TableId{10};
  again.schema = {.partition_key = {"number", KeyType::kNumber}, .sort_key = std::nullopt};
  TableInfo deleted = Letters();
  deleted.deleting = true;
  deleted.version++;
  Tell(deleted);
  Tell(again);
  PartitionInfo whole{PartitionId{300}, "", "", Members({kOne, kTwo, kThree})};
  storage_.Place(whole);
  PartitionRecord record = RecordOf(whole);
  record.table = again.id;
  Tell(record);
  world_.RunFor(seconds(5));
  DYNLIB_ASSERT_OK(Put(Letter(low, "b")));
  EXPECT_EQ(storage_.items(PartitionId{300}), 1u);
}

TEST_F(RouterMetadataTest, TheCatalogueIsReachedWithoutMetadata) {
  storage_.AddTable(CatalogueTable({kOne, kTwo, kThree}));
  StopAllMetadata();
  const auto page = Await<absl::StatusOr<CataloguePage>>(
      [&](auto done) { router().ReadCatalogue("", std::move(done)); });
  DYNLIB_ASSERT_OK(page);
  EXPECT_EQ(sink_["router.look_ups"], 0);
}

TEST_F(RouterMetadataTest, WhatIsForgottenAmidRequestsIsAskedForAgain) {
  const std::string low = CategoryIn(kLow), high = CategoryIn(kHigh);
  int answers = 0;
  for (int i = 0; i < 200; ++i) {
    router().Put(kTable, Letter(i % 2 == 0 ? low : high, std::to_string(i)), {},
                 [&](absl::Status status) {
                   DYNLIB_ASSERT_OK(status);
                   ++answers;
                 });
    if (i % 20 == 7) router().ForgetRoutes();
    if (i % 10 == 0) world_.RunFor(std::chrono::microseconds(300));
  }
  EXPECT_TRUE(world_.RunUntil([&] { return answers == 200; }, seconds(20)));
  EXPECT_EQ(storage_.applied(), 200u);
}

TEST_F(RouterMetadataTest, ItsEndAnswersWhatWaitsForMetadata) {
  StopAllMetadata();
  std::vector<absl::StatusCode> codes;
  router().Put(kTable, Letter("L", "a"), {},
               [&](absl::Status status) { codes.push_back(status.code()); });
  world_.RunFor(milliseconds(300));
  router_ = nullptr;
  world_.RunFor(seconds(1));
  EXPECT_THAT(codes, ::testing::ElementsAre(absl::StatusCode::kCancelled));
}

TEST_F(RouterMetadataTest, SurvivesANetworkThatLosesRepeatsAndReorders) {
  world_.SetFaults({.network_loss = 0.05,
                    .network_repeat = 0.1,
                    .network_reorder = 0.1,
                    .network_reorder_us_max = 100'000});
  options_.attempt_timeout = milliseconds(100);
  options_.timeout = seconds(60);
  const Condition is_new{{{"code", Clause::Op::kNotExists, {}}}};
  int answers = 0;
  for (int i = 0; i < 200; ++i) {
    router().Put(kTable, Letter("c" + std::to_string(i % 7), std::to_string(i)), is_new,
                 [&](absl::Status status) {
                   DYNLIB_ASSERT_OK(status);
                   answers++;
                 });
  }
  EXPECT_TRUE(world_.RunUntil([&] { return answers == 200; }, std::chrono::minutes(1)));
  EXPECT_EQ(storage_.applied(), 200u);
}

TEST(RouterMetadataOptionsTest, EveryFieldIsChecked) {
  RouterOptions good{.client = ClientId{1}, .catalogue_nodes = {kOne}, .metadata_nodes = {kA}};
  DYNLIB_ASSERT_OK(Validate(good));
  auto message = [&](auto change) {
    RouterOptions options = good;
    change(options);
    const absl::Status status = Validate(options);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  EXPECT_THAT(message([](RouterOptions& o) {
                o.metadata_nodes = {kA, kA};
              }),
              HasSubstr("metadata_nodes"));
  EXPECT_THAT(message([](RouterOptions& o) {
                for (uint64_t i = 0; i < 17; ++i) o.metadata_nodes.push_back(NodeId{i + 1});
              }),
              HasSubstr("metadata_nodes"));
  EXPECT_THAT(message([](RouterOptions& o) { o.look_up_fan_out = 0; }), HasSubstr("fan_out"));
  EXPECT_THAT(message([](RouterOptions& o) { o.look_up_timeout = {}; }), HasSubstr("look_up"));
  EXPECT_THAT(message([](RouterOptions& o) { o.table_interval = {}; }),
              HasSubstr("table_interval"));
  EXPECT_THAT(message([](RouterOptions& o) { o.max_routes = 0; }), HasSubstr("max_routes"));
}

}  // namespace
}  // namespace dynlib::cluster
