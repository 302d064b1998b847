#include "dynlib/cluster/tree_chunk.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/store/page.h"

namespace dynlib::cluster {
namespace {

using HeldPart = wire::CopyTreeRequest::HeldPart;

// What the encoding of a row adds, at most: two tags and two lengths, and the row's own.
constexpr size_t kRowOverheadBytes = 16;
// What a tree applies at a time: it fills pages best with about a thousand rows.
constexpr size_t kBatchRowsMax = 1000;
constexpr size_t kBatchBytesMax = 1 << 20;
constexpr size_t kHeldPartsAChunk = 256;
constexpr size_t kHeldPartBytesMin = 64;
// The last row of a part may be as long as rows are.
constexpr size_t kHeldPartBytesMax =
    kHeldPartBytes + store::kMaxKeyBytes + store::kMaxValueBytes + kRowOverheadBytes;

// The first key behind `key`.
std::string Behind(std::string_view key) {
  std::string next(key);
  next.push_back('\0');
  return next;
}

// The first key that a request asks for.
std::string StartOf(const wire::CopyTreeRequest& request) {
  return request.after().empty() ? std::string() : Behind(request.after());
}

bool IsFull(const store::WriteBatch& batch) {
  return batch.size() >= kBatchRowsMax || batch.bytes() >= kBatchBytesMax;
}

void PutRowBytes(std::string& to, std::string_view key, std::string_view value) {
  PutLengthPrefixed(to, key);
  PutLengthPrefixed(to, value);
}

// The last key that the chunk speaks of, if it is not done.
const std::string& EndOf(const wire::CopyTreeRequest& request, const wire::CopyTreeReply& chunk) {
  if (!chunk.through().empty()) return chunk.through();
  return chunk.rows().empty() ? request.after() : chunk.rows(chunk.rows_size() - 1).key();
}

// Reads a chunk, row by row. Those of a part stay in the chunk until the part turns out to be the
// same.
class ChunkReader {
 public:
  ChunkReader(const wire::CopyTreeRequest& request, size_t bytes_max, wire::CopyTreeReply& chunk)
      : request_(request), bytes_max_(bytes_max), chunk_(chunk) {}

  // False ends the scan.
  bool Visit(std::string_view key, std::string_view value) {
    while (InPart() && key > Part().last()) ClosePart();
    const bool beyond = !InPart() && request_.held_more() && request_.held_size() > 0;
    const size_t row_bytes = key.size() + value.size() + kRowOverheadBytes;
    const bool full = made_way_ && bytes_ + (MayBeSame() ? 0 : row_bytes) > bytes_max_;
    if (beyond || full) return ended_ = false;
    wire::CopyTreeReply::Row& row = *chunk_.add_rows();
    row.set_key(key.data(), key.size());
    row.set_value(value.data(), value.size());
    if (MayBeSame()) {
      PutRowBytes(part_bytes_, key, value);
      part_rows_bytes_ += row_bytes;
      if (part_bytes_.size() <= Part().bytes()) return true;
      differs_ = true;
      bytes_ += part_rows_bytes_;
    } else {
      bytes_ += row_bytes;
    }
    through_ = key;
    return made_way_ = true;
  }

  void Finish() {
    while (ended_ && InPart()) ClosePart();
    // Of a part that is not known to differ: they come with the next chunk.
    if (!ended_ && MayBeSame()) DropPartRows();
    chunk_.set_done(ended_);
    if (!ended_ && request_.held_size() > 0) chunk_.set_through(through_);
    chunk_.set_checksum(TreeChunkChecksum(chunk_));
  }

 private:
  bool InPart() const { return part_ < request_.held_size(); }
  const HeldPart& Part() const { return request_.held(part_); }
  bool MayBeSame() const { return InPart() && !differs_; }
  void DropPartRows() {
    chunk_.mutable_rows()->DeleteSubrange(first_row_, chunk_.rows_size() - first_row_);
  }

  // All rows of the part were visited.
  void ClosePart() {
    const Digest128 held{.low = Part().digest_low(), .high = Part().digest_high()};
    if (!differs_ && part_bytes_.size() == Part().bytes() &&
        Digest(part_bytes_, request_.digest_seed()) == held) {
      DropPartRows();
      chunk_.add_same(static_cast<uint32_t>(part_));
    } else if (!differs_) {
      bytes_ += part_rows_bytes_;
    }
    through_ = Part().last();
    made_way_ = true;
    ++part_;
    differs_ = false;
    part_bytes_.clear();
    part_rows_bytes_ = 0;
    first_row_ = chunk_.rows_size();
  }

  const wire::CopyTreeRequest& request_;
  const size_t bytes_max_;
  wire::CopyTreeReply& chunk_;
  bool ended_ = true;      // the scan came to the end of the keys
  bool made_way_ = false;  // beyond `after`
  std::string through_;    // what lies up to here is in the chunk, or the same
  size_t bytes_ = 0;       // of rows that are sent for sure

  int part_ = 0;  // in which the scan is
  bool differs_ = false;
  std::string part_bytes_;
  size_t part_rows_bytes_ = 0;
  int first_row_ = 0;
};

}  // namespace

absl::Status ReadHeldParts(const store::Snapshot& snapshot, size_t bytes_max,
                           wire::CopyTreeRequest& request) {
  const size_t part_bytes_max =
      std::clamp(bytes_max / kHeldPartsAChunk, kHeldPartBytesMin, kHeldPartBytes);
  size_t bytes = 0;
  bool more = false;
  std::string part_bytes;
  std::string last;
  auto close_part = [&] {
    const Digest128 digest = Digest(part_bytes, request.digest_seed());
    HeldPart& part = *request.add_held();
    part.set_last(last);
    part.set_bytes(part_bytes.size());
    part.set_digest_low(digest.low);
    part.set_digest_high(digest.high);
    bytes += part_bytes.size();
    part_bytes.clear();
  };
  DYNLIB_RETURN_IF_ERROR(snapshot.Scan(
      StartOf(request), {}, store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        if (!TableStateMachine::IsShared(key)) return true;
        more = bytes >= bytes_max;
        if (more) return false;
        PutRowBytes(part_bytes, key, value);
        last = key;
        if (part_bytes.size() >= part_bytes_max) close_part();
        return true;
      },
      store::ReadMode::kNotKept));
  if (!part_bytes.empty()) close_part();
  request.set_held_more(more);
  return absl::OkStatus();
}

absl::Status CheckHeldParts(const wire::CopyTreeRequest& request) {
  std::string_view last = request.after();
  for (const HeldPart& part : request.held()) {
    if (part.last() <= last || part.bytes() > kHeldPartBytesMax) {
      return absl::InvalidArgumentError(
          Cat("held part of ", part.bytes(), " bytes up to ", Escape(part.last()), " behind ",
              Escape(last), "; allowed: keys that ascend, and up to ", kHeldPartBytesMax));
    }
    last = part.last();
  }
  return absl::OkStatus();
}

absl::Status ReadTreeChunk(const store::Snapshot& snapshot, const wire::CopyTreeRequest& request,
                           size_t bytes_max, wire::CopyTreeReply& chunk) {
  ChunkReader reader(request, bytes_max, chunk);
  const absl::Status status = snapshot.Scan(
      StartOf(request), {}, store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        return !TableStateMachine::IsShared(key) || reader.Visit(key, value);
      },
      store::ReadMode::kNotKept);
  if (!status.ok()) {
    chunk.clear_rows();
    chunk.clear_same();
    return status;
  }
  reader.Finish();
  return absl::OkStatus();
}

uint64_t TreeChunkChecksum(const wire::CopyTreeReply& chunk) {
  std::string bytes;
  for (const wire::CopyTreeReply::Row& row : chunk.rows())
    PutRowBytes(bytes, row.key(), row.value());
  if (!chunk.through().empty() || !chunk.same().empty()) {
    PutLengthPrefixed(bytes, chunk.through());
    for (const uint32_t part : chunk.same()) PutFixed32(bytes, part);
  }
  return Checksum(bytes);
}

uint64_t BytesSame(const wire::CopyTreeRequest& request, const wire::CopyTreeReply& chunk) {
  uint64_t bytes = 0;
  for (const uint32_t part : chunk.same()) bytes += request.held(static_cast<int>(part)).bytes();
  return bytes;
}

absl::Status CheckTreeChunk(const wire::CopyTreeRequest& request,
                            const wire::CopyTreeReply& chunk) {
  auto bad = [&](std::string_view what) {
    return absl::DataLossError(Cat("chunk of a tree behind ", Escape(request.after()), ": ", what));
  };
  if (const uint64_t sum = TreeChunkChecksum(chunk); sum != chunk.checksum())
    return bad(Cat("checksum ", Hex(chunk.checksum()), ", and its rows make ", Hex(sum)));
  const std::string_view end = EndOf(request, chunk);
  if (!chunk.done() && end <= request.after())
    return bad("it has no row and no part, and there are more");
  int64_t before = -1;
  for (const uint32_t part : chunk.same()) {
    if (part <= before || part >= static_cast<uint32_t>(request.held_size()))
      return bad(Cat("part ", part, " was not asked about, or twice"));
    if (!chunk.done() && request.held(static_cast<int>(part)).last() > end)
      return bad(Cat("part ", part, " ends behind its end"));
    before = part;
  }
  std::string_view last = request.after();
  int same = 0;
  for (const wire::CopyTreeReply::Row& row : chunk.rows()) {
    if (row.key() <= last || !TableStateMachine::IsShared(row.key()))
      return bad(Cat(Escape(row.key()), " comes behind ", Escape(last)));
    last = row.key();
    // Parts that end before the row are behind it for good.
    auto part = [&] { return static_cast<int>(chunk.same(same)); };
    while (same < chunk.same_size() && request.held(part()).last() < row.key()) ++same;
    if (same < chunk.same_size() &&
        row.key() > (part() == 0 ? request.after() : request.held(part() - 1).last())) {
      return bad(Cat(Escape(row.key()), " is in a part that is the same"));
    }
  }
  if (!chunk.done() && last > end) return bad(Cat(Escape(last), " comes behind its end"));
  return absl::OkStatus();
}

TreeChunkMerge::TreeChunkMerge(const wire::CopyTreeRequest& request, wire::CopyTreeReply chunk,
                               store::Tree* into)
    : chunk_(std::make_unique<wire::CopyTreeReply>(std::move(chunk))),
      last_(EndOf(request, *chunk_)),
      into_(into) {
  for (const wire::CopyTreeReply::Row& row : chunk_->rows())
    bytes_ += row.key().size() + row.value().size();
  // What lies between the parts that are the same.
  std::string start = StartOf(request);
  for (const uint32_t same : chunk_->same()) {
    const int part = static_cast<int>(same);
    std::string end = part == 0 ? StartOf(request) : Behind(request.held(part - 1).last());
    if (start < end) stretches_.push_back({std::move(start), std::move(end)});
    start = Behind(request.held(part).last());
  }
  std::string end = chunk_->done() ? std::string() : Behind(last_);
  if (end.empty() || start < end) stretches_.push_back({std::move(start), std::move(end)});
}

TreeChunkMerge::~TreeChunkMerge() = default;

absl::StatusOr<bool> TreeChunkMerge::Step() {
  store::WriteBatch batch;
  bool full = false;
  for (; stretch_ < stretches_.size(); ++stretch_) {
    DYNLIB_ASSIGN_OR_RETURN(full, FillFrom(stretches_[stretch_], batch));
    if (full) break;
  }
  if (!batch.empty()) {
    DYNLIB_RETURN_IF_ERROR(into_->Apply(batch, 0));
    changed_ += batch.size();
  }
  return full;
}

absl::StatusOr<bool> TreeChunkMerge::FillFrom(Stretch& stretch, store::WriteBatch& batch) {
  bool full = false;
  const std::string start = stretch.start;
  DYNLIB_RETURN_IF_ERROR(into_->snapshot().Scan(
      start, stretch.end, store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        full = !Visit(key, value, batch);
        if (full) stretch.start = key;
        return !full;
      },
      store::ReadMode::kNotKept));
  // Nothing local is left in the stretch; what the chunk has beyond it there is new.
  while (!full && next_ < chunk_->rows_size() && !stretch.EndsAt(chunk_->rows(next_).key())) {
    full = IsFull(batch);
    if (full) {
      stretch.start = chunk_->rows(next_).key();
    } else {
      PutRow(batch);
    }
  }
  return full;
}

bool TreeChunkMerge::HasRowBelow(std::string_view key) const {
  return next_ < chunk_->rows_size() && chunk_->rows(next_).key() < key;
}

void TreeChunkMerge::PutRow(store::WriteBatch& batch) {
  wire::CopyTreeReply::Row& row = *chunk_->mutable_rows(next_++);
  batch.Put(std::move(*row.mutable_key()), std::move(*row.mutable_value()));
}

bool TreeChunkMerge::Visit(std::string_view key, std::string_view value, store::WriteBatch& batch) {
  if (!TableStateMachine::IsShared(key)) return true;
  for (; HasRowBelow(key); PutRow(batch)) {
    if (IsFull(batch)) return false;
  }
  if (IsFull(batch)) return false;
  const bool there = next_ < chunk_->rows_size() && chunk_->rows(next_).key() == key;
  if (!there) {
    batch.Delete(std::string(key));
  } else if (chunk_->rows(next_).value() != value) {
    PutRow(batch);
  } else {
    ++next_;
  }
  return true;
}

}  // namespace dynlib::cluster
