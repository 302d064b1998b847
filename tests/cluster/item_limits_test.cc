#include "dynlib/cluster/item_limits.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

const TableSchema kSchema{.partition_key = {"id", KeyType::kString}};

Item With(std::string name, Value value) {
  return {{"id", Value::String("x")}, {std::move(name), std::move(value)}};
}

TEST(ItemSize, FollowsThePublishedRules) {
  EXPECT_EQ(ValueSizeBytes(Value::String("caf\xc3\xa9")), 5u);
  EXPECT_EQ(ValueSizeBytes(Value::Binary("abc")), 3u);
  EXPECT_EQ(ValueSizeBytes(Value::Null()), 1u);
  EXPECT_EQ(ValueSizeBytes(Value::Boolean(true)), 1u);
  EXPECT_EQ(ValueSizeBytes(Value::Number(0)), 1u);
  EXPECT_EQ(ValueSizeBytes(Value::Number(7)), 2u);
  EXPECT_EQ(ValueSizeBytes(Value::Number(12)), 2u);
  EXPECT_EQ(ValueSizeBytes(Value::Number(12000)), 2u);
  EXPECT_EQ(ValueSizeBytes(Value::Number(123)), 3u);
  EXPECT_EQ(ValueSizeBytes(Value::StringSet({"ab", "c"})), 3u);
  EXPECT_EQ(ValueSizeBytes(Value::NumberSet({Decimal::FromInt(1), Decimal::FromInt(2)})), 4u);
  EXPECT_EQ(ValueSizeBytes(Value::OfList({})), 3u);
  EXPECT_EQ(ValueSizeBytes(Value::OfList({Value::String("ab"), Value::Null()})), 3u + 3u + 2u);
  EXPECT_EQ(ValueSizeBytes(Value::OfMap({{"key", Value::String("ab")}})), 3u + 1u + 3u + 2u);
  EXPECT_EQ(ItemSizeBytes({{"id", Value::String("x")}, {"n", Value::Number(5)}}), 3u + 3u);
}

TEST(CapacityUnits, RoundUp) {
  EXPECT_EQ(WriteUnits(0), 1u);
  EXPECT_EQ(WriteUnits(1024), 1u);
  EXPECT_EQ(WriteUnits(1025), 2u);
  EXPECT_EQ(WriteUnits(kItemSizeBytesMax), 400u);
  EXPECT_EQ(ReadHalfUnits(0, true), 2u);
  EXPECT_EQ(ReadHalfUnits(4096, false), 1u);
  EXPECT_EQ(ReadHalfUnits(4097, true), 4u);
  EXPECT_EQ(ReadHalfUnits(4097, false), 2u);
}

TEST(ValidateItem, SizeUpToTheLimit) {
  // Names "id" and "v", key "x".
  size_t room = kItemSizeBytesMax - 4;
  DYNLIB_EXPECT_OK(ValidateItem(kSchema, With("v", Value::Binary(std::string(room, '\0')))));
  EXPECT_THAT(ValidateItem(kSchema, With("v", Value::Binary(std::string(room + 1, '\0')))),
              StatusIs(kInvalid, AllOf(HasSubstr("409601 bytes"), HasSubstr("409600"))));
}

// Many small attributes are what takes most bytes for its size.
TEST(ValidateItem, WhatIsAcceptedCanBeDecoded) {
  Item item{{"id", Value::String("x")}};
  size_t size = 3;
  for (uint64_t i = 0; size < kItemSizeBytesMax - 4; ++i) {
    std::string name;
    for (uint64_t rest = i + 1; rest > 0; rest /= 127) {
      name.push_back(static_cast<char>(1 + rest % 127));
    }
    if (name == "id") continue;
    size += name.size();
    item[name] = Value::String("");
  }
  DYNLIB_ASSERT_OK(ValidateItem(kSchema, item));
  std::string bytes = EncodeItem(item);
  EXPECT_LT(bytes.size(), kEncodedItemBytesMax);
  DYNLIB_EXPECT_OK(DecodeItem(bytes));
}

TEST(ValidateItem, KeysMustBeThere) {
  EXPECT_THAT(ValidateItem(kSchema, {{"v", Value::Null()}}),
              StatusIs(kInvalid, HasSubstr("partition key 'id' is missing")));
  EXPECT_THAT(ValidateItem(kSchema, {{"id", Value::Number(1)}}),
              StatusIs(kInvalid, HasSubstr("wants a string")));
  EXPECT_THAT(ValidateItem(kSchema, {{"id", Value::String("")}}),
              StatusIs(kInvalid, HasSubstr("0 bytes")));
}

TEST(ValidateItem, Names) {
  DYNLIB_EXPECT_OK(ValidateItem(kSchema, With(std::string(65535, 'n'), Value::Null())));
  EXPECT_THAT(ValidateItem(kSchema, With(std::string(65536, 'n'), Value::Null())),
              StatusIs(kInvalid, AllOf(HasSubstr("65536 bytes"), HasSubstr("1 to 65535"))));
  EXPECT_THAT(ValidateItem(kSchema, With("", Value::Null())),
              StatusIs(kInvalid, HasSubstr("0 bytes")));
  EXPECT_THAT(ValidateItem(kSchema, With("\xff", Value::Null())),
              StatusIs(kInvalid, HasSubstr("not UTF-8")));
  EXPECT_THAT(ValidateItem(kSchema, With("m", Value::OfMap({{"", Value::Null()}}))),
              StatusIs(kInvalid, HasSubstr("0 bytes")));
}

TEST(ValidateItem, Strings) {
  DYNLIB_EXPECT_OK(ValidateItem(kSchema, With("s", Value::String(""))));
  EXPECT_THAT(ValidateItem(kSchema, With("s", Value::String("ab\xff"))),
              StatusIs(kInvalid, AllOf(HasSubstr("'s'"), HasSubstr("byte 2"))));
  EXPECT_THAT(ValidateItem(kSchema, With("s", Value::StringSet({"\xff"}))),
              StatusIs(kInvalid, HasSubstr("not UTF-8")));
  EXPECT_THAT(ValidateItem(kSchema, With("s", Value::OfList({Value::String("\xff")}))),
              StatusIs(kInvalid, HasSubstr("not UTF-8")));
}

TEST(ValidateItem, EmptySets) {
  for (Value set : {Value::StringSet({}), Value::NumberSet({}), Value::BinarySet({})}) {
    EXPECT_THAT(ValidateItem(kSchema, With("set", set)),
                StatusIs(kInvalid, AllOf(HasSubstr("'set'"), HasSubstr("at least 1 element"))));
  }
}

TEST(ValidateItem, Nesting) {
  Value deep = Value::Null();
  for (int i = 0; i < kNestingMax; ++i) deep = Value::OfList({std::move(deep)});
  DYNLIB_EXPECT_OK(ValidateItem(kSchema, With("deep", deep)));
  EXPECT_THAT(ValidateItem(kSchema, With("deep", Value::OfMap({{"k", deep}}))),
              StatusIs(kInvalid, AllOf(HasSubstr("'deep'"), HasSubstr("32 levels"))));
}

}  // namespace
}  // namespace dynlib::cluster
