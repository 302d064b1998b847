#include "tests/sim/cluster_events.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/service.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib {
namespace {

namespace wire = cluster::wire;

// More would leave nothing to split them by, with as few keys as there are.
constexpr size_t kPartitionsMax = 6;

void Ignore(absl::StatusOr<std::string>) {}

}  // namespace

std::map<std::string, LedPartition> LedPartitions(const ClusterView& view, uint64_t table) {
  std::map<std::string, LedPartition> leaders;
  for (const auto& [node, nodes_status] : view) {
    for (const wire::ReplicaStatus& status : nodes_status.replicas()) {
      if (status.table() != table || !status.leads() || status.ended() != 0) continue;
      const auto [it, fresh] = leaders.try_emplace(status.first(), LedPartition{node, status});
      if (!fresh && it->second.status.epoch() < status.epoch()) it->second = {node, status};
    }
  }
  return leaders;
}

void ClusterEvents::Start() {
  running_ = true;
  Repeat(shape_.splits_per_minute, [this] { Split(); });
  Repeat(shape_.merges_per_minute, [this] { Merge(); });
  Repeat(shape_.outages_per_minute, [this] { Outage(); });
}

void ClusterEvents::Repeat(double per_minute, const std::function<void()>& action) {
  if (per_minute <= 0) return;
  const int64_t mean_ns = static_cast<int64_t>(60e9 / per_minute);
  world_->After(Duration(random_->Between(0, 2 * mean_ns)), [this, per_minute, action] {
    if (!running_) return;
    action();
    Repeat(per_minute, action);
  });
}

void ClusterEvents::Split() {
  cluster_->Observe([this](const ClusterView& view) {
    const std::map<std::string, LedPartition> leaders = LedPartitions(view, table_);
    if (!running_ || leaders.empty() || leaders.size() >= kPartitionsMax) return;
    auto chosen = leaders.begin();
    std::advance(chosen, random_->Below(leaders.size()));
    SplitOne(chosen->second);
  });
}

// At the hash of a key in use, or anywhere.
void ClusterEvents::SplitOne(const LedPartition& leader) {
  const wire::ReplicaStatus& status = leader.status;
  auto draw = [&] {
    std::string at;
    for (int i = 0; i < 10; ++i) {
      const uint64_t hash = random_->Below(2) == 0
                                ? cluster::HashOfStorageKey(load_->AnyStorageKey())
                                : random_->Next();
      at = cluster::HashBoundary(hash);
      if (at > status.first() && (status.end().empty() || at < status.end())) break;
    }
    return at;
  };
  wire::SplitRequest request;
  request.set_partition(status.partition());
  request.set_left(ToUint(cluster::ChildOf(PartitionId{status.partition()}, /*right=*/false)));
  request.set_right(ToUint(cluster::ChildOf(PartitionId{status.partition()}, /*right=*/true)));
  request.set_at(draw());
  cluster_->Call(leader.node, cluster::kSplit, request.SerializeAsString(), Ignore);
  // Asked for again, and in another way.
  if (random_->Below(3) > 0) return;
  if (random_->Below(2) == 0) request.set_at(draw());
  world_->After(std::chrono::milliseconds(random_->Between(0, 300)),
                [this, node = leader.node, bytes = request.SerializeAsString()] {
                  if (running_) cluster_->Call(node, cluster::kSplit, bytes, Ignore);
                });
}

// Neighbours on the same nodes; at times only one half is asked, and the auto admin goes on.
void ClusterEvents::Merge() {
  cluster_->Observe([this](const ClusterView& view) {
    if (!running_) return;
    const std::map<std::string, LedPartition> leaders = LedPartitions(view, table_);
    std::vector<std::pair<const LedPartition*, const LedPartition*>> pairs;
    auto nodes = [](const LedPartition& partition) {
      std::set<uint64_t> nodes;
      for (const wire::Member& member : partition.status.members())
        if (member.kind() == wire::STORAGE) nodes.insert(member.node());
      return nodes;
    };
    const LedPartition* before = nullptr;
    for (const auto& [first, leader] : leaders) {
      if (before != nullptr && before->status.end() == first && nodes(*before) == nodes(leader))
        pairs.emplace_back(before, &leader);
      before = &leader;
    }
    if (pairs.empty()) return;
    const auto& [left, right] = pairs[random_->Below(pairs.size())];
    wire::MergeRequest request;
    request.set_left(left->status.partition());
    request.set_right(right->status.partition());
    request.set_merged(ToUint(cluster::MergedOf(PartitionId{left->status.partition()},
                                                PartitionId{right->status.partition()})));
    *request.mutable_members() = left->status.members();
    const uint64_t which = random_->Below(4);
    for (const LedPartition* half : {left, right}) {
      if (which == (half == left ? 0u : 1u)) continue;
      request.set_partition(half->status.partition());
      cluster_->Call(half->node, cluster::kMerge, request.SerializeAsString(), Ignore);
    }
  });
}

void ClusterEvents::Outage() {
  const std::vector<NodeId> nodes = cluster_->StorageNodes();
  // Some come back soon after they were replaced, some when all is over.
  cluster_->PowerOff(nodes[random_->Below(nodes.size())],
                     std::chrono::milliseconds(random_->Between(2'500, 12'000)));
}

}  // namespace dynlib
