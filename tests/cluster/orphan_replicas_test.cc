#include "dynlib/cluster/orphan_replicas.h"

#include <map>
#include <set>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_ids.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(TableIdsTest, EachIsGivenOnce) {
  TableIds ids;
  EXPECT_FALSE(ids.Gave(TableId{0}));
  ids = WithNext(ids, 7);
  const TableId first = ids.last;
  EXPECT_TRUE(ids.Gave(first));
  ids = WithNext(ids, 8);
  EXPECT_NE(ids.last, first);
  EXPECT_EQ(ids.version, 2u);
  EXPECT_TRUE(ids.Gave(first));
  EXPECT_TRUE(ids.Gave(ids.last));
  EXPECT_FALSE(ids.Gave(TableId{ToUint(ids.last) + 1}));
  EXPECT_FALSE(ids.Gave(kCatalogueTable));
  // Another catalogue begins elsewhere.
  EXPECT_FALSE(ids.Gave(WithNext({}, 9).last));
}

TEST(TableIdsTest, TheyComeBackAsTheyWereKept) {
  const TableIds ids = WithNext(WithNext({}, 7), 7);
  EXPECT_THAT(DecodeTableIdsItem(EncodeTableIdsItem(ids)), IsOkAndHolds(ids));
  EXPECT_THAT(DecodeTableIdsItem({}), StatusIs(absl::StatusCode::kDataLoss));
  Item item = EncodeTableIdsItem(ids);
  item["ids"] = Value::Binary("short");
  EXPECT_THAT(DecodeTableIdsItem(item), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodeTableIdsItem(EncodeTableIdsItem({})), StatusIs(absl::StatusCode::kDataLoss));
}

class OrphanReplicasTest : public ::testing::Test {
 protected:
  OrphanReplicasTest() {
    known_.given = {.version = 5, .first = TableId{100}, .last = TableId{104}};
    wire::ReplicaStatus& replica = *nodes_[NodeId{1}].status.add_replicas();
    replica.set_partition(9);
    replica.set_replica(3);
    nodes_[NodeId{1}].alive = true;
    Show(TableId{102});
  }
  void Show(TableId table) {
    nodes_[NodeId{1}].status.mutable_replicas(0)->set_table(ToUint(table));
    shown_before_ = {table};
  }

  KnownTables known_;
  std::set<TableId> shown_before_;
  std::map<NodeId, NodeView> nodes_;
};

TEST_F(OrphanReplicasTest, OfATableThatIsNoMoreIsDropped) {
  const auto drops = DropOrphans(known_, shown_before_, nodes_);
  ASSERT_THAT(drops, SizeIs(1));
  EXPECT_EQ(drops[0].node, NodeId{1});
  EXPECT_EQ(drops[0].request.partition(), 9u);
  EXPECT_EQ(drops[0].request.replica(), 3u);
  EXPECT_TRUE(drops[0].request.force());
}

TEST_F(OrphanReplicasTest, OfATableOrACreationThatTheCatalogueHasIsKept) {
  known_.entries = {TableId{102}};
  EXPECT_THAT(DropOrphans(known_, shown_before_, nodes_), IsEmpty());
}

TEST_F(OrphanReplicasTest, OneMadeSinceTheCatalogueWasReadIsKept) {
  EXPECT_EQ(TablesShown(nodes_), shown_before_);
  EXPECT_THAT(DropOrphans(known_, {}, nodes_), IsEmpty());
}

TEST_F(OrphanReplicasTest, OfATableOfAnotherCatalogueIsKept) {
  Show(TableId{99});
  EXPECT_THAT(DropOrphans(known_, shown_before_, nodes_), IsEmpty());
  Show(TableId{105});
  EXPECT_THAT(DropOrphans(known_, shown_before_, nodes_), IsEmpty());
  Show(TableId{102});
  known_.given = {};
  EXPECT_THAT(DropOrphans(known_, shown_before_, nodes_), IsEmpty()) << "it gave out none";
}

TEST_F(OrphanReplicasTest, ASilentNodeIsNotAsked) {
  nodes_[NodeId{1}].alive = false;
  EXPECT_THAT(DropOrphans(known_, shown_before_, nodes_), IsEmpty());
  EXPECT_THAT(TablesShown(nodes_), IsEmpty());
}

}  // namespace
}  // namespace dynlib::cluster
