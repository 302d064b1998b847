// A cluster's commands get a new version (rule R10) node by node, and a node that went back to an
// older program does no harm.
#include <map>
#include <string>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/service.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/sim_cluster.h"

namespace dynlib::cluster {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

class VersionTest : public testing::Test {
 protected:
  void SetUp() override {
    // What is damaged or behind stays as it is, to be looked at.
    cluster_.options().run_auto_admin = false;
    DYNLIB_ASSERT_OK(cluster_.Boot());
    DYNLIB_ASSERT_OK(cluster_.CreateTable("users", 1));
    table_ = cluster_.Table("users")->id;
    DYNLIB_ASSERT_OK(cluster_.Put("users", "a", "1"));
  }
  SimCluster::Seen Leader() {
    EXPECT_TRUE(cluster_.Until([&] { return !cluster_.Leaders(table_).empty(); }));
    return cluster_.Leaders(table_).begin()->second;
  }
  absl::Status Raise(uint64_t version) {
    const SimCluster::Seen leader = Leader();
    wire::RaiseVersionRequest request;
    request.set_partition(leader.status.partition());
    request.set_version(version);
    return cluster_.Call<wire::RaiseVersionReply>(leader.node, kRaiseVersion, request).status();
  }
  // A program on the node that reads commands up to `version`.
  void Run(uint64_t node, uint64_t version) {
    cluster_.options().replication.reads_version = version;
    DYNLIB_ASSERT_OK(cluster_.Restart(NodeId{node}));
    DYNLIB_ASSERT_OK(cluster_.Put("users", "b", std::to_string(node)));
  }
  // Of every replica of the table's partitions that are not ended; 0 for one that failed.
  std::map<std::pair<uint64_t, NodeId>, uint64_t> Versions() {
    std::map<std::pair<uint64_t, NodeId>, uint64_t> versions;
    for (const SimCluster::Seen& seen : cluster_.Replicas()) {
      if (seen.status.table() != ToUint(table_) || seen.status.ended() != 0) continue;
      versions[{seen.status.partition(), seen.node}] =
          seen.status.failed() ? 0 : seen.status.version();
    }
    return versions;
  }
  bool AllAre(size_t replicas, uint64_t version) {
    return cluster_.Until([&] {
      const auto versions = Versions();
      for (const auto& [replica, v] : versions) {
        if (v != version) return false;
      }
      return versions.size() == replicas;
    });
  }

  SimCluster cluster_{3};
  TableId table_{};
};

TEST_F(VersionTest, R10ItIsRaisedOnceEveryNodeReadsItAndStays) {
  EXPECT_TRUE(AllAre(3, 1));
  Run(1, 2);
  Run(2, 2);
  EXPECT_THAT(Raise(2), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("on node 3")));
  Run(3, 2);
  EXPECT_TRUE(cluster_.Until([&] { return Raise(2).ok(); }));
  EXPECT_TRUE(AllAre(3, 2));
  // It is in the trees, and the successors of a partition have it.
  DYNLIB_ASSERT_OK(cluster_.Put("users", "c", "3"));
  cluster_.RunFor(seconds(2));
  for (uint64_t id = 1; id <= 3; ++id) cluster_.PowerOff(NodeId{id});
  for (uint64_t id = 1; id <= 3; ++id) DYNLIB_ASSERT_OK(cluster_.Restart(NodeId{id}));
  EXPECT_TRUE(AllAre(3, 2));
  const SimCluster::Seen parent = Leader();
  wire::SplitRequest split;
  split.set_partition(parent.status.partition());
  split.set_at(HashBoundary(uint64_t{1} << 63));
  split.set_left(ToUint(ChildOf(PartitionId{split.partition()}, false)));
  split.set_right(ToUint(ChildOf(PartitionId{split.partition()}, true)));
  DYNLIB_ASSERT_OK(cluster_.Call<wire::SplitReply>(parent.node, kSplit, split));
  EXPECT_TRUE(AllAre(6, 2));
  ASSERT_TRUE(cluster_.Until([&] { return cluster_.Leaders(table_).size() == 2; }));
  const auto halves = cluster_.Leaders(table_);
  wire::MergeRequest merge;
  merge.set_left(halves.begin()->second.status.partition());
  merge.set_right(halves.rbegin()->second.status.partition());
  merge.set_merged(ToUint(MergedOf(PartitionId{merge.left()}, PartitionId{merge.right()})));
  *merge.mutable_members() = halves.begin()->second.status.members();
  for (const auto& [first, half] : halves) {
    merge.set_partition(half.status.partition());
    DYNLIB_ASSERT_OK(cluster_.Call<wire::MergeReply>(half.node, kMerge, merge));
  }
  EXPECT_TRUE(AllAre(3, 2));
}

TEST_F(VersionTest, R10ANodeThatWentBackNeitherAppliesNorLeads) {
  for (uint64_t id = 1; id <= 3; ++id) Run(id, 2);
  EXPECT_TRUE(cluster_.Until([&] { return Raise(2).ok(); }));
  cluster_.RunFor(seconds(2));
  const NodeId old = Leader().node;
  Run(ToUint(old), 1);
  EXPECT_TRUE(cluster_.Until([&] { return Leader().node != old; }));
  const uint64_t partition = Leader().status.partition();
  EXPECT_TRUE(cluster_.Until([&] { return Versions().at({partition, old}) == 0; }));
  DYNLIB_EXPECT_OK(cluster_.Put("users", "d", "4"));
  EXPECT_EQ(cluster_.Get("users", "a"), "1");
  // With the right program again it is as the others.
  Run(ToUint(old), 2);
  EXPECT_TRUE(AllAre(3, 2));
  EXPECT_EQ(cluster_.Get("users", "d"), "4");
}

}  // namespace
}  // namespace dynlib::cluster
