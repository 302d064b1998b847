#include "dynlib/admission/gac_message.h"

#include <bit>
#include <limits>
#include <string>

#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

GacReport AReport() {
  return {.client = ClientId{12},
          .incarnation = 3,
          .sequence = 400,
          .entries = {{.limit = LimitOf(TableId{5}, Operation::kWrite),
                       .rate = {.version = 2, .units_per_second = 1000.5},
                       .asked_units = 77,
                       .admitted_units = 70,
                       .period = milliseconds(950),
                       .claim = {.generation = 9,
                                 .sequence = 399,
                                 .units_per_second = 80,
                                 .valid_for = seconds(4)}},
                      {.limit = LimitId{1}}}};
}

GacGrants SomeGrants() {
  return {.generation = 9,
          .client = ClientId{12},
          .incarnation = 3,
          .sequence = 400,
          .report_after = seconds(1),
          .entries = {{.limit = LimitId{11},
                       .answer = GacAnswer::kLearning,
                       .scarce = true,
                       .units_per_second = 82.25,
                       .valid_for = seconds(5)},
                      {.limit = LimitId{3}, .answer = GacAnswer::kUnknown}}};
}

TEST(GacMessage, LimitsOfATableAreTwo) {
  EXPECT_NE(LimitOf(TableId{5}, Operation::kRead), LimitOf(TableId{5}, Operation::kWrite));
  EXPECT_NE(LimitOf(TableId{5}, Operation::kWrite), LimitOf(TableId{6}, Operation::kRead));
}

TEST(GacMessage, ComesBackAsItWas) {
  EXPECT_EQ(*DecodeGacReport(Encode(AReport())), AReport());
  EXPECT_EQ(*DecodeGacGrants(Encode(SomeGrants())), SomeGrants());
}

// The bytes of version 1 do not change.
TEST(GacMessage, GoldenBytes) {
  const GacGrants grants{.generation = 1,
                         .client = ClientId{2},
                         .incarnation = 3,
                         .sequence = 4,
                         .report_after = Duration(5),
                         .entries = {{.limit = LimitId{6},
                                      .answer = GacAnswer::kGranted,
                                      .scarce = true,
                                      .units_per_second = 1,
                                      .valid_for = Duration(300)}}};
  const std::string golden(
      "\x01G\x01\x02\x03\x04\x05\x01\x0d\x06\x01\x01\x00\x00\x00\x00\x00\x00\xf0\x3f\xac\x02", 22);
  EXPECT_EQ(Encode(grants), golden);
}

TEST(GacMessage, OneIsNotTheOther) {
  EXPECT_FALSE(DecodeGacReport(Encode(SomeGrants())).ok());
  EXPECT_FALSE(DecodeGacGrants(Encode(AReport())).ok());
}

TEST(GacMessage, EveryPrefixIsRefused) {
  const std::string report = Encode(AReport());
  for (size_t size = 0; size < report.size(); ++size) {
    EXPECT_EQ(DecodeGacReport(report.substr(0, size)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(DecodeGacReport(report + "x").ok());
  const std::string grants = Encode(SomeGrants());
  for (size_t size = 0; size < grants.size(); ++size) {
    EXPECT_FALSE(DecodeGacGrants(grants.substr(0, size)).ok());
  }
}

TEST(GacMessage, ANewerPeersFieldsAreSkipped) {
  GacGrants one = SomeGrants();
  one.entries.resize(1);
  GacGrants none = one;
  none.entries.clear();
  std::string bytes = Encode(none);
  bytes.pop_back();  // the count
  const std::string entry = Encode(one).substr(bytes.size() + 2);
  PutVarint(bytes, 1);
  PutLengthPrefixed(bytes, entry + "more");
  EXPECT_EQ(*DecodeGacGrants(bytes), one);
}

TEST(GacMessage, RatesAreNumbers) {
  const std::string good = Encode(SomeGrants());
  std::string rate;
  PutFixed64(rate, std::bit_cast<uint64_t>(82.25));
  const size_t at = good.find(rate);
  ASSERT_NE(at, std::string::npos);
  for (const double bad : {-1.0, 1.1e9, std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    std::string bytes = good;
    StoreFixed(bytes.data() + at, bad);
    EXPECT_FALSE(DecodeGacGrants(bytes).ok()) << bad;
  }
}

// Whatever decodes is within bounds and encodes again.
TEST(GacMessage, AnyBytesAreSafe) {
  Random random(1);
  int decoded = 0;
  for (int i = 0; i < 100'000; ++i) {
    const bool report = random.Chance(0.5);
    std::string bytes = report ? Encode(AReport()) : Encode(SomeGrants());
    for (uint64_t n = random.Below(4) + 1; n > 0; --n) {
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Next());
    }
    if (random.Chance(0.2)) bytes.resize(random.Below(bytes.size()));
    if (report) {
      const auto message = DecodeGacReport(bytes);
      if (!message.ok()) continue;
      EXPECT_EQ(*DecodeGacReport(Encode(*message)), *message);
    } else {
      const auto message = DecodeGacGrants(bytes);
      if (!message.ok()) continue;
      EXPECT_EQ(*DecodeGacGrants(Encode(*message)), *message);
    }
    ++decoded;
  }
  EXPECT_GT(decoded, 1000);
}

}  // namespace
}  // namespace dynlib::admission
