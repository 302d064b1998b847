#include "dynlib/store/node_log_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kMinReserveBytes = 8192;
constexpr size_t kMaxMarks = 1024;
constexpr size_t kMaxFrees = 16;
constexpr uint64_t kBatchFrameBytes = 2 * kFrameInfoBytes;

// Kept free at the end of each segment for batches that free others.
uint64_t ReserveBytes(uint64_t segment_bytes, uint64_t block_bytes) {
  const uint64_t share = segment_bytes / 64 / block_bytes * block_bytes;
  return std::max({kMinReserveBytes, 2 * block_bytes, share});
}

size_t MaxMarks(const NodeLog::Options& options) {
  return std::min<uint64_t>(kMaxMarks, options.segment_bytes / 8 / kBatchFrameBytes);
}

FrameInfo FrameOf(const LogRecord& record) {
  return {.stream = ToUint(record.stream),
          .slot = record.slot,
          .ballot = record.ballot,
          .kind = record.kind == RecordKind::kEntry ? FrameKind::kEntry : FrameKind::kState};
}

// What an append gets that could not be written: space as such, anything else may pass too.
absl::Status NothingWritten(const absl::Status& why) {
  const std::string message = Cat("nothing was written: ", ToStd(why.message()));
  if (why.code() == absl::StatusCode::kResourceExhausted) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::UnavailableError(message);
}

}  // namespace

void NodeLog::Impl::Plan::Add(const FrameInfo& frame, std::string_view payload,
                              std::string_view rest) {
  frames.push_back(frame);
  payloads.push_back(payload);
  rests.push_back(rest);
  payload_bytes += payload.size() + rest.size();
}

uint64_t NodeLog::Impl::Plan::Length(uint32_t block_bytes) const {
  return BatchLength(frames.size(), payload_bytes, block_bytes);
}

NodeLog::Impl::Impl(const Options& options, Disk* disk, std::string dir, Executor* log_executor,
                    const Clock* clock, MetricsSink* metrics, std::unique_ptr<DiskLock> lock,
                    LogIndex index, const RecoveredLog& recovered)
    : options_(options),
      max_batch_bytes_(MaxBatchBytes(options)),
      max_marks_(MaxMarks(options)),
      rest_bytes_(RestSegmentBytes(options.segment_bytes, options.block_bytes)),
      disk_(disk),
      dir_(std::move(dir)),
      log_executor_(log_executor),
      clock_(clock),
      metrics_(metrics),
      index_(std::move(index)),
      lock_(std::move(lock)),
      files_({options.segment_bytes, options.spare_segments, options.spares_at_open,
              options.max_segments},
             disk, dir_, recovered.last_number),
      last_sequence_(recovered.last_sequence),
      last_checksum_(recovered.last_checksum),
      last_generation_(recovered.last_generation),
      reader_(disk, dir_, options.identity) {
  index_.SetUnarchivedBound(options.max_unarchived_bytes);
}

absl::Status NodeLog::Impl::Start(const RecoveredLog& recovered) {
  if (recovered.append_offset.has_value()) {
    DYNLIB_RETURN_IF_ERROR(Activate(recovered.last_generation, *recovered.append_offset));
    files_.SetBegun();
  }
  for (const RecoveredLog::Unused& unused : recovered.unused) {
    DYNLIB_RETURN_IF_ERROR(files_.Return(unused.number, unused.right_shape));
  }
  // The first append should not have to wait for a segment; but a full disk is no reason not to
  // open.
  while (active_.file == nullptr && files_.spares() == 0) {
    if (!files_.WantsStep(index_.segments().size())) break;
    const absl::Status status = files_.PrepareStep();
    if (status.code() == absl::StatusCode::kResourceExhausted) break;
    DYNLIB_RETURN_IF_ERROR(status);
  }
  DYNLIB_RETURN_IF_ERROR(LogLosses(recovered));
  std::lock_guard lock(mutex_);
  WakeLocked();
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::Activate(uint64_t generation, uint64_t offset) {
  const LogIndex::Segment& segment = index_.segments().at(generation);
  active_.number = segment.number;
  active_.generation = generation;
  active_.first_sequence = segment.first_sequence;
  active_.bytes = segment.segment_bytes;
  active_.offset = offset;
  spare_pace_ = files_.Pace(offset, active_.bytes);
  active_.begun = true;
  active_generation_ = generation;
  DYNLIB_ASSIGN_OR_RETURN(active_.file,
                          disk_->Open(SegmentPath(dir_, segment.number), OpenMode::kReadWrite));
  return absl::OkStatus();
}

// A loss is written to every stream's marks first, and only then is the gap known, or the file that
// may have held the lost batch set aside. A crash in between finds the loss again.
absl::Status NodeLog::Impl::LogLosses(const RecoveredLog& recovered) {
  while (index_.has_dirty_marks()) {
    Plan plan;
    for (const FrameInfo& mark : index_.TakeDirtyMarks(max_marks_)) plan.Add(mark);
    if (!plan.frames.empty()) DYNLIB_RETURN_IF_ERROR(Write(plan));
  }
  Plan plan;
  for (const LogIndex::Gap& gap : recovered.new_gaps) {
    if (plan.frames.size() == max_marks_) break;
    plan.Add({.slot = gap.first, .ballot = gap.last, .kind = FrameKind::kGap});
  }
  if (!plan.frames.empty()) DYNLIB_RETURN_IF_ERROR(Write(plan));
  for (uint64_t number : recovered.unreadable) {
    const std::string path = SegmentPath(dir_, number);
    DYNLIB_RETURN_IF_ERROR(disk_->Rename(path, Cat(path, ".bad")));
  }
  return recovered.unreadable.empty() ? absl::OkStatus() : disk_->SyncDir(dir_);
}

// Writing, with the role.

// The batch at the front of the queue, with what the index has to say; or that alone.
NodeLog::Impl::Wrote NodeLog::Impl::WriteQueued(Meanwhile* meanwhile) {
  BatchRef batch;
  {
    std::lock_guard lock(mutex_);
    const bool can_wait =
        queued_appends_ == 0 && (blocked_ || (queue_.empty() && !index_has_dead_));
    if (stopped_ || !health_.ok() || can_wait) return Wrote::kNothing;
    batch = TakeBatchLocked();
  }
  Plan plan = PlanBatch(std::move(batch));
  if (plan.frames.empty()) {  // Drops of streams that do not exist.
    std::lock_guard lock(mutex_);
    if (plan.batch != nullptr) SettleLocked(std::move(plan.batch), absl::OkStatus());
    return Wrote::kNothing;
  }
  if (meanwhile != nullptr && !MakeRoomNow(plan)) {
    Unplan(plan);
    return Wrote::kNeedsTask;
  }
  const absl::Status status = Write(plan, meanwhile);
  if (status.ok()) return Wrote::kSomething;
  if (status.code() == absl::StatusCode::kUnknown) return Wrote::kNothing;
  Unplan(plan);
  if (FreeSomething()) return Wrote::kSomething;
  Refuse(status);
  return Wrote::kNothing;
}

NodeLog::Impl::BatchRef NodeLog::Impl::TakeBatchLocked() {
  if (queue_.empty()) return nullptr;
  BatchRef batch = std::move(queue_.front());
  queue_.pop_front();
  batch->queued = false;
  queued_appends_ -= batch->appends;
  queued_drops_ -= batch->pending.size() - batch->appends;
  if (batch->appends > 0) writing_since_ = batch->since;
  last_batch_size_ = batch->pending.size();
  return batch;
}

NodeLog::Impl::Plan NodeLog::Impl::PlanBatch(BatchRef batch) {
  Plan plan;
  const size_t size = batch == nullptr ? 0 : batch->pending.size();
  size_t records = 0;
  for (size_t i = 0; i < size; ++i) records += batch->pending[i].records.size();
  plan.frames.reserve(records);
  plan.payloads.reserve(records);
  plan.rests.reserve(records);
  if (index_has_marks_ || index_has_dead_ || (batch != nullptr && batch->appends < size)) {
    std::lock_guard lock(index_mutex_);
    // Marks before drops: what they say of a stream was said before it was dropped.
    PlanMarksLocked(plan, max_marks_);
    for (size_t i = 0; i < size; ++i) {
      const std::optional<StreamId>& drop = batch->pending[i].drop;
      if (!drop.has_value() || index_.FindStream(*drop) == nullptr) continue;
      plan.Add({.stream = ToUint(*drop), .slot = last_sequence_, .kind = FrameKind::kDrop});
    }
  }
  for (size_t i = 0; i < size; ++i) {
    for (const LogRecord& record : batch->pending[i].records) {
      plan.Add(FrameOf(record), record.payload, *record.rest);
      ++plan.records;
    }
  }
  plan.batch = std::move(batch);
  return plan;
}

// A segment is freed by a batch that also holds, or comes after, every mark that outlaws what is in
// it, and every mark that stood in it and is still needed.
void NodeLog::Impl::PlanMarksLocked(Plan& plan, size_t max_frames) {
  CatchUpLocked();
  std::vector<uint64_t> dead = index_.DeadSegments(active_generation_);
  if (dead.size() > kMaxFrees) dead.resize(kMaxFrees);
  for (uint64_t generation : dead) index_.MoveMarksOut(generation);
  plan.marks = index_.TakeDirtyMarks(max_frames);
  for (const FrameInfo& mark : plan.marks) plan.Add(mark);
  NoteIndexLocked();
  if (index_.has_dirty_marks()) return;
  for (uint64_t generation : dead) {
    plan.frees.push_back(generation);
    plan.Add({.slot = generation, .kind = FrameKind::kFree});
  }
}

// Counts in the batches that became durable.
void NodeLog::Impl::CatchUpLocked() const {
  if (durable_.empty()) return;
  for (const Durable& durable : durable_) index_.Apply(durable.header, durable.offset);
  durable_.clear();
  NoteIndexLocked();
}

void NodeLog::Impl::NoteIndexLocked() const {
  index_has_marks_ = index_.has_dirty_marks();
  index_has_dead_ = index_.has_dead_segments(active_generation_);
  index_has_full_ = !index_.full_streams().empty();
}

// OK: durable and settled. kUnknown: the log is closed for good, all is settled. Else nothing was
// written and the plan stands.
absl::Status NodeLog::Impl::Write(Plan& plan, Meanwhile* meanwhile) {
  DYNLIB_RETURN_IF_ERROR(MakeRoom(plan));
  return WriteHere(plan, meanwhile);
}

bool NodeLog::Impl::HasRoom(const Plan& plan) const {
  if (active_.file == nullptr) return false;
  const uint64_t limit = active_.bytes - ReserveBytes(active_.bytes, options_.block_bytes);
  return active_.offset + plan.Length(options_.block_bytes) <= limit;
}

// Room that is to be had without a call of the disk: here, or in a segment that is ready.
bool NodeLog::Impl::MakeRoomNow(Plan& plan) {
  if (HasRoom(plan)) return true;
  std::optional<SegmentFiles::Segment> segment = files_.TakeReady();
  if (!segment.has_value()) return false;
  BeginSegment(*std::move(segment), plan);
  std::lock_guard lock(mutex_);
  WakeLocked();  // To make the next one ready, and see whether to copy forward.
  return true;
}

absl::Status NodeLog::Impl::MakeRoom(Plan& plan) {
  if (active_.file != nullptr && !active_.begun) return absl::OkStatus();
  if (HasRoom(plan)) return absl::OkStatus();
  ReturnFreed();
  uint64_t in_use = 0;
  {
    std::lock_guard lock(index_mutex_);
    in_use = index_.segments().size();
  }
  absl::StatusOr<SegmentFiles::Segment> segment = files_.Take(in_use);
  if (!segment.ok()) return NameHolder(segment.status());
  BeginSegment(*std::move(segment), plan);
  return absl::OkStatus();
}

// Who is short of segments wants to know who holds them.
absl::Status NodeLog::Impl::NameHolder(const absl::Status& why) const {
  if (why.code() != absl::StatusCode::kResourceExhausted) return why;
  Stats holders;
  {
    std::lock_guard lock(index_mutex_);
    CatchUpLocked();
    NameHoldersLocked(holders);
  }
  return absl::ResourceExhaustedError(Cat(ToStd(why.message()), "; stream ",
                                          ToUint(holders.largest_stream), " retains ",
                                          holders.largest_stream_bytes, " bytes, the most"));
}

void NodeLog::Impl::BeginSegment(SegmentFiles::Segment segment, Plan& plan) {
  std::vector<FrameInfo> opening;
  {
    std::lock_guard lock(index_mutex_);
    CatchUpLocked();
    opening = index_.OpeningFrames();
  }
  active_ = {.number = segment.number,
             .generation = ++last_generation_,
             .first_sequence = last_sequence_ + 1,
             .bytes = segment.bytes,
             .offset = options_.block_bytes,
             .file = std::move(segment.file)};
  plan.frames.insert(plan.frames.begin(), opening.begin(), opening.end());
  plan.payloads.insert(plan.payloads.begin(), opening.size(), std::string_view());
  plan.rests.insert(plan.rests.begin(), opening.size(), std::string_view());
}

absl::Status NodeLog::Impl::WriteHere(Plan& plan, Meanwhile* meanwhile) {
  const SegmentLife life = {options_.identity, active_.number, active_.generation};
  // The segment's header goes with its first batch, in one write.
  const uint64_t before = active_.begun ? 0 : options_.block_bytes;
  const uint64_t length = before + plan.Length(options_.block_bytes);
  BatchHeader header = {.life = life,
                        .segment_first_sequence = active_.first_sequence,
                        .sequence = last_sequence_ + 1,
                        .previous_checksum = last_checksum_,
                        .synced_through = last_sequence_,
                        .copied_from = plan.copied_from,
                        .frames = std::move(plan.frames)};
  char* const bytes = buffer_.Get(length);
  if (!active_.begun) {
    const std::string segment = EncodeSegmentHeader({.life = life,
                                                     .segment_bytes = active_.bytes,
                                                     .block_bytes = options_.block_bytes,
                                                     .first_sequence = active_.first_sequence});
    std::memcpy(bytes, segment.data(), segment.size());
  }
  EncodeBatch(header, plan.payloads, active_.offset, options_.block_bytes, bytes + before,
              plan.rests);
  const absl::Status status =
      WriteAndSync(plan, active_.offset - before, std::string_view(bytes, length), meanwhile);
  if (!status.ok()) {
    CloseForGood(plan, status);
    return absl::UnknownError(status.message());
  }
  Written(plan, std::move(header));
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::WriteAndSync(const Plan& plan, uint64_t offset, std::string_view bytes,
                                         Meanwhile* meanwhile) {
  const Instant start = clock_->Now();
  // Who wrote for others as well leaves the processor to them.
  const bool alone = plan.batch != nullptr && plan.batch->appends == 1;
  const DiskWait wait = meanwhile != nullptr && alone ? meanwhile->wait() : DiskWait::kSleep;
  const bool in_halves = meanwhile != nullptr && (meanwhile->has_work() || wait == DiskWait::kPoll);
  if (!in_halves) {
    DYNLIB_RETURN_IF_ERROR(active_.file->WriteDurably(offset, bytes));
  } else {
    DYNLIB_RETURN_IF_ERROR(active_.file->StartWriteDurably(offset, bytes, wait));
    meanwhile->Run();
    DYNLIB_RETURN_IF_ERROR(active_.file->FinishWriteDurably());
  }
  metrics_->Observe("log.sync_us", ToMicros(clock_->Now() - start));
  metrics_->Observe("log.batch_bytes", static_cast<int64_t>(bytes.size()));
  return absl::OkStatus();
}

void NodeLog::Impl::Written(Plan& plan, BatchHeader header) {
  last_sequence_ = header.sequence;
  last_checksum_ = header.checksum;
  const uint64_t length = header.total_length;
  const uint64_t copied = plan.copied_from != 0 ? header.frames.size() : 0;
  uint64_t in_use = 0;
  std::vector<LogIndex::Segment> freed;
  {
    std::lock_guard lock(index_mutex_);
    if (!active_.begun) {
      index_.AddSegment({.generation = active_.generation,
                         .number = active_.number,
                         .segment_bytes = active_.bytes,
                         .block_bytes = options_.block_bytes,
                         .first_sequence = active_.first_sequence});
      active_generation_ = active_.generation;
    }
    durable_.push_back({std::move(header), active_.offset});
    // What is not an append's counts at once.
    if (plan.batch == nullptr || !plan.frees.empty()) CatchUpLocked();
    for (uint64_t generation : plan.frees) freed.push_back(index_.Free(generation));
    if (!freed.empty()) NoteIndexLocked();
    in_use = index_.segments().size();
  }
  active_.begun = true;
  active_.offset += length;
  spare_pace_ = files_.Pace(active_.offset, active_.bytes);
  const bool spare_due = files_.IsStepDue(in_use, spare_pace_);
  metrics_->Observe("log.batch_appends",
                    static_cast<int64_t>(plan.batch == nullptr ? 0 : plan.batch->appends));
  std::lock_guard lock(mutex_);
  writing_since_.reset();
  blocked_ = false;
  ++stats_.batches;
  stats_.written_bytes += length;
  stats_.records += plan.records;
  stats_.segments_recycled += freed.size();
  stats_.copied_forward_records += copied;
  if (plan.batch != nullptr) SettleLocked(std::move(plan.batch), absl::OkStatus());
  for (LogIndex::Segment& segment : freed) freed_.push_back(std::move(segment));
  if (spare_due || !freed.empty()) WakeLocked();  // The task makes spares and gives files back.
}

void NodeLog::Impl::CloseForGood(Plan& plan, const absl::Status& why) {
  {
    std::lock_guard lock(mutex_);
    if (plan.batch != nullptr) {
      SettleLocked(std::move(plan.batch),
                   absl::UnknownError(
                       Cat("it is not known whether this is durable: ", ToStd(why.message()))));
    }
    health_ = absl::UnavailableError(
        Cat(dir_, " closed itself after a failed write: ", ToStd(why.message())));
    SettleQueueLocked(health_);
    writing_since_.reset();
  }
  const EventField fields[] = {{"dir", dir_}, {"why", std::string(ToStd(why.message()))}};
  metrics_->Event("log.closed", fields);
}

// Puts back what was taken for a batch that could not be begun.
void NodeLog::Impl::Unplan(Plan& plan) {
  {
    std::lock_guard lock(index_mutex_);
    index_.ReturnMarks(plan.marks);
    NoteIndexLocked();
  }
  std::lock_guard lock(mutex_);
  writing_since_.reset();
  if (plan.batch == nullptr) return;
  if (stopped_) {
    SettleLocked(std::move(plan.batch), health_);
    return;
  }
  Batch& batch = *plan.batch;
  queued_appends_ += batch.appends;
  queued_drops_ += batch.pending.size() - batch.appends;
  batch.queued = true;
  batch.wants_task = true;  // Who could have written it has given up.
  if (batch.lead == Batch::kHasRole) {
    batch.lead = Batch::kWait;
    batch.has_candidate = false;
  }
  queue_.push_front(std::move(plan.batch));
}

// No segment is to be had: the reserve at the end of the active one still takes a batch that frees
// others. True if it did.
bool NodeLog::Impl::FreeSomething() {
  if (active_.file == nullptr || !active_.begun) return false;
  Plan plan;
  {
    std::lock_guard lock(index_mutex_);
    PlanMarksLocked(plan, kMinReserveBytes / 2 / kBatchFrameBytes - kMaxFrees - 4);
    const uint64_t end = active_.offset + plan.Length(options_.block_bytes);
    if (plan.frees.empty() || end > active_.bytes) {
      index_.ReturnMarks(plan.marks);
      NoteIndexLocked();
      return false;
    }
  }
  return WriteHere(plan).ok();
}

// Refuses the appends of the batch at the front of the queue; drops go on waiting.
void NodeLog::Impl::Refuse(const absl::Status& why) {
  uint64_t refused = 0;
  {
    std::lock_guard lock(mutex_);
    blocked_ = true;
    if (queue_.empty() || queue_.front()->appends == 0) return;
    BatchRef batch = TakeBatchLocked();
    writing_since_.reset();
    refused = batch->appends;
    stats_.refused_no_space += refused;
    auto drops = std::make_shared<Batch>();
    for (Pending& pending : batch->pending) {
      if (!pending.drop.has_value()) continue;
      drops->bytes += kRecordOverheadBytes;
      drops->pending.push_back(std::move(pending));
    }
    std::erase_if(batch->pending, [](const Pending& p) { return p.drop.has_value(); });
    batch->bytes -= drops->bytes;
    SettleLocked(std::move(batch), NothingWritten(why));
    queued_drops_ += drops->pending.size();
    if (!drops->pending.empty()) queue_.push_front(std::move(drops));
  }
  metrics_->Count("log.refused_no_space", static_cast<int64_t>(refused));
}

}  // namespace dynlib::store
