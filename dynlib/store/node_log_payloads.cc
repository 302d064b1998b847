// Bytes of segment files, of which some may be bad.
#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_recovery.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;
constexpr uint64_t kReadPieceBytes = 4096;
constexpr int kReadAttempts = 3;

// A device that fails to open a file says nothing of the payloads in it.
absl::Status NotThePayloads(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kDataLoss) return status;
  return absl::UnavailableError(status.message());
}

}  // namespace

absl::Status ReadStubbornly(File* file, uint64_t offset, std::span<char> out) {
  absl::Status status;
  for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
    status = file->ReadAt(offset, out);
    if (status.code() != absl::StatusCode::kDataLoss) break;
  }
  return status;
}

absl::StatusOr<uint64_t> ReadWhole(File* file, std::span<char> out,
                                   absl::FunctionRef<bool(uint64_t)> go_on) {
  uint64_t unreadable_bytes = 0;
  for (uint64_t at = 0; at < out.size(); at += kReadBytes) {
    const uint64_t length = std::min<uint64_t>(kReadBytes, out.size() - at);
    if (!go_on(length)) return absl::CancelledError("the reading was ended by its caller");
    absl::Status status = file->ReadAt(at, out.subspan(at, length));
    if (status.ok()) continue;
    if (status.code() != absl::StatusCode::kDataLoss) return status;
    for (uint64_t piece = at; piece < at + length; piece += kReadPieceBytes) {
      const std::span<char> part =
          out.subspan(piece, std::min(kReadPieceBytes, at + length - piece));
      status = ReadStubbornly(file, piece, part);
      if (status.ok()) continue;
      if (status.code() != absl::StatusCode::kDataLoss) return status;
      std::fill(part.begin(), part.end(), '\0');
      unreadable_bytes += part.size();
    }
  }
  return unreadable_bytes;
}

PayloadReader::PayloadReader(Disk* disk, std::string dir, uint64_t identity)
    : disk_(disk), dir_(std::move(dir)), identity_(identity) {}

absl::Status PayloadReader::FillWindow(const LogIndex::Segment& segment, const LogIndex::Ref& ref) {
  if (generation_ != segment.generation) {
    window_bytes_ = 0;
    generation_ = 0;
    absl::StatusOr<std::unique_ptr<File>> file =
        disk_->Open(SegmentPath(dir_, segment.number), OpenMode::kRead);
    if (!file.ok()) return NotThePayloads(file.status());
    file_ = *std::move(file);
    generation_ = segment.generation;
  }
  const uint64_t wanted = std::max<uint64_t>(kWindowBytes, ref.length);
  const absl::StatusOr<uint64_t> whole = file_->Size();
  if (!whole.ok()) return NotThePayloads(whole.status());
  const uint64_t size = *whole;
  if (ref.offset + uint64_t{ref.length} > size) {
    return absl::DataLossError(Cat(SegmentPath(dir_, segment.number), " ends at ", size,
                                   ", before the payload at offset ", ref.offset));
  }
  window_bytes_ = std::min(wanted, size - ref.offset);
  window_offset_ = ref.offset;
  char* const window = window_.Get(window_bytes_);
  absl::Status status = ReadStubbornly(file_.get(), window_offset_, {window, window_bytes_});
  if (status.code() == absl::StatusCode::kDataLoss) {  // A bad sector beyond this payload, perhaps.
    window_bytes_ = ref.length;
    status = ReadStubbornly(file_.get(), window_offset_, {window, window_bytes_});
  }
  if (!status.ok()) window_bytes_ = 0;
  return status;
}

bool PayloadReader::InWindow(const LogIndex::Segment& segment, const LogIndex::Ref& ref) const {
  return generation_ == segment.generation && ref.offset >= window_offset_ &&
         ref.offset + uint64_t{ref.length} <= window_offset_ + window_bytes_;
}

absl::StatusOr<std::string> PayloadReader::Read(const LogIndex::Segment& segment,
                                                const LogIndex::Ref& ref) {
  if (InWindow(segment, ref)) {
    absl::StatusOr<std::string> payload = FromWindow(segment, ref);
    // Of the segment that is being written the window may have what was there before.
    if (payload.ok()) return payload;
  }
  DYNLIB_RETURN_IF_ERROR(FillWindow(segment, ref));
  return FromWindow(segment, ref);
}

absl::StatusOr<std::string> PayloadReader::FromWindow(const LogIndex::Segment& segment,
                                                      const LogIndex::Ref& ref) {
  const std::string_view payload = std::string_view(window_.Get(window_bytes_), window_bytes_)
                                       .substr(ref.offset - window_offset_, ref.length);
  const SegmentLife life = {identity_, segment.number, segment.generation};
  const uint64_t checksum = PayloadChecksum(life, ref.offset, payload);
  if (checksum != ref.checksum) {
    return absl::DataLossError(Cat(SegmentPath(dir_, segment.number), " offset ", ref.offset,
                                   ": the payload has checksum ", Hex(checksum),
                                   ", its listing says ", Hex(ref.checksum)));
  }
  return std::string(payload);
}

}  // namespace dynlib::store
