#include "dynlib/cluster/router.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/router_types.h"
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

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::Optional;
using ::testing::SizeIs;

constexpr NodeId kOne{1}, kTwo{2}, kThree{3};
constexpr PartitionId kLow{100}, kHigh{101};
constexpr char kTable[] = "letters";

TableInfo Letters() {
  const std::string middle = HashBoundary(uint64_t{1} << 63);
  auto members = [](std::vector<NodeId> nodes) {
    std::vector<PartitionMember> result;
    for (NodeId node : nodes) result.push_back({ReplicaId{result.size() + 1}, node});
    return result;
  };
  return {.id = TableId{9},
          .name = kTable,
          .schema = {.partition_key = {"category", KeyType::kString},
                     .sort_key = KeyAttribute{"code", KeyType::kString}},
          .partitions = {{kLow, "", middle, members({kOne, kTwo, kThree})},
                         {kHigh, middle, "", members({kTwo, kThree, kOne})}}};
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

Condition IsNew() { return {{{"code", Clause::Op::kNotExists, {}}}}; }

class RouterTest : public ::testing::Test {
 protected:
  RouterTest() : world_(1), storage_(&world_) {
    for (NodeId node : {kOne, kTwo, kThree}) storage_.AddNode(node);
    storage_.AddTable(CatalogueTable({kOne, kTwo, kThree}));
    storage_.AddTable(Letters());
    sim::Node* here = world_.AddNode(NodeId{50});
    clock_ = here->clock();
    executor_ = here->NewExecutor("router");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, here->transport(), kRpcChannel, executor_, clock_);
    options_.client = ClientId{77};
    options_.catalogue_nodes = {kOne, kTwo, kThree};
  }

  Router& router() {
    if (router_ == nullptr)
      router_ = std::make_unique<Router>(options_, rpc_.get(), executor_, clock_);
    return *router_;
  }

  // Runs the world until `start`'s callback came.
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
  absl::Status Delete(PrimaryKey key, Condition condition = {}) {
    return Await<absl::Status>([&](auto done) {
      router().Delete(kTable, std::move(key), std::move(condition), std::move(done));
    });
  }
  absl::StatusOr<std::optional<Item>> Get(PrimaryKey key,
                                          Consistency consistency = Consistency::kStrong,
                                          const std::string& table = kTable) {
    return Await<absl::StatusOr<std::optional<Item>>>(
        [&](auto done) { router().Get(table, std::move(key), consistency, std::move(done)); });
  }
  absl::StatusOr<QueryPage> RunQuery(Query query) {
    return Await<absl::StatusOr<QueryPage>>(
        [&](auto done) { router().RunQuery(std::move(query), std::move(done)); });
  }
  PartitionId PartitionOf(const std::string& category) {
    const TableInfo table = Letters();
    return table.PartitionOf(*EncodeKey(table.schema, KeyOf(category, "x"))).id;
  }
  // A category of that partition.
  std::string CategoryIn(PartitionId partition, int skip = 0) {
    for (int i = 0;; ++i) {
      std::string category = "c" + std::to_string(i);
      if (PartitionOf(category) == partition && skip-- == 0) return category;
    }
  }

  sim::World world_;
  FakeStorage storage_;
  sim::SimClock* clock_;
  sim::SimExecutor* executor_;
  std::unique_ptr<Rpc> rpc_;
  RouterOptions options_;
  std::unique_ptr<Router> router_;
};

TEST_F(RouterTest, WritesReadsAndDeletes) {
  const std::string low = CategoryIn(kLow), high = CategoryIn(kHigh);
  DYNLIB_ASSERT_OK(Put(Letter(low, "a", 1)));
  DYNLIB_ASSERT_OK(Put(Letter(high, "a", 2)));
  EXPECT_EQ(storage_.items(kLow), 1u);
  EXPECT_EQ(storage_.items(kHigh), 1u);
  EXPECT_THAT(Get(KeyOf(low, "a")), IsOkAndHolds(Optional(Letter(low, "a", 1))));
  EXPECT_THAT(Get(KeyOf(high, "a"), Consistency::kEventual),
              IsOkAndHolds(Optional(Letter(high, "a", 2))));
  DYNLIB_ASSERT_OK(Delete(KeyOf(low, "a")));
  EXPECT_THAT(Get(KeyOf(low, "a")), IsOkAndHolds(Eq(std::nullopt)));
}

TEST_F(RouterTest, AConditionThatDoesNotHoldAborts) {
  DYNLIB_ASSERT_OK(Put(Letter("L", "a", 1), IsNew()));
  EXPECT_THAT(Put(Letter("L", "a", 2), IsNew()), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(Get(KeyOf("L", "a")), IsOkAndHolds(Optional(Letter("L", "a", 1))));
}

TEST_F(RouterTest, TheCatalogueIsATable) {
  Item item = EncodeTableItem(Letters());
  EXPECT_THAT(Get({Value::String(kTable), {}}, Consistency::kStrong, "catalogue"),
              IsOkAndHolds(Optional(item)));
}

TEST_F(RouterTest, MissesShareOneReadOfTheCatalogue) {
  int answers = 0;
  for (int i = 0; i < 50; ++i) {
    router().Get(kTable, KeyOf("L", std::to_string(i)), Consistency::kEventual,
                 [&](absl::StatusOr<std::optional<Item>> item) {
                   EXPECT_THAT(item, IsOk());
                   answers++;
                 });
  }
  EXPECT_TRUE(world_.RunUntil([&] { return answers == 50; }, std::chrono::seconds(5)));
  EXPECT_EQ(storage_.requests(kQuery), 1u);
}

TEST_F(RouterTest, ACatalogueOfManyPagesIsReadWhole) {
  storage_.page_rows = 3;
  for (int i = 0; i < 10; ++i) {
    TableInfo table = Letters();
    table.name = "table" + std::to_string(i);
    storage_.AddTable(table);
  }
  for (int i = 0; i < 10; ++i)
    DYNLIB_EXPECT_OK(Put(Letter("L", "a"), {}, "table" + std::to_string(i)));
  EXPECT_EQ(storage_.requests(kQuery), 4u);
}

TEST_F(RouterTest, AnUnknownTableIsNotFoundAndReadsOfTheCatalogueAreBounded) {
  const Instant start = world_.Now();
  for (int i = 0; i < 100; ++i) {
    EXPECT_THAT(Get(KeyOf("L", "a"), Consistency::kStrong, "nope"),
                StatusIs(absl::StatusCode::kNotFound));
    world_.RunFor(std::chrono::milliseconds(1));
  }
  const int64_t intervals = (world_.Now() - start) / options_.catalogue_interval;
  EXPECT_LE(storage_.requests(kQuery), static_cast<uint64_t>(intervals + 2));
  EXPECT_EQ(storage_.requests(kRead), 0u);
}

TEST_F(RouterTest, ATableThatWasMadeBeforeTheRequestIsFound) {
  EXPECT_THAT(Put(Letter("L", "a"), {}, "later"), StatusIs(absl::StatusCode::kNotFound));
  TableInfo table = Letters();
  table.name = "later";
  storage_.AddTable(table);
  DYNLIB_EXPECT_OK(Put(Letter("L", "a"), {}, "later"));
}

TEST_F(RouterTest, ADamagedEntryOfTheCatalogueIsDataLoss) {
  Item item = EncodeTableItem(Letters());
  item["name"] = Value::String("broken");
  item["table"] = Value::Binary("nonsense");
  DYNLIB_ASSERT_OK(Put(item, {}, "catalogue"));
  EXPECT_THAT(Put(Letter("L", "a"), {}, "broken"), AllOf(StatusIs(absl::StatusCode::kDataLoss)));
  DYNLIB_EXPECT_OK(Put(Letter("L", "a")));
}

TEST_F(RouterTest, APartitionThatMovedIsFoundAgain) {
  const std::string category = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  // The old partition is gone, another has its keys.
  TableInfo table = Letters();
  const PartitionId moved{200};
  table.partitions[0].id = moved;
  storage_.AddTable(table);
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.code = request.partition == kLow ? absl::StatusCode::kNotFound
                                                       : absl::StatusCode::kOk};
  });
  DYNLIB_ASSERT_OK(Put(Letter(category, "b")));
  EXPECT_EQ(storage_.items(moved), 1u);
}

TEST_F(RouterTest, FollowsTheHintAndRemembersTheLeader) {
  const std::string category = CategoryIn(kLow);
  storage_.SetLeader(kLow, kThree);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  EXPECT_EQ(storage_.requests(kOne, kWrite), 1u);
  EXPECT_EQ(storage_.requests(kThree, kWrite), 1u);
  for (int i = 0; i < 5; ++i) DYNLIB_ASSERT_OK(Put(Letter(category, "b")));
  EXPECT_EQ(storage_.requests(kOne, kWrite) + storage_.requests(kTwo, kWrite), 1u);
  DYNLIB_ASSERT_OK(Get(KeyOf(category, "a")));
  EXPECT_EQ(storage_.requests(kThree, kRead), 1u);
}

TEST_F(RouterTest, ALostReplyIsAskedForAgainAndTheWriteTakesEffectOnce) {
  const std::string category = CategoryIn(kLow);
  int losses = 2;
  storage_.SetHook([&](const FakeRequest& request) {
    return FakeFault{.lose_reply = request.method == kWrite && losses-- > 0};
  });
  // Were it applied twice, the second time the condition would not hold.
  DYNLIB_ASSERT_OK(Put(Letter(category, "a"), IsNew()));
  EXPECT_EQ(storage_.applied(), 1u);
  ASSERT_THAT(storage_.writes(), SizeIs(Ge(2)));
  for (const wire::WriteRequest& write : storage_.writes()) {
    EXPECT_EQ(write.client(), storage_.writes()[0].client());
    EXPECT_EQ(write.sequence(), storage_.writes()[0].sequence());
    EXPECT_EQ(write.issued_ns(), storage_.writes()[0].issued_ns());
  }
}

TEST_F(RouterTest, AnUnknownOutcomeIsAskedForAgainWithTheSameSequence) {
  const std::string category = CategoryIn(kLow);
  int unknown = 3;
  storage_.SetHook([&](const FakeRequest& request) {
    const bool fail = request.method == kWrite && request.node == kOne && unknown-- > 0;
    return FakeFault{.code = fail ? absl::StatusCode::kUnknown : absl::StatusCode::kOk};
  });
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  EXPECT_EQ(storage_.applied(), 1u);
  EXPECT_THAT(storage_.writes(), SizeIs(1));
  EXPECT_EQ(storage_.writes()[0].sequence(), 1u);
}

TEST_F(RouterTest, ADeadLeaderIsLeftForTheNewOne) {
  const std::string category = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  storage_.SetHook(
      [&](const FakeRequest& request) { return FakeFault{.lose_request = request.node == kOne}; });
  storage_.SetLeader(kLow, kTwo);
  const Instant start = world_.Now();
  DYNLIB_ASSERT_OK(Put(Letter(category, "b")));
  EXPECT_LT(world_.Now() - start, options_.attempt_timeout + std::chrono::milliseconds(200));
  DYNLIB_ASSERT_OK(Put(Letter(category, "c")));
}

TEST_F(RouterTest, MalformedRepliesAreNoAnswers) {
  int garbled = 3;
  storage_.SetHook([&](const FakeRequest&) { return FakeFault{.garble_reply = garbled-- > 0}; });
  DYNLIB_EXPECT_OK(Put(Letter("L", "a")));
  DYNLIB_EXPECT_OK(Get(KeyOf("L", "a")));
}

TEST_F(RouterTest, ABusyNodeIsAskedAgainLater) {
  const std::string category = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  int busy = 3;
  storage_.SetHook([&](const FakeRequest& request) {
    const bool fail = request.method == kWrite && busy-- > 0;
    return FakeFault{.code = fail ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk};
  });
  DYNLIB_ASSERT_OK(Put(Letter(category, "b")));
  EXPECT_EQ(storage_.requests(kOne, kWrite), 5u);
  EXPECT_EQ(storage_.requests(kTwo, kWrite), 0u);
}

TEST_F(RouterTest, AWriteThatTimedOutIsNeverAcknowledged) {
  options_.timeout = std::chrono::seconds(3);
  const std::string category = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_request = request.method == kWrite};
  });
  const Instant start = world_.Now();
  EXPECT_THAT(Put(Letter(category, "b")), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_LT(world_.Now() - start, options_.timeout + std::chrono::milliseconds(50));
  storage_.SetHook(nullptr);
  for (int i = 0; i < 5; ++i) DYNLIB_ASSERT_OK(Put(Letter(category, "c")));
  // 1 was answered, 2 never.
  const wire::WriteRequest& last = storage_.writes().back();
  EXPECT_EQ(last.sequence(), 7u);
  EXPECT_EQ(last.acknowledged(), 1u);
}

TEST_F(RouterTest, AcknowledgesWhatWasAnsweredByPartition) {
  const std::string low = CategoryIn(kLow), high = CategoryIn(kHigh);
  for (int i = 0; i < 4; ++i) DYNLIB_ASSERT_OK(Put(Letter(low, "a")));
  EXPECT_EQ(storage_.writes().back().acknowledged(), 3u);
  DYNLIB_ASSERT_OK(Put(Letter(high, "a")));
  EXPECT_EQ(storage_.writes().back().sequence(), 1u);
  EXPECT_EQ(storage_.writes().back().acknowledged(), 0u);
  EXPECT_NE(storage_.writes().back().client(), storage_.writes().front().client());
}

TEST_F(RouterTest, ReadsTimeOut) {
  options_.timeout = std::chrono::seconds(2);
  DYNLIB_ASSERT_OK(Put(Letter("L", "a")));
  storage_.SetHook([](const FakeRequest&) { return FakeFault{.lose_request = true}; });
  EXPECT_THAT(Get(KeyOf("L", "a")), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(Get(KeyOf("L", "a"), Consistency::kEventual),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(RouterTest, WithoutACatalogueNothingIsSent) {
  options_.timeout = std::chrono::seconds(2);
  storage_.SetHook([](const FakeRequest&) { return FakeFault{.lose_request = true}; });
  const absl::Status status = Put(Letter("L", "a"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(std::string(status.message()), HasSubstr("nothing was sent"));
  EXPECT_EQ(storage_.requests(kWrite), 0u);
  // It goes on by itself once the catalogue is there.
  storage_.SetHook(nullptr);
  DYNLIB_EXPECT_OK(Put(Letter("L", "a")));
}

TEST_F(RouterTest, EventualReadsGoToTheNearReplica) {
  options_.near = kThree;
  const std::string category = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  for (int i = 0; i < 10; ++i) DYNLIB_ASSERT_OK(Get(KeyOf(category, "a"), Consistency::kEventual));
  EXPECT_EQ(storage_.requests(kThree, kRead), 10u);
  // A silent one is left.
  storage_.SetHook(
      [](const FakeRequest& request) { return FakeFault{.lose_request = request.node == kThree}; });
  DYNLIB_EXPECT_OK(Get(KeyOf(category, "a"), Consistency::kEventual));
}

TEST_F(RouterTest, EventualReadsAreSpread) {
  const std::string category = CategoryIn(kLow);
  for (int i = 0; i < 100; ++i) DYNLIB_ASSERT_OK(Get(KeyOf(category, "a"), Consistency::kEventual));
  for (NodeId node : {kOne, kTwo, kThree}) EXPECT_GE(storage_.requests(node, kRead), 15u);
}

TEST_F(RouterTest, ADamagedReplicaIsLeftForAnother) {
  const std::string category = CategoryIn(kLow);
  DYNLIB_ASSERT_OK(Put(Letter(category, "a")));
  std::vector<NodeId> damaged = {kOne, kTwo};
  storage_.SetHook([&](const FakeRequest& request) {
    const bool is = std::find(damaged.begin(), damaged.end(), request.node) != damaged.end();
    return FakeFault{.code = is && request.method == kRead ? absl::StatusCode::kDataLoss
                                                           : absl::StatusCode::kOk};
  });
  for (int i = 0; i < 10; ++i)
    EXPECT_THAT(Get(KeyOf(category, "a"), Consistency::kEventual),
                IsOkAndHolds(Optional(Letter(category, "a"))));
  // The leader alone may answer a strong read.
  EXPECT_THAT(Get(KeyOf(category, "a")), StatusIs(absl::StatusCode::kDataLoss));
  damaged.push_back(kThree);
  EXPECT_THAT(Get(KeyOf(category, "a"), Consistency::kEventual),
              StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(RouterTest, WhatIsPastALimitIsRefusedAndNotSent) {
  Item item = Letter("L", "a");
  item["code"] = Value::String("");
  EXPECT_THAT(Put(item), StatusIs(absl::StatusCode::kInvalidArgument));
  item = Letter("L", "a");
  item["big"] = Value::String(std::string(400 * 1024, 'x'));
  EXPECT_THAT(Put(item), StatusIs(absl::StatusCode::kInvalidArgument));
  item = Letter("L", "a");
  item.erase("code");
  EXPECT_THAT(Put(item), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Put(Letter("L", "a"), {{{"", Clause::Op::kExists, {}}}}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Delete({Value::String("L"), std::nullopt}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Get({Value::Number(1), Value::String("a")}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(RunQuery({.table = kTable, .partition = Value::String("")}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(storage_.requests(kWrite) + storage_.requests(kRead), 0u);
}

TEST_F(RouterTest, NoMoreThanTheBoundIsInFlight) {
  options_.max_in_flight = 5;
  storage_.SetHook([](const FakeRequest& request) {
    return FakeFault{.lose_request = request.method == kWrite};
  });
  std::vector<absl::StatusCode> codes;
  for (int i = 0; i < 8; ++i) {
    router().Put(kTable, Letter("L", std::to_string(i)), {},
                 [&](absl::Status status) { codes.push_back(status.code()); });
  }
  world_.RunFor(std::chrono::seconds(1));
  EXPECT_THAT(codes, AllOf(SizeIs(3), Each(absl::StatusCode::kResourceExhausted)));
  storage_.SetHook(nullptr);
  EXPECT_TRUE(world_.RunUntil([&] { return codes.size() == 8; }, std::chrono::seconds(20)));
  codes.clear();
  DYNLIB_EXPECT_OK(Put(Letter("L", "a")));
}

TEST_F(RouterTest, ItsEndAnswersEverythingOnce) {
  DYNLIB_ASSERT_OK(Put(Letter("L", "a")));
  storage_.SetHook([](const FakeRequest&) { return FakeFault{.lose_request = true}; });
  std::vector<absl::StatusCode> codes;
  auto note = [&codes](const absl::Status& status) { codes.push_back(status.code()); };
  router().Put(kTable, Letter("L", "b"), {}, note);
  router().Get(kTable, KeyOf("L", "b"), Consistency::kEventual,
               [&](absl::StatusOr<std::optional<Item>> item) { note(item.status()); });
  router().RunQuery({.table = kTable, .partition = Value::String("L")},
                    [&](absl::StatusOr<QueryPage> page) { note(page.status()); });
  router().Get("unheard", KeyOf("L", "b"), Consistency::kStrong,
               [&](absl::StatusOr<std::optional<Item>> item) { note(item.status()); });
  std::vector<BatchWriteItem> batch;
  for (int i = 0; i < 40; ++i)
    batch.push_back({kTable, Letter("L", std::to_string(i)), std::nullopt});
  router().BatchWrite(std::move(batch), [&](std::vector<absl::Status> statuses) {
    EXPECT_THAT(statuses, AllOf(SizeIs(40), Each(StatusIs(absl::StatusCode::kCancelled))));
    note(statuses.front());
  });
  world_.RunFor(std::chrono::milliseconds(1500));  // some in an attempt, some between two
  EXPECT_THAT(codes, IsEmpty());
  router_ = nullptr;
  EXPECT_THAT(codes, IsEmpty()) << "inline";
  world_.RunFor(std::chrono::seconds(30));
  EXPECT_THAT(codes, AllOf(SizeIs(5), Each(absl::StatusCode::kCancelled)));
}

TEST_F(RouterTest, ACallbackMayDestroyIt) {
  bool called = false;
  router().Put(kTable, Letter("L", "a"), {}, [&](absl::Status) {
    router_ = nullptr;
    called = true;
  });
  int others = 0;
  for (int i = 0; i < 5; ++i)
    router().Put(kTable, Letter("L", "b"), {}, [&](absl::Status) { others++; });
  EXPECT_TRUE(world_.RunUntil([&] { return called && others == 5; }, std::chrono::seconds(5)));
}

TEST_F(RouterTest, QueriesPageInEitherDirection) {
  for (int i = 0; i < 10; ++i) DYNLIB_ASSERT_OK(Put(Letter("L", "c" + std::to_string(i))));
  DYNLIB_ASSERT_OK(Put(Letter("L", "d")));
  for (bool reverse : {false, true}) {
    Query query{.table = kTable,
                .partition = Value::String("L"),
                .sort = SortCondition::BeginsWith(Value::String("c")),
                .reverse = reverse,
                .limit = 4};
    std::vector<std::string> codes;
    int pages = 0;
    do {
      DYNLIB_ASSERT_OK_AND_ASSIGN(QueryPage page, RunQuery(query));
      for (const Item& item : page.items) codes.push_back(item.at("code").string());
      query.after = page.next;
      pages++;
    } while (query.after.has_value());
    EXPECT_EQ(pages, 3);
    if (reverse) std::reverse(codes.begin(), codes.end());
    EXPECT_THAT(codes, ElementsAre("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"));
  }
}

TEST_F(RouterTest, AQueryForNothingFindsNothing) {
  const uint64_t before = storage_.requests(kQuery);
  DYNLIB_ASSERT_OK_AND_ASSIGN(QueryPage page,
                              RunQuery({.table = kTable,
                                        .partition = Value::String("L"),
                                        .sort = SortCondition::Greater(Value::String("x")),
                                        .reverse = true,
                                        .after = KeyOf("L", "a")}));
  EXPECT_THAT(page.items, IsEmpty());
  EXPECT_FALSE(page.next.has_value());
  EXPECT_EQ(storage_.requests(kQuery), before + 1) << "the catalogue's alone";
}

TEST_F(RouterTest, AQueryDoesNotGoOnInAnotherPartitionKey) {
  EXPECT_THAT(
      RunQuery(
          {.table = kTable, .partition = Value::String("L"), .sort = {}, .after = KeyOf("M", "a")}),
      StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(RouterTest, ABatchHasAStatusForEachItem) {
  std::vector<BatchWriteItem> batch;
  for (int i = 0; i < 60; ++i)
    batch.push_back({kTable, Letter("L", std::to_string(i)), std::nullopt});
  batch.push_back({kTable, std::nullopt, KeyOf("L", "none")});
  batch.push_back({kTable, std::nullopt, std::nullopt});
  batch.push_back({kTable, Letter("L", ""), std::nullopt});
  batch.push_back({"nope", Letter("L", "a"), std::nullopt});
  const auto statuses = Await<std::vector<absl::Status>>(
      [&](auto done) { router().BatchWrite(std::move(batch), std::move(done)); });
  ASSERT_THAT(statuses, SizeIs(64));
  for (int i = 0; i <= 60; ++i) DYNLIB_EXPECT_OK(statuses[i]);
  EXPECT_THAT(statuses[61], StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(statuses[62], StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(statuses[63], StatusIs(absl::StatusCode::kNotFound));

  using Found = absl::StatusOr<std::optional<Item>>;
  std::vector<BatchGetItem> gets = {{kTable, KeyOf("L", "7")}, {kTable, KeyOf("L", "none")}};
  const auto found = Await<std::vector<Found>>([&](auto done) {
    router().BatchGet(std::move(gets), Consistency::kStrong, std::move(done));
  });
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_THAT(found[0], IsOkAndHolds(Optional(Letter("L", "7"))));
  EXPECT_THAT(found[1], IsOkAndHolds(Eq(std::nullopt)));
}

TEST_F(RouterTest, ABatchIsBounded) {
  options_.max_in_flight = 16;  // no more of one batch are under way, so none is refused
  options_.max_batch = 50;
  std::vector<BatchWriteItem> batch;
  for (int i = 0; i < 50; ++i)
    batch.push_back({kTable, Letter("L", std::to_string(i)), std::nullopt});
  auto write = [&](std::vector<BatchWriteItem> items) {
    return Await<std::vector<absl::Status>>(
        [&](auto done) { router().BatchWrite(std::move(items), std::move(done)); });
  };
  EXPECT_THAT(write(batch), AllOf(SizeIs(50), Each(IsOk())));
  batch.push_back({kTable, Letter("L", "x"), std::nullopt});
  EXPECT_THAT(write(batch), AllOf(SizeIs(51), Each(StatusIs(absl::StatusCode::kInvalidArgument))));
  EXPECT_THAT(write({}), IsEmpty());
}

TEST_F(RouterTest, SurvivesANetworkThatLosesRepeatsAndReorders) {
  world_.SetFaults({.network_loss = 0.05,
                    .network_repeat = 0.1,
                    .network_reorder = 0.1,
                    .network_reorder_us_max = 100'000});
  options_.attempt_timeout = std::chrono::milliseconds(100);
  options_.timeout = std::chrono::seconds(60);
  int answers = 0;
  for (int i = 0; i < 200; ++i) {
    router().Put(kTable, Letter("c" + std::to_string(i % 7), std::to_string(i)), IsNew(),
                 [&](absl::Status status) {
                   DYNLIB_EXPECT_OK(status);
                   answers++;
                 });
  }
  EXPECT_TRUE(world_.RunUntil([&] { return answers == 200; }, std::chrono::minutes(1)));
  EXPECT_EQ(storage_.applied(), 200u);
}

TEST(RouterOptionsTest, EveryFieldIsChecked) {
  RouterOptions good{.client = ClientId{1}, .catalogue_nodes = {kOne}};
  DYNLIB_EXPECT_OK(Validate(good));
  auto message = [&](auto change) {
    RouterOptions options = good;
    change(options);
    const absl::Status status = Validate(options);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  EXPECT_THAT(message([](RouterOptions& o) { o.client = ClientId{}; }), HasSubstr("client"));
  EXPECT_THAT(message([](RouterOptions& o) { o.catalogue_nodes = {}; }), HasSubstr("catalogue"));
  EXPECT_THAT(message([](RouterOptions& o) {
                o.catalogue_nodes = {kOne, kOne};
              }),
              HasSubstr("catalogue"));
  EXPECT_THAT(message([](RouterOptions& o) { o.timeout = {}; }), HasSubstr("timeout"));
  EXPECT_THAT(message([](RouterOptions& o) { o.attempt_timeout = std::chrono::hours(1); }),
              HasSubstr("attempt_timeout"));
  EXPECT_THAT(message([](RouterOptions& o) { o.retry_delay = std::chrono::seconds(1); }),
              HasSubstr("retry_delay"));
  EXPECT_THAT(message([](RouterOptions& o) { o.retry_delay_max = {}; }),
              HasSubstr("retry_delay_max"));
  EXPECT_THAT(message([](RouterOptions& o) { o.catalogue_interval = {}; }),
              HasSubstr("catalogue_interval"));
  EXPECT_THAT(message([](RouterOptions& o) { o.max_in_flight = 4001; }),
              HasSubstr("max_in_flight"));
  EXPECT_THAT(message([](RouterOptions& o) { o.max_batch = 0; }), HasSubstr("max_batch"));
}

}  // namespace
}  // namespace dynlib::cluster
