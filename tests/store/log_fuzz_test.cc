// The readers of the log's bytes, fed with good segments that were changed at random: a fixed run
// of what log_fuzzer does for as long as one likes.
#include "tests/store/log_fuzz.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "dynlib/store/log_format.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

constexpr uint32_t kBlock = 512;

FrameInfo AnyFrame(Random& random) {
  constexpr FrameKind kKinds[] = {
      FrameKind::kEntry,        FrameKind::kEntry, FrameKind::kState, FrameKind::kRelease,
      FrameKind::kDrop,         FrameKind::kLost,  FrameKind::kGap,   FrameKind::kUnknownEntry,
      FrameKind::kUnknownState, FrameKind::kLive,  FrameKind::kFree,  FrameKind::kClose};
  return {.stream = 1 + random.Below(3),
          .slot = random.Below(20),
          .ballot = random.Below(4),
          .kind = kKinds[random.Below(12)]};
}

// A segment as a log writes it; `offsets` receives where its batches are.
std::string GoodSegment(Random& random, std::vector<uint64_t>& offsets) {
  std::string bytes = EncodeSegmentHeader(
      {.life = kFuzzLife, .segment_bytes = 1 << 16, .block_bytes = kBlock, .first_sequence = 41});
  const std::string payload(700, 'p');
  for (uint64_t sequence = 41; sequence < 46; ++sequence) {
    BatchHeader header = {.life = kFuzzLife, .segment_first_sequence = 41, .sequence = sequence};
    std::vector<std::string_view> payloads;
    for (uint64_t i = random.Below(6); i > 0; --i) {
      header.frames.push_back(AnyFrame(random));
      const bool has_payload = header.frames.back().kind <= FrameKind::kState;
      payloads.push_back(std::string_view(payload).substr(0, has_payload ? random.Below(700) : 0));
    }
    offsets.push_back(bytes.size());
    bytes += EncodeBatch(header, payloads, bytes.size(), kBlock);
  }
  return bytes + std::string(4 * kBlock, '\0');
}

void Mutate(Random& random, std::string& bytes) {
  const uint64_t at = random.Below(bytes.size());
  switch (random.Below(6)) {
    case 0:
      bytes[at] = static_cast<char>(random.Below(256));
      break;
    case 1:  // A number of eight bytes, small or enormous.
      if (at + 8 <= bytes.size()) {
        const uint64_t numbers[] = {0, 1, 511, UINT32_MAX, UINT64_MAX, random.Next()};
        StoreFixed(bytes.data() + at / 8 * 8, numbers[random.Below(6)]);
      }
      break;
    case 2:
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
      break;
    case 3:  // Sectors in the wrong place.
      bytes.replace(at / kBlock * kBlock, kBlock,
                    bytes.substr(random.Below(bytes.size()) / kBlock * kBlock, kBlock));
      break;
    case 4:
      bytes.resize(at);
      break;
    default:
      bytes.replace(at / kBlock * kBlock, kBlock, std::string(kBlock, '\0'));
  }
}

TEST(LogFuzzTest, ChangedSegmentsAreReadWithoutHarm) {
  int whole = 0;
  for (uint64_t seed = 1; seed <= 4000; ++seed) {
    Random random(seed);
    std::vector<uint64_t> offsets;
    std::string bytes = GoodSegment(random, offsets);
    ASSERT_EQ(CheckAnySegment(bytes), 5) << seed;
    for (uint64_t i = random.Between(1, 4); i > 0 && !bytes.empty(); --i) Mutate(random, bytes);
    whole += CheckAnySegment(bytes);
    for (uint64_t offset : offsets) ResealBatchHeader(bytes, offset);
    CheckAnySegment(bytes);
  }
  EXPECT_GT(whole, 4000) << "one change leaves most batches whole";
}

// Behind a checksum that is right, every byte of a header is wrong in turn.
TEST(LogFuzzTest, HeadersThatLieBehindARightChecksumAreReadWithoutHarm) {
  Random random(5);
  std::vector<uint64_t> offsets;
  const std::string good = GoodSegment(random, offsets);
  for (uint64_t at = offsets[2]; at < offsets[3]; ++at) {
    for (int value : {0, 1, 0x7f, 0xff}) {
      std::string bytes = good;
      bytes[at] = static_cast<char>(value);
      ResealBatchHeader(bytes, offsets[2]);
      const int whole = CheckAnySegment(bytes);
      const uint64_t field = (at - offsets[2]) / 8 * 8;
      constexpr uint64_t kGeneration = 40;  // Of a later life there is nothing else.
      if (field != kGeneration) {
        EXPECT_GE(whole, 3) << at;
      }
    }
  }
}

}  // namespace
}  // namespace dynlib::store
