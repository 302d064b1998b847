// A node of the replication block alone, with threads, files and a log of its own, that can be
// killed: for what takes time rather than throughput.
#ifndef DYNLIB_BENCHMARKS_REPLICA_NODE_H_
#define DYNLIB_BENCHMARKS_REPLICA_NODE_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/local/local_network.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/store/node_log.h"

namespace dynlib::bench {

// Keeps a position, which is all that these benchmarks look at. Nothing of it is on disk: a node
// that starts again applies the log from its first slot.
class PositionMachine final : public replication::StateMachine {
 public:
  Slot applied() const override { return applied_; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
  absl::Status Evaluate(std::span<const replication::AppliedCommand> commands,
                        std::vector<std::string>* results) override {
    results->resize(results->size() + commands.size());
    return absl::OkStatus();
  }
  absl::Status Publish(const replication::PublishedStep& step) override {
    applied_ = step.through;
    return absl::OkStatus();
  }

 private:
  Slot applied_ = 0;
};

// Counts by name; events as "event NAME".
class CountingMetrics final : public MetricsSink {
 public:
  void Count(std::string_view name, int64_t delta) override;
  void Event(std::string_view name, std::span<const EventField> fields) override;
  int64_t Of(const std::string& name) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int64_t, std::less<>> counts_;
};

// The real disk, whose files can be made to hang: what was called waits, and fails when it is let
// go.
class HangingDisk;

class ReplicaNode {
 public:
  struct Options {
    NodeId id{};
    std::filesystem::path folder;
    LocalNetwork* network = nullptr;
    replication::HostOptions host;
    MetricsSink* metrics = MetricsSink::None();
  };
  static constexpr Channel kChannel{1};

  // Opens the log. Groups are added next, then Begin is called.
  static absl::StatusOr<std::unique_ptr<ReplicaNode>> Open(Options options);
  // The end of a process: it falls silent at once, nothing is synced.
  ~ReplicaNode();

  // Run on the node's executor, and waited for.
  void Run(absl::AnyInvocable<void()> task);
  absl::Status AddGroup(PartitionId group, const replication::GroupSetup& setup);
  absl::Status Begin();
  // Begin without the waiting: `done` is called on the node's executor.
  void BeginAsync(absl::AnyInvocable<void(absl::Status)> done);

  // To be used on the node's executor alone.
  replication::GroupHost& host() { return *host_; }
  Executor* executor() { return &main_; }
  NodeId id() const { return options_.id; }
  void Hang(bool hang);
  // The node's log is in this folder of the disk.
  std::filesystem::path log_folder() const { return options_.folder / "log"; }
  // Messages between groups that this node sent; those of liveness are not among them.
  uint64_t group_messages() const;

 private:
  class Counted;
  explicit ReplicaNode(Options options);
  absl::Status OpenLog();

  const Options options_;
  const SystemClock clock_;
  ThreadExecutor main_{{.name = "main"}};
  ThreadExecutor log_executor_{{.name = "log"}};
  std::unique_ptr<Counted> transport_;
  std::unique_ptr<PosixDisk> disk_;
  std::unique_ptr<HangingDisk> hanging_disk_;
  std::unique_ptr<store::NodeLog> log_;
  store::NodeLog::Recovery recovery_;
  std::unique_ptr<cluster::NodeLogAdapter> replica_log_;
  std::map<PartitionId, std::unique_ptr<PositionMachine>> machines_;
  std::unique_ptr<replication::GroupHost> host_;
};

// Replicas 1, 2, ... on the nodes, storage replicas all.
replication::Configuration MembersOn(const std::vector<NodeId>& nodes);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_REPLICA_NODE_H_
