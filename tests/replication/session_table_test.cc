#include "dynlib/replication/session_table.h"

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Verdict = SessionTable::Verdict;

constexpr ClientId kClient{7};

WallTime At(int64_t seconds) { return WallTime::FromNanos(seconds * 1'000'000'000); }

LoggedCommand Send(uint64_t sequence, uint64_t acknowledged = 0, int64_t issued = 100,
                   int64_t proposed = 100, ClientId client = kClient) {
  return {.kind = LoggedCommand::Kind::kCommand,
          .client = client,
          .sequence = sequence,
          .acknowledged = acknowledged,
          .issued = At(issued),
          .proposed = At(proposed),
          .command = "do"};
}

// The records as a store would hold them.
void StoreChanges(SessionTable& table, std::map<std::string, std::string>& stored) {
  for (const SessionRecord& record : table.TakeChanges()) {
    EXPECT_LE(record.key.size(), 9u);
    if (record.value.empty()) {
      stored.erase(record.key);
    } else {
      stored[record.key] = record.value;
    }
  }
}

SessionTable LoadFrom(const std::map<std::string, std::string>& stored) {
  SessionTable table;
  for (const auto& [key, value] : stored) DYNLIB_EXPECT_OK(table.Load(key, value));
  return table;
}

TEST(SessionTableTest, TheSameSequenceIsAppliedOnce) {
  SessionTable table;
  EXPECT_EQ(table.Admit(Send(1)).verdict, Verdict::kApply);
  table.SetResult(kClient, 1, {absl::StatusCode::kOk, "first"});
  EXPECT_EQ(table.Admit(Send(1)).verdict, Verdict::kDuplicate);
  ASSERT_NE(table.Find(kClient, 1), nullptr);
  EXPECT_EQ(table.Find(kClient, 1)->result, "first");
  // Within one step, before there is a result, too.
  EXPECT_EQ(table.Admit(Send(2)).verdict, Verdict::kApply);
  EXPECT_EQ(table.Admit(Send(2)).verdict, Verdict::kDuplicate);
}

TEST(SessionTableTest, SequencesMayComeInAnyOrder) {
  SessionTable table;
  for (uint64_t sequence : {3, 1, 2}) {
    EXPECT_EQ(table.Admit(Send(sequence)).verdict, Verdict::kApply) << sequence;
  }
  EXPECT_EQ(table.Admit(Send(1)).verdict, Verdict::kDuplicate);
}

TEST(SessionTableTest, ClientsDoNotMeet) {
  SessionTable table;
  EXPECT_EQ(table.Admit(Send(1)).verdict, Verdict::kApply);
  EXPECT_EQ(table.Admit(Send(1, 0, 100, 100, ClientId{8})).verdict, Verdict::kApply);
  EXPECT_EQ(table.clients(), 2u);
}

TEST(SessionTableTest, WhatIsAcknowledgedIsDroppedAndRefusedFromThenOn) {
  SessionTable table;
  for (uint64_t sequence = 1; sequence <= 4; ++sequence) table.Admit(Send(sequence));
  EXPECT_EQ(table.Admit(Send(5, 3)).verdict, Verdict::kApply);
  EXPECT_EQ(table.Find(kClient, 3), nullptr);
  EXPECT_NE(table.Find(kClient, 4), nullptr);
  for (uint64_t sequence : {1, 3}) {
    const SessionTable::Decision decision = table.Admit(Send(sequence));
    EXPECT_EQ(decision.verdict, Verdict::kRefused);
    EXPECT_EQ(decision.refusal.code, absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(decision.refusal.result, HasSubstr("acknowledged, 3"));
  }
  // A late, lower acknowledgement takes nothing back.
  EXPECT_EQ(table.Admit(Send(6, 1)).verdict, Verdict::kApply);
  EXPECT_EQ(table.Admit(Send(3)).verdict, Verdict::kRefused);
}

TEST(SessionTableTest, ACommandCannotAcknowledgeItself) {
  SessionTable table;
  EXPECT_EQ(table.Admit(Send(2, 99)).verdict, Verdict::kApply);
  EXPECT_NE(table.Find(kClient, 2), nullptr);
  EXPECT_EQ(table.Admit(Send(2, 99)).verdict, Verdict::kDuplicate);
  EXPECT_EQ(table.Admit(Send(1)).verdict, Verdict::kRefused);
}

TEST(SessionTableTest, SequenceZeroIsRefused) {
  SessionTable table;
  EXPECT_EQ(table.Admit(Send(0, 5)).verdict, Verdict::kRefused);
  EXPECT_EQ(table.clients(), 0u);
}

TEST(SessionTableTest, ResultsOfAClientAreBounded) {
  SessionTable table;
  for (uint64_t sequence = 1; sequence <= SessionTable::kResultsMax; ++sequence)
    ASSERT_EQ(table.Admit(Send(sequence)).verdict, Verdict::kApply);
  const SessionTable::Decision decision = table.Admit(Send(SessionTable::kResultsMax + 1));
  EXPECT_EQ(decision.verdict, Verdict::kRefused);
  EXPECT_EQ(decision.refusal.code, absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(decision.refusal.result, HasSubstr("4096"));
  EXPECT_EQ(table.Find(kClient, SessionTable::kResultsMax + 1), nullptr);
  // An answer is still to be had, and acknowledging makes room.
  EXPECT_EQ(table.Admit(Send(5)).verdict, Verdict::kDuplicate);
  EXPECT_EQ(table.Admit(Send(SessionTable::kResultsMax + 1, 1)).verdict, Verdict::kApply);
}

TEST(SessionTableTest, ExpiryDropsWhoWasSilentAndRefusesTheirOldCommands) {
  SessionTable table;
  table.Admit(Send(1, 0, 100, 100));
  table.Admit(Send(1, 0, 100, 200, ClientId{8}));
  table.Expire(At(150));
  EXPECT_EQ(table.clients(), 1u);
  EXPECT_EQ(table.Find(kClient, 1), nullptr);
  // May be applied already: never again.
  const SessionTable::Decision decision = table.Admit(Send(1, 0, 100, 300));
  EXPECT_EQ(decision.verdict, Verdict::kRefused);
  EXPECT_EQ(decision.refusal.code, absl::StatusCode::kUnknown);
  EXPECT_EQ(table.clients(), 1u);
  // Issued since: certainly new.
  EXPECT_EQ(table.Admit(Send(2, 0, 150, 300)).verdict, Verdict::kApply);
  // The client is known again, but a late copy of what it sent before is still not new.
  EXPECT_EQ(table.Admit(Send(1, 0, 100, 350)).refusal.code, absl::StatusCode::kUnknown);
  // The other one was heard of.
  EXPECT_EQ(table.Admit(Send(1, 0, 100, 300, ClientId{8})).verdict, Verdict::kDuplicate);
  // Time does not run backwards.
  table.Expire(At(120));
  EXPECT_EQ(table.Admit(Send(1, 0, 130, 300, ClientId{9})).verdict, Verdict::kRefused);
}

TEST(SessionTableTest, AnsweringADuplicateKeepsTheClientAlive) {
  SessionTable table;
  table.Admit(Send(1, 0, 100, 100));
  table.Admit(Send(1, 0, 100, 200));
  table.Expire(At(150));
  EXPECT_EQ(table.Admit(Send(1, 0, 100, 300)).verdict, Verdict::kDuplicate);
}

TEST(SessionTableTest, AResultThatWasAcknowledgedMeanwhileIsDropped) {
  SessionTable table;
  table.Admit(Send(1));
  table.Admit(Send(2, 1));
  table.SetResult(kClient, 1, {absl::StatusCode::kOk, "late"});
  table.SetResult(ClientId{99}, 1, {absl::StatusCode::kOk, "nobody's"});
  EXPECT_EQ(table.Find(kClient, 1), nullptr);
  EXPECT_EQ(table.clients(), 1u);
}

TEST(SessionTableTest, ChangesAreTakenOnce) {
  SessionTable table;
  EXPECT_THAT(table.TakeChanges(), IsEmpty());
  table.Admit(Send(1));
  EXPECT_THAT(table.TakeChanges(), SizeIs(1));
  EXPECT_THAT(table.TakeChanges(), IsEmpty());
  table.Expire(At(1000));
  const std::vector<SessionRecord> records = table.TakeChanges();
  ASSERT_THAT(records, SizeIs(2));
  EXPECT_EQ(records[0].value, "");  // The client's is deleted.
  EXPECT_EQ(records[1].key, "x");
}

// A table and its reloaded copy decide alike on everything that may come.
TEST(SessionTableTest, AReloadedTableDecidesAsTheOriginal) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Random random(seed);
    SessionTable table;
    std::map<std::string, std::string> stored;
    int64_t now = 1000;
    for (int step = 0; step < 300; ++step) {
      now += static_cast<int64_t>(random.Below(20));
      if (random.Below(40) == 0) table.Expire(At(now - 300));
      const LoggedCommand command =
          Send(random.Below(30), random.Below(25), now - static_cast<int64_t>(random.Below(600)),
               now, ClientId{1 + random.Below(4)});
      StoreChanges(table, stored);
      SessionTable copy = LoadFrom(stored);
      ASSERT_EQ(copy.clients(), table.clients());
      const SessionTable::Decision decision = table.Admit(command);
      const SessionTable::Decision again = copy.Admit(command);
      ASSERT_EQ(again.verdict, decision.verdict);
      ASSERT_EQ(again.refusal.code, decision.refusal.code);
      ASSERT_EQ(again.refusal.result, decision.refusal.result);
      if (decision.verdict == Verdict::kApply) {
        table.SetResult(command.client, command.sequence, {absl::StatusCode::kOk, Cat("r", step)});
      }
      StoreChanges(table, stored);
      copy = LoadFrom(stored);
      for (uint64_t client = 1; client <= 4; ++client) {
        for (uint64_t sequence = 0; sequence < 30; ++sequence) {
          const SessionResult* a = table.Find(ClientId{client}, sequence);
          const SessionResult* b = copy.Find(ClientId{client}, sequence);
          ASSERT_EQ(a == nullptr, b == nullptr);
          if (a != nullptr) {
            ASSERT_EQ(a->result, b->result);
          }
        }
      }
    }
  }
}

TEST(SessionTableTest, MalformedRecordsAreDataLoss) {
  SessionTable table;
  table.Admit(Send(1));
  table.SetResult(kClient, 1, {absl::StatusCode::kOk, "result"});
  table.Admit(Send(2));
  table.Expire(At(50));
  for (const SessionRecord& record : table.TakeChanges()) {
    DYNLIB_EXPECT_OK(SessionTable().Load(record.key, record.value));
    for (size_t length = 0; length < record.value.size(); ++length) {
      EXPECT_THAT(SessionTable().Load(record.key, record.value.substr(0, length)),
                  StatusIs(absl::StatusCode::kDataLoss))
          << length;
    }
    EXPECT_THAT(SessionTable().Load(record.key, record.value + "x"),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("does not parse")));
    std::string newer = record.value;
    newer[0] = 2;
    EXPECT_THAT(SessionTable().Load(record.key, newer), StatusIs(absl::StatusCode::kDataLoss));
    for (std::string key : {"", "y", "c", "c1234567", "xx"})
      EXPECT_THAT(SessionTable().Load(key, record.value), StatusIs(absl::StatusCode::kDataLoss));
  }
  Random random(5);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(random.Below(40), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    if (!bytes.empty() && random.Below(2) == 0) bytes[0] = 1;
    SessionTable().Load(i % 2 == 0 ? "x" : "c12345678", bytes).IgnoreError();
  }
}

TEST(LoggedCommandTest, SurvivesEncoding) {
  LoggedCommand command = Send(5, 3, 17, 18);
  command.command = std::string_view("\0bytes\xff", 7);
  const std::string bytes = EncodeLogged(command);
  const LoggedCommand decoded = DecodeLogged(bytes);
  EXPECT_EQ(decoded.kind, LoggedCommand::Kind::kCommand);
  EXPECT_EQ(decoded.client, kClient);
  EXPECT_EQ(decoded.sequence, 5u);
  EXPECT_EQ(decoded.acknowledged, 3u);
  EXPECT_EQ(decoded.issued, At(17));
  EXPECT_EQ(decoded.proposed, At(18));
  EXPECT_EQ(decoded.command, command.command);

  const LoggedCommand expire{
      .kind = LoggedCommand::Kind::kExpireSessions, .proposed = At(99), .command = {}};
  const std::string expire_bytes = EncodeLogged(expire);
  EXPECT_EQ(DecodeLogged(expire_bytes).kind, LoggedCommand::Kind::kExpireSessions);
  EXPECT_EQ(DecodeLogged(expire_bytes).proposed, At(99));
  const std::string raise = EncodeLogged({.kind = LoggedCommand::Kind::kVersion, .version = 300});
  EXPECT_EQ(raise, "\x05\xac\x02");
  EXPECT_EQ(DecodeLogged(raise).kind, LoggedCommand::Kind::kVersion);
  EXPECT_EQ(DecodeLogged(raise).version, 300u);
  EXPECT_EQ(DecodeLogged(raise + "x").kind, LoggedCommand::Kind::kNoOp);
  EXPECT_EQ(DecodeLogged(raise.substr(0, 2)).kind, LoggedCommand::Kind::kNoOp);
  EXPECT_EQ(EncodeLogged({}), "");
  EXPECT_EQ(DecodeLogged("").kind, LoggedCommand::Kind::kNoOp);
}

TEST(LoggedCommandTest, CutHeadersAreNoOps) {
  LoggedCommand command = Send(5, 3);
  command.command = {};
  const std::string bytes = EncodeLogged(command);
  for (size_t length = 0; length < bytes.size(); ++length) {
    const LoggedCommand cut = DecodeLogged(std::string_view(bytes).substr(0, length));
    EXPECT_EQ(cut.kind, LoggedCommand::Kind::kNoOp) << length;
    EXPECT_EQ(cut.sequence, 0u);
  }
}

TEST(LoggedCommandTest, AnyBytesDecode) {
  Random random(3);
  for (int i = 0; i < 50'000; ++i) {
    std::string bytes(random.Below(48), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    if (!bytes.empty()) bytes[0] = static_cast<char>(random.Below(7));
    const LoggedCommand command = DecodeLogged(bytes);
    ASSERT_THAT(command.kind,
                testing::AnyOf(LoggedCommand::Kind::kNoOp, LoggedCommand::Kind::kCommand,
                               LoggedCommand::Kind::kExpireSessions, LoggedCommand::Kind::kEnd,
                               LoggedCommand::Kind::kVersion));
    ASSERT_LE(command.command.size(), bytes.size());
  }
}

}  // namespace
}  // namespace dynlib::replication
