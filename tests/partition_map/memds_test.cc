#include "dynlib/partition_map/memds.h"

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/sync_message.h"
#include "dynlib/partition_map/sync_session.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/partition_map/random_records.h"

namespace dynlib::partition_map {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointee;

constexpr TableId kTable{1};
constexpr NodeId kStorage{11};
constexpr Instant kStart = Instant::FromNanos(1'000'000'000);
constexpr Instant kWarm = kStart + seconds(15);

std::unique_ptr<MemDs> NewNode(const MemDsOptions& options = {}) {
  return *MemDs::Create(options, kStart);
}

PushResult Push(MemDs& node, const std::vector<PartitionRecord>& records, Instant now = kStart,
                NodeId from = kStorage) {
  return node.Push(from, records, now);
}

TEST(MemDs, SaysNothingOfWhatItDoesNotKnowBeforeItIsReady) {
  const auto node = NewNode();
  EXPECT_EQ(node->LookUp(kTable, "k", kStart).outcome, LookUpOutcome::kNotReady);
  EXPECT_EQ(node->LookUpTable("orders", kStart).outcome, LookUpOutcome::kNotReady);
  // What it knows it answers at once.
  Push(*node, {MakeRecord(1, "", "m", 1)});
  EXPECT_EQ(node->LookUp(kTable, "k", kStart).outcome, LookUpOutcome::kFound);
  EXPECT_EQ(node->LookUp(kTable, "x", kWarm - seconds(1)).outcome, LookUpOutcome::kNotReady);
  EXPECT_EQ(node->LookUp(kTable, "x", kWarm).outcome, LookUpOutcome::kNoTable);
  node->PushTables({{TableRecord{.table = kTable, .name = "orders", .version = 1}}});
  EXPECT_EQ(node->LookUp(kTable, "x", kWarm).outcome, LookUpOutcome::kNoPartition);
  EXPECT_EQ(node->LookUp(TableId{2}, "x", kWarm).outcome, LookUpOutcome::kNoTable);
  EXPECT_EQ(node->LookUpTable("orders", kWarm).record->table, kTable);
  EXPECT_EQ(node->LookUpTable("order", kWarm).outcome, LookUpOutcome::kNoTable);
}

TEST(MemDs, ASyncInStepMakesItReady) {
  const auto peer = NewNode(), node = NewNode();
  Push(*peer, {MakeRecord(1, "", "", 1)});
  SyncSession session = node->StartSync();
  while (auto request = session.Next()) {
    ASSERT_THAT(session.OnReply(peer->AnswerSync(*request)), IsOk());
  }
  EXPECT_FALSE(node->ready(kStart));
  EXPECT_FALSE(node->status(kStart).since_in_step.has_value());
  node->OnSynced(NodeId{2}, session, kStart);
  EXPECT_TRUE(node->ready(kStart));
  EXPECT_EQ(node->LookUp(TableId{2}, "k", kStart).outcome, LookUpOutcome::kNoTable);
  EXPECT_EQ(node->status(kStart + seconds(3)).since_in_step, seconds(3));
  EXPECT_THAT(node->in_step_at(), ElementsAre(std::pair(NodeId{2}, kStart)));
  EXPECT_EQ(node->status(kStart).syncs_in_step, 1u);

  // One that was given up is counted, and says nothing.
  Push(*peer, {MakeRecord(2, "", "", 2)});
  SyncSession abandoned = node->StartSync();
  EXPECT_TRUE(abandoned.Next().has_value());
  node->OnSynced(NodeId{2}, abandoned, kStart + seconds(9));
  EXPECT_EQ(node->status(kStart + seconds(9)).since_in_step, seconds(9));
  EXPECT_EQ(node->status(kStart).syncs_incomplete, 1u);
}

TEST(MemDs, APushTellsItsSenderWhatIsNewer) {
  const auto node = NewNode();
  const PartitionRecord newer = MakeRecord(1, "", "m", 1, /*epoch=*/8);
  Push(*node, {newer});
  PartitionRecord gone = MakeRecord(9, "", "", 1);
  gone.table = TableId{5};
  node->PushTables({{TableRecord{.table = TableId{5}, .version = 1, .dropped = true}}});
  const PushResult result =
      Push(*node, {MakeRecord(1, "", "m", 1, 7), newer, MakeRecord(2, "m", "", 1), gone,
                   MakeRecord(3, "x", "b", 1), MakeRecord(0, "", "b", 1)});
  EXPECT_EQ(result.applied, 1u);
  EXPECT_EQ(result.unchanged, 1u);
  EXPECT_EQ(result.stale, 2u);
  EXPECT_EQ(result.refused, 2u);
  EXPECT_THAT(result.newer, ElementsAre(Pointee(newer)));
  EXPECT_THAT(result.dropped, ElementsAre(TableId{5}));
  EXPECT_THAT(result.first_refusal,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("end is b")));
  EXPECT_EQ(node->LookUp(TableId{5}, "k", kStart).outcome, LookUpOutcome::kDropped);
  EXPECT_EQ(node->LookUpTable(TableId{5}, kStart).outcome, LookUpOutcome::kDropped);
  const PushResult late =
      node->PushTables({{TableRecord{.table = TableId{5}, .name = "t", .version = 9}}});
  EXPECT_THAT(late.dropped, ElementsAre(TableId{5}));
}

TEST(MemDs, ABatchIsAnsweredInItsOrder) {
  const auto node = NewNode();
  Push(*node, {MakeRecord(1, "", "m", 1), MakeRecord(2, "m", "", 1)});
  const std::vector<LookUpKey> keys = {{kTable, "z"}, {TableId{3}, "k"}, {kTable, "a"}};
  const std::vector<LookUpAnswer> answers = node->LookUpBatch(keys, kWarm);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].record->partition, PartitionId{2});
  EXPECT_EQ(answers[1].outcome, LookUpOutcome::kNoTable);
  EXPECT_EQ(answers[2].record->partition, PartitionId{1});
  EXPECT_TRUE(node->LookUpBatch({}, kWarm).empty());
}

TEST(MemDs, StartsFromASnapshotAndFetchesOnlyWhatChangedSince) {
  const auto peer = NewNode();
  std::vector<PartitionRecord> records;
  for (uint64_t i = 1; i <= 500; ++i) {
    records.push_back(MakeRecord(i, "", "", 1));
    records.back().table = TableId{i * 7919};
  }
  Push(*peer, records);
  peer->PushTables({{TableRecord{.table = kTable, .name = "orders", .version = 1}}});
  peer->PushTables({{TableRecord{.table = TableId{2}, .version = 1, .dropped = true}}});
  std::string snapshot;
  EXPECT_THAT(peer->WriteSnapshot([&](std::string_view piece) {
    snapshot += piece;
    return absl::OkStatus();
  }),
              IsOk());
  PartitionRecord moved = records[3];
  moved.epoch = 9;
  Push(*peer, {moved});

  auto node = MemDs::Create({}, kStart, snapshot);
  ASSERT_THAT(node, IsOk());
  // What it has it answers; of what it has not it does not know yet.
  EXPECT_EQ((*node)->LookUp(records[7].table, "k", kStart).outcome, LookUpOutcome::kFound);
  EXPECT_EQ((*node)->LookUpTable("orders", kStart).outcome, LookUpOutcome::kFound);
  EXPECT_EQ((*node)->LookUp(TableId{2}, "k", kStart).outcome, LookUpOutcome::kDropped);
  EXPECT_EQ((*node)->LookUp(TableId{3}, "k", kStart).outcome, LookUpOutcome::kNotReady);
  const MemDsStatus status = (*node)->status(kStart);
  EXPECT_EQ(status.from_snapshot, 502u);
  EXPECT_EQ(status.partitions, 500u);
  EXPECT_EQ(status.tables, 1u);
  EXPECT_EQ(status.dropped, 1u);
  EXPECT_FALSE(status.ready);
  EXPECT_FALSE(status.since_in_step.has_value());
  SyncSession session = (*node)->StartSync();
  while (auto request = session.Next()) {
    ASSERT_THAT(session.OnReply(peer->AnswerSync(*request)), IsOk());
  }
  EXPECT_TRUE(session.in_step());
  EXPECT_LE(session.counts().received, 3u);
  EXPECT_EQ((*node)->LookUp(moved.table, "k", kStart).record->epoch, 9u);

  snapshot[snapshot.size() / 2] = static_cast<char>(snapshot[snapshot.size() / 2] ^ 1);
  EXPECT_THAT(MemDs::Create({}, kStart, snapshot), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(MemDs::Create({.sources_max = 0}, kStart, snapshot),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(MemDs, StatusSaysHowOldWhatItKnowsMayBe) {
  const auto node = NewNode({.sources_max = 2});
  Push(*node, {MakeRecord(1, "", "m", 1)}, kStart, NodeId{11});
  Push(*node, {MakeRecord(2, "m", "", 1)}, kStart + seconds(5), NodeId{12});
  Push(*node, {}, kStart + seconds(6), NodeId{12});
  MemDsStatus status = node->status(kStart + seconds(10));
  EXPECT_EQ(status.partitions, 2u);
  EXPECT_EQ(status.applied, 2u);
  EXPECT_EQ(status.sources, 2u);
  EXPECT_EQ(status.oldest_source, NodeId{11});
  EXPECT_EQ(status.oldest_source_age, seconds(10));
  // A node that is not heard any more drops out, at the bound at once.
  EXPECT_EQ(node->status(kStart + std::chrono::minutes(10) + seconds(3)).sources, 1u);
  Push(*node, {}, kStart + seconds(20), NodeId{13});
  status = node->status(kStart + seconds(20));
  EXPECT_EQ(status.sources, 2u);
  EXPECT_EQ(status.oldest_source, NodeId{12});
}

TEST(MemDs, OptionsOutOfRangeAreRefused) {
  auto refused = [](const MemDsOptions& options, std::string_view field) {
    EXPECT_THAT(MemDs::Create(options, kStart),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(field))));
  };
  refused({.map = {.partitions_max = 0}}, "partitions_max is 0: 1 to");
  refused({.warm_up = seconds(-1)}, "warm_up is -1");
  refused({.warm_up = std::chrono::hours(2)}, "warm_up");
  refused({.sync_message_bytes_max = 1000}, "sync_message_bytes_max is 1000 bytes: 65536 to");
  refused({.sources_max = 0}, "sources_max");
  refused({.source_gone_after = seconds(0)}, "source_gone_after");
}

}  // namespace
}  // namespace dynlib::partition_map
