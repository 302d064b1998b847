#include "dynlib/store/store.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store_record.h"

namespace dynlib::store {
namespace {

constexpr TreeId kTree{1};
constexpr StreamId kStream{1};

using Done = absl::AnyInvocable<void(absl::Status)>;

absl::Status CheckLimits(const WriteBatch& batch) {
  for (const WriteBatch::Operation& operation : batch.operations()) {
    if (operation.key.size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(
          Cat("a key of ", operation.key.size(), " bytes; the limit is ", kMaxKeyBytes));
    }
    if (operation.value.has_value() && operation.value->size() > kMaxValueBytes) {
      return absl::InvalidArgumentError(
          Cat("a value of ", operation.value->size(), " bytes; the limit is ", kMaxValueBytes));
    }
  }
  return absl::OkStatus();
}

absl::Status Validate(const Store::Options& options) {
  const uint64_t after = options.checkpoint_after_bytes;
  if (after < (64 << 10) || after > (uint64_t{1} << 40)) {
    return absl::InvalidArgumentError(Cat("Store::Options::checkpoint_after_bytes = ", after,
                                          " is not in [", 64 << 10, ", ", uint64_t{1} << 40, "]"));
  }
  if (options.max_pending_bytes < options.log.max_batch_bytes) {
    return absl::InvalidArgumentError(
        Cat("Store::Options::max_pending_bytes = ", options.max_pending_bytes,
            " is less than log.max_batch_bytes = ", options.log.max_batch_bytes));
  }
  return absl::OkStatus();
}

void Answer(Executor* executor, Done done, absl::Status status) {
  executor->Post([done = std::move(done), status = std::move(status)]() mutable {
    std::move(done)(std::move(status));
  });
}

}  // namespace

class Store::Impl : public std::enable_shared_from_this<Store::Impl> {
 public:
  Impl(const Options& options, Executors executors, std::unique_ptr<NodeLog> log,
       std::unique_ptr<PageFile> pages)
      : options_(options),
        executors_(executors),
        pages_(std::move(pages)),
        tree_(pages_->FindTree(kTree)),
        log_(std::move(log)) {
    last_sequence_ = tree_->position();
  }

  void Write(const WriteBatch& batch, Executor* executor, Done done);
  void Checkpoint(Executor* executor, Done done);
  void Close(Executor* executor, Done done);
  void Stop();

  Snapshot snapshot() const { return tree_->snapshot(); }
  absl::Status Health() const {
    std::lock_guard lock(mutex_);
    return health_;
  }
  NodeLog::Stats LogStats() const {
    const std::shared_ptr<NodeLog> log = Log();
    return log == nullptr ? NodeLog::Stats() : log->GetStats();
  }

 private:
  // Null once the Store is gone.
  std::shared_ptr<NodeLog> Log() const {
    std::lock_guard lock(mutex_);
    return log_;
  }
  absl::Status AdmitLocked(uint64_t bytes);
  void Logged(uint64_t sequence, uint64_t bytes, const WriteBatch& batch, absl::Status status,
              Executor* executor, Done done);
  absl::Status RunCheckpoint();
  void NudgePosition();
  void CheckpointIfDue(bool log_is_full);
  void FailLocked(const absl::Status& why);

  const Options options_;
  const Executors executors_;
  const std::unique_ptr<PageFile> pages_;
  Tree* const tree_;

  mutable std::mutex mutex_;
  std::shared_ptr<NodeLog> log_;
  absl::Status health_;
  uint64_t last_sequence_ = 0;
  uint64_t pending_bytes_ = 0;
  uint64_t bytes_since_checkpoint_ = 0;
  bool checkpoint_due_ = false;  // One is posted.
};

absl::Status Store::Impl::AdmitLocked(uint64_t bytes) {
  DYNLIB_RETURN_IF_ERROR(health_);
  if (pending_bytes_ + bytes > options_.max_pending_bytes) {
    return absl::ResourceExhaustedError(Cat(pending_bytes_, " bytes of writes are pending; ",
                                            "max_pending_bytes is ", options_.max_pending_bytes));
  }
  return absl::OkStatus();
}

void Store::Impl::Write(const WriteBatch& batch, Executor* executor, Done done) {
  absl::Status status = CheckLimits(batch);
  if (!status.ok()) return Answer(executor, std::move(done), std::move(status));
  std::string payload = EncodeWriteBatch(batch);
  const uint64_t bytes = payload.size();
  {
    // The log's order is the order of the sequence numbers, since both are given under this lock.
    std::lock_guard lock(mutex_);
    status = AdmitLocked(bytes);
    if (status.ok()) {
      pending_bytes_ += bytes;
      const uint64_t sequence = ++last_sequence_;
      std::vector<LogRecord> records;
      records.push_back({kStream, RecordKind::kEntry, sequence, 0, std::move(payload)});
      log_->Append(std::move(records), executors_.apply,
                   [self = shared_from_this(), sequence, bytes, batch, executor,
                    done = std::move(done)](absl::Status logged) mutable {
                     self->Logged(sequence, bytes, batch, std::move(logged), executor,
                                  std::move(done));
                   });
      return;
    }
  }
  Answer(executor, std::move(done), std::move(status));
}

// On the apply executor, in the order of the sequence numbers.
void Store::Impl::Logged(uint64_t sequence, uint64_t bytes, const WriteBatch& batch,
                         absl::Status status, Executor* executor, Done done) {
  bool durable = status.ok();
  if (durable) {
    status = tree_->Apply(batch, sequence);
    if (!status.ok()) {
      // Durable, but a page that it needs cannot be read; nothing may overtake it.
      std::lock_guard lock(mutex_);
      FailLocked(status);
      status = absl::UnknownError(Cat("logged but not applied: ", ToStd(status.message())));
    }
  }
  {
    std::lock_guard lock(mutex_);
    pending_bytes_ -= bytes;
    if (durable) bytes_since_checkpoint_ += bytes;
    if (status.code() == absl::StatusCode::kUnknown) FailLocked(status);
  }
  const bool full = status.code() == absl::StatusCode::kResourceExhausted;
  Answer(executor, std::move(done), std::move(status));
  if (full) NudgePosition();
  if (durable || full) CheckpointIfDue(full);
}

// A full log waits for checkpoints to let go of its segments: two of them, since the log is kept
// from the older one on. So that there is something to checkpoint when no write gets through, the
// position moves by itself.
void Store::Impl::NudgePosition() {
  uint64_t sequence = 0;
  {
    std::lock_guard lock(mutex_);
    if (pending_bytes_ > 0 || !health_.ok()) return;  // What is pending has lower numbers.
    sequence = ++last_sequence_;
  }
  // A later write is applied later: by this executor, too.
  tree_->Apply(WriteBatch(), sequence).IgnoreError();
}

void Store::Impl::FailLocked(const absl::Status& why) {
  if (!health_.ok()) return;
  health_ = absl::UnavailableError(Cat("the store takes no writes: ", ToStd(why.message())));
}

void Store::Impl::CheckpointIfDue(bool log_is_full) {
  {
    std::lock_guard lock(mutex_);
    const bool due = log_is_full || bytes_since_checkpoint_ >= options_.checkpoint_after_bytes;
    if (!due || checkpoint_due_ || !health_.ok()) return;
    checkpoint_due_ = true;
    bytes_since_checkpoint_ = 0;
  }
  executors_.checkpoint->Post([self = shared_from_this()] {
    self->RunCheckpoint().IgnoreError();  // The next one tries again; a broken file says so there.
    {
      std::lock_guard lock(self->mutex_);
      self->checkpoint_due_ = false;
    }
    self->CheckpointIfDue(/*log_is_full=*/false);
  });
}

absl::Status Store::Impl::RunCheckpoint() {
  DYNLIB_RETURN_IF_ERROR(pages_->Checkpoint());
  // The log is kept from the older checkpoint on: either superblock alone brings everything back.
  if (std::shared_ptr<NodeLog> log = Log()) log->Release(kStream, tree_->fallback_position());
  return absl::OkStatus();
}

void Store::Impl::Checkpoint(Executor* executor, Done done) {
  executors_.checkpoint->Post(
      [self = shared_from_this(), executor, done = std::move(done)]() mutable {
        Answer(executor, std::move(done), self->RunCheckpoint());
      });
}

void Store::Impl::Close(Executor* executor, Done done) {
  std::shared_ptr<NodeLog> log;
  {
    std::lock_guard lock(mutex_);
    FailLocked(absl::UnavailableError("it is closed"));
    log = log_;
  }
  // The log answers this after all its appends, and on their executor: so all are applied by then.
  log->Close(executors_.apply, [self = shared_from_this(), executor,
                                done = std::move(done)](absl::Status status) mutable {
    Answer(executor, std::move(done), std::move(status));
  });
}

void Store::Impl::Stop() {
  std::shared_ptr<NodeLog> log;  // Destroyed outside the lock: it answers what is queued.
  std::lock_guard lock(mutex_);
  FailLocked(absl::UnavailableError("it was destroyed"));
  log.swap(log_);
}

namespace {

// Brings the tree to where the log ends.
class Replay {
 public:
  Replay(PageFile* pages, Tree* tree, NodeLog* log, NodeLog::Recovery* logged,
         Store::Recovery* found)
      : pages_(*pages), tree_(*tree), log_(*log), logged_(*logged), found_(*found) {}

  absl::Status Run() {
    found_.clean_close = logged_.clean_close;
    found_.notes = logged_.notes;
    NodeLog::RecoveredStream& stream = logged_.streams[kStream];
    if (stream.lost_batch) {
      return absl::DataLossError(Cat("a batch of the log is missing: ", FirstNote()));
    }
    const uint64_t cut = CutAt(stream);
    if (cut != UINT64_MAX && !logged_.DataLoss().ok()) return logged_.DataLoss();
    uint64_t last = tree_.position();
    for (const LogRecord& entry : stream.entries) {
      last = std::max(last, entry.slot);
      if (entry.slot <= tree_.position()) continue;
      if (entry.slot >= cut) {
        ++found_.cut_batches;
        continue;
      }
      DYNLIB_ASSIGN_OR_RETURN(WriteBatch batch, DecodeWriteBatch(entry.payload));
      DYNLIB_RETURN_IF_ERROR(tree_.Apply(batch, entry.slot));
      ++found_.replayed_batches;
    }
    for (const auto& unknown : stream.unknown) last = std::max(last, unknown.slot);
    return cut == UINT64_MAX ? absl::OkStatus() : ForgetThrough(last);
  }

 private:
  std::string FirstNote() const { return logged_.notes.empty() ? "" : logged_.notes.front(); }

  // The first sequence that cannot be read and that no checkpoint has.
  uint64_t CutAt(const NodeLog::RecoveredStream& stream) {
    uint64_t cut = UINT64_MAX;
    for (const auto& unknown : stream.unknown) {
      if (unknown.slot <= tree_.position()) continue;
      cut = std::min(cut, unknown.slot);
      ++found_.cut_batches;
    }
    return cut;
  }

  // What was cut must not come back behind later writes: the tree moves past it, in both
  // checkpoints, and the log lets go of it. A crash in between cuts again.
  absl::Status ForgetThrough(uint64_t last) {
    for (uint64_t position : {last, last + 1}) {
      DYNLIB_RETURN_IF_ERROR(tree_.Apply(WriteBatch(), position));
      DYNLIB_RETURN_IF_ERROR(pages_.Checkpoint());
    }
    log_.Release(kStream, last);
    return absl::OkStatus();
  }

  PageFile& pages_;
  Tree& tree_;
  NodeLog& log_;
  NodeLog::Recovery& logged_;
  Store::Recovery& found_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const Options& options, Disk* disk,
                                                   std::string dir, Executors executors,
                                                   const Clock* clock, MetricsSink* metrics,
                                                   Recovery* found) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  Recovery unwanted;
  if (found == nullptr) found = &unwanted;
  *found = {};
  NodeLog::Recovery logged;
  // First the log: it makes the folder and locks it.
  DYNLIB_ASSIGN_OR_RETURN(
      std::unique_ptr<NodeLog> log,
      NodeLog::Open(options.log, disk, Cat(dir, "/log"), executors.log, clock, metrics, &logged));
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PageFile> pages,
                          PageFile::Open(options.pages, disk, Cat(dir, "/pages"), metrics));
  Tree* tree = pages->FindTree(kTree);
  if (tree == nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(tree, pages->CreateTree(kTree));
  }
  DYNLIB_RETURN_IF_ERROR(Replay(pages.get(), tree, log.get(), &logged, found).Run());
  return std::unique_ptr<Store>(
      new Store(std::make_shared<Impl>(options, executors, std::move(log), std::move(pages))));
}

Store::Store(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() { impl_->Stop(); }

void Store::Write(const WriteBatch& batch, Executor* executor, Done done) {
  impl_->Write(batch, executor, std::move(done));
}

absl::StatusOr<std::optional<std::string>> Store::Get(std::string_view key) const {
  return snapshot().Get(key);
}
Snapshot Store::snapshot() const { return impl_->snapshot(); }
void Store::Checkpoint(Executor* executor, Done done) {
  impl_->Checkpoint(executor, std::move(done));
}
void Store::Close(Executor* executor, Done done) { impl_->Close(executor, std::move(done)); }
absl::Status Store::Health() const { return impl_->Health(); }
NodeLog::Stats Store::LogStats() const { return impl_->LogStats(); }

}  // namespace dynlib::store
