// One member of one replication group: Multi-Paxos over slots, as a pure function of its inputs.
//
// Inputs are messages, proposals, the time, and word that records became durable. Outputs are plain
// data, taken with TakeEffects after each input: records to make durable, messages to send, how far
// the log is chosen. The core holds a message back until the records that it speaks of are durable
// (rule R1), so the driver may send at once what it gets.
//
//   core.Step(message, now);
//   GroupCore::Effects effects = core.TakeEffects(now);
//   log.Append(effects.records, [&] { core.Persisted(effects.last_record, now); ... });
//   send(effects.messages);
//   apply(effects.chosen);
//
// Paxos made into a log (Lamport 1998, 2001): a leader whose ballot a quorum promised proposes
// values for slots in order, many at a time; a slot is chosen when a quorum holds it durably at one
// ballot. Members answer with the end of their stable prefix, so an answer is two numbers however
// much is in flight, and catching up is the same message as proposing: the leader proposes what is
// chosen again, under its own ballot.
//
// Members change by an entry of the log (rule R2): once chosen, it decides the slots after its own.
// Nothing is proposed beyond such an entry, or beyond one that ends the log, until it is chosen;
// then its leader asks the new members what they accepted (phase 1, at the ballot that it has)
// before it goes on. Acceptors answer whoever asks; that the right ones are counted is the
// proposer's duty. See docs/impl/replication.md.
//
// Leadership is kept by node-level support (liveness.h): an idle group has no deadline and sends
// nothing.
//
// Bounds: entries and bytes in flight to a peer, entries in a promise, bytes proposed and not yet
// chosen (kResourceExhausted beyond), all in Options. The log itself is held in memory from the
// released slot on.
//
// Threads: one executor's.
#ifndef DYNLIB_REPLICATION_GROUP_CORE_H_
#define DYNLIB_REPLICATION_GROUP_CORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/replication/liveness.h"
#include "dynlib/replication/message.h"
#include "dynlib/replication/read_rounds.h"
#include "dynlib/replication/resting.h"
#include "dynlib/replication/slot_log.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

struct GroupOptions {
  size_t proposal_bytes_max = 1 << 20;     // one entry
  size_t unchosen_bytes_max = 64 << 20;    // proposed by this leader and not yet chosen
  size_t peer_window_bytes_max = 8 << 20;  // sent to a peer and not yet answered
  size_t peer_window_entries_max = 4096;
  size_t message_bytes_max = 1 << 20;  // of entries in one message, a single larger entry excepted
  size_t retained_bytes_max =
      256 << 20;  // of log kept for members that lag; beyond it, they need a tree copy
  Duration resend = std::chrono::milliseconds(100);  // without progress of a peer that lives
  Duration commit_notice =
      std::chrono::milliseconds(5);  // how long "chosen" may wait for a message to ride on
  Duration election_jitter =
      std::chrono::milliseconds(50);  // elections start within this of their cause
  Duration health_timeout = std::chrono::milliseconds(50);  // waiting for "is the leader healthy?"
  Duration prepare_timeout = std::chrono::milliseconds(200);  // of phase 1
  Duration progress_bound =
      std::chrono::seconds(1);  // a leader that leaves entries unchosen longer is not healthy
  // Told of each slot that this member learns to be chosen, and of its payload, in the order of the
  // slots and anew after a restart: for checkers (S1). Null: nobody is told.
  std::function<void(PartitionId, Slot, std::string_view)> on_chosen;
  FaultsForTest faults;
};
absl::Status Validate(const GroupOptions& options);

enum class Role { kFollower, kAskingHealth, kCandidate, kLeader };
std::string_view RoleName(Role role);

// Why a member calls an election, as far as it knows.
enum class ElectionCause : uint8_t {
  kFresh,            // The group is new.
  kRestarted,        // This node restarted, and nobody is known to lead.
  kLeaderSilent,     // Support for the leader's node ran out.
  kLeaderRestarted,  // The leader's node restarted, or says that it does not lead.
  kReleased,         // The leader handed over, or gave up.
  kContested,        // An election, this member's or another's, came to nothing.
  kMembersChanged    // A new configuration, and nobody is known to lead in it.
};
inline constexpr size_t kElectionCauses = 7;
std::string_view CauseName(ElectionCause cause);

// How a leader sees a peer that it feeds.
struct PeerStatus {
  Member member;
  bool votes = false;  // a member; else a learner, or one that left and is to be told
  bool known = false;  // it answered at this ballot
  Slot match = 0;      // durable there
  Slot lag = 0;        // proposed and not known to be durable there
  uint64_t in_flight_entries = 0;
  size_t in_flight_bytes = 0;
  bool too_far_behind = false;  // what it needs is no longer in the log
};

class GroupCore {
 public:
  // What the log and the tree hold when the member starts.
  struct Recovered {
    Ballot promised;
    Slot chosen = 0;   // The durable chosen watermark; 0 if none was logged.
    Slot applied = 0;  // The position of the durable tree: chosen, and needed from the log no more
                       // by this member.
    std::vector<Entry> entries;  // In slot order, one a slot; InReach.
    std::vector<UnknownSlot>
        unknown;  // R4. One that an entry of the same or a higher ballot answers is ignored.
    std::optional<Configuration> configuration;  // The newest that was adopted.
    Slot ended = 0;  // The slot at which the group's log is known to have ended.
    // One more than the epoch of the newest configuration that named this replica; 0: none did.
    uint64_t named_in = 0;
  };

  // False if an entry or an unknown slot lies so far beyond what is whole that no member accepts it
  // there: what was recovered is not to be trusted. (The log in memory has a cell for each slot.)
  static bool InReach(const Recovered& recovered);

  // What must be durable. Entries carry the chosen watermark at the time, states the promise too.
  struct Record {
    bool is_state = false;
    Slot slot = 0;  // Of the entry; of a state, the chosen watermark.
    Ballot ballot;  // Of the entry; of a state, the promised ballot.
    Payload payload;
    Slot chosen = 0;
    Configuration configuration;  // Of a state, as is the slot at which the log ended.
    Slot ended = 0;
    uint64_t named_in = 0;
  };

  struct Event {
    enum class Kind {
      kElectionStarted,
      kElected,
      kDeposed,
      kLeaderHealthy,
      kUnknownDecidedEmpty,
      kTooFarBehind,
      kSlotsIgnored,  // A promise named slots that no log can hold, from this one on.
      kConfigured,    // A configuration was adopted; the slot is its epoch.
      kRemoved,       // This replica learned that it is a member no more.
      kEnded,
      kReleased,  // This leader or candidate gave its ballot up.
      kRepaired   // A slot that was unreadable here was fetched from another member.
    };
    Kind kind;
    Ballot ballot;
    Slot slot = 0;
    ElectionCause cause{};  // With kElectionStarted.
  };

  struct Effects {
    std::vector<Record> records;  // In order.
    uint64_t last_record = 0;     // For Persisted, when `records` is not empty.
    std::vector<GroupMessage> messages;
    bool deposed = false;  // Proposals not yet applied have an unknown outcome.
    std::vector<Event> events;

    // Keeps the memory, but for that of an unusual burst.
    void Clear();
  };

  // `configuration` is not older than `recovered.applied`. A replica that it does not name is a
  // learner, or was removed.
  GroupCore(const GroupOptions& options, PartitionId group, const Member& self, bool learner,
            Configuration configuration, Recovered recovered, uint64_t seed, Liveness* liveness,
            Instant now);
  // Goes on where another core was put to rest, in the same boot of the node; or begins a member
  // that nobody leads, in place of the above.
  GroupCore(const GroupOptions& options, PartitionId group, const Member& self,
            const RestingMember& rested, uint64_t seed, Liveness* liveness, Instant now);

  void Step(const GroupMessage& message, Instant now);
  void Persisted(uint64_t last_record, Instant now);
  bool all_durable() const { return persisted_index_ == record_index_; }
  void Tick(Instant now);
  // When Tick wants to be called; Infinite for a group at rest.
  Instant next_deadline() const;
  Effects TakeEffects(Instant now);
  // False if there are none.
  bool HasEffects() const;
  // The same, in place of what `effects` holds. Its memory is used for the next ones: who takes
  // those of many groups in turn costs the allocator nothing.
  void TakeEffects(Instant now, Effects& effects);
  // All that there is to be kept of a member at rest, to be asked after TakeEffects: nothing if it
  // is not. The owner then destroys the core, and makes another before it gives it an input. Of
  // liveness' events only these are inputs to it: that support for the leader's node ended, or that
  // the node restarted.
  std::optional<RestingMember> Rest(Instant now) const;

  // Gives the entry a slot and sends it on its way.
  //   kFailedPrecondition  not the leader: see leader()
  //   kResourceExhausted   too much is unchosen
  //   kInvalidArgument     longer than proposal_bytes_max
  //   kUnavailable         just now: see Busy()
  absl::StatusOr<Slot> Propose(Payload payload, Instant now);
  // True while a leader waits for a change of members, or for the end of the log, to be made: what
  // it cannot propose now it may be able to propose soon.
  bool Busy() const { return renewing_ || (role_ == Role::kLeader && barrier_ != 0); }
  // The group's last entry: once chosen, ended() is its slot.
  absl::StatusOr<Slot> ProposeEnd(Payload payload, Instant now);
  // See GroupHost::ChangeMembers; the configuration's epoch will be the slot.
  absl::StatusOr<Slot> ProposeMembers(uint64_t expected_epoch, const std::vector<Member>& members,
                                      Instant now);
  // True when this leader's present configuration is in force: something was chosen under it.
  bool Settled() const;
  // See GroupHost::AddLearner.
  absl::StatusOr<LearnerStatus> AddLearner(const Member& learner, Slot from, Instant now);
  std::vector<LearnerStatus> Learners() const;
  // Gives the ballot up, so that others elect one of theirs at once.
  void TransferLeadership(Instant now);

  // True while this leader's lease holds: reads at or after read_point() are then linearizable, if
  // the lease still holds after they were done (R7).
  bool HoldsLease(Instant now) const;
  // A leader whom a quorum supports: a lease, if the clocks are within their bound and no earlier
  // leader's lease may still run. Good for telling who leads.
  bool HasSupport(Instant now) const;
  // Asks the members to stand by this leader's ballot again, naming their current epochs. One round
  // trip; at most once a resend interval.
  void RenewLease(Instant now);
  // For a read without a lease (R7): asks the members to confirm that this ballot still leads, in a
  // round that many reads may share. The round, or 0 if none can be had now: not the leader, or one
  // whose present members are in doubt. Once it is confirmed, a read at read_point() is
  // linearizable.
  uint64_t AskForConfirmation(Instant now);
  bool Confirmed(uint64_t round) const;
  // Reads must wait until this is applied: the end of what was chosen, and this ballot's first
  // entry.
  Slot read_point() const;

  // Word from liveness.
  void OnPeerEvent(const Liveness::Event& event, Instant now);
  // The tree holds everything up to `slot` durably: the log may be released that far, when every
  // member has it.
  void SetCheckpoint(Slot slot, Instant now);
  // A member whose state machine failed votes on, but no longer leads.
  void SetMayLead(bool may_lead, Instant now);

  PartitionId group() const { return group_; }
  ReplicaId self() const { return self_.replica; }
  MemberKind kind() const { return self_.kind; }
  // In force after chosen(), and the one in force after a chosen slot that was not yet released.
  const Configuration& configuration() const { return configuration_; }
  const Configuration& ConfigurationAt(Slot slot) const;
  bool member() const { return configuration_.Find(self_.replica) != nullptr; }
  // Told by others that it is needed no more (R2); it never asks for votes again.
  bool removed() const { return removed_ && removal_known_; }
  // The slot of the chosen entry that ends the log, or 0.
  Slot ended() const { return ended_; }
  // In the durable trees of all storage members.
  Slot held_by_storage() const { return held_by_storage_; }
  // The nodes that this replica may have to talk to. The version changes whenever they do.
  std::vector<NodeId> Nodes() const;
  uint64_t nodes_version() const { return nodes_version_; }
  Role role() const { return role_; }
  Ballot promised() const { return promised_; }
  // Who is believed to lead.
  std::optional<Member> leader() const;
  Slot chosen() const { return chosen_; }
  Slot last_slot() const { return log_.last(); }
  // Everything up to here may be dropped from the log, also from the durable one.
  Slot released() const { return log_.released(); }
  // This member's tree holds the whole log durably.
  bool AllInTree() const { return checkpoint_ == chosen_ && log_.last() <= chosen_; }
  // The payload at a chosen slot above released(). An empty payload is a no-op.
  const Payload& ChosenEntry(Slot slot) const;
  size_t retained_bytes() const { return log_.bytes(); }
  // Of a leader: what is proposed and not yet chosen, and the peers in configuration order, then
  // learners.
  size_t unchosen_bytes() const { return unchosen_bytes_; }
  // For how long entries have waited here without any being chosen.
  Duration ChoiceOverdue(Instant now) const {
    return unchosen_since_ == Instant::Infinite() ? Duration(0) : now - unchosen_since_;
  }
  std::vector<PeerStatus> Peers() const;
  // Stops the process if an invariant of the protocol does not hold; for tests, after each step.
  void CheckInvariants() const;

 private:
  // How long a leader goes on feeding a learner that nobody asks about, and a member that left.
  static constexpr Duration kLearnerKept = std::chrono::seconds(10);
  static constexpr size_t kLearnersMax = 8;
  // A learner nearer to the end than this may become a member.
  static constexpr Slot kCaughtUpWithin = 64;

  struct Peer {
    Member member;
    bool votes = true;     // A member. Else a learner, or
    bool leaving = false;  // one that was a member and is to be told so.
    Slot start = 0;        // Of a learner: it holds everything up to here.
    Instant forget_at = Instant::Infinite();
    bool known = false;    // `match` was told by the peer at this ballot.
    Slot match = 0;        // Stable there.
    Slot next = 0;         // The next slot to send.
    size_t in_flight = 0;  // Bytes of the entries after `match` and before `next`.
    Slot told_chosen = 0;
    Slot heard_chosen = 0;
    Slot checkpoint = 0;  // In the peer's durable tree.
    uint64_t epoch = 0;   // Of its node's support, as named at this ballot.
    Instant resend_at = Instant::Infinite();
    bool too_far_behind = false;
    // As candidate.
    bool answered = false;
    bool granted = false;
    Slot through = 0;
    Slot promise_chosen = 0;
  };
  struct Candidacy {
    Slot from_slot = 0;
    Duration lease_remaining{0};
    Slot barrier = 0;            // Found among the values: nothing beyond it is proposed.
    std::map<Slot, Entry> best;  // The highest ballot reported for each slot.
    std::map<Slot, std::map<ReplicaId, Ballot>> unknown;  // R4.
    Slot whole = 0;  // Something was reported for every slot from `from_slot` to here.
    Instant retry_at;
    int retries = 0;
    uint64_t own_record = 0;  // The own promise counts once this is durable.
  };

  // group_core.cc: what every member does.
  GroupMessage Make(const Member& to, Ballot ballot) const;
  GroupMessage Answer(const GroupMessage& message) const;
  void Send(GroupMessage message);
  void SendWhenDurable(GroupMessage message);
  void PersistState();
  void PersistEntry(Slot slot);
  void PutEntry(Slot slot, Ballot ballot, Payload payload);
  bool TryPromise(Ballot ballot, NodeId proposer_node, Instant now);
  bool MayPromise(Ballot ballot, Instant now);
  bool OwnerLeft() const;
  void Adopt(Ballot ballot, NodeId proposer_node, Instant now);
  void AnnounceAbandoned();
  void StepDown(Instant now);
  void AdvanceStable();
  bool AwaitsChoice() const;
  void SetChosen(Slot chosen, Instant now);
  void MaybeRelease();
  bool IsSelf(ReplicaId replica) const { return replica == self_.replica; }
  Peer* FindPeer(ReplicaId replica);
  NodeId NodeOf(ReplicaId replica) const;
  bool Readable(Slot slot) const;

  // group_core_membership.cc.
  void NoteChosen(Slot slot);
  void NoteAccepted(Slot slot, Instant now);
  void ApplyConfiguration(Instant now);
  void LeadInNewConfiguration(Instant now);
  void SetPeers(bool leading, Instant now);
  void ForgetLearners();
  void StartRenewal(Instant now);
  void ResignAndTell(Instant now);
  std::vector<Member> Contacts() const;
  bool CanLead() const;
  bool TellIfOutdated(const GroupMessage& message, Instant now);
  void SendOutdated(const GroupMessage& message, Slot from_slot);
  void OnOutdated(const GroupMessage& message, const Outdated& outdated, Instant now);
  Slot LearnChosen(const std::vector<Entry>& entries, Instant now);
  void SetRemovalKnown();
  absl::Status CheckChange(const Configuration& next, Instant now) const;
  static bool CaughtUp(const Peer& peer, Slot chosen) {
    return peer.known && peer.match + kCaughtUpWithin >= chosen;
  }

  // group_core_follower.cc: acceptor and follower.
  void OnPrepare(const GroupMessage& message, const Prepare& prepare, Instant now);
  void OnAccept(const GroupMessage& message, const Accept& accept, Instant now);
  void OnHealthQuery(const GroupMessage& message, const HealthQuery& query, Instant now);
  void OnConfirmQuery(const GroupMessage& message, const ConfirmQuery& query);
  void AskOwner();
  void FillPromise(Slot from_slot, Promise& promise) const;
  Accepted StableAnswer(NodeId leader_node) const;
  bool LeaderLooksHealthy(Instant now) const;
  bool SupportsLeader(Instant now) const;
  void ScheduleElection(Instant earliest);
  void ScheduleElection(Instant earliest, ElectionCause cause);
  void SetElection(Instant at);
  // The last slot that an acceptor takes an entry for, whose log is whole up to `whole`.
  Slot WindowEnd(Slot whole) const { return whole + 4 * options_.peer_window_entries_max; }

  // group_core_rest.cc.
  void WakeLeader(const RestingMember& rested, Instant now);
  void WakeFollower(const RestingMember& rested, Instant now);
  void ScheduleFirstElection(Instant now);
  bool Quiet() const;
  bool FollowsAtRest(Instant now) const;
  bool LeadsAtRest(Instant now) const;

  // group_core_election.cc: candidate.
  void OnElectionDue(Instant now);
  void AskHealth(Instant now);
  void SendHealthQueries(Instant now);
  void OnHealthTimeout(Instant now);
  bool MayStart() const;
  void OnHealthReply(const GroupMessage& message, const HealthReply& reply, Instant now);
  void StartElection(Instant now);
  void AskForPromises(Instant now);
  void SendPrepares(Instant now);
  void OnPromise(const GroupMessage& message, const Promise& promise, Instant now);
  void Collect(ReplicaId from, const Promise& promise);
  void ForgetBeyondWindow();
  void GiveUp(Duration wait, Instant now);
  void MaybeWin(Instant now);
  std::optional<Payload> Decide(Slot slot) const;
  std::vector<Payload> DecideAll(bool* decided);
  void BecomeLeader(std::vector<Payload> proposals, Instant now);

  // group_core_leader.cc.
  void OnAccepted(const GroupMessage& message, const Accepted& accepted, Instant now);
  void Flush(Instant now);
  void SendEntries(Peer& peer, Instant now);
  void AdvanceMatch(Peer& peer, Slot match);
  void SendProbe(Peer& peer, Instant now);
  bool NeedsWord(const Peer& peer) const;
  void TickLeader(Instant now);
  void GiveWayIfLogHangs(Instant now);
  void AppendAt(Slot slot, Payload payload, Instant now);
  void AdvanceChosen(Instant now);
  Accept MakeAccept(Slot first_slot) const;
  Slot HeldByAll() const;
  Slot HeldByStorage() const;
  bool MayConfirm() const;
  void SendConfirmQueries(Instant now);
  void OnConfirmReply(const GroupMessage& message, const ConfirmReply& reply, Instant now);
  void AnnounceHeld(Instant now);
  void AnnounceHeldTo(Peer& peer, Instant now);

  const GroupOptions options_;
  const PartitionId group_;
  const Member self_;
  Configuration configuration_;  // In force after chosen_.
  // Those still needed, by epoch.
  std::map<uint64_t, Configuration> configurations_;
  // Chosen, and not yet taken on; never set between inputs.
  std::optional<Configuration> adopting_;
  // Adopted before a restart, but not reached again: somebody to ask.
  std::optional<Configuration> ahead_;
  uint64_t named_in_ = 0;  // As in Recovered.
  bool removed_ = false;
  bool removal_known_ = false;
  Slot ended_ = 0;
  uint64_t nodes_version_ = 1;
  Liveness* const liveness_;
  Random random_;

  Role role_ = Role::kFollower;
  bool may_lead_ = true;
  Ballot promised_;
  NodeId promised_node_{};  // Of its owner; none if no word of the owner was heard in this boot.
  uint64_t promised_epoch_ = UINT64_MAX;  // In which its owner spoke; UINT64_MAX: not known.
  uint64_t round_seen_ = 0;               // The highest round in any message.
  bool established_ = false;              // The owner of promised_ is known to lead at it.
  bool abandoned_ = false;  // The owner of promised_ said that it does not, and never will.
  SlotLog log_;
  Slot chosen_ = 0;
  Slot stable_ = 0;  // Every slot up to here is durable here, and chosen or accepted at promised_.
  Slot checkpoint_ = 0;
  Slot recovered_chosen_ = 0;  // Known to be chosen at restart, whether readable or not.
  Slot held_by_all_ = 0;
  Slot held_by_storage_ = 0;
  Instant unchosen_since_ =
      Instant::Infinite();  // Since when an accepted entry waits to be chosen.

  Instant election_at_ = Instant::Infinite();
  ElectionCause election_cause_ = ElectionCause::kRestarted;  // Of the next.
  Instant lead_not_before_;  // This member lacks log that the others dropped: they should lead.
  std::set<ReplicaId> health_denied_;  // Who answered that the leader is not healthy.
  Instant health_until_ = Instant::Infinite();

  std::vector<Peer> peers_;  // The other members, in configuration order; then, of a leader, those
                             // that it feeds besides.
  Candidacy candidacy_;
  bool renewing_ = false;     // A candidate for the ballot that it led at, in a new configuration.
  Slot proposed_ = 0;         // The last slot that this leader proposed, or knew to be chosen.
  Slot barrier_ = 0;          // Proposed and not yet chosen; nothing is proposed beyond it.
  bool inherited_ = false;    // The barrier is a configuration of an earlier leader.
  Slot first_of_ballot_ = 0;  // The leader's no-op.
  Instant lease_not_before_;  // R6.
  size_t unchosen_bytes_ = 0;
  Slot announced_to_all_ = 0;      // That all hold it, and that all storage replicas do, was told
  Slot announced_to_storage_ = 0;  // of everything up to here.
  Instant notice_at_ = Instant::Infinite();
  Instant renew_not_before_;
  std::unique_ptr<ReadRounds> read_rounds_;  // Of this ballot, once a read asked for one.

  uint64_t record_index_ = 0;  // Of the newest record given out.
  uint64_t persisted_index_ = 0;
  struct PendingEntry {
    uint64_t record;
    Slot slot;
    Ballot ballot;
  };
  std::deque<PendingEntry> pending_entries_;  // Given out as records and not yet durable.
  struct HeldMessage {
    uint64_t record;  // Sent when this record is durable (R1).
    GroupMessage message;
  };
  std::vector<HeldMessage> held_messages_;  // By record.
  Effects effects_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_GROUP_CORE_H_
