#include "dynlib/cluster/decimal.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/cluster/random_item.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;

Decimal Dec(std::string_view text) {
  auto decimal = Decimal::Parse(text);
  EXPECT_TRUE(decimal.ok()) << text << ": " << decimal.status();
  return decimal.ok() ? *decimal : Decimal();
}

std::string Ordered(const Decimal& decimal) {
  std::string bytes;
  decimal.AppendOrdered(bytes);
  return bytes;
}

TEST(Decimal, TextIsCanonical) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"0", "0"},
      {"-0.000e55", "0"},
      {"1.50", "1.5"},
      {"+15e-1", "1.5"},
      {"-.5", "-0.5"},
      {"5.", "5"},
      {"1200", "1200"},
      {"0.0000001", "0.0000001"},
      {"0.00000001", "1E-8"},
      {"1.25e-20", "1.25E-20"},
      {"1e37", "1" + std::string(37, '0')},
      {"1e38", "1E+38"},
      {"123456789e90", "1.23456789E+98"},
      {"000000000000000000000000000000000000000000000000001", "1"},
      {"99999999999999999999999999999999999999", std::string(38, '9')},
      {"-9.9999999999999999999999999999999999999E+125",
       "-9.9999999999999999999999999999999999999E+125"},
      {"1E-130", "1E-130"},
  };
  for (const auto& [text, canonical] : cases) {
    EXPECT_EQ(Dec(text).ToString(), canonical) << text;
    EXPECT_EQ(Dec(canonical), Dec(text)) << text;
  }
}

TEST(Decimal, IntegersOfTheMachine) {
  EXPECT_EQ(Decimal::FromInt(0).ToString(), "0");
  EXPECT_EQ(Decimal::FromInt(-1200).ToString(), "-1200");
  EXPECT_EQ(Decimal::FromInt(INT64_MAX).ToString(), "9223372036854775807");
  EXPECT_EQ(Decimal::FromInt(INT64_MIN).ToString(), "-9223372036854775808");
  EXPECT_EQ(Decimal::FromInt(1200), Dec("1.2e3"));
}

TEST(Decimal, WhatIsNoNumberIsRefused) {
  for (const char* text : {"", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", " 1", "1 ", "NaN",
                           "inf", "1,5", "--1", "1e5.5"}) {
    EXPECT_THAT(Decimal::Parse(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a decimal number")))
        << text;
  }
}

TEST(Decimal, LimitsAreNamed) {
  EXPECT_THAT(Decimal::Parse("1" + std::string(37, '0') + "1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("39 significant digits")));
  for (const char* text : {"1e126", "-1e126", "9.9e-131", "1e-99999999999999999999", "10e125"}) {
    EXPECT_THAT(Decimal::Parse(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outside 1E-130")))
        << text;
  }
  EXPECT_THAT(Decimal::Parse(std::string(600, '1')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("600 bytes")));
}

TEST(Decimal, OrderIsThatOfTheNumbers) {
  const std::vector<std::string> ascending = {"-9.9999999999999999999999999999999999999E+125",
                                              "-1e125",
                                              "-100",
                                              "-99.5",
                                              "-99",
                                              "-10",
                                              "-9",
                                              "-1.01",
                                              "-1",
                                              "-0.9",
                                              "-0.1",
                                              "-1e-130",
                                              "0",
                                              "1e-130",
                                              "0.1",
                                              "0.11",
                                              "0.2",
                                              "1",
                                              "1.01",
                                              "2",
                                              "9",
                                              "10",
                                              "11",
                                              "99",
                                              "99.5",
                                              "100",
                                              "101",
                                              "110",
                                              "1e38",
                                              "1e125",
                                              "9.9999999999999999999999999999999999999E+125"};
  for (size_t i = 0; i < ascending.size(); ++i) {
    for (size_t j = 0; j < ascending.size(); ++j) {
      Decimal a = Dec(ascending[i]);
      Decimal b = Dec(ascending[j]);
      EXPECT_EQ(a <=> b, i <=> j) << ascending[i] << " and " << ascending[j];
      EXPECT_EQ(a == b, i == j);
      EXPECT_EQ(Ordered(a) <=> Ordered(b), i <=> j) << ascending[i] << " and " << ascending[j];
    }
  }
}

TEST(Decimal, OrderedBytesAreGolden) {
  EXPECT_EQ(Ordered(Dec("0")), "\x02");
  // 1E+0: exponent 0 + 130, pair 10 + 1.
  EXPECT_EQ(Ordered(Dec("1")), std::string("\x03\x82\x0b\x00", 4));
  // 123.4: exponent 2 + 130, pairs 12 and 34.
  EXPECT_EQ(Ordered(Dec("123.4")), std::string("\x03\x84\x0d\x23\x00", 5));
  EXPECT_EQ(Ordered(Dec("-123.4")), "\x01\x7b\xf2\xdc\xff");
}

TEST(Decimal, RandomNumbersRoundTripAndOrder) {
  Random random(1);
  Decimal last;
  for (int i = 0; i < 20000; ++i) {
    Decimal decimal = RandomNumber(random);
    std::string bytes = Ordered(decimal);
    ASSERT_LE(bytes.size(), Decimal::kOrderedBytesMax);
    ByteReader in(bytes);
    ASSERT_EQ(Decimal::ReadOrdered(in), decimal);
    ASSERT_TRUE(in.done());
    ASSERT_EQ(*Decimal::Parse(decimal.ToString()), decimal);
    ASSERT_EQ(bytes <=> Ordered(last), decimal <=> last)
        << decimal.ToString() << " and " << last.ToString();
    last = decimal;
  }
}

TEST(Decimal, ReadingAcceptsOnlyWhatIsWritten) {
  Random random(2);
  int accepted = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string bytes =
        i % 2 == 0 ? RandomBytes(random, 24) : Damage(random, Ordered(RandomNumber(random)));
    ByteReader in(bytes);
    Decimal decimal = Decimal::ReadOrdered(in);
    if (!in.ok()) continue;
    ++accepted;
    std::string read = bytes.substr(0, bytes.size() - in.rest().size());
    ASSERT_EQ(Ordered(decimal), read) << Escape(bytes);
  }
  EXPECT_GT(accepted, 1000);
}

TEST(Decimal, EveryTruncationIsRefused) {
  for (const char* text : {"0", "1", "-123.4", "99999999999999999999999999999999999999"}) {
    std::string bytes = Ordered(Dec(text));
    for (size_t size = 0; size < bytes.size(); ++size) {
      ByteReader in(std::string_view(bytes).substr(0, size));
      Decimal::ReadOrdered(in);
      EXPECT_FALSE(in.ok()) << text << " cut to " << size;
    }
  }
}

}  // namespace
}  // namespace dynlib::cluster
