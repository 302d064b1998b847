#include "dynlib/cluster/key.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/cluster/random_item.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TableSchema Schema(KeyType partition, std::optional<KeyType> sort) {
  TableSchema schema{.partition_key = {"p", partition}};
  if (sort) schema.sort_key = KeyAttribute{"s", *sort};
  return schema;
}

Value RandomKey(Random& random, KeyType type) {
  if (type == KeyType::kNumber) return Value::Number(RandomNumber(random));
  if (type == KeyType::kString) return Value::String("k" + RandomAscii(random, 3));
  std::string bytes = RandomBytes(random, 4);
  return Value::Binary(bytes.empty() ? std::string(1, '\0') : bytes);
}

// The order that keys promise, said another way.
bool LessByValue(const Value& a, const Value& b) {
  if (a.is(ValueType::kNumber)) return a.number() < b.number();
  if (a.is(ValueType::kString)) return a.string() < b.string();
  return a.binary() < b.binary();
}

constexpr KeyType kTypes[] = {KeyType::kNumber, KeyType::kString, KeyType::kBinary};

TEST(Key, BytesAreGolden) {
  TableSchema schema = Schema(KeyType::kString, KeyType::kBinary);
  DYNLIB_ASSERT_OK_AND_ASSIGN(std::string key, EncodeKey(schema, Value::String("ab"),
                                                         Value::Binary(std::string("x\0y", 3))));
  std::string partition(
      "\x04"
      "ab\x00\x01",
      5);
  std::string sort("\x05x\x00\xffy\x00\x01", 7);
  EXPECT_EQ(key, HashBoundary(Checksum(partition)) + partition + sort);
  EXPECT_EQ(HashOfStorageKey(key), Checksum(partition));
  EXPECT_THAT(PartitionHash(schema, Value::String("ab")), IsOkAndHolds(Checksum(partition)));
  EXPECT_EQ(HashBoundary(0x0102030405060708u), "\x01\x02\x03\x04\x05\x06\x07\x08");
}

TEST(Key, RoundTripsAndOrdersByValue) {
  Random random(7);
  for (KeyType partition_type : kTypes) {
    for (KeyType sort_type : kTypes) {
      TableSchema schema = Schema(partition_type, sort_type);
      Value partition = RandomKey(random, partition_type);
      Value last = RandomKey(random, sort_type);
      for (int i = 0; i < 2000; ++i) {
        Value sort = RandomKey(random, sort_type);
        DYNLIB_ASSERT_OK_AND_ASSIGN(std::string key, EncodeKey(schema, partition, sort));
        DYNLIB_ASSERT_OK_AND_ASSIGN(std::string last_key, EncodeKey(schema, partition, last));
        ASSERT_EQ(key < last_key, LessByValue(sort, last))
            << sort.ToString() << " and " << last.ToString();
        ASSERT_EQ(*DecodeKey(schema, key), (PrimaryKey{partition, sort}));
        last = sort;
      }
    }
  }
}

TEST(Key, OfAnItem) {
  TableSchema schema = Schema(KeyType::kString, KeyType::kNumber);
  Item item{{"p", Value::String("a")}, {"s", Value::Number(3)}, {"other", Value::Null()}};
  EXPECT_THAT(KeyOf(schema, item), IsOkAndHolds(PrimaryKey{Value::String("a"), Value::Number(3)}));
  EXPECT_EQ(*EncodeItemKey(schema, item), *EncodeKey(schema, Value::String("a"), Value::Number(3)));
  EXPECT_EQ(*EncodeItemKey(schema, item), *EncodeKey(schema, *KeyOf(schema, item)));
  TableSchema simple = Schema(KeyType::kString, std::nullopt);
  EXPECT_EQ(*EncodeItemKey(simple, item), *EncodeKey(simple, Value::String("a")));
  EXPECT_THAT(KeyOf(simple, item), IsOkAndHolds(PrimaryKey{Value::String("a"), std::nullopt}));
}

TEST(Key, FaultsAreNamed) {
  TableSchema schema = Schema(KeyType::kString, KeyType::kBinary);
  Value s = Value::Binary("s");
  EXPECT_THAT(EncodeItemKey(schema, {{"s", s}}),
              StatusIs(kInvalid, HasSubstr("partition key 'p' is missing")));
  EXPECT_THAT(EncodeItemKey(schema, {{"p", Value::String("x")}}),
              StatusIs(kInvalid, HasSubstr("sort key 's' is missing")));
  EXPECT_THAT(KeyOf(schema, {{"p", Value::String("x")}}),
              StatusIs(kInvalid, HasSubstr("sort key 's' is missing")));
  EXPECT_THAT(EncodeKey(schema, Value::Number(5), s),
              StatusIs(kInvalid, AllOf(HasSubstr("partition key 'p'"), HasSubstr("5 is a number"),
                                       HasSubstr("wants a string"))));
  EXPECT_THAT(EncodeKey(schema, Value::String(""), s),
              StatusIs(kInvalid, AllOf(HasSubstr("0 bytes"), HasSubstr("1 to 2048"))));
  EXPECT_THAT(EncodeKey(schema, Value::String("x"), Value::Binary("")),
              StatusIs(kInvalid, AllOf(HasSubstr("0 bytes"), HasSubstr("1 to 1024"))));
  EXPECT_THAT(EncodeKey(schema, Value::String("\xff"), s), StatusIs(kInvalid, HasSubstr("UTF-8")));
  EXPECT_THAT(EncodeKey(schema, Value::String("x")),
              StatusIs(kInvalid, HasSubstr("sort key 's' is missing")));
  EXPECT_THAT(EncodeKey(Schema(KeyType::kString, std::nullopt), Value::String("x"), s),
              StatusIs(kInvalid, HasSubstr("no sort key")));
}

TEST(Key, SizesUpToTheLimits) {
  TableSchema schema = Schema(KeyType::kBinary, KeyType::kBinary);
  auto zeros = [](size_t size) { return Value::Binary(std::string(size, '\0')); };
  DYNLIB_ASSERT_OK_AND_ASSIGN(std::string longest, EncodeKey(schema, zeros(2048), zeros(1024)));
  EXPECT_EQ(longest.size(), kStorageKeyBytesMax);
  EXPECT_THAT(DecodeKey(schema, longest), IsOkAndHolds(PrimaryKey{zeros(2048), zeros(1024)}));
  EXPECT_THAT(EncodeKey(schema, zeros(2049), zeros(1)),
              StatusIs(kInvalid, AllOf(HasSubstr("2049 bytes"), HasSubstr("1 to 2048"))));
  EXPECT_THAT(EncodeKey(schema, zeros(1), zeros(1025)),
              StatusIs(kInvalid, AllOf(HasSubstr("1025 bytes"), HasSubstr("1 to 1024"))));
}

TEST(Key, NoPartitionLiesWithinAnother) {
  TableSchema schema = Schema(KeyType::kBinary, KeyType::kBinary);
  Random random(8);
  for (int i = 0; i < 5000; ++i) {
    Value a = RandomKey(random, KeyType::kBinary);
    Value b = RandomKey(random, KeyType::kBinary);
    DYNLIB_ASSERT_OK_AND_ASSIGN(KeyRange range, QueryRange(schema, a));
    DYNLIB_ASSERT_OK_AND_ASSIGN(std::string key,
                                EncodeKey(schema, b, RandomKey(random, KeyType::kBinary)));
    ASSERT_EQ(range.Contains(key), a == b) << a.ToString() << " and " << b.ToString();
  }
}

TEST(KeyDecode, AcceptsOnlyWhatIsWritten) {
  Random random(9);
  for (KeyType type : kTypes) {
    TableSchema schema = Schema(type, type);
    for (int i = 0; i < 20000; ++i) {
      std::string key = *EncodeKey(schema, RandomKey(random, type), RandomKey(random, type));
      std::string damaged = Damage(random, key);
      absl::StatusOr<PrimaryKey> decoded = DecodeKey(schema, damaged);
      if (decoded.ok()) {
        ASSERT_EQ(*EncodeKey(schema, *decoded), damaged);
      } else {
        ASSERT_EQ(decoded.status().code(), absl::StatusCode::kDataLoss);
      }
    }
    std::string key = *EncodeKey(schema, RandomKey(random, type), RandomKey(random, type));
    for (size_t size = 0; size < key.size(); ++size) {
      EXPECT_THAT(DecodeKey(schema, key.substr(0, size)), StatusIs(absl::StatusCode::kDataLoss));
    }
  }
}

TEST(KeyDecode, HashMustBeThatOfThePartitionKey) {
  TableSchema schema = Schema(KeyType::kString, std::nullopt);
  std::string key = *EncodeKey(schema, Value::String("a"));
  DYNLIB_EXPECT_OK(DecodeKey(schema, key));
  key[0] = static_cast<char>(key[0] ^ 1);
  EXPECT_THAT(DecodeKey(schema, key), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(KeyDecode, TypeMustBeThatOfTheSchema) {
  std::string key = *EncodeKey(Schema(KeyType::kString, std::nullopt), Value::String("a"));
  EXPECT_THAT(DecodeKey(Schema(KeyType::kBinary, std::nullopt), key),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(DecodeKey(Schema(KeyType::kString, KeyType::kString), key),
              StatusIs(absl::StatusCode::kDataLoss));
}

// ---- Queries, against conditions evaluated on the values ----

bool Meets(const SortCondition& c, const Value& sort) {
  using Op = SortCondition::Op;
  auto less = [](const Value& a, const Value& b) { return LessByValue(a, b); };
  switch (c.op) {
    case Op::kAll:
      return true;
    case Op::kEqual:
      return sort == c.operand;
    case Op::kLess:
      return less(sort, c.operand);
    case Op::kLessEqual:
      return !less(c.operand, sort);
    case Op::kGreater:
      return less(c.operand, sort);
    case Op::kGreaterEqual:
      return !less(sort, c.operand);
    case Op::kBetween:
      return !less(sort, c.operand) && !less(c.high, sort);
    case Op::kBeginsWith:
      return sort.is(ValueType::kString) ? sort.string().starts_with(c.operand.string())
                                         : sort.binary().starts_with(c.operand.binary());
  }
  return false;
}

SortCondition RandomCondition(Random& random, KeyType type) {
  SortCondition c;
  c.op = static_cast<SortCondition::Op>(random.Below(type == KeyType::kNumber ? 7 : 8));
  c.operand = RandomKey(random, type);
  c.high = RandomKey(random, type);
  if (LessByValue(c.high, c.operand)) std::swap(c.high, c.operand);
  return c;
}

TEST(QueryRange, ContainsExactlyWhatTheConditionAsksFor) {
  Random random(10);
  for (KeyType type : kTypes) {
    TableSchema schema = Schema(KeyType::kBinary, type);
    Value partition = Value::Binary("\xff\xff");
    Value other = Value::Binary("\xff");
    int inside = 0;
    for (int i = 0; i < 20000; ++i) {
      SortCondition condition = RandomCondition(random, type);
      DYNLIB_ASSERT_OK_AND_ASSIGN(KeyRange range, QueryRange(schema, partition, condition));
      Value sort = random.Chance(0.1) ? condition.operand : RandomKey(random, type);
      bool contains = range.Contains(*EncodeKey(schema, partition, sort));
      ASSERT_EQ(contains, Meets(condition, sort))
          << static_cast<int>(condition.op) << " " << condition.operand.ToString() << " "
          << condition.high.ToString() << ": " << sort.ToString();
      ASSERT_FALSE(range.Contains(*EncodeKey(schema, other, sort)));
      inside += contains;
    }
    EXPECT_GT(inside, 2000);
  }
}

TEST(QueryRange, OfATableWithoutSortKeyIsOneKey) {
  TableSchema schema = Schema(KeyType::kString, std::nullopt);
  DYNLIB_ASSERT_OK_AND_ASSIGN(KeyRange range, QueryRange(schema, Value::String("a")));
  EXPECT_TRUE(range.Contains(*EncodeKey(schema, Value::String("a"))));
  EXPECT_FALSE(range.Contains(*EncodeKey(schema, Value::String("b"))));
  EXPECT_THAT(QueryRange(schema, Value::String("a"), SortCondition::Equal(Value::String("x"))),
              StatusIs(kInvalid, HasSubstr("no sort key")));
}

TEST(QueryRange, FaultsAreNamed) {
  TableSchema schema = Schema(KeyType::kString, KeyType::kNumber);
  Value p = Value::String("p");
  EXPECT_THAT(QueryRange(schema, Value::String("")),
              StatusIs(kInvalid, HasSubstr("partition key")));
  EXPECT_THAT(QueryRange(schema, p, SortCondition::Less(Value::String("x"))),
              StatusIs(kInvalid, HasSubstr("wants a number")));
  EXPECT_THAT(QueryRange(schema, p, SortCondition::BeginsWith(Value::Number(1))),
              StatusIs(kInvalid, HasSubstr("numbers have no prefix")));
  EXPECT_THAT(QueryRange(schema, p, SortCondition::Between(Value::Number(2), Value::Number(1))),
              StatusIs(kInvalid, HasSubstr("the lower end 2 is above the upper end 1")));
  EXPECT_THAT(QueryRange(schema, p, SortCondition::Between(Value::Number(2), Value::String("x"))),
              StatusIs(kInvalid, HasSubstr("wants a number")));
  TableSchema strings = Schema(KeyType::kString, KeyType::kString);
  EXPECT_THAT(QueryRange(strings, p, SortCondition::BeginsWith(Value::String(""))),
              StatusIs(kInvalid, HasSubstr("0 bytes")));
}

}  // namespace
}  // namespace dynlib::cluster
