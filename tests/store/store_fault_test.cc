// Faults at every disk call of a workload that checkpoints, recycles and frees. (Damage to what a
// clean close leaves: store_damage_test.)
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;

// All trees, by name.
using Forest = std::map<std::string, Contents>;

Forest ForestIn(StoreHarness& h) {
  Forest forest;
  forest[""] = h.Scan();
  for (const std::string& name : h.store->ListTrees()) {
    forest[name] = h.Scan(*h.store->FindTree(name));
  }
  return forest;
}

// Writes in three trees, some together, some on conditions, trees that come and go, checkpoints;
// and the states that it goes through.
class Workload {
 public:
  // `one_by_one`: what is refused changes nothing, and what follows goes on from there.
  explicit Workload(uint64_t seed, bool one_by_one = false)
      : one_by_one_(one_by_one), random_(seed) {
    states_.push_back({{"", {}}});
  }

  // Until the store takes no more, or it is done.
  void Run(StoreHarness& h, const SimDisk& disk, int steps) {
    for (int i = 0; i < steps && !disk.down() && h.store->Health().ok(); ++i) {
      if (random_.Chance(0.06)) {
        ChangeTrees(h);
      } else {
        WriteSome(h, i);
      }
      if (one_by_one_ || random_.Chance(0.4)) h.Run();
      if (random_.Chance(0.08)) h.store->Checkpoint(&h.caller, [](absl::Status) {});
    }
    h.Run();
  }

  // What is found is a state that it went through, no older than the last one acknowledged.
  void Check(const Forest& found) const {
    for (size_t i = acknowledged_; i < states_.size(); ++i) {
      if (states_[i] == found) return;
    }
    ADD_FAILURE() << "no state from " << acknowledged_ << " to " << states_.size() - 1
                  << " is what was found; the last is unlike it in " << Difference(found);
  }
  // As Check, and all that follows begins there.
  void GoOnFrom(const Forest& found) {
    Check(found);
    states_ = {found};
    acknowledged_ = 0;
  }
  size_t states() const { return states_.size(); }
  int refused() const { return refused_; }

 private:
  void ChangeTrees(StoreHarness& h) {
    h.Run();  // Handles of what is dropped are looked up.
    const std::string name = Cat("t", random_.Below(2));
    const auto tree = h.store->FindTree(name);
    Forest next = states_.back();
    if (tree.has_value() && random_.Chance(0.5)) {
      next.erase(name);
      const size_t state = Add(std::move(next));
      Settle(h.DropTree(*tree), state);
    } else if (!tree.has_value()) {
      next[name];
      const size_t state = Add(std::move(next));
      Settle(h.OpenTree(name).status(), state);
    }
  }

  void WriteSome(StoreHarness& h, int i) {
    Forest next = states_.back();
    StoreBatch batch;
    for (uint64_t n = random_.Between(1, 3); n > 0; --n) {
      NamedTree tree;
      if (random_.Chance(0.5)) tree = h.store->FindTree(Cat("t", random_.Below(2))).value_or(tree);
      if (next.find(tree.name()) == next.end()) continue;
      const std::string key = Cat("k", random_.Below(20));
      if (random_.Chance(0.1)) {
        Contents& rows = next[tree.name()];
        const std::string end = key + "~";
        batch.DeleteRange(tree, key, end);
        rows.erase(rows.lower_bound(key), rows.lower_bound(end));
      } else if (random_.Chance(0.2)) {
        batch.Delete(tree, key);
        next[tree.name()].erase(key);
      } else {
        const std::string value = Cat(std::string(random_.Below(700), 'v'), i);
        batch.Put(tree, key, value);
        next[tree.name()][key] = value;
      }
    }
    const bool demand = random_.Chance(0.2);
    if (demand) {
      const auto& rows = states_.back().at("");
      const auto at = rows.find("k7");
      at == rows.end() ? batch.IfAbsent("k7") : batch.IfEquals("k7", at->second);
    }
    const bool durable = random_.Chance(0.8);
    const size_t state = Add(std::move(next));
    h.store->Write(std::move(batch), {.durable = durable}, &h.caller,
                   [this, state, durable](const WriteResult& result) {
                     if (durable || one_by_one_ || !result.ok()) Settle(result.status, state);
                   });
    // A condition is about the state before it: known only once that is settled.
    if (demand) h.Run();
  }

  // A row that is not as in the newest state.
  std::string Difference(const Forest& found) const {
    for (const auto& [tree, rows] : states_.back()) {
      const auto at = found.find(tree);
      if (at == found.end()) return Cat("tree ", tree, ", which is not there");
      for (const auto& [key, value] : rows) {
        const auto row = at->second.find(key);
        if (row == at->second.end()) return Cat(tree, "/", key, ", which is not there");
        if (row->second != value) return Cat(tree, "/", key);
      }
      if (at->second.size() > rows.size()) return Cat(tree, ", which has more rows");
    }
    return "trees that should not be there";
  }

  size_t Add(Forest next) {
    states_.push_back(std::move(next));
    return states_.size() - 1;
  }

  void Settle(const absl::Status& status, size_t state) {
    if (status.ok()) acknowledged_ = std::max(acknowledged_, state);
    refused_ += absl::IsResourceExhausted(status);
    if (one_by_one_ && !status.ok()) states_.pop_back();
  }

  const bool one_by_one_;
  Random random_;
  std::vector<Forest> states_;
  size_t acknowledged_ = 0;
  int refused_ = 0;
};

constexpr int kSteps = 140;

void PowerCycle(SimDisk& disk, UnsyncedFate fate) {
  disk.PowerOff(fate);
  disk.Restart();
}

// That what is to be tried was there to be tried. (Copying forward is for logs of many streams:
// node_log_crash_test; a store has one.)
class Went {
 public:
  void Through(const Store::Stats& stats) {
    checkpoints_ = std::max(checkpoints_, stats.pages.checkpoints);
    recycled_ = std::max(recycled_, stats.log.segments_recycled);
    trees_ = std::max<uint64_t>(trees_, stats.trees.size());
    // Of the file, what no version and no checkpoint holds: it was freed.
    freed_ = std::max(freed_, stats.pages.file_bytes - stats.pages.used_bytes);
  }
  void ExpectAll() const {
    EXPECT_GT(checkpoints_, 5u);
    EXPECT_GT(recycled_, 0u);
    EXPECT_GT(freed_, 0u);
    EXPECT_EQ(trees_, 3u);
  }

 private:
  uint64_t checkpoints_ = 0;
  uint64_t recycled_ = 0;
  uint64_t trees_ = 0;
  uint64_t freed_ = 0;
};

class StorePowerTest : public testing::TestWithParam<UnsyncedFate> {};

TEST_P(StorePowerTest, AtEveryDiskCall) {
  uint64_t call = 1;
  bool struck = true;
  Went went;
  for (; struck && !HasFailure(); ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(call);
    Workload workload(1 + call % 7);
    {
      StoreHarness h(&disk);
      disk.FailCall(call, DiskFault::kPowerOff, GetParam());
      if (h.Open().ok()) workload.Run(h, disk, kSteps);
      if (h.store != nullptr) went.Through(h.store->stats());
    }
    struck = disk.down();
    disk.ClearFailCall();
    if (!struck) disk.PowerOff(GetParam());
    disk.Restart();
    // The power fails again while it recovers, and once more after a while.
    {
      StoreHarness h(&disk);
      disk.FailCall(1 + call % 50, DiskFault::kPowerOff, GetParam());
      h.Open().IgnoreError();
    }
    disk.ClearFailCall();
    if (!disk.down()) disk.PowerOff(GetParam());
    disk.Restart();
    for (int round = 0; round < 2; ++round) {
      StoreHarness h(&disk);
      DYNLIB_ASSERT_OK(h.Open());
      const Forest found = ForestIn(h);
      ASSERT_FALSE(disk.down());
      workload.GoOnFrom(found);
      EXPECT_THAT(h.store->Verify(), IsOk());
      workload.Run(h, disk, 20);
      h.Kill();
      disk.PowerOff(GetParam());
      disk.Restart();
    }
  }
  EXPECT_GT(call, 200u);
  went.ExpectAll();
}

INSTANTIATE_TEST_SUITE_P(Fates, StorePowerTest,
                         testing::Values(UnsyncedFate::kAllLost, UnsyncedFate::kAllKept,
                                         UnsyncedFate::kTorn, UnsyncedFate::kRandomSubset));

// An error of the device ends the writes or a checkpoint; then the process ends, and the power with
// it or not, so that what was acknowledged from the cache alone would be missed. Opened again, it
// is as after a crash.
class StoreDeviceErrorTest : public testing::TestWithParam<std::optional<UnsyncedFate>> {};

TEST_P(StoreDeviceErrorTest, EioAtEveryDiskCall) {
  uint64_t call = 1;
  for (bool struck = true; struck && !testing::Test::HasFailure(); ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(call);
    Workload workload(1 + call % 5);
    {
      StoreHarness h(&disk);
      const uint64_t before = disk.calls();
      disk.FailCall(call, DiskFault::kEio);
      if (h.Open().ok()) {
        workload.Run(h, disk, 100);
        workload.Check(ForestIn(h));  // What was answered is still readable.
      }
      h.Kill();
      struck = disk.calls() - before >= call;
      disk.ClearFailCall();
    }
    if (GetParam().has_value()) PowerCycle(disk, *GetParam());
    // What an Open finds is durable, also if only the cache had it: the power fails again at once,
    // and after some writes.
    for (int round = 0; round < 3; ++round) {
      StoreHarness h(&disk);
      DYNLIB_ASSERT_OK(h.Open());
      workload.GoOnFrom(ForestIn(h));
      if (round > 0) workload.Run(h, disk, 10);
      EXPECT_THAT(h.store->Health(), IsOk());
      EXPECT_THAT(h.store->Verify(), IsOk());
      h.Kill();
      PowerCycle(disk, UnsyncedFate::kAllLost);
    }
  }
  EXPECT_GT(call, 100u);
}

INSTANTIATE_TEST_SUITE_P(Fates, StoreDeviceErrorTest,
                         testing::Values(std::nullopt, UnsyncedFate::kAllLost,
                                         UnsyncedFate::kAllKept, UnsyncedFate::kTorn,
                                         UnsyncedFate::kRandomSubset));

// No space from the n-th call that needs some: once it is back, writes go on in the same store.
TEST(StoreNoSpaceTest, WritesResumeWithoutReopening) {
  int refused = 0;
  int opened = 0;
  for (uint64_t kilobytes = 64; kilobytes < 900; kilobytes += 12) {
    SCOPED_TRACE(testing::Message() << kilobytes << " KiB");
    SimDisk disk(kilobytes);
    disk.SetCapacity(kilobytes << 10);
    Workload workload(1 + kilobytes % 5, /*one_by_one=*/true);
    StoreHarness h(&disk);
    const absl::Status status = h.Open();
    if (!status.ok()) {
      EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
      disk.SetCapacity(64 << 20);
      DYNLIB_ASSERT_OK(h.Open());
      continue;
    }
    ++opened;
    workload.Run(h, disk, kSteps);
    refused += workload.refused();
    ASSERT_THAT(h.store->Health(), IsOk());
    workload.Check(ForestIn(h));
    disk.SetCapacity(64 << 20);
    // The first may still hear of what was full.
    absl::Status written;
    for (int attempt = 0; attempt < 3; ++attempt) {
      written = h.Write(Put("after", "space"));
      if (written.ok()) break;
    }
    DYNLIB_ASSERT_OK(written);
    const Forest before = ForestIn(h);
    DYNLIB_ASSERT_OK(h.Checkpoint());
    h.Kill();
    disk.PowerOff(UnsyncedFate::kAllLost);
    disk.Restart();
    DYNLIB_ASSERT_OK(h.Open());
    EXPECT_TRUE(ForestIn(h) == before);
  }
  EXPECT_GT(opened, 10);
  EXPECT_GT(refused, 10);
}

// The same at every call that asks for space, which is refused once: one write or checkpoint fails
// at most, and nothing else.
TEST(StoreNoSpaceTest, AtEveryDiskCall) {
  uint64_t call = 1;
  for (bool struck = true; struck && !testing::Test::HasFailure(); ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(call);
    Workload workload(1 + call % 5, /*one_by_one=*/true);
    StoreHarness h(&disk);
    disk.FailCall(call, DiskFault::kNoSpace);
    const absl::Status status = h.Open();
    if (!status.ok()) {
      EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
      h.Run();
      DYNLIB_ASSERT_OK(h.Open());
      continue;
    }
    workload.Run(h, disk, 100);
    struck = disk.calls() >= call;
    disk.ClearFailCall();
    ASSERT_THAT(h.store->Health(), IsOk());
    workload.Check(ForestIn(h));
    workload.Run(h, disk, 10);
    DYNLIB_ASSERT_OK(h.Write(Put("after", "space")));
    DYNLIB_ASSERT_OK(h.Checkpoint());
    EXPECT_THAT(h.store->Verify(), IsOk());
    const Forest before = ForestIn(h);
    DYNLIB_ASSERT_OK(h.Reopen());
    EXPECT_TRUE(ForestIn(h) == before);
  }
  EXPECT_GT(call, 100u);
}

}  // namespace
}  // namespace dynlib::store
