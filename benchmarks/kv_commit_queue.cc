#include "benchmarks/kv_commit_queue.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

class CommitQueue : public KvPeer {
 public:
  explicit CommitQueue(std::unique_ptr<KvPeer> store) : store_(std::move(store)) {}

  absl::Status Put(int client, std::string_view key, std::string_view value) override {
    Waiter me{{key, value}};
    std::unique_lock<std::mutex> lock(mutex_);
    waiting_.push_back(&me);
    while (!me.done && waiting_.front() != &me) me.wake.wait(lock);
    if (me.done) return me.status;
    const std::vector<Waiter*> group(waiting_.begin(), waiting_.end());
    lock.unlock();
    std::vector<KvRow> rows;
    for (const Waiter* waiter : group) rows.push_back(waiter->row);
    const absl::Status status = store_->Write(client, rows);
    lock.lock();
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(group.size()));
    for (Waiter* waiter : group) {
      waiter->status = status;
      waiter->done = true;
      waiter->wake.notify_one();
    }
    if (!waiting_.empty()) waiting_.front()->wake.notify_one();
    return status;
  }

  absl::Status Write(int client, std::span<const KvRow> rows) override {
    return store_->Write(client, rows);
  }
  absl::Status Fill(std::span<const KvRow> rows) override { return store_->Fill(rows); }
  absl::Status Delete(std::span<const std::string> keys) override { return store_->Delete(keys); }
  absl::Status Get(int client, std::string_view key, Use use) override {
    return store_->Get(client, key, use);
  }
  absl::Status Scan(int client, std::string_view start, int count, Visitor visit) override {
    return store_->Scan(client, start, count, visit);
  }
  absl::Status Sync() override { return store_->Sync(); }
  absl::Status Checkpoint() override { return store_->Checkpoint(); }
  absl::Status Compact() override { return store_->Compact(); }

 private:
  struct Waiter {
    KvRow row;
    std::condition_variable wake;
    bool done = false;
    absl::Status status;
  };

  const std::unique_ptr<KvPeer> store_;
  std::mutex mutex_;
  std::deque<Waiter*> waiting_;  // guarded by mutex_; the first one writes
};

}  // namespace

NamedKvPeer Queued(const NamedKvPeer& peer) {
  return {Cat(peer.name, "_queued"),
          [open = peer.open](const KvOptions& options) -> absl::StatusOr<std::unique_ptr<KvPeer>> {
            DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<KvPeer> store, open(options));
            return std::make_unique<CommitQueue>(std::move(store));
          }};
}

}  // namespace dynlib::bench
