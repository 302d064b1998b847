#include "dynlib/cluster/item.h"

#include <string>
#include <utility>

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

Item EveryType() {
  Item item;
  item["null"] = Value::Null();
  item["yes"] = Value::Boolean(true);
  item["number"] = Value::Number(-7);
  item["string"] = Value::String("t\xc3\xa9xt");
  item["binary"] = Value::Binary(std::string("\0\xff", 2));
  item["list"] = Value::OfList({Value::Number(1), Value::OfList({})});
  item["map"] = Value::OfMap({{"a", Value::String("")}, {"b", Value::Null()}});
  item["strings"] = Value::StringSet({"b", "a"});
  item["numbers"] = Value::NumberSet({Decimal::FromInt(10), Decimal::FromInt(9)});
  item["binaries"] = Value::BinarySet({"x", ""});
  return item;
}

Value Nested(int levels) {
  Value value = Value::Number(1);
  for (int i = 0; i < levels; ++i) {
    value =
        i % 2 == 0 ? Value::OfList({std::move(value)}) : Value::OfMap({{"m", std::move(value)}});
  }
  return value;
}

TEST(Item, EveryTypeRoundTrips) {
  Item item = EveryType();
  DYNLIB_ASSERT_OK_AND_ASSIGN(Item same, DecodeItem(EncodeItem(item)));
  EXPECT_EQ(same, item);
  EXPECT_THAT(DecodeItem(EncodeItem({})), IsOkAndHolds(Item{}));
}

TEST(Item, BytesAreGolden) {
  Item item;
  item["id"] = Value::String("u1");
  item["n"] = Value::Number(1);
  item["t"] = Value::StringSet({"b", "a"});
  EXPECT_EQ(EncodeItem(item), std::string("\x01"
                                          "\x03"
                                          "\x02id\x04\x02u1"
                                          "\x01n\x03\x03\x82\x0b\x00"
                                          "\x01t\x08\x02\x01"
                                          "a"
                                          "\x01"
                                          "b",
                                          24));
}

TEST(Item, EqualityIsDeepAndByType) {
  EXPECT_EQ(Value::Number(*Decimal::Parse("1.0")), Value::Number(1));
  EXPECT_FALSE(Value::String("a") == Value::Binary("a"));
  EXPECT_FALSE(Value::StringSet({"a"}) == Value::BinarySet({"a"}));
  EXPECT_FALSE(Value::Null() == Value::Boolean(false));
  EXPECT_FALSE(Nested(5) == Nested(6));
  EXPECT_EQ(Nested(6), Nested(6));
}

TEST(Item, PrintsForPeople) {
  EXPECT_EQ(Value::OfMap({{"a", Value::OfList({Value::Number(1), Value::Null()})},
                          {"b", Value::Binary("\x01")},
                          {"c", Value::NumberSet({Decimal::FromInt(2)})}})
                .ToString(),
            "{\"a\": [1, null], \"b\": b\"\\x01\", \"c\": <<2>>}");
  EXPECT_LE(Value::String(std::string(1000, 'x')).ToString(50).size(), 60u);
}

TEST(ItemDeath, AccessByAnotherTypeIsABug) {
  EXPECT_DEATH(Value::Number(1).string(), "held != nullptr");
}

TEST(ItemDecode, NestingIsBounded) {
  Item item;
  item["deep"] = Nested(kNestingMax);
  EXPECT_THAT(DecodeItem(EncodeItem(item)), IsOkAndHolds(item));
  item["deep"] = Nested(kNestingMax + 1);
  EXPECT_THAT(DecodeItem(EncodeItem(item)), StatusIs(absl::StatusCode::kDataLoss));
  // Far beyond any stack.
  std::string bytes("\x01\x01\x01n", 4);
  for (int i = 0; i < 500'000; ++i) bytes += "\x06\x01";
  EXPECT_THAT(DecodeItem(bytes), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ItemDecode, OtherVersionIsNamed) {
  std::string bytes = EncodeItem(EveryType());
  bytes[0] = 9;
  EXPECT_THAT(DecodeItem(bytes),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("format version 9")));
}

TEST(ItemDecode, SizesBeyondTheBytesAreRefused) {
  std::string bytes("\x01", 1);
  PutVarint(bytes, UINT64_MAX);
  EXPECT_THAT(DecodeItem(bytes), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodeItem(std::string(kEncodedItemBytesMax + 1, '\x01')),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("more than")));
}

TEST(ItemDecode, SetsAndNamesMustAscend) {
  const std::string head("\x01\x01\x01s\x08\x02", 6);
  EXPECT_THAT(DecodeItem(head + std::string("\x01"
                                            "a"
                                            "\x01"
                                            "b",
                                            4)),
              IsOk());
  EXPECT_THAT(DecodeItem(head + std::string("\x01"
                                            "b"
                                            "\x01"
                                            "a",
                                            4)),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodeItem(head + std::string("\x01"
                                            "a"
                                            "\x01"
                                            "a",
                                            4)),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodeItem(std::string("\x01\x02\x01"
                                     "b"
                                     "\x01\x01"
                                     "a"
                                     "\x01",
                                     8)),
              StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ItemDecode, EveryTruncationAndEveryTrailingByteIsRefused) {
  std::string bytes = EncodeItem(EveryType());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(DecodeItem(std::string_view(bytes).substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss))
        << size;
  }
  EXPECT_THAT(DecodeItem(bytes + '\0'), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ItemDecode, RandomItemsRoundTripAndEncodeOnce) {
  Random random(3);
  for (int i = 0; i < 2000; ++i) {
    Item item = RandomItem(random);
    std::string bytes = EncodeItem(item);
    DYNLIB_ASSERT_OK_AND_ASSIGN(Item same, DecodeItem(bytes));
    ASSERT_EQ(same, item);
    ASSERT_EQ(EncodeItem(same), bytes);
  }
}

TEST(ItemDecode, DamagedBytesGiveAnErrorOrAnItem) {
  Random random(4);
  int decoded = 0;
  for (int i = 0; i < 30000; ++i) {
    std::string bytes = i % 4 == 0 ? '\x01' + RandomBytes(random, 40)
                                   : Damage(random, EncodeItem(RandomItem(random)));
    absl::StatusOr<Item> item = DecodeItem(bytes);
    if (!item.ok()) {
      ASSERT_EQ(item.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    ++decoded;
    // What is accepted is an item like any other.
    ASSERT_EQ(*DecodeItem(EncodeItem(*item)), *item);
  }
  EXPECT_GT(decoded, 100);
}

}  // namespace
}  // namespace dynlib::cluster
