#include "dynlib/cluster/metadata_push.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/clock.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using partition_map::PartitionRecord;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr NodeId kA{901}, kB{902}, kHere{1};

// A storage node that leads what the test says, and metadata nodes that note what they are told.
class MetadataPushTest : public ::testing::Test {
 protected:
  struct Metadata {
    std::unique_ptr<Rpc> rpc;
    uint64_t incarnation = 1;
    bool silent = false;
    std::vector<std::vector<PartitionRecord>> pushes;
    std::vector<size_t> bytes;
    size_t waiting = 0;
    size_t waiting_max = 0;
    std::vector<Rpc::Reply> never;
  };

  MetadataPushTest() : world_(1) {
    for (NodeId id : {kA, kB}) {
      sim::Node* node = world_.AddNode(id);
      sim::SimExecutor* executor = node->NewExecutor("main");
      Metadata& metadata = metadata_[id];
      metadata.rpc = std::make_unique<Rpc>(Rpc::Options{}, node->transport(), kRpcChannel, executor,
                                           node->clock());
      metadata.rpc->Handle(kPush, [&metadata, executor, node](NodeId from, Instant,
                                                              std::string bytes, Rpc::Reply reply) {
        EXPECT_EQ(from, kHere);
        wire::PushRequest request;
        EXPECT_TRUE(request.ParseFromString(bytes));
        if (metadata.silent) return metadata.never.push_back(std::move(reply));
        metadata.bytes.push_back(bytes.size());
        metadata.pushes.emplace_back();
        for (const std::string& record : request.partitions())
          metadata.pushes.back().push_back(*partition_map::DecodePartitionRecord(record));
        metadata.waiting_max = std::max(metadata.waiting_max, ++metadata.waiting);
        executor->RunAt(node->clock()->Now() + milliseconds(3),
                        [&metadata, reply = std::move(reply)]() mutable {
                          metadata.waiting--;
                          wire::PushReply message;
                          message.set_incarnation(metadata.incarnation);
                          reply(message.SerializeAsString());
                        });
      });
    }
    sim::Node* here = world_.AddNode(kHere);
    clock_ = here->clock();
    executor_ = here->NewExecutor("main");
    rpc_ = std::make_unique<Rpc>(Rpc::Options{}, here->transport(), kRpcChannel, executor_, clock_);
  }

  void Start() {
    push_ = std::make_unique<MetadataPush>(
        options_, std::vector<NodeId>{kA, kB},
        MetadataPush::Source{.led =
                                 [this] {
                                   std::vector<PartitionId> led;
                                   for (const auto& [id, record] : leads_) led.push_back(id);
                                   return led;
                                 },
                             .record = [this](PartitionId id) -> std::optional<PartitionRecord> {
                               const auto found = leads_.find(id);
                               if (found == leads_.end()) return std::nullopt;
                               return found->second;
                             }},
        rpc_.get(), executor_, clock_);
  }
  void Lead(uint64_t partition, uint64_t ballot, std::string first = "") {
    const PartitionId id{partition};
    leads_[id] = {.table = TableId{9},
                  .partition = id,
                  .first = std::move(first),
                  .end = "",
                  .generation = 1,
                  .epoch = 0,
                  .members = {{ReplicaId{1}, kHere}},
                  .leader = kHere,
                  .leader_ballot = ballot};
    if (push_ != nullptr) push_->OnChange(id);
  }
  size_t RecordsAt(NodeId node) {
    size_t sum = 0;
    for (const auto& push : metadata_[node].pushes) sum += push.size();
    return sum;
  }
  void Clear() {
    for (auto& [id, metadata] : metadata_) {
      metadata.pushes.clear();
      metadata.bytes.clear();
    }
  }

  sim::World world_;
  std::map<NodeId, Metadata> metadata_;
  sim::SimClock* clock_;
  sim::SimExecutor* executor_;
  std::unique_ptr<Rpc> rpc_;
  MetadataPushOptions options_;
  std::map<PartitionId, PartitionRecord> leads_;
  std::unique_ptr<MetadataPush> push_;
};

TEST_F(MetadataPushTest, AChangeIsToldToEveryMetadataNodeAtOnce) {
  Start();
  world_.RunFor(seconds(1));
  Lead(20, 5);
  world_.RunFor(milliseconds(30));
  for (NodeId node : {kA, kB})
    EXPECT_THAT(metadata_[node].pushes, ElementsAre(ElementsAre(leads_[PartitionId{20}])));
}

TEST_F(MetadataPushTest, ChangesThatFollowOneAnotherShareAMessageThatHasTheLast) {
  Start();
  world_.RunFor(seconds(1));
  for (uint64_t ballot = 1; ballot <= 50; ++ballot) {
    Lead(20, ballot);
    Lead(21, ballot, "m");
  }
  world_.RunFor(milliseconds(30));
  ASSERT_THAT(metadata_[kA].pushes, ElementsAre(SizeIs(2)));
  EXPECT_EQ(metadata_[kA].pushes[0][0].leader_ballot, 50u);
  // What is not led any more is not told.
  Clear();
  leads_.erase(PartitionId{20});
  push_->OnChange(PartitionId{20});
  world_.RunFor(milliseconds(30));
  EXPECT_THAT(metadata_[kA].pushes, IsEmpty());
}

TEST_F(MetadataPushTest, EverythingIsToldEachIntervalWhetherItChangedOrNot) {
  for (uint64_t i = 0; i < 10; ++i) Lead(20 + i, 1, std::string(1, static_cast<char>('a' + i)));
  Start();
  world_.RunFor(milliseconds(100));
  EXPECT_EQ(RecordsAt(kA), 10u);
  world_.RunFor(options_.push_interval * 4);
  EXPECT_EQ(RecordsAt(kA), 50u);
  EXPECT_EQ(RecordsAt(kB), 50u);
}

TEST_F(MetadataPushTest, ANodeThatForgotIsToldEverythingAtOnce) {
  for (uint64_t i = 0; i < 10; ++i) Lead(20 + i, 1, std::string(1, static_cast<char>('a' + i)));
  Start();
  world_.RunFor(milliseconds(100));
  Clear();
  metadata_[kA].incarnation = 2;
  Lead(20, 2);  // the reply to this shows it
  world_.RunFor(milliseconds(100));
  EXPECT_EQ(RecordsAt(kA), 11u);
  EXPECT_EQ(RecordsAt(kB), 1u);
}

TEST_F(MetadataPushTest, MessagesAreBoundedAndOneIsUnderWay) {
  for (uint64_t i = 0; i < 3000; ++i)
    Lead(1000 + i, 1, std::string(100, 'k') + std::to_string(10'000 + i));
  Start();
  world_.RunFor(seconds(2));
  EXPECT_EQ(RecordsAt(kA), 3000u);
  EXPECT_GE(metadata_[kA].pushes.size(), 5u);
  for (size_t bytes : metadata_[kA].bytes) EXPECT_LE(bytes, options_.batch_bytes * 11 / 10);
  EXPECT_EQ(metadata_[kA].waiting_max, 1u);
}

TEST_F(MetadataPushTest, ALostMessageIsSentAgainAndADeadNodeCostsTheOthersNothing) {
  Start();
  world_.RunFor(seconds(1));
  metadata_[kA].silent = true;
  Lead(20, 5);
  world_.RunFor(milliseconds(100));
  EXPECT_EQ(RecordsAt(kB), 1u);
  metadata_[kA].silent = false;
  world_.RunFor(options_.call_timeout);
  EXPECT_EQ(RecordsAt(kA), 1u) << "long before everything is told again";
  EXPECT_THAT(metadata_[kA].never, SizeIs(1));
  // One that stays silent is asked twice, and then once an interval.
  metadata_[kA].silent = true;
  Lead(20, 6);
  world_.RunFor(options_.push_interval * 10);
  EXPECT_LE(metadata_[kA].never.size(), 1u + 2 + 10);
  EXPECT_EQ(metadata_[kB].pushes.back().front().leader_ballot, 6u);
  metadata_[kA].silent = false;
  world_.RunFor(options_.push_interval + seconds(1));
  EXPECT_EQ(metadata_[kA].pushes.back().front().leader_ballot, 6u);
}

TEST_F(MetadataPushTest, NothingIsSentAfterItsEnd) {
  Start();
  Lead(20, 5);
  push_ = nullptr;
  world_.RunFor(seconds(20));
  EXPECT_THAT(metadata_[kA].pushes, IsEmpty());
}

TEST(MetadataPushOptionsTest, EveryFieldIsChecked) {
  DYNLIB_EXPECT_OK(Validate(MetadataPushOptions()));
  auto message = [](auto change) {
    MetadataPushOptions options;
    change(options);
    const absl::Status status = Validate(options);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  EXPECT_THAT(message([](auto& o) { o.push_interval = milliseconds(1); }),
              HasSubstr("push_interval"));
  EXPECT_THAT(message([](auto& o) { o.coalesce = seconds(6); }), HasSubstr("coalesce"));
  EXPECT_THAT(message([](auto& o) { o.call_timeout = {}; }), HasSubstr("call_timeout"));
  EXPECT_THAT(message([](auto& o) { o.batch_bytes = 1000; }), HasSubstr("batch_bytes"));
}

}  // namespace
}  // namespace dynlib::cluster
