#include "dynlib/base/digest_coding.h"

#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace dynlib {
namespace {

TEST(DigestCoding, LowHalfFirst) {
  const Digest128 digest = {.low = 0x0807060504030201, .high = 0x100F0E0D0C0B0A09};
  std::string bytes;
  PutDigest(bytes, digest);
  EXPECT_EQ(bytes, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C\x0D\x0E\x0F\x10");
  ByteReader in(bytes);
  EXPECT_EQ(ReadDigest(in), digest);
  EXPECT_TRUE(in.ok());
}

TEST(DigestCoding, CutShort) {
  const std::string bytes(15, 'x');
  ByteReader in(bytes);
  ReadDigest(in);
  EXPECT_FALSE(in.ok());
}

}  // namespace
}  // namespace dynlib
