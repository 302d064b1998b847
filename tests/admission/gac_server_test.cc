#include "dynlib/admission/gac_server.h"

#include <limits>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);
constexpr LimitId kLimit{5};

class GacServerTest : public ::testing::Test {
 protected:
  void SetUpWith(GacServer::Options options) {
    options.generation = 100;
    server_ = *GacServer::Create(options);
  }
  void SetUp() override { SetUpWith({.transition_share = 0}); }

  // A report of one second in which `asked` units were asked, acknowledging the client's last
  // grant; returns the answer. The limit is 1000 units a second.
  absl::StatusOr<GacGrants> Send(uint64_t client, uint64_t asked, GacClaim claim) {
    GacReport report{.client = ClientId{client},
                     .incarnation = 1,
                     .sequence = ++sequence_,
                     .entries = {{.limit = kLimit,
                                  .rate = {.version = 1, .units_per_second = 1000},
                                  .asked_units = asked,
                                  .admitted_units = asked / 2,
                                  .period = seconds(1),
                                  .claim = claim}}};
    return server_->HandleReport(report, now_);
  }
  double Ask(uint64_t client, uint64_t asked, bool acknowledge = true) {
    const auto grants = Send(client, asked, acknowledge ? claims_[client] : GacClaim{});
    EXPECT_TRUE(grants.ok()) << grants.status();
    const GacGrantEntry& entry = grants->entries.at(0);
    claims_[client] = {.generation = grants->generation,
                       .sequence = grants->sequence,
                       .units_per_second = entry.units_per_second,
                       .valid_for = entry.valid_for};
    return entry.units_per_second;
  }
  // Past the learning phase.
  void Learn() {
    Ask(99, 1);
    claims_.clear();
    now_ = now_ + seconds(20);
    server_->Expire(now_);
    ASSERT_FALSE(server_->Status(kLimit, now_)->learning);
    ASSERT_EQ(server_->Status(kLimit, now_)->clients, 0u);
  }
  double InUse() { return server_->Status(kLimit, now_)->granted_per_second; }

  std::unique_ptr<GacServer> server_;
  Instant now_ = kStart;
  uint64_t sequence_ = 0;
  std::map<uint64_t, GacClaim> claims_;
};

TEST_F(GacServerTest, GrantsAllToTheOnlyOne) {
  Learn();
  EXPECT_DOUBLE_EQ(Ask(1, 100), 1000);
  EXPECT_DOUBLE_EQ(Ask(1, 5000), 1000);
}

// What others hold is not granted again before they let go of it.
TEST_F(GacServerTest, TheLedgerNeverExceedsTheLimit) {
  Learn();
  EXPECT_DOUBLE_EQ(Ask(1, 2000), 1000);
  EXPECT_DOUBLE_EQ(Ask(2, 2000), 0);
  EXPECT_DOUBLE_EQ(Ask(1, 2000), 500);  // lowered, but not yet known to have taken it
  EXPECT_DOUBLE_EQ(Ask(2, 2000), 0);
  EXPECT_DOUBLE_EQ(Ask(1, 2000), 500);
  EXPECT_DOUBLE_EQ(Ask(2, 2000), 500);
  EXPECT_DOUBLE_EQ(InUse(), 1000);
}

// Two answers were lost: the client may still work with the first grant.
TEST_F(GacServerTest, AnUnacknowledgedGrantStaysUntilItEnds) {
  Learn();
  EXPECT_DOUBLE_EQ(Ask(1, 2000), 1000);
  const GacClaim first = claims_[1];
  Ask(2, 2000);
  for (int i = 0; i < 6; ++i) {
    now_ = now_ + milliseconds(500);
    ASSERT_TRUE(Send(1, 2000, first).ok());
    EXPECT_DOUBLE_EQ(Ask(2, 2000), 0) << i;
  }
}

TEST_F(GacServerTest, ASilentClientsGrantEnds) {
  Learn();
  Ask(1, 2000);
  now_ = now_ + seconds(5);
  EXPECT_DOUBLE_EQ(Ask(2, 2000), 0);  // Its clock may be slow.
  now_ = now_ + milliseconds(51);
  server_->Expire(now_);
  EXPECT_DOUBLE_EQ(Ask(2, 2000), 1000);
  EXPECT_EQ(server_->Status(kLimit, now_)->clients, 1u);
}

TEST_F(GacServerTest, ATransitionShareComesAtOnce) {
  SetUpWith({.transition_share = 0.1});
  Learn();
  Ask(1, 2000);
  EXPECT_DOUBLE_EQ(Ask(2, 2000), 50);
}

TEST_F(GacServerTest, WhileLearningAClaimBoundsTheGrant) {
  const GacClaim old{
      .generation = 99, .sequence = 7, .units_per_second = 120, .valid_for = seconds(3)};
  auto grants = Send(1, 5000, old);
  ASSERT_TRUE(grants.ok());
  EXPECT_EQ(grants->entries[0].answer, GacAnswer::kGranted);
  EXPECT_DOUBLE_EQ(grants->entries[0].units_per_second, 120);
  // Claiming more now does not help, nor does naming another server.
  GacClaim more = old;
  more.units_per_second = 1e6;
  grants = Send(1, 5000, more);
  EXPECT_DOUBLE_EQ(grants->entries[0].units_per_second, 120);
  // Less demand, less of it.
  for (int i = 0; i < 5; ++i) grants = Send(1, 0, old);
  Send(2, 990, old).IgnoreError();
  EXPECT_LE(Send(1, 0, old)->entries[0].units_per_second, 120);
}

TEST_F(GacServerTest, WhileLearningAClaimThatEndedIsNone) {
  const GacClaim ended{.generation = 99, .sequence = 7, .units_per_second = 120};
  const auto grants = Send(1, 5000, ended);
  EXPECT_EQ(grants->entries[0].answer, GacAnswer::kLearning);
  EXPECT_DOUBLE_EQ(grants->entries[0].units_per_second, 50);
}

TEST_F(GacServerTest, WhileLearningTheClaimlessShareALittle) {
  double sum = 0;
  for (uint64_t client = 1; client <= 20; ++client) Ask(client, 500);
  for (int round = 0; round < 3; ++round) {
    sum = 0;
    for (uint64_t client = 1; client <= 20; ++client) sum += Ask(client, 500);
  }
  EXPECT_NEAR(sum, 50, 1e-6);
  EXPECT_NEAR(InUse(), 50, 1e-6);
  now_ = now_ + milliseconds(5051);
  for (int round = 0; round < 3; ++round) {
    sum = 0;
    for (uint64_t client = 1; client <= 20; ++client) sum += Ask(client, 500);
  }
  EXPECT_NEAR(sum, 1000, 1e-6);
}

TEST_F(GacServerTest, LateAndRepeatedReportsAreDropped) {
  Learn();
  GacReport report{.client = ClientId{1},
                   .incarnation = 2,
                   .sequence = 10,
                   .entries = {{.limit = kLimit, .asked_units = 10, .period = seconds(1)}}};
  ASSERT_TRUE(server_->HandleReport(report, now_).ok());
  EXPECT_EQ(server_->HandleReport(report, now_).status().code(), absl::StatusCode::kAlreadyExists);
  report.sequence = 9;
  EXPECT_FALSE(server_->HandleReport(report, now_).ok());
  report.incarnation = 1;
  report.sequence = 1000;
  EXPECT_FALSE(server_->HandleReport(report, now_).ok());
  EXPECT_EQ(server_->counters().late_reports, 3u);
  report.incarnation = 3;
  report.sequence = 1;
  EXPECT_TRUE(server_->HandleReport(report, now_).ok());
}

TEST_F(GacServerTest, BadReportsAreRefused) {
  const GacReport good{.client = ClientId{1}, .sequence = 1, .entries = {{.limit = kLimit}}};
  GacReport bad = good;
  bad.client = ClientId{0};
  EXPECT_EQ(server_->HandleReport(bad, now_).status().code(), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.sequence = 0;
  EXPECT_FALSE(server_->HandleReport(bad, now_).ok());
  bad = good;
  bad.entries.clear();
  EXPECT_FALSE(server_->HandleReport(bad, now_).ok());
}

TEST_F(GacServerTest, AnUnknownLimitIsSaidToBe) {
  const auto grants = server_->HandleReport(
      {.client = ClientId{1}, .sequence = 1, .entries = {{.limit = kLimit}}}, now_);
  EXPECT_EQ(grants->entries.at(0).answer, GacAnswer::kUnknown);
  EXPECT_EQ(server_->counters().unknown_limits, 1u);
}

TEST_F(GacServerTest, ANewerLimitHoldsAtOnce) {
  Learn();
  Ask(1, 2000);
  ASSERT_TRUE(server_->SetLimit(kLimit, {.version = 2, .units_per_second = 300}, now_).ok());
  EXPECT_DOUBLE_EQ(Ask(1, 2000), 300);
  ASSERT_TRUE(server_->SetLimit(kLimit, {.version = 1, .units_per_second = 5000}, now_).ok());
  EXPECT_DOUBLE_EQ(Ask(1, 2000), 300);  // Reports still bring version 1.
  EXPECT_EQ(server_->SetLimit(kLimit, {.version = 3, .units_per_second = 0}, now_).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(GacServerTest, IsBounded) {
  SetUpWith({.limits_max = 2, .clients_per_limit_max = 3, .entries_max = 4});
  for (uint64_t client = 1; client <= 3; ++client) Ask(client, 1);
  EXPECT_EQ(Send(4, 1, {})->entries[0].answer, GacAnswer::kFull);
  GacReport other{.client = ClientId{1}, .incarnation = 1, .sequence = 500};
  for (uint64_t limit = 6; limit <= 8; ++limit) {
    other.entries.push_back(
        {.limit = LimitId{limit}, .rate = {.version = 1, .units_per_second = 10}});
  }
  const auto grants = server_->HandleReport(other, now_);
  EXPECT_EQ(grants->entries[0].answer, GacAnswer::kLearning);
  EXPECT_EQ(grants->entries[1].answer, GacAnswer::kFull);
  EXPECT_EQ(server_->entries(), 4u);
  // All of it is forgotten in time.
  server_->Expire(now_ + minutes(11));
  EXPECT_EQ(server_->entries(), 0u);
  EXPECT_EQ(server_->Status(kLimit, now_), std::nullopt);
}

// Thousands of clients come, ask for too much, and go without a word.
TEST_F(GacServerTest, ThousandsComeAndGo) {
  Learn();
  uint64_t next = 1000;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 250; ++i) {
      Ask(++next, 100);
      ASSERT_LE(InUse(), 1000 * (1 + 1e-9));
    }
    now_ = now_ + milliseconds(500);
    server_->Expire(now_);
    ASSERT_LE(server_->entries(), 11u * 250);  // what came within a grant's life
  }
  now_ = now_ + seconds(20);
  server_->Expire(now_);
  EXPECT_EQ(server_->entries(), 0u);
  EXPECT_NEAR(InUse(), 0, 1e-9);
}

TEST_F(GacServerTest, TellsWhatItKnows) {
  Learn();
  Ask(1, 200);
  Ask(2, 400);
  const auto status = *server_->Status(kLimit, now_);
  EXPECT_DOUBLE_EQ(status.limit, 1000);
  EXPECT_DOUBLE_EQ(status.asked_per_second, 600);
  EXPECT_DOUBLE_EQ(status.admitted_per_second, 300);
  EXPECT_EQ(status.clients, 2u);
}

TEST(GacServerOptions, AreChecked) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<GacServer::Options, const char*> bad[] = {
      {{.generation = 0}, "generation"},
      {{.generation = 1, .grant_lifetime = Duration(5)}, "grant_lifetime"},
      {{.generation = 1, .report_after = seconds(3)}, "report_after"},
      {{.generation = 1, .transition_share = nan}, "transition_share"},
      {{.generation = 1, .learning_share = -1}, "learning_share"},
      {{.generation = 1, .clock_drift_max = 1}, "clock_drift_max"},
      {{.generation = 1, .limits_max = 0}, "limits_max"}};
  for (const auto& [options, field] : bad) {
    const auto made = GacServer::Create(options);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(field));
  }
}

}  // namespace
}  // namespace dynlib::admission
