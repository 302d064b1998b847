#include "benchmarks/kv_dynlib.h"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <semaphore>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::bench {
namespace {

using store::LogRecord;
using store::NodeLog;
using store::PageFile;
using store::RecordKind;
using store::StreamId;
using store::Tree;
using store::TreeId;
using store::WriteBatch;

constexpr StreamId kStream{1};
constexpr uint64_t kCheckpointLogBytes = 64 << 20;
constexpr uint64_t kNever = ~uint64_t{0};

// A payload of the log: for each operation the key's length, then the value's, or kDeleted.
constexpr uint32_t kDeleted = ~uint32_t{0};

std::string Encode(const WriteBatch& batch) {
  std::string payload;
  payload.reserve(batch.bytes() + 8 * batch.size());
  for (const WriteBatch::Operation& operation : batch.operations()) {
    PutFixed32(payload, static_cast<uint32_t>(operation.key.size()));
    PutFixed32(payload, operation.value.has_value() ? static_cast<uint32_t>(operation.value->size())
                                                    : kDeleted);
    payload.append(operation.key);
    if (operation.value.has_value()) payload.append(*operation.value);
  }
  return payload;
}

void Decode(std::string_view payload, WriteBatch& batch) {
  while (payload.size() >= 8) {
    const uint32_t key = LoadFixed<uint32_t>(payload.data());
    const uint32_t value = LoadFixed<uint32_t>(payload.data() + 4);
    payload.remove_prefix(8);
    if (value == kDeleted) {
      batch.Delete(std::string(payload.substr(0, key)));
      payload.remove_prefix(key);
    } else {
      batch.Put(std::string(payload.substr(0, key)), std::string(payload.substr(key, value)));
      payload.remove_prefix(key + value);
    }
  }
}

// One caller that waits for its answer.
struct Waiter {
  void Answer(absl::Status outcome) {
    status = std::move(outcome);
    answered.release();
  }
  std::binary_semaphore answered{0};
  absl::Status status;
};

class DynlibStore : public KvPeer {
 public:
  DynlibStore(const KvOptions& options, bool with_tree)
      : with_tree_(with_tree),
        fill_(options.fill != KvOptions::Fill::kNo),
        checkpoint_bytes_(options.checkpoints_by_itself ? kCheckpointLogBytes : kNever),
        values_(static_cast<size_t>(options.clients)) {}

  ~DynlibStore() override {
    if (log_ != nullptr) {
      Waiter closed;
      log_->Close(&apply_executor_, [&](absl::Status status) { closed.Answer(std::move(status)); });
      closed.answered.acquire();
    }
    apply_executor_.ShutDown();
    checkpoint_executor_.ShutDown();
    log_.reset();
    log_executor_.ShutDown();
  }

  absl::Status Open(const std::filesystem::path& folder) {
    DYNLIB_ASSIGN_OR_RETURN(disk_, PosixDisk::Open({.root = folder.string()}));
    NodeLog::Recovery found;
    DYNLIB_ASSIGN_OR_RETURN(log_, NodeLog::Open({}, disk_.get(), "log", &log_executor_, &clock_,
                                                MetricsSink::None(), &found));
    DYNLIB_ASSIGN_OR_RETURN(pages_, PageFile::Open({}, disk_.get(), "pages"));
    tree_ = pages_->FindTree(TreeId{1});
    if (tree_ == nullptr) {
      DYNLIB_ASSIGN_OR_RETURN(tree_, pages_->CreateTree(TreeId{1}));
    }
    last_slot_ = tree_->position();
    return Replay(found.streams[kStream].entries);
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    const KvRow row{key, value};
    return WriteAndWait(BatchOf({&row, 1}));
  }
  absl::Status PutAsync(int, std::string_view key, std::string_view value,
                        absl::AnyInvocable<void(absl::Status)> done) override {
    const KvRow row{key, value};
    auto write = std::make_unique<PendingWrite>();
    write->batch = BatchOf({&row, 1});
    write->done = std::move(done);
    Append(std::move(write));
    return absl::OkStatus();
  }
  absl::Status Write(int, std::span<const KvRow> rows) override {
    return WriteAndWait(BatchOf(rows));
  }
  absl::Status Fill(std::span<const KvRow> rows) override {
    return tree_->Apply(BatchOf(rows), ++last_slot_);
  }
  absl::Status Delete(std::span<const std::string> keys) override {
    WriteBatch batch;
    for (const std::string& key : keys) batch.Delete(key);
    return WriteAndWait(std::move(batch));
  }

  absl::Status Get(int client, std::string_view key, std::string_view* value) override {
    DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> found, tree_->snapshot().Get(key));
    if (!found.has_value()) return absl::NotFoundError("dynlib");
    std::string& buffer = values_[static_cast<size_t>(client)];
    buffer = *std::move(found);
    *value = buffer;
    return absl::OkStatus();
  }
  absl::Status Scan(int, std::string_view start, int count, Visitor visit) override {
    return tree_->snapshot().Scan(start, "", store::ScanOrder::kForward,
                                  [&](std::string_view key, std::string_view value) {
                                    visit(key, value);
                                    return --count > 0;
                                  });
  }

  absl::Status Sync() override { return fill_ ? pages_->Checkpoint() : absl::OkStatus(); }
  absl::Status Checkpoint() override {
    DYNLIB_RETURN_IF_ERROR(pages_->Checkpoint());
    log_->Release(kStream, tree_->fallback_position());
    return absl::OkStatus();
  }

 private:
  struct PendingWrite {
    WriteBatch batch;
    uint64_t slot = 0;
    absl::AnyInvocable<void(absl::Status)> done;
  };

  static WriteBatch BatchOf(std::span<const KvRow> rows) {
    WriteBatch batch;
    for (const KvRow& row : rows) batch.Put(std::string(row.key), std::string(row.value));
    return batch;
  }

  absl::Status Replay(const std::vector<LogRecord>& entries) {
    constexpr size_t kBatchBytes = 4 << 20;
    WriteBatch batch;
    for (const LogRecord& entry : entries) {
      if (entry.slot <= tree_->position()) continue;
      Decode(entry.payload, batch);
      last_slot_ = entry.slot;
      if (batch.bytes() < kBatchBytes && &entry != &entries.back()) continue;
      DYNLIB_RETURN_IF_ERROR(tree_->Apply(batch, last_slot_));
      batch.Clear();
    }
    return absl::OkStatus();
  }

  absl::Status WriteAndWait(WriteBatch batch) {
    auto write = std::make_unique<PendingWrite>();
    write->batch = std::move(batch);
    Waiter waiter;
    write->done = [&](absl::Status status) { waiter.Answer(std::move(status)); };
    Append(std::move(write));
    waiter.answered.acquire();
    return waiter.status;
  }

  // Slots follow the order of the appends, so callbacks and the tree's positions do too.
  void Append(std::unique_ptr<PendingWrite> write) {
    std::string payload = Encode(write->batch);
    const std::lock_guard<std::mutex> lock(mutex_);
    write->slot = ++last_slot_;
    std::vector<LogRecord> records;
    records.push_back({kStream, RecordKind::kEntry, write->slot, 1, std::move(payload)});
    log_->Append(std::move(records), &apply_executor_,
                 [this, write = std::move(write)](absl::Status durable) mutable {
                   OnDurable(std::move(write), std::move(durable));
                 });
  }

  // The rest runs on apply_executor_, save CheckpointInBackground.

  void OnDurable(std::unique_ptr<PendingWrite> write, absl::Status durable) {
    if (!durable.ok() || !with_tree_) {
      std::move(write->done)(std::move(durable));
      return;
    }
    durable_.push_back(std::move(write));
    // Posted behind the callbacks that are queued already: all of them are applied as one batch.
    if (durable_.size() == 1) apply_executor_.Post([this] { ApplyDurable(); });
  }

  void ApplyDurable() {
    WriteBatch batch;
    for (std::unique_ptr<PendingWrite>& write : durable_) {
      for (const WriteBatch::Operation& operation : write->batch.operations()) {
        if (operation.value.has_value()) {
          batch.Put(operation.key, *operation.value);
        } else {
          batch.Delete(operation.key);
        }
      }
    }
    log_bytes_ += batch.bytes();
    const absl::Status applied = tree_->Apply(batch, durable_.back()->slot);
    for (const std::unique_ptr<PendingWrite>& write : durable_) std::move(write->done)(applied);
    durable_.clear();
    if (log_bytes_ >= checkpoint_bytes_ && !checkpointing_.exchange(true)) {
      log_bytes_ = 0;
      checkpoint_executor_.Post([this] { CheckpointInBackground(); });
    }
  }

  void CheckpointInBackground() {
    const absl::Status status = Checkpoint();
    DYNLIB_CHECK(status.ok() || absl::IsUnavailable(status));  // another one is running
    checkpointing_ = false;
  }

  const bool with_tree_;
  const bool fill_;
  const uint64_t checkpoint_bytes_;
  std::vector<std::string> values_;  // by client
  const SystemClock clock_;
  std::unique_ptr<PosixDisk> disk_;
  ThreadExecutor log_executor_{{.name = "log"}};
  ThreadExecutor apply_executor_{{.name = "apply"}};
  ThreadExecutor checkpoint_executor_{{.name = "checkpoint"}};
  std::unique_ptr<NodeLog> log_;
  std::unique_ptr<PageFile> pages_;
  Tree* tree_ = nullptr;

  std::mutex mutex_;
  uint64_t last_slot_ = 0;  // guarded by mutex_

  std::vector<std::unique_ptr<PendingWrite>> durable_;  // on apply_executor_
  uint64_t log_bytes_ = 0;  // on apply_executor_, since the last checkpoint
  std::atomic<bool> checkpointing_{false};
};

absl::StatusOr<std::unique_ptr<KvPeer>> Open(const KvOptions& options, bool with_tree) {
  auto store = std::make_unique<DynlibStore>(options, with_tree);
  DYNLIB_RETURN_IF_ERROR(store->Open(options.folder));
  return store;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlib(const KvOptions& options) {
  return Open(options, true);
}

absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlibLog(const KvOptions& options) {
  return Open(options, false);
}

}  // namespace dynlib::bench
