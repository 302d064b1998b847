// What the tests of the Store run it on: executors run by hand.
#ifndef TESTS_STORE_STORE_HARNESS_H_
#define TESTS_STORE_STORE_HARNESS_H_

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"

namespace dynlib::store {

using Contents = std::map<std::string, std::string>;

inline Store::Options SmallStore() {
  Store::Options options;
  options.log = SmallLog();
  options.pages.growth_bytes_min = 64 << 10;
  options.checkpoint_after_bytes = 64 << 10;
  return options;
}

inline WriteBatch Put(std::string key, std::string value) {
  WriteBatch batch;
  batch.Put(std::move(key), std::move(value));
  return batch;
}

// A store on executors run by hand.
class StoreHarness {
 public:
  explicit StoreHarness(Disk* disk) : disk_(disk) {}
  ~StoreHarness() { Kill(); }

  absl::Status Open() {
    auto opened = Store::Open(options, disk_, "db", {&log_, &apply_, &checkpoint_}, &clock_,
                              MetricsSink::None(), &found);
    if (opened.ok()) store = *std::move(opened);
    return opened.status();
  }
  void Run() {
    while (RunOnce()) {
    }
  }
  // A task of each executor; false: there was none.
  bool RunOnce() {
    const bool ran = log_.RunOne();
    return RunAllButTheLog() || ran;
  }
  bool RunAllButTheLog() {
    bool ran = apply_.RunOne();
    ran |= checkpoint_.RunOne();
    ran |= caller.RunOne();
    return ran;
  }
  // Time passes until the store has nothing more to do; at most so many timers.
  void Rest(int timers = 1000) {
    for (; timers > 0; --timers) {
      const std::optional<Instant> when = checkpoint_.FireTimer();
      if (!when.has_value()) return;
      clock_.nanos = std::max(clock_.nanos, when->nanos());
      Run();
    }
  }
  Instant Now() const { return clock_.Now(); }
  void Kill() {
    store.reset();
    Run();
  }
  absl::Status Reopen() {
    Kill();
    return Open();
  }
  absl::Status Write(const WriteBatch& batch) { return Write(StoreBatch(batch)).status; }
  WriteResult Write(StoreBatch batch, WriteOptions write = {}) {
    std::optional<WriteResult> answer;
    store->Write(std::move(batch), write, &caller,
                 [&](WriteResult result) { answer = std::move(result); });
    Run();
    return *std::move(answer);
  }
  absl::Status Checkpoint() {
    std::optional<absl::Status> answer;
    store->Checkpoint(&caller, [&](absl::Status s) { answer = std::move(s); });
    Run();
    return *answer;
  }
  absl::Status Close() {
    std::optional<absl::Status> answer;
    store->Close(&caller, [&](absl::Status s) { answer = std::move(s); });
    Run();
    store.reset();
    Run();
    return *answer;
  }
  absl::StatusOr<NamedTree> OpenTree(std::string_view name) {
    std::optional<absl::StatusOr<NamedTree>> answer;
    store->OpenTree(name, &caller,
                    [&](absl::StatusOr<NamedTree> tree) { answer = std::move(tree); });
    Run();
    return *std::move(answer);
  }
  absl::Status DropTree(const NamedTree& tree) {
    std::optional<absl::Status> answer;
    store->DropTree(tree, &caller, [&](absl::Status s) { answer = std::move(s); });
    Run();
    return *answer;
  }
  Contents Scan(const NamedTree& tree = NamedTree()) const {
    Contents contents;
    EXPECT_THAT(store->snapshot(tree).Scan("", "", ScanOrder::kForward,
                                           [&](std::string_view key, std::string_view value) {
                                             contents.emplace(key, value);
                                             return true;
                                           }),
                IsOk());
    return contents;
  }

  Store::Options options = SmallStore();
  Store::Recovery found;
  std::unique_ptr<Store> store;
  ManualExecutor caller;

 private:
  Disk* const disk_;
  ManualExecutor log_;
  ManualExecutor apply_;
  ManualExecutor checkpoint_;
  ManualClock clock_;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_STORE_HARNESS_H_
