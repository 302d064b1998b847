// Power off at every disk call of a workload, in every way in which power can be lost, and again
// while recovering: all that was acknowledged comes back, nothing is made up (rules L1 to L4).
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"

namespace dynlib::store {
namespace {

using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;

constexpr uint64_t kStreams = 4;  // The last of them releases nothing: a laggard.

// Appends, releases and runs the log at random; stops when the power has failed.
class Workload {
 public:
  Workload(LogHarness* harness, LogModel* model, uint64_t seed)
      : harness_(*harness), model_(*model), random_(seed), next_slot_(kStreams + 1, 1) {}

  void Run(int appends, const SimDisk& disk) {
    for (int i = 0; i < appends && !disk.down(); ++i) {
      Append();
      if (random_.Chance(0.6)) harness_.Run(static_cast<int>(random_.Between(1, 4)));
      if (random_.Chance(0.1)) Release();
    }
    harness_.Run();
  }

 private:
  void Append() {
    std::vector<LogRecord> records;
    for (uint64_t i = random_.Between(1, 3); i > 0; --i) {
      const uint64_t stream = 1 + random_.Below(kStreams);
      std::string payload(random_.Below(stream == kStreams ? 40 : 1300),
                          static_cast<char>('a' + random_.Below(26)));
      payload += std::to_string(++unique_);
      if (random_.Chance(0.2)) {
        records.push_back(State(stream, unique_, 0, payload));
      } else if (random_.Chance(0.2) && next_slot_[stream] > 1) {
        // An earlier slot again, under a higher ballot.
        const uint64_t back = 1 + random_.Below(std::min<uint64_t>(next_slot_[stream] - 1, 5));
        records.push_back(Entry(stream, next_slot_[stream] - back, ++ballot_, payload));
      } else {
        records.push_back(Entry(stream, next_slot_[stream]++, ballot_, payload));
      }
    }
    const size_t append = model_.Submit(records);
    harness_.log->Append(std::move(records), &harness_.caller,
                         [this, append](absl::Status s) { model_.Settle(append, s); });
  }
  void Release() {
    const uint64_t stream = 1 + random_.Below(kStreams - 1);
    if (next_slot_[stream] < 8) return;
    harness_.Run();
    model_.Release(stream, next_slot_[stream] - 6);
    harness_.log->Release(StreamId{stream}, next_slot_[stream] - 6);
  }

  LogHarness& harness_;
  LogModel& model_;
  Random random_;
  std::vector<uint64_t> next_slot_;
  uint64_t ballot_ = 1;
  uint64_t unique_ = 0;
};

// Copies forward as soon as it can.
NodeLog::Options BusyLog() {
  NodeLog::Options options = SmallLog();
  options.copy_forward_above = 1;
  return options;
}

// One life and death; returns false if the workload ended before the fault struck.
bool CrashAt(uint64_t call, UnsyncedFate fate, uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "call " << call << " fate " << static_cast<int>(fate)
                                  << " seed " << seed);
  SimDisk disk(seed);
  LogModel model;
  bool struck = false;
  {
    LogHarness harness(&disk, BusyLog());
    disk.FailCall(call, DiskFault::kPowerOff, fate);
    if (harness.Open().ok()) Workload(&harness, &model, seed).Run(160, disk);
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
    LogHarness harness(&disk, BusyLog());
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
  LogHarness harness(&disk, BusyLog());
  EXPECT_THAT(harness.Open(), IsOk());
  model.Check(harness.found);
  model.Adopt(harness.found);
  EXPECT_THAT(harness.Append({Entry(9, call + 1, 1, "alive")}), IsOk());
  return struck;
}

class NodeLogCrashTest : public testing::TestWithParam<UnsyncedFate> {};

TEST_P(NodeLogCrashTest, PowerOffAtEveryDiskCall) {
  // Every call for the fate that can leave any mixture; every other one for the tamer three.
  const uint64_t step = GetParam() == UnsyncedFate::kRandomSubset ? 1 : 2;
  uint64_t call = 1;
  while (CrashAt(call, GetParam(), /*seed=*/11) && !HasFailure()) call += step;
  EXPECT_GT(call, 200u);
}

TEST_P(NodeLogCrashTest, PowerOffAtRandomCalls) {
  for (uint64_t seed = 100; seed < 180 && !HasFailure(); ++seed) {
    CrashAt(1 + seed * 31 % 250, GetParam(), seed);
  }
}

INSTANTIATE_TEST_SUITE_P(Fates, NodeLogCrashTest,
                         testing::Values(UnsyncedFate::kAllLost, UnsyncedFate::kAllKept,
                                         UnsyncedFate::kTorn, UnsyncedFate::kRandomSubset));

}  // namespace
}  // namespace dynlib::store
