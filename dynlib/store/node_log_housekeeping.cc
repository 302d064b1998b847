// What the node log's writer does besides appends: spares, copying forward, closing.
#include <algorithm>
#include <utility>

#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_writer.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kCopyBytes = 1 << 20;

}  // namespace

bool NodeLog::Impl::PrepareSpare() {
  uint64_t in_use = 0;
  {
    std::lock_guard lock(mutex_);
    if (!health_.ok() || close_.has_value()) return false;
    in_use = index_.segments().size();
  }
  if (!files_.WantsStep(in_use)) return false;
  files_.PrepareStep().IgnoreError();  // It is tried again when a segment is needed.
  CountFiles();
  return files_.WantsStep(in_use);
}

// True if the log is closed now.
bool NodeLog::Impl::TryClose() {
  Plan plan;
  {
    std::lock_guard lock(mutex_);
    if (!health_.ok()) {
      running_ = false;
      return true;
    }
    const bool waits = queue_.size() > queued_drops_ || (!queue_.empty() && !blocked_);
    if (!close_.has_value() || waits) return false;
    PlanMarksLocked(plan, max_marks_);
    plan.Add({.kind = FrameKind::kClose});
  }
  absl::Status status = Write(plan);
  if (status.code() == absl::StatusCode::kUnknown) return true;
  if (!status.ok() && active_.file != nullptr && active_.begun) {
    Plan marker;
    marker.Add({.kind = FrameKind::kClose});
    if (active_.offset + marker.Length(options_.block_bytes) <= options_.segment_bytes) {
      status = WriteHere(marker);
      if (status.code() == absl::StatusCode::kUnknown) return true;
    }
  }
  active_.file.reset();
  lock_.reset();  // Before the answer: the caller may open the directory again at once.
  std::vector<Answer> answers;
  {
    std::lock_guard lock(mutex_);
    health_ = absl::UnavailableError(Cat(dir_, " is closed"));
    running_ = false;
    answers = TakeQueueLocked(status);
  }
  Deliver(std::move(answers));
  return true;
}

// Copying forward (rule L6).

// The closed segment with the least in it, if too many are in use and copying gains at least half
// of a segment.
std::optional<uint64_t> NodeLog::Impl::CopyVictimLocked() const {
  const size_t dead = index_.DeadSegments(active_generation_).size();
  if (index_.segments().size() - dead <= options_.copy_forward_above) return std::nullopt;
  const LogIndex::Segment* victim = nullptr;
  for (const auto& [generation, segment] : index_.segments()) {
    if (generation == active_generation_ || segment.live_records == 0) continue;
    if (segment.live_bytes > segment.segment_bytes / 2) continue;
    if (victim == nullptr || segment.live_bytes < victim->live_bytes) victim = &segment;
  }
  if (victim == nullptr) return std::nullopt;
  return victim->generation;
}

bool NodeLog::Impl::BeginCopying() {
  std::lock_guard lock(mutex_);
  if (!health_.ok() || close_.has_value() || blocked_) {
    copying_.reset();
    return false;
  }
  if (copying_.has_value()) {
    const bool there = index_.segments().contains(copying_->source.generation);
    if (there && copying_->next < copying_->records.size()) return true;
    copying_.reset();
  }
  const std::optional<uint64_t> victim = CopyVictimLocked();
  if (!victim.has_value()) return false;
  copying_ = {index_.segments().at(*victim), index_.LiveRecordsOf(*victim), 0};
  return true;
}

bool NodeLog::Impl::CopyForward() {
  if (!BeginCopying()) return false;
  Plan plan;
  absl::Status status = PlanCopy(plan);
  if (status.ok() && !plan.frames.empty()) status = Write(plan);
  if (status.ok()) return true;
  copying_.reset();
  std::lock_guard lock(mutex_);
  blocked_ = true;
  return false;
}

absl::Status NodeLog::Impl::PlanCopy(Plan& plan) {
  const uint64_t limit = std::min(kCopyBytes, max_batch_bytes_);
  plan.copied_from = copying_->source.generation;
  uint64_t bytes = 0;
  for (; copying_->next < copying_->records.size(); ++copying_->next) {
    const LogIndex::LiveRecord& record = copying_->records[copying_->next];
    bool live = false;
    std::optional<FrameInfo> unknown;
    {
      std::lock_guard lock(mutex_);
      live = index_.StillLive(record);
      if (live) unknown = index_.UnknownBeside(record);
    }
    if (!live) continue;
    bytes += record.ref.length + kRecordOverheadBytes * (unknown.has_value() ? 2 : 1);
    if (bytes > limit && !plan.frames.empty()) break;
    DYNLIB_RETURN_IF_ERROR(PlanCopyOf(record, plan));
    if (unknown.has_value()) plan.Add(*unknown);
  }
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::PlanCopyOf(const LogIndex::LiveRecord& record, Plan& plan) {
  FrameInfo frame = {.stream = ToUint(record.stream),
                     .slot = record.slot,
                     .ballot = record.ref.ballot,
                     .kind = record.kind};
  if (record.kind == FrameKind::kUnknownEntry || record.kind == FrameKind::kUnknownState) {
    plan.Add(frame);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> payload = reader_.Read(copying_->source, record.ref);
  if (payload.ok()) {
    plan.copied.push_back(*std::move(payload));
    plan.Add(frame, plan.copied.back());
    return absl::OkStatus();
  }
  if (payload.status().code() != absl::StatusCode::kDataLoss) return payload.status();
  // Rule R4: what cannot be read is unknown from now on, not gone.
  const EventField fields[] = {{"what", std::string(ToStd(payload.status().message()))}};
  metrics_->Event("log.record_damaged", fields);
  frame.kind =
      record.kind == FrameKind::kEntry ? FrameKind::kUnknownEntry : FrameKind::kUnknownState;
  plan.Add(frame);
  return absl::OkStatus();
}

}  // namespace dynlib::store
