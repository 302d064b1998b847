// Admission control of storage nodes: in whole simulated clusters, as clients of nodes see it.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/node_admission_options.h"
#include "dynlib/cluster/service.h"
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
using testing::HasSubstr;

constexpr NodeId kLoader{2000};

// What became of a load.
struct Answers {
  uint64_t ok = 0;
  uint64_t throttled = 0;
  uint64_t others = 0;
  Duration shortest_wait = Duration::max();
  Duration longest_wait{0};
  std::string message;  // of the last throttled one
};

class AdmissionTest : public testing::Test {
 protected:
  // A table "orders" of one partition, led by `leader_`.
  void Boot(uint64_t nodes, const std::function<void(StorageNodeOptions&)>& change) {
    cluster_ = std::make_unique<SimCluster>(nodes);
    cluster_->options().run_auto_admin = false;
    change(cluster_->options());
    DYNLIB_ASSERT_OK(cluster_->Boot());
    sim::Node* node = cluster_->world().AddNode(kLoader);
    loader_ = node->NewExecutor("main");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, node->transport(), kRpcChannel, loader_,
                                 node->clock());
    DYNLIB_ASSERT_OK(cluster_->CreateTable("orders", 1));
    const std::optional<TableInfo> table = cluster_->Table("orders");
    ASSERT_TRUE(table.has_value());
    table_ = *table;
    ASSERT_TRUE(cluster_->Until([&] { return cluster_->Leaders(table_.id).size() == 1; }));
    leader_ = cluster_->Leaders(table_.id).begin()->second.node;
  }
  ~AdmissionTest() override { rpc_ = nullptr; }

  static std::string KeyOf(const std::string& id) {
    return *EncodeKey(SimCluster::Schema(), Value::String(id));
  }
  static std::string Name(int number) { return "item-" + std::to_string(number); }

  template <typename Reply, typename Request>
  Reply Call(NodeId node, Rpc::Method method, const Request& request) {
    auto result = std::make_shared<std::optional<absl::StatusOr<std::string>>>();
    loader_->Post([this, node, method, bytes = request.SerializeAsString(), result] {
      rpc_->Call(node, method, bytes, seconds(5),
                 [result](absl::StatusOr<std::string> answer) { *result = std::move(answer); });
    });
    cluster_->RunUntil([&] { return result->has_value(); });
    Reply reply;
    EXPECT_TRUE(result->has_value() && (*result)->ok() && reply.ParseFromString(***result));
    return reply;
  }

  wire::WriteRequest PutRequest(const std::string& id, const std::string& value) {
    wire::WriteRequest request;
    request.set_partition(ToUint(table_.partitions[0].id));
    request.mutable_command()->set_key(KeyOf(id));
    request.mutable_command()->set_put(EncodeItem(SimCluster::MakeItem(id, value)));
    request.set_client(99);
    request.set_sequence(++sequence_);
    request.set_acknowledged(sequence_ > 1000 ? sequence_ - 1000 : 0);
    return request;
  }
  wire::ReadRequest GetRequest(const std::string& id, bool strong) {
    wire::ReadRequest request;
    request.set_partition(ToUint(table_.partitions[0].id));
    request.set_key(KeyOf(id));
    request.set_strong(strong);
    return request;
  }
  wire::Outcome Put(const std::string& id, const std::string& value) {
    return Call<wire::WriteReply>(leader_, kWrite, PutRequest(id, value)).outcome();
  }
  // Milliunits of a write that was carried out.
  uint64_t CostOf(const wire::WriteRequest& request) {
    const wire::Outcome outcome = Call<wire::WriteReply>(leader_, kWrite, request).outcome();
    EXPECT_EQ(outcome.code(), 0) << outcome.message();
    return outcome.consumed_milliunits();
  }
  uint64_t CostOf(const wire::ReadRequest& request) {
    const wire::Outcome outcome = Call<wire::ReadReply>(leader_, kRead, request).outcome();
    EXPECT_EQ(outcome.code(), 0) << outcome.message();
    return outcome.consumed_milliunits();
  }

  // Sends requests evenly, whatever the answers, and waits for the last one.
  using MakeRequest = std::function<std::string(int)>;
  template <typename Reply>
  Answers Drive(Rpc::Method method, int per_second, Duration time, const MakeRequest& make) {
    Answers answers;
    const int count = static_cast<int>(per_second * (time.count() / 1'000'000) / 1000);
    const Instant start = cluster_->world().node(kLoader)->clock()->Now();
    int open = count;
    for (int i = 0; i < count; ++i) {
      loader_->RunAt(start + i * Duration(seconds(1)) / per_second, [&, i] {
        rpc_->Call(leader_, method, make(i), seconds(5), [&](absl::StatusOr<std::string> result) {
          --open;
          Reply reply;
          if (!result.ok() || !reply.ParseFromString(*result)) {
            ++answers.others;
          } else {
            Count(reply.outcome(), answers);
          }
        });
      });
    }
    EXPECT_TRUE(cluster_->RunUntil([&] { return open == 0; }));
    EXPECT_EQ(answers.others, 0u);
    return answers;
  }
  static void Count(const wire::Outcome& outcome, Answers& answers) {
    const bool throttled =
        outcome.code() == static_cast<int>(absl::StatusCode::kResourceExhausted) &&
        outcome.retry_after_us() > 0;
    if (outcome.code() == 0) {
      ++answers.ok;
    } else if (throttled) {
      ++answers.throttled;
      EXPECT_EQ(outcome.consumed_milliunits(), 0u);
      const Duration wait = std::chrono::microseconds(outcome.retry_after_us());
      answers.shortest_wait = std::min(answers.shortest_wait, wait);
      answers.longest_wait = std::max(answers.longest_wait, wait);
      answers.message = outcome.message();
    } else {
      ++answers.others;
    }
  }
  Answers DriveWrites(int per_second, Duration time, int items = 64, size_t bytes = 1) {
    return Drive<wire::WriteReply>(kWrite, per_second, time, [=, this](int i) {
      return PutRequest(Name(i % items), std::string(bytes, 'v')).SerializeAsString();
    });
  }
  // Of ten units each.
  Answers DriveLargeWrites(int per_second, Duration time) {
    return DriveWrites(per_second, time, /*items=*/64, /*bytes=*/10'100);
  }
  Answers DriveReads(int per_second, Duration time, bool strong) {
    return Drive<wire::ReadReply>(kRead, per_second, time, [this, strong](int i) {
      return GetRequest(Name(i % 64), strong).SerializeAsString();
    });
  }
  wire::ReplicaStatus LeaderStatus() {
    for (const auto& [first, seen] : cluster_->Leaders(table_.id)) return seen.status;
    return {};
  }

  std::unique_ptr<SimCluster> cluster_;
  sim::SimExecutor* loader_ = nullptr;
  std::unique_ptr<Rpc> rpc_;
  TableInfo table_;
  NodeId leader_{};
  uint64_t sequence_ = 0;
};

TEST_F(AdmissionTest, OptionsOutOfRangeAreNamed) {
  auto with = [](auto change) {
    NodeAdmissionOptions options;
    change(options);
    return Validate(options);
  };
  auto refused = [](const char* field) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field));
  };
  DYNLIB_EXPECT_OK(with([](auto&) {}));
  EXPECT_THAT(with([](auto& o) { o.partition_read_units = 0; }),
              refused("admission.partition_read_units is 0"));
  EXPECT_THAT(with([](auto& o) { o.partition_write_units = -1; }),
              refused("admission.partition_write_units is -1"));
  EXPECT_THAT(with([](auto& o) { o.node_read_units = 1e12; }),
              refused("node_read_units is 1000000000000"));
  EXPECT_THAT(with([](auto& o) { o.node_write_units = 0; }), refused("node_write_units is 0"));
  EXPECT_THAT(with([](auto& o) { o.burst_seconds = 0.5; }), refused("burst_seconds is 0.5"));
  EXPECT_THAT(with([](auto& o) { o.peers_interval = milliseconds(99); }),
              refused("peers_interval is 99000 us"));
  EXPECT_THAT(with([](auto& o) { o.hot_for = {}; }), refused("hot_for is 0"));
  EXPECT_THAT(with([](auto& o) { o.heat.boundaries_max = 1; }), refused("admission.heat: "));
}

TEST_F(AdmissionTest, APartitionKeepsToItsWriteCapacityAndSaysWhenToComeBack) {
  Boot(1, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 1;
  });
  DriveLargeWrites(/*per_second=*/30, seconds(6));  // uses up what was saved
  const Answers answers = DriveWrites(/*per_second=*/200, seconds(5));
  EXPECT_NEAR(static_cast<double>(answers.ok), 250, 12);
  EXPECT_EQ(answers.ok + answers.throttled, 1000u);
  EXPECT_GT(answers.shortest_wait, Duration(0));
  EXPECT_LE(answers.longest_wait, milliseconds(21));  // one unit takes 20 ms
  EXPECT_THAT(answers.message, HasSubstr("used up its write capacity of 50 units a second"));
  EXPECT_GE(cluster_->sink().counts["node.throttled"], static_cast<int64_t>(answers.throttled));
  // Whoever comes back when told to, is served.
  for (int i = 0; i < 20; ++i) {
    wire::Outcome outcome = Put("late", "v");
    if (outcome.code() != 0) {
      ASSERT_GT(outcome.retry_after_us(), 0u);
      cluster_->RunFor(std::chrono::microseconds(outcome.retry_after_us()));
      outcome = Put("late", "v");
    }
    EXPECT_EQ(outcome.code(), 0) << outcome.message();
  }
}

TEST_F(AdmissionTest, ReadsHaveACapacityOfTheirOwnAndEventualOnesCostHalf) {
  Boot(1, [](auto& options) {
    options.admission.partition_read_units = 50;
    options.admission.burst_seconds = 1;
  });
  DriveReads(300, seconds(4), /*strong=*/true);
  EXPECT_NEAR(static_cast<double>(DriveReads(200, seconds(4), /*strong=*/true).ok), 200, 6);
  const Answers eventual = DriveReads(200, seconds(5), /*strong=*/false);
  EXPECT_NEAR(static_cast<double>(eventual.ok), 500, 12);
  EXPECT_THAT(eventual.message, HasSubstr("used up its read capacity of 50 units a second"));
  EXPECT_EQ(Put("a", "v").code(), 0);
}

// The size of what is read is known when it was read: it is paid by what comes after.
TEST_F(AdmissionTest, LargeItemsArePaidByTheirSize) {
  Boot(1, [](auto& options) {
    options.admission.partition_read_units = 50;
    options.admission.burst_seconds = 1;
  });
  ASSERT_EQ(Put("large", std::string(40'000, 'x')).code(), 0);
  auto drive = [&] {
    return Drive<wire::ReadReply>(kRead, 50, seconds(5), [this](int) {
      return GetRequest("large", /*strong=*/true).SerializeAsString();
    });
  };
  drive();
  EXPECT_NEAR(static_cast<double>(drive().ok), 25, 3);  // ten units each
}

TEST_F(AdmissionTest, WhatIsNotUsedIsSavedForABurst) {
  Boot(3, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 20;
  });
  DriveLargeWrites(20, seconds(8));  // uses up what was saved
  EXPECT_NEAR(static_cast<double>(DriveLargeWrites(20, seconds(4)).ok), 20, 2);
  cluster_->RunFor(seconds(25));
  DriveLargeWrites(4, seconds(2));  // within the capacity; the peers say what they have left
  const Answers burst = DriveLargeWrites(20, seconds(2));
  EXPECT_EQ(burst.throttled, 0u) << burst.message;
  // Twenty seconds' worth in all, beside what the time brings.
  const Answers rest = DriveLargeWrites(20, seconds(8));
  EXPECT_NEAR(static_cast<double>(burst.ok + rest.ok), 2 * 50 + 50, 8);
}

TEST_F(AdmissionTest, ANodeLendsABurstNoMoreThanItHas) {
  Boot(1, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 60;
    options.admission.node_write_units = 80;
  });
  cluster_->RunFor(seconds(60));
  DriveLargeWrites(20, seconds(3));
  const Answers answers = DriveLargeWrites(20, seconds(5));
  EXPECT_NEAR(static_cast<double>(answers.ok), 40, 2);
  EXPECT_THAT(answers.message, HasSubstr("node 1 has no write capacity to spare"));
}

// Every replica writes what the leader admits.
TEST_F(AdmissionTest, ABurstWaitsForTheNodesOfTheOtherReplicas) {
  Boot(3, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 60;
  });
  cluster_->RunFor(seconds(60));
  DriveLargeWrites(4, seconds(2));
  EXPECT_EQ(DriveLargeWrites(20, seconds(3)).throttled, 0u);
  // One of them comes back as a weak node.
  const NodeId weak{ToUint(leader_) % 3 + 1};
  cluster_->options().admission.node_write_units = 20;
  DYNLIB_ASSERT_OK(cluster_->Restart(weak));
  cluster_->RunFor(seconds(3));
  const Answers answers = DriveLargeWrites(20, seconds(5));
  EXPECT_GE(answers.ok, 25u);  // what the partition is promised
  EXPECT_LE(answers.ok, 40u);
  EXPECT_THAT(answers.message, HasSubstr("which replicate partition"));
  EXPECT_LE(answers.longest_wait, milliseconds(201));
  // A dead one writes nothing, so it is not waited for.
  cluster_->PowerOff(weak);
  cluster_->RunFor(seconds(5));
  DriveLargeWrites(4, seconds(2));
  EXPECT_EQ(DriveLargeWrites(20, seconds(3)).throttled, 0u);
}

TEST_F(AdmissionTest, TheCatalogueIsNeverThrottled) {
  Boot(1, [](auto& options) {
    options.admission.partition_write_units = 0.001;
    options.admission.partition_read_units = 0.001;
    options.admission.burst_seconds = 1;
  });
  for (int i = 0; i < 20; ++i)
    DYNLIB_ASSERT_OK(cluster_->CreateTable("table-" + std::to_string(i), 1));
  EXPECT_EQ(cluster_->sink().counts["node.throttled"], 0);
  DriveWrites(/*per_second=*/100, seconds(10));
  EXPECT_GT(cluster_->sink().counts["node.throttled"], 150);
}

TEST_F(AdmissionTest, SwitchedOffNothingIsThrottledButCostsAreCounted) {
  Boot(1, [](auto& options) {
    options.admission.enabled = false;
    options.admission.partition_write_units = 1;
    options.admission.burst_seconds = 1;
  });
  EXPECT_EQ(DriveWrites(100, seconds(5)).throttled, 0u);
  EXPECT_EQ(CostOf(PutRequest("a", std::string(3500, 'x'))), 4000u);
  EXPECT_NEAR(static_cast<double>(LeaderStatus().write_milliunits()), 95'000, 12'000);
}

TEST_F(AdmissionTest, RepliesSayWhatARequestCost) {
  Boot(1, [](auto&) {});
  EXPECT_EQ(CostOf(PutRequest("a", "small")), 1000u);
  EXPECT_EQ(CostOf(PutRequest("b", std::string(9000, 'x'))), 9000u);
  EXPECT_EQ(CostOf(GetRequest("a", /*strong=*/true)), 1000u);
  EXPECT_EQ(CostOf(GetRequest("a", /*strong=*/false)), 500u);
  EXPECT_EQ(CostOf(GetRequest("b", /*strong=*/true)), 3000u);
  EXPECT_EQ(CostOf(GetRequest("b", /*strong=*/false)), 1500u);
  EXPECT_EQ(CostOf(GetRequest("absent", /*strong=*/true)), 1000u);
  EXPECT_EQ(CostOf(GetRequest("absent", /*strong=*/false)), 500u);

  wire::QueryRequest query;
  query.set_partition(ToUint(table_.partitions[0].id));
  query.set_strong(true);
  const wire::QueryReply rows = Call<wire::QueryReply>(leader_, kQuery, query);
  EXPECT_EQ(rows.rows_size(), 2);
  EXPECT_EQ(rows.outcome().consumed_milliunits(), 3000u);

  wire::WriteRequest erase = PutRequest("b", "");
  erase.mutable_command()->set_erase(true);
  EXPECT_EQ(CostOf(erase), 1000u);
  // A write whose condition does not hold was logged all the same.
  wire::WriteRequest conditional = PutRequest("a", std::string(3500, 'x'));
  conditional.mutable_command()->set_condition(EncodeCondition({{{"id", Clause::Op::kNotExists}}}));
  const wire::Outcome outcome = Call<wire::WriteReply>(leader_, kWrite, conditional).outcome();
  EXPECT_EQ(outcome.code(), static_cast<int>(absl::StatusCode::kAborted));
  EXPECT_EQ(outcome.consumed_milliunits(), 4000u);
}

// Nothing is paid for what is refused: by a node that does not lead, or for its form.
TEST_F(AdmissionTest, WhatIsRefusedCostsNothing) {
  Boot(3, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.partition_read_units = 50;
    options.admission.burst_seconds = 1;
  });
  const NodeId leader = leader_;
  leader_ = NodeId{ToUint(leader) % 3 + 1};
  for (int i = 0; i < 200; ++i) {
    const wire::Outcome write = Put("a", "v");
    const wire::Outcome read =
        Call<wire::ReadReply>(leader_, kRead, GetRequest("a", true)).outcome();
    for (const wire::Outcome& outcome : {write, read}) {
      ASSERT_EQ(outcome.code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
      ASSERT_EQ(outcome.consumed_milliunits(), 0u);
      ASSERT_EQ(outcome.leader_node(), ToUint(leader));
    }
  }
  EXPECT_EQ(cluster_->sink().counts["node.throttled"], 0);
}

TEST_F(AdmissionTest, AHotPartitionSaysWhereToSplitItAsLongAsItIsThrottled) {
  Boot(1, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 1;
    options.admission.hot_for = seconds(3);
    options.admission.heat.window = seconds(2);
    options.admission.heat.samples_min = 100;
  });
  DriveWrites(40, seconds(8));
  wire::ReplicaStatus status = LeaderStatus();
  EXPECT_EQ(status.throttled(), 0u);
  EXPECT_EQ(status.hot_split(), "");
  EXPECT_NEAR(static_cast<double>(status.write_milliunits()), 40'000, 4000);

  DriveWrites(200, seconds(8));
  status = LeaderStatus();
  EXPECT_GT(status.throttled(), 1000u);
  EXPECT_NEAR(static_cast<double>(status.write_milliunits()), 50'000, 5000);
  EXPECT_EQ(status.split_reason(), "throttled; split");
  EXPECT_EQ(status.hot_split(), HashBoundary(HashOfStorageKey(status.hot_split())));
  int left = 0;
  for (int i = 0; i < 64; ++i) left += KeyOf(Name(i)) < status.hot_split() ? 1 : 0;
  EXPECT_GE(left, 20);
  EXPECT_LE(left, 44);
  // It can be split there.
  cluster_->RunFor(seconds(4));
  EXPECT_EQ(LeaderStatus().hot_split(), "");
}

TEST_F(AdmissionTest, OneHotItemIsNoReasonToSplit) {
  Boot(1, [](auto& options) {
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 1;
    options.admission.heat.window = seconds(2);
    options.admission.heat.samples_min = 100;
  });
  DriveWrites(200, seconds(8), /*items=*/1);
  const wire::ReplicaStatus status = LeaderStatus();
  EXPECT_GT(status.throttled(), 1000u);
  EXPECT_EQ(status.hot_split(), "");
  EXPECT_EQ(status.split_reason(), "throttled; one hot item");
}

// The whole way: throttled, split by the auto admin, served.
TEST_F(AdmissionTest, AHotTableIsSplitUntilItIsServed) {
  Boot(3, [](auto& options) {
    options.run_auto_admin = true;
    options.admission.partition_write_units = 50;
    options.admission.burst_seconds = 1;
    options.admission.heat.window = seconds(2);
    options.admission.heat.samples_min = 100;
  });
  // Through a router, which finds the new partitions; returns how many were refused.
  auto drive = [&](int per_second, int for_seconds, size_t bytes = 1) {
    int open = per_second * for_seconds;
    int refused = 0;
    const Instant start = cluster_->world().node(SimCluster::kClient)->clock()->Now();
    for (int i = 0, count = open; i < count; ++i) {
      cluster_->client()->RunAt(start + i * Duration(seconds(1)) / per_second, [&, i] {
        cluster_->router().Put("orders",
                               SimCluster::MakeItem(Name(i % 64), std::string(bytes, 'v')), {},
                               [&](absl::Status status) {
                                 --open;
                                 refused += status.ok() ? 0 : 1;
                               });
      });
    }
    EXPECT_TRUE(cluster_->RunUntil([&] { return open == 0; }));
    return refused;
  };
  drive(30, 4, /*bytes=*/10'100);  // uses up what was saved
  EXPECT_GT(drive(100, 2), 50);
  int refused = 1;
  for (int i = 0; i < 10 && refused > 0; ++i) refused = drive(100, 3);
  EXPECT_EQ(refused, 0);
  EXPECT_GE(cluster_->Leaders(table_.id).size(), 2u);
}

}  // namespace
}  // namespace dynlib::cluster
