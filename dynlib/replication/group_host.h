// All replication groups of a node, run over a transport, a log and a clock.
//
//   GroupHost host(options, self, &transport, kReplicationChannel, &log, executor, &clock,
//   metrics); host.Start(node_stream, [](absl::Status s) { ... });  // boot count durable: may
//   speak host.AddGroup(partition, {.configuration = members, .self = ReplicaId{1}},
//   &state_machine,
//                 apply_executor, recovered_stream);
//   host.Propose(partition, {.client = me, .sequence = 7, .command = bytes},
//                [](ProposalResult r) { ... });
//   host.Read(partition, [&] { value = tree->Get(key); }, [](absl::Status s) { ... });
//
// Exactly once: a command is known by (client, sequence). Sent again, also to another leader, it is
// not applied again but answered with the first result, as long as the client keeps it above its
// `acknowledged` low-water mark.
//
// Results of Propose:
//   OK                   applied on this replica, durable on a quorum; the state machine's result
//   kFailedPrecondition  not the leader; leader_hint says who may be. Or the log has ended
//                        (ProposeEnd). Nothing was logged here
//   kResourceExhausted   a bound was reached (unchosen bytes, waiting proposals, log space);
//                        nothing was logged. retry_after says when to try again
//   kInvalidArgument     too large, or client or sequence 0; or a sequence at or below what the
//                        client acknowledged
//   kUnknown             leadership or the log was lost with the command in flight: it may or may
//                        not be applied. Ask again with the same client and sequence
//   kCancelled           shut down, or the group removed; it may or may not be applied
// Read runs its function on the group's apply executor between two checks of the leader lease (rule
// R7), or, where no lease is held or `lease_reads` is off, after a quorum confirmed that this
// replica still led when it was asked (read_rounds.h): OK means that what it saw was the newest
// state at some time between call and answer. kFailedPrecondition: not the leader. kUnavailable:
// neither lease nor a quorum's word within `read_wait`, or the lease ran out meanwhile: try again.
//
// Members change one step at a time, on the leader (rule R2). To replace replica 3 by 4:
//   1. on the new node: AddGroup with {.self = 4, .learner = true} over a copied tree (or, for a
//   log
//      replica, an empty one) at slot p
//   2. on the leader: AddLearner(partition, {4, node, kind}, p, ...), again until `caught_up`
//   3. on the leader: ChangeMembers(partition, epoch, {1, 2, 4}, ...)
//   4. after OK: RemoveGroup on the node of 3. Not before: until then 3 may be the only one to know
//      that the change was made. A replica whose status says `removed` was told that it is done.
// Ids of replicas are never used again, in any group of this id (rule R3).
//
// Threads: everything on `executor` once it has started: what asks the groups for something checks
// that, and stops the process. Callbacks run on
// `executor`, never within the call. Ownership: what is given by pointer outlives the host; apply
// executors must have run dry of the host's tasks (call Stop, then let them finish) before it is
// destroyed.
#ifndef DYNLIB_REPLICATION_GROUP_HOST_H_
#define DYNLIB_REPLICATION_GROUP_HOST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/liveness.h"
#include "dynlib/replication/replica_log.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::replication {

// A replica of a group, as its owner knows it.
struct GroupSetup {
  // The newest that the state machine keeps; before it kept any, the one that the group was made
  // with.
  Configuration configuration;
  ReplicaId self{};
  MemberKind kind = MemberKind::kStorage;
  // The state machine's position is the slot of the group's end (a command with `ends`).
  bool ended = false;
  // Nobody waits for it: it is kept at rest, and elects no leader before something is asked of it.
  // A proposal or read that finds no leader fails with kFailedPrecondition as usual, and is the
  // asking. Heeded only if the log holds nothing that is to be settled; OnChange says nothing of
  // such a group before it is woken.
  bool at_rest = false;
  // With at_rest: it is woken unasked too, in its turn, as if the node of its leader had been lost.
  // So a node that starts with many groups has them all led soon, and makes a core of as many at a
  // time as HostOptions::wakes_at_once says.
  bool wake_in_turn = false;
  // `self` need not be in the configuration: it is fed by the leader and has no vote until a
  // configuration names it. May stay set over restarts.
  bool learner = false;
};

// A node, as its host sees it.
struct HostStatus {
  NodeId node{};
  uint64_t incarnation = 0;  // counts its boots
  bool log_healthy = false;  // its log takes what it is given, in time; if not, it gives way (R8)
  bool log_closed = false;   // for good: the node is to be opened again
  size_t groups = 0;
  size_t awake = 0;        // of these; the others are at rest
  size_t deadlines = 0;    // of these wait for a time
  size_t leads = 0;        // of these are led by this node
  size_t table_bytes = 0;  // what is kept in memory of all groups; those awake have more
  // Elections that replicas here called in this boot, by ElectionCause.
  std::array<uint64_t, kElectionCauses> elections{};
  std::vector<Liveness::PeerStatus> peers;
};

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
  // what is really there. A state machine that fails with kDataLoss is none of this: its replica
  // alone has `failed`, votes on, and is to be replaced. Nor is one whose commands are of a version
  // that this node does not read.
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback);

  // Called after the role, the leader, the configuration, `ended`, `removed` or `failed` of a group
  // changed; changes that follow one another may share a call.
  void OnChange(absl::AnyInvocable<void(PartitionId)> callback);

  // Before or after Start. kInvalidArgument for a bad configuration, one that does not name `self`
  // on this node (but for learners) or is newer than the state machine, a replica id past
  // Ballot::kReplicaMax or a position past kSlotMax; kAlreadyExists for a group that is here or is
  // still being removed; kFailedPrecondition, of any group, if the log takes less at a time than
  // proposal_bytes_max. A stream that is `lost`, or whose slots no log can hold, makes a replica
  // that does not vote and is `failed`. A tree put under a replica that has a stream must come with
  // a stream whose entries up to the tree's position are dropped.
  absl::Status AddGroup(PartitionId group, const GroupSetup& setup, StateMachine* state_machine,
                        Executor* apply_executor, const RecoveredStream& recovered);
  // Takes the group out: it says nothing from now on, and what waits ends with kCancelled. `done`
  // is called when neither its state machine nor the log holds work of it: the caller may then drop
  // both, and add a replica with another id. kNotFound if it is not here.
  void RemoveGroup(PartitionId group, absl::AnyInvocable<void(absl::Status)> done);

  void Propose(PartitionId group, Command command, ProposeCallback done);
  // As Propose, for the last command of the group: nothing is proposed after it, and once it is
  // chosen proposals get kFailedPrecondition "ended". The members go on to feed those that lag.
  void ProposeEnd(PartitionId group, Command command, ProposeCallback done);
  // A read of the newest state. `read` runs on the apply executor, at most once. Unless the status
  // is OK, it may not have run, and what it saw may be old.
  void Read(PartitionId group, absl::AnyInvocable<void()> read, ReadCallback done);

  // On the leader: feeds `learner`, whose tree (or log, for a log replica) holds everything up to
  // `from`. Asked again, says how far it is; forgotten with the leadership, and 10 s after the last
  // time it was asked about. The log from `from` on is kept for it, within retained_bytes_max.
  //   kFailedPrecondition  not the leader
  //   kOutOfRange          the log starts after `from`: begin with a newer copy
  //   kAlreadyExists       the replica is a member, or the node is another learner's or this one.
  //                        (On another member's node it replaces a replica that was lost there.)
  //   kResourceExhausted   too many learners
  void AddLearner(PartitionId group, const Member& learner, Slot from, LearnerCallback done);
  // On the leader: makes `members` the configuration that follows the one of `expected_epoch`, and
  // answers with its epoch when it was chosen and is led by this node. The same members again: OK
  // with the present epoch.
  //   kFailedPrecondition  not the leader; another epoch; another change under way; the log has
  //                        ended; a member added is not a learner that caught up; no quorum of the
  //                        new members is alive and caught up: the message says which
  //   kInvalidArgument     members that Validate refuses, or a member whose node or kind changes
  //   kUnknown             leadership was lost meanwhile: ask again with the same members
  void ChangeMembers(PartitionId group, uint64_t expected_epoch, std::vector<Member> members,
                     ChangeCallback done);
  // On the leader: raises the version of the group's commands (StateMachine::version) by an entry
  // of the log, once every storage member's node has said, in its last grants, that it reads it. To
  // be asked for when the whole cluster runs the new program, for there is no way back: a member
  // that is started with an older one stops applying, `failed`, and is not elected. OK when it is
  // applied here, or was already.
  //   kFailedPrecondition  not the leader; members are being changed; a storage member has not said
  //                        that it reads the version: the message says which
  //   kInvalidArgument     version 0
  //   else as Propose
  // Members that join later must read it too (ChangeMembers: kFailedPrecondition).
  void RaiseVersion(PartitionId group, uint64_t version, ProposeCallback done);
  // On the leader: gives leadership up, so that the others elect one of theirs at once. What is in
  // flight ends with kUnknown.
  void TransferLeadership(PartitionId group);

  // A leader at rest is not woken when support for its node ends and begins anew: its status then
  // says that it has none, though it may lead still, until something is asked of it. This wakes it
  // to find out. For who looks at statuses to learn who leads; costs nothing for any other group.
  void CheckLead(PartitionId group);

  // The group's state machine holds everything up to `slot` durably; the log is released behind it.
  void Checkpointed(PartitionId group, Slot slot);

  std::optional<GroupStatus> Status(PartitionId group) const;
  std::vector<GroupStatus> AllStatus() const;
  HostStatus Status() const;
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
