// The segments in use, read again and judged while the log goes on.
#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_recovery.h"
#include "dynlib/store/node_log_scan.h"
#include "dynlib/store/node_log_writer.h"

namespace dynlib::store {
namespace {

// What is wrong with a segment, of which the batches in `segment` were durable before it was read.
class SegmentJudge {
 public:
  SegmentJudge(std::string path, std::string_view bytes, uint64_t identity,
               const LogIndex::Segment& segment)
      : path_(std::move(path)),
        bytes_(bytes),
        segment_(segment),
        scanned_(ScanSegment(bytes, identity, segment.number)) {}

  void Run() {
    // It is written together with the first batch.
    if (!scanned_.header.has_value() && !KnownTorn(segment_.first_sequence)) {
      Fault(Cat(path_, " offset 0: ", WhyNoSegmentHeader(bytes_, segment_.number)));
    }
    uint64_t expected = segment_.first_sequence;
    uint64_t end = segment_.block_bytes;
    if (scanned_.generation == segment_.generation) {
      for (const ScannedBatch& batch : scanned_.batches) {
        const uint64_t sequence = batch.header.sequence;
        if (sequence < expected || sequence > segment_.last_sequence) continue;
        Missing(expected, sequence, end);
        Judge(batch);
        expected = sequence + 1;
        end = batch.offset + batch.header.total_length;
      }
    }
    Missing(expected, segment_.last_sequence + 1, end);
  }

  const std::vector<std::string>& faults() const { return faults_; }
  uint64_t whole() const { return whole_; }

 private:
  // Said by an earlier recovery, and nothing that was acknowledged.
  bool KnownTorn(uint64_t sequence) const {
    return segment_.torn && sequence == segment_.last_sequence;
  }

  void Judge(const ScannedBatch& batch) {
    if (batch.whole()) {
      ++whole_;
    } else if (!KnownTorn(batch.header.sequence)) {
      Fault(Cat(path_, " offset ", batch.offset, " batch ", batch.header.sequence, ": ",
                batch.problem));
    }
  }

  void Missing(uint64_t first, uint64_t end, uint64_t offset) {
    if (first >= end || (first + 1 == end && KnownTorn(first))) return;
    Fault(Cat(path_, " offset ", offset, ": batches ", first, " to ", end - 1,
              " are missing: its header ", WhyNoBatchHeader(bytes_, offset)));
  }

  void Fault(std::string what) { faults_.push_back(std::move(what)); }

  const std::string path_;
  const std::string_view bytes_;
  const LogIndex::Segment& segment_;
  const ScannedSegment scanned_;
  std::vector<std::string> faults_;
  uint64_t whole_ = 0;
};

}  // namespace

absl::StatusOr<uint64_t> NodeLog::Impl::Verify(
    absl::FunctionRef<bool(uint64_t)> go_on,
    absl::FunctionRef<void(const absl::Status&)> fault) const {
  std::vector<LogIndex::Segment> segments;
  {
    std::lock_guard lock(index_mutex_);
    CatchUpLocked();
    for (const auto& [generation, segment] : index_.segments()) {
      segments.push_back({.generation = generation,
                          .number = segment.number,
                          .segment_bytes = segment.segment_bytes,
                          .block_bytes = segment.block_bytes,
                          .first_sequence = segment.first_sequence,
                          .last_sequence = segment.last_sequence,
                          .torn = segment.torn});
    }
  }
  uint64_t whole = 0;
  AlignedBuffer buffer;
  for (const LogIndex::Segment& segment : segments) {
    const std::string path = SegmentPath(dir_, segment.number);
    std::vector<std::string> faults;
    const absl::Status read = [&]() -> absl::Status {
      DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, disk_->Open(path, OpenMode::kRead));
      DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
      const std::span<char> bytes(buffer.Get(size), size);
      DYNLIB_ASSIGN_OR_RETURN(const uint64_t unreadable, ReadWhole(file.get(), bytes, go_on));
      SegmentJudge judge(path, {bytes.data(), bytes.size()}, options_.identity, segment);
      judge.Run();
      faults = judge.faults();
      if (unreadable > 0) {
        faults.push_back(Cat(path, ": the device fails to read ", unreadable, " bytes"));
      }
      whole += judge.whole();
      return absl::OkStatus();
    }();
    if (absl::IsCancelled(read)) return read;
    if (!read.ok()) faults.push_back(Cat(path, ": ", ToStd(read.message())));
    // It may have been freed meanwhile, and written anew.
    std::lock_guard lock(index_mutex_);
    if (!index_.segments().contains(segment.generation)) continue;
    for (const std::string& what : faults) fault(absl::DataLossError(what));
  }
  return whole;
}

}  // namespace dynlib::store
