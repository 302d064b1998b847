#include "dynlib/base/checksum.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace dynlib {
namespace {

// Formats rest on these. The empty ones are XXH3's published test vectors.
TEST(Checksum, GoldenValues) {
  EXPECT_EQ(Checksum(""), 0x2d06800538d394c2u);
  EXPECT_EQ(Digest(""), (Digest128{.low = 0x6001c324468d497f, .high = 0x99aa06d3014798d8}));
  EXPECT_EQ(Checksum("dynlib"), 0x459aceec9497e08du);
  EXPECT_EQ(Checksum("dynlib", 1), 0xea04166dea6865aau);
  EXPECT_EQ(Checksum(std::string(1000, 'x')), 0xc0a4877b962cba82u);
}

TEST(Checksum, EveryFlippedBitShows) {
  const std::string bytes(100, 'a');
  const uint64_t good = Checksum(bytes);
  std::set<uint64_t> seen = {good};
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    EXPECT_TRUE(seen.insert(Checksum(damaged)).second) << bit;
  }
}

TEST(Checksum, SeedsAndLengthsBind) {
  EXPECT_NE(Checksum("bytes", 1), Checksum("bytes", 2));
  EXPECT_NE(Checksum(std::string(1, '\0')), Checksum(std::string(2, '\0')));
  EXPECT_NE(Digest("bytes", 1), Digest("bytes", 2));
  EXPECT_EQ(Digest("bytes"), Digest("bytes"));
}

}  // namespace
}  // namespace dynlib
