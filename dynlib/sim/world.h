// A whole cluster in one thread, from one seed: virtual time, and every fault that the seed
// chooses. Real code, the same that runs in production, runs in it unchanged.
//
//   sim::World world(seed, {.network_loss = 0.01});
//   sim::Node* node = world.AddNode(NodeId{1});
//   auto server = std::make_unique<Server>(node->NewExecutor("main"),
//                                          node->NewBlockingExecutor("log"), node->transport(),
//                                          node->disk(), node->clock());
//   EXPECT_TRUE(world.RunUntil([&] { return server->ready(); }, std::chrono::seconds(10)));
//
//   node->PowerOff();          // unsynced writes meet their fate
//   server.reset();            // the test owns the application's objects
//   node->Restart();           // new executors and transport; the disk as it was left
//   server = std::make_unique<Server>(node->NewExecutor("main"), ...);
//
// The same seed and the same code give the same run: same TraceHash(). Whatever a test chooses at
// random it draws from random(), or from a generator seeded alike.
//
// The end of a process. Crash and PowerOff first fail every file call that is waiting with kAborted
// and let those fibers run to their end, then destroy, unrun, tasks and timers, and from then on
// drop what the old executors and transport are given. Only then may the application's objects be
// destroyed; do it before Restart. The same holds at the end of a test: destroy objects whose
// fibers may be waiting only after Crash(). The executors and transports themselves live as long as
// the world, so old pointers stay safe to call. Code on a fiber must not retry kAborted for ever.
//
// Between two steps of the world no task runs, so a test's own code may construct, call and destroy
// objects of any executor; where these ask Executor::IsCurrent, it does so within RunAs. File calls
// made there take no time.
//
// Threads: one. Nothing here, and nothing that runs in it, waits on a condition variable or holds a
// mutex across a file call.
#ifndef DYNLIB_SIM_WORLD_H_
#define DYNLIB_SIM_WORLD_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/sim/clock.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/engine.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/network.h"
#include "dynlib/sim/object_store.h"

namespace dynlib::sim {

class World;

// A machine and the one process on it. Made by World::AddNode.
class Node {
 public:
  Node(World* world, NodeId id, int64_t drift_ppm, Duration since_boot, Duration wall_skew,
       uint64_t disk_seed);
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  NodeId id() const { return id_; }
  bool up() const { return up_; }

  SimClock* clock() { return &clock_; }
  SimDisk* disk() { return &disk_; }
  // Of the incarnation that is up (DYNLIB_CHECK).
  SimTransport* transport();
  SimExecutor* NewExecutor(std::string_view name);
  SimExecutor* NewBlockingExecutor(std::string_view name);

  // The process dies; what it wrote stays in the kernel's cache. Not from its own tasks, nor from
  // any fiber; nothing if it is down.
  void Crash();
  // The power fails, of a node that is up or down. Without a fate the world's faults choose.
  void PowerOff() { PowerOff(std::nullopt); }
  void PowerOff(std::optional<UnsyncedFate> fate);
  void Restart();  // it must be down (DYNLIB_CHECK)

  // Its executors run nothing for a while; its clock goes on, and messages queue up.
  void Pause(Duration duration);
  void EndPause();

 private:
  friend class World;
  void StartProcess();
  void EndProcess();
  void OnDiskPowerFailure();

  World* const world_;
  const NodeId id_;
  SimClock clock_;
  SimDisk disk_;
  bool up_ = false;
  bool rebooted_ = false;
  // The last of each is the present one; the others are kept for those who still point to them.
  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<std::unique_ptr<SimTransport>> transports_;
};

class World {
 public:
  explicit World(uint64_t seed, FaultOptions faults = {},
                 MetricsSink* metrics = MetricsSink::None());
  // Crashes all nodes: see CrashAll.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Without a drift it is drawn within faults.clock_drift_ppm_max. Each id once.
  Node* AddNode(NodeId id, std::optional<int64_t> drift_ppm = std::nullopt);
  Node* node(NodeId id);  // it must exist
  std::vector<NodeId> nodes() const;

  // Virtual time since the world began.
  Instant Now() const { return engine_.Now(); }
  // Runs one event; false if there is none.
  bool Step();
  void RunFor(Duration duration);
  // Runs until condition() is true, asked before the first event, after each, and at the end of
  // `limit` of virtual time. Returns condition()'s last answer.
  bool RunUntil(const std::function<bool()>& condition, Duration limit);
  // Runs `action` now, with executor->IsCurrent() true: what a test does in the place of a task.
  // The executor may be a dead one. Not from a task.
  void RunAs(SimExecutor* executor, const std::function<void()>& action);
  // Runs `action` after `delay`, as an event of no node: a test's own schedule.
  void After(Duration delay, Engine::Action action);
  uint64_t events() const { return engine_.events(); }

  Random& random() { return engine_.random(); }
  SimNetwork& network() { return network_; }
  SimObjectStore* object_store() { return &object_store_; }

  const FaultOptions& faults() const { return faults_; }
  // In the middle of a run. Clocks keep their rates.
  void SetFaults(const FaultOptions& faults);
  // How often each kind of fault was injected, by name ("network.loss", "disk.torn_write").
  const std::map<std::string, uint64_t, std::less<>>& FaultCounts() const {
    return engine_.fault_counts();
  }

  // Nodes whose disks a FaultInjector may damage. The caller answers for what the code under test
  // survives: typically a minority of each replication group.
  void AllowCorruption(NodeId node) { corruptible_.insert(node); }
  const std::set<NodeId>& corruptible() const { return corruptible_; }

  // Ends every process that is up, so that the application's objects may be destroyed.
  void CrashAll();

  // Called as an event after a SimDisk::FailCall switched a node's power off: the node is down, its
  // fibers have ended, its objects may be destroyed.
  void OnPowerFailure(std::function<void(NodeId)> callback) {
    on_power_failure_ = std::move(callback);
  }

  uint64_t TraceHash() const { return engine_.trace_hash(); }
  // One line an event: "0.001234 node 1 deliver 17". Null = none.
  void SetTrace(std::function<void(std::string_view)> sink) { engine_.SetTrace(std::move(sink)); }
  // Adds something of the test's own to the trace.
  void Note(NodeId node, std::string_view text) { engine_.Note(node, text); }

  // For those who build devices of their own.
  Engine& engine() { return engine_; }

 private:
  friend class Node;

  Engine engine_;
  FaultOptions faults_;
  MetricsSink* const metrics_;
  SimNetwork network_;
  SimObjectStore object_store_;
  std::map<NodeId, std::unique_ptr<Node>> nodes_;
  std::set<NodeId> corruptible_;
  std::function<void(NodeId)> on_power_failure_;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_WORLD_H_
