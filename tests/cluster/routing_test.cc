// How requests find their partitions in whole simulated clusters with metadata nodes: pushed by
// leaders, looked up by routers, put right by hints.
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router_types.h"
#include "dynlib/cluster/service.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/sim_cluster.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kA{901}, kB{902}, kC{903};

std::map<std::string, std::string> Items(int count, const std::string& value) {
  std::map<std::string, std::string> items;
  for (int i = 0; i < count; ++i) items["i" + std::to_string(i)] = value;
  return items;
}

class RoutingTest : public ::testing::Test {
 protected:
  void Boot(uint64_t nodes, size_t partitions) {
    cluster_.emplace(nodes);
    cluster_->config().metadata_nodes = {kA, kB, kC};
    DYNLIB_ASSERT_OK(cluster_->Boot());
    DYNLIB_ASSERT_OK(cluster_->CreateTable("users", partitions));
  }
  int64_t Counted(const std::string& name) { return cluster_->sink().counts[name]; }
  bool InStep() {
    return cluster_->metadata(kA)->status().digest == cluster_->metadata(kB)->status().digest &&
           cluster_->metadata(kA)->status().digest == cluster_->metadata(kC)->status().digest;
  }

  std::optional<SimCluster> cluster_;
};

TEST_F(RoutingTest, ATableCanBeUsedAsSoonAsItIsMadeAndNobodyReadsTheCatalogue) {
  Boot(6, 8);
  const int64_t reads = Counted("router.catalogue_reads");
  DYNLIB_ASSERT_OK(cluster_->PutMany("users", Items(100, "a")));
  for (const auto& [id, value] : Items(100, "a")) EXPECT_EQ(cluster_->Get("users", id), value);
  EXPECT_EQ(cluster_->Get("users", "i7", Consistency::kEventual), "a");
  EXPECT_EQ(Counted("router.catalogue_reads"), reads);
  EXPECT_EQ(Counted("router.look_ups"), Counted("metadata.look_ups"));
  // The catalogue's own partition, and the table's.
  cluster_->RunFor(seconds(2));
  EXPECT_EQ(cluster_->metadata(kA)->status().partitions, 9u);
  EXPECT_EQ(cluster_->metadata(kA)->status().tables, 1u);
  EXPECT_TRUE(InStep());
}

TEST_F(RoutingTest, LookUpsAreTwoARequestWhateverTheRouterRemembers) {
  Boot(3, 4);
  DYNLIB_ASSERT_OK(cluster_->PutMany("users", Items(50, "a")));
  const int64_t requests = Counted("router.requests"), look_ups = Counted("router.look_ups");
  for (int round = 0; round < 4; ++round) {
    if (round % 2 == 1) cluster_->client()->Post([&] { cluster_->router().ForgetRoutes(); });
    for (const auto& [id, value] : Items(50, "a")) EXPECT_EQ(cluster_->Get("users", id), value);
  }
  EXPECT_EQ(Counted("router.requests"), requests + 200);
  EXPECT_EQ(Counted("router.look_ups"), look_ups + 400);
}

TEST_F(RoutingTest, PushesGoOnAtTheSameRateWhenNothingHappens) {
  Boot(3, 4);
  cluster_->RunFor(seconds(10));
  const int64_t before = Counted("push.records");
  cluster_->RunFor(seconds(10));
  const int64_t once = Counted("push.records") - before;
  cluster_->RunFor(seconds(10));
  EXPECT_EQ(Counted("push.records") - before, 2 * once);
  EXPECT_EQ(once, 2 * 3 * 5) << "twice in 10 s, to three metadata nodes, five partitions";
}

TEST_F(RoutingTest, MetadataNodesMayAllDieAndComeBackEmpty) {
  Boot(3, 4);
  DYNLIB_ASSERT_OK(cluster_->PutMany("users", Items(50, "a")));
  for (NodeId node : {kA, kB, kC}) cluster_->CrashMetadata(node);
  DYNLIB_ASSERT_OK(cluster_->PutMany("users", Items(50, "b")));
  // Leaders change meanwhile: hints lead there.
  cluster_->PowerOff(NodeId{2});
  DYNLIB_ASSERT_OK(cluster_->PutMany("users", Items(50, "c")));
  for (NodeId node : {kA, kB, kC}) {
    cluster_->world().node(node)->Restart();
    DYNLIB_ASSERT_OK(cluster_->OpenMetadata(node));
  }
  cluster_->RunFor(seconds(7));
  cluster_->client()->Post([&] { cluster_->router().ForgetRoutes(); });
  for (const auto& [id, value] : Items(50, "c")) EXPECT_EQ(cluster_->Get("users", id), value);
}

TEST_F(RoutingTest, ASplitIsFollowedWhileWritesGoOn) {
  Boot(3, 1);
  std::map<std::string, std::string> items = Items(100, "a");
  DYNLIB_ASSERT_OK(cluster_->PutMany("users", items));
  const SimCluster::Seen parent = cluster_->Leaders(cluster_->Table("users")->id).at("");
  int open = 0, failed = 0, round = 0;
  std::function<void()> write = [&] {
    const std::string id = "i" + std::to_string(round++ % 100);
    items[id] = "b" + std::to_string(round);
    ++open;
    cluster_->router().Put("users", SimCluster::MakeItem(id, items[id]), {},
                           [&](absl::Status status) {
                             --open;
                             failed += !status.ok();
                             if (round < 600) write();
                           });
  };
  cluster_->client()->Post(write);
  cluster_->RunFor(milliseconds(50));
  wire::SplitRequest request;
  request.set_partition(parent.status.partition());
  request.set_at(HashBoundary(uint64_t{1} << 63));
  request.set_left(1001);
  request.set_right(1002);
  DYNLIB_ASSERT_OK(cluster_->Call<wire::SplitReply>(parent.node, kSplit, request));
  ASSERT_TRUE(cluster_->RunUntil([&] { return open == 0 && round >= 600; }, seconds(120)));
  EXPECT_EQ(failed, 0);
  for (const auto& [id, value] : items) EXPECT_EQ(cluster_->Get("users", id), value);
  // Metadata nodes know both children.
  cluster_->RunFor(seconds(1));
  const auto view = cluster_->metadata(kA)->status();
  EXPECT_EQ(view.partitions, 3u) << "the catalogue's and the children";
  EXPECT_TRUE(InStep());
}

}  // namespace
}  // namespace dynlib::cluster
