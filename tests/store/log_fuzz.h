// What a fuzzer feeds to the readers of the log's bytes, and what must hold of any input.
#ifndef TESTS_STORE_LOG_FUZZ_H_
#define TESTS_STORE_LOG_FUZZ_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_index.h"
#include "dynlib/store/node_log_scan.h"

namespace dynlib::store {

inline constexpr SegmentLife kFuzzLife = {.identity = 7, .segment = 3, .generation = 9};

// Whatever the bytes: no crash, and what is said to be there lies within them and verifies.
// Returns how many whole batches were found.
inline int CheckAnySegment(std::string_view bytes) {
  const ScannedSegment scanned = ScanSegment(bytes, kFuzzLife.identity, kFuzzLife.segment);
  if (scanned.header.has_value() && scanned.header->format_version == kLogFormatVersion) {
    DYNLIB_CHECK(EncodeSegmentHeader(*scanned.header).substr(0, kSegmentHeaderBytes) ==
                 bytes.substr(0, kSegmentHeaderBytes));
  }
  int whole = 0;
  LogIndex index;
  uint64_t sequence = 0;
  if (scanned.generation != 0) index.AddSegment({.generation = scanned.generation, .number = 3});
  for (const ScannedBatch& batch : scanned.batches) {
    DYNLIB_CHECK(batch.offset <= bytes.size() &&
                 batch.header.total_length <= bytes.size() - batch.offset);
    DYNLIB_CHECK(batch.header.life.generation == scanned.generation);
    DYNLIB_CHECK(batch.damaged.empty() || batch.damaged.size() == batch.header.frames.size());
    if (batch.whole()) ++whole;
    index.ForetellDrops(batch.header);
    if (batch.header.sequence <= sequence || batch.header.life.generation == 0) continue;
    sequence = batch.header.sequence;
    index.Apply(batch.header, batch.offset, batch.damaged);
  }
  DYNLIB_CHECK(index.CheckInvariants());
  return whole;
}

// Makes the header checksum at `offset` right, if what stands there can be a batch header, so that
// the reader looks at what lies behind it.
inline void ResealBatchHeader(std::string& bytes, uint64_t offset) {
  if (bytes.size() < offset + 16) return;
  const uint64_t length = LoadFixed<uint32_t>(bytes.data() + offset + 8);
  if (length < kBatchHeaderFixedBytes + 8 || length > bytes.size() - offset) return;
  SegmentLife life;
  life.generation = LoadFixed<uint64_t>(bytes.data() + offset + 40);
  constexpr uint64_t kHeaderPart = 2;
  const uint64_t words[5] = {kHeaderPart, kFuzzLife.identity, kFuzzLife.segment, life.generation,
                             offset};
  const uint64_t seed =
      Checksum(std::string_view(reinterpret_cast<const char*>(words), sizeof(words)));
  const std::string_view content = std::string_view(bytes).substr(offset, length - 8);
  StoreFixed(bytes.data() + offset + length - 8, Checksum(content, seed));
}

}  // namespace dynlib::store

#endif  // TESTS_STORE_LOG_FUZZ_H_
