#include "dynlib/cluster/catalogue.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

TableInfo Sample() {
  return {.id = TableId{5},
          .name = "users",
          .schema = {.partition_key = {"id", KeyType::kNumber},
                     .sort_key = KeyAttribute{"at", KeyType::kBinary}},
          .partitions = {{PartitionId{10}, "", "g", {{ReplicaId{1}, NodeId{1}}}},
                         {PartitionId{11}, "g", "p", {{ReplicaId{1}, NodeId{2}}}},
                         {PartitionId{12}, "p", "", {{ReplicaId{1}, NodeId{3}}}}}};
}

TEST(CatalogueTest, ATableComesBackAsItWasEntered) {
  EXPECT_THAT(DecodeTableItem(EncodeTableItem(Sample())), IsOkAndHolds(Sample()));
}

TEST(CatalogueTest, AConditionNamesTheTableBesidesItsVersion) {
  TableInfo table = Sample();
  table.version = 3;
  const Item entry = EncodeTableItem(table);
  EXPECT_TRUE(Holds(TableIs(table.id, 3), &entry));
  EXPECT_FALSE(Holds(TableIs(table.id, 2), &entry));
  EXPECT_FALSE(Holds(TableIs(TableId{6}, 3), &entry)) << "another table of the name";
  EXPECT_FALSE(Holds(TableIs(table.id, 3), nullptr));
}

TEST(CatalogueTest, EveryKeyHasItsPartition) {
  const TableInfo table = Sample();
  EXPECT_EQ(table.PartitionOf("").id, PartitionId{10});
  EXPECT_EQ(table.PartitionOf("fzz").id, PartitionId{10});
  EXPECT_EQ(table.PartitionOf("g").id, PartitionId{11});
  EXPECT_EQ(table.PartitionOf("o\xff").id, PartitionId{11});
  EXPECT_EQ(table.PartitionOf("p").id, PartitionId{12});
  EXPECT_EQ(table.PartitionOf("\xff\xff").id, PartitionId{12});
}

TEST(CatalogueTest, TheCatalogueItselfHasOnePartition) {
  const TableInfo table = CatalogueTable({NodeId{4}, NodeId{2}});
  ASSERT_EQ(table.partitions.size(), 1u);
  EXPECT_EQ(table.partitions[0].members[0], (PartitionMember{ReplicaId{1}, NodeId{4}}));
  EXPECT_EQ(table.partitions[0].members[1], (PartitionMember{ReplicaId{2}, NodeId{2}}));
  EXPECT_THAT(DecodeTableItem(EncodeTableItem(table)), IsOkAndHolds(table));
}

TEST(CatalogueTest, GapsAndOverlapsAndEmptyFieldsAreDataLoss) {
  auto decode = [](auto change) {
    TableInfo table = Sample();
    change(table);
    return DecodeTableItem(EncodeTableItem(table)).status();
  };
  const auto damaged = StatusIs(absl::StatusCode::kDataLoss);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[1].first = "h"; }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[1].first = "f"; }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[0].first = "a"; }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[2].end = "z"; }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[1].end = ""; }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions.clear(); }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[1].members.clear(); }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.partitions[1].members[0].node = NodeId{}; }), damaged);
  EXPECT_THAT(decode([](TableInfo& t) { t.id = TableId{}; }), damaged);
}

TEST(CatalogueTest, DamagedBytesAreNoTable) {
  const Item good = EncodeTableItem(Sample());
  const std::string bytes = good.at("table").binary();
  for (size_t length = 0; length < bytes.size(); ++length) {
    Item item = good;
    item["table"] = Value::Binary(bytes.substr(0, length));
    EXPECT_THAT(DecodeTableItem(item), StatusIs(absl::StatusCode::kDataLoss)) << length;
  }
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[at] ^= static_cast<char>(1 << bit);
      Item item = good;
      item["table"] = Value::Binary(damaged);
      DecodeTableItem(item).IgnoreError();  // any answer, but no crash
    }
  }
  Item other = good;
  other["name"] = Value::String("other");
  EXPECT_THAT(DecodeTableItem(other), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodeTableItem({}), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(CatalogueTest, EqualReplicasHaveEqualBytes) {
  const TableInfo table = Sample();
  EXPECT_EQ(EncodeCreateReplica(table, table.partitions[1]),
            EncodeCreateReplica(Sample(), Sample().partitions[1]));
  EXPECT_NE(EncodeCreateReplica(table, table.partitions[1]),
            EncodeCreateReplica(table, table.partitions[2]));
}

}  // namespace
}  // namespace dynlib::cluster
