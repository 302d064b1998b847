#include "examples/mini_cluster/json_object.h"

#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/decimal.h"
#include "dynlib/cluster/item.h"
#include "gtest/gtest.h"

namespace dynlib::mini_cluster {
namespace {

using cluster::Decimal;
using cluster::Value;

// The value of "v" in {"v": ...}.
Value Parse(const std::string& value) {
  JsonResult result = ParseJsonObject("{\"v\":" + value + "}");
  EXPECT_EQ(result.error, "") << value;
  return result.fields.empty() ? Value() : result.fields[0].second;
}

// "at: error" of {"v":<value>}, with the place counted from the value.
std::string ErrorOf(const std::string& value) {
  JsonResult result = ParseJsonObject("{\"v\":" + value + "}");
  EXPECT_NE(result.error, "") << value;
  EXPECT_TRUE(result.fields.empty());
  return Cat(static_cast<int>(result.error_at) - 5, ": ", result.error);
}

TEST(Json, Values) {
  EXPECT_EQ(Parse("null"), Value::Null());
  EXPECT_EQ(Parse("true"), Value::Boolean(true));
  EXPECT_EQ(Parse(" false "), Value::Boolean(false));
  EXPECT_EQ(Parse("\"text\""), Value::String("text"));
  EXPECT_EQ(Parse("\"\""), Value::String(""));
  EXPECT_EQ(Parse("[]"), Value::OfList({}));
  EXPECT_EQ(Parse("{}"), Value::OfMap({}));
  EXPECT_EQ(Parse("[1, [true], {\"a\": null}]"),
            Value::OfList({Value::Number(1), Value::OfList({Value::Boolean(true)}),
                           Value::OfMap({{"a", Value::Null()}})}));
}

TEST(Json, NumbersAreExact) {
  for (const char* text : {"0", "-0", "7", "-12.50", "1e5", "1E+5", "1e-130", "0.1",
                           "12345678901234567890123456789012345678"}) {
    EXPECT_EQ(Parse(text), Value::Number(*Decimal::Parse(text))) << text;
  }
}

TEST(Json, Escapes) {
  EXPECT_EQ(Parse(R"("\"\\\/\b\f\n\r\t")"), Value::String("\"\\/\b\f\n\r\t"));
  EXPECT_EQ(Parse(R"("\u0041\u00e9\u20AC")"), Value::String("A\xc3\xa9\xe2\x82\xac"));
  EXPECT_EQ(Parse(R"("\ud83d\ude00")"), Value::String("\xf0\x9f\x98\x80"));
  EXPECT_EQ(Parse(R"("\u0000")"), Value::String(std::string(1, '\0')));
  EXPECT_EQ(Parse("\"\xf0\x9f\x98\x80\""), Value::String("\xf0\x9f\x98\x80"));
}

TEST(Json, MembersKeepTheirOrder) {
  JsonResult result = ParseJsonObject(" { \"b\" : 1 , \"a\" : 2 } ");
  ASSERT_EQ(result.error, "");
  ASSERT_EQ(result.fields.size(), 2u);
  EXPECT_EQ(result.fields[0].first, "b");
  EXPECT_EQ(result.fields[1].first, "a");
  EXPECT_EQ(ParseJsonObject("{}").error, "");
}

TEST(Json, FaultsNameTheirPlace) {
  EXPECT_EQ(ErrorOf("tru"), "0: not a JSON value");
  EXPECT_EQ(ErrorOf("'x'"), "0: not a JSON value");
  EXPECT_EQ(ErrorOf("+1"), "0: not a JSON value");
  EXPECT_EQ(ErrorOf(".5"), "0: not a JSON value");
  EXPECT_EQ(ErrorOf("01"), "1: a number does not begin with a zero");
  EXPECT_EQ(ErrorOf("1."), "2: a digit is wanted here");
  EXPECT_EQ(ErrorOf("1e"), "2: a digit is wanted here");
  EXPECT_EQ(ErrorOf("-"), "1: a digit is wanted here");
  EXPECT_EQ(ErrorOf("1e999"), "0: number '1e999': its magnitude is outside 1E-130 to 9.99E+125");
  EXPECT_EQ(ErrorOf("[1 2]"), "3: a comma or a closing bracket is wanted here");
  EXPECT_EQ(ErrorOf("[1,]"), "3: not a JSON value");
  EXPECT_EQ(ErrorOf("{\"a\" 1}"), "5: a colon is wanted here");
  EXPECT_EQ(ErrorOf("{a:1}"), "1: a name in quotes is wanted here");
  EXPECT_EQ(ErrorOf("{\"a\":1,\"a\":2}"), "7: the name 'a' is there twice");
  EXPECT_EQ(ErrorOf("\"abc"), "0: the string that begins here is not closed");
  EXPECT_EQ(ErrorOf("\"a\tb\""), "2: a control character in a string");
  EXPECT_EQ(ErrorOf("\"a\\x\""), "2: an escape that JSON does not know");
  EXPECT_EQ(ErrorOf(R"("\u12g4")"), "5: a hexadecimal digit is wanted here");
  EXPECT_EQ(ErrorOf(R"("\ud83d")"), "1: half of a surrogate pair");
  EXPECT_EQ(ErrorOf(R"("\ude00")"), "1: half of a surrogate pair");
  EXPECT_EQ(ErrorOf(R"("\ud83dA")"), "1: half of a surrogate pair");
  EXPECT_EQ(ErrorOf("\"\xff\""), "1: not UTF-8");
  EXPECT_EQ(ErrorOf(""), "0: not a JSON value");
  EXPECT_EQ(ErrorOf("1} x"), "3: more follows the object");
  EXPECT_EQ(ParseJsonObject("").error, "a record is a JSON object, in braces");
  EXPECT_EQ(ParseJsonObject("[1]").error, "a record is a JSON object, in braces");
  EXPECT_EQ(ParseJsonObject("{\"a\":").error, "a value is wanted here");
  EXPECT_EQ(ParseJsonObject("{\"a\":1").error, "a comma or a closing brace is wanted here");
}

TEST(Json, NestingIsBounded) {
  auto nested = [](int levels) {
    return std::string(static_cast<size_t>(levels), '[') +
           std::string(static_cast<size_t>(levels), ']');
  };
  Parse(nested(32));
  EXPECT_EQ(ErrorOf(nested(33)), "32: nested more than 32 levels deep");
  EXPECT_EQ(ErrorOf(std::string(1'000'000, '[')), "32: nested more than 32 levels deep");
}

const char kGood[] =
    R"({"id": "x\u00e9\ud83d\ude00", "n": [-12.5e3, 0, true, null], "m": {"a": {"b": []}}})";

TEST(Json, EveryTruncationIsRefused) {
  std::string good = kGood;
  ASSERT_EQ(ParseJsonObject(good).error, "");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(ParseJsonObject(good.substr(0, size)).error, "") << size;
  }
}

TEST(Json, DamagedTextGivesAnErrorWithinIt) {
  Random random(3);
  const std::string alphabet("{}[]\",:\\u0e-.\n\xff\x00t", 17);
  int errors = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string text = kGood;
    for (uint64_t n = 1 + random.Below(3); n > 0; --n) {
      size_t at = random.Below(text.size());
      char c = alphabet[random.Below(alphabet.size())];
      if (random.Chance(0.5)) {
        text[at] = c;
      } else {
        text.insert(at, 1, c);
      }
    }
    JsonResult result = ParseJsonObject(text);
    if (result.error.empty()) continue;
    ++errors;
    ASSERT_TRUE(result.fields.empty());
    ASSERT_LE(result.error_at, text.size());
  }
  EXPECT_GT(errors, 10000);
}

}  // namespace
}  // namespace dynlib::mini_cluster
