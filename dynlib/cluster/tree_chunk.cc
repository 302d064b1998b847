#include "dynlib/cluster/tree_chunk.h"

#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/table_state_machine.h"

namespace dynlib::cluster {
namespace {

// What the encoding of a row adds, at most: two tags and two lengths, and the row's own.
constexpr size_t kRowOverheadBytes = 16;
// What a tree applies at a time: it fills pages best with about a thousand rows.
constexpr size_t kBatchRowsMax = 1000;
constexpr size_t kBatchBytesMax = 1 << 20;

// The first key behind `key`.
std::string Behind(std::string_view key) {
  std::string next(key);
  next.push_back('\0');
  return next;
}

bool IsFull(const store::WriteBatch& batch) {
  return batch.size() >= kBatchRowsMax || batch.bytes() >= kBatchBytesMax;
}

}  // namespace

absl::Status ReadTreeChunk(const store::Snapshot& snapshot, std::string_view after,
                           size_t bytes_max, wire::CopyTreeReply& chunk) {
  size_t bytes = 0;
  bool done = true;
  const std::string start = after.empty() ? std::string() : Behind(after);
  const absl::Status status = snapshot.Scan(
      start, {}, store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        if (!TableStateMachine::IsShared(key)) return true;
        bytes += key.size() + value.size() + kRowOverheadBytes;
        if (chunk.rows_size() > 0 && bytes > bytes_max) return done = false;
        wire::CopyTreeReply::Row& row = *chunk.add_rows();
        row.set_key(key.data(), key.size());
        row.set_value(value.data(), value.size());
        return true;
      },
      store::ReadMode::kNotKept);
  if (!status.ok()) {
    chunk.clear_rows();
    return status;
  }
  chunk.set_done(done);
  chunk.set_checksum(TreeChunkChecksum(chunk));
  return absl::OkStatus();
}

uint64_t TreeChunkChecksum(const wire::CopyTreeReply& chunk) {
  std::string bytes;
  for (const wire::CopyTreeReply::Row& row : chunk.rows()) {
    PutLengthPrefixed(bytes, row.key());
    PutLengthPrefixed(bytes, row.value());
  }
  return Checksum(bytes);
}

absl::Status CheckTreeChunk(std::string_view after, const wire::CopyTreeReply& chunk) {
  if (const uint64_t sum = TreeChunkChecksum(chunk); sum != chunk.checksum()) {
    return absl::DataLossError(Cat("chunk of a tree behind ", Escape(after), ": checksum ",
                                   Hex(chunk.checksum()), ", and its rows make ", Hex(sum)));
  }
  if (chunk.rows().empty() && !chunk.done())
    return absl::DataLossError(
        Cat("chunk of a tree behind ", Escape(after), " has no row, and there are more"));
  std::string_view last = after;
  for (const wire::CopyTreeReply::Row& row : chunk.rows()) {
    if (row.key() <= last || !TableStateMachine::IsShared(row.key())) {
      return absl::DataLossError(
          Cat("chunk of a tree: ", Escape(row.key()), " comes behind ", Escape(last)));
    }
    last = row.key();
  }
  return absl::OkStatus();
}

TreeChunkMerge::TreeChunkMerge(std::string after, wire::CopyTreeReply chunk, store::Tree* into)
    : chunk_(std::make_unique<wire::CopyTreeReply>(std::move(chunk))),
      last_(chunk_->rows().empty() ? after : chunk_->rows(chunk_->rows_size() - 1).key()),
      into_(into),
      start_(after.empty() ? std::string() : Behind(after)),
      end_(chunk_->done() ? std::string() : Behind(last_)) {
  for (const wire::CopyTreeReply::Row& row : chunk_->rows())
    bytes_ += row.key().size() + row.value().size();
}

TreeChunkMerge::~TreeChunkMerge() = default;

absl::StatusOr<bool> TreeChunkMerge::Step() {
  store::WriteBatch batch;
  bool full = false;
  DYNLIB_RETURN_IF_ERROR(into_->snapshot().Scan(
      start_, end_, store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        full = !Visit(key, value, batch);
        if (full) start_ = key;
        return !full;
      },
      store::ReadMode::kNotKept));
  // Nothing local is left; what the chunk has beyond it is new.
  while (!full && next_ < chunk_->rows_size()) {
    full = IsFull(batch);
    if (full) {
      start_ = chunk_->rows(next_).key();
    } else {
      PutRow(batch);
    }
  }
  if (!batch.empty()) {
    DYNLIB_RETURN_IF_ERROR(into_->Apply(batch, 0));
    changed_ += batch.size();
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
