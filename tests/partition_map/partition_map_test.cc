#include "dynlib/partition_map/partition_map.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/partition_map/map_entry.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/perkle.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/partition_map/random_records.h"

namespace dynlib::partition_map {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr TableId kTable{1};

std::unique_ptr<PartitionMap> NewMap(const PartitionMapOptions& options = {}) {
  return *PartitionMap::Create(options);
}

UpsertOutcome Put(PartitionMap& map, const PartitionRecord& record) {
  const absl::StatusOr<Upserted> result = map.Upsert(record);
  EXPECT_THAT(result, IsOk());
  return result.ok() ? result->outcome : UpsertOutcome::kStale;
}

std::vector<PartitionRecord> All(const PartitionMap& map, TableId table = kTable) {
  std::vector<PartitionRecord> records;
  map.view()->ForEachPartition(table, "", [&](const PartitionRecord& record) {
    records.push_back(record);
    return true;
  });
  return records;
}

PartitionRecord Narrowed(PartitionRecord record, std::string first, std::string end) {
  record.first = std::move(first);
  record.end = std::move(end);
  return record;
}

// What the map must be, from the definition: for each key the newest record that contains it.
const PartitionRecord* Holder(const std::vector<PartitionRecord>& records, TableId table,
                              std::string_view key) {
  const PartitionRecord* holder = nullptr;
  for (const PartitionRecord& record : records) {
    if (record.table != table || !record.Contains(key)) continue;
    if (holder == nullptr || IsNewer(record, *holder)) holder = &record;
  }
  return holder;
}

void ExpectIsJoinOf(const PartitionMap& map, const std::vector<PartitionRecord>& records) {
  for (const TableId table : {TableId{1}, TableId{2}}) {
    for (uint64_t i = 0; i < kTestKeys; ++i) {
      for (const std::string& key : {TestKey(i), TestKey(i) + "5"}) {
        const PartitionRecord* expected = Holder(records, table, key);
        const PartitionPtr found = map.Find(table, key);
        ASSERT_EQ(found != nullptr, expected != nullptr) << key;
        if (found == nullptr) continue;
        ASSERT_TRUE(SameHolder(*found, *expected)) << key;
        ASSERT_TRUE(found->Contains(key)) << key;
      }
    }
    // Ranges are as long as they can be, and do not overlap.
    const std::vector<PartitionRecord> all = All(map, table);
    for (size_t i = 1; i < all.size(); ++i) {
      ASSERT_FALSE(all[i - 1].end.empty());
      ASSERT_LE(all[i - 1].end, all[i].first);
      ASSERT_FALSE(all[i - 1].end == all[i].first && SameHolder(all[i - 1], all[i]));
    }
  }
  ASSERT_EQ(map.view()->partitions(), All(map, TableId{1}).size() + All(map, TableId{2}).size());
  ASSERT_TRUE(map.view()->entries().Verify());
}

TEST(PartitionMap, FindNeverReturnsARecordThatDoesNotContainTheKey) {
  const auto map = NewMap();
  EXPECT_EQ(map->Find(kTable, "k"), nullptr);
  EXPECT_EQ(Put(*map, MakeRecord(1, "c", "g", 1)), UpsertOutcome::kApplied);
  EXPECT_EQ(map->Find(kTable, "b"), nullptr);
  EXPECT_EQ(map->Find(kTable, "c")->partition, PartitionId{1});
  EXPECT_EQ(map->Find(kTable, "fzzz")->partition, PartitionId{1});
  EXPECT_EQ(map->Find(kTable, "g"), nullptr);
  EXPECT_EQ(map->Find(TableId{2}, "c"), nullptr);
  EXPECT_EQ(map->Find(TableId{0}, "c"), nullptr);
}

TEST(PartitionMap, ChildrenOfASplitArriveOneAtATimeAndLeaveNoGap) {
  const auto map = NewMap();
  const PartitionRecord parent = MakeRecord(1, "", "", 1);
  const PartitionRecord left = MakeRecord(2, "", "m", 2), right = MakeRecord(3, "m", "", 2);
  Put(*map, parent);
  EXPECT_EQ(Put(*map, right), UpsertOutcome::kApplied);
  EXPECT_THAT(All(*map), ElementsAre(Narrowed(parent, "", "m"), right));
  // The parent, pushed once more by a node that has not heard of its end, takes nothing back; what
  // is left of it does change.
  EXPECT_EQ(Put(*map, parent), UpsertOutcome::kUnchanged);
  const PartitionRecord moved = MakeRecord(1, "", "", 1, /*epoch=*/9);
  EXPECT_EQ(Put(*map, moved), UpsertOutcome::kApplied);
  EXPECT_THAT(All(*map), ElementsAre(Narrowed(moved, "", "m"), right));
  EXPECT_EQ(Put(*map, left), UpsertOutcome::kApplied);
  EXPECT_THAT(All(*map), ElementsAre(left, right));
  EXPECT_FALSE(map->view()->FirstGap(kTable).has_value());

  const absl::StatusOr<Upserted> late = map->Upsert(parent);
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(late->outcome, UpsertOutcome::kStale);
  ASSERT_NE(late->newest, nullptr);
  EXPECT_EQ(*late->newest, left);
}

TEST(PartitionMap, AMergedPartitionReplacesAllThatItSpans) {
  const auto map = NewMap();
  Put(*map, MakeRecord(2, "", "h", 2));
  Put(*map, MakeRecord(3, "h", "m", 5));
  Put(*map, MakeRecord(4, "m", "", 2));
  const PartitionRecord merged = MakeRecord(5, "", "m", 6);
  EXPECT_EQ(Put(*map, merged), UpsertOutcome::kApplied);
  EXPECT_THAT(All(*map), ElementsAre(merged, MakeRecord(4, "m", "", 2)));
  EXPECT_EQ(Put(*map, MakeRecord(3, "h", "m", 5, 99, 99)), UpsertOutcome::kStale);
}

TEST(PartitionMap, ForOnePartitionEpochThenBallotDecide) {
  const auto map = NewMap();
  Put(*map, MakeRecord(1, "", "", 1, /*epoch=*/4, /*ballot=*/7));
  EXPECT_EQ(Put(*map, MakeRecord(1, "", "", 1, 3, 99)), UpsertOutcome::kStale);
  EXPECT_EQ(Put(*map, MakeRecord(1, "", "", 1, 4, 6)), UpsertOutcome::kStale);
  EXPECT_EQ(Put(*map, MakeRecord(1, "", "", 1, 4, 7)), UpsertOutcome::kUnchanged);
  EXPECT_EQ(Put(*map, MakeRecord(1, "", "", 1, 4, 8)), UpsertOutcome::kApplied);
  EXPECT_EQ(Put(*map, MakeRecord(1, "", "", 1, 5, 1)), UpsertOutcome::kApplied);
  EXPECT_EQ(map->Find(kTable, "x")->epoch, 5u);
}

// The whole point: the contents follow from the set of records, also of senseless ones.
TEST(PartitionMap, AnyOrderAndAnyRepetitionGiveTheSameContents) {
  Random random(1);
  for (int round = 0; round < 400; ++round) {
    std::vector<PartitionRecord> records;
    for (uint64_t i = 1 + random.Below(12); i > 0; --i) records.push_back(RandomRecord(random));
    const auto first = NewMap();
    for (const PartitionRecord& record : records) Put(*first, record);
    ASSERT_NO_FATAL_FAILURE(ExpectIsJoinOf(*first, records)) << round;
    for (int permutation = 0; permutation < 4; ++permutation) {
      std::vector<PartitionRecord> order = records;
      for (uint64_t i = random.Below(6); i > 0; --i) {
        order.push_back(records[random.Below(records.size())]);
      }
      std::shuffle(order.begin(), order.end(), random);
      const auto other = NewMap();
      for (const PartitionRecord& record : order) Put(*other, record);
      ASSERT_EQ(other->view()->digest(), first->view()->digest()) << round;
      for (const PartitionRecord& record : records) {
        ASSERT_NE(Put(*other, record), UpsertOutcome::kApplied);
      }
    }
  }
}

// Records that went through another map arrive trimmed; the contents are the same still.
TEST(PartitionMap, TrimmedRecordsSayTheSameAsWhatTheyWereTrimmedFrom) {
  Random random(2);
  for (int round = 0; round < 300; ++round) {
    std::vector<PartitionRecord> records;
    for (uint64_t i = 1 + random.Below(12); i > 0; --i) records.push_back(RandomRecord(random));
    const auto whole = NewMap(), half = NewMap(), other_half = NewMap();
    for (const PartitionRecord& record : records) {
      Put(*whole, record);
      Put(random.Chance(0.5) ? *half : *other_half, record);
    }
    std::vector<PartitionRecord> trimmed;
    for (const PartitionMap* map : {half.get(), other_half.get()}) {
      for (const TableId table : {TableId{1}, TableId{2}}) {
        for (const PartitionRecord& record : All(*map, table)) trimmed.push_back(record);
      }
    }
    std::shuffle(trimmed.begin(), trimmed.end(), random);
    const auto joined = NewMap();
    for (const PartitionRecord& record : trimmed) Put(*joined, record);
    ASSERT_EQ(joined->view()->digest(), whole->view()->digest()) << round;
  }
}

// In a sound lineage the newest partitions win in full, and once one record of each was seen there
// is never a gap.
TEST(PartitionMap, SplitsAndMergesEndWithTheNewestPartitions) {
  Random random(3);
  for (int round = 0; round < 200; ++round) {
    const Lineage lineage = RandomLineage(random, 40);
    std::vector<PartitionRecord> order = lineage.all;
    std::shuffle(order.begin() + 1, order.end(), random);
    const auto map = NewMap();
    for (const PartitionRecord& record : order) {
      Put(*map, record);
      ASSERT_FALSE(map->view()->FirstGap(kTable).has_value());
    }
    ASSERT_EQ(All(*map), lineage.last) << round;
  }
}

TEST(PartitionMap, TheRecordsOfAChangeAreSeenTogetherOrNotAtAll) {
  const auto map = NewMap();
  const PartitionRecord parent = MakeRecord(1, "c", "", 1);
  EXPECT_THAT(map->Replace({{parent}}), IsOk());
  const auto before = map->view();
  // A split.
  const PartitionRecord left = MakeRecord(2, "c", "m", 2), right = MakeRecord(3, "m", "", 2);
  EXPECT_THAT(map->Replace({{left, right}}), IsOk());
  EXPECT_THAT(All(*map), ElementsAre(left, right));
  EXPECT_EQ(before->Find(kTable, "x")->partition, PartitionId{1});
  // A move, and a merge.
  PartitionRecord moved = right;
  moved.epoch = 7;
  moved.members[1].node = NodeId{9};
  EXPECT_THAT(map->Replace({{moved}}), IsOk());
  EXPECT_EQ(map->Find(kTable, "x")->members[1].node, NodeId{9});
  const PartitionRecord merged = MakeRecord(4, "c", "", 3);
  EXPECT_THAT(map->Replace({{merged}}), IsOk());
  EXPECT_THAT(All(*map), ElementsAre(merged));

  const Digest128 digest = map->view()->digest();
  auto refused = [&](const std::vector<PartitionRecord>& records, absl::StatusCode code,
                     std::string_view why) {
    EXPECT_THAT(map->Replace(records), StatusIs(code, HasSubstr(std::string(why))));
    EXPECT_EQ(map->view()->digest(), digest);
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  refused({MakeRecord(5, "c", "h", 9), MakeRecord(6, "k", "", 9)}, kInvalid,
          "partition 6 begins at k: a gap after partition 5, which ends at h");
  refused({MakeRecord(5, "c", "h", 9), MakeRecord(6, "g", "", 9)}, kInvalid,
          "partition 6 begins at g: an overlap with partition 5, which ends at h");
  refused({MakeRecord(5, "c", "", 9), MakeRecord(6, "g", "", 9)}, kInvalid, "overlap");
  PartitionRecord other = MakeRecord(6, "h", "", 9);
  other.table = TableId{2};
  refused({MakeRecord(5, "c", "h", 9), other}, kInvalid, "tables 1 and 2");
  refused({MakeRecord(5, "h", "c", 9)}, kInvalid, "end is c");
  // One of two is older than what is there.
  refused({MakeRecord(5, "a", "h", 9), MakeRecord(6, "h", "", 2)},
          absl::StatusCode::kFailedPrecondition, "partition 6 from h");
  EXPECT_EQ(*map->DropTable(kTable, 1), UpsertOutcome::kApplied);
  EXPECT_THAT(map->Replace({{MakeRecord(7, "c", "", 9)}}),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

// One leaf and many, found side by side as one by one.
TEST(PartitionMap, ABatchFindsWhatSingleLookUpsFind) {
  Random random(8);
  const auto map = NewMap();
  std::vector<PartitionKey> keys;
  std::vector<std::string> bytes;
  for (uint64_t i = 0; i < 2'000; ++i) bytes.push_back(TestKey(random.Below(kTestKeys)) + "5");
  for (uint64_t i = 0; i < bytes.size(); ++i) {
    PartitionRecord record = RandomRecord(random);
    record.table = TableId{1 + random.Below(300)};
    Put(*map, record);
    keys.push_back({TableId{1 + random.Below(320)}, bytes[i]});
  }
  for (const size_t count : {size_t{0}, size_t{1}, size_t{31}, size_t{33}, keys.size()}) {
    const auto view = map->view();
    const std::vector<PartitionPtr> found = view->FindBatch(std::span(keys).first(count));
    ASSERT_EQ(found.size(), count);
    PartitionRecord single;
    for (size_t i = 0; i < count; ++i) {
      const bool holds = map->Find(keys[i].table, keys[i].key, single);
      ASSERT_EQ(found[i] != nullptr, holds) << i;
      if (holds) {
        ASSERT_EQ(*found[i], single);
      }
    }
  }
}

TEST(PartitionMap, EntriesOfNoMapAreNotAdopted) {
  const auto map = NewMap();
  Put(*map, MakeRecord(1, "", "m", 1));
  Put(*map, MakeRecord(2, "m", "", 1));
  EXPECT_THAT(map->Upsert(TableRecord{.table = kTable, .name = "orders"}), IsOk());
  const auto again = PartitionMap::Create({}, map->view()->entries());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ((*again)->view()->digest(), map->view()->digest());
  EXPECT_EQ((*again)->view()->partitions(), 2u);
  EXPECT_EQ((*again)->FindTable("orders")->table, kTable);
  EXPECT_THAT(PartitionMap::Create({.partitions_max = 1}, map->view()->entries()),
              StatusIs(absl::StatusCode::kResourceExhausted));
  Perkle entries = map->view()->entries();
  EXPECT_THAT(entries.Put("nonsense", "value"), IsOk());
  EXPECT_THAT(PartitionMap::Create({}, entries), StatusIs(absl::StatusCode::kDataLoss));
  entries = map->view()->entries();
  EXPECT_THAT(entries.Put(EntryKey(kTable, "k"), EncodeValue(MakeRecord(3, "k", "p", 1))), IsOk());
  EXPECT_THAT(PartitionMap::Create({}, entries),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("overlap at k")));
}

TEST(PartitionMap, GapsAreFound) {
  const auto map = NewMap();
  auto gap = [&](std::string_view from) {
    const auto found = map->view()->FirstGap(kTable, from);
    return found.has_value() ? Cat("[", found->first, ",", found->end, ")") : "none";
  };
  EXPECT_EQ(gap(""), "[,)");
  Put(*map, MakeRecord(1, "c", "g", 1));
  Put(*map, MakeRecord(2, "k", "", 1));
  EXPECT_EQ(gap(""), "[,c)");
  EXPECT_EQ(gap("c"), "[g,k)");
  EXPECT_EQ(gap("h"), "[h,k)");
  EXPECT_EQ(gap("k"), "none");
}

TEST(PartitionMap, BadRecordsAreRefusedByName) {
  const auto map = NewMap();
  auto expect_refused = [&](const PartitionRecord& record, std::string_view field) {
    EXPECT_THAT(map->Upsert(record),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(field))));
  };
  const PartitionRecord good = MakeRecord(1, "c", "g", 1);
  PartitionRecord bad = good;
  bad.table = TableId{0};
  expect_refused(bad, "table is 0");
  bad = good;
  bad.partition = PartitionId{0};
  expect_refused(bad, "partition is 0");
  bad = good;
  bad.end = "c";
  expect_refused(bad, "end is c: greater than first, c");
  bad = good;
  bad.first = std::string(kPartitionKeyBytesMax + 1, 'a');
  expect_refused(bad, "first is 8193 bytes");
  bad = good;
  bad.members.clear();
  expect_refused(bad, "members is 0");
  bad = good;
  bad.members[1].replica = bad.members[0].replica;
  expect_refused(bad, "replica is 1 twice");
  bad = good;
  bad.members[1].kind = MemberKind{7};
  expect_refused(bad, "kind is 7");
  bad = good;
  bad.members[1].node = NodeId{0};
  expect_refused(bad, "node is 0");
  EXPECT_EQ(map->view()->partitions(), 0u);
}

TEST(PartitionMap, OptionsOutOfRangeAreRefused) {
  EXPECT_THAT(PartitionMap::Create({.partitions_max = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("partitions_max")));
  EXPECT_THAT(PartitionMap::Create({.tables_max = 2'000'000'000}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tables_max")));
}

TEST(PartitionMap, AtItsBoundItRefusesAndStaysAsItWas) {
  const auto map = NewMap({.partitions_max = 2, .tables_max = 1});
  Put(*map, MakeRecord(1, "", "g", 1));
  Put(*map, MakeRecord(2, "g", "", 1));
  const Digest128 digest = map->view()->digest();
  EXPECT_THAT(map->Upsert(MakeRecord(3, "h", "k", 2)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(map->view()->digest(), digest);
  // What makes no more of them is taken.
  EXPECT_EQ(Put(*map, MakeRecord(3, "g", "", 2)), UpsertOutcome::kApplied);
  EXPECT_EQ(Put(*map, MakeRecord(4, "", "", 3)), UpsertOutcome::kApplied);
  EXPECT_EQ(map->view()->partitions(), 1u);

  EXPECT_THAT(map->Upsert(TableRecord{.table = TableId{1}, .name = "a"}), IsOk());
  EXPECT_THAT(map->Upsert(TableRecord{.table = TableId{2}, .name = "b"}),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(PartitionMap, TablesAreFoundByNameInTheirNewestVersion) {
  const auto map = NewMap();
  const TableRecord old{.table = kTable, .name = "orders", .version = 1, .descriptor = "v1"};
  TableRecord renamed{.table = kTable, .name = "orders2", .version = 2, .descriptor = "v2"};
  EXPECT_EQ(*map->Upsert(old), UpsertOutcome::kApplied);
  EXPECT_EQ(*map->Upsert(old), UpsertOutcome::kUnchanged);
  EXPECT_EQ(map->FindTable("orders"), old);
  EXPECT_EQ(map->FindTable("order"), std::nullopt);
  EXPECT_EQ(map->FindTable("orders2"), std::nullopt);
  EXPECT_EQ(*map->Upsert(renamed), UpsertOutcome::kApplied);
  EXPECT_EQ(*map->Upsert(old), UpsertOutcome::kStale);
  EXPECT_EQ(map->FindTable("orders"), std::nullopt);
  EXPECT_EQ(map->FindTable("orders2"), renamed);
  // Made again under a name that is still known: the newer table is meant.
  const TableRecord again{.table = TableId{9}, .name = "orders2", .version = 1};
  EXPECT_EQ(*map->Upsert(again), UpsertOutcome::kApplied);
  EXPECT_EQ(map->FindTable("orders2"), again);
  EXPECT_EQ(map->view()->FindTable(kTable), renamed);
  EXPECT_THAT(map->Upsert(TableRecord{.table = kTable, .name = std::string(256, 'n')}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name")));
  EXPECT_THAT(map->Upsert(TableRecord{.table = kTable}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name is empty")));
}

TEST(PartitionMap, ADroppedTableStaysDropped) {
  const auto map = NewMap();
  EXPECT_THAT(map->Upsert(TableRecord{.table = kTable, .name = "orders", .version = 3}), IsOk());
  Put(*map, MakeRecord(1, "", "m", 1));
  Put(*map, MakeRecord(2, "m", "", 1));
  PartitionRecord other = MakeRecord(3, "", "", 1);
  other.table = TableId{2};
  Put(*map, other);
  EXPECT_EQ(*map->DropTable(kTable, 4), UpsertOutcome::kApplied);
  EXPECT_THAT(All(*map), IsEmpty());
  EXPECT_EQ(map->view()->partitions(), 1u);
  EXPECT_EQ(map->view()->tables(), 0u);
  EXPECT_EQ(map->view()->dropped(), 1u);
  EXPECT_EQ(map->FindTable("orders"), std::nullopt);
  EXPECT_TRUE(map->view()->FindTable(kTable)->dropped);
  // Late pushes.
  const absl::StatusOr<Upserted> late = map->Upsert(MakeRecord(1, "", "m", 99, 99));
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(late->outcome, UpsertOutcome::kStale);
  EXPECT_EQ(late->newest, nullptr);
  EXPECT_EQ(*map->Upsert(TableRecord{.table = kTable, .name = "orders", .version = 99}),
            UpsertOutcome::kStale);
  EXPECT_EQ(*map->DropTable(kTable, 4), UpsertOutcome::kUnchanged);
  EXPECT_EQ(map->Find(TableId{2}, "x")->partition, PartitionId{3});
}

TEST(PartitionMap, TablesConvergeInAnyOrderToo) {
  Random random(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<TableRecord> tables;
    std::vector<PartitionRecord> partitions;
    for (uint64_t i = random.Below(8); i > 0; --i) {
      const bool dropped = random.Chance(0.2);
      tables.push_back({.table = TableId{1 + random.Below(3)},
                        .name = dropped ? "" : Cat("t", random.Below(3)),
                        .version = random.Below(4),
                        .dropped = dropped});
    }
    for (uint64_t i = random.Below(8); i > 0; --i) partitions.push_back(RandomRecord(random));
    std::vector<std::unique_ptr<PartitionMap>> maps;
    for (int copy = 0; copy < 3; ++copy) {
      maps.push_back(NewMap());
      std::vector<size_t> order;
      for (size_t i = 0; i < tables.size() + partitions.size(); ++i) order.push_back(i);
      std::shuffle(order.begin(), order.end(), random);
      for (const size_t i : order) {
        if (i < tables.size()) {
          ASSERT_THAT(maps.back()->Upsert(tables[i]), IsOk());
        } else {
          Put(*maps.back(), partitions[i - tables.size()]);
        }
      }
      const auto view = maps.back()->view(), first = maps[0]->view();
      ASSERT_EQ(view->digest(), first->digest());
      ASSERT_EQ(view->partitions(), first->partitions());
      ASSERT_EQ(view->tables(), first->tables());
      ASSERT_EQ(view->dropped(), first->dropped());
      for (const char* name : {"t0", "t1", "t2"}) {
        ASSERT_EQ(view->FindTable(name), first->FindTable(name));
      }
    }
  }
}

// Run under the thread sanitizer.
TEST(PartitionMap, FindIsSafeWhileTheWriterPublishes) {
  const auto map = NewMap();
  Put(*map, MakeRecord(1, "", "", 1));
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    readers.emplace_back([&, seed] {
      Random random(seed);
      uint64_t generation = 0;
      while (!done.load()) {
        const std::string key = TestKey(random.Below(kTestKeys));
        const PartitionPtr found = map->Find(kTable, key);
        ASSERT_NE(found, nullptr);  // no gap at any moment
        ASSERT_TRUE(found->Contains(key));
        const PartitionPtr fixed = map->Find(kTable, "a");
        ASSERT_GE(fixed->generation, generation);  // never back
        generation = fixed->generation;
      }
    });
  }
  Random random(9);
  const Lineage lineage = RandomLineage(random, 3'000);
  for (const PartitionRecord& record : lineage.all) Put(*map, record);
  done.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(All(*map), lineage.last);
}

}  // namespace
}  // namespace dynlib::partition_map
