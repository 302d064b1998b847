#include "benchmarks/kv_dynlib.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <semaphore>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::bench {
namespace {

using store::LogRecord;
using store::NodeLog;
using store::WriteBatch;

constexpr uint64_t kNever = uint64_t{1} << 40;  // bytes until a checkpoint
constexpr uint64_t kRoomForNoCheckpoint = uint64_t{8} << 30;

class DynlibStore : public KvPeer {
 public:
  ~DynlibStore() override {
    store_.reset();
    answers_.ShutDown();
  }

  absl::Status Open(const KvOptions& options) {
    store::Store::Options store_options;
    store_options.pages.memory_bytes = options.cache_bytes;
    // A checkpoint begins when pages that none has written come to an eighth of this.
    if (!options.checkpoints_by_itself)
      store_options.pages.memory_bytes = std::max(options.cache_bytes, kRoomForNoCheckpoint);
    if (!options.checkpoints_by_itself || options.fill != KvOptions::Fill::kNo)
      store_options.checkpoint_after_bytes = kNever;
    DYNLIB_ASSIGN_OR_RETURN(store_,
                            store::LocalStore::Open(options.folder.string(), store_options));
    return absl::OkStatus();
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    return (*store_)->Put(key, value);
  }
  absl::Status PutAsync(int, std::string_view key, std::string_view value,
                        absl::AnyInvocable<void(absl::Status)> done) override {
    store::StoreBatch batch;
    batch.Put(key, value);
    (*store_)->Write(std::move(batch), {}, &answers_,
                     [done = std::move(done)](store::WriteResult result) mutable {
                       std::move(done)(std::move(result.status));
                     });
    return absl::OkStatus();
  }
  absl::Status Write(int, std::span<const KvRow> rows) override {
    return (*store_)->Write(BatchOf(rows)).status;
  }
  absl::Status Fill(std::span<const KvRow> rows) override {
    return (*store_)->Write(BatchOf(rows), {.durable = false}).status;
  }
  absl::Status Delete(std::span<const std::string> keys) override {
    WriteBatch batch;
    for (const std::string& key : keys) batch.Delete(key);
    return (*store_)->Write(std::move(batch), {.durable = false}).status;
  }

  absl::Status Get(int, std::string_view key, Use use) override {
    DYNLIB_ASSIGN_OR_RETURN(const bool found, (*store_)->View(store::NamedTree(), key, use));
    return found ? absl::OkStatus() : absl::NotFoundError("dynlib");
  }
  absl::Status Scan(int, std::string_view start, int count, Visitor visit) override {
    return (*store_)
        ->snapshot(store::NamedTree())
        .Scan(start, "", store::ScanOrder::kForward,
              [&](std::string_view key, std::string_view value) {
                visit(key, value);
                return --count > 0;
              });
  }

  // Durable like any write, with all that came before it.
  absl::Status Sync() override { return (*store_)->Write(store::StoreBatch()).status; }
  absl::Status Checkpoint() override { return (*store_)->Checkpoint(); }

 private:
  static WriteBatch BatchOf(std::span<const KvRow> rows) {
    WriteBatch batch;
    size_t bytes = 0;
    for (const KvRow& row : rows) bytes += row.key.size() + row.value.size();
    batch.Reserve(rows.size(), bytes);
    for (const KvRow& row : rows) batch.Put(row.key, row.value);
    return batch;
  }

  ThreadExecutor answers_{{.name = "answers"}};
  std::unique_ptr<store::LocalStore> store_;
};

class DynlibLog : public KvPeer {
 public:
  ~DynlibLog() override {
    if (log_ != nullptr) {
      std::binary_semaphore closed{0};
      log_->Close(&answers_, [&](absl::Status) { closed.release(); });
      closed.acquire();
      log_.reset();
    }
    writer_.ShutDown();
    answers_.ShutDown();
  }

  absl::Status Open(const KvOptions& options) {
    DYNLIB_ASSIGN_OR_RETURN(disk_, PosixDisk::Open({.root = options.folder.string()}));
    NodeLog::Recovery found;
    DYNLIB_ASSIGN_OR_RETURN(log_, NodeLog::Open({}, disk_.get(), "log", &writer_, &clock_,
                                                MetricsSink::None(), &found));
    return absl::OkStatus();
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    std::vector<LogRecord> records = RecordOf(key, value);
    NodeLog::PendingAppend append;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      records[0].slot = ++last_slot_;
      DYNLIB_RETURN_IF_ERROR(log_->Append(std::move(records), &append));
    }
    return append.Wait();
  }
  absl::Status PutAsync(int, std::string_view key, std::string_view value,
                        absl::AnyInvocable<void(absl::Status)> done) override {
    std::vector<LogRecord> records = RecordOf(key, value);
    const std::lock_guard<std::mutex> lock(mutex_);
    records[0].slot = ++last_slot_;
    log_->Append(std::move(records), &answers_, std::move(done));
    return absl::OkStatus();
  }

  absl::Status Write(int, std::span<const KvRow>) override { return NotInALog(); }
  absl::Status Fill(std::span<const KvRow>) override { return NotInALog(); }
  absl::Status Delete(std::span<const std::string>) override { return NotInALog(); }
  absl::Status Get(int, std::string_view, Use) override { return NotInALog(); }
  absl::Status Scan(int, std::string_view, int, Visitor) override { return NotInALog(); }
  absl::Status Sync() override { return NotInALog(); }
  absl::Status Checkpoint() override { return NotInALog(); }

 private:
  static absl::Status NotInALog() { return absl::UnimplementedError("a log alone"); }

  static std::vector<LogRecord> RecordOf(std::string_view key, std::string_view value) {
    std::vector<LogRecord> records(1);
    records[0] = {store::StreamId{1}, store::RecordKind::kEntry, 0, 1, {}};
    records[0].payload.reserve(key.size() + value.size());
    records[0].payload.append(key).append(value);
    return records;
  }

  const SystemClock clock_;
  std::unique_ptr<PosixDisk> disk_;
  ThreadExecutor writer_{{.name = "log"}};
  ThreadExecutor answers_{{.name = "answers"}};
  std::unique_ptr<NodeLog> log_;
  std::mutex mutex_;        // slots follow the order of the appends
  uint64_t last_slot_ = 0;  // guarded by mutex_
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlib(const KvOptions& options) {
  auto peer = std::make_unique<DynlibStore>();
  DYNLIB_RETURN_IF_ERROR(peer->Open(options));
  return peer;
}

absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlibLog(const KvOptions& options) {
  auto peer = std::make_unique<DynlibLog>();
  DYNLIB_RETURN_IF_ERROR(peer->Open(options));
  return peer;
}

}  // namespace dynlib::bench
