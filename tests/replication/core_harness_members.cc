// Members that change: the administrators of the harness, and what is checked of configurations.
#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/entry.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {
namespace {

NodeId NodeIdOf(int node) { return NodeId{static_cast<uint64_t>(node) + 101}; }
int IndexOf(NodeId node) { return static_cast<int>(ToUint(node)) - 101; }

std::string Show(const std::vector<Member>& members) {
  std::string text;
  for (const Member& member : members) {
    text += Cat(" ", ToUint(member.replica), "@", IndexOf(member.node) + 1,
                member.kind == MemberKind::kLog ? "L" : "");
  }
  return text;
}

}  // namespace

const Configuration& CoreHarness::Newest(int group) const {
  return truth_[group].configurations.rbegin()->second;
}

// A proposer must know the configuration of exactly the slot after its chosen ones.
void CoreHarness::CheckConfiguration(Node& node, int group) {
  const GroupCore& core = *node.cores[group];
  const GroupTruth& truth = truth_[group];
  const auto expected = std::prev(truth.configurations.upper_bound(core.chosen()));
  if (core.configuration() != expected->second) {
    Fail(Cat("node ", node.index + 1, " knows ", core.chosen(), " to be chosen, and epoch ",
             core.configuration().epoch, "; in force is ", expected->first));
  }
  if (core.removed() && Newest(group).Find(core.self()) != nullptr) {
    Fail(Cat("node ", node.index + 1, " takes its replica for removed, but it is a member"));
  }
  if (truth.ended != 0 && core.chosen() >= truth.ended && core.ended() != truth.ended) {
    Fail(Cat("node ", node.index + 1, " does not know that the log ended at ", truth.ended));
  }
}

Member CoreHarness::MakeLearner(int index, MemberKind kind, int from, int group) {
  Node& node = *nodes_[index];
  const StoredGroup& source = nodes_[from]->stored[group];
  StoredGroup stored;
  stored.replica = ReplicaId{++truth_[group].replicas};
  stored.kind = kind;
  stored.learner = true;
  stored.applied = source.applied;
  stored.start = source.applied;
  stored.configuration = source.configuration;
  stored.ended = source.ended;
  node.stored[group] = stored;
  const Member member{stored.replica, NodeIdOf(index), kind};
  if (options_.trace) Trace(Cat("learner", Show({member}), " from ", stored.applied));
  if (node.up) {
    StartReplica(node, group);
    Settle(node);
  }
  return member;
}

absl::Status CoreHarness::AddLearner(int index, const Member& learner, int group) {
  Node& node = *nodes_[index];
  const Slot start = nodes_[IndexOf(learner.node)]->stored[group].start;
  const absl::Status status =
      Awake(node, group).AddLearner(learner, start, LocalTime(node, now_)).status();
  Settle(node);
  return status;
}

absl::Status CoreHarness::ProposeMembers(int index, const std::vector<Member>& members, int group) {
  Node& node = *nodes_[index];
  GroupCore& core = Awake(node, group);
  const uint64_t epoch = core.configuration().epoch;
  const absl::StatusOr<Slot> slot = core.ProposeMembers(epoch, members, LocalTime(node, now_));
  if (slot.ok()) {
    if (options_.trace) {
      Trace(Cat("propose at ", index + 1, " slot ", *slot, " members", Show(members)));
    }
    GroupTruth& truth = truth_[group];
    truth.proposed.insert(EncodeChange(epoch, members));
    for (const Member& member : members) {
      uint64_t& under = truth.proposed_under[member.replica];
      under = std::max(under, epoch);
    }
    Settle(node);
  }
  return slot.status();
}

absl::Status CoreHarness::ProposeEnd(int index, int group) {
  Node& node = *nodes_[index];
  const std::string text(Cat(std::string(1, static_cast<char>(EntryKind::kEnd)), ++payloads_));
  const absl::StatusOr<Slot> slot =
      Awake(node, group)
          .ProposeEnd(std::make_shared<const std::string>(text), LocalTime(node, now_));
  if (slot.ok()) {
    truth_[group].proposed.insert(text);
    if (options_.trace) Trace(Cat("propose at ", index + 1, " slot ", *slot, " the end"));
    Settle(node);
  }
  return slot.status();
}

void CoreHarness::TransferLeadership(int index, int group) {
  Node& node = *nodes_[index];
  Awake(node, group).TransferLeadership(LocalTime(node, now_));
  Settle(node);
}

void CoreHarness::Drop(int index, int group) {
  Node& node = *nodes_[index];
  if (node.stored[group].replica == ReplicaId{}) return;
  if (options_.trace) {
    Trace(Cat("drop ", ToUint(node.stored[group].replica), " at ", index + 1));
  }
  if (node.up) node.cores[group] = nullptr;
  // Nothing of it reaches the disk of a later one.
  for (Batch& batch : node.pending) {
    if (batch.group == group) batch.dropped = true;
  }
  node.stored[group] = {};
}

// ---- Administrators ----

void CoreHarness::ChangeSometimes() {
  After(options_.change_mean, [this] {
    if (!faulty_) return;
    const int group = static_cast<int>(random_.Below(options_.groups));
    GroupTruth& truth = truth_[group];
    std::vector<Node*> leaders;
    for (auto& node : nodes_) {
      const bool leads =
          node->up && node->cores[group] != nullptr && node->cores[group]->role() == Role::kLeader;
      if (leads) leaders.push_back(node.get());
    }
    if (!leaders.empty() && truth.plans.size() < 2) {
      MakePlan(group, *leaders[random_.Below(leaders.size())]);
    }
    for (size_t i = 0; i < truth.plans.size(); ++i) FollowPlan(group, truth.plans[i]);
    std::erase_if(truth.plans, [](const GroupTruth::Plan& plan) { return plan.patience <= 0; });
    DropWhatIsNotNeeded(group);
    if (random_.Chance(0.1) && !leaders.empty() && leaders[0]->cores[group] != nullptr) {
      TransferLeadership(leaders[0]->index, group);
    }
    ChangeSometimes();
  });
}

void CoreHarness::MakePlan(int group, Node& leader) {
  const std::vector<Member>& members = leader.cores[group]->configuration().members;
  GroupTruth::Plan plan{.patience = 1 + static_cast<int>(random_.Below(12))};
  const uint64_t kind = random_.Below(4);  // Swap, swap, add, remove.
  if (kind != 2) plan.removed = members[random_.Below(members.size())];
  if (kind == 2 && members.size() >= options_.members_max) return;
  if (kind == 3) {
    if (members.size() <= options_.members_min) return;
    truth_[group].plans.push_back(plan);
    return;
  }
  std::vector<int> free;
  for (auto& node : nodes_) {
    if (node->stored[group].replica == ReplicaId{}) free.push_back(node->index);
  }
  // The storage replica with the oldest durable tree is a start for every kind.
  int source = -1;
  for (const Member& member : members) {
    const int index = IndexOf(member.node);
    const StoredGroup& stored = nodes_[index]->stored[group];
    if (stored.replica != member.replica || member.kind == MemberKind::kLog) continue;
    if (source < 0 || stored.applied < nodes_[source]->stored[group].applied) source = index;
  }
  if (free.empty() || source < 0) return;
  const bool log = plan.removed.kind == MemberKind::kStorage && random_.Chance(0.5);
  plan.node = free[random_.Below(free.size())];
  plan.added = MakeLearner(plan.node, log ? MemberKind::kLog : MemberKind::kStorage, source, group);
  truth_[group].plans.push_back(plan);
}

// Asks whoever takes itself for the leader.
void CoreHarness::FollowPlan(int group, GroupTruth::Plan& plan) {
  --plan.patience;
  const bool adds = plan.added.replica != ReplicaId{};
  const bool removes = plan.removed.replica != ReplicaId{};
  for (auto& node : nodes_) {
    const bool leads =
        node->up && node->cores[group] != nullptr && node->cores[group]->role() == Role::kLeader;
    if (!leads) continue;
    std::vector<Member> members = node->cores[group]->configuration().members;
    const bool added = std::find(members.begin(), members.end(), plan.added) != members.end();
    if (adds && added) {
      plan.patience = 0;
      return;
    }
    if (adds) AddLearner(node->index, plan.added, group).IgnoreError();
    if (!adds && members.size() <= options_.members_min) return;
    if (removes) std::erase(members, plan.removed);
    if (adds) members.insert(members.begin() + random_.Below(members.size() + 1), plan.added);
    const auto logs = std::count_if(members.begin(), members.end(), [](const Member& member) {
      return member.kind == MemberKind::kLog;
    });
    // With a node down for good, somebody must be left who can lead.
    if (options_.leave_one_down && logs > 1) continue;
    ProposeMembers(node->index, members, group).IgnoreError();
  }
}

// By the rules of GroupHost: a member that left when its replica was told so, or when a leader of
// the newest configuration is settled; one that never was a member when it cannot become one.
void CoreHarness::DropWhatIsNotNeeded(int group) {
  GroupTruth& truth = truth_[group];
  const Configuration& newest = Newest(group);
  const bool settled = std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& node) {
    return node->up && node->cores[group] != nullptr && node->cores[group]->Settled() &&
           node->cores[group]->configuration().epoch == newest.epoch;
  });
  for (auto& node : nodes_) {
    const StoredGroup& stored = node->stored[group];
    if (stored.replica == ReplicaId{} || newest.Find(stored.replica) != nullptr) continue;
    const bool planned = std::any_of(
        truth.plans.begin(), truth.plans.end(),
        [&](const GroupTruth::Plan& plan) { return plan.added.replica == stored.replica; });
    if (planned || random_.Chance(0.5)) continue;
    const bool was_member =
        std::any_of(truth.configurations.begin(), truth.configurations.end(),
                    [&](const auto& c) { return c.second.Find(stored.replica) != nullptr; });
    auto under = truth.proposed_under.find(stored.replica);
    const bool told = node->up && node->cores[group]->removed();
    if (was_member ? told || settled
                   : under == truth.proposed_under.end() || under->second < newest.epoch) {
      Drop(node->index, group);
    }
  }
}

void CoreHarness::EndSometime() {
  At(now_ + random_.Between(0, options_.fault_phase.count()), [this] {
    if (!faulty_) return;
    for (int group = 0; group < options_.groups; ++group) {
      for (auto& node : nodes_) {
        const bool leads = node->up && node->cores[group] != nullptr &&
                           node->cores[group]->role() == Role::kLeader;
        if (leads) ProposeEnd(node->index, group).IgnoreError();
      }
    }
  });
}

}  // namespace dynlib::replication
