// The node log on real files and real threads; under tsan it is the test of its locking.
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

constexpr int kThreads = 4;
constexpr uint64_t kAppends = 150;

NodeLog::Options SmallSegments() {
  NodeLog::Options options;
  options.segment_bytes = 256 << 10;
  options.copy_forward_above = 4;
  options.max_segments = 12;
  return options;
}

class NodeLogPosixTest : public testing::Test {
 protected:
  NodeLogPosixTest() : root_(testing::TempDir() + "/node_log_posix_test") {
    std::filesystem::remove_all(root_);
  }
  ~NodeLogPosixTest() override { std::filesystem::remove_all(root_); }

  const std::string root_;
  SystemClock clock_;
};

TEST_F(NodeLogPosixTest, ManyThreadsAppendReleaseAndAsk) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<PosixDisk> disk, PosixDisk::Open({.root = root_}));
  ThreadExecutor callers({.name = "callers"});
  auto log_executor = std::make_unique<ThreadExecutor>();
  NodeLog::Recovery found;
  DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<NodeLog> log,
                              NodeLog::Open(SmallSegments(), disk.get(), "log", log_executor.get(),
                                            &clock_, MetricsSink::None(), &found));
  std::atomic<uint64_t> durable{0};
  std::vector<std::thread> threads;
  for (int t = 1; t <= kThreads; ++t) {
    threads.emplace_back([&, t] {
      const StreamId stream{static_cast<uint64_t>(t)};
      for (uint64_t slot = 1; slot <= kAppends; ++slot) {
        std::vector<LogRecord> records = {
            {stream, RecordKind::kEntry, slot, 1, std::string(1000, 'x')},
            {stream, RecordKind::kState, 0, slot, "state"}};
        if (t % 2 == 0) {  // On its own thread, or another's.
          if (log->AppendAndWait(std::move(records)).ok()) ++durable;
        } else {
          std::promise<absl::Status> answer;
          log->Append(std::move(records), &callers,
                      [&](absl::Status s) { answer.set_value(std::move(s)); });
          if (answer.get_future().get().ok()) ++durable;
        }
        if (t != kThreads) log->Release(stream, slot - 1);  // The last thread's stream lags.
        log->OldestPendingSince();
        log->RetainedBytes(stream);
        log->GetStats();
      }
    });
  }
  // The one that lags is copied forward meanwhile.
  while (durable < kThreads * kAppends) {
    uint64_t slot = 0;
    DYNLIB_ASSERT_OK(log->ReadEntries(StreamId{kThreads}, 0, [&](const LogRecord& entry) {
      EXPECT_EQ(entry.slot, ++slot);
      EXPECT_EQ(entry.payload, std::string(1000, 'x'));
      return absl::OkStatus();
    }));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(durable, kThreads * kAppends);
  EXPECT_LT(log->GetStats().batches, kThreads * kAppends) << "threads share syncs";

  std::promise<absl::Status> closed;
  log->Close(&callers, [&](absl::Status s) { closed.set_value(std::move(s)); });
  DYNLIB_EXPECT_OK(closed.get_future().get());
  log.reset();
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      log, NodeLog::Open(SmallSegments(), disk.get(), "log", log_executor.get(), &clock_,
                         MetricsSink::None(), &found));
  EXPECT_TRUE(found.clean_close);
  EXPECT_GT(found.took, Duration::zero());
  uint64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(root_ + "/log")) {
    bytes += file.file_size();
  }
  EXPECT_GE(found.read_bytes + (256 << 10), bytes) << "a new spare apart";
  EXPECT_LE(found.read_bytes, bytes);
  EXPECT_EQ(found.streams.at(StreamId{kThreads}).entries.size(), kAppends);
  for (int t = 1; t <= kThreads; ++t) {
    const NodeLog::RecoveredStream& stream = found.streams.at(StreamId{static_cast<uint64_t>(t)});
    ASSERT_TRUE(stream.state.has_value());
    EXPECT_EQ(stream.state->ballot, kAppends);
    EXPECT_EQ(stream.entries.back().slot, kAppends);
  }
  log.reset();
  log_executor.reset();
}

TEST_F(NodeLogPosixTest, DestroyedInTheMiddleItAnswersEveryAppend) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<PosixDisk> disk, PosixDisk::Open({.root = root_}));
  std::atomic<int> answers{0};
  std::atomic<int> durable{0};
  {
    ThreadExecutor callers({.name = "callers"});
    ThreadExecutor log_executor({.name = "log"});
    NodeLog::Recovery found;
    DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<NodeLog> log,
                                NodeLog::Open(SmallSegments(), disk.get(), "log", &log_executor,
                                              &clock_, MetricsSink::None(), &found));
    for (uint64_t slot = 1; slot <= 100; ++slot) {
      log->Append({{StreamId{1}, RecordKind::kEntry, slot, 1, "x"}}, &callers, [&](absl::Status s) {
        ++answers;
        durable += s.ok() ? 1 : 0;
      });
    }
    log.reset();
    log_executor.ShutDown();
    callers.ShutDown();
  }
  EXPECT_EQ(answers, 100);
  ThreadExecutor log_executor({.name = "log"});
  NodeLog::Recovery found;
  DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<NodeLog> log,
                              NodeLog::Open(SmallSegments(), disk.get(), "log", &log_executor,
                                            &clock_, MetricsSink::None(), &found));
  const size_t there = found.streams.empty() ? 0 : found.streams.at(StreamId{1}).entries.size();
  EXPECT_EQ(there, static_cast<size_t>(durable));
}

}  // namespace
}  // namespace dynlib::store
