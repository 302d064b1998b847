// The device fails, or is full, at every disk call of a workload (rule L3): a failed write closes
// the log and what it held is in doubt, never "ok" later; a full disk refuses appends and nothing
// else, and takes them again, without reopening, when there is space.
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/node_log.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"
#include "tests/store/log_workload.h"

namespace dynlib::store {
namespace {

using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;

constexpr uint64_t kSeed = 11;

// The log as it is after a crash, judged by the model; and it takes appends.
void ExpectRecovers(SimDisk& disk, LogModel& model, uint64_t call) {
  LogHarness h(&disk, BusyLog());
  DYNLIB_ASSERT_OK(h.Open());
  model.Check(h.found);
  DYNLIB_EXPECT_OK(h.Append({Entry(9, call, 1, "alive")}));
}

void PowerCycle(SimDisk& disk, UnsyncedFate fate) {
  disk.PowerOff(fate);
  disk.Restart();
}

TEST(NodeLogFaultTest, TheDeviceFailsAtEveryCall) {
  uint64_t closed = 0;
  bool struck = true;
  uint64_t call = 1;
  for (; struck && !HasFailure(); ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(kSeed);
    LogModel model;
    {
      LogHarness h(&disk, BusyLog());
      const uint64_t before = disk.calls();
      disk.FailCall(call, DiskFault::kEio);
      if (h.Open().ok()) {
        LogWorkload(&h, &model, kSeed).Run(160, disk);
        if (!h.log->Health().ok()) {
          ++closed;
          EXPECT_THAT(h.Append({Entry(9, 1, 1, "x")}), StatusIs(absl::StatusCode::kUnavailable));
        }
      }
      struck = disk.calls() - before >= call;
      disk.ClearFailCall();
    }
    PowerCycle(disk, call % 2 == 0 ? UnsyncedFate::kAllLost : UnsyncedFate::kRandomSubset);
    ExpectRecovers(disk, model, call);
  }
  EXPECT_GT(call, 200u);
  EXPECT_GT(closed, 100u) << "most calls of a workload are writes and syncs of batches";
}

// Space is gone from the n-th call on, and comes back after a while: the same log goes on.
TEST(NodeLogFaultTest, TheDiskIsFullAtEveryCall) {
  uint64_t refused = 0;
  bool struck = true;
  uint64_t call = 1;
  for (; struck && !HasFailure(); ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(kSeed);
    LogModel model;
    {
      LogHarness h(&disk, BusyLog());
      DYNLIB_ASSERT_OK(h.Open());
      const uint64_t before = disk.calls();
      disk.FailCall(call, DiskFault::kNoSpace);
      LogWorkload workload(&h, &model, kSeed);
      workload.Run(80, disk);
      disk.SetFull(true);
      workload.Run(80, disk);
      struck = disk.calls() - before >= call;
      disk.ClearFailCall();
      DYNLIB_EXPECT_OK(h.log->Health());
      refused += h.log->GetStats().refused_no_space;
      disk.SetFull(false);
      const size_t append = model.Submit({Entry(8, call, 1, "space is back")});
      const absl::Status resumed = h.Append({Entry(8, call, 1, "space is back")});
      DYNLIB_EXPECT_OK(resumed);
      model.Settle(append, resumed);
    }
    PowerCycle(disk, UnsyncedFate::kAllLost);
    ExpectRecovers(disk, model, call);
  }
  EXPECT_GT(call, 200u);
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace dynlib::store
