// Power off at every disk call of a workload, in every way in which power can be lost, and again
// while recovering: all that was acknowledged comes back, nothing is made up (rules L1 to L4).
#include <cstdint>

#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"
#include "tests/store/log_workload.h"

namespace dynlib::store {
namespace {

using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;

// One life and death; returns false if the workload ended before the fault struck.
bool CrashAt(uint64_t call, UnsyncedFate fate, uint64_t seed,
             const NodeLog::Options& options = BusyLog()) {
  SCOPED_TRACE(testing::Message() << "call " << call << " fate " << static_cast<int>(fate)
                                  << " seed " << seed);
  SimDisk disk(seed);
  LogModel model;
  bool struck = false;
  {
    LogHarness harness(&disk, options);
    disk.FailCall(call, DiskFault::kPowerOff, fate);
    if (harness.Open().ok()) LogWorkload(&harness, &model, seed).Run(160, disk);
    struck = disk.down();
    if (!struck) {
      // The workload does what is to be interrupted.
      EXPECT_GT(harness.log->GetStats().copied_forward_records, 0u);
      EXPECT_GT(harness.log->GetStats().segments_recycled, 1u);
    }
    disk.ClearFailCall();
  }
  if (!struck) disk.PowerOff(fate);
  disk.Restart();
  // The power fails again during the recovery and the appends after it.
  {
    LogHarness harness(&disk, options);
    disk.FailCall(1 + (call * 7 + seed) % 60, DiskFault::kPowerOff, fate);
    if (harness.Open().ok()) {
      model.Check(harness.found);
      model.Adopt(harness.found);
      const size_t append = model.Submit({Entry(9, call, 1, "again")});
      harness.log->Append({Entry(9, call, 1, "again")}, &harness.caller,
                          [&](absl::Status s) { model.Settle(append, s); });
      harness.Run();
    }
    disk.ClearFailCall();
  }
  if (!disk.down()) disk.PowerOff(fate);
  disk.Restart();
  LogHarness harness(&disk, options);
  EXPECT_THAT(harness.Open(), IsOk());
  model.Check(harness.found);
  model.Adopt(harness.found);
  EXPECT_THAT(harness.Append({Entry(9, call + 1, 1, "alive")}), IsOk());
  return struck;
}

class NodeLogCrashTest : public testing::TestWithParam<UnsyncedFate> {};

TEST_P(NodeLogCrashTest, PowerOffAtEveryDiskCall) {
  uint64_t call = 1;
  while (CrashAt(call, GetParam(), /*seed=*/11) && !HasFailure()) ++call;
  EXPECT_GT(call, 200u);
}

TEST_P(NodeLogCrashTest, PowerOffAtRandomCalls) {
  for (uint64_t seed = 100; seed < 180 && !HasFailure(); ++seed) {
    NodeLog::Options options = BusyLog();
    if (seed % 2 == 1) options.block_bytes = 4096;  // Blocks tear inside, at sectors.
    CrashAt(1 + seed * 31 % 250, GetParam(), seed, options);
  }
}

INSTANTIATE_TEST_SUITE_P(Fates, NodeLogCrashTest,
                         testing::Values(UnsyncedFate::kAllLost, UnsyncedFate::kAllKept,
                                         UnsyncedFate::kTorn, UnsyncedFate::kRandomSubset));

}  // namespace
}  // namespace dynlib::store
