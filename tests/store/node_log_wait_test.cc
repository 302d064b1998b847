// Threads that wait for their appends and write them themselves, with asynchronous appends, failing
// disks, Close and destruction in between; under tsan it is the test of the writer's role.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"

namespace dynlib::store {
namespace {

using sim::DiskFault;
using sim::SimDisk;
using testing::ElementsAre;

constexpr auto kUnknownOutcome = absl::StatusCode::kUnknown;

// A log whose executor is run by hand: what gets done without it is done by who waits.
TEST(NodeLogWaitTest, WhoWaitsWritesByItself) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(2, 1, 1, "begins the segment")}));
  const uint64_t batches = h.log->GetStats().batches;
  DYNLIB_EXPECT_OK(h.log->AppendAndWait({Entry(1, 1, 1, "one"), State(1, 0, 1, "state")}));
  EXPECT_EQ(h.log_executor.waiting(), 0u);
  EXPECT_EQ(h.log->GetStats().batches, batches + 1);
  EXPECT_EQ(h.log->OldestPendingSince(), std::nullopt);
  disk.PowerOff(sim::UnsyncedFate::kAllLost);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(h.found.streams.at(StreamId{1}).entries, ElementsAre(Entry(1, 1, 1, "one")));
}

TEST(NodeLogWaitTest, WhoWaitsWritesWhatWasAppendedBeforeToo) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  h.Run();
  const uint64_t batches = h.log->GetStats().batches;
  std::vector<int> order;
  h.log->Append({Entry(1, 1, 1, "async")}, &h.caller, [&](absl::Status s) {
    DYNLIB_EXPECT_OK(s);
    order.push_back(1);
  });
  NodeLog::PendingAppend second;
  DYNLIB_ASSERT_OK(h.log->Append({Entry(1, 2, 1, "waited for")}, &second));
  DYNLIB_EXPECT_OK(second.Wait());
  DYNLIB_EXPECT_OK(second.Wait());
  EXPECT_EQ(h.log->GetStats().batches, batches + 1);
  h.Run();
  EXPECT_THAT(order, ElementsAre(1));
}

// While the bytes are on their way, not before and not after; once, whatever becomes of the append.
TEST(NodeLogWaitTest, WhatIsDoneMeanwhileIsDoneOnce) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  int calls = 0;
  auto count = [&] { ++calls; };
  const uint64_t batches = h.log->GetStats().batches;
  DYNLIB_EXPECT_OK(h.log->AppendAndWait(
      {Entry(1, 1, 1, "one")},
      [&] {
        ++calls;
        EXPECT_TRUE(h.log->OldestPendingSince().has_value());
        EXPECT_EQ(h.log->GetStats().batches, batches);
      },
      DiskWait::kSleep));
  EXPECT_EQ(calls, 1);
  EXPECT_THAT(h.log->AppendAndWait({}, count, DiskWait::kSleep),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(calls, 2);
  disk.PowerOff(sim::UnsyncedFate::kAllLost);
  EXPECT_FALSE(h.log->AppendAndWait({Entry(1, 2, 1, "two")}, count, DiskWait::kPoll).ok());
  EXPECT_EQ(calls, 3);
  EXPECT_FALSE(h.log->AppendAndWait({Entry(1, 3, 1, "three")}, count, DiskWait::kSleep).ok());
  EXPECT_EQ(calls, 4);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(h.found.streams.at(StreamId{1}).entries, ElementsAre(Entry(1, 1, 1, "one")));
}

TEST(NodeLogWaitTest, RefusedAtTheDoor) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  NodeLog::PendingAppend append;
  EXPECT_THAT(h.log->Append({}, &append), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(h.log->AppendAndWait({Entry(1, 1, 1, std::string(5000, 'x'))}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

class WaitTest : public testing::Test {
 protected:
  ~WaitTest() override {
    log_.reset();
    log_executor_->ShutDown();
    callers_->ShutDown();
  }

  absl::Status Open(NodeLog::Options options = SmallLog()) {
    log_.reset();
    log_executor_ = std::make_unique<ThreadExecutor>(ThreadExecutor::Options{.name = "log"});
    callers_ = std::make_unique<ThreadExecutor>(ThreadExecutor::Options{.name = "callers"});
    auto opened = NodeLog::Open(options, &disk_, "log", log_executor_.get(), &clock_,
                                MetricsSink::None(), &found_);
    if (opened.ok()) log_ = *std::move(opened);
    return opened.status();
  }
  absl::Status Close() {
    std::promise<absl::Status> closed;
    log_->Close(callers_.get(), [&](absl::Status s) { closed.set_value(std::move(s)); });
    return closed.get_future().get();
  }
  // After Kill nothing runs any more; what the power left is there.
  void Kill() {
    log_.reset();
    log_executor_->ShutDown();
    callers_->ShutDown();
  }
  uint64_t CountEntries(uint64_t stream) const {
    const auto it = found_.streams.find(StreamId{stream});
    return it == found_.streams.end() ? 0 : it->second.entries.size();
  }

  SimDisk disk_{1};
  SystemClock clock_;
  std::unique_ptr<ThreadExecutor> log_executor_;
  std::unique_ptr<ThreadExecutor> callers_;
  NodeLog::Recovery found_;
  std::unique_ptr<NodeLog> log_;
};

// Many threads, half of which wait and half of which are called back; segments of 64 KiB, so that
// they are made, copied forward and freed all the time.
TEST_F(WaitTest, ManyThreadsOfBothKinds) {
  constexpr uint64_t kThreads = 16;
  constexpr uint64_t kAppends = 120;
  NodeLog::Options options = SmallLog();
  options.max_segments = 64;
  options.copy_forward_above = 4;
  DYNLIB_ASSERT_OK(Open(options));
  std::vector<std::thread> threads;
  for (uint64_t t = 1; t <= kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t slot = 1; slot <= kAppends; ++slot) {
        std::vector<LogRecord> records = {Entry(t, slot, 1, std::string(t * 20, 'x'))};
        if (slot % 8 == 0) records.push_back(State(t, slot, 0, std::to_string(slot)));
        if (t % 4 == 2) {
          int calls = 0;
          DYNLIB_EXPECT_OK(log_->AppendAndWait(
              std::move(records), [&] { ++calls; }, DiskWait::kPoll));
          EXPECT_EQ(calls, 1);
        } else if (t % 2 == 0) {
          DYNLIB_EXPECT_OK(log_->AppendAndWait(std::move(records)));
        } else {
          std::promise<absl::Status> answer;
          log_->Append(std::move(records), callers_.get(),
                       [&](absl::Status s) { answer.set_value(std::move(s)); });
          DYNLIB_EXPECT_OK(answer.get_future().get());
        }
        EXPECT_GT(log_->RetainedBytes(StreamId{t}), 0u) << "counted before it is answered";
        if (slot % 16 == 0 && t != kThreads) log_->Release(StreamId{t}, slot - 8);
        if (slot % 50 == 0) log_->GetStats();
      }
      if (t == 3) log_->Drop(StreamId{t});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const NodeLog::Stats stats = log_->GetStats();
  EXPECT_EQ(stats.records, kThreads * (kAppends + kAppends / 8));
  EXPECT_LE(stats.queued_bytes, NodeLog::kRecordOverheadBytes) << "the drop, perhaps";
  DYNLIB_EXPECT_OK(Close());
  Kill();
  DYNLIB_ASSERT_OK(Open(options));
  EXPECT_TRUE(found_.clean_close);
  DYNLIB_EXPECT_OK(found_.DataLoss());
  EXPECT_EQ(CountEntries(kThreads), kAppends);
  EXPECT_EQ(CountEntries(3), 0u);
  EXPECT_EQ(found_.streams.at(StreamId{2}).state, State(2, kAppends, 0, std::to_string(kAppends)));
}

// Hears of each stream's slots in their order, a batch at a time, before who waits goes on.
class OrderListener : public NodeLog::Listener {
 public:
  struct Numbered : NodeLog::PendingAppend {
    Numbered(OrderListener* listener, uint64_t number, bool waited_for)
        : PendingAppend(listener, waited_for), number(number) {}
    const uint64_t number;
    std::atomic<bool> told{false};
  };

  void OnSettled(std::span<NodeLog::PendingAppend* const> appends,
                 const absl::Status& status) override {
    EXPECT_FALSE(inside_.exchange(true)) << "one call at a time";
    DYNLIB_EXPECT_OK(status);
    EXPECT_FALSE(appends.empty());
    for (NodeLog::PendingAppend* append : appends) {
      auto* numbered = static_cast<Numbered*>(append);
      EXPECT_EQ(numbered->number, last_ + 1);
      last_ = numbered->number;
      numbered->told = true;
    }
    ++calls;
    inside_ = false;
  }

  int calls = 0;
  uint64_t last() const { return last_; }

 private:
  std::atomic<bool> inside_{false};
  uint64_t last_ = 0;
};

TEST_F(WaitTest, AListenerHearsOfAppendsInTheirOrderBeforeTheirThreadsDo) {
  constexpr int kThreads = 8;
  constexpr uint64_t kAppends = 1200;
  DYNLIB_ASSERT_OK(Open());
  OrderListener listener;
  std::mutex mutex;
  uint64_t last = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      while (true) {
        std::unique_ptr<OrderListener::Numbered> append;
        {
          std::lock_guard lock(mutex);
          if (last == kAppends) return;
          append = std::make_unique<OrderListener::Numbered>(&listener, ++last, t % 2 == 0);
          DYNLIB_ASSERT_OK(log_->Append({Entry(1, last, 1, "x")}, append.get()));
        }
        log_->Release(StreamId{1}, append->number / 2);
        // Also one that nobody promised to wait for may be waited for.
        DYNLIB_EXPECT_OK(append->Wait());
        EXPECT_TRUE(append->told);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(listener.last(), kAppends);
  EXPECT_LE(listener.calls, static_cast<int>(kAppends));
}

TEST_F(WaitTest, AnAppendThatNobodyWaitsForIsWrittenAndMayGo) {
  class Deleter : public NodeLog::Listener {
   public:
    void OnSettled(std::span<NodeLog::PendingAppend* const> appends,
                   const absl::Status& status) override {
      DYNLIB_EXPECT_OK(status);
      for (NodeLog::PendingAppend* append : appends) delete append;
      told += appends.size();
      told.notify_all();
    }
    std::atomic<uint64_t> told{0};
  };
  DYNLIB_ASSERT_OK(Open());
  Deleter listener;
  for (uint64_t slot = 1; slot <= 100; ++slot) {
    auto* append = new NodeLog::PendingAppend(&listener, /*waited_for=*/false);
    DYNLIB_ASSERT_OK(log_->Append({Entry(1, slot, 1, "x")}, append));
  }
  for (uint64_t told = 0; told < 100; told = listener.told) listener.told.wait(told);
  EXPECT_EQ(log_->GetStats().records, 100u);
}

// What threads were told, when the log was closed, destroyed or failed under them.
struct Outcomes {
  std::atomic<uint64_t> durable{0};
  std::atomic<uint64_t> unknown{0};
  std::atomic<uint64_t> refused{0};

  bool Note(const absl::Status& status) {
    if (status.ok()) {
      ++durable;
    } else if (status.code() == kUnknownOutcome) {
      ++unknown;
    } else {
      ++refused;
    }
    return status.ok();
  }
};

TEST_F(WaitTest, ClosingInTheMiddleAnswersAllWhoWait) {
  constexpr uint64_t kThreads = 8;
  for (int round = 0; round < 10; ++round) {
    const uint64_t base = CountEntries(1);
    NodeLog::Options options = SmallLog();
    options.max_segments = 64;
    DYNLIB_ASSERT_OK(Open(options));
    Outcomes outcomes;
    std::atomic<uint64_t> slot{1 + round * uint64_t{1'000'000}};
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        while (outcomes.Note(log_->AppendAndWait({Entry(1, slot++, 1, "x")}))) {
        }
      });
    }
    while (outcomes.durable < 20 + static_cast<uint64_t>(round)) std::this_thread::yield();
    DYNLIB_EXPECT_OK(Close());
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(outcomes.refused, kThreads);
    EXPECT_EQ(outcomes.unknown, 0u);
    Kill();
    DYNLIB_ASSERT_OK(Open(options));
    EXPECT_TRUE(found_.clean_close);
    EXPECT_EQ(CountEntries(1), base + outcomes.durable);
    Kill();
  }
}

TEST_F(WaitTest, DestructionInTheMiddleAnswersAllWhoWait) {
  constexpr uint64_t kThreads = 8;
  for (int round = 0; round < 10; ++round) {
    const uint64_t base = CountEntries(1);
    DYNLIB_ASSERT_OK(Open());
    Outcomes outcomes;
    std::mutex mutex;  // The log is not to be called while it goes; to be waited for it may.
    uint64_t slot = round * uint64_t{1'000'000};
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        while (true) {
          NodeLog::PendingAppend append;
          {
            std::lock_guard lock(mutex);
            if (log_ == nullptr) return;
            DYNLIB_ASSERT_OK(log_->Append({Entry(1, ++slot, 1, "x")}, &append));
          }
          outcomes.Note(append.Wait());
        }
      });
    }
    while (outcomes.durable < 20 + static_cast<uint64_t>(round)) std::this_thread::yield();
    {
      std::lock_guard lock(mutex);
      log_.reset();
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(outcomes.unknown, 0u);
    Kill();
    DYNLIB_ASSERT_OK(Open());
    EXPECT_EQ(CountEntries(1), base + outcomes.durable);
    Kill();
  }
}

TEST_F(WaitTest, AFailedSyncIsUnknownToThoseInTheBatchAndRefusedToTheRest) {
  constexpr uint64_t kThreads = 8;
  for (uint64_t call = 1; call <= 40; ++call) {
    DYNLIB_ASSERT_OK(Open());
    log_->Drop(StreamId{call});
    Outcomes outcomes;
    std::atomic<uint64_t> slot{1};
    // With it the drop is written, so there is room: none is to be refused before the disk fails.
    ASSERT_TRUE(outcomes.Note(log_->AppendAndWait({Entry(call + 1, slot++, 1, "x")})));
    std::vector<std::thread> threads;
    disk_.FailCall(30 + call, DiskFault::kEio);
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        while (outcomes.Note(log_->AppendAndWait({Entry(call + 1, slot++, 1, "x")}))) {
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(outcomes.unknown + outcomes.refused, kThreads);
    EXPECT_GT(outcomes.unknown, 0u);
    EXPECT_THAT(log_->Health(), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(log_->AppendAndWait({Entry(1, 1, 1, "x")}),
                StatusIs(absl::StatusCode::kUnavailable));
    Kill();
    disk_.ClearFailCall();
    DYNLIB_ASSERT_OK(Open());
    DYNLIB_EXPECT_OK(found_.DataLoss());
    EXPECT_GE(CountEntries(call + 1), outcomes.durable);
    EXPECT_LE(CountEntries(call + 1), outcomes.durable + outcomes.unknown);
    Kill();
  }
}

// A full disk refuses who waits, and takes them again when there is space.
TEST_F(WaitTest, WaitingGoesOnWhenSpaceIsBack) {
  DYNLIB_ASSERT_OK(Open());
  disk_.SetFull(true);
  std::vector<std::thread> threads;
  std::atomic<uint64_t> slot{1};
  std::atomic<uint64_t> durable{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      absl::Status status;
      while ((status = log_->AppendAndWait({Entry(1, slot++, 1, std::string(2000, 'x'))})).ok()) {
        ++durable;
      }
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(durable, 20u);
  disk_.SetFull(false);
  DYNLIB_EXPECT_OK(log_->AppendAndWait({Entry(1, slot++, 1, "space is back")}));
  Kill();
  DYNLIB_ASSERT_OK(Open());
  EXPECT_EQ(CountEntries(1), durable + 1);
}

}  // namespace
}  // namespace dynlib::store
