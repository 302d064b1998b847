#include "dynlib/store/node_log_writer.h"

#include <algorithm>
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

uint64_t MaxBatchBytes(const NodeLog::Options& options) {
  if (options.max_batch_bytes != 0) return options.max_batch_bytes;
  return std::min<uint64_t>(4 << 20, options.segment_bytes / 4);
}

uint64_t ReserveBytes(const NodeLog::Options& options) {
  const uint64_t share = options.segment_bytes / 64 / options.block_bytes * options.block_bytes;
  return std::max({kMinReserveBytes, uint64_t{2} * options.block_bytes, share});
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

absl::Status CheckRecords(const std::vector<LogRecord>& records, uint64_t bytes, uint64_t max) {
  if (records.empty()) return absl::InvalidArgumentError("an append without records");
  for (const LogRecord& record : records) {
    if (ToUint(record.stream) == 0) return absl::InvalidArgumentError("stream 0");
    if (record.kind != RecordKind::kEntry && record.kind != RecordKind::kState) {
      return absl::InvalidArgumentError(
          Cat("record kind ", static_cast<uint64_t>(record.kind), " does not exist"));
    }
  }
  if (bytes <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("an append of ", bytes, " bytes; max_batch_bytes is ", max));
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

void NodeLog::Impl::Plan::Add(const FrameInfo& frame, std::string_view payload) {
  frames.push_back(frame);
  payloads.push_back(payload);
  payload_bytes += payload.size();
}

uint64_t NodeLog::Impl::Plan::Length(uint32_t block_bytes) const {
  return BatchLength(frames.size(), payload_bytes, block_bytes);
}

NodeLog::Impl::Impl(const Options& options, Disk* disk, std::string dir, Executor* log_executor,
                    const Clock* clock, MetricsSink* metrics, std::unique_ptr<DiskLock> lock,
                    LogIndex index, const RecoveredLog& recovered)
    : options_(options),
      max_batch_bytes_(MaxBatchBytes(options)),
      reserve_bytes_(ReserveBytes(options)),
      max_marks_(MaxMarks(options)),
      disk_(disk),
      dir_(std::move(dir)),
      log_executor_(log_executor),
      clock_(clock),
      metrics_(metrics),
      index_(std::move(index)),
      lock_(std::move(lock)),
      files_({options.segment_bytes, options.spare_segments, options.max_segments}, disk, dir_,
             recovered.last_number),
      last_sequence_(recovered.last_sequence),
      last_checksum_(recovered.last_checksum),
      last_generation_(recovered.last_generation),
      reader_(disk, dir_, options.identity) {}

absl::Status NodeLog::Impl::Start(const RecoveredLog& recovered) {
  if (recovered.append_offset.has_value()) {
    DYNLIB_RETURN_IF_ERROR(Activate(recovered.last_generation, *recovered.append_offset));
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
  CountFiles();
  std::lock_guard lock(mutex_);
  WakeLocked();
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::Activate(uint64_t generation, uint64_t offset) {
  const LogIndex::Segment& segment = index_.segments().at(generation);
  active_.number = segment.number;
  active_.generation = generation;
  active_.first_sequence = segment.first_sequence;
  active_.offset = offset;
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

// The methods of NodeLog.

void NodeLog::Impl::Append(std::vector<LogRecord> records, Executor* executor, Done done) {
  uint64_t bytes = 0;
  for (const LogRecord& record : records) bytes += record.payload.size() + kRecordOverheadBytes;
  absl::Status refused = CheckRecords(records, bytes, max_batch_bytes_);
  if (refused.ok()) {
    std::lock_guard lock(mutex_);
    if (!health_.ok()) {
      refused = health_;
    } else if (close_.has_value()) {
      refused = absl::UnavailableError(Cat(dir_, " is being closed"));
    } else if (queued_bytes_ + bytes > options_.max_queued_bytes) {
      ++stats_.refused_queue_full;
      refused = absl::ResourceExhaustedError(Cat(dir_, ": ", queued_bytes_, " bytes wait to be ",
                                                 "written; max_queued_bytes is ",
                                                 options_.max_queued_bytes));
    } else {
      queued_bytes_ += bytes;
      queue_.push_back({.records = std::move(records),
                        .bytes = bytes,
                        .since = clock_->Now(),
                        .executor = executor,
                        .done = std::move(done)});
      WakeLocked();
      return;
    }
  }
  std::vector<Answer> answers;
  answers.push_back({executor, std::move(done), std::move(refused)});
  Deliver(std::move(answers));
}

void NodeLog::Impl::Release(StreamId stream, uint64_t through_slot) {
  std::lock_guard lock(mutex_);
  if (!health_.ok() || stopped_) return;
  // What is about to be dropped needs no release; and the release could hit its successor.
  const bool dropping =
      queued_drops_ > 0 &&
      std::any_of(queue_.begin(), queue_.end(), [&](const Pending& p) { return p.drop == stream; });
  if (dropping || index_.FindStream(stream) == nullptr) return;
  index_.Release(stream, through_slot);
  if (!index_.DeadSegments(active_generation_).empty()) WakeLocked();
}

void NodeLog::Impl::Drop(StreamId stream) {
  std::lock_guard lock(mutex_);
  if (!health_.ok() || close_.has_value()) return;
  ++queued_drops_;
  queue_.push_back({.drop = stream, .bytes = kRecordOverheadBytes, .since = clock_->Now()});
  queued_bytes_ += kRecordOverheadBytes;
  WakeLocked();
}

void NodeLog::Impl::Close(Executor* executor, Done done) {
  std::vector<Answer> answers;
  {
    std::lock_guard lock(mutex_);
    if (health_.ok() && !close_.has_value()) {
      close_ = {executor, std::move(done), absl::OkStatus()};
      WakeLocked();
      return;
    }
    answers.push_back(
        {executor, std::move(done),
         health_.ok() ? absl::UnavailableError(Cat(dir_, " is being closed")) : health_});
  }
  Deliver(std::move(answers));
}

void NodeLog::Impl::Stop() {
  std::vector<Answer> answers;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    answers =
        TakeQueueLocked(absl::CancelledError("the log was destroyed before this was written"));
    if (health_.ok()) health_ = absl::UnavailableError(Cat(dir_, " was destroyed"));
  }
  Deliver(std::move(answers));
}

std::optional<Instant> NodeLog::Impl::OldestPendingSince() const {
  std::lock_guard lock(mutex_);
  if (writing_since_.has_value()) return writing_since_;
  for (const Pending& pending : queue_) {
    if (!pending.drop.has_value()) return pending.since;
  }
  return std::nullopt;
}

uint64_t NodeLog::Impl::RetainedBytes(StreamId stream) const {
  std::lock_guard lock(mutex_);
  const LogIndex::Stream* found = index_.FindStream(stream);
  return found == nullptr ? 0 : found->retained_bytes;
}

absl::Status NodeLog::Impl::Health() const {
  std::lock_guard lock(mutex_);
  return health_;
}

NodeLog::Stats NodeLog::Impl::GetStats() const {
  std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.segments_in_use = index_.segments().size();
  stats.queued_bytes = queued_bytes_;
  return stats;
}

void NodeLog::Impl::CountFiles() {
  std::lock_guard lock(mutex_);
  stats_.segments_spare = files_.spares();
}

void NodeLog::Impl::WakeLocked() {
  blocked_ = false;
  if (running_ || stopped_ || !health_.ok()) return;
  running_ = true;
  log_executor_->Post([self = shared_from_this()] { self->Step(); });
}

std::vector<NodeLog::Impl::Answer> NodeLog::Impl::TakeQueueLocked(const absl::Status& status) {
  std::vector<Answer> answers;
  for (Pending& pending : queue_) {
    queued_bytes_ -= pending.bytes;
    if (pending.drop.has_value()) continue;
    answers.push_back({pending.executor, std::move(pending.done), status});
  }
  queue_.clear();
  queued_drops_ = 0;
  if (close_.has_value()) {
    close_->status = status;
    answers.push_back(*std::exchange(close_, std::nullopt));
  }
  return answers;
}

// One task for each executor, in the order of the answers.
void NodeLog::Impl::Deliver(std::vector<Answer> answers) {
  std::vector<std::pair<Executor*, std::vector<Answer>>> by_executor;
  for (Answer& answer : answers) {
    if (answer.done == nullptr) continue;
    auto it = std::find_if(by_executor.begin(), by_executor.end(),
                           [&](const auto& group) { return group.first == answer.executor; });
    if (it == by_executor.end()) {
      by_executor.emplace_back(answer.executor, std::vector<Answer>());
      it = std::prev(by_executor.end());
    }
    it->second.push_back(std::move(answer));
  }
  for (auto& [executor, group] : by_executor) {
    executor->Post([group = std::move(group)]() mutable {
      for (Answer& answer : group) std::move(answer.done)(std::move(answer.status));
    });
  }
}

// The writer's task.

void NodeLog::Impl::Step() {
  {
    std::lock_guard lock(mutex_);
    if (stopped_ || !health_.ok()) {
      running_ = false;
      return;
    }
  }
  bool more = WriteQueued();
  more |= CopyForward();
  more |= PrepareSpare();
  if (TryClose()) return;
  std::lock_guard lock(mutex_);
  running_ = false;
  if (more || HasWorkLocked()) {
    const bool blocked = blocked_;
    WakeLocked();
    blocked_ = blocked;
  }
}

bool NodeLog::Impl::HasWorkLocked() const {
  if (queue_.size() > queued_drops_) return true;
  if (blocked_) return false;
  return !queue_.empty() || !index_.DeadSegments(active_generation_).empty();
}

NodeLog::Impl::Plan NodeLog::Impl::PlanBatchLocked() {
  Plan plan;
  uint64_t bytes = 0;
  bool has_records = false;
  while (!queue_.empty()) {
    Pending& next = queue_.front();
    if (bytes + next.bytes > max_batch_bytes_) break;
    if (next.drop.has_value() && has_records) break;  // It must not hit those of its own batch.
    has_records |= !next.drop.has_value();
    bytes += next.bytes;
    plan.taken.push_back(std::move(next));
    queue_.pop_front();
  }
  // Marks before drops: what they say of a stream was said before it was dropped.
  PlanMarksLocked(plan, max_marks_);
  for (const Pending& pending : plan.taken) {
    if (pending.drop.has_value()) {
      --queued_drops_;
      if (index_.FindStream(*pending.drop) == nullptr) continue;
      plan.Add({.stream = ToUint(*pending.drop), .slot = last_sequence_, .kind = FrameKind::kDrop});
      continue;
    }
    if (!writing_since_.has_value()) writing_since_ = pending.since;
    for (const LogRecord& record : pending.records) plan.Add(FrameOf(record), record.payload);
  }
  return plan;
}

// A segment is freed by a batch that also holds, or comes after, every mark that outlaws what is in
// it, and every mark that stood in it and is still needed.
void NodeLog::Impl::PlanMarksLocked(Plan& plan, size_t max_frames) {
  std::vector<uint64_t> dead = index_.DeadSegments(active_generation_);
  if (dead.size() > kMaxFrees) dead.resize(kMaxFrees);
  for (uint64_t generation : dead) index_.MoveMarksOut(generation);
  plan.marks = index_.TakeDirtyMarks(max_frames);
  for (const FrameInfo& mark : plan.marks) plan.Add(mark);
  if (index_.has_dirty_marks()) return;
  for (uint64_t generation : dead) {
    plan.frees.push_back(generation);
    plan.Add({.slot = generation, .kind = FrameKind::kFree});
  }
}

bool NodeLog::Impl::WriteQueued() {
  Plan plan;
  {
    std::lock_guard lock(mutex_);
    if (!HasWorkLocked()) return false;
    plan = PlanBatchLocked();
  }
  if (plan.frames.empty()) {  // Drops of streams that do not exist.
    std::lock_guard lock(mutex_);
    for (const Pending& pending : plan.taken) queued_bytes_ -= pending.bytes;
    return false;
  }
  const absl::Status status = Write(plan);
  if (status.ok() || status.code() == absl::StatusCode::kUnknown) return status.ok();
  const size_t count = plan.taken.size();
  Unplan(plan);
  if (FreeSomething()) return true;
  Refuse(count, status);
  return false;
}

// OK: durable and answered. kUnknown: the log is closed for good, all is answered. Else nothing was
// written and the plan stands.
absl::Status NodeLog::Impl::Write(Plan& plan) {
  DYNLIB_RETURN_IF_ERROR(MakeRoom(plan));
  return WriteHere(plan);
}

absl::Status NodeLog::Impl::MakeRoom(Plan& plan) {
  const uint64_t limit = options_.segment_bytes - reserve_bytes_;
  if (active_.file != nullptr && active_.offset + plan.Length(options_.block_bytes) <= limit) {
    return absl::OkStatus();
  }
  uint64_t in_use = 0;
  std::vector<FrameInfo> opening;
  {
    std::lock_guard lock(mutex_);
    in_use = index_.segments().size();
    opening = index_.OpeningFrames();
  }
  DYNLIB_ASSIGN_OR_RETURN(SegmentFiles::Segment segment, files_.Take(in_use));
  active_ = {.number = segment.number,
             .generation = ++last_generation_,
             .first_sequence = last_sequence_ + 1,
             .offset = options_.block_bytes,
             .file = std::move(segment.file)};
  plan.frames.insert(plan.frames.begin(), opening.begin(), opening.end());
  plan.payloads.insert(plan.payloads.begin(), opening.size(), std::string_view());
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::WriteHere(Plan& plan) {
  const SegmentLife life = {options_.identity, active_.number, active_.generation};
  BatchHeader header = {.life = life,
                        .segment_first_sequence = active_.first_sequence,
                        .sequence = last_sequence_ + 1,
                        .previous_checksum = last_checksum_,
                        .synced_through = last_sequence_,
                        .copied_from = plan.copied_from,
                        .frames = plan.frames};
  std::string bytes = EncodeBatch(header, plan.payloads, active_.offset, options_.block_bytes);
  uint64_t offset = active_.offset;
  if (!active_.begun) {  // The segment's header goes with its first batch, in one write.
    offset = 0;
    bytes.insert(0, EncodeSegmentHeader({.life = life,
                                         .segment_bytes = options_.segment_bytes,
                                         .block_bytes = options_.block_bytes,
                                         .first_sequence = active_.first_sequence}));
  }
  const absl::Status status = WriteAndSync(offset, bytes);
  if (!status.ok()) {
    CloseForGood(plan, status);
    return absl::UnknownError(status.message());
  }
  Settle(plan, header);
  return absl::OkStatus();
}

absl::Status NodeLog::Impl::WriteAndSync(uint64_t offset, std::string_view bytes) {
  const Instant start = clock_->Now();
  DYNLIB_RETURN_IF_ERROR(active_.file->WriteAt(offset, bytes));
  DYNLIB_RETURN_IF_ERROR(active_.file->Sync());
  metrics_->Observe("log.sync_us", ToMicros(clock_->Now() - start));
  metrics_->Observe("log.batch_bytes", static_cast<int64_t>(bytes.size()));
  return absl::OkStatus();
}

void NodeLog::Impl::Settle(Plan& plan, const BatchHeader& header) {
  last_sequence_ = header.sequence;
  last_checksum_ = header.checksum;
  std::vector<Answer> answers;
  std::vector<LogIndex::Segment> freed;
  {
    std::lock_guard lock(mutex_);
    if (!active_.begun) {
      index_.AddSegment({.generation = active_.generation,
                         .number = active_.number,
                         .segment_bytes = options_.segment_bytes,
                         .block_bytes = options_.block_bytes,
                         .first_sequence = active_.first_sequence});
      active_generation_ = active_.generation;
    }
    index_.Apply(header, active_.offset);
    for (uint64_t generation : plan.frees) freed.push_back(index_.Free(generation));
    writing_since_.reset();
    blocked_ = false;
    ++stats_.batches;
    stats_.written_bytes += header.total_length;
    stats_.segments_recycled += freed.size();
    stats_.copied_forward_records += plan.copied_from != 0 ? plan.frames.size() : 0;
    for (Pending& pending : plan.taken) {
      queued_bytes_ -= pending.bytes;
      stats_.records += pending.records.size();
      if (pending.drop.has_value()) continue;
      answers.push_back({pending.executor, std::move(pending.done), absl::OkStatus()});
    }
  }
  active_.begun = true;
  active_.offset += header.total_length;
  metrics_->Observe("log.batch_appends", static_cast<int64_t>(answers.size()));
  Deliver(std::move(answers));
  for (const LogIndex::Segment& segment : freed) {
    // A file that stays behind is found unused at the next Open.
    files_.Return(segment.number, segment.segment_bytes == options_.segment_bytes).IgnoreError();
  }
  CountFiles();
}

void NodeLog::Impl::CloseForGood(Plan& plan, const absl::Status& why) {
  std::vector<Answer> answers;
  {
    std::lock_guard lock(mutex_);
    const absl::Status unknown =
        absl::UnknownError(Cat("it is not known whether this is durable: ", ToStd(why.message())));
    for (Pending& pending : plan.taken) {
      queued_bytes_ -= pending.bytes;
      if (pending.drop.has_value()) continue;
      answers.push_back({pending.executor, std::move(pending.done), unknown});
    }
    health_ = absl::UnavailableError(
        Cat(dir_, " closed itself after a failed write: ", ToStd(why.message())));
    for (Answer& answer : TakeQueueLocked(health_)) answers.push_back(std::move(answer));
    writing_since_.reset();
    running_ = false;
  }
  const EventField fields[] = {{"dir", dir_}, {"why", std::string(ToStd(why.message()))}};
  metrics_->Event("log.closed", fields);
  Deliver(std::move(answers));
}

// Puts back what was taken for a batch that could not be begun.
void NodeLog::Impl::Unplan(Plan& plan) {
  std::lock_guard lock(mutex_);
  index_.ReturnMarks(plan.marks);
  writing_since_.reset();
  while (!plan.taken.empty()) {
    if (plan.taken.back().drop.has_value()) ++queued_drops_;
    queue_.push_front(std::move(plan.taken.back()));
    plan.taken.pop_back();
  }
}

// No segment is to be had: the reserve at the end of the active one still takes a batch that frees
// others. True if it did.
bool NodeLog::Impl::FreeSomething() {
  if (active_.file == nullptr || !active_.begun) return false;
  Plan plan;
  {
    std::lock_guard lock(mutex_);
    PlanMarksLocked(plan, kMinReserveBytes / 2 / kBatchFrameBytes - kMaxFrees - 4);
    const uint64_t end = active_.offset + plan.Length(options_.block_bytes);
    if (plan.frees.empty() || end > options_.segment_bytes) {
      index_.ReturnMarks(plan.marks);
      return false;
    }
  }
  return WriteHere(plan).ok();
}

// Refuses the appends among the first `count` in the queue; drops go on waiting.
void NodeLog::Impl::Refuse(size_t count, const absl::Status& why) {
  std::vector<Answer> answers;
  {
    std::lock_guard lock(mutex_);
    const absl::Status refused = NothingWritten(why);
    std::deque<Pending> drops;
    for (size_t i = 0; i < count && !queue_.empty(); ++i) {
      Pending pending = std::move(queue_.front());
      queue_.pop_front();
      if (pending.drop.has_value()) {
        drops.push_back(std::move(pending));
        continue;
      }
      queued_bytes_ -= pending.bytes;
      ++stats_.refused_no_space;
      answers.push_back({pending.executor, std::move(pending.done), refused});
    }
    for (; !drops.empty(); drops.pop_back()) queue_.push_front(std::move(drops.back()));
    blocked_ = true;
  }
  metrics_->Count("log.refused_no_space", static_cast<int64_t>(answers.size()));
  Deliver(std::move(answers));
}

}  // namespace dynlib::store
