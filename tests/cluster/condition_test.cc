#include "dynlib/cluster/condition.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/cluster/random_item.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;
using Op = Clause::Op;

const Item& Sample() {
  static const Item* item = new Item{
      {"n", Value::Number(5)},
      {"s", Value::String("hello")},
      {"b", Value::Binary("\x01\x02\x03")},
      {"l", Value::OfList({Value::Number(1), Value::String("x")})},
      {"m", Value::OfMap({{"k", Value::Null()}})},
      {"ss", Value::StringSet({"a", "b"})},
      {"ns", Value::NumberSet({Decimal::FromInt(1)})},
      {"bs", Value::BinarySet({"z"})},
      {"t", Value::Boolean(true)},
      {"nil", Value::Null()},
  };
  return *item;
}

bool On(std::string name, Op op, Value operand = {}) {
  return Holds(Condition{{{std::move(name), op, std::move(operand)}}}, &Sample());
}

TEST(Condition, Existence) {
  EXPECT_TRUE(On("n", Op::kExists));
  EXPECT_TRUE(On("nil", Op::kExists));
  EXPECT_FALSE(On("gone", Op::kExists));
  EXPECT_FALSE(On("n", Op::kNotExists));
  EXPECT_TRUE(On("gone", Op::kNotExists));
}

TEST(Condition, Equality) {
  EXPECT_TRUE(On("n", Op::kEqual, Value::Number(*Decimal::Parse("5.0"))));
  EXPECT_FALSE(On("n", Op::kEqual, Value::String("5")));
  EXPECT_TRUE(On("ss", Op::kEqual, Value::StringSet({"b", "a"})));
  EXPECT_TRUE(On("m", Op::kEqual, Value::OfMap({{"k", Value::Null()}})));
  EXPECT_TRUE(On("t", Op::kNotEqual, Value::Boolean(false)));
  EXPECT_FALSE(On("t", Op::kNotEqual, Value::Boolean(true)));
  EXPECT_TRUE(On("t", Op::kNotEqual, Value::String("true")));
}

TEST(Condition, OrderWithinOneType) {
  EXPECT_TRUE(On("n", Op::kLess, Value::Number(6)));
  EXPECT_FALSE(On("n", Op::kLess, Value::Number(5)));
  EXPECT_TRUE(On("n", Op::kLessEqual, Value::Number(5)));
  EXPECT_TRUE(On("n", Op::kGreater, Value::Number(-6)));
  EXPECT_FALSE(On("n", Op::kGreater, Value::Number(5)));
  EXPECT_TRUE(On("n", Op::kGreaterEqual, Value::Number(5)));
  EXPECT_TRUE(On("s", Op::kGreater, Value::String("hell")));
  EXPECT_TRUE(On("b", Op::kLess, Value::Binary("\xff")));
  // Another type does not order, either way.
  EXPECT_FALSE(On("n", Op::kLess, Value::String("z")));
  EXPECT_FALSE(On("n", Op::kGreaterEqual, Value::String("z")));
  EXPECT_FALSE(On("s", Op::kLess, Value::Binary("z")));
}

TEST(Condition, PartsOfValues) {
  EXPECT_TRUE(On("s", Op::kBeginsWith, Value::String("he")));
  EXPECT_FALSE(On("s", Op::kBeginsWith, Value::String("el")));
  EXPECT_TRUE(On("b", Op::kBeginsWith, Value::Binary("\x01")));
  EXPECT_FALSE(On("s", Op::kBeginsWith, Value::Binary("he")));
  EXPECT_TRUE(On("s", Op::kContains, Value::String("ell")));
  EXPECT_TRUE(On("b", Op::kContains, Value::Binary("\x02\x03")));
  EXPECT_TRUE(On("l", Op::kContains, Value::String("x")));
  EXPECT_FALSE(On("l", Op::kContains, Value::String("y")));
  EXPECT_TRUE(On("ss", Op::kContains, Value::String("a")));
  EXPECT_FALSE(On("ss", Op::kContains, Value::Binary("a")));
  EXPECT_TRUE(On("ns", Op::kContains, Value::Number(1)));
  EXPECT_TRUE(On("bs", Op::kContains, Value::Binary("z")));
  EXPECT_FALSE(On("m", Op::kContains, Value::String("k")));
}

TEST(Condition, AbsentAttributeAndAbsentItem) {
  const std::vector<Op> ops = {Op::kExists,     Op::kNotExists, Op::kEqual,   Op::kNotEqual,
                               Op::kLess,       Op::kLessEqual, Op::kGreater, Op::kGreaterEqual,
                               Op::kBeginsWith, Op::kContains};
  for (Op op : ops) {
    bool expected = op == Op::kNotExists || op == Op::kNotEqual;
    Condition condition{{{"gone", op, Value::String("x")}}};
    EXPECT_EQ(Holds(condition, &Sample()), expected) << static_cast<int>(op);
    EXPECT_EQ(Holds(condition, nullptr), expected) << static_cast<int>(op);
  }
}

TEST(Condition, AllClausesMustHold) {
  EXPECT_TRUE(Holds({}, nullptr));
  EXPECT_TRUE(Holds({}, &Sample()));
  Condition both{{{"n", Op::kGreater, Value::Number(1)}, {"n", Op::kLess, Value::Number(9)}}};
  EXPECT_TRUE(Holds(both, &Sample()));
  both.clauses.push_back({"gone", Op::kExists});
  EXPECT_FALSE(Holds(both, &Sample()));
}

TEST(Condition, BytesAreGolden) {
  Condition condition{{{"a", Op::kNotExists}, {"n", Op::kEqual, Value::Number(1)}}};
  EXPECT_EQ(EncodeCondition(condition), std::string("\x01\x02"
                                                    "\x02\x01"
                                                    "a"
                                                    "\x03\x01n\x03\x03\x82\x0b\x00",
                                                    13));
}

Condition RandomCondition(Random& random) {
  Condition condition;
  for (uint64_t i = random.Below(5); i > 0; --i) {
    Clause clause{RandomAscii(random, 5) + "a", static_cast<Op>(1 + random.Below(10))};
    if (clause.op != Op::kExists && clause.op != Op::kNotExists) {
      clause.operand = RandomValue(random);
    }
    condition.clauses.push_back(std::move(clause));
  }
  return condition;
}

TEST(Condition, RoundTrips) {
  Random random(11);
  for (int i = 0; i < 3000; ++i) {
    Condition condition = RandomCondition(random);
    std::string bytes = EncodeCondition(condition);
    ASSERT_EQ(*DecodeCondition(bytes), condition);
    for (size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_THAT(DecodeCondition(std::string_view(bytes).substr(0, size)),
                  StatusIs(absl::StatusCode::kDataLoss));
    }
  }
}

TEST(Condition, DamagedBytesGiveAnErrorOrACondition) {
  Random random(12);
  for (int i = 0; i < 30000; ++i) {
    std::string bytes = i % 4 == 0 ? '\x01' + RandomBytes(random, 30)
                                   : Damage(random, EncodeCondition(RandomCondition(random)));
    absl::StatusOr<Condition> condition = DecodeCondition(bytes);
    if (!condition.ok()) continue;
    ASSERT_EQ(*DecodeCondition(EncodeCondition(*condition)), *condition);
    Holds(*condition, &Sample());
  }
}

TEST(Condition, BoundsHoldInTheDecoder) {
  std::string bytes("\x01", 1);
  PutVarint(bytes, kConditionClausesMax + 1);
  EXPECT_THAT(DecodeCondition(bytes),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("301 clauses")));
  EXPECT_THAT(DecodeCondition(std::string("\x07\x00", 2)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("format version 7")));
}

TEST(Condition, FaultsAreNamed) {
  auto status = [](Clause clause) { return ValidateCondition(Condition{{std::move(clause)}}); };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  DYNLIB_EXPECT_OK(status({"a", Op::kLess, Value::Number(1)}));
  DYNLIB_EXPECT_OK(status({"a", Op::kExists}));
  EXPECT_THAT(status({"a", Op::kLess, Value::Boolean(true)}),
              StatusIs(kInvalid,
                       AllOf(HasSubstr("clause 1"), HasSubstr("'a'"),
                             HasSubstr("takes a number, string or binary"), HasSubstr("boolean"))));
  EXPECT_THAT(status({"a", Op::kBeginsWith, Value::Number(1)}),
              StatusIs(kInvalid, HasSubstr("takes a string or binary")));
  EXPECT_THAT(status({"a", Op::kExists, Value::Number(1)}),
              StatusIs(kInvalid, HasSubstr("takes no operand")));
  EXPECT_THAT(status({"", Op::kExists}), StatusIs(kInvalid, HasSubstr("0 bytes")));
  EXPECT_THAT(status({"a", Op::kEqual, Value::StringSet({})}),
              StatusIs(kInvalid, HasSubstr("empty string set")));
  EXPECT_THAT(status({"a", static_cast<Op>(77)}), StatusIs(kInvalid, HasSubstr("op 77")));
  EXPECT_THAT(status({"a", Op::kEqual, Value::Binary(std::string(400 * 1024 + 1, 'x'))}),
              StatusIs(kInvalid, HasSubstr("409601 bytes")));
  Condition many;
  many.clauses.resize(301, {"a", Op::kExists});
  EXPECT_THAT(ValidateCondition(many), StatusIs(kInvalid, HasSubstr("301 clauses")));
}

}  // namespace
}  // namespace dynlib::cluster
