#include "dynlib/partition_map/partition_record.h"

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/partition_map/map_entry.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/partition_map/random_records.h"

namespace dynlib::partition_map {
namespace {

using ::testing::HasSubstr;

const TableRecord kOrders{
    .table = TableId{300}, .name = "orders", .version = 7, .descriptor = "schema"};

TEST(PartitionRecord, EncodingIsWhatItWas) {
  // Format, table, first, end; three members, led by the first; partition, generation, epoch,
  // ballot; members, the last a log replica.
  const std::string golden(
      "\x02\x01\x01"
      "c\x01"
      "g\x12\x05\x02\x03\x04\x00\x01\x00\x02\x01\x03",
      17);
  EXPECT_EQ(Encode(MakeRecord(5, "c", "g", 2, 3, 4)), golden);
  PartitionRecord unusual = MakeRecord(5, "c", "", 2, 3, 4);
  unusual.leader = NodeId{9};
  unusual.members = {{ReplicaId{300}, NodeId{7}, MemberKind::kLog, 2},
                     {ReplicaId{5}, NodeId{8}, MemberKind::kStorage, 9}};
  const std::string unusual_golden(
      "\x02\x01\x01"
      "c\x00\xf1\x05\x02\x03\x04\x09\xf5\xac\x02\x07\xfe\x02\x05\x08",
      19);
  EXPECT_EQ(Encode(unusual), unusual_golden);
  EXPECT_THAT(DecodePartitionRecord(unusual_golden), IsOkAndHolds(unusual));
  const std::string golden_table("\x01\xac\x02\x06orders\x07\x00\x06schema", 19);
  EXPECT_EQ(Encode(kOrders), golden_table);
}

TEST(PartitionRecord, DecodesWhatWasEncoded) {
  Random random(1);
  for (int i = 0; i < 2'000; ++i) {
    PartitionRecord record = RandomRecord(random);
    record.epoch = random.Next() >> random.Below(64);
    record.leader_ballot = random.Next() >> random.Below(64);
    record.members[1].replica = ReplicaId{4 + random.Below(300)};
    for (PartitionMember& member : record.members) {
      member.zone = static_cast<uint32_t>(random.Below(12));
    }
    EXPECT_THAT(DecodePartitionRecord(Encode(record)), IsOkAndHolds(record));
    EXPECT_THAT(DecodePartitionEntry(EntryKey(record.table, record.first), EncodeValue(record)),
                IsOkAndHolds(record));
  }
  EXPECT_THAT(DecodeTableRecord(Encode(kOrders)), IsOkAndHolds(kOrders));
  EXPECT_THAT(DecodeTableEntry(EntryKey(kOrders.table), EncodeValue(kOrders)),
              IsOkAndHolds(kOrders));
  const TableRecord tombstone{.table = TableId{1}, .version = 9, .dropped = true};
  EXPECT_THAT(DecodeTableRecord(Encode(tombstone)), IsOkAndHolds(tombstone));
}

// Damaged bytes are refused, or are another valid record in its one encoding; nothing else.
template <typename Decode>
void DamageEach(const std::string& bytes, Decode decode) {
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(decode(std::string_view(bytes).substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss));
  }
  EXPECT_THAT(decode(bytes + '\0'), StatusIs(absl::StatusCode::kDataLoss));
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(byte);
      const auto decoded = decode(damaged);
      if (decoded.ok()) {
        EXPECT_THAT(Validate(*decoded), IsOk());
        EXPECT_EQ(Encode(*decoded), damaged);
      } else {
        EXPECT_THAT(decoded, StatusIs(absl::StatusCode::kDataLoss));
      }
    }
  }
}

TEST(PartitionRecord, DamageAtEachByteIsSafe) {
  DamageEach(Encode(MakeRecord(5, "c", "g", 200, 3, 4)),
             [](std::string_view bytes) { return DecodePartitionRecord(bytes); });
  DamageEach(Encode(kOrders), [](std::string_view bytes) { return DecodeTableRecord(bytes); });
}

TEST(PartitionRecord, RandomBytesAreSafe) {
  Random random(2);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(random.Below(40), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Below(random.Chance(0.5) ? 4 : 256));
    if (!bytes.empty()) bytes[0] = static_cast<char>(1 + random.Below(2));
    const auto partition = DecodePartitionRecord(bytes);
    if (partition.ok()) {
      EXPECT_THAT(Validate(*partition), IsOk());
    }
    const auto table = DecodeTableRecord(bytes);
    if (table.ok()) {
      EXPECT_THAT(Validate(*table), IsOk());
    }
    (void)DecodeEntry(bytes, bytes);
  }
}

TEST(PartitionRecord, ALengthThatLiesAllocatesNothing) {
  const std::string bytes("\x02\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11);
  EXPECT_THAT(DecodePartitionRecord(bytes), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(PartitionRecord, InvalidRecordsAreNotDecoded) {
  PartitionRecord record = MakeRecord(5, "g", "c", 2);
  EXPECT_THAT(DecodePartitionRecord(Encode(record)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("end is c")));
}

TEST(PartitionRecord, NewerIsGenerationThenEpochThenBallot) {
  const PartitionRecord base = MakeRecord(5, "", "", 2, 3, 4);
  EXPECT_FALSE(IsNewer(base, base));
  EXPECT_TRUE(IsNewer(MakeRecord(1, "", "", 3), base));
  EXPECT_TRUE(IsNewer(MakeRecord(5, "", "", 2, 4, 0), base));
  EXPECT_TRUE(IsNewer(MakeRecord(5, "", "", 2, 3, 5), base));
  EXPECT_FALSE(IsNewer(MakeRecord(5, "", "", 1, 99, 99), base));
  EXPECT_FALSE(IsNewer(MakeRecord(5, "", "", 2, 2, 99), base));
  // A hint that names a leader says more than one that does not.
  PartitionRecord unled = base;
  unled.leader = NodeId{0};
  EXPECT_TRUE(IsNewer(base, unled));
  EXPECT_FALSE(IsNewer(unled, base));
}

TEST(PartitionRecord, ADroppedTableIsNewerThanAnyVersionOfIt) {
  TableRecord later = kOrders;
  later.version = 8;
  EXPECT_TRUE(IsNewer(later, kOrders));
  const TableRecord dropped{.table = kOrders.table, .version = 1, .dropped = true};
  EXPECT_TRUE(IsNewer(dropped, later));
  EXPECT_FALSE(IsNewer(later, dropped));
}

TEST(MapEntry, KeysAreOrderedByTableAndThenByFirst) {
  EXPECT_LT(EntryKey(TableId{2}), EntryKey(TableId{256}));
  EXPECT_LT(EntryKey(TableId{2}, "z"), EntryKey(TableId{256}, ""));
  EXPECT_LT(EntryKey(TableId{2}, ""), EntryKey(TableId{2}, "a"));
  EXPECT_LT(EntryKey(TableId{UINT64_MAX}), EntryKey(TableId{1}, ""));
  EXPECT_EQ(TableOfPartitionKey(EntryKey(TableId{77}, "z")), TableId{77});
  EXPECT_EQ(TableOfPartitionKey(EntryKey(TableId{77})), std::nullopt);
  EXPECT_EQ(TableOfPartitionKey("\x02"), std::nullopt);
}

}  // namespace
}  // namespace dynlib::partition_map
