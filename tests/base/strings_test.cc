#include "dynlib/base/strings.h"

#include <string>

#include "dynlib/base/ids.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

TEST(Strings, CatJoinsTextNumbersAndIds) {
  EXPECT_EQ(Cat(), "");
  EXPECT_EQ(Cat("a", std::string("b"), std::string_view("c"), 1, -2, uint64_t{3}, NodeId{4}),
            "abc1-234");
  EXPECT_EQ(Cat(UINT64_MAX, " ", INT64_MIN), "18446744073709551615 -9223372036854775808");
}

TEST(Strings, HexHasSixteenDigits) {
  EXPECT_EQ(Hex(0), "0x0000000000000000");
  EXPECT_EQ(Hex(0x1f), "0x000000000000001f");
  EXPECT_EQ(Hex(UINT64_MAX), "0xffffffffffffffff");
}

TEST(Strings, EscapeShowsAnyBytes) {
  EXPECT_EQ(Escape("plain text"), "plain text");
  EXPECT_EQ(Escape(std::string("\0\n\xff", 3)), "\\x00\\x0a\\xff");
  EXPECT_EQ(Escape("back\\slash"), "back\\x5cslash");
  EXPECT_EQ(Escape("12345", 3), "123...");
  EXPECT_EQ(Escape("123", 3), "123");
}

TEST(Strings, TheTwoStringViewsConvert) {
  const std::string text("a\0b", 3);
  EXPECT_EQ(ToStd(ToAbsl(text)), text);
}

}  // namespace
}  // namespace dynlib
