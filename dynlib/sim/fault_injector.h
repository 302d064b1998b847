// Breaks a world at random, by its FaultOptions and its seed; then heals it, so that progress can
// be demanded.
//
//   sim::FaultInjector injector(&world, {.nodes = {n1, n2, n3}, .max_nodes_down = 1},
//                               [&](NodeId node) { servers.erase(node); },          // it is down
//                               [&](NodeId node) { servers[node] = Start(node); }); // it is up
//   injector.Start();
//   world.RunFor(std::chrono::seconds(60));       // safety: whatever happens, no wrong answer
//   injector.Heal();
//   EXPECT_TRUE(world.RunUntil(progress, std::chrono::seconds(30)));   // liveness
//
// The message and disk faults of FaultOptions need no injector; it does what takes place in time:
// partitions, pauses, stalls, full disks, damage, crashes, power-offs.
//
// The fault atlas, what it keeps to: at most max_nodes_down nodes are down at once; disks are
// damaged on World::AllowCorruption's nodes alone, and as SimDisk::kCorruptibleAge says. Any number
// may be paused, stalled or cut off at once: that costs progress, and must not cost safety.
//
// Errors: CHECKed. Threads: the world's.
#ifndef DYNLIB_SIM_FAULT_INJECTOR_H_
#define DYNLIB_SIM_FAULT_INJECTOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/sim/world.h"

namespace dynlib::sim {

class FaultInjector {
 public:
  struct Options {
    std::vector<NodeId> nodes;  // those that are to suffer, at least one; others are left alone
    size_t max_nodes_down = 1;
  };
  using Callback = std::function<void(NodeId)>;

  // `on_down` runs after the node's process has ended and before its restart: it destroys the
  // application's objects. `on_restart` runs when the node is up again: it makes them anew. The
  // world outlives this.
  FaultInjector(World* world, Options options, Callback on_down, Callback on_restart);
  ~FaultInjector();
  FaultInjector(const FaultInjector&) = delete;
  FaultInjector& operator=(const FaultInjector&) = delete;

  void Start();

  // Ends every fault: no new ones, the network whole, disks running, pauses over, World::faults()
  // zero, and all of `nodes` up. Damage done stays done.
  void Heal();

  // For an application that finds that its process should end (a log closed by a failed sync): as
  // an event soon after, the node crashes, whatever max_nodes_down says, and restarts later. Also
  // after Heal. Safe from the node's own tasks.
  void RequestRestart(NodeId node);

  size_t nodes_down() const;

 private:
  using Action = std::function<void()>;

  // Runs `action` again and again, `per_minute` times on average.
  void Repeat(double per_minute, Action action);
  // An event that does nothing once this is destroyed, or (unless `always`) healed.
  void After(Duration delay, Action action, bool always = false);
  Duration Between(int64_t ms_min, int64_t ms_max);
  NodeId AnyNode();
  void CutNetwork(bool one_way);
  void StallDisk();
  void FillDisk();
  void DamageDisk(bool (SimDisk::*damage)());
  void TakeDown(bool power_off);
  void End(NodeId node, bool power_off);
  void BringUp(NodeId node);

  World* const world_;
  const Options options_;
  const Callback on_down_;
  const Callback on_restart_;
  bool running_ = false;
  std::set<NodeId> restart_requested_;
  // False when this is destroyed, for events that outlive it.
  std::shared_ptr<bool> alive_;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_FAULT_INJECTOR_H_
