// Replication groups as a node runs them, in the simulator: GroupHost over a real NodeLog over a
// disk that fails, tears, stalls and loses; a state machine whose checkpoints survive; clients that
// ask until they are answered. Nodes whose log fails or whose power goes come back by themselves.
//
//   LogCluster cluster({.nodes = 3});
//   ASSERT_TRUE(cluster.Put("k", "v"));                     // by whoever leads, exactly once
//   cluster.world().node(NodeId{2})->disk()->FailCall(17, sim::DiskFault::kEio);
//   EXPECT_EQ(cluster.Check(), "");                          // acknowledged = kept, replicas equal
#ifndef DYNLIB_TESTS_REPLICATION_LOG_CLUSTER_H_
#define DYNLIB_TESTS_REPLICATION_LOG_CLUSTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/world.h"
#include "dynlib/store/node_log.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::replication {

// What a replica's tree would hold: values by key, the exactly-once table, the position.
struct Tree {
  std::map<std::string, std::string> values;
  std::map<std::string, std::string> sessions;
  std::vector<std::string> journal;  // Every command that was applied, in order.
  Slot applied = 0;
  Configuration configuration;
};

// Commands are "key=value"; the result is how many commands there were.
class TreeMachine final : public StateMachine {
 public:
  explicit TreeMachine(const Tree& durable) : tree(durable), start_(durable.applied) {}
  Slot applied() const override { return start_; }
  absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view, std::string_view)> visit) override;
  absl::Status Evaluate(std::span<const AppliedCommand> commands,
                        std::vector<std::string>* results) override;
  absl::Status Publish(const PublishedStep& step) override;

  Tree tree;

 private:
  const Slot start_;
  std::vector<std::string> evaluated_;
};

class LogCluster {
 public:
  static constexpr PartitionId kGroup{5};

  struct Options {
    uint64_t seed = 1;
    size_t nodes = 3;
    HostOptions host;
    sim::FaultOptions faults;
    Duration reopen_after = std::chrono::milliseconds(100);
  };
  explicit LogCluster(Options options);
  ~LogCluster() { world_.CrashAll(); }

  sim::World& world() { return world_; }
  sim::SimDisk& disk(uint64_t id) { return *world_.node(NodeId{id})->disk(); }
  // The process ends, or the power fails; the node stays down until Reopen.
  void Crash(uint64_t id);
  void PowerOff(uint64_t id, sim::UnsyncedFate fate = sim::UnsyncedFate::kAllLost);
  void Reopen(uint64_t id);
  // After the power failed at a disk call: the objects of the dead process go, another begins.
  void Restarted(uint64_t id);
  bool Up(uint64_t id) const { return servers_.at(id) != nullptr && servers_.at(id)->started; }
  GroupHost& host(uint64_t id) { return *servers_.at(id)->host; }
  GroupStatus Status(uint64_t id) const;
  void On(uint64_t id, const std::function<void()>& action) {
    world_.RunAs(servers_.at(id)->executor, action);
  }
  const Tree& tree(uint64_t id) const { return servers_.at(id)->machine->tree; }
  // What the node's log was found to hold when it was opened last.
  const store::NodeLog::Recovery& found(uint64_t id) const { return servers_.at(id)->found; }
  // At any of its opens.
  uint64_t lost_batches(uint64_t id) const { return lost_batches_.at(id); }
  const CountingSink& metrics(uint64_t id) const { return *metrics_.at(id); }
  int reopened(uint64_t id) const { return reopened_.at(id); }

  // Who leads and holds the lease; 0 if nobody.
  uint64_t Leader() const;
  uint64_t AwaitLeader(Duration limit = std::chrono::seconds(10), uint64_t not_this = 0);
  // Asks whoever leads, again with the same sequence until it is answered for good. False if that
  // did not come within `limit`.
  bool Put(const std::string& key, const std::string& value,
           Duration limit = std::chrono::seconds(20));
  // Of the leader, by its lease or a quorum; nothing if it did not answer within the limit.
  std::optional<std::string> Get(const std::string& key, Duration limit = std::chrono::seconds(20));
  // Makes each node's tree durable, so that the log is released.
  void Checkpoint();
  bool Run(absl::FunctionRef<bool()> done, Duration limit);

  // Empty: everybody is up and in step within the limit, no command was applied twice, and what was
  // acknowledged is there.
  std::string Check(Duration limit = std::chrono::seconds(20));

 private:
  struct Server {
    sim::SimExecutor* executor = nullptr;
    Executor* apply = nullptr;
    bool started = false;
    store::NodeLog::Recovery found;
    std::unique_ptr<TreeMachine> machine;
    std::unique_ptr<store::NodeLog> log;
    std::unique_ptr<cluster::NodeLogAdapter> adapter;
    std::unique_ptr<GroupHost> host;
  };

  void Open(uint64_t id);
  absl::Status OpenLog(uint64_t id, Server& server, Executor* log_executor);
  void ReopenSoon(uint64_t id);
  std::string Differences() const;

  const Options options_;
  sim::World world_;
  std::map<uint64_t, Tree> durable_;
  std::map<uint64_t, std::unique_ptr<CountingSink>> metrics_;
  std::map<uint64_t, int> reopened_;
  std::map<uint64_t, uint64_t> lost_batches_;
  std::map<uint64_t, std::unique_ptr<Server>> servers_;
  uint64_t sequence_ = 0;
  std::vector<std::string> acknowledged_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_TESTS_REPLICATION_LOG_CLUSTER_H_
