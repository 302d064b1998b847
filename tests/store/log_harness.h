// What the tests of the node log run it on: executors run by hand, a simulated disk, and a model
// that knows what recovery may say.
#ifndef TESTS_STORE_LOG_HARNESS_H_
#define TESTS_STORE_LOG_HARNESS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "gtest/gtest.h"

namespace dynlib::store {

// Tasks are posted by any thread, and run by one.
class ManualExecutor final : public Executor {
 public:
  void Post(Task task) override {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  TimerId RunAt(Instant when, Task task) override {
    std::lock_guard lock(mutex_);
    const TimerId id{++last_timer_};
    timers_.emplace(std::pair(when, id), std::move(task));
    return id;
  }
  bool Cancel(TimerId timer) override {
    std::lock_guard lock(mutex_);
    return std::erase_if(timers_, [&](const auto& t) { return t.first.second == timer; }) > 0;
  }
  bool IsCurrent() const override { return runs_on_.load() == std::this_thread::get_id(); }

  bool RunOne() {
    std::optional<Task> task = Take();
    if (!task.has_value()) return false;
    runs_on_ = std::this_thread::get_id();
    (*std::move(task))();
    runs_on_ = std::thread::id();
    return true;
  }
  size_t waiting() const {
    std::lock_guard lock(mutex_);
    return tasks_.size();
  }
  // Posts what the first timer is for; its time, or nothing when there is none.
  std::optional<Instant> FireTimer() {
    std::lock_guard lock(mutex_);
    if (timers_.empty()) return std::nullopt;
    const Instant when = timers_.begin()->first.first;
    tasks_.push_back(std::move(timers_.begin()->second));
    timers_.erase(timers_.begin());
    return when;
  }

 private:
  std::optional<Task> Take() {
    std::lock_guard lock(mutex_);
    if (tasks_.empty()) return std::nullopt;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }

  mutable std::mutex mutex_;
  std::deque<Task> tasks_;
  std::map<std::pair<Instant, TimerId>, Task> timers_;
  uint64_t last_timer_ = 0;
  std::atomic<std::thread::id> runs_on_{};
};

class ManualClock final : public Clock {
 public:
  Instant Now() const override { return Instant::FromNanos(nanos); }
  WallTime WallNow() const override { return WallTime::FromNanos(nanos); }
  int64_t nanos = 1;
};

// Small segments, so that a short test recycles many.
inline NodeLog::Options SmallLog() {
  NodeLog::Options options;
  options.segment_bytes = 64 << 10;
  options.block_bytes = 512;
  options.max_batch_bytes = 4096;
  options.max_queued_bytes = 64 << 10;
  options.copy_forward_above = 3;
  options.max_segments = 10;
  options.identity = 7;
  return options;
}

class LogHarness {
 public:
  explicit LogHarness(Disk* disk, NodeLog::Options options = SmallLog())
      : options(options), disk_(disk) {}
  ~LogHarness() { Kill(); }

  absl::Status Open() {
    auto opened = NodeLog::Open(options, disk_, "node/log", &log_executor, &clock,
                                MetricsSink::None(), &found, entries);
    if (opened.ok()) log = *std::move(opened);
    return opened.status();
  }
  // Runs both executors until nothing is left, or `steps` of the log's tasks have run.
  void Run(int steps = INT32_MAX) {
    while (steps-- > 0 && log_executor.RunOne()) {
    }
    while (caller.RunOne()) {
    }
  }
  // A crash of the process: nothing queued is written.
  void Kill() {
    log.reset();
    Run();
  }
  // Appends and waits for the answer.
  absl::Status Append(std::vector<LogRecord> records) {
    std::optional<absl::Status> answer;
    log->Append(std::move(records), &caller, [&](absl::Status s) { answer = std::move(s); });
    Run();
    DYNLIB_CHECK(answer.has_value());
    return *answer;
  }
  absl::Status Close() {
    std::optional<absl::Status> answer;
    log->Close(&caller, [&](absl::Status s) { answer = std::move(s); });
    Run();
    DYNLIB_CHECK(answer.has_value());
    log.reset();
    return *answer;
  }
  absl::Status Reopen() {
    Kill();
    return Open();
  }

  NodeLog::Options options;
  NodeLog::Entries entries = NodeLog::Entries::kInRecovery;
  ManualExecutor log_executor;
  ManualExecutor caller;
  ManualClock clock;
  NodeLog::Recovery found;
  std::unique_ptr<NodeLog> log;

 private:
  Disk* const disk_;
};

inline LogRecord Entry(uint64_t stream, uint64_t slot, uint64_t ballot, std::string payload) {
  return {StreamId{stream}, RecordKind::kEntry, slot, ballot, std::move(payload)};
}
inline LogRecord State(uint64_t stream, uint64_t slot, uint64_t ballot, std::string payload) {
  return {StreamId{stream}, RecordKind::kState, slot, ballot, std::move(payload)};
}

// What was submitted, and what became of it; judges a recovery.
class LogModel {
 public:
  enum class Fate { kPending, kDurable, kInDoubt, kNever };

  // Returns the number by which to settle it.
  size_t Submit(std::vector<LogRecord> records) {
    for (LogRecord& record : records) {
      submitted_.push_back({std::move(record), appends_, Fate::kPending});
    }
    return appends_++;
  }
  void Settle(size_t append, const absl::Status& status) {
    const bool unknown = status.code() == absl::StatusCode::kUnknown;
    for (Submitted& s : submitted_) {
      if (s.append != append) continue;
      EXPECT_EQ(s.fate, Fate::kPending);
      s.fate = status.ok() ? Fate::kDurable : unknown ? Fate::kInDoubt : Fate::kNever;
    }
  }
  void Release(uint64_t stream, uint64_t slot) {
    released_[StreamId{stream}] = std::max(released_[StreamId{stream}], slot);
  }

  // Rules L1 to L4 after a stop without damage: all that was acknowledged is there, nothing was
  // made up, unknown is what was in doubt alone.
  void Check(const NodeLog::Recovery& found, bool damage_allowed = false) {
    if (!damage_allowed) {
      EXPECT_EQ(found.damaged_batches, 0u);
      EXPECT_EQ(found.lost_batches, 0u);
    }
    std::map<Key, std::vector<const Submitted*>> by_key;
    for (const Submitted& s : submitted_) by_key[KeyOf(s.record)].push_back(&s);
    for (const auto& [key, all] : by_key) CheckOne(found, key, all, damage_allowed);
    for (const auto& [id, stream] : found.streams) {
      for (const LogRecord& entry : stream.entries) {
        EXPECT_TRUE(by_key.contains(KeyOf(entry))) << "invented slot " << entry.slot;
      }
    }
  }

  // After Check: what came back is durable now, what did not is gone for good.
  void Adopt(const NodeLog::Recovery& found) {
    for (Submitted& s : submitted_) {
      if (s.fate == Fate::kDurable) continue;
      const LogRecord* there = Find(found, KeyOf(s.record));
      if (there != nullptr && *there == s.record) {
        s.fate = Fate::kDurable;
      } else if (!IsUnknown(found, s.record)) {
        s.fate = Fate::kNever;
      } else {
        s.fate = Fate::kInDoubt;
      }
    }
  }

 private:
  struct Submitted {
    LogRecord record;
    size_t append = 0;
    Fate fate = Fate::kPending;
  };
  struct Key {
    StreamId stream{};
    RecordKind kind{};
    uint64_t slot = 0;  // 0 for states.
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  static Key KeyOf(const LogRecord& r) {
    return {r.stream, r.kind, r.kind == RecordKind::kState ? 0 : r.slot};
  }
  static const LogRecord* Find(const NodeLog::Recovery& found, const Key& key) {
    auto stream = found.streams.find(key.stream);
    if (stream == found.streams.end()) return nullptr;
    if (key.kind == RecordKind::kState) {
      return stream->second.state.has_value() ? &*stream->second.state : nullptr;
    }
    for (const LogRecord& entry : stream->second.entries) {
      if (entry.slot == key.slot) return &entry;
    }
    return nullptr;
  }
  static bool IsUnknown(const NodeLog::Recovery& found, const LogRecord& record) {
    auto stream = found.streams.find(record.stream);
    if (stream == found.streams.end()) return false;
    if (stream->second.lost_batch) return true;
    for (const auto& unknown : stream->second.unknown) {
      const bool same_slot = record.kind == RecordKind::kState || unknown.slot == record.slot;
      if (unknown.kind == record.kind && same_slot) return true;
    }
    return false;
  }
  // The later of the two counts for a state, and of an entry the higher ballot.
  static bool Supersedes(const Submitted& a, const Submitted& b) {
    if (a.record.kind == RecordKind::kState) return a.append >= b.append;
    return std::pair(a.record.ballot, a.append) >= std::pair(b.record.ballot, b.append);
  }

  void CheckOne(const NodeLog::Recovery& found, const Key& key,
                const std::vector<const Submitted*>& all, bool damage_allowed) {
    const Submitted* newest = nullptr;
    bool in_doubt = false;
    for (const Submitted* s : all) {
      in_doubt |= s->fate == Fate::kInDoubt || s->fate == Fate::kPending;
      if (s->fate != Fate::kDurable) continue;
      if (newest == nullptr || Supersedes(*s, *newest)) newest = s;
    }
    const std::string where = Cat_(key);
    const bool unknown = IsUnknown(found, all.front()->record);
    if (unknown && !damage_allowed) {
      EXPECT_TRUE(in_doubt) << where << " is called unknown but was never in doubt";
    }
    const bool released = key.kind == RecordKind::kEntry && key.slot <= released_[key.stream];
    const LogRecord* there = Find(found, key);
    if (there == nullptr) {
      EXPECT_TRUE(newest == nullptr || released || (damage_allowed && unknown))
          << where << " was acknowledged and is silently missing";
      return;
    }
    const Submitted* same = nullptr;
    for (const Submitted* s : all) {
      if (s->record == *there && s->fate != Fate::kNever) same = s;
    }
    ASSERT_NE(same, nullptr) << where << " has a value that was not written or had gone";
    if (newest != nullptr && !(damage_allowed && unknown)) {
      EXPECT_TRUE(Supersedes(*same, *newest)) << where << " is older than what was acknowledged";
    }
  }
  static std::string Cat_(const Key& key) {
    return "stream " + std::to_string(ToUint(key.stream)) +
           (key.kind == RecordKind::kState ? " state" : " slot " + std::to_string(key.slot));
  }

  std::vector<Submitted> submitted_;
  std::map<StreamId, uint64_t> released_;
  size_t appends_ = 0;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_LOG_HARNESS_H_
