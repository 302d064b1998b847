// All replication groups of a node, run over a transport, a log and a clock.
//
//   GroupHost host(options, self, &transport, kReplicationChannel, &log, executor, &clock,
//   metrics); host.Start(node_stream, [](absl::Status s) { ... });                     // boot
//   count durable: may speak host.AddGroup(partition, configuration, &state_machine,
//   apply_executor, recovered_stream); host.Propose(partition, {.client = me, .sequence = 7,
//   .command = bytes}, [](GroupHost::Result r) { ... }); host.Read(partition, [&] { value =
//   tree->Get(key); }, [](absl::Status s) { ... });
//
// Exactly once: a command is known by (client, sequence). Sent again, also to another leader, it is
// not applied again but answered with the first result, as long as the client keeps it above its
// `acknowledged` low-water mark.
//
// Results of Propose:
//   OK                   applied on this replica, durable on a quorum; the state machine's result
//   kFailedPrecondition  not the leader; leader_hint says who may be. Nothing was logged here
//   kResourceExhausted   a bound was reached (unchosen bytes, waiting proposals, log space);
//   nothing was logged kInvalidArgument     too large, or client or sequence 0; or a sequence at or
//   below what the client acknowledged kUnknown             leadership or the log was lost with the
//   command in flight: it may or may not be applied. Ask
//                        again with the same client and sequence
//   kCancelled           shut down; it may or may not be applied
// Read runs its function on the group's apply executor between two checks of the leader lease (rule
// R7): OK means that what it saw was the newest state at some time between call and answer.
// kFailedPrecondition: not the leader. kUnavailable: no lease within `read_wait`, try again.
//
// Threads: everything on `executor`, but for status snapshots, as said there. Callbacks run on
// `executor`. Ownership: what is given by pointer outlives the host; apply executors must have run
// dry of the host's tasks (call Stop, then let them finish) before it is destroyed.
#ifndef DYNLIB_REPLICATION_GROUP_HOST_H_
#define DYNLIB_REPLICATION_GROUP_HOST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/replica_log.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::replication {

class GroupHost {
 public:
  GroupHost(HostOptions options, NodeId self, Transport* transport, Channel channel,
            ReplicaLog* log, Executor* executor, const Clock* clock,
            MetricsSink* metrics = MetricsSink::None());
  ~GroupHost();

  // First: makes this boot durable in the node's stream, then takes part. `node_stream` is what the
  // log recovered for PartitionId{0}. On an error the node must not take part.
  void Start(const RecoveredStream& node_stream, absl::AnyInvocable<void(absl::Status)> done);

  // Called once, on the executor, when this node cannot go on: its log closed for good (rule L3),
  // or a state machine failed. Whoever runs the node destroys it and opens it again, which reads
  // what is really there.
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback);

  // Before or after Start. kInvalidArgument for a bad configuration or one without this node,
  // kAlreadyExists for a group that is here. A stream that is `lost` makes a replica that does not
  // vote and is `failed`.
  absl::Status AddGroup(PartitionId group, const Configuration& configuration,
                        StateMachine* state_machine, Executor* apply_executor,
                        const RecoveredStream& recovered);

  void Propose(PartitionId group, Command command, ProposeCallback done);
  // A read of the newest state. `read` runs on the apply executor, at most once. Unless the status
  // is OK, it may not have run, and what it saw may be old.
  void Read(PartitionId group, absl::AnyInvocable<void()> read, ReadCallback done);

  // The group's state machine holds everything up to `slot` durably; the log is released behind it.
  void Checkpointed(PartitionId group, Slot slot);

  std::optional<GroupStatus> Status(PartitionId group) const;
  std::vector<GroupStatus> AllStatus() const;
  // Node-level view: true if the node was heard from lately.
  bool Hears(NodeId node) const;

  // Answers everything that waits with kCancelled, and takes part no more.
  void Stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_GROUP_HOST_H_
