// Finds what can be read in the bytes of one segment, whatever happened to them.
//
// Looks at every sector for a batch header and before every sector for a trailer, so that no
// damaged batch hides those after it. Batches of the segment's earlier lives are left out.
//
// Threads: a pure function.
#ifndef DYNLIB_STORE_NODE_LOG_SCAN_H_
#define DYNLIB_STORE_NODE_LOG_SCAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/store/log_format.h"

namespace dynlib::store {

struct ScannedBatch {
  BatchHeader header;
  uint64_t offset = 0;
  bool header_ok = false;
  bool trailer_ok = false;
  std::vector<bool> damaged;  // By frame; empty when all payloads verify.
  std::string first_bytes;    // By frame, of its payload; zero when that is empty.
  std::string problem;        // What is wrong with it, for people; empty when it is whole.

  bool whole() const { return problem.empty(); }
};

struct ScannedSegment {
  std::optional<SegmentHeader> header;
  // The latest life of which anything was found; 0: none.
  uint64_t generation = 0;
  std::vector<ScannedBatch> batches;  // Of that life, by offset.
};

ScannedSegment ScanSegment(std::string_view bytes, uint64_t identity, uint64_t segment);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_SCAN_H_
