#include "dynlib/store/node_log_scan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

// One candidate for each offset and generation at which a header or a trailer verified.
using Candidates = std::map<std::pair<uint64_t, uint64_t>, ScannedBatch>;

ScannedBatch& Candidate(Candidates& candidates, uint64_t offset, const BatchHeader& header) {
  ScannedBatch& batch = candidates[{header.life.generation, offset}];
  batch.offset = offset;
  return batch;
}

void AddTrailer(Candidates& candidates, uint64_t offset, BatchHeader header) {
  ScannedBatch& batch = Candidate(candidates, offset, header);
  if (!batch.header_ok) {
    batch.header = std::move(header);
    batch.trailer_ok = true;
  } else {
    // The trailer of another batch that once stood here vouches for nothing.
    batch.trailer_ok = batch.header == header;
  }
}

Candidates FindBatches(std::string_view bytes, uint64_t identity, uint64_t segment) {
  Candidates found;
  uint64_t position = 0;
  while (position < bytes.size()) {
    std::optional<BatchHeader> header = DecodeBatchHeader(bytes, position, identity, segment);
    if (header.has_value()) {
      ScannedBatch& batch = Candidate(found, position, *header);
      batch.header = std::move(*header);
      batch.header_ok = true;
      // What is inside a batch with both ends in place is payload.
      const uint64_t end = position + batch.header.total_length;
      uint64_t start = 0;
      std::optional<BatchHeader> trailer =
          DecodeBatchTrailer(bytes, end, identity, segment, &start);
      if (trailer.has_value() && start == position && *trailer == batch.header) {
        batch.trailer_ok = true;
        position = end;
        continue;
      }
    }
    position += kLogSectorBytes;
    uint64_t start = 0;
    std::optional<BatchHeader> trailer =
        DecodeBatchTrailer(bytes, position, identity, segment, &start);
    if (trailer.has_value()) AddTrailer(found, start, std::move(*trailer));
  }
  return found;
}

// Fills in which payloads do not verify, and says what is wrong.
void Examine(std::string_view bytes, ScannedBatch& batch) {
  std::string problem;
  if (!batch.header_ok) {
    problem = Cat("its header does not verify: it ", WhyNoBatchHeader(bytes, batch.offset));
  }
  if (!batch.trailer_ok) {
    problem = Cat("its trailer does not verify: it ",
                  WhyNoBatchTrailer(bytes, batch.offset, batch.header));
  }
  const std::vector<FrameInfo>& frames = batch.header.frames;
  std::vector<bool> damaged(frames.size());
  batch.first_bytes.assign(frames.size(), '\0');
  uint64_t offset = batch.offset + BatchHeaderLength(frames.size());
  for (size_t i = 0; i < frames.size(); ++i) {
    const std::string_view payload = bytes.substr(offset, frames[i].payload_length);
    const uint64_t checksum = PayloadChecksum(batch.header.life, offset, payload);
    if (!payload.empty()) batch.first_bytes[i] = payload.front();
    if (payload.size() != frames[i].payload_length || checksum != frames[i].payload_checksum) {
      damaged[i] = true;
      problem = Cat("the payload of stream ", frames[i].stream, " slot ", frames[i].slot,
                    " at offset ", offset, " has checksum ", Hex(checksum), ", its listing says ",
                    Hex(frames[i].payload_checksum));
    }
    offset += frames[i].payload_length;
  }
  if (std::find(damaged.begin(), damaged.end(), true) != damaged.end()) {
    batch.damaged = std::move(damaged);
  }
  batch.problem = std::move(problem);
}

}  // namespace

ScannedSegment ScanSegment(std::string_view bytes, uint64_t identity, uint64_t segment) {
  ScannedSegment scanned;
  scanned.header = DecodeSegmentHeader(bytes, segment);
  if (scanned.header.has_value()) scanned.generation = scanned.header->life.generation;
  Candidates found = FindBatches(bytes, identity, segment);
  if (!found.empty()) {
    scanned.generation = std::max(scanned.generation, found.rbegin()->first.first);
  }
  for (auto& [key, batch] : found) {
    if (key.first != scanned.generation) continue;
    Examine(bytes, batch);
    scanned.batches.push_back(std::move(batch));
  }
  return scanned;
}

}  // namespace dynlib::store
