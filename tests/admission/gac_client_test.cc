#include "dynlib/admission/gac_client.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {
thread_local int64_t allocations = 0;
}  // namespace

void* operator new(size_t size) {
  ++allocations;
  void* const memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Outcome = GacDecision::Outcome;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);
constexpr LimitId kLimit{5};
constexpr GacClient::Limit kValue{.limit = LimitRate{1, 1000}, .safe_units_per_second = 10};

class GacClientTest : public ::testing::Test {
 protected:
  void SetUpWith(GacClient::Options options, std::vector<NodeId> servers) {
    options.client = ClientId{1};
    options.incarnation = 4;
    client_ = *GacClient::Create(options, servers);
    ASSERT_TRUE(client_->SetLimit(kLimit, kValue, now_).ok());
  }
  void SetUp() override { SetUpWith({.saved_seconds = 0.5}, {NodeId{1}}); }

  int64_t AdmitAll() {
    int64_t admitted = 0;
    while (client_->TryAdmit(kLimit, 1, now_).admitted()) ++admitted;
    return admitted;
  }
  GacClient::Outgoing PollOne() {
    auto out = client_->Poll(now_);
    EXPECT_EQ(out.size(), 1u);
    return out.empty() ? GacClient::Outgoing{} : out[0];
  }
  static GacGrants Answer(const GacReport& report, double rate, uint64_t generation = 50) {
    return {.generation = generation,
            .client = report.client,
            .incarnation = report.incarnation,
            .sequence = report.sequence,
            .report_after = seconds(1),
            .entries = {{.limit = kLimit, .units_per_second = rate, .valid_for = seconds(5)}}};
  }
  double RateInUse() { return client_->Status(kLimit, now_)->units_per_second; }

  std::unique_ptr<GacClient> client_;
  Instant now_ = kStart;
};

TEST_F(GacClientTest, StartsAtTheSafeRateAndAsksAtOnce) {
  EXPECT_TRUE(client_->Poll(now_).empty());  // Nobody asked for anything.
  now_ = now_ + milliseconds(50);
  EXPECT_EQ(AdmitAll(), 7);  // Half a second of it and two requests.
  const GacDecision refused = client_->TryAdmit(kLimit, 1, now_);
  EXPECT_EQ(refused.outcome, Outcome::kThrottled);
  EXPECT_EQ(refused.retry_after, Duration(milliseconds(100)));
  const auto out = PollOne();
  EXPECT_EQ(out.server, NodeId{1});
  ASSERT_EQ(out.report.entries.size(), 1u);
  const GacReportEntry& entry = out.report.entries[0];
  EXPECT_EQ(entry.asked_units, 9u);
  EXPECT_EQ(entry.admitted_units, 7u);
  EXPECT_EQ(entry.period, Duration(milliseconds(50)));
  EXPECT_EQ(entry.rate, (LimitRate{1, 1000}));
  EXPECT_EQ(entry.claim, GacClaim{});
}

TEST_F(GacClientTest, WorksAtWhatWasGrantedUntilItEnds) {
  AdmitAll();
  const auto out = PollOne();
  now_ = now_ + milliseconds(10);
  client_->OnGrants(NodeId{1}, Answer(out.report, 200), now_);
  EXPECT_EQ(RateInUse(), 200);
  // A tenth of a token was there.
  const Duration wait = client_->TryAdmit(kLimit, 1, now_).retry_after;
  EXPECT_NEAR(static_cast<double>(wait.count()), 4.5e6, 2);
  now_ = kStart + seconds(5) - Duration(1);
  EXPECT_EQ(AdmitAll(), 102);
  now_ = kStart + seconds(5);  // Five seconds after the report was sent.
  AdmitAll();
  EXPECT_FALSE(client_->Status(kLimit, now_)->granted);
  now_ = now_ + seconds(10);
  EXPECT_EQ(AdmitAll(), 7);
}

TEST_F(GacClientTest, ReportsAgainWithItsClaim) {
  AdmitAll();
  client_->OnGrants(NodeId{1}, Answer(PollOne().report, 200), now_);
  now_ = now_ + milliseconds(700);
  EXPECT_TRUE(client_->Poll(now_).empty());  // Enough is there.
  now_ = now_ + milliseconds(301);
  client_->TryAdmit(kLimit, 1, now_);
  const auto out = PollOne();
  const GacClaim claim = out.report.entries.at(0).claim;
  EXPECT_EQ(claim.generation, 50u);
  EXPECT_EQ(claim.sequence, 1u);
  EXPECT_EQ(claim.units_per_second, 200);
  EXPECT_EQ(claim.valid_for, Duration(milliseconds(3999)));
  EXPECT_EQ(out.report.sequence, 2u);
}

TEST_F(GacClientTest, ReportsEarlyWhenItRunsLowUnlessScarce) {
  for (const bool scarce : {false, true}) {
    AdmitAll();
    GacGrants grants = Answer(PollOne().report, 200);
    grants.entries[0].scarce = scarce;
    client_->OnGrants(NodeId{1}, grants, now_);
    now_ = now_ + milliseconds(150);
    AdmitAll();
    EXPECT_EQ(client_->Poll(now_).size(), scarce ? 0u : 1u);
    now_ = now_ + seconds(1);
  }
}

TEST_F(GacClientTest, IdleLimitsAreReportedAFewTimesMore) {
  AdmitAll();
  client_->OnGrants(NodeId{1}, Answer(PollOne().report, 200), now_);
  int reports = 0;
  for (int i = 0; i < 100; ++i) {
    now_ = now_ + milliseconds(100);
    for (const auto& out : client_->Poll(now_)) {
      ++reports;
      client_->OnGrants(NodeId{1}, Answer(out.report, 20), now_);
    }
  }
  EXPECT_EQ(reports, 3);
}

TEST_F(GacClientTest, LateRepeatedAndForeignGrantsAreDropped) {
  AdmitAll();
  const auto first = PollOne();
  const GacGrants answer = Answer(first.report, 100);
  GacGrants wrong = answer;
  wrong.client = ClientId{2};
  client_->OnGrants(NodeId{1}, wrong, now_);
  wrong = answer;
  wrong.incarnation = 3;
  client_->OnGrants(NodeId{1}, wrong, now_);
  wrong = answer;
  wrong.sequence = 77;
  client_->OnGrants(NodeId{1}, wrong, now_);
  client_->OnGrants(NodeId{9}, answer, now_);
  EXPECT_EQ(client_->counters().late_grants, 4u);
  EXPECT_EQ(RateInUse(), 10);
  client_->OnGrants(NodeId{1}, answer, now_);
  EXPECT_EQ(RateInUse(), 100);
  client_->OnGrants(NodeId{1}, answer, now_);
  EXPECT_EQ(client_->counters().late_grants, 5u);
}

TEST_F(GacClientTest, AnAnswerToAnEarlierReportDoesNotReplaceTheLater) {
  SetUpWith({.reply_timeout = seconds(3)}, {NodeId{1}});
  AdmitAll();
  const auto first = PollOne();
  now_ = now_ + milliseconds(1100);
  AdmitAll();
  const auto second = PollOne();
  client_->OnGrants(NodeId{1}, Answer(second.report, 300), now_);
  client_->OnGrants(NodeId{1}, Answer(first.report, 700), now_);
  EXPECT_EQ(RateInUse(), 300);
}

TEST_F(GacClientTest, GrantsOfAnEarlierGenerationAreDropped) {
  AdmitAll();
  client_->OnGrants(NodeId{1}, Answer(PollOne().report, 100, /*generation=*/50), now_);
  now_ = now_ + seconds(1);
  AdmitAll();
  client_->OnGrants(NodeId{1}, Answer(PollOne().report, 900, /*generation=*/49), now_);
  EXPECT_EQ(client_->counters().past_generation, 1u);
  EXPECT_EQ(RateInUse(), 100);
}

TEST_F(GacClientTest, AGrantThatComesTooLateIsNone) {
  AdmitAll();
  const auto out = PollOne();
  now_ = now_ + milliseconds(499);
  GacGrants answer = Answer(out.report, 100);
  answer.entries[0].valid_for = milliseconds(499);
  client_->OnGrants(NodeId{1}, answer, now_);
  EXPECT_FALSE(client_->Status(kLimit, now_)->granted);
}

TEST_F(GacClientTest, WhileLearningNoLessThanTheSafeRate) {
  AdmitAll();
  GacGrants answer = Answer(PollOne().report, 0);
  answer.entries[0].answer = GacAnswer::kLearning;
  client_->OnGrants(NodeId{1}, answer, now_);
  now_ = now_ + seconds(2);
  EXPECT_EQ(AdmitAll(), 7);
  answer = Answer(PollOne().report, 0);
  client_->OnGrants(NodeId{1}, answer, now_);
  now_ = now_ + seconds(4);
  EXPECT_EQ(AdmitAll(), 0);
}

TEST_F(GacClientTest, MovesFromAServerThatDoesNotAnswer) {
  SetUpWith({}, {NodeId{1}, NodeId{2}, NodeId{3}});
  const NodeId first = client_->Status(kLimit, now_)->server;
  std::set<NodeId> asked;
  for (int i = 0; i < 60; ++i) {
    AdmitAll();
    for (const auto& out : client_->Poll(now_)) asked.insert(out.server);
    now_ = now_ + milliseconds(50);
  }
  EXPECT_NE(client_->Status(kLimit, now_)->server, first);
  EXPECT_GE(asked.size(), 2u);
  EXPECT_GE(client_->counters().moves, 1u);
  // It is tried again after a while.
  now_ = now_ + seconds(13);
  EXPECT_EQ(client_->Status(kLimit, now_)->server, first);
}

TEST_F(GacClientTest, AFailureThatIsToldCountsAtOnce) {
  SetUpWith({.failures_to_move = 1}, {NodeId{1}, NodeId{2}});
  AdmitAll();
  const auto out = PollOne();
  client_->OnFailure(out.server, 999, now_);
  EXPECT_EQ(client_->counters().moves, 0u);
  client_->OnFailure(out.server, out.report.sequence, now_);
  EXPECT_EQ(client_->counters().moves, 1u);
  EXPECT_NE(client_->Status(kLimit, now_)->server, out.server);
}

TEST_F(GacClientTest, NoLimitPassesAndAsksNobody) {
  ASSERT_TRUE(client_->SetLimit(LimitId{8}, {.limit = std::nullopt}, now_).ok());
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(client_->TryAdmit(LimitId{8}, 1'000'000, now_).admitted());
  }
  EXPECT_TRUE(client_->Poll(now_).empty());
}

TEST_F(GacClientTest, UnknownIsSaidToBe) {
  for (const uint64_t id : {uint64_t{0}, uint64_t{6}, UINT64_MAX}) {
    EXPECT_EQ(client_->TryAdmit(LimitId{id}, 1, now_).outcome, Outcome::kUnknown);
  }
  client_->RemoveLimit(kLimit);
  EXPECT_EQ(client_->TryAdmit(kLimit, 1, now_).outcome, Outcome::kUnknown);
}

TEST_F(GacClientTest, TooLargeIsSaidToBe) {
  EXPECT_EQ(client_->TryAdmit(kLimit, 1'000'000, now_).outcome, Outcome::kTooLarge);
}

TEST_F(GacClientTest, GivesBackAndTakesMore) {
  AdmitAll();
  client_->GiveBack(kLimit, 3, now_);
  EXPECT_EQ(AdmitAll(), 3);
  client_->TakeMore(kLimit, 4, now_);
  EXPECT_EQ(client_->TryAdmit(kLimit, 1, now_).retry_after, Duration(milliseconds(500)));
  EXPECT_EQ(PollOne().report.entries.at(0).admitted_units, 11u);
}

// What a thread holds ahead is neither lost nor reported as admitted.
TEST_F(GacClientTest, WhatIsHeldAheadIsAdmittedInTheEndAndReportedThen) {
  const GacClient::Limit fast{.limit = LimitRate{1, 1e6}, .safe_units_per_second = 1e6};
  const LimitId limit{6};
  ASSERT_TRUE(client_->SetLimit(limit, fast, now_).ok());
  const auto admit = [&](int64_t units) {
    int64_t admitted = 0;
    while (admitted < units && client_->TryAdmit(limit, 1, now_).admitted()) ++admitted;
    return admitted;
  };
  std::thread other([&] { EXPECT_EQ(admit(10), 10); });
  other.join();
  EXPECT_EQ(admit(90), 90);
  EXPECT_EQ(PollOne().report.entries.at(0).admitted_units, 100u);
  // Half a second of it and two requests; what the other thread holds too.
  EXPECT_EQ(admit(INT64_MAX), 500'002 - 100);
  EXPECT_EQ(client_->TryAdmit(limit, 1, now_).retry_after, Duration(1000));
  now_ = now_ + seconds(2);
  const GacReportEntry report = PollOne().report.entries.at(0);
  EXPECT_EQ(report.admitted_units, 500'002u - 100);
  EXPECT_EQ(report.asked_units, 500'002u - 100 + 2);
}

// Requests larger than what is held ahead do not make it more.
TEST_F(GacClientTest, HoldsNoMoreAheadThanItSays) {
  const GacClient::Limit fast{.limit = LimitRate{1, 1e6}, .safe_units_per_second = 1e6};
  const LimitId limit{6};
  ASSERT_TRUE(client_->SetLimit(limit, fast, now_).ok());
  for (int i = 0; i < 200; ++i) {
    now_ = now_ + milliseconds(100);
    ASSERT_TRUE(client_->TryAdmit(limit, 10'000, now_).admitted());
  }
  now_ = now_ + seconds(10);
  int64_t admitted = 0;
  while (client_->TryAdmit(limit, 1, now_).admitted()) ++admitted;
  EXPECT_GE(admitted, 500'002);
  EXPECT_LE(admitted, 500'002 + 125) << "an eighth of a millisecond";
}

TEST_F(GacClientTest, ARateThatFallsTakesBackWhatIsHeldAhead) {
  const GacClient::Limit fast{.limit = LimitRate{1, 1e9}, .safe_units_per_second = 1e9};
  ASSERT_TRUE(client_->SetLimit(kLimit, fast, now_).ok());
  now_ = now_ + seconds(1);
  ASSERT_TRUE(client_->TryAdmit(kLimit, 1, now_).admitted());
  ASSERT_TRUE(client_->SetLimit(kLimit, kValue, now_).ok());
  EXPECT_EQ(AdmitAll(), 7);
}

// More is given back than was admitted since the last report: the next one counts that much less.
TEST_F(GacClientTest, WhatWasReportedAndGivenBackIsMadeUpFor) {
  EXPECT_EQ(AdmitAll(), 7);
  EXPECT_EQ(PollOne().report.entries.at(0).admitted_units, 7u);
  client_->GiveBack(kLimit, 3, now_);
  now_ = now_ + seconds(1);
  EXPECT_EQ(AdmitAll(), 7);
  EXPECT_EQ(PollOne().report.entries.at(0).admitted_units, 4u);
}

TEST_F(GacClientTest, ANewLimitIsTakenUpAndReported) {
  AdmitAll();
  client_->OnGrants(NodeId{1}, Answer(PollOne().report, 100), now_);
  now_ = now_ + milliseconds(150);
  client_->TryAdmit(kLimit, 1, now_);
  GacClient::Limit value{.limit = LimitRate{2, 9000}, .safe_units_per_second = 20};
  ASSERT_TRUE(client_->SetLimit(kLimit, value, now_).ok());
  EXPECT_EQ(PollOne().report.entries.at(0).rate, (LimitRate{2, 9000}));
  value.limit->version = 1;
  ASSERT_TRUE(client_->SetLimit(kLimit, value, now_).ok());
  value.limit->units_per_second = -1;
  EXPECT_THAT(std::string(client_->SetLimit(kLimit, value, now_).message()),
              HasSubstr("units_per_second"));
  EXPECT_EQ(client_->SetLimit(LimitId{0}, kValue, now_).code(), absl::StatusCode::kInvalidArgument);
}

// Limits come and go for ever; those that are there are found, and no others.
TEST_F(GacClientTest, LimitsComeAndGo) {
  SetUpWith({.limits_max = 50}, {NodeId{1}});
  client_->RemoveLimit(kLimit);
  for (uint64_t id = 1; id < 5000; ++id) {
    ASSERT_TRUE(client_->SetLimit(LimitId{id}, kValue, now_).ok()) << id;
    if (id > 50) {
      ASSERT_EQ(client_->TryAdmit(LimitId{id - 50}, 1, now_).outcome, Outcome::kUnknown);
    }
    for (uint64_t there = id > 49 ? id - 49 : 1; there <= id; there += 7) {
      ASSERT_NE(client_->TryAdmit(LimitId{there}, 1, now_).outcome, Outcome::kUnknown) << there;
    }
    if (id < 50) continue;
    ASSERT_EQ(client_->SetLimit(LimitId{9999}, kValue, now_).code(),
              absl::StatusCode::kResourceExhausted);
    client_->RemoveLimit(LimitId{id - 49});
  }
}

TEST_F(GacClientTest, JitterKeepsClientsApart) {
  std::set<int64_t> times;
  for (uint64_t id = 1; id <= 20; ++id) {
    const NodeId servers[] = {NodeId{1}};
    client_ = *GacClient::Create({.client = ClientId{id}}, servers);
    ASSERT_TRUE(client_->SetLimit(kLimit, kValue, kStart).ok());
    now_ = kStart;
    client_->TryAdmit(kLimit, 1, now_);
    client_->OnGrants(NodeId{1}, Answer(PollOne().report, 100'000), now_);
    std::vector<GacClient::Outgoing> out;
    for (; out.empty(); now_ = now_ + milliseconds(1)) {
      client_->TryAdmit(kLimit, 1, now_);
      out = client_->Poll(now_);
    }
    EXPECT_GE(now_, kStart + milliseconds(750));
    EXPECT_LE(now_, kStart + milliseconds(1002));
    times.insert(now_.nanos());
  }
  EXPECT_GE(times.size(), 15u);
}

TEST_F(GacClientTest, ADecisionAllocatesNothing) {
  const int64_t before = allocations;
  int64_t refused = 0;
  for (int i = 0; i < 1000; ++i) {
    const Instant now = now_ + milliseconds(i);
    if (!client_->TryAdmit(kLimit, 1, now).admitted()) ++refused;
    client_->TryAdmit(LimitId{77}, 1, now);
    client_->TryAdmit(kLimit, 1'000'000, now);
  }
  EXPECT_EQ(allocations, before);
  EXPECT_GT(refused, 0);
  client_->Poll(now_ + seconds(2));
  EXPECT_GT(allocations, before);  // They are counted.
}

// Requests from some threads, the driver on another, limits that change on a third.
TEST_F(GacClientTest, ThreadsTogether) {
  std::atomic<int> requesting{2};
  std::atomic<int64_t> ticks{0};
  std::atomic<int64_t> admitted{0};
  const auto now = [&] { return kStart + milliseconds(ticks.load()); };
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        if (client_->TryAdmit(kLimit, 1, now()).admitted()) ++admitted;
        client_->TryAdmit(LimitId{77}, 1, now());
      }
      --requesting;
    });
  }
  threads.emplace_back([&] {
    while (requesting > 0) {
      client_->SetLimit(LimitId{77}, kValue, now()).IgnoreError();
      client_->RemoveLimit(LimitId{77});
    }
  });
  while (requesting > 0) {
    if (ticks < 3000) ++ticks;
    for (const auto& out : client_->Poll(now())) {
      // Shorter than the time between reports, so that grants end.
      GacGrants answer = Answer(out.report, 1000);
      answer.entries[0].valid_for = milliseconds(300);
      client_->OnGrants(NodeId{1}, answer, now());
    }
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(admitted, 1000 * 3 + 502 + 7);
  EXPECT_GT(admitted, 0);
}

TEST(GacClientOptions, AreChecked) {
  const NodeId servers[] = {NodeId{1}};
  const std::pair<GacClient::Options, const char*> bad[] = {
      {{}, "client"},
      {{.client = ClientId{1}, .saved_seconds = 0}, "saved_seconds"},
      {{.client = ClientId{1}, .request_units_max = 0}, "request_units_max"},
      {{.client = ClientId{1}, .report_after = Duration(1)}, "report_after"},
      {{.client = ClientId{1}, .report_min = seconds(2)}, "report_min"},
      {{.client = ClientId{1}, .reply_timeout = Duration(0)}, "reply_timeout"},
      {{.client = ClientId{1}, .failures_to_move = 0}, "failures_to_move"},
      {{.client = ClientId{1}, .avoid_for = Duration(0)}, "avoid_for"},
      {{.client = ClientId{1}, .limits_max = 0}, "limits_max"}};
  for (const auto& [options, field] : bad) {
    const auto made = GacClient::Create(options, servers);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(field));
  }
}

}  // namespace
}  // namespace dynlib::admission
