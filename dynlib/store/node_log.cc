#include "dynlib/store/node_log.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_recovery.h"
#include "dynlib/store/node_log_writer.h"

namespace dynlib::store {
namespace {

static_assert(NodeLog::kRecordOverheadBytes == 2 * kFrameInfoBytes);

absl::Status CheckRange(std::string_view field, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("NodeLog::Options::", field, " = ", value, " is not in [", low, ", ", high, "]"));
}

absl::Status CheckOptions(const NodeLog::Options& o) {
  DYNLIB_RETURN_IF_ERROR(CheckRange("block_bytes", o.block_bytes, 512, 4096));
  if ((o.block_bytes & (o.block_bytes - 1)) != 0) {
    return absl::InvalidArgumentError(
        Cat("NodeLog::Options::block_bytes = ", o.block_bytes, " is not a power of two"));
  }
  DYNLIB_RETURN_IF_ERROR(CheckRange("segment_bytes", o.segment_bytes, 64 << 10, 1 << 30));
  if (o.segment_bytes % o.block_bytes != 0) {
    return absl::InvalidArgumentError(Cat("NodeLog::Options::segment_bytes = ", o.segment_bytes,
                                          " is not a multiple of block_bytes = ", o.block_bytes));
  }
  if (o.max_batch_bytes != 0) {
    DYNLIB_RETURN_IF_ERROR(
        CheckRange("max_batch_bytes", o.max_batch_bytes, 4096, o.segment_bytes / 4));
  }
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("max_queued_bytes", o.max_queued_bytes, NodeLog::MaxBatchBytes(o), UINT64_MAX));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("max_unarchived_bytes", o.max_unarchived_bytes, 4096, UINT64_MAX));
  DYNLIB_RETURN_IF_ERROR(CheckRange("spare_segments", o.spare_segments, 1, 16));
  DYNLIB_RETURN_IF_ERROR(CheckRange("spares_at_open", o.spares_at_open, 0, o.spare_segments));
  // The first batch of a segment lists all segments, in a quarter of it at most.
  const uint64_t listable = o.segment_bytes / 4 / (2 * kFrameInfoBytes);
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("max_segments", o.max_segments, 4, std::min<uint64_t>(4096, listable)));
  return CheckRange("copy_forward_above", o.copy_forward_above, 1, o.max_segments - 3);
}

// The folder's own name must be durable too, and those of the folders above it.
absl::Status MakeDir(Disk* disk, std::string_view dir) {
  DYNLIB_RETURN_IF_ERROR(disk->CreateDir(dir));
  while (!dir.empty()) {
    const size_t slash = dir.rfind('/');
    dir = slash == std::string_view::npos ? std::string_view() : dir.substr(0, slash);
    DYNLIB_RETURN_IF_ERROR(disk->SyncDir(dir));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status NodeLog::Recovery::DataLoss() const {
  if (damaged_batches == 0 && lost_batches == 0) return absl::OkStatus();
  return absl::DataLossError(
      Cat(damaged_batches, " damaged and ", lost_batches, " lost batches: ", first_damage));
}

absl::Status NodeLog::Validate(const Options& options) { return CheckOptions(options); }

uint64_t NodeLog::MaxBatchBytes(const Options& options) {
  if (options.max_batch_bytes != 0) return options.max_batch_bytes;
  return std::min<uint64_t>(4 << 20, options.segment_bytes / 4);
}

NodeLog::NodeLog(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

NodeLog::~NodeLog() { impl_->Stop(); }

absl::StatusOr<std::unique_ptr<NodeLog>> NodeLog::Open(const Options& options, Disk* disk,
                                                       std::string dir, Executor* log_executor,
                                                       const Clock* clock, MetricsSink* metrics,
                                                       Recovery* found, Entries entries,
                                                       const ReadProgress& progress) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  *found = {};
  DYNLIB_RETURN_IF_ERROR(MakeDir(disk, dir));
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<DiskLock> lock, disk->Lock(Cat(dir, "/LOCK")));
  const Instant start = clock->Now();
  DYNLIB_ASSIGN_OR_RETURN(
      RecoveredLog recovered,
      RecoverLog(options, disk, dir, entries, LogAccess::kMayWrite, progress, found));
  found->took = clock->Now() - start;
  auto impl = std::make_shared<Impl>(options, disk, std::move(dir), log_executor, clock, metrics,
                                     std::move(lock), std::move(recovered.index), recovered);
  DYNLIB_RETURN_IF_ERROR(impl->Start(recovered));
  return std::unique_ptr<NodeLog>(new NodeLog(std::move(impl)));
}

absl::Status NodeLog::ReadEntries(StreamId stream, uint64_t after_slot,
                                  absl::FunctionRef<absl::Status(LogRecord)> take) const {
  return impl_->ReadEntries(stream, after_slot, take);
}
absl::StatusOr<uint64_t> NodeLog::Verify(absl::FunctionRef<bool(uint64_t)> go_on,
                                         absl::FunctionRef<void(const absl::Status&)> fault) const {
  return impl_->Verify(go_on, fault);
}
void NodeLog::Append(std::vector<LogRecord> records, Executor* executor,
                     absl::AnyInvocable<void(absl::Status)> done) {
  impl_->Append(std::move(records), executor, std::move(done));
}
absl::Status NodeLog::Append(std::vector<LogRecord> records, PendingAppend* append) {
  return impl_->Append(std::move(records), append);
}
absl::Status NodeLog::AppendAndWait(std::vector<LogRecord> records) {
  PendingAppend append;
  DYNLIB_RETURN_IF_ERROR(Append(std::move(records), &append));
  return append.Wait();
}
absl::Status NodeLog::AppendAndWait(std::vector<LogRecord> records,
                                    absl::FunctionRef<void()> meanwhile, DiskWait wait) {
  PendingAppend append;
  Meanwhile once(meanwhile, wait);
  const absl::Status refused = Append(std::move(records), &append);
  if (refused.ok()) return append.log_->Wait(append.batch_, once);
  once.Run();
  return refused;
}
absl::Status NodeLog::PendingAppend::Wait() {
  Meanwhile nothing(DiskWait::kPoll);
  return log_->Wait(batch_, nothing);
}
void NodeLog::Release(StreamId stream, uint64_t through_slot) {
  impl_->Release(stream, through_slot);
}
void NodeLog::SetArchived(StreamId stream, uint64_t through_slot) {
  impl_->SetArchived(stream, through_slot);
}
void NodeLog::Drop(StreamId stream) { impl_->Drop(stream); }
void NodeLog::ReleaseSpace() { impl_->ReleaseSpace(); }
void NodeLog::Close(Executor* executor, absl::AnyInvocable<void(absl::Status)> done) {
  impl_->Close(executor, std::move(done));
}
std::optional<Instant> NodeLog::OldestPendingSince() const { return impl_->OldestPendingSince(); }
uint64_t NodeLog::RetainedBytes(StreamId stream) const { return impl_->RetainedBytes(stream); }
uint64_t NodeLog::UnarchivedBytes(StreamId stream) const { return impl_->UnarchivedBytes(stream); }
absl::Status NodeLog::Health() const { return impl_->Health(); }
uint64_t NodeLog::LastDurableBatch() const { return impl_->LastDurableBatch(); }
NodeLog::Stats NodeLog::GetStats() const { return impl_->GetStats(); }

}  // namespace dynlib::store
