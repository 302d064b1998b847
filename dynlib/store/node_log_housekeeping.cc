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
// Shorter, and what a segment begins and ends with would fill it.
constexpr uint64_t kMinRestBytes = 16 << 10;

}  // namespace

// The task.

void NodeLog::Impl::Step() {
  {
    std::lock_guard lock(mutex_);
    if (stopped_ || !health_.ok()) {
      running_ = false;
      return;
    }
  }
  bool more = TakeRole() && StepWithRole();
  ReturnFreed();
  more |= PrepareSpare();
  std::lock_guard lock(mutex_);
  running_ = false;
  if (more || task_has_role_ || (!has_role_ && HasWorkLocked())) WakeLocked();
}

// The role, if it is free or was left to the task. If not, and what only the task does is due, it
// is the next to have it.
bool NodeLog::Impl::TakeRole() {
  bool wants_copying = false;
  {
    std::lock_guard lock(index_mutex_);
    wants_copying = CopyVictimLocked().has_value();
  }
  std::lock_guard lock(mutex_);
  if (has_role_ && !task_has_role_) {
    task_wants_role_ |= close_.has_value() || (wants_copying && !blocked_);
    return false;
  }
  has_role_ = task_has_role_ = true;
  task_wants_role_ = false;
  return true;
}

// True if there is more to do.
bool NodeLog::Impl::StepWithRole() {
  bool more = WriteQueued(/*meanwhile=*/nullptr) == Wrote::kSomething;
  more |= Shrink();
  if (!BeginCopying() && !IsClosing()) {
    ReleaseRole();
    AnswerSettled();
    return more;
  }
  AnswerSettled();
  more |= CopyForward();
  TryClose();
  ReleaseRole();
  AnswerSettled();
  return more;
}

bool NodeLog::Impl::IsClosing() const {
  std::lock_guard lock(mutex_);
  return close_.has_value();
}

// Files of freed segments. One that stays behind is found unused at the next Open.
void NodeLog::Impl::ReturnFreed() {
  std::vector<LogIndex::Segment> freed;
  bool keep = true;
  {
    std::lock_guard lock(mutex_);
    freed.swap(freed_);
    keep = !small_;
  }
  for (const LogIndex::Segment& segment : freed) {
    const bool right_shape = segment.segment_bytes == options_.segment_bytes;
    files_.Return(segment.number, keep && right_shape).IgnoreError();
  }
}

// No faster than the log needs it: what the disk does for a spare, appends wait for.
bool NodeLog::Impl::PrepareSpare() {
  {
    std::lock_guard lock(mutex_);
    if (!health_.ok() || stopped_ || close_.has_value() || small_) return false;
  }
  uint64_t in_use = 0;
  {
    std::lock_guard lock(index_mutex_);
    in_use = index_.segments().size();
  }
  const uint64_t pace = spare_pace_;
  if (!files_.IsStepDue(in_use, pace)) return false;
  files_.PrepareStep().IgnoreError();  // It is tried again when a segment is needed.
  return files_.IsStepDue(in_use, pace);
}

// A step of what ReleaseSpace asked for; true if there is more. A segment that it leaves is freed,
// and removed, like any.
bool NodeLog::Impl::Shrink() {
  {
    std::lock_guard lock(mutex_);
    if (!shrinking_ || queued_appends_ > 0 || !health_.ok() || close_.has_value()) return false;
  }
  bool roll = false;
  {
    std::lock_guard lock(index_mutex_);
    CatchUpLocked();
    roll = MayRollLocked();
  }
  if (roll) {
    absl::StatusOr<SegmentFiles::Segment> small = files_.MakeSmall(rest_bytes_);
    if (small.ok()) {
      Plan plan;
      BeginSegment(*std::move(small), plan);
      if (WriteHere(plan).ok()) return true;
    }
  }
  files_.DropSpares();
  std::lock_guard lock(mutex_);
  shrinking_ = false;
  return false;
}

// Nothing in the active segment is needed, and a small one would take less.
bool NodeLog::Impl::MayRollLocked() const {
  if (active_.file == nullptr || !active_.begun) return false;
  if (active_.bytes <= rest_bytes_ || rest_bytes_ < kMinRestBytes) return false;
  return index_.segments().at(active_.generation).live_records == 0;
}

void NodeLog::Impl::TryClose() {
  {
    std::lock_guard lock(mutex_);
    const bool waits = queued_appends_ > 0 || (!queue_.empty() && !blocked_);
    if (!health_.ok() || !close_.has_value() || waits) return;
  }
  Plan plan;
  {
    std::lock_guard lock(index_mutex_);
    PlanMarksLocked(plan, max_marks_);
    plan.Add({.kind = FrameKind::kClose});
  }
  absl::Status status = Write(plan);
  if (status.code() == absl::StatusCode::kUnknown) return;
  if (!status.ok() && active_.file != nullptr && active_.begun) {
    Plan marker;
    marker.Add({.kind = FrameKind::kClose});
    if (active_.offset + marker.Length(options_.block_bytes) <= active_.bytes) {
      status = WriteHere(marker);
      if (status.code() == absl::StatusCode::kUnknown) return;
    }
  }
  ReturnFreed();
  active_.file.reset();
  lock_.reset();  // Before the answer: the caller may open the directory again at once.
  std::lock_guard lock(mutex_);
  health_ = absl::UnavailableError(Cat(dir_, " is closed"));
  SettleCloseLocked(status);  // It comes first: what is queued are drops, which nobody waits for.
  SettleQueueLocked(health_);
}

// Copying forward (rule L6).

// What copying the segment forward takes at most. With batches of few blocks each, what fills up
// the last block counts: without it, a log of small batches copied the same records for ever.
uint64_t NodeLog::Impl::CopiedBytes(const LogIndex::Segment& segment) const {
  const uint64_t batches = segment.live_bytes / std::min(kCopyBytes, max_batch_bytes_) + 1;
  return segment.live_bytes + batches * BatchLength(0, 0, options_.block_bytes);
}

// The closed segment with the least in it, if too many are in use and copying gains at least half
// of a segment.
std::optional<uint64_t> NodeLog::Impl::CopyVictimLocked() const {
  // Known without a look at the newest batches, whose answers wait for this.
  if (index_.segments().size() <= options_.copy_forward_above) return std::nullopt;
  CatchUpLocked();
  const size_t dead = index_.DeadSegments(active_generation_).size();
  if (index_.segments().size() - dead <= options_.copy_forward_above) return std::nullopt;
  const LogIndex::Segment* victim = nullptr;
  for (const auto& [generation, segment] : index_.segments()) {
    if (generation == active_generation_ || segment.live_records == 0) continue;
    if (CopiedBytes(segment) > segment.segment_bytes / 2) continue;
    if (victim == nullptr || segment.live_bytes < victim->live_bytes) victim = &segment;
  }
  if (victim == nullptr) return std::nullopt;
  return victim->generation;
}

bool NodeLog::Impl::BeginCopying() {
  {
    std::lock_guard lock(mutex_);
    if (!health_.ok() || close_.has_value() || blocked_) {
      copying_.reset();
      return false;
    }
  }
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
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
      std::lock_guard lock(index_mutex_);
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
