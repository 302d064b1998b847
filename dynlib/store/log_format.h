// The bytes of the node log: segment headers and batches. docs/format/wal.md tells them byte by
// byte.
//
// A batch is [header][payloads][padding][trailer], whole blocks. Header and trailer say the same,
// each under a checksum of its own: what the batch is, where it belongs in the chain, and the
// listing of its frames (rule L1). So damage to one of them leaves the listing readable, and a torn
// or damaged batch can still say what may have been in it.
//
// Checksums are seeded with where and when they belong: identity of the log, segment, generation,
// offset. Bytes of the segment's earlier life, or written to the wrong place, do not verify.
//
// Threads: pure functions.
#ifndef DYNLIB_STORE_LOG_FORMAT_H_
#define DYNLIB_STORE_LOG_FORMAT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/store/node_log_record.h"

namespace dynlib::store {

inline constexpr uint32_t kLogFormatVersion = 1;
// Block sizes are multiples of this; so it is the step at which a scan looks for batches.
inline constexpr uint64_t kLogSectorBytes = 512;

// What a frame is. Those from kRelease on have no payload: all that they say is in the listing.
enum class FrameKind : uint8_t {
  kEntry = 1,
  kState = 2,
  kRelease = 16,  // stream; slot = released through.
  kDrop = 17,     // stream; slot = what batches up to this sequence hold of the stream is dead.
  kLost = 18,     // stream; a batch is missing that may have held records of it.
  kUnknownEntry = 19,  // stream, slot, ballot of an unreadable entry, carried forward.
  kUnknownState = 20,  // stream, slot, ballot of an unreadable state, carried forward.
  kLive = 32,  // A closed segment in use: stream = first sequence, slot = generation, ballot = last
               // sequence. The first batch of each segment lists all of them.
  kFree = 33,  // slot = generation of a segment that is no longer in use.
  kLiveTorn = 36,  // As kLive; and the segment's last batch was found torn, which is no news.
  kGap = 34,       // Missing batches that were reported: slot = first sequence, ballot = last.
  kClose = 35,     // The log was closed cleanly after this batch (rule L2).
};

struct FrameInfo {
  uint64_t stream = 0;
  uint64_t slot = 0;
  uint64_t ballot = 0;
  uint64_t payload_checksum = 0;
  uint32_t payload_length = 0;
  FrameKind kind = FrameKind::kEntry;
  friend bool operator==(const FrameInfo&, const FrameInfo&) = default;
};

// Of which life of which segment something is.
struct SegmentLife {
  uint64_t identity = 0;
  uint64_t segment = 0;
  uint64_t generation = 0;
  friend bool operator==(const SegmentLife&, const SegmentLife&) = default;
};

// The first block of a segment file.
struct SegmentHeader {
  SegmentLife life;  // Generation 0: a spare that was never used.
  uint64_t segment_bytes = 0;
  uint32_t block_bytes = 0;
  uint32_t format_version = kLogFormatVersion;
  uint64_t first_sequence = 0;
  friend bool operator==(const SegmentHeader&, const SegmentHeader&) = default;
};

inline constexpr uint64_t kSegmentHeaderBytes = 72;

// `header.block_bytes` bytes.
std::string EncodeSegmentHeader(const SegmentHeader& header);
// None if it does not verify as the header of `segment` of a log of any identity. A header of a
// newer format version comes back with that version and nothing else.
std::optional<SegmentHeader> DecodeSegmentHeader(std::string_view bytes, uint64_t segment);

struct BatchHeader {
  SegmentLife life;
  uint64_t total_length = 0;  // Header to trailer, whole blocks.
  uint64_t segment_first_sequence = 0;
  uint64_t sequence = 0;           // 1, 2, ... over the whole life of the log.
  uint64_t previous_checksum = 0;  // Header checksum of the batch before; 0 for none.
  uint64_t synced_through = 0;     // Sequence up to which all was durable when this was written.
  // Not 0: the entries and states are copies of what this generation holds, and newer than nothing.
  uint64_t copied_from = 0;
  std::vector<FrameInfo> frames;
  uint64_t checksum = 0;  // Of the header; filled by encode and decode.
  friend bool operator==(const BatchHeader&, const BatchHeader&) = default;
};

inline constexpr uint64_t kBatchHeaderFixedBytes = 88;
inline constexpr uint64_t kFrameInfoBytes = 40;
inline constexpr uint64_t kBatchFooterBytes = 16;

inline uint64_t BatchHeaderLength(uint64_t frames) {
  return kBatchHeaderFixedBytes + frames * kFrameInfoBytes + 8;
}
inline uint64_t BatchTrailerLength(uint64_t frames) {
  return BatchHeaderLength(frames) + kBatchFooterBytes;
}
// Of a whole batch, in whole blocks.
uint64_t BatchLength(uint64_t frames, uint64_t payload_bytes, uint32_t block_bytes);

// Of a payload that starts at `offset` of the segment.
uint64_t PayloadChecksum(const SegmentLife& life, uint64_t offset, std::string_view payload);

// Writes the batch, as it stands at `offset` of its segment, to `out`, which has room for
// BatchLength() bytes. Fills in `header`'s total_length, checksum, and of its frames payload_length
// and payload_checksum. `payloads` has one for each frame; `rests`, if not empty, what follows
// each.
void EncodeBatch(BatchHeader& header, const std::vector<std::string_view>& payloads,
                 uint64_t offset, uint32_t block_bytes, char* out,
                 std::span<const std::string_view> rests = {});
std::string EncodeBatch(BatchHeader& header, const std::vector<std::string_view>& payloads,
                        uint64_t offset, uint32_t block_bytes);

// The batch header at bytes[offset...], where `bytes` is the segment from its start. None if there
// is none that verifies. `life` in it is whatever generation it says; segment and identity must be
// those given.
std::optional<BatchHeader> DecodeBatchHeader(std::string_view bytes, uint64_t offset,
                                             uint64_t identity, uint64_t segment);

// The batch whose trailer ends at bytes[end), if one does; `offset` receives where it starts.
std::optional<BatchHeader> DecodeBatchTrailer(std::string_view bytes, uint64_t end,
                                              uint64_t identity, uint64_t segment,
                                              uint64_t* offset);

// For people, of what does not decode: both checksums, if it looks like one. Of a trailer: that of
// the batch with that header, which stands at `offset`.
std::string WhyNoSegmentHeader(std::string_view bytes, uint64_t segment);
std::string WhyNoBatchHeader(std::string_view bytes, uint64_t offset);
std::string WhyNoBatchTrailer(std::string_view bytes, uint64_t offset, const BatchHeader& header);

// True for a kind that this version writes.
bool IsFrameKind(uint8_t kind);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_LOG_FORMAT_H_
