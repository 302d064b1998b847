#include "dynlib/base/coding.h"

#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

TEST(Coding, FixedGoldenBytes) {
  std::string out;
  PutFixed8(out, 0x01);
  PutFixed16(out, 0x0302);
  PutFixed32(out, 0x07060504);
  PutFixed64(out, 0x0f0e0d0c0b0a0908);
  EXPECT_EQ(out, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
  ByteReader in(out);
  EXPECT_EQ(in.Fixed8(), 0x01);
  EXPECT_EQ(in.Fixed16(), 0x0302);
  EXPECT_EQ(in.Fixed32(), 0x07060504u);
  EXPECT_EQ(in.Fixed64(), 0x0f0e0d0c0b0a0908u);
  EXPECT_TRUE(in.done());
}

TEST(Coding, VarintGoldenBytes) {
  const std::vector<std::pair<uint64_t, std::string>> cases = {
      {0, std::string(1, '\0')},
      {1, "\x01"},
      {127, "\x7f"},
      {128, std::string("\x80\x01", 2)},
      {300, "\xac\x02"},
      {UINT32_MAX, "\xff\xff\xff\xff\x0f"},
      {UINT64_MAX, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
  };
  for (const auto& [value, bytes] : cases) {
    std::string out;
    PutVarint(out, value);
    EXPECT_EQ(out, bytes) << value;
    EXPECT_EQ(VarintLength(value), bytes.size()) << value;
    ByteReader in(bytes);
    EXPECT_EQ(in.Varint(), value);
    EXPECT_TRUE(in.done());
  }
}

TEST(Coding, VarintsAtEveryBitCrossTheirLengths) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const uint64_t value : {uint64_t{1} << bit, (uint64_t{1} << bit) - 1}) {
      std::string out;
      PutVarint(out, value);
      EXPECT_EQ(out.size(), VarintLength(value));
      EXPECT_EQ(ByteReader(out).Varint(), value);
    }
  }
}

TEST(Coding, MalformedVarintsFail) {
  const std::vector<std::string> malformed = {
      "",
      "\x80",
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff",          // ends too early
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",      // 65 bits
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x01",  // eleven bytes
      "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
      std::string("\x80\0", 2),  // zero, and one, longer than they need be
      std::string("\x81\x80\0", 3),
  };
  for (const std::string& bytes : malformed) {
    ByteReader in(bytes);
    EXPECT_EQ(in.Varint(), 0u);
    EXPECT_FALSE(in.ok());
  }
}

TEST(Coding, LengthPrefixed) {
  std::string out;
  PutLengthPrefixed(out, "");
  PutLengthPrefixed(out, std::string(200, 'x'));
  EXPECT_EQ(out.size(), 1u + 2 + 200);
  ByteReader in(out);
  EXPECT_EQ(in.LengthPrefixed(), "");
  EXPECT_EQ(in.LengthPrefixed(), std::string(200, 'x'));
  EXPECT_TRUE(in.done());
}

TEST(Coding, ALengthPastTheEndFails) {
  std::string out;
  PutVarint(out, UINT64_MAX);
  out += "bytes";
  ByteReader in(out);
  EXPECT_EQ(in.LengthPrefixed(), "");
  EXPECT_FALSE(in.ok());
  ByteReader all("12345");
  EXPECT_EQ(all.Bytes(5), "12345");
  EXPECT_TRUE(all.done());
  EXPECT_EQ(all.Bytes(0), "");
  EXPECT_TRUE(all.ok());
  EXPECT_EQ(all.Bytes(1), "");
  EXPECT_FALSE(all.ok());
}

TEST(Coding, OnceFailedAlwaysFailed) {
  ByteReader in("abc");
  EXPECT_EQ(in.Fixed32(), 0u);
  EXPECT_FALSE(in.ok());
  // There would be enough bytes for these.
  EXPECT_EQ(in.Fixed8(), 0);
  EXPECT_EQ(in.Bytes(1), "");
  EXPECT_EQ(in.Varint(), 0u);
  EXPECT_EQ(in.rest(), "");
  EXPECT_FALSE(in.ok());
  EXPECT_FALSE(in.done());
}

TEST(Coding, DoneNeedsEverythingRead) {
  ByteReader in("ab");
  in.Fixed8();
  EXPECT_TRUE(in.ok());
  EXPECT_FALSE(in.done());
  EXPECT_EQ(in.rest(), "b");
}

TEST(Coding, FailIsForDecodersThatFindABadValue) {
  ByteReader in("ab");
  in.Fail();
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.rest(), "");
}

TEST(Coding, LoadAndStoreAnywhere) {
  char bytes[16] = {};
  StoreFixed<uint32_t>(bytes + 3, 0xdeadbeef);
  EXPECT_EQ(LoadFixed<uint32_t>(bytes + 3), 0xdeadbeefu);
  EXPECT_EQ(static_cast<unsigned char>(bytes[3]), 0xef);
}

// No prefix of a sequence of fields decodes, whatever they are.
TEST(Coding, RandomFieldsRoundTripAndTheirPrefixesFail) {
  Random random(3);
  for (int round = 0; round < 200; ++round) {
    const uint64_t number = random.Next() >> random.Below(64);
    const std::string text(random.Below(300), 'q');
    std::string out;
    PutVarint(out, number);
    PutLengthPrefixed(out, text);
    PutFixed64(out, number);
    for (size_t size = 0; size <= out.size(); ++size) {
      ByteReader in(std::string_view(out).substr(0, size));
      const uint64_t got = in.Varint();
      const std::string_view got_text = in.LengthPrefixed();
      const uint64_t again = in.Fixed64();
      ASSERT_EQ(in.done(), size == out.size());
      if (in.done()) {
        ASSERT_EQ(got, number);
        ASSERT_EQ(got_text, text);
        ASSERT_EQ(again, number);
      }
    }
  }
}

}  // namespace
}  // namespace dynlib
