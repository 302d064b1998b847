#include "dynlib/cluster/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

TEST(Utf8, Text) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("plain ASCII, longer than eight bytes"));
  EXPECT_TRUE(IsUtf8("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"));
  EXPECT_TRUE(IsUtf8("\xf4\x8f\xbf\xbf"));          // U+10FFFF
  EXPECT_TRUE(IsUtf8("\xed\x9f\xbf\xee\x80\x80"));  // Around the surrogates.
  EXPECT_TRUE(IsUtf8(std::string("nul \0 is fine", 13)));
}

TEST(Utf8, WhatIsNotTextNamesTheByte) {
  EXPECT_EQ(ValidUtf8Prefix("abcdefgh\xff"), 8u);
  EXPECT_EQ(ValidUtf8Prefix("a\x80"), 1u);
  EXPECT_EQ(ValidUtf8Prefix("a\xc3"), 1u);
  EXPECT_EQ(ValidUtf8Prefix("\xc3\xbc\xe2\x82"), 2u);
  EXPECT_EQ(ValidUtf8Prefix("\xc0\x80"), 0u);          // Overlong.
  EXPECT_EQ(ValidUtf8Prefix("\xe0\x9f\xbf"), 0u);      // Overlong.
  EXPECT_EQ(ValidUtf8Prefix("\xf0\x8f\xbf\xbf"), 0u);  // Overlong.
  EXPECT_EQ(ValidUtf8Prefix("\xed\xa0\x80"), 0u);      // Surrogate.
  EXPECT_EQ(ValidUtf8Prefix("\xf4\x90\x80\x80"), 0u);  // Above U+10FFFF.
  EXPECT_EQ(ValidUtf8Prefix("\xf5\x80\x80\x80"), 0u);
}

}  // namespace
}  // namespace dynlib::cluster
