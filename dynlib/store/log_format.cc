#include "dynlib/store/log_format.h"

#include <algorithm>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kSegmentMagic = 0x31474553474f4c44;  // "DLOGSEG1"
constexpr uint64_t kBatchMagic = 0x31544142474f4c44;    // "DLOGBAT1"
constexpr uint64_t kTrailerMagic = 0x31525442474f4c44;  // "DLOGBTR1"
// A listing longer than this is nonsense: no segment holds it.
constexpr uint64_t kMaxFrames = (uint64_t{1} << 30) / kFrameInfoBytes;

enum class Part : uint64_t { kSegmentHeader = 1, kHeader = 2, kTrailer = 3, kPayload = 4 };

// The seed of a checksum: what it covers, in which life of which segment, at which offset.
uint64_t Seed(Part part, const SegmentLife& life, uint64_t offset) {
  const uint64_t words[5] = {static_cast<uint64_t>(part), life.identity, life.segment,
                             life.generation, offset};
  return Checksum(std::string_view(reinterpret_cast<const char*>(words), sizeof(words)));
}

// Writes fixed numbers one after the other.
class Output {
 public:
  explicit Output(char* to) : to_(to) {}
  template <typename T>
  Output& Put(T value) {
    StoreFixed(to_, value);
    to_ += sizeof(T);
    return *this;
  }
  Output& Put(std::string_view bytes) {
    to_ = std::copy(bytes.begin(), bytes.end(), to_);
    return *this;
  }
  void Zeros(uint64_t count) { to_ = std::fill_n(to_, count, '\0'); }

 private:
  char* to_;
};

FrameInfo ReadFrame(ByteReader& in) {
  FrameInfo frame;
  frame.stream = in.Fixed64();
  frame.slot = in.Fixed64();
  frame.ballot = in.Fixed64();
  frame.payload_checksum = in.Fixed64();
  frame.payload_length = in.Fixed32();
  const uint8_t kind = in.Fixed8();
  if (!IsFrameKind(kind)) in.Fail();
  frame.kind = static_cast<FrameKind>(kind);
  if (in.Fixed8() != 0 || in.Fixed16() != 0) in.Fail();
  return frame;
}

// What header and trailer have in common: all but the checksum.
void EncodeContent(const BatchHeader& header, char* to) {
  Output out(to);
  out.Put(kBatchMagic)
      .Put(static_cast<uint32_t>(BatchHeaderLength(header.frames.size())))
      .Put(static_cast<uint32_t>(header.frames.size()))
      .Put(header.total_length)
      .Put(header.life.identity)
      .Put(header.life.segment)
      .Put(header.life.generation)
      .Put(header.segment_first_sequence)
      .Put(header.sequence)
      .Put(header.previous_checksum)
      .Put(header.synced_through)
      .Put(header.copied_from);
  for (const FrameInfo& frame : header.frames) {
    out.Put(frame.stream)
        .Put(frame.slot)
        .Put(frame.ballot)
        .Put(frame.payload_checksum)
        .Put(frame.payload_length)
        .Put(uint32_t{static_cast<uint8_t>(frame.kind)});  // And three zeros.
  }
}

// True if the batch is of whole sectors, into which its payloads, header and trailer fit.
bool LengthsAgree(const BatchHeader& header) {
  if (header.total_length % kLogSectorBytes != 0) return false;
  uint64_t payload_bytes = 0;
  for (const FrameInfo& frame : header.frames) payload_bytes += frame.payload_length;
  return BatchHeaderLength(header.frames.size()) + payload_bytes +
             BatchTrailerLength(header.frames.size()) <=
         header.total_length;
}

std::optional<BatchHeader> DecodeContent(std::string_view bytes) {
  ByteReader in(bytes);
  BatchHeader header;
  if (in.Fixed64() != kBatchMagic) return std::nullopt;
  const uint32_t header_length = in.Fixed32();
  const uint32_t frame_count = in.Fixed32();
  if (frame_count > kMaxFrames || header_length != BatchHeaderLength(frame_count)) {
    return std::nullopt;
  }
  header.total_length = in.Fixed64();
  header.life.identity = in.Fixed64();
  header.life.segment = in.Fixed64();
  header.life.generation = in.Fixed64();
  header.segment_first_sequence = in.Fixed64();
  header.sequence = in.Fixed64();
  header.previous_checksum = in.Fixed64();
  header.synced_through = in.Fixed64();
  header.copied_from = in.Fixed64();
  header.frames.reserve(frame_count);
  for (uint32_t i = 0; i < frame_count && in.ok(); ++i) header.frames.push_back(ReadFrame(in));
  if (!in.done() || !LengthsAgree(header)) return std::nullopt;
  return header;
}

// The length of the header at the start of `bytes`, if what stands there can be one.
std::optional<uint64_t> PeekHeaderLength(std::string_view bytes) {
  if (bytes.size() < kBatchHeaderFixedBytes + 8) return std::nullopt;
  if (LoadFixed<uint64_t>(bytes.data()) != kBatchMagic) return std::nullopt;
  const uint64_t length = LoadFixed<uint32_t>(bytes.data() + 8);
  if (length < kBatchHeaderFixedBytes + 8 || length > bytes.size()) return std::nullopt;
  return length;
}

SegmentLife PeekLife(std::string_view content) {
  SegmentLife life;
  life.identity = LoadFixed<uint64_t>(content.data() + 24);
  life.segment = LoadFixed<uint64_t>(content.data() + 32);
  life.generation = LoadFixed<uint64_t>(content.data() + 40);
  return life;
}

// `content_and_checksum` as it stands in a header or trailer.
std::optional<BatchHeader> Verify(std::string_view content_and_checksum, Part part,
                                  uint64_t batch_offset, uint64_t identity, uint64_t segment) {
  const std::string_view content = content_and_checksum.substr(0, content_and_checksum.size() - 8);
  const uint64_t checksum = LoadFixed<uint64_t>(content.data() + content.size());
  const SegmentLife life = PeekLife(content);
  if (life.identity != identity || life.segment != segment) return std::nullopt;
  if (Checksum(content, Seed(part, life, batch_offset)) != checksum) return std::nullopt;
  std::optional<BatchHeader> header = DecodeContent(content);
  if (header.has_value()) {
    header->checksum = Checksum(content, Seed(Part::kHeader, life, batch_offset));
  }
  return header;
}

}  // namespace

bool IsFrameKind(uint8_t kind) {
  return kind == 1 || kind == 2 || (kind >= 16 && kind <= 20) || (kind >= 32 && kind <= 36);
}

uint64_t BatchLength(uint64_t frames, uint64_t payload_bytes, uint32_t block_bytes) {
  const uint64_t bytes = BatchHeaderLength(frames) + payload_bytes + BatchTrailerLength(frames);
  return (bytes + block_bytes - 1) / block_bytes * block_bytes;
}

uint64_t PayloadChecksum(const SegmentLife& life, uint64_t offset, std::string_view payload) {
  return Checksum(payload, Seed(Part::kPayload, life, offset));
}

std::string EncodeSegmentHeader(const SegmentHeader& header) {
  std::string out;
  PutFixed64(out, kSegmentMagic);
  PutFixed32(out, header.format_version);
  PutFixed32(out, header.block_bytes);
  PutFixed64(out, header.segment_bytes);
  PutFixed64(out, header.life.identity);
  PutFixed64(out, header.life.segment);
  PutFixed64(out, header.life.generation);
  PutFixed64(out, header.first_sequence);
  PutFixed64(out, 0);
  PutFixed64(out, Checksum(out, Seed(Part::kSegmentHeader, {0, header.life.segment, 0}, 0)));
  DYNLIB_CHECK(out.size() == kSegmentHeaderBytes && out.size() <= header.block_bytes);
  out.resize(header.block_bytes, '\0');
  return out;
}

std::optional<SegmentHeader> DecodeSegmentHeader(std::string_view bytes, uint64_t segment) {
  if (bytes.size() < kSegmentHeaderBytes) return std::nullopt;
  const std::string_view content = bytes.substr(0, kSegmentHeaderBytes - 8);
  ByteReader in(content);
  SegmentHeader header;
  if (in.Fixed64() != kSegmentMagic) return std::nullopt;
  const uint64_t checksum = LoadFixed<uint64_t>(bytes.data() + content.size());
  if (Checksum(content, Seed(Part::kSegmentHeader, {0, segment, 0}, 0)) != checksum) {
    return std::nullopt;
  }
  header.format_version = in.Fixed32();
  if (header.format_version == 0) return std::nullopt;
  if (header.format_version > kLogFormatVersion) {
    SegmentHeader other;
    other.format_version = header.format_version;
    return other;
  }
  header.block_bytes = in.Fixed32();
  header.segment_bytes = in.Fixed64();
  header.life.identity = in.Fixed64();
  header.life.segment = in.Fixed64();
  header.life.generation = in.Fixed64();
  header.first_sequence = in.Fixed64();
  const bool block_ok = header.block_bytes >= kLogSectorBytes && header.block_bytes <= 4096 &&
                        (header.block_bytes & (header.block_bytes - 1)) == 0;
  if (!in.ok() || !block_ok || header.life.segment != segment) return std::nullopt;
  return header;
}

void EncodeBatch(BatchHeader& header, const std::vector<std::string_view>& payloads,
                 uint64_t offset, uint32_t block_bytes, char* out,
                 std::span<const std::string_view> rests) {
  DYNLIB_CHECK(payloads.size() == header.frames.size());
  DYNLIB_CHECK(rests.empty() || rests.size() == payloads.size());
  const uint64_t header_length = BatchHeaderLength(payloads.size());
  uint64_t end = header_length;
  for (size_t i = 0; i < payloads.size(); ++i) {
    FrameInfo& frame = header.frames[i];
    const std::string_view rest = rests.empty() ? std::string_view() : rests[i];
    Output(out + end).Put(payloads[i]).Put(rest);
    const std::string_view whole(out + end, payloads[i].size() + rest.size());
    frame.payload_length = static_cast<uint32_t>(whole.size());
    frame.payload_checksum = PayloadChecksum(header.life, offset + end, whole);
    end += whole.size();
  }
  header.total_length = BatchLength(payloads.size(), end - header_length, block_bytes);
  const uint64_t trailer_length = BatchTrailerLength(payloads.size());
  char* const trailer = out + header.total_length - trailer_length;
  Output(out + end).Zeros(header.total_length - trailer_length - end);

  EncodeContent(header, out);
  const std::string_view content(out, header_length - 8);
  header.checksum = Checksum(content, Seed(Part::kHeader, header.life, offset));
  Output(out + content.size()).Put(header.checksum);
  Output(trailer)
      .Put(content)
      .Put(Checksum(content, Seed(Part::kTrailer, header.life, offset)))
      .Put(static_cast<uint32_t>(trailer_length))
      .Put(uint32_t{0})
      .Put(kTrailerMagic);
}

std::string EncodeBatch(BatchHeader& header, const std::vector<std::string_view>& payloads,
                        uint64_t offset, uint32_t block_bytes) {
  uint64_t payload_bytes = 0;
  for (std::string_view payload : payloads) payload_bytes += payload.size();
  std::string out(BatchLength(payloads.size(), payload_bytes, block_bytes), '\0');
  EncodeBatch(header, payloads, offset, block_bytes, out.data());
  return out;
}

std::optional<BatchHeader> DecodeBatchHeader(std::string_view bytes, uint64_t offset,
                                             uint64_t identity, uint64_t segment) {
  if (offset >= bytes.size()) return std::nullopt;
  const std::optional<uint64_t> length = PeekHeaderLength(bytes.substr(offset));
  if (!length.has_value()) return std::nullopt;
  std::optional<BatchHeader> header =
      Verify(bytes.substr(offset, *length), Part::kHeader, offset, identity, segment);
  if (!header.has_value() || header->total_length > bytes.size() - offset) return std::nullopt;
  return header;
}

std::optional<BatchHeader> DecodeBatchTrailer(std::string_view bytes, uint64_t end,
                                              uint64_t identity, uint64_t segment,
                                              uint64_t* offset) {
  if (end > bytes.size() || end < kBatchFooterBytes) return std::nullopt;
  const char* footer = bytes.data() + end - kBatchFooterBytes;
  if (LoadFixed<uint64_t>(footer + 8) != kTrailerMagic || LoadFixed<uint32_t>(footer + 4) != 0) {
    return std::nullopt;
  }
  const uint64_t length = LoadFixed<uint32_t>(footer);
  if (length > end || length < BatchTrailerLength(0)) return std::nullopt;
  const std::string_view trailer = bytes.substr(end - length, length - kBatchFooterBytes);
  const std::optional<uint64_t> header_length = PeekHeaderLength(trailer);
  if (!header_length.has_value() || *header_length != trailer.size()) return std::nullopt;
  const uint64_t total_length = LoadFixed<uint64_t>(trailer.data() + 16);
  if (total_length > end) return std::nullopt;
  std::optional<BatchHeader> header =
      Verify(trailer, Part::kTrailer, end - total_length, identity, segment);
  if (header.has_value()) *offset = end - total_length;
  return header;
}

namespace {

constexpr std::string_view kNoSuchThing = "does not begin as one";

std::string Mismatch(std::string_view content_and_checksum, uint64_t seed) {
  const std::string_view content = content_and_checksum.substr(0, content_and_checksum.size() - 8);
  const uint64_t expected = LoadFixed<uint64_t>(content.data() + content.size());
  const uint64_t checksum = Checksum(content, seed);
  if (checksum == expected) return Cat("has the right checksum ", Hex(expected), ", and is none");
  return Cat("has checksum ", Hex(checksum), ", expected ", Hex(expected));
}

}  // namespace

std::string WhyNoSegmentHeader(std::string_view bytes, uint64_t segment) {
  const bool begins =
      bytes.size() >= kSegmentHeaderBytes && LoadFixed<uint64_t>(bytes.data()) == kSegmentMagic;
  if (!begins) return std::string(kNoSuchThing);
  return Mismatch(bytes.substr(0, kSegmentHeaderBytes),
                  Seed(Part::kSegmentHeader, {0, segment, 0}, 0));
}

std::string WhyNoBatchHeader(std::string_view bytes, uint64_t offset) {
  if (offset >= bytes.size()) return "would be behind the end of the file";
  const std::optional<uint64_t> length = PeekHeaderLength(bytes.substr(offset));
  if (!length.has_value()) return std::string(kNoSuchThing);
  const std::string_view header = bytes.substr(offset, *length);
  return Mismatch(header, Seed(Part::kHeader, PeekLife(header), offset));
}

std::string WhyNoBatchTrailer(std::string_view bytes, uint64_t offset, const BatchHeader& header) {
  const uint64_t length = BatchTrailerLength(header.frames.size());
  if (offset + header.total_length > bytes.size()) return "would be behind the end of the file";
  const std::string_view trailer = bytes.substr(offset + header.total_length - length, length);
  return Mismatch(trailer.substr(0, length - kBatchFooterBytes),
                  Seed(Part::kTrailer, header.life, offset));
}

}  // namespace dynlib::store
