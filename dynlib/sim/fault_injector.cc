#include "dynlib/sim/fault_injector.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/network.h"

namespace dynlib::sim {

FaultInjector::FaultInjector(World* world, Options options, Callback on_down, Callback on_restart)
    : world_(world),
      options_(std::move(options)),
      on_down_(std::move(on_down)),
      on_restart_(std::move(on_restart)),
      alive_(std::make_shared<bool>(true)) {
  DYNLIB_CHECK(!options_.nodes.empty());
}

FaultInjector::~FaultInjector() { *alive_ = false; }

void FaultInjector::Start() {
  DYNLIB_CHECK(!running_);
  running_ = true;
  const FaultOptions& f = world_->faults();
  Repeat(f.partitions_per_minute, [this] { CutNetwork(/*one_way=*/false); });
  Repeat(f.one_way_partitions_per_minute, [this] { CutNetwork(/*one_way=*/true); });
  Repeat(f.disk_stalls_per_minute, [this] { StallDisk(); });
  Repeat(f.disk_full_per_minute, [this] { FillDisk(); });
  Repeat(f.disk_bit_flips_per_minute, [this] { DamageDisk(&SimDisk::FlipRandomBit); });
  Repeat(f.disk_misdirected_writes_per_minute,
         [this] { DamageDisk(&SimDisk::MisdirectRandomWrite); });
  Repeat(f.pauses_per_minute, [this] {
    const FaultOptions& faults = world_->faults();
    world_->node(AnyNode())->Pause(Between(faults.pause_ms_min, faults.pause_ms_max));
  });
  Repeat(f.crashes_per_minute, [this] { TakeDown(/*power_off=*/false); });
  Repeat(f.power_offs_per_minute, [this] { TakeDown(/*power_off=*/true); });
}

void FaultInjector::Heal() {
  running_ = false;
  world_->SetFaults({});
  world_->network().Heal();
  for (const NodeId id : options_.nodes) {
    Node* const node = world_->node(id);
    node->disk()->StallUntil(Instant());
    node->disk()->SetFull(false);
    node->EndPause();
    if (!node->up()) BringUp(id);
  }
}

void FaultInjector::RequestRestart(NodeId node) {
  if (!restart_requested_.insert(node).second) return;
  After(
      std::chrono::milliseconds(1),
      [this, node] {
        restart_requested_.erase(node);
        if (world_->node(node)->up()) End(node, /*power_off=*/false);
      },
      /*always=*/true);
}

size_t FaultInjector::nodes_down() const {
  return std::count_if(options_.nodes.begin(), options_.nodes.end(),
                       [this](NodeId id) { return !world_->node(id)->up(); });
}

void FaultInjector::After(Duration delay, Action action, bool always) {
  world_->After(delay, [this, always, alive = alive_, action = std::move(action)] {
    if (*alive && (always || running_)) action();
  });
}

void FaultInjector::Repeat(double per_minute, Action action) {
  if (per_minute <= 0) return;
  const int64_t mean_ns = static_cast<int64_t>(60e9 / per_minute);
  After(Duration(world_->random().Between(0, 2 * mean_ns)), [this, per_minute, action] {
    action();
    Repeat(per_minute, action);
  });
}

Duration FaultInjector::Between(int64_t ms_min, int64_t ms_max) {
  return std::chrono::milliseconds(world_->random().Between(ms_min, ms_max));
}

NodeId FaultInjector::AnyNode() {
  return options_.nodes[world_->random().Below(options_.nodes.size())];
}

void FaultInjector::CutNetwork(bool one_way) {
  if (options_.nodes.size() < 2) return;
  std::vector<NodeId> nodes = options_.nodes;
  for (size_t i = nodes.size() - 1; i > 0; --i) {
    std::swap(nodes[i], nodes[world_->random().Below(i + 1)]);
  }
  const size_t cut = 1 + world_->random().Below(nodes.size() - 1);
  const auto partition = world_->network().Partition({nodes.begin(), nodes.begin() + cut},
                                                     {nodes.begin() + cut, nodes.end()}, one_way);
  world_->engine().CountFault(one_way ? "network.one_way_partition" : "network.partition");
  const FaultOptions& faults = world_->faults();
  After(Between(faults.partition_ms_min, faults.partition_ms_max),
        [this, partition] { world_->network().EndPartition(partition); });
}

void FaultInjector::StallDisk() {
  const FaultOptions& faults = world_->faults();
  const Duration duration = Between(faults.disk_stall_ms_min, faults.disk_stall_ms_max);
  world_->node(AnyNode())->disk()->StallUntil(world_->Now() + duration);
  world_->engine().CountFault("disk.stall");
}

void FaultInjector::FillDisk() {
  SimDisk* const disk = world_->node(AnyNode())->disk();
  disk->SetFull(true);
  const FaultOptions& faults = world_->faults();
  After(Between(faults.disk_full_ms_min, faults.disk_full_ms_max),
        [disk] { disk->SetFull(false); });
}

void FaultInjector::DamageDisk(bool (SimDisk::*damage)()) {
  std::vector<NodeId> nodes;
  for (const NodeId id : options_.nodes) {
    if (world_->corruptible().contains(id)) nodes.push_back(id);
  }
  if (nodes.empty()) return;
  (world_->node(nodes[world_->random().Below(nodes.size())])->disk()->*damage)();
}

void FaultInjector::TakeDown(bool power_off) {
  const NodeId node = AnyNode();
  if (!world_->node(node)->up() || nodes_down() >= options_.max_nodes_down) return;
  End(node, power_off);
}

void FaultInjector::End(NodeId node, bool power_off) {
  if (power_off) {
    world_->node(node)->PowerOff();
  } else {
    world_->node(node)->Crash();
  }
  on_down_(node);
  const FaultOptions& faults = world_->faults();
  After(
      Between(faults.down_ms_min, faults.down_ms_max), [this, node] { BringUp(node); },
      /*always=*/true);
}

void FaultInjector::BringUp(NodeId node) {
  if (world_->node(node)->up()) return;
  world_->node(node)->Restart();
  on_restart_(node);
}

}  // namespace dynlib::sim
