// Faults at every disk call of a workload with checkpoints, splits, joins and renames: what is
// found afterwards is exactly a state that was checkpointed, no older than the last one
// acknowledged.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/forest_model.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;

const PageFile::Options kOptions = {.growth_bytes_min = 64 << 10,
                                    .growth_bytes_max = 64 << 10,
                                    .write_bytes_max = 16 << 10,
                                    .busy_write_bytes = 8 << 10};

class Workload {
 public:
  Workload(sim::SimDisk* disk, uint64_t seed, PageFile::Options options = kOptions)
      : disk_(disk), random_(seed), options_(options) {}

  absl::Status Open() {
    file_.reset();
    auto file = PageFile::Open(options_, disk_, "pages");
    if (!file.ok()) return file.status();
    file_ = *std::move(file);
    return absl::OkStatus();
  }

  // Some steps, each ending in a checkpoint; stops at the first error.
  absl::Status Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      absl::Status status = Step();
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // What is found is the last acknowledged checkpoint, or the one that was under way.
  void CheckAfterReopen() {
    ASSERT_THAT(Open(), IsOk());
    Forest found = ForestIn(*file_);
    if (attempted_.has_value() && found == *attempted_) acknowledged_ = found;
    ASSERT_TRUE(found == acknowledged_);
    attempted_.reset();
    current_ = found;
    ExpectSound();
  }

  void ExpectSound() {
    PageFile::VerifyReport report;
    ASSERT_THAT(file_->Verify(&report), IsOk());
    ASSERT_EQ(report.leaked_units, 0u);
  }

  absl::Status Checkpoint() {
    attempted_ = current_;
    absl::Status status = file_->Checkpoint();
    if (!status.ok()) return status;
    acknowledged_ = current_;
    attempted_.reset();
    return status;
  }

  void Close() { file_.reset(); }
  PageFile& file() { return *file_; }
  const Forest& current() const { return current_; }

 private:
  absl::Status Step() {
    for (int batches = 0; batches < 2; ++batches) {
      TreeId id{1 + random_.Below(3)};
      if (!current_.contains(id)) {
        EXPECT_THAT(file_->CreateTree(id), IsOk());
        current_[id];
      }
      WriteBatch batch;
      TreeState& tree = current_[id];
      AddRandomOperations(random_, 200, 12, batch, tree.model);
      absl::Status status = file_->FindTree(id)->Apply(batch, ++tree.position);
      if (!status.ok()) {  // a page could not be read: nothing was applied
        current_ = StateBefore(id);
        return status;
      }
    }
    if (random_.Chance(0.6)) {
      absl::Status status = steps_.Any(*file_, current_);
      if (!status.ok()) return status;
    }
    DYNLIB_RETURN_IF_ERROR(Checkpoint());
    if (random_.Chance(0.5)) return absl::OkStatus();
    DYNLIB_RETURN_IF_ERROR(file_->ReleaseSpace());
    PageFile::ReleaseProgress progress;
    return file_->ReleaseShortRuns(20, &progress);
  }

  // Only used once the run is over: what is in memory no longer matters.
  Forest StateBefore(TreeId) const { return acknowledged_; }

  sim::SimDisk* const disk_;
  Random random_;
  ForestSteps steps_{random_, 200};
  const PageFile::Options options_;
  std::unique_ptr<PageFile> file_;
  Forest current_;
  Forest acknowledged_;
  std::optional<Forest> attempted_;
};

constexpr int kSteps = 6;

// Calls Body for call 1, 2, 3 ... of the workload, until one is never reached.
template <typename Body>
void AtEveryCall(uint64_t seed, Body body) {
  for (uint64_t call = 1;; ++call) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", call " << call);
    sim::SimDisk disk(seed * 1000 + call);
    PageFile::Options options = kOptions;
    if (seed % 2 == 0) options.compression = Compression::kZstd;
    Workload workload(&disk, seed, options);
    if (body(disk, workload, call) || testing::Test::HasFatalFailure()) {
      EXPECT_GT(call, 20u);  // the workload did make calls
      return;
    }
  }
}

// In a body: the workload from scratch, with the fault. OK when the fault was never met.
absl::Status RunWithFault(sim::SimDisk& disk, Workload& workload, uint64_t call,
                          sim::DiskFault fault, sim::UnsyncedFate fate) {
  disk.FailCall(call, fault, fate);
  absl::Status status = workload.Open();
  if (status.ok()) status = workload.Run(kSteps);
  disk.ClearFailCall();
  return status;
}

class PowerOffTest : public testing::TestWithParam<sim::UnsyncedFate> {};

TEST_P(PowerOffTest, AtEveryCall) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    AtEveryCall(seed, [&](sim::SimDisk& disk, Workload& workload, uint64_t call) {
      absl::Status status =
          RunWithFault(disk, workload, call, sim::DiskFault::kPowerOff, GetParam());
      if (status.ok()) return true;
      workload.Close();
      disk.Restart();
      workload.CheckAfterReopen();
      if (testing::Test::HasFatalFailure()) return true;
      // Life goes on, and another crash finds what was acknowledged then.
      EXPECT_THAT(workload.Run(3), IsOk());
      workload.ExpectSound();
      workload.Close();
      disk.PowerOff(sim::UnsyncedFate::kAllLost);
      disk.Restart();
      workload.CheckAfterReopen();
      return false;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Fates, PowerOffTest,
                         testing::Values(sim::UnsyncedFate::kAllLost, sim::UnsyncedFate::kAllKept,
                                         sim::UnsyncedFate::kTorn,
                                         sim::UnsyncedFate::kRandomSubset));

// A file that gives out pages which a superblock still needs must not get past this (S3): power
// fails between the new pages and the superblock that would name them.
TEST(PageFileMutantTest, L5PageReusedEarly) {
  PageFile::Options mutant = kOptions;
  mutant.reuse_pages_early_for_test = true;
  int caught = 0;
  for (uint64_t call = 1;; ++call) {
    sim::SimDisk disk(call);
    Workload workload(&disk, 1, mutant);
    absl::Status status =
        RunWithFault(disk, workload, call, sim::DiskFault::kPowerOff, sim::UnsyncedFate::kAllKept);
    if (status.ok()) break;
    workload.Close();
    disk.Restart();
    status = workload.Open();
    if (status.ok()) status = workload.file().Verify();
    caught += !status.ok();
  }
  EXPECT_GT(caught, 0);
}

// An error of the device closes the file for good (L3); opened again, it is as after a crash, also
// when the power failed meanwhile.
class DeviceErrorTest : public testing::TestWithParam<std::optional<sim::UnsyncedFate>> {};

TEST_P(DeviceErrorTest, EioAtEveryCall) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    AtEveryCall(seed, [&](sim::SimDisk& disk, Workload& workload, uint64_t call) {
      absl::Status status = RunWithFault(disk, workload, call, sim::DiskFault::kEio, {});
      if (status.ok()) return true;
      EXPECT_THAT(status, StatusIs(StatusCode::kDataLoss));
      workload.Close();
      if (GetParam().has_value()) {
        disk.PowerOff(*GetParam());
        disk.Restart();
      }
      // What an Open finds is durable, also if only the cache had it: the power fails again at
      // once, and after some checkpoints.
      for (int steps : {0, 2, 0}) {
        workload.CheckAfterReopen();
        if (testing::Test::HasFatalFailure()) return true;
        EXPECT_THAT(workload.Run(steps), IsOk());
        workload.ExpectSound();
        workload.Close();
        disk.PowerOff(sim::UnsyncedFate::kAllLost);
        disk.Restart();
      }
      return false;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Fates, DeviceErrorTest,
                         testing::Values(std::nullopt, sim::UnsyncedFate::kAllLost,
                                         sim::UnsyncedFate::kAllKept, sim::UnsyncedFate::kTorn,
                                         sim::UnsyncedFate::kRandomSubset));

// Out of space is nothing but a checkpoint that did not happen; the next one succeeds.
TEST(PageFileFaultTest, NoSpaceAtEverySize) {
  constexpr uint64_t kBlock = 4096;
  int failed_checkpoints = 0;
  for (uint64_t blocks = 0; blocks < 150; ++blocks) {
    SCOPED_TRACE(testing::Message() << blocks << " blocks");
    sim::SimDisk disk(1);
    Workload workload(&disk, 5);
    disk.SetCapacity(blocks * kBlock);
    absl::Status opened = workload.Open();
    if (!opened.ok()) {
      EXPECT_THAT(opened, StatusIs(StatusCode::kResourceExhausted));
      EXPECT_LT(blocks, 2u);
      disk.SetCapacity(1 << 30);
      workload.CheckAfterReopen();
      continue;
    }
    absl::Status status = workload.Run(kSteps);
    if (status.ok()) break;
    ++failed_checkpoints;
    ASSERT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
    workload.ExpectSound();
    EXPECT_TRUE(ForestIn(workload.file()) == workload.current());
    disk.SetCapacity(1 << 30);
    EXPECT_THAT(workload.Checkpoint(), IsOk());
    workload.ExpectSound();
    EXPECT_THAT(workload.Run(2), IsOk());
    workload.ExpectSound();
    workload.Close();
    workload.CheckAfterReopen();
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(failed_checkpoints, 20);
}

}  // namespace
}  // namespace dynlib::store
