#include "dynlib/cache/tag_group.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::cache {
namespace {

std::vector<size_t> Places(TagMatches matches) {
  std::vector<size_t> places;
  for (; !matches.empty(); matches.DropFirst()) places.push_back(matches.First());
  return places;
}

std::vector<size_t> PlacesByByte(uint64_t tags, uint8_t tag) {
  std::vector<size_t> places;
  for (size_t place = 0; place < 8; ++place) {
    if (static_cast<uint8_t>(tags >> 8 * place) == tag) places.push_back(place);
  }
  return places;
}

TEST(TagMatches, NoneOneAndAll) {
  EXPECT_TRUE(TagMatches::Of(0x0102030405060708, 9).empty());
  EXPECT_EQ(Places(TagMatches::Of(0x0102030405060708, 8)), std::vector<size_t>{0});
  EXPECT_EQ(Places(TagMatches::Of(0x0102030405060708, 1)), std::vector<size_t>{7});
  EXPECT_EQ(Places(TagMatches::Of(0x7777777777777777, 0x77)).size(), 8u);
}

// A group of eight full slots has no empty one, whatever lies above it in a register.
TEST(TagMatches, EmptyPlaces) {
  EXPECT_TRUE(TagMatches::Of(0xFF80010203040506, 0).empty());
  EXPECT_EQ(Places(TagMatches::Of(0x01000203040500FF, 0)), (std::vector<size_t>{1, 6}));
  EXPECT_EQ(Places(TagMatches::Of(0, 0)).size(), 8u);
}

// Bytes that differ from the tag by one, or by the high bit, are where arithmetic on whole words
// goes wrong; few values make equal neighbours likely.
TEST(TagMatches, AsByteByByte) {
  constexpr uint8_t kBytes[] = {0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0xFE, 0xFF};
  Random random(1);
  for (int round = 0; round < 100'000; ++round) {
    uint64_t tags = 0;
    for (int place = 0; place < 8; ++place) tags = tags << 8 | kBytes[random.Below(8)];
    for (const uint8_t tag : kBytes)
      ASSERT_EQ(Places(TagMatches::Of(tags, tag)), PlacesByByte(tags, tag))
          << std::hex << tags << " " << int{tag};
  }
}

}  // namespace
}  // namespace dynlib::cache
