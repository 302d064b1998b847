#include "dynlib/store/store.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/store/store_impl.h"
#include "dynlib/store/store_recovery.h"

namespace dynlib::store {
namespace {

using Value = std::optional<std::string>;

// Of the largest record: what a log of these options takes in one append.
uint64_t MaxGroupBytes(const NodeLog::Options& log) {
  return NodeLog::MaxBatchBytes(log) - NodeLog::kRecordOverheadBytes - GroupEncoder::kPartOverhead;
}

absl::Status Validate(const Store::Options& options) {
  DYNLIB_RETURN_IF_ERROR(NodeLog::Validate(options.log));
  DYNLIB_RETURN_IF_ERROR(PageFile::Validate(options.pages));
  const uint64_t after = options.checkpoint_after_bytes;
  if (after < (64 << 10) || after > (uint64_t{1} << 40)) {
    return absl::InvalidArgumentError(Cat("Store::Options::checkpoint_after_bytes = ", after,
                                          " is not in [", 64 << 10, ", ", uint64_t{1} << 40, "]"));
  }
  if (options.rest_after < std::chrono::milliseconds(1)) {
    return absl::InvalidArgumentError(Cat(
        "Store::Options::rest_after = ", ToMicros(options.rest_after), " us is less than 1000 us"));
  }
  const uint64_t rate = options.rest_bytes_per_second;
  if (rate < (64 << 10) || rate > (uint64_t{1} << 40)) {
    return absl::InvalidArgumentError(Cat("Store::Options::rest_bytes_per_second = ", rate,
                                          " is not in [", 64 << 10, ", ", uint64_t{1} << 40, "]"));
  }
  // Less, and the largest write would wait for ever.
  const uint64_t batch = NodeLog::MaxBatchBytes(options.log);
  if (options.max_pending_bytes < batch) {
    return absl::InvalidArgumentError(
        Cat("Store::Options::max_pending_bytes = ", options.max_pending_bytes, " is not in [",
            batch, ", ", UINT64_MAX, "]; log.max_batch_bytes is ", batch));
  }
  return absl::OkStatus();
}

absl::Status NoSuchTree(const NamedTree& tree) {
  return absl::NotFoundError(
      Cat("tree ", Escape(tree.name()), " was dropped, or is of another store"));
}

}  // namespace

absl::Status Store::EnsureTrees(PageFile& pages) {
  for (const TreeId id : {kCatalogueTree, kDefaultTree}) {
    if (pages.FindTree(id) == nullptr) DYNLIB_RETURN_IF_ERROR(pages.CreateTree(id).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const Options& options, Disk* disk,
                                                   std::string dir, Executors executors,
                                                   const Clock* clock, MetricsSink* metrics,
                                                   Recovery* found) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  if (executors.read == nullptr) executors.read = executors.checkpoint;
  Recovery unwanted;
  if (found == nullptr) found = &unwanted;
  *found = {};
  const Instant start = clock->Now();
  OpenProgress so_far;
  const auto log_read = [&](uint64_t read, uint64_t total) {
    so_far.log_bytes = read;
    so_far.log_bytes_total = total;
    return options.open_progress(so_far);
  };
  // Looks at the pages' format as well: the log may write when it is opened.
  DYNLIB_ASSIGN_OR_RETURN(StoreFolder folder,
                          OpenFolder(disk, dir, options.create_if_missing, options.pages));
  if (options.read_only_if_damaged) {
    DYNLIB_ASSIGN_OR_RETURN(
        std::shared_ptr<Impl> damaged,
        OpenIfDamaged(options, disk, dir, executors, clock, metrics, found, folder.lock));
    if (damaged != nullptr) return std::unique_ptr<Store>(new Store(std::move(damaged)));
  }
  NodeLog::Options log_options = options.log;
  log_options.payload_version_max = kStoreRecordVersion;
  NodeLog::Recovery logged;
  DYNLIB_ASSIGN_OR_RETURN(
      std::unique_ptr<NodeLog> log,
      NodeLog::Open(log_options, disk, Cat(dir, "/log"), executors.log, clock, metrics, &logged,
                    NodeLog::Entries::kLater,
                    options.open_progress == nullptr ? NodeLog::ReadProgress()
                                                     : NodeLog::ReadProgress(log_read)));
  PageFile::Options page_options = options.pages;
  page_options.log_batch = logged.last_batch;
  page_options.fall_back = true;  // The log goes back to the older checkpoint.
  // An older program made the mark before them.
  page_options.create_if_missing = !folder.mark.has_pages && logged.last_batch == 0;
  absl::StatusOr<std::unique_ptr<PageFile>> opened =
      PageFile::Open(page_options, disk, Cat(dir, "/pages"), metrics);
  if (absl::IsNotFound(opened.status())) {
    return absl::DataLossError(Cat(dir, "/pages: missing, and the log was used"));
  }
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PageFile> pages, std::move(opened));
  found->notes = pages->notes();
  if (!folder.mark.has_pages || !folder.mark.has_log) {
    DYNLIB_RETURN_IF_ERROR(CompleteFolder(disk, dir));
  }
  DYNLIB_RETURN_IF_ERROR(EnsureTrees(*pages));
  const Instant replay_start = clock->Now();
  Replay replay(options, pages.get(), log.get(), nullptr, &logged, found);
  if (options.open_progress != nullptr) {
    so_far.applied_bytes_total = log->RetainedBytes(kStoreStream);
    replay.SetProgress([&](uint64_t applied) {
      so_far.applied_bytes = applied;
      return options.open_progress(so_far);
    });
  }
  DYNLIB_RETURN_IF_ERROR(replay.Run());
  found->log_took = logged.took;
  found->apply_took = clock->Now() - replay_start;
  auto impl = std::make_shared<Impl>(options, disk, std::move(dir), executors, clock,
                                     std::move(log), std::move(pages), std::move(folder.lock));
  impl->Owe(replay.TakeOwed());
  DYNLIB_RETURN_IF_ERROR(impl->LoadCatalogue());
  found->took = clock->Now() - start;
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

Store::Impl::Impl(const Options& options, Disk* disk, std::string dir, Executors executors,
                  const Clock* clock, std::unique_ptr<NodeLog> log, std::unique_ptr<PageFile> pages,
                  std::unique_ptr<DiskLock> lock)
    : options_(options),
      disk_(disk),
      dir_(std::move(dir)),
      executors_(executors),
      clock_(clock),
      max_group_bytes_(MaxGroupBytes(options.log)),
      lock_(std::move(lock)),
      pages_(std::move(pages)),
      default_tree_(pages_->FindTree(kDefaultTree)),
      catalogue_(pages_->FindTree(kCatalogueTree)),
      log_(std::move(log)) {}

Store::Store(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() { impl_->Stop(); }

WriteResult Store::Write(StoreBatch batch, WriteOptions options) {
  return impl_->WriteAndWait(std::move(batch), options);
}
WriteResult Store::Write(WriteBatch batch, WriteOptions options) {
  return impl_->WriteAndWait(StoreBatch(std::move(batch)), options);
}
absl::Status Store::Put(std::string_view key, std::string_view value, WriteOptions options) {
  StoreBatch batch;
  batch.Put(key, value);
  return impl_->WriteAndWait(std::move(batch), options).status;
}
absl::Status Store::Delete(std::string_view key, WriteOptions options) {
  StoreBatch batch;
  batch.Delete(key);
  return impl_->WriteAndWait(std::move(batch), options).status;
}
void Store::Write(StoreBatch batch, WriteOptions options, Executor* executor, WriteDone done) {
  impl_->Write(std::move(batch), options, executor, std::move(done));
}

absl::StatusOr<NamedTree> Store::OpenTree(std::string_view name) { return impl_->OpenTree(name); }
void Store::OpenTree(std::string_view name, Executor* executor,
                     absl::AnyInvocable<void(absl::StatusOr<NamedTree>)> done) {
  impl_->OpenTree(name, executor, std::move(done));
}
std::optional<NamedTree> Store::FindTree(std::string_view name) const {
  return impl_->FindTree(name);
}
absl::Status Store::DropTree(const NamedTree& tree) { return impl_->DropTree(tree); }
void Store::DropTree(const NamedTree& tree, Executor* executor, Done done) {
  impl_->DropTree(tree, executor, std::move(done));
}
std::vector<std::string> Store::ListTrees() const { return impl_->ListTrees(); }

absl::StatusOr<Value> Store::Get(std::string_view key) const { return Get(NamedTree(), key); }
absl::StatusOr<Value> Store::Get(const NamedTree& tree, std::string_view key) const {
  const Tree* found = impl_->TreeOf(tree);
  if (found == nullptr) return NoSuchTree(tree);
  return found->Get(key);
}
absl::StatusOr<bool> Store::GetInto(const NamedTree& tree, std::string_view key,
                                    std::string& value) const {
  const Tree* found = impl_->TreeOf(tree);
  if (found == nullptr) return NoSuchTree(tree);
  return found->GetInto(key, value);
}
absl::StatusOr<bool> Store::View(const NamedTree& tree, std::string_view key,
                                 absl::FunctionRef<void(std::string_view)> view) const {
  const Tree* found = impl_->TreeOf(tree);
  if (found == nullptr) return NoSuchTree(tree);
  return found->View(key, view);
}
void Store::GetAsync(const NamedTree& tree, std::string_view key, Executor* executor,
                     absl::AnyInvocable<void(absl::StatusOr<Value>)> done) const {
  impl_->GetAsync(tree, key, executor, std::move(done));
}
std::vector<absl::StatusOr<Value>> Store::MultiGet(const NamedTree& tree,
                                                   std::span<const std::string_view> keys) const {
  std::vector<absl::StatusOr<Value>> values;
  values.reserve(keys.size());
  const Tree* found = impl_->TreeOf(tree);
  const Snapshot version = found == nullptr ? Snapshot() : found->snapshot();
  for (std::string_view key : keys) {
    values.push_back(found == nullptr ? NoSuchTree(tree) : version.Get(key));
  }
  return values;
}
absl::StatusOr<ScanResult> Store::Scan(const ScanOptions& options, Snapshot::Visitor visit) const {
  const Tree* found = impl_->TreeOf(options.tree);
  if (found == nullptr) return NoSuchTree(options.tree);
  return ScanTree(found->snapshot(), options, visit);
}
absl::StatusOr<Cursor> Store::NewCursor(const NamedTree& tree, const CursorOptions& options) const {
  const Tree* found = impl_->TreeOf(tree);
  if (found == nullptr) return NoSuchTree(tree);
  return Cursor(found->snapshot(), options);
}
StoreSnapshot Store::snapshot(std::string_view label) const { return impl_->SnapshotAll(label); }
Snapshot Store::snapshot(const NamedTree& tree) const { return impl_->SnapshotOf(tree); }

absl::Status Store::Checkpoint() { return impl_->CheckpointAndWait(); }
void Store::Checkpoint(Executor* executor, Done done) {
  impl_->Checkpoint(executor, std::move(done));
}
absl::Status Store::Close() { return impl_->CloseAndWait(); }
void Store::Close(Executor* executor, Done done) { impl_->Close(executor, std::move(done)); }
absl::Status Store::Verify(PageFile::VerifyReport* report, const VerifyProgress& progress) {
  return impl_->Verify(report, progress);
}
absl::StatusOr<std::vector<Store::DamagedRange>> Store::Repair(const NamedTree& tree,
                                                               const FetchRows& fetch) {
  return impl_->Repair(tree, fetch);
}
Store::Stats Store::stats() const { return impl_->GetStats(); }
absl::Status Store::Health() const { return impl_->Health(); }
NodeLog::Stats Store::LogStats() const { return impl_->LogStats(); }

// In memory: answered without going to the disk. Else the version is pinned now: a tree may be
// dropped meanwhile.
void Store::Impl::GetAsync(const NamedTree& tree, std::string_view key, Executor* executor,
                           absl::AnyInvocable<void(absl::StatusOr<Value>)> done) {
  const Tree* found = TreeOf(tree);
  if (found == nullptr) {
    return executor->Post(
        [done = std::move(done), tree]() mutable { std::move(done)(NoSuchTree(tree)); });
  }
  absl::StatusOr<Value> value = found->Get(key, ReadMode::kMemoryOnly);
  if (!absl::IsUnavailable(value.status())) {
    return executor->Post([done = std::move(done), value = std::move(value)]() mutable {
      std::move(done)(std::move(value));
    });
  }
  executors_.read->Post([version = found->snapshot(), key = std::string(key), executor,
                         done = std::move(done)]() mutable {
    absl::StatusOr<Value> value = version.Get(key);
    executor->Post([done = std::move(done), value = std::move(value)]() mutable {
      std::move(done)(std::move(value));
    });
  });
}

WriteResult Store::Impl::WriteAndWait(StoreBatch batch, WriteOptions options) {
  Request request;
  request.batch = std::move(batch);
  request.durable = options.durable;
  request.bytes = BytesOf(request.batch);
  SubmitAndWait(request);
  return std::move(request.result);
}

void Store::Impl::Write(StoreBatch batch, WriteOptions options, Executor* executor,
                        WriteDone done) {
  auto request = std::make_unique<Request>();
  request->batch = std::move(batch);
  request->durable = options.durable;
  request->bytes = BytesOf(request->batch);
  request->executor = executor;
  request->done = std::move(done);
  Submit(std::move(request));
}

uint64_t Store::Impl::BytesOf(const StoreBatch& batch) {
  uint64_t bytes = GroupEncoder::kPartOverhead;
  for (const StoreBatch::Part& part : batch.parts()) bytes += GroupEncoder::BytesFor(part.batch);
  return bytes;
}

}  // namespace dynlib::store
