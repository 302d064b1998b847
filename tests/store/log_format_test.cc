#include "dynlib/store/log_format.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/store/node_log_scan.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

constexpr SegmentLife kLife = {.identity = 0x1122334455667788, .segment = 3, .generation = 9};

SegmentHeader ExampleSegment() {
  return {.life = kLife, .segment_bytes = 65536, .block_bytes = 512, .first_sequence = 41};
}

BatchHeader ExampleBatch() {
  return {.life = kLife,
          .segment_first_sequence = 41,
          .sequence = 42,
          .previous_checksum = 0xabcdef,
          .synced_through = 41,
          .frames = {{.stream = 5, .slot = 6, .ballot = 7, .kind = FrameKind::kEntry},
                     {.stream = 5, .slot = 4, .kind = FrameKind::kRelease}}};
}

std::string HexOf(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0 && i % 8 == 0) out += ' ';
    out += kDigits[static_cast<uint8_t>(bytes[i]) >> 4];
    out += kDigits[static_cast<uint8_t>(bytes[i]) & 15];
  }
  return out;
}

// A segment with the example batch at offset 1024.
std::string ExampleSegmentBytes() {
  std::string bytes = EncodeSegmentHeader(ExampleSegment());
  bytes.resize(1024, '\0');
  BatchHeader header = ExampleBatch();
  bytes += EncodeBatch(header, {"hello", ""}, 1024, 512);
  bytes.resize(4096, '\0');
  return bytes;
}

TEST(LogFormatTest, GoldenSegmentHeader) {
  const std::string bytes = EncodeSegmentHeader(ExampleSegment());
  ASSERT_EQ(bytes.size(), 512u);
  EXPECT_EQ(HexOf(bytes.substr(0, kSegmentHeaderBytes)),
            "444c4f4753454731 0100000000020000 0000010000000000 8877665544332211 "
            "0300000000000000 0900000000000000 2900000000000000 0000000000000000 "
            "29511b7249a9d003");
  EXPECT_EQ(bytes.substr(kSegmentHeaderBytes), std::string(512 - kSegmentHeaderBytes, '\0'));
}

TEST(LogFormatTest, GoldenBatch) {
  const std::string bytes = ExampleSegmentBytes().substr(1024, 512);
  const uint64_t header = BatchHeaderLength(2);
  const uint64_t trailer = BatchTrailerLength(2);
  EXPECT_EQ(header, 176u);
  EXPECT_EQ(trailer, 192u);
  EXPECT_EQ(HexOf(bytes.substr(0, header)),
            "444c4f4742415431 b000000002000000 0002000000000000 8877665544332211 "
            "0300000000000000 0900000000000000 2900000000000000 2a00000000000000 "
            "efcdab0000000000 2900000000000000 0000000000000000 0500000000000000 "
            "0600000000000000 0700000000000000 ba36d7b9fcff9a90 0500000001000000 "
            "0500000000000000 0400000000000000 0000000000000000 bdcde7e101603500 "
            "0000000010000000 9e029438636bb3ff");
  EXPECT_EQ(bytes.substr(header, 5), "hello");
  EXPECT_EQ(bytes.substr(header + 5, 512 - trailer - header - 5),
            std::string(512 - trailer - header - 5, '\0'));
  EXPECT_EQ(bytes.substr(512 - trailer, header - 8), bytes.substr(0, header - 8));
  EXPECT_EQ(HexOf(bytes.substr(512 - 24)), "560a85657f5520c8 c000000000000000 444c4f4742545231");
}

// The worked example of docs/format/wal.md: lines of an offset and the bytes there, in hexadecimal
// digits, up to two spaces and what they mean.
TEST(LogFormatTest, TheDocumentShowsTheseBytes) {
  std::ifstream file("docs/format/wal.md");
  ASSERT_TRUE(file.is_open());
  const std::string batch = ExampleSegmentBytes().substr(1024, 512);
  std::string line;
  while (std::getline(file, line) && line != "## A worked example") {
  }
  size_t shown = 0;
  while (std::getline(file, line) && !line.starts_with("## ")) {
    size_t at = 0;
    std::string bytes;
    if (!(std::istringstream(line) >> at)) continue;
    bytes = line.substr(line.find("  ", line.find_first_not_of(' ')) + 2);
    bytes.resize(std::min(bytes.size(), bytes.find("  ")));
    std::string digits = bytes;
    std::erase(digits, ' ');
    if (digits.find_first_not_of("0123456789abcdef") != digits.npos) continue;  // In words.
    std::string expected = HexOf(batch.substr(at, digits.size() / 2));
    std::erase(expected, ' ');
    EXPECT_EQ(digits, expected) << "at " << at;
    shown += digits.size() / 2;
  }
  EXPECT_EQ(shown, 176 + 5 + 24u) << "header, payload, end of the trailer";
}

TEST(LogFormatTest, SegmentHeaderComesBack) {
  EXPECT_EQ(DecodeSegmentHeader(EncodeSegmentHeader(ExampleSegment()), 3), ExampleSegment());
}

TEST(LogFormatTest, SegmentHeaderOfAnotherFileDoesNotVerify) {
  EXPECT_EQ(DecodeSegmentHeader(EncodeSegmentHeader(ExampleSegment()), 4), std::nullopt);
}

TEST(LogFormatTest, SegmentHeaderOfAnotherVersionSaysWhich) {
  SegmentHeader header = ExampleSegment();
  header.format_version = 2;
  const std::optional<SegmentHeader> decoded = DecodeSegmentHeader(EncodeSegmentHeader(header), 3);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->format_version, 2u);
}

TEST(LogFormatTest, BatchComesBackFromHeaderAndFromTrailer) {
  const std::string bytes = ExampleSegmentBytes();
  const std::optional<BatchHeader> header = DecodeBatchHeader(bytes, 1024, kLife.identity, 3);
  ASSERT_TRUE(header.has_value());
  EXPECT_EQ(header->sequence, 42u);
  EXPECT_EQ(header->total_length, 512u);
  EXPECT_EQ(header->frames[0].payload_checksum, PayloadChecksum(kLife, 1024 + 176, "hello"));
  uint64_t offset = 0;
  EXPECT_EQ(DecodeBatchTrailer(bytes, 1536, kLife.identity, 3, &offset), header);
  EXPECT_EQ(offset, 1024u);
}

TEST(LogFormatTest, BatchInTheWrongPlaceDoesNotVerify) {
  std::string bytes = ExampleSegmentBytes();
  bytes.replace(2048, 512, bytes.substr(1024, 512));
  EXPECT_EQ(DecodeBatchHeader(bytes, 2048, kLife.identity, 3), std::nullopt);
  uint64_t offset = 0;
  EXPECT_EQ(DecodeBatchTrailer(bytes, 2560, kLife.identity, 3, &offset), std::nullopt);
  EXPECT_EQ(DecodeBatchHeader(bytes, 1024, kLife.identity, 4), std::nullopt);
  EXPECT_EQ(DecodeBatchHeader(bytes, 1024, kLife.identity + 1, 3), std::nullopt);
}

// Damage at every byte: the listing comes back as it was from one of the two, or not at all.
TEST(LogFormatTest, EveryByteFlippedInABatch) {
  const std::string good = ExampleSegmentBytes();
  const ScannedSegment expected = ScanSegment(good, kLife.identity, 3);
  ASSERT_EQ(expected.batches.size(), 1u);
  ASSERT_TRUE(expected.batches[0].whole());
  for (size_t at = 1024; at < 1536; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    const ScannedSegment scanned = ScanSegment(bad, kLife.identity, 3);
    ASSERT_EQ(scanned.batches.size(), 1u) << at;
    const ScannedBatch& batch = scanned.batches[0];
    EXPECT_EQ(batch.header, expected.batches[0].header) << at;
    const bool in_header = at < 1024 + 176;
    const bool in_payload = at >= 1024 + 176 && at < 1024 + 181;
    const bool in_trailer = at >= 1536 - 192;
    EXPECT_EQ(batch.header_ok, !in_header) << at;
    EXPECT_EQ(batch.trailer_ok, !in_trailer) << at;
    EXPECT_EQ(!batch.damaged.empty(), in_payload) << at;
  }
}

// A segment's earlier life is not seen, even where the new one has not written yet.
TEST(LogFormatTest, EarlierLifeIsLeftOut) {
  std::string bytes = ExampleSegmentBytes();
  SegmentHeader next = ExampleSegment();
  next.life.generation = 10;
  bytes.replace(0, 512, EncodeSegmentHeader(next));
  const ScannedSegment scanned = ScanSegment(bytes, kLife.identity, 3);
  EXPECT_EQ(scanned.generation, 10u);
  EXPECT_TRUE(scanned.batches.empty());
}

// Of a new life only the end of its first batch arrived: the listing is still found.
TEST(LogFormatTest, TrailerAloneTellsOfANewLife) {
  std::string bytes = ExampleSegmentBytes();
  BatchHeader header = ExampleBatch();
  header.life.generation = 10;
  const std::string batch = EncodeBatch(header, {std::string(600, 'x'), ""}, 512, 512);
  ASSERT_EQ(batch.size(), 1024u);
  bytes.replace(1024, 512, batch.substr(512));
  const ScannedSegment scanned = ScanSegment(bytes, kLife.identity, 3);
  EXPECT_EQ(scanned.generation, 10u);
  ASSERT_EQ(scanned.batches.size(), 1u);
  EXPECT_EQ(scanned.batches[0].offset, 512u);
  EXPECT_FALSE(scanned.batches[0].header_ok);
  EXPECT_TRUE(scanned.batches[0].damaged[0]);
}

}  // namespace
}  // namespace dynlib::store
