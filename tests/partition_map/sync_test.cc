// Two directory nodes brought in step: by sessions of theirs, over encoded messages.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/partition_map/map_entry.h"
#include "dynlib/partition_map/memds.h"
#include "dynlib/partition_map/partition_map.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/sync_message.h"
#include "dynlib/partition_map/sync_session.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/partition_map/random_records.h"

namespace dynlib::partition_map {
namespace {

constexpr Instant kNow = Instant::FromNanos(1'000'000'000);

std::unique_ptr<MemDs> NewNode(size_t message_bytes_max = 256 << 10) {
  return *MemDs::Create({.sync_message_bytes_max = message_bytes_max}, kNow);
}

void Push(MemDs& node, const PartitionRecord& record) {
  EXPECT_EQ(node.Push(NodeId{1}, {{record}}, kNow).refused, 0u);
}

struct Sync {
  bool in_step = false;
  size_t bytes = 0;
  size_t longest = 0;
  SyncSession::Counts counts;
};

// A whole session of `asker` with `answerer`, every message through its bytes.
template <typename Between>
Sync RunSync(MemDs& asker, MemDs& answerer, Between between) {
  Sync sync;
  SyncSession session = asker.StartSync();
  while (std::optional<SyncRequest> request = session.Next()) {
    const std::string request_bytes = Encode(*request);
    const absl::StatusOr<SyncRequest> received = DecodeSyncRequest(request_bytes);
    EXPECT_THAT(received, IsOkAndHolds(*request));
    const SyncReply reply = answerer.AnswerSync(*received);
    const std::string reply_bytes = Encode(reply);
    const absl::StatusOr<SyncReply> answered = DecodeSyncReply(reply_bytes);
    EXPECT_THAT(answered, IsOkAndHolds(reply));
    EXPECT_THAT(session.OnReply(*answered), IsOk());
    sync.bytes += request_bytes.size() + reply_bytes.size();
    sync.longest = std::max({sync.longest, request_bytes.size(), reply_bytes.size()});
    between();
  }
  EXPECT_TRUE(session.done());
  sync.in_step = session.in_step();
  sync.counts = session.counts();
  asker.OnSynced(NodeId{99}, session, kNow);
  return sync;
}
Sync RunSync(MemDs& asker, MemDs& answerer) {
  return RunSync(asker, answerer, [] {});
}

// The i-th of many partitions: five a table, three replicas each.
PartitionRecord ManyRecord(uint64_t i) {
  const uint64_t part = i % 5;
  PartitionRecord record = MakeRecord(i + 1, part == 0 ? "" : Cat("key", part),
                                      part == 4 ? "" : Cat("key", part + 1), 1);
  record.table = TableId{Checksum(Cat(i / 5))};
  return record;
}

TEST(Sync, EqualMapsExchangeTwoShortMessages) {
  const auto a = NewNode(), b = NewNode();
  for (uint64_t i = 0; i < 100; ++i) {
    Push(*a, ManyRecord(i));
    Push(*b, ManyRecord(99 - i));
  }
  const Sync sync = RunSync(*a, *b);
  EXPECT_TRUE(sync.in_step);
  EXPECT_EQ(sync.counts.requests, 1u);
  EXPECT_LT(sync.bytes, 100u);
  // Also two empty ones.
  EXPECT_TRUE(RunSync(*NewNode(), *NewNode()).in_step);
}

// What either lacks it gets, and the contents are those of a node that received everything.
TEST(Sync, BothSidesEndWithTheJoinOfTheTwo) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    const auto a = NewNode(), b = NewNode(), all = NewNode();
    for (uint64_t i = random.Below(40); i > 0; --i) {
      const PartitionRecord record = RandomRecord(random);
      Push(*all, record);
      const uint64_t who = random.Below(3);
      if (who != 0) Push(*a, record);
      if (who != 1) Push(*b, record);
    }
    for (uint64_t i = random.Below(4); i > 0; --i) {
      const TableRecord record{.table = TableId{1 + random.Below(4)},
                               .name = Cat("table", random.Below(2)),
                               .version = random.Below(3),
                               .dropped = random.Chance(0.2)};
      all->PushTables({{record}});
      (random.Chance(0.5) ? a : b)->PushTables({{record}});
    }
    const Sync sync = RunSync(*a, *b);
    ASSERT_TRUE(sync.in_step) << round;
    ASSERT_EQ(sync.counts.refused, 0u);
    ASSERT_EQ(a->view()->digest(), all->view()->digest()) << round;
    ASSERT_EQ(b->view()->digest(), all->view()->digest()) << round;
  }
}

TEST(Sync, AnEmptyNodeFetchesAllInBoundedMessagesAndAlsoGivesAll) {
  const auto full = NewNode(64 << 10), fetching = NewNode(64 << 10), given = NewNode(64 << 10);
  for (uint64_t i = 0; i < 3'000; ++i) Push(*full, ManyRecord(i));
  size_t contents = 0;
  full->view()->entries().Scan("", "", ScanOrder::kForward, [&](auto key, auto value) {
    contents += key.size() + value.size();
    return true;
  });
  for (const bool fetch : {true, false}) {
    const Sync sync = fetch ? RunSync(*fetching, *full) : RunSync(*full, *given);
    EXPECT_TRUE(sync.in_step);
    EXPECT_EQ(fetch ? sync.counts.received : sync.counts.sent, 3'000u);
    EXPECT_LE(sync.longest, size_t{64 << 10});
    EXPECT_LT(sync.bytes, contents * 12 / 10);
    EXPECT_GE(sync.counts.requests, 3u);
  }
  EXPECT_EQ(fetching->view()->digest(), full->view()->digest());
  EXPECT_EQ(given->view()->digest(), full->view()->digest());
}

// The bytes are in proportion to the difference, not to the map.
TEST(Sync, AFewDifferencesCostAFewEntriesWorth) {
  constexpr uint64_t kEntries = 6'000, kDifferent = 40;
  const auto a = NewNode(), b = NewNode();
  size_t entry_bytes = 0;
  for (uint64_t i = 0; i < kEntries; ++i) {
    Push(*a, ManyRecord(i));
    Push(*b, ManyRecord(i));
    entry_bytes += Encode(ManyRecord(i)).size();
  }
  entry_bytes /= kEntries;
  for (uint64_t i = 0; i < kDifferent; ++i) {
    PartitionRecord moved = ManyRecord(i * 149);
    moved.epoch = 5;
    Push(i % 2 == 0 ? *a : *b, moved);
  }
  const Sync sync = RunSync(*a, *b);
  EXPECT_TRUE(sync.in_step);
  EXPECT_EQ(a->view()->digest(), b->view()->digest());
  // Entries that came twice or for nothing: none that both had alike.
  EXPECT_LE(sync.counts.received, kDifferent);
  EXPECT_EQ(sync.counts.sent, kDifferent / 2);
  EXPECT_LT(sync.bytes, 20 * kDifferent * entry_bytes);
  EXPECT_LT(sync.counts.requests, 12u);
  RecordProperty("bytes", static_cast<int>(sync.bytes));
  RecordProperty("entry_bytes", static_cast<int>(entry_bytes));
}

// A tombstone is learnt before the partitions that it makes superfluous are sent or fetched.
TEST(Sync, ADroppedTablesPartitionsAreNotExchanged) {
  for (const bool asker_knows : {true, false}) {
    const auto dropped = NewNode(), late = NewNode();
    for (uint64_t i = 0; i < 500; ++i) {
      PartitionRecord record = MakeRecord(i + 1, Cat(1000 + i), Cat(1001 + i), 1);
      record.table = TableId{7};
      Push(*late, record);
      record.table = TableId{8};
      Push(*late, record);
      Push(*dropped, record);
    }
    const TableRecord table{.table = TableId{7}, .name = "gone", .version = 1};
    late->PushTables({{table}});
    const TableRecord tombstone{.table = TableId{7}, .version = 2, .dropped = true};
    dropped->PushTables({{tombstone}});
    const Sync sync = asker_knows ? RunSync(*dropped, *late) : RunSync(*late, *dropped);
    EXPECT_TRUE(sync.in_step);
    EXPECT_EQ(late->view()->partitions(), 500u);
    EXPECT_EQ(late->view()->digest(), dropped->view()->digest());
    EXPECT_LT(sync.counts.received + sync.counts.sent, 10u);
  }
}

// Updates go on at both sides meanwhile: the session does its part and ends, the next one the rest.
TEST(Sync, UpdatesDuringASessionAreLeftToTheNext) {
  Random random(2);
  for (int round = 0; round < 25; ++round) {
    const auto a = NewNode(), b = NewNode();
    for (uint64_t i = 0; i < 200; ++i) {
      Push(random.Chance(0.5) ? *a : *b, ManyRecord(random.Below(300)));
    }
    RunSync(*a, *b, [&] {
      PartitionRecord record = ManyRecord(random.Below(300));
      record.epoch = random.Below(100);
      Push(random.Chance(0.5) ? *a : *b, record);
    });
    ASSERT_TRUE(RunSync(*b, *a).in_step);
    ASSERT_EQ(a->view()->digest(), b->view()->digest());
  }
}

TEST(Sync, ThreeNodesConvergeByTalkingInPairs) {
  Random random(3);
  std::vector<std::unique_ptr<MemDs>> nodes;
  for (int i = 0; i < 3; ++i) nodes.push_back(NewNode());
  const Lineage lineage = RandomLineage(random, 200);
  for (const PartitionRecord& record : lineage.all) Push(*nodes[random.Below(3)], record);
  RunSync(*nodes[0], *nodes[1]);
  RunSync(*nodes[1], *nodes[2]);
  EXPECT_TRUE(RunSync(*nodes[2], *nodes[0]).in_step);
  EXPECT_TRUE(RunSync(*nodes[1], *nodes[0]).in_step);
  EXPECT_EQ(nodes[0]->view()->partitions(), lineage.last.size());
}

// A session that is given up leaves both sides sound, and what it did is done.
TEST(Sync, ASessionMayBeGivenUpAfterAnyMessage) {
  const auto b = NewNode(64 << 10);
  for (uint64_t i = 0; i < 3'000; ++i) Push(*b, ManyRecord(i));
  const auto a = NewNode(64 << 10);
  for (int messages = 1; messages < 5; ++messages) {
    SyncSession session = a->StartSync();
    for (int i = 0; i < messages && !session.done(); ++i) {
      const SyncRequest request = *session.Next();
      if (i + 1 == messages) break;
      EXPECT_THAT(session.OnReply(b->AnswerSync(request)), IsOk());
    }
    ASSERT_TRUE(a->view()->entries().Verify());
  }
  EXPECT_TRUE(RunSync(*a, *b).in_step);
}

TEST(Sync, RepliesThatDoNotFitEndTheSession) {
  const auto a = NewNode();
  Push(*a, ManyRecord(1));
  auto fails = [&](const SyncReply& reply, std::string_view why) {
    SyncSession session = a->StartSync();
    EXPECT_TRUE(session.Next().has_value());
    EXPECT_FALSE(session.Next().has_value());
    EXPECT_THAT(session.OnReply(reply),
                StatusIs(absl::StatusCode::kDataLoss, ::testing::HasSubstr(std::string(why))));
    EXPECT_TRUE(session.done());
    EXPECT_FALSE(session.in_step());
    EXPECT_FALSE(session.Next().has_value());
  };
  fails({}, "no answer");
  fails({.answers = {SyncAnswer(), SyncAnswer()}}, "more answers");
  fails({.answers = {SyncAnswer{.list = true}}}, "other kind");
  fails({.answers = {SyncAnswer{.entries = {{"k", "v"}}, .branch = PerklePath::Prefix("x")}}},
        "entry of another branch");
  SyncSession session = a->StartSync();
  EXPECT_THAT(session.OnReply({}), StatusIs(absl::StatusCode::kDataLoss));
}

// Entries that are no records are counted and not taken, by either side.
TEST(Sync, DamagedEntriesAreRefused) {
  const auto a = NewNode();
  SyncReply reply{.digest = {1, 1}};
  reply.answers.push_back({.list = true});
  const PartitionRecord good = ManyRecord(3);
  reply.answers[0].entries = {{EntryKey(good.table, good.first), EncodeValue(good)},
                              {EntryKey(good.table, "zzz"), "damaged"},
                              {"\xff nonsense", ""}};
  SyncSession session = a->StartSync();
  ASSERT_TRUE(session.Next().has_value());
  EXPECT_THAT(session.OnReply(reply), IsOk());
  EXPECT_EQ(session.counts().refused, 2u);
  EXPECT_EQ(session.counts().applied, 1u);
  EXPECT_EQ(a->view()->partitions(), 1u);

  const auto b = NewNode();
  const SyncRequest request{.entries = reply.answers[0].entries};
  b->AnswerSync(request);
  EXPECT_EQ(b->status(kNow).refused, 2u);
  EXPECT_EQ(b->view()->digest(), a->view()->digest());
}

// Messages with any byte changed are refused, or do no more than another message could.
TEST(Sync, DamagedMessagesAreSafe) {
  Random random(4);
  const auto a = NewNode(), b = NewNode();
  for (uint64_t i = 0; i < 60; ++i) Push(*a, ManyRecord(i));
  for (uint64_t i = 30; i < 90; ++i) Push(*b, ManyRecord(i));
  SyncSession honest = a->StartSync();
  while (std::optional<SyncRequest> request = honest.Next()) {
    const std::string request_bytes = Encode(*request);
    const SyncReply reply = b->AnswerSync(*request);
    const std::string reply_bytes = Encode(reply);
    for (size_t size = 0; size < request_bytes.size(); ++size) {
      EXPECT_FALSE(DecodeSyncRequest(std::string_view(request_bytes).substr(0, size)).ok());
    }
    for (size_t size = 0; size < reply_bytes.size(); ++size) {
      EXPECT_FALSE(DecodeSyncReply(std::string_view(reply_bytes).substr(0, size)).ok());
    }
    for (int i = 0; i < 500; ++i) {
      std::string damaged = random.Chance(0.5) ? request_bytes : reply_bytes;
      damaged[random.Below(damaged.size())] = static_cast<char>(random.Below(256));
      const auto as_request = DecodeSyncRequest(damaged);
      if (as_request.ok()) {
        const auto target = NewNode();
        target->AnswerSync(*as_request);
        ASSERT_TRUE(target->view()->entries().Verify());
      }
      const auto as_reply = DecodeSyncReply(damaged);
      if (as_reply.ok()) {
        const auto target = NewNode();
        SyncSession session = target->StartSync();
        session.Next();
        (void)session.OnReply(*as_reply);
        session.Next();
        ASSERT_TRUE(target->view()->entries().Verify());
      }
    }
    ASSERT_THAT(honest.OnReply(reply), IsOk());
  }
  EXPECT_TRUE(honest.in_step());
}

}  // namespace
}  // namespace dynlib::partition_map
