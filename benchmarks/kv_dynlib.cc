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
  explicit DynlibStore(bool with_tree) : with_tree_(with_tree) {}

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
    DYNLIB_ASSIGN_OR_RETURN(tree_, pages_->CreateTree(TreeId{1}));
    return absl::OkStatus();
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    auto write = std::make_unique<Write>();
    write->key = key;
    write->value = value;
    Waiter waiter;
    write->waiter = &waiter;
    Append(std::move(write));
    waiter.answered.acquire();
    return waiter.status;
  }

 private:
  struct Write {
    std::string key;
    std::string value;
    uint64_t slot = 0;
    Waiter* waiter = nullptr;
  };

  // Slots follow the order of the appends, so callbacks and the tree's positions do too.
  void Append(std::unique_ptr<Write> write) {
    std::string payload;
    payload.reserve(write->key.size() + write->value.size());
    payload.append(write->key).append(write->value);
    const std::lock_guard<std::mutex> lock(mutex_);
    write->slot = ++last_slot_;
    std::vector<LogRecord> records;
    records.push_back({kStream, RecordKind::kEntry, write->slot, 1, std::move(payload)});
    log_->Append(std::move(records), &apply_executor_,
                 [this, write = std::move(write)](absl::Status durable) mutable {
                   OnDurable(std::move(write), std::move(durable));
                 });
  }

  // The rest runs on apply_executor_, save Checkpoint.

  void OnDurable(std::unique_ptr<Write> write, absl::Status durable) {
    if (!durable.ok() || !with_tree_) {
      write->waiter->Answer(std::move(durable));
      return;
    }
    durable_.push_back(std::move(write));
    // Posted behind the callbacks that are queued already: all of them are applied as one batch.
    if (durable_.size() == 1) apply_executor_.Post([this] { ApplyDurable(); });
  }

  void ApplyDurable() {
    WriteBatch batch;
    for (std::unique_ptr<Write>& write : durable_)
      batch.Put(std::move(write->key), std::move(write->value));
    log_bytes_ += batch.bytes();
    const absl::Status applied = tree_->Apply(batch, durable_.back()->slot);
    for (const std::unique_ptr<Write>& write : durable_) write->waiter->Answer(applied);
    durable_.clear();
    if (log_bytes_ >= kCheckpointLogBytes && !checkpointing_.exchange(true)) {
      log_bytes_ = 0;
      checkpoint_executor_.Post([this] { Checkpoint(); });
    }
  }

  void Checkpoint() {
    const absl::Status status = pages_->Checkpoint();
    DYNLIB_CHECK(status.ok());
    log_->Release(kStream, tree_->fallback_position());
    checkpointing_ = false;
  }

  const bool with_tree_;
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

  std::vector<std::unique_ptr<Write>> durable_;  // on apply_executor_
  uint64_t log_bytes_ = 0;                       // on apply_executor_, since the last checkpoint
  std::atomic<bool> checkpointing_{false};
};

absl::StatusOr<std::unique_ptr<KvPeer>> Open(const std::filesystem::path& folder, bool with_tree) {
  auto store = std::make_unique<DynlibStore>(with_tree);
  DYNLIB_RETURN_IF_ERROR(store->Open(folder));
  return store;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlib(const std::filesystem::path& folder, int) {
  return Open(folder, true);
}

absl::StatusOr<std::unique_ptr<KvPeer>> OpenDynlibLog(const std::filesystem::path& folder, int) {
  return Open(folder, false);
}

}  // namespace dynlib::bench
