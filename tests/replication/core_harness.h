// A small cluster of pure replication cores in one thread, from one seed: a bag of messages that
// loses, delays, reorders and repeats, links cut also one way, crashes that lose what is not
// durable, clocks that drift, and checkers that look at every step.
//
//   CoreHarness harness({.seed = 7});
//   std::string violation = harness.Run();   // empty: safe under faults, and live and at rest
//   after them
//
// Or step by step, for a scenario: RunFor, Cut, Crash, Restart, Propose.
//
// The disk is modelled as the driver uses it: records become durable in order, after a delay; a
// crash loses those that did not, or leaves them readable, or, in the last batch, torn ("unknown",
// rule R4). Damage of what was durable is held to one node at a time, which is what a group must
// survive.
#ifndef DYNLIB_TESTS_REPLICATION_CORE_HARNESS_H_
#define DYNLIB_TESTS_REPLICATION_CORE_HARNESS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/liveness.h"
#include "dynlib/replication/message.h"
#include "dynlib/replication/resting.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

// Durations are of true time. A mean of zero switches a fault off.
struct HarnessOptions {
  uint64_t seed = 1;
  int nodes = 3;
  int spares = 0;  // Nodes without a replica at first.
  int groups = 1;
  GroupOptions group;
  LivenessOptions liveness;
  FaultsForTest faults;  // Goes into both of the above.

  double loss = 0.02;    // of messages
  double repeat = 0.05;  // of messages
  double slow = 0.01;    // of messages: late by up to slow_max
  Duration slow_max = std::chrono::seconds(2);
  Duration delay_max = std::chrono::milliseconds(5);
  Duration healed_delay_min = std::chrono::microseconds(50);
  Duration healed_delay_max = std::chrono::milliseconds(2);
  Duration sync_min = std::chrono::microseconds(1);
  Duration sync_max = std::chrono::milliseconds(5);
  double slow_sync = 0.02;  // of syncs: up to slow_sync_max
  Duration slow_sync_max = std::chrono::milliseconds(800);
  Duration proposal_mean = std::chrono::milliseconds(40);
  Duration read_mean = std::chrono::milliseconds(60);  // of reads confirmed by a quorum
  Duration crash_mean = std::chrono::milliseconds(1500);
  Duration downtime_max = std::chrono::milliseconds(1500);
  Duration cut_mean = std::chrono::milliseconds(700);
  Duration cut_max = std::chrono::milliseconds(1500);
  Duration checkpoint_mean = std::chrono::milliseconds(300);
  Duration may_lead_mean{0};  // A state machine fails, and is well again.
  Duration hang_mean{0};      // A disk hangs, and goes on.
  Duration hang_max = std::chrono::milliseconds(1500);
  // Members are swapped, added and removed, storage and log replicas; by up to two administrators
  // of a group at a time, who do not know of each other.
  Duration change_mean{0};
  size_t members_min = 2;
  size_t members_max = 5;
  // Members are put to rest whenever they may be, and woken by what wakes them in a driver; those
  // whose leader's node was lost, late.
  bool rest = false;
  Duration wake_max = std::chrono::milliseconds(100);
  double end = 0;       // of runs: the groups' logs are ended amid the faults
  double torn = 0.3;    // of crashes: the last batch is unknown
  double damage = 0.2;  // of restarts: a slot that was durable is unknown
  double drift = 1;     // of the declared drift bound is used

  Duration fault_phase = std::chrono::seconds(6);
  Duration heal_bound = std::chrono::seconds(15);
  bool leave_one_down = false;  // The last node is not started again for the healed phase.
  bool leases_expected = true;  // Progress after healing includes a lease, else a quorum's word.
  bool trace = false;           // To stderr, or
  // to this, if there is one. A message, or what happened otherwise.
  std::function<void(bool is_message, const std::string& line)> on_trace;
};

std::string Describe(const GroupMessage& message);
std::string Describe(const GroupCore::Event& event);

// The mix of faults and sizes that a seed stands for in the randomised tests.
HarnessOptions RandomMix(uint64_t seed);
// The same, with proposals so seldom and checkpoints so often that members rest in between.
HarnessOptions RestMix(uint64_t seed);
// RandomMix with members that change.
HarnessOptions MembersMix(uint64_t seed);

class CoreHarness {
 public:
  explicit CoreHarness(const HarnessOptions& options);
  ~CoreHarness();

  // Faults, then healing, then rest. Returns the first violation, or "".
  std::string Run();

  // For scenarios. Nodes and replicas count from 0; replica i of every group is on node i.
  void RunFor(Duration duration);
  // Runs until `done` or the time is over; returns whether it was done.
  bool RunUntil(const std::function<bool()>& done, Duration at_most);
  void Cut(int from, int to, bool cut = true) { cut_[from][to] = cut; }
  void Isolate(int node, bool cut = true);
  void HealLinks();
  void Crash(int node);
  void Restart(int node);
  bool Up(int node) const { return nodes_[node]->up; }
  GroupCore& Core(int node, int group = 0) { return Awake(*nodes_[node], group); }
  Liveness& LivenessOf(int node) { return *nodes_[node]->liveness; }
  Instant Now(int node) const;  // By the node's clock.
  // A leader that holds its lease, or -1.
  int LeaseHolder(int group = 0) const;
  // Proposes at the node; the slot, or 0.
  Slot Propose(int node, int group = 0);
  bool ChosenEverywhere(Slot slot, int group = 0) const;  // On all nodes that are up.
  void SetMayLead(int node, bool may_lead, int group = 0);
  void TransferLeadership(int node, int group = 0);
  void Checkpoint(int node, Slot slot, int group = 0);
  bool Has(int node, int group = 0) const { return nodes_[node]->cores[group] != nullptr; }
  // Makes a learner on the node over a copy of the tree of `from`, and returns its member.
  Member MakeLearner(int node, MemberKind kind, int from, int group = 0);
  // At the node, which leads.
  absl::Status AddLearner(int node, const Member& learner, int group = 0);
  absl::Status ProposeMembers(int node, const std::vector<Member>& members, int group = 0);
  absl::Status ProposeEnd(int node, int group = 0);
  // The replica on the node is gone for good.
  void Drop(int node, int group = 0);
  // The newest configuration that anybody knew to be chosen.
  const Configuration& Newest(int group = 0) const;
  // Makes a durable slot unreadable at the next restart.
  void Damage(int node, Slot slot, int group = 0);
  // Syncs of the node end no more, or again.
  void HangDisk(int node, bool hang, bool noticed = true);
  bool AtRest(int group = 0) const;
  // A read of the leader at the node, without a lease; false if it cannot be had now.
  bool ReadByQuorum(int node, int group = 0);
  uint64_t reads_confirmed() const { return reads_confirmed_; }
  uint64_t GroupMessagesSent() const { return group_messages_; }
  // Events of the kind that any core reported so far.
  int Events(GroupCore::Event::Kind kind) const;
  // How often a member was put to rest.
  uint64_t rests() const { return rests_; }
  int64_t now_us() const { return now_ / 1'000; }
  const std::string& violation() const { return violation_; }
  // Whether the violation is that the group gets stuck or finds no rest, and no harm else.
  bool stuck() const { return stuck_; }
  uint64_t steps() const { return steps_; }
  HarnessOptions& options() { return options_; }

 private:
  struct StoredSlot {
    Ballot ballot;
    Payload payload;  // Null: nothing readable.
    Ballot unknown;   // Above Ballot(): torn or damaged at this ballot.
  };
  struct StoredGroup {
    Ballot promised;
    Slot chosen = 0;   // As the driver recovers it: the highest that any frame tells.
    Slot applied = 0;  // The durable tree.
    // Of the replica on this node, if there is one.
    ReplicaId replica{};
    MemberKind kind = MemberKind::kStorage;
    bool learner = false;
    Slot start = 0;                        // Of its first tree.
    Slot ended = 0;                        // In the tree.
    Configuration configuration;           // In the tree, as of `applied`.
    std::optional<Configuration> adopted;  // In the newest state record.
    uint64_t named_in = 0;
    std::map<Slot, StoredSlot> slots;
    std::set<Slot> damaged;  // Not yet repaired.
  };
  struct Batch {
    int group;
    std::vector<GroupCore::Record> records;
    uint64_t last_record;
    bool dropped = false;  // With its replica.
  };
  struct Node {
    int index = 0;
    bool up = false;
    uint64_t boots = 0;
    bool ever_granted = false;
    double rate = 1;
    int64_t booted_at = 0;   // True time.
    int64_t clock_base = 0;  // Of the node's clock at boot.
    std::unique_ptr<Liveness> liveness;
    std::vector<std::unique_ptr<GroupCore>> cores;
    // Of those at rest. Their cores are looked at, but hear of nothing.
    std::vector<std::optional<RestingMember>> resting;
    std::vector<Slot> checked;  // The agreement of slots up to here was looked at in this boot.
    std::vector<StoredGroup> stored;
    std::deque<Batch> pending;
    bool syncing = false;
    bool disk_hung = false;
    int64_t wake_at = INT64_MAX;
  };
  struct GroupTruth {
    std::map<Slot, std::string> chosen;  // By whoever said so first.
    std::set<std::string> proposed;
    std::map<Slot, std::string> acknowledged;
    std::map<Slot, std::string> acknowledged_before_healing;
    struct Waiting {
      int node;
      uint64_t boot;
      Ballot ballot;
      Slot slot;
      std::string payload;
    };
    std::vector<Waiting> waiting;
    // Reads that wait for a quorum to confirm their leader.
    struct Reading {
      int node;
      uint64_t boot;
      Ballot ballot;
      uint64_t round;
      Slot newest;  // Chosen when the read arrived: it must see that.
    };
    std::vector<Reading> reading;
    std::map<uint64_t, Configuration> configurations;  // Chosen, by epoch.
    Slot ended = 0;
    uint64_t replicas = 0;  // Ids given out.
    // Replicas that a change was proposed with, and under which newest epoch: they may become
    // members as long as no other configuration followed it.
    std::map<ReplicaId, uint64_t> proposed_under;
    struct Plan {
      Member added;    // Replica 0: none.
      Member removed;  // Replica 0: none.
      int node = -1;   // Of `added`.
      int patience = 0;
      bool proposed = false;
    };
    std::vector<Plan> plans;
  };

  Instant LocalTime(const Node& node, int64_t true_nanos) const;
  int64_t TrueTime(const Node& node, Instant local) const;
  void At(int64_t when, std::function<void()> action);
  void After(Duration mean, std::function<void()> action);
  bool StepOnce(int64_t until);

  void Boot(Node& node);
  void StartReplica(Node& node, int group);
  // The core, for an input: of a member at rest, a new one.
  GroupCore& Awake(Node& node, int group);
  void RestWhoMay(Node& node);
  void WakeFollowersOf(Node& node, const Liveness::Event& event, int group);
  GroupCore::Recovered RecoveredOf(const StoredGroup& stored) const;
  void Store(StoredGroup& stored, const GroupCore::Record& record);
  void StoreTorn(StoredGroup& stored, const GroupCore::Record& record);
  void MaybeDamage(Node& node);
  void StartSync(Node& node);
  void EndSync(Node& node);
  // Carries out what the node's cores and liveness want, and looks at everything.
  void Settle(Node& node);
  void TakeLivenessEffects(Node& node);
  void TakeGroupEffects(Node& node, int group);
  void ScheduleWake(Node& node);
  void Wake(Node& node);
  void SendGroup(int from, GroupMessage message);
  void AnswerForAbsent(const GroupMessage& message);
  void SendLiveness(int from, int to, LivenessMessage message);
  void Post(int from, int to, std::function<void()> deliver);

  void CheckChosen(Node& node, int group);
  void CheckAcknowledged(Node& node, int group);
  void CheckLeases(int group);
  void CheckReads(Node& node, int group);
  void CheckConfiguration(Node& node, int group);
  void Fail(const std::string& what);
  void FailStuck(const std::string& what);
  void Trace(const std::string& line, bool is_message = false) const;

  void StartFaults();
  void ProposeSometimes();
  void ReadSometimes();
  void CrashSometimes();
  void CutSometimes();
  void CheckpointSometimes();
  void FailMachinesSometimes();
  void HangDisksSometimes();
  void ChangeSometimes();
  void MakePlan(int group, Node& leader);
  void FollowPlan(int group, GroupTruth::Plan& plan);
  void DropWhatIsNotNeeded(int group);
  void EndSometime();
  void Heal();
  void CopyTreesToLaggards();
  void CheckProgress();
  void CheckRest();

  HarnessOptions options_;
  Random random_;
  int64_t now_ = 0;  // True time.
  uint64_t sequence_ = 0;
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> queue_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::vector<bool>> cut_;
  std::vector<GroupTruth> truth_;
  std::map<GroupCore::Event::Kind, int> events_;
  bool faulty_ = false;
  uint64_t payloads_ = 0;
  uint64_t group_messages_ = 0;
  uint64_t steps_ = 0;
  uint64_t reads_confirmed_ = 0;
  uint64_t rests_ = 0;
  std::string violation_;
  bool stuck_ = false;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_TESTS_REPLICATION_CORE_HARNESS_H_
