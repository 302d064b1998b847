#include "dynlib/sim/world.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/fault_injector.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/object_store.h"
#include "gtest/gtest.h"

namespace dynlib::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr NodeId kThree{3};
constexpr Channel kChannel{7};

// A small application: it sends to the others, and each appends what it is sent to a file.
class Gossip {
 public:
  Gossip(Node* node, std::vector<NodeId> peers, int64_t period_ms)
      : main_(node->NewExecutor("main")),
        log_(node->NewBlockingExecutor("log")),
        transport_(node->transport()),
        disk_(node->disk()),
        clock_(node->clock()),
        peers_(std::move(peers)),
        period_(milliseconds(period_ms)) {
    transport_->Listen(kChannel, main_,
                       [this](NodeId, std::string) { log_->Post([this] { Append(); }); });
    log_->Post([this] { OpenFile(); });
    Arm();
  }
  ~Gossip() {
    transport_->StopListening(kChannel);
    main_->Cancel(timer_);
  }

  uint64_t appended() const { return appended_; }
  const absl::Status& error() const { return error_; }

 private:
  void Arm() {
    timer_ = main_->RunAt(clock_->Now() + period_, [this] {
      for (NodeId peer : peers_) transport_->Send(peer, kChannel, "tick");
      Arm();
    });
  }
  void OpenFile() {
    auto file = disk_->Open("log", OpenMode::kReadWrite);
    if (!file.ok()) file = disk_->Open("log", OpenMode::kCreate);
    if (!file.ok()) return Fail(file.status());
    file_ = *std::move(file);
    auto size = file_->Size();
    if (!size.ok()) return Fail(size.status());
    end_ = *size;
    if (absl::Status status = disk_->SyncDir(""); !status.ok()) Fail(status);
  }
  void Append() {
    if (file_ == nullptr) return;
    const std::string record(100, static_cast<char>('a' + appended_ % 26));
    absl::Status status = file_->WriteAt(end_, record);
    // Not each is synced, so that something is at stake at every moment.
    if (status.ok() && appended_ % 4 == 0) status = file_->Sync();
    if (!status.ok()) return Fail(status);
    end_ += record.size();
    ++appended_;
  }
  void Fail(absl::Status status) {
    file_ = nullptr;
    error_ = std::move(status);
  }

  Executor* const main_;
  Executor* const log_;
  Transport* const transport_;
  Disk* const disk_;
  const Clock* const clock_;
  const std::vector<NodeId> peers_;
  const Duration period_;
  Executor::TimerId timer_ = Executor::kNoTimer;
  std::unique_ptr<File> file_;
  uint64_t end_ = 0;
  uint64_t appended_ = 0;
  absl::Status error_;
};

class GossipWorld {
 public:
  GossipWorld(uint64_t seed, const FaultOptions& faults)
      : world_(seed, faults),
        injector_(
            &world_, {.nodes = {kOne, kTwo, kThree}}, [this](NodeId node) { apps_.erase(node); },
            [this](NodeId node) { Start(node); }) {
    for (NodeId node : {kOne, kTwo, kThree}) {
      world_.AddNode(node);
      world_.AllowCorruption(node);
      Start(node);
    }
  }
  ~GossipWorld() { world_.CrashAll(); }

  World& world() { return world_; }
  FaultInjector& injector() { return injector_; }
  Gossip* app(NodeId node) {
    auto it = apps_.find(node);
    return it == apps_.end() ? nullptr : it->second.get();
  }

 private:
  void Start(NodeId node) {
    std::vector<NodeId> peers;
    for (NodeId peer : {kOne, kTwo, kThree}) {
      if (peer != node) peers.push_back(peer);
    }
    apps_[node] = std::make_unique<Gossip>(world_.node(node), peers, 20);
  }

  World world_;
  std::map<NodeId, std::unique_ptr<Gossip>> apps_;
  FaultInjector injector_;
};

FaultOptions Everything() {
  return {.network_loss = 0.02,
          .network_repeat = 0.02,
          .network_reorder = 0.05,
          .network_reorder_us_max = 50'000,
          .network_delay_us_max = 2'000,
          .partitions_per_minute = 30,
          .one_way_partitions_per_minute = 30,
          .partition_ms_min = 100,
          .partition_ms_max = 1'000,
          .disk_latency_us_max = 1'000,
          .disk_eio = 0.0005,
          .disk_failed_sync = 0.002,
          .disk_torn_writes = true,
          .disk_reorders_unsynced = true,
          .disk_bit_flips_per_minute = 60,
          .disk_misdirected_writes_per_minute = 60,
          .disk_stalls_per_minute = 20,
          .disk_stall_ms_min = 100,
          .disk_stall_ms_max = 1'000,
          .disk_full_per_minute = 60,
          .disk_full_ms_min = 500,
          .disk_full_ms_max = 2'000,
          .clock_drift_ppm_max = 200,
          .clock_wall_skew_ms_max = 1'000,
          .pauses_per_minute = 20,
          .pause_ms_min = 100,
          .pause_ms_max = 2'000,
          .crashes_per_minute = 20,
          .power_offs_per_minute = 60,
          .down_ms_min = 100,
          .down_ms_max = 1'000};
}

uint64_t HashOfRun(uint64_t seed) {
  GossipWorld gossip(seed, Everything());
  gossip.injector().Start();
  gossip.world().RunFor(seconds(5));
  gossip.injector().Heal();
  gossip.world().RunFor(seconds(1));
  return gossip.world().TraceHash();
}

TEST(World, TheSameSeedGivesTheSameTraceAndOthersDiffer) {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const uint64_t hash = HashOfRun(seed);
    EXPECT_EQ(hash, HashOfRun(seed)) << "seed " << seed;
    hashes.insert(hash);
  }
  EXPECT_EQ(hashes.size(), 8u);
}

TEST(World, EveryKindOfFaultFiresAndHealingRestoresProgress) {
  GossipWorld gossip(1, Everything());
  World& world = gossip.world();
  gossip.injector().Start();
  for (int i = 0; i < 120; ++i) {
    world.RunFor(seconds(1));
    EXPECT_LE(gossip.injector().nodes_down(), 1u);
    for (NodeId node : {kOne, kTwo, kThree}) {
      Gossip* app = gossip.app(node);
      if (app != nullptr && !app->error().ok()) gossip.injector().RequestRestart(node);
    }
  }
  for (const char* name : {"network.loss",
                           "network.repeat",
                           "network.reorder",
                           "network.delay",
                           "network.partition",
                           "network.one_way_partition",
                           "network.cut_off",
                           "disk.latency",
                           "disk.eio",
                           "disk.failed_sync",
                           "disk.torn_write",
                           "disk.unsynced_lost",
                           "disk.unsynced_reordered",
                           "disk.bit_flip",
                           "disk.misdirected_write",
                           "disk.stall",
                           "disk.full",
                           "clock.drift",
                           "clock.pause",
                           "node.crash",
                           "node.power_off",
                           "node.restart"}) {
    EXPECT_TRUE(world.FaultCounts().contains(name)) << name;
  }

  gossip.injector().Heal();
  world.RunFor(seconds(1));
  for (NodeId node : {kOne, kTwo, kThree}) {
    ASSERT_TRUE(world.node(node)->up());
    if (!gossip.app(node)->error().ok()) gossip.injector().RequestRestart(node);
  }
  world.RunFor(seconds(1));
  const auto counts = world.FaultCounts();
  std::map<NodeId, uint64_t> before;
  for (NodeId node : {kOne, kTwo, kThree}) before[node] = gossip.app(node)->appended();
  EXPECT_TRUE(world.RunUntil(
      [&] {
        for (NodeId node : {kOne, kTwo, kThree}) {
          if (gossip.app(node)->appended() < before[node] + 10) return false;
        }
        return true;
      },
      seconds(2)));
  EXPECT_EQ(world.FaultCounts(), counts) << "no fault after healing";
}

TEST(World, AStalledDiskHangsItsOwnNodeOnly) {
  GossipWorld gossip(1, {});
  gossip.world().RunFor(seconds(1));
  gossip.world().node(kOne)->disk()->StallUntil(gossip.world().Now() + seconds(5));
  gossip.world().RunFor(milliseconds(1));
  const uint64_t one = gossip.app(kOne)->appended();
  const uint64_t two = gossip.app(kTwo)->appended();
  gossip.world().RunFor(seconds(4));
  EXPECT_LE(gossip.app(kOne)->appended(), one + 1);
  EXPECT_GT(gossip.app(kTwo)->appended(), two + 300);
  gossip.world().RunFor(seconds(2));
  EXPECT_GT(gossip.app(kOne)->appended(), one + 300) << "what was queued is done after the stall";
}

TEST(World, APausedNodeRunsNothingWhileItsClockGoesOn) {
  GossipWorld gossip(1, {});
  World& world = gossip.world();
  world.RunFor(seconds(1));
  Node* one = world.node(kOne);
  one->Pause(seconds(2));
  const uint64_t before = gossip.app(kOne)->appended();
  const Instant then = one->clock()->Now();
  world.RunFor(milliseconds(1900));
  EXPECT_EQ(gossip.app(kOne)->appended(), before);
  EXPECT_EQ(one->clock()->Now() - then, milliseconds(1900));
  world.RunFor(seconds(1));
  EXPECT_GT(gossip.app(kOne)->appended(), before + 100) << "messages waited for it";

  one->Pause(seconds(1000));
  world.RunFor(milliseconds(100));
  const uint64_t paused = gossip.app(kOne)->appended();
  one->EndPause();
  world.RunFor(milliseconds(100));
  EXPECT_GT(gossip.app(kOne)->appended(), paused);
}

TEST(World, CrashDrainsWhatWaitsForTheDisk) {
  World world(1);
  Node* node = world.AddNode(kOne);
  Executor* blocking = node->NewBlockingExecutor("blocking");
  auto file = node->disk()->Open("f", OpenMode::kCreate);
  ASSERT_TRUE(file.ok());
  absl::Status first, second;
  bool ran = false;
  blocking->Post([&] {
    first = (*file)->WriteAt(0, "x");
    second = (*file)->Sync();
    blocking->Post([&] { ran = true; });
  });
  auto owned = std::make_shared<int>(0);
  std::weak_ptr<int> watch = owned;
  blocking->Post([&ran, owned = std::move(owned)] { ran = true; });
  node->disk()->StallUntil(world.Now() + seconds(10));
  world.RunFor(seconds(1));
  EXPECT_TRUE(first.ok()) << "it waits";
  node->Crash();
  EXPECT_EQ(first.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(second.code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(watch.expired()) << "tasks are destroyed with the process";
  blocking->Post([&] { ran = true; });
  node->Restart();
  world.RunFor(seconds(20));
  EXPECT_FALSE(ran);
}

TEST(World, TimersOfADeadIncarnationNeverRun) {
  World world(1);
  Node* node = world.AddNode(kOne);
  Executor* executor = node->NewExecutor("main");
  bool ran = false;
  executor->RunAt(node->clock()->Now() + seconds(1), [&] { ran = true; });
  node->Crash();
  node->Restart();
  world.RunFor(seconds(2));
  EXPECT_FALSE(ran);
}

TEST(World, PowerOffLosesWhatWasNotSynced) {
  World world(1);
  Node* node = world.AddNode(kOne);
  const auto write = [&](bool sync) {
    auto file = node->disk()->Open("f", OpenMode::kReadWrite);
    if (!file.ok()) file = node->disk()->Open("f", OpenMode::kCreate);
    EXPECT_TRUE((*file)->WriteAt(0, sync ? "synced" : "unsync").ok());
    if (sync) {
      EXPECT_TRUE((*file)->Sync().ok());
      EXPECT_TRUE(node->disk()->SyncDir("").ok());
    }
  };
  write(true);
  write(false);
  node->Crash();
  node->Restart();
  EXPECT_EQ(node->disk()->ReadRaw("f"), "unsync");
  node->PowerOff();
  node->Restart();
  EXPECT_EQ(node->disk()->ReadRaw("f"), "synced");
  EXPECT_EQ(world.FaultCounts().at("disk.unsynced_lost"), 1u);
}

TEST(World, PowerFailsAtAChosenDiskCall) {
  GossipWorld gossip(1, {});
  World& world = gossip.world();
  std::vector<NodeId> failed;
  world.OnPowerFailure([&](NodeId node) {
    EXPECT_FALSE(world.node(node)->up());
    failed.push_back(node);
  });
  world.RunFor(seconds(1));
  SimDisk* disk = world.node(kOne)->disk();
  const std::string durable = disk->ReadDurable("log");
  disk->FailCall(2, DiskFault::kPowerOff);
  EXPECT_TRUE(world.RunUntil([&] { return !failed.empty(); }, seconds(1)));
  EXPECT_EQ(failed, std::vector<NodeId>{kOne});
  const std::string left = disk->ReadRaw("log");
  EXPECT_EQ(left.substr(0, durable.size()), durable);
  EXPECT_LE(left.size(), durable.size() + 400);
}

TEST(World, TheObjectStoreTakesTimeAndFails) {
  World world(1, {.object_store_error = 0.2});
  Node* node = world.AddNode(kOne);
  int failed = 0, stored_though_failed = 0;
  Duration took = {};
  node->NewBlockingExecutor("archive")->Post([&] {
    const Instant start = world.Now();
    for (int i = 0; i < 200; ++i) {
      const std::string name = "object" + std::to_string(i);
      const absl::Status status = world.object_store()->Put(name, name, Checksum(name));
      if (status.ok()) continue;
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      ++failed;
      if (world.object_store()->FlipBit(name, 0)) ++stored_though_failed;
    }
    took = world.Now() - start;
  });
  world.RunFor(seconds(1));
  EXPECT_GT(failed, 20);
  EXPECT_LT(failed, 60);
  EXPECT_GT(stored_though_failed, 5);
  EXPECT_LT(stored_though_failed, failed - 5);
  EXPECT_EQ(took, milliseconds(400));
  EXPECT_EQ(world.FaultCounts().at("object_store.error"), static_cast<uint64_t>(failed));
}

TEST(World, ClocksDriftAndTimersKeepToThem) {
  World world(1);
  Node* fast = world.AddNode(kOne, 100'000);
  Node* slow = world.AddNode(kTwo, -100'000);
  const Instant fast_start = fast->clock()->Now();
  const Instant slow_start = slow->clock()->Now();
  EXPECT_NE(fast_start, slow_start) << "clocks of two machines have nothing in common";
  std::string order;
  slow->NewExecutor("s")->RunAt(slow_start + seconds(1), [&] {
    EXPECT_GE(slow->clock()->Now(), slow_start + seconds(1));
    order += "slow";
  });
  fast->NewExecutor("f")->RunAt(fast_start + seconds(1), [&] {
    EXPECT_GE(fast->clock()->Now(), fast_start + seconds(1));
    order += "fast ";
  });
  world.RunFor(seconds(10));
  EXPECT_EQ(order, "fast slow");
  EXPECT_EQ(fast->clock()->Now() - fast_start, seconds(11));
  EXPECT_EQ(slow->clock()->Now() - slow_start, seconds(9));

  const Instant before = slow->clock()->Now();
  slow->clock()->SetDrift(0);
  EXPECT_EQ(slow->clock()->Now(), before);
  world.RunFor(seconds(1));
  EXPECT_EQ(slow->clock()->Now() - before, seconds(1));
}

TEST(World, AClockStartsAnewAfterAPowerOffAlone) {
  World world(1);
  Node* node = world.AddNode(kOne);
  const Instant start = node->clock()->Now();
  node->Crash();
  node->Restart();
  EXPECT_EQ(node->clock()->Now(), start);
  node->PowerOff();
  node->Restart();
  EXPECT_NE(node->clock()->Now(), start);
}

TEST(World, IsCurrentTellsWhoseTaskRuns) {
  World world(1);
  Node* node = world.AddNode(kOne);
  SimExecutor* a = node->NewExecutor("a");
  SimExecutor* b = node->NewBlockingExecutor("b");
  EXPECT_FALSE(a->IsCurrent());
  world.RunAs(a, [&] { EXPECT_TRUE(a->IsCurrent() && !b->IsCurrent()); });
  EXPECT_FALSE(a->IsCurrent());
  int checks = 0;
  a->Post([&] {
    EXPECT_TRUE(a->IsCurrent());
    EXPECT_FALSE(b->IsCurrent());
    ++checks;
  });
  b->Post([&] {
    (void)node->disk()->List("");
    EXPECT_FALSE(a->IsCurrent());
    EXPECT_TRUE(b->IsCurrent());
    ++checks;
  });
  world.RunFor(seconds(1));
  EXPECT_EQ(checks, 2);
}

TEST(World, TheTraceSaysWhatHappened) {
  World world(1);
  std::vector<std::string> lines;
  world.SetTrace([&](std::string_view line) { lines.emplace_back(line); });
  Node* node = world.AddNode(kOne);
  world.RunFor(milliseconds(1500));
  world.Note(kOne, "here");
  node->Crash();
  EXPECT_EQ(lines,
            (std::vector<std::string>{"1.500000 node 1 note here", "1.500000 node 1 node 0"}));
}

TEST(World, SwarmMixesAreValidAndDiffer) {
  std::set<double> losses;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const FaultOptions faults = RandomFaults(seed);
    EXPECT_TRUE(Validate(faults).ok()) << Validate(faults);
    EXPECT_LE(faults.clock_drift_ppm_max, 200);
    losses.insert(faults.network_loss);
  }
  EXPECT_GT(losses.size(), 100u);
  EXPECT_LT(losses.size(), 250u) << "off in about half of them";
}

TEST(World, BadOptionsAreNamed) {
  const absl::Status status = Validate({.network_loss = 1.5});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("network_loss is 1.5"), std::string::npos);
  EXPECT_FALSE(Validate({.pause_ms_min = 5, .pause_ms_max = 4}).ok());
}

}  // namespace
}  // namespace dynlib::sim
