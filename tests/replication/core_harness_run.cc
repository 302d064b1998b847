// The checkers of the harness, its faults, and what it demands after them.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/replication/entry.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {

void CoreHarness::Trace(const std::string& line, bool is_message) const {
  if (options_.on_trace) return options_.on_trace(is_message, line);
  std::fprintf(stderr, "%11.3f %s\n", static_cast<double>(now_) / 1e6, line.c_str());
}

void CoreHarness::FailStuck(const std::string& what) {
  if (violation_.empty()) stuck_ = true;
  Fail(what);
}

void CoreHarness::Fail(const std::string& what) {
  if (!violation_.empty()) return;
  violation_ = Cat("seed ", options_.seed, ", ", now_ / 1'000, " us: ", what);
  if (options_.trace) Trace("VIOLATION " + violation_);
}

// ---- Safety, after each step ----

void CoreHarness::CheckChosen(Node& node, int group) {
  const GroupCore& core = *node.cores[group];
  GroupTruth& truth = truth_[group];
  Slot& checked = node.checked[group];
  checked = std::max(checked, core.released());
  while (checked < core.chosen()) {
    const Slot slot = ++checked;
    const std::string value(*core.ChosenEntry(slot));
    auto [it, first] = truth.chosen.try_emplace(slot, value);
    if (it->second != value) {
      Fail(Cat("agreement: slot ", slot, " is ", it->second, " and, at node ", node.index + 1, ", ",
               value.empty() ? "no-op" : value));
    }
    if (first && KindOf(value) == EntryKind::kEnd && truth.ended == 0) truth.ended = slot;
    if (first && truth.ended != 0 && slot > truth.ended) {
      Fail(Cat("slot ", slot, " is chosen, but the log ended at ", truth.ended));
    }
    if (first) {
      const Configuration& present = truth.configurations.rbegin()->second;
      if (std::optional<Configuration> next = Successor(value, slot, present)) {
        truth.configurations[slot] = *std::move(next);
      }
    }
    if (first && !value.empty() && !truth.proposed.contains(value)) {
      Fail(Cat("slot ", slot, " chosen as ", value, ", which nobody proposed"));
    }
  }
}

void CoreHarness::CheckAcknowledged(Node& node, int group) {
  const GroupCore& core = *node.cores[group];
  GroupTruth& truth = truth_[group];
  std::erase_if(truth.waiting, [&](const GroupTruth::Waiting& waiting) {
    if (waiting.node != node.index) return false;
    const bool leads = waiting.boot == node.boots && core.role() == Role::kLeader &&
                       core.promised() == waiting.ballot;
    if (!leads) return true;  // Its outcome is unknown to the proposer.
    if (core.chosen() < waiting.slot) return false;
    truth.acknowledged[waiting.slot] = waiting.payload;
    if (truth.chosen[waiting.slot] != waiting.payload) {
      Fail(Cat("slot ", waiting.slot, " acknowledged as ", waiting.payload, " but chosen as ",
               truth.chosen[waiting.slot]));
    }
    return true;
  });
}

// What R7 needs: a holder is alone, and knows all that anybody may have been told is chosen.
void CoreHarness::CheckLeases(int group) {
  int holder = -1;
  for (const auto& node : nodes_) {
    if (!node->up || node->cores[group] == nullptr) continue;
    if (!node->cores[group]->HoldsLease(LocalTime(*node, now_))) continue;
    if (holder >= 0)
      Fail(Cat("nodes ", holder + 1, " and ", node->index + 1, " both hold the lease"));
    holder = node->index;
    const GroupTruth& truth = truth_[group];
    const Slot newest = truth.chosen.empty() ? 0 : truth.chosen.rbegin()->first;
    if (node->cores[group]->read_point() < newest) {
      Fail(Cat("node ", holder + 1, " holds the lease and reads at ",
               node->cores[group]->read_point(), ", but ", newest, " is chosen"));
    }
  }
}

// R7 without a lease: when the round is confirmed, the read point covers all that anybody may have
// been told before the read arrived.
void CoreHarness::CheckReads(Node& node, int group) {
  const GroupCore& core = *node.cores[group];
  std::erase_if(truth_[group].reading, [&](const GroupTruth::Reading& read) {
    if (read.node != node.index) return false;
    if (read.boot != node.boots || core.promised() != read.ballot) return true;
    if (!core.Confirmed(read.round)) return false;
    ++reads_confirmed_;
    if (core.read_point() < read.newest) {
      Fail(Cat("node ", node.index + 1, " reads at ", core.read_point(),
               " by the word of a quorum, but ", read.newest, " was chosen before"));
    }
    return true;
  });
}

// ---- Faults ----

void CoreHarness::StartFaults() {
  faulty_ = true;
  ProposeSometimes();
  if (options_.read_mean > Duration(0)) ReadSometimes();
  if (options_.crash_mean > Duration(0)) CrashSometimes();
  if (options_.cut_mean > Duration(0)) CutSometimes();
  if (options_.checkpoint_mean > Duration(0)) CheckpointSometimes();
  if (options_.may_lead_mean > Duration(0)) FailMachinesSometimes();
  if (options_.hang_mean > Duration(0)) HangDisksSometimes();
  if (options_.change_mean > Duration(0)) ChangeSometimes();
  if (random_.Chance(options_.end)) EndSometime();
}

void CoreHarness::ProposeSometimes() {
  After(options_.proposal_mean, [this] {
    if (!faulty_) return;
    const int group = static_cast<int>(random_.Below(options_.groups));
    for (auto& node : nodes_) {
      if (!node->up || node->cores[group] == nullptr) continue;
      if (node->cores[group]->role() == Role::kLeader) Propose(node->index, group);
    }
    ProposeSometimes();
  });
}

void CoreHarness::ReadSometimes() {
  After(options_.read_mean, [this] {
    if (!faulty_) return;
    const int group = static_cast<int>(random_.Below(options_.groups));
    for (auto& node : nodes_) {
      if (!node->up || node->cores[group] == nullptr) continue;
      if (node->cores[group]->role() == Role::kLeader) ReadByQuorum(node->index, group);
    }
    ReadSometimes();
  });
}

void CoreHarness::CrashSometimes() {
  After(options_.crash_mean, [this] {
    if (!faulty_) return;
    const bool all = random_.Chance(0.1);
    const int victim = static_cast<int>(random_.Below(options_.nodes));
    const bool quick = random_.Chance(0.5);
    for (int index = 0; index < options_.nodes; ++index) {
      if (!all && index != victim) continue;
      Crash(index);
      const int64_t most = quick ? 50'000'000 : options_.downtime_max.count();
      At(now_ + random_.Between(1'000'000, most), [this, index] {
        if (faulty_) Restart(index);
      });
    }
    CrashSometimes();
  });
}

void CoreHarness::CutSometimes() {
  After(options_.cut_mean, [this] {
    if (!faulty_) return;
    const int a = static_cast<int>(random_.Below(options_.nodes));
    const int b = static_cast<int>(random_.Below(options_.nodes));
    std::vector<std::pair<int, int>> links;
    switch (random_.Below(4)) {
      case 0:  // One link, one way.
        links = {{a, b}};
        break;
      case 1:  // One link.
        links = {{a, b}, {b, a}};
        break;
      default:  // A node from the others; it does not hear, or is not heard, or both.
        const bool in = random_.Chance(0.8);
        const bool out = !in || random_.Chance(0.8);
        for (int other = 0; other < options_.nodes; ++other) {
          if (in) links.push_back({other, a});
          if (out) links.push_back({a, other});
        }
    }
    for (auto [from, to] : links) cut_[from][to] = true;
    if (options_.trace)
      Trace(Cat("cut ", links[0].first + 1, "->", links[0].second + 1, ", ", links.size()));
    At(now_ + random_.Between(0, options_.cut_max.count()), [this, links] {
      for (auto [from, to] : links) cut_[from][to] = false;
      if (options_.trace) Trace(Cat("join ", links[0].first + 1, "->", links[0].second + 1));
    });
    CutSometimes();
  });
}

void CoreHarness::CheckpointSometimes() {
  After(options_.checkpoint_mean, [this] {
    if (!faulty_) return;
    const int index = static_cast<int>(random_.Below(options_.nodes));
    const int group = static_cast<int>(random_.Below(options_.groups));
    if (nodes_[index]->up && nodes_[index]->cores[group] != nullptr) {
      const GroupCore& core = *nodes_[index]->cores[group];
      const Slot chosen = core.kind() == MemberKind::kLog
                              ? std::min(core.chosen(), core.held_by_storage())
                              : core.chosen();
      const Slot old = nodes_[index]->stored[group].applied;
      if (options_.rest && chosen > 0) {
        Checkpoint(index, std::max(old, chosen), group);
      } else if (chosen > old) {
        Checkpoint(index, old + 1 + random_.Below(chosen - old), group);
      }
    }
    CheckpointSometimes();
  });
}

void CoreHarness::FailMachinesSometimes() {
  After(options_.may_lead_mean, [this] {
    if (!faulty_) return;
    SetMayLead(static_cast<int>(random_.Below(options_.nodes)), random_.Chance(0.5),
               static_cast<int>(random_.Below(options_.groups)));
    FailMachinesSometimes();
  });
}

void CoreHarness::HangDisksSometimes() {
  After(options_.hang_mean, [this] {
    if (!faulty_) return;
    const int index = static_cast<int>(random_.Below(options_.nodes));
    const bool noticed = random_.Chance(0.5);  // By the driver, which tells liveness (R8).
    HangDisk(index, true, noticed);
    At(now_ + random_.Between(0, options_.hang_max.count()),
       [this, index] { HangDisk(index, false); });
    HangDisksSometimes();
  });
}

// ---- After the faults ----

void CoreHarness::Heal() {
  faulty_ = false;
  HealLinks();
  int down = -1;
  if (options_.leave_one_down) {
    // Not the last that could lead.
    const std::vector<Member>& members = Newest().members;
    auto log = std::find_if(members.begin(), members.end(),
                            [](const Member& member) { return member.kind == MemberKind::kLog; });
    const Member& victim = log == members.end() ? members.back() : *log;
    down = static_cast<int>(ToUint(victim.node)) - 101;
    Crash(down);
  }
  for (auto& node : nodes_) {
    if (node->index == down) continue;
    Restart(node->index);
    HangDisk(node->index, false);
    for (int group = 0; group < options_.groups; ++group) SetMayLead(node->index, true, group);
  }
}

// A member whose missing log is gone everywhere is healed by a copy of another's tree. (A log
// replica would be replaced; to copy the position is as much.)
void CoreHarness::CopyTreesToLaggards() {
  for (auto& node : nodes_) {
    for (int group = 0; group < options_.groups; ++group) {
      if (!node->up || node->cores[group] == nullptr) continue;
      const Slot chosen = node->cores[group]->chosen();
      const StoredGroup* newest = nullptr;
      bool lags = false;
      for (auto& other : nodes_) {
        if (!other->up || other == node || other->cores[group] == nullptr) continue;
        const GroupCore& holder = *other->cores[group];
        lags |= (holder.role() == Role::kLeader || !holder.member()) && holder.released() > chosen;
        const StoredGroup& stored = other->stored[group];
        if (newest == nullptr || stored.applied > newest->applied) newest = &stored;
      }
      if (!lags) continue;
      Crash(node->index);
      StoredGroup& stored = node->stored[group];
      if (newest->applied > stored.applied) {
        stored.applied = newest->applied;
        stored.configuration = newest->configuration;
        stored.ended = newest->ended;
        // What lies below may never have been chosen.
        stored.slots.erase(stored.slots.begin(), stored.slots.upper_bound(stored.applied));
        stored.damaged.erase(stored.damaged.begin(), stored.damaged.upper_bound(stored.applied));
      }
      Restart(node->index);
    }
  }
}

void CoreHarness::CheckProgress() {
  for (GroupTruth& truth : truth_) truth.acknowledged_before_healing = truth.acknowledged;
  const int64_t until = now_ + options_.heal_bound.count();
  auto done = [&] {
    for (int group = 0; group < options_.groups; ++group) {
      const GroupTruth& truth = truth_[group];
      const bool lacks_lease = options_.leases_expected && LeaseHolder(group) < 0;
      if (truth.ended != 0) {
        if (!ChosenEverywhere(truth.ended, group) || lacks_lease) return false;
        continue;
      }
      if (truth.acknowledged.size() == truth.acknowledged_before_healing.size()) return false;
      if (!ChosenEverywhere(truth.acknowledged.rbegin()->first, group)) return false;
      if (lacks_lease) return false;
    }
    return true;
  };
  while (!done() && now_ < until && violation_.empty()) {
    for (int group = 0; group < options_.groups; ++group) {
      for (auto& node : nodes_) {
        if (!node->up || node->cores[group] == nullptr) continue;
        if (node->cores[group]->role() != Role::kLeader) continue;
        Propose(node->index, group);
        Awake(*node, group).RenewLease(LocalTime(*node, now_));
        Settle(*node);
      }
    }
    CopyTreesToLaggards();
    RunUntil(done, std::chrono::milliseconds(700));
  }
  if (!done()) {
    std::string roles;
    for (auto& node : nodes_) {
      for (auto& core : node->cores) {
        if (core == nullptr) continue;
        roles += Cat(" ", node->index + 1, ":", ToUint(core->self()),
                     core->member() ? "" : "(not a member)", " epoch ", core->configuration().epoch,
                     " ", std::string(RoleName(core->role())), ",chosen ", core->chosen(), ",last ",
                     core->last_slot(), ",deadline ",
                     core->next_deadline() == Instant::Infinite() ? "infinite" : "set");
      }
      for (auto& other : nodes_) {
        const NodeId id{static_cast<uint64_t>(other->index) + 101};
        if (node->up && other != node) {
          const Instant now = LocalTime(*node, now_);
          roles += Cat(" [to ", other->index + 1, node->liveness->Supports(id, now) ? " +" : " -",
                       " epoch ", node->liveness->EpochFor(id),
                       node->liveness->SupportedBy(id, now) ? " by+" : " by-", "]");
        }
      }
    }
    FailStuck("no progress after healing:" + roles);
  }
  for (int group = 0; group < options_.groups; ++group) {
    for (const auto& [slot, payload] : truth_[group].acknowledged) {
      if (truth_[group].chosen[slot] != payload) Fail(Cat("acknowledged slot ", slot, " lost"));
    }
  }
}

void CoreHarness::CheckRest() {
  // Those that are no members may ask for ever for some that are no more.
  RunFor(std::chrono::seconds(2));
  for (int group = 0; group < options_.groups; ++group) {
    for (auto& node : nodes_) {
      const Member* member =
          Newest(group).FindNode(NodeId{static_cast<uint64_t>(node->index) + 101});
      const ReplicaId replica = node->stored[group].replica;
      const auto under = truth_[group].proposed_under.find(replica);
      const bool may_join =
          under != truth_[group].proposed_under.end() && under->second >= Newest(group).epoch;
      if ((member == nullptr || member->replica != replica) && !may_join) {
        Drop(node->index, group);
      }
    }
  }
  // Late messages of the fault phase, and word to a peer that was down and needs a tree copy.
  RunFor(std::chrono::seconds(options_.change_mean > Duration(0) ? 14 : 6) + options_.slow_max);
  const uint64_t sent = group_messages_;
  RunFor(std::chrono::seconds(2));
  if (group_messages_ != sent) {
    FailStuck(Cat("idle groups sent ", group_messages_ - sent, " messages in two seconds"));
  }
  for (int group = 0; group < options_.groups; ++group) {
    if (!AtRest(group)) FailStuck(Cat("idle group ", group + 1, " has a deadline"));
  }
}

std::string CoreHarness::Run() {
  StartFaults();
  RunFor(options_.fault_phase);
  if (violation_.empty()) {
    Heal();
    CheckProgress();
  }
  if (violation_.empty()) CheckRest();
  return violation_;
}

}  // namespace dynlib::replication
