#include "examples/mini_cluster/healing_stage.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/node_location.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/report.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kPoll = std::chrono::milliseconds(20);
constexpr Duration kDeathLimit = std::chrono::seconds(30);
constexpr Duration kHealLimit = std::chrono::seconds(120);

class Healing {
 public:
  explicit Healing(Stage& stage) : stage_(stage) {}

  absl::Status Run() {
    DYNLIB_RETURN_IF_ERROR(ChooseVictim());
    Progress("node ", victim_, " loses its power and stays away");
    const size_t before = stage_.events.count();
    const Instant off = stage_.Now();
    stage_.cluster.PowerOff(victim_);
    DYNLIB_RETURN_IF_ERROR(Wait("the auto admin has not called the node dead", kDeathLimit, [&] {
      return stage_.events.FirstSince(before, "admin.node_dead", "node", Cat(victim_)).has_value();
    }));
    const Instant dead = *stage_.events.FirstSince(before, "admin.node_dead", "node", Cat(victim_));
    DYNLIB_RETURN_IF_ERROR(Wait("partitions still count on the dead node", kHealLimit,
                                [&] { return Behind(/*storage=*/false) == 0; }));
    const Instant covered = stage_.Now();
    const size_t rebuilt_by_then = lost_.size() - Behind(/*storage=*/true);
    DYNLIB_RETURN_IF_ERROR(Wait("replicas are not rebuilt", kHealLimit,
                                [&] { return Behind(/*storage=*/true) == 0; }));
    const Instant rebuilt = stage_.Now();
    Say("healing     node ", victim_, " (", Zone(victim_), ") lost its power and stayed away with ",
        lost_.size(), " replicas: declared dead after ", Seconds(dead - off));
    if (stage_.switches.log_replicas) {
      Say("            every committed slot on three disks again, with log replicas, ",
          Seconds(covered - dead), " after that",
          rebuilt_by_then > 0 ? Cat(" (", rebuilt_by_then, " had their tree by then)") : "");
    } else {
      Say("            without log replicas commits were on two disks for ", Seconds(covered - off),
          ", until the last tree was copied: the longer the larger trees are");
    }
    Say("            storage replicas rebuilt on ", Heirs(), " after ", Seconds(rebuilt - dead));
    return ComeBack();
  }

 private:
  absl::Status ChooseVictim() {
    const std::vector<NodeId>& catalogue = stage_.cluster.config().catalogue_nodes;
    std::map<NodeId, std::map<PartitionId, ReplicaId>> replicas;
    for (const ReplicaState& state : stage_.client().GetReplicas()) {
      if (!state.ended && !state.removed) replicas[state.node][state.partition] = state.replica;
    }
    for (auto& [node, held] : replicas) {
      if (std::find(catalogue.begin(), catalogue.end(), node) != catalogue.end()) continue;
      if (held.size() <= lost_.size()) continue;
      victim_ = node;
      lost_ = held;
    }
    if (lost_.empty()) return absl::UnavailableError("no node that could be lost has replicas");
    return absl::OkStatus();
  }

  template <typename Done>
  absl::Status Wait(const char* what, Duration limit, Done done) {
    const Instant start = stage_.Now();
    while (!done()) {
      if (stage_.Now() - start > limit)
        return absl::DeadlineExceededError(Cat(what, ", after ", Seconds(limit)));
      std::this_thread::sleep_for(kPoll);
    }
    return absl::OkStatus();
  }

  // Partitions that have not three members on other nodes; with `storage`, three whole replicas.
  size_t Behind(bool storage) {
    Client::States states = stage_.client().GetStates();
    size_t behind = 0;
    for (const auto& [partition, replica] : lost_) {
      const ReplicaState* leader = nullptr;
      for (const ReplicaState& state : states[partition]) {
        if (!state.leads || state.removed) continue;
        if (leader == nullptr || state.epoch > leader->epoch) leader = &state;
      }
      behind += leader == nullptr || !IsWhole(*leader, states[partition], storage);
    }
    return behind;
  }

  bool IsWhole(const ReplicaState& leader, const std::vector<ReplicaState>& states, bool storage) {
    size_t there = 0;
    for (const cluster::PartitionMember& member : leader.members) {
      if (member.node == victim_ || (storage && member.log)) return false;
      for (const ReplicaState& state : states) {
        if (state.replica != member.replica || state.copying || state.failed) continue;
        ++there;
        if (state.replica > lost_[state.partition]) heirs_.insert(state.node);
      }
    }
    return there == kReplicas;
  }

  const std::string& Zone(NodeId node) const {
    for (const cluster::NodeInfo& info : stage_.cluster.config().nodes) {
      if (info.id == node) return info.location.zone;
    }
    return stage_.cluster.config().nodes.front().location.zone;
  }

  // The nodes of the zone that have the replicas now.
  std::string Heirs() {
    std::string text;
    for (NodeId node : heirs_) {
      if (Zone(node) == Zone(victim_)) text += Cat(text.empty() ? "node " : " and ", node);
    }
    return text;
  }

  absl::Status ComeBack() {
    const Instant on = stage_.Now();
    DYNLIB_RETURN_IF_ERROR(stage_.cluster.Restart(victim_));
    DYNLIB_RETURN_IF_ERROR(Wait("the node keeps replicas that were replaced", kHealLimit, [&] {
      for (const ReplicaState& state : stage_.client().GetReplicas()) {
        const auto lost = lost_.find(state.partition);
        if (state.node == victim_ && lost != lost_.end() && lost->second == state.replica)
          return false;
      }
      return true;
    }));
    DYNLIB_RETURN_IF_ERROR(stage_.client().WaitUntilWhole(kRecordsTable, kHealLimit).status());
    Say("            node ", victim_, " came back and had let go of them after ",
        Seconds(stage_.Now() - on));
    return absl::OkStatus();
  }

  Stage& stage_;
  NodeId victim_{};
  std::map<PartitionId, ReplicaId> lost_;
  std::set<NodeId> heirs_;
};

}  // namespace

absl::Status ShowHealing(Stage& stage) {
  if (stage.cluster.config().nodes.size() < 6) {
    Say("healing     skipped: it needs two nodes a zone, --nodes=6 or more");
    return absl::OkStatus();
  }
  return Healing(stage).Run();
}

}  // namespace dynlib::mini_cluster
