#include "tests/sim/cluster_checks.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/rpc.h"
#include "tests/sim/cluster_events.h"

namespace dynlib {
namespace {

namespace wire = cluster::wire;

constexpr int kMembers = 3;

std::optional<ClusterView> Observe(SimulatedCluster& cluster, sim::World& world) {
  auto seen = std::make_shared<std::optional<ClusterView>>();
  cluster.Observe([seen](ClusterView view) { *seen = std::move(view); });
  world.RunUntil([&] { return seen->has_value(); }, std::chrono::seconds(5));
  return std::move(*seen);
}

const wire::ReplicaStatus* FindReplica(const ClusterView& view, uint64_t node, uint64_t partition) {
  const auto it = view.find(NodeId{node});
  if (it == view.end()) return nullptr;
  for (const wire::ReplicaStatus& status : it->second.replicas()) {
    if (status.partition() == partition) return &status;
  }
  return nullptr;
}

// Whether what was on a dead node has a place elsewhere.
bool CanBeReplaced(const SimulatedCluster& cluster, NodeId dead) {
  for (NodeId node : cluster.StorageNodes()) {
    if (node != dead && !cluster.IsDead(node) && cluster.ZoneOf(node) == cluster.ZoneOf(dead))
      return true;
  }
  return false;
}

std::string CheckGroup(const SimulatedCluster& cluster, const ClusterView& view,
                       const wire::ReplicaStatus& leader) {
  const std::string name = Cat("partition ", leader.partition());
  if (leader.members_size() != kMembers) return Cat(name, " has not all members");
  for (const wire::Member& member : leader.members()) {
    if (cluster.IsDead(NodeId{member.node()})) {
      if (CanBeReplaced(cluster, NodeId{member.node()}))
        return Cat(name, ": its replica on dead node ", member.node(), " was not replaced");
      continue;
    }
    if (member.kind() != wire::STORAGE)
      return Cat(name, " has a log replica still, on node ", member.node());
    const wire::ReplicaStatus* status = FindReplica(view, member.node(), leader.partition());
    if (status == nullptr || status->replica() != member.replica())
      return Cat(name, ": replica ", member.replica(), " is not on node ", member.node());
    if (status->failed()) return Cat(name, ": its replica on node ", member.node(), " failed");
    if (status->copying() || status->removed() || status->applied() != leader.chosen() ||
        status->chosen() != leader.chosen() || leader.applied() != leader.chosen() ||
        status->epoch() != leader.epoch()) {
      return Cat(name, ": its replica on node ", member.node(), " is not in step");
    }
  }
  return "";
}

std::string CheckView(const SimulatedCluster& cluster, const ClusterView& view, uint64_t table) {
  for (NodeId node : cluster.StorageNodes()) {
    if (!cluster.IsDead(node) && !view.contains(node)) return Cat("node ", node, " is silent");
  }
  const std::map<std::string, LedPartition> leaders = LedPartitions(view, table);
  std::string reached;
  std::set<std::pair<uint64_t, uint64_t>> wanted;  // partition, replica
  for (const auto& [first, leader] : leaders) {
    if (first != reached || (!wanted.empty() && reached.empty()))
      return Cat("who leads from ", Escape(reached), " on is not known; the next is from ",
                 Escape(first));
    reached = leader.status.end();
    if (std::string why = CheckGroup(cluster, view, leader.status); !why.empty()) return why;
    for (const wire::Member& member : leader.status.members())
      wanted.emplace(leader.status.partition(), member.replica());
  }
  if (leaders.empty() || !reached.empty()) return Cat("nobody leads from ", Escape(reached), " on");
  // A member for which there is no other place may yet come back for the end of its log.
  bool waits = false;
  for (NodeId node : cluster.StorageNodes())
    waits = waits || (cluster.IsDead(node) && !CanBeReplaced(cluster, node));
  for (const auto& [node, nodes_status] : view) {
    for (const wire::ReplicaStatus& status : nodes_status.replicas()) {
      if (status.table() != table || wanted.contains({status.partition(), status.replica()}))
        continue;
      if (waits && status.ended() != 0) continue;
      return Cat("replica ", status.replica(), " of partition ", status.partition(),
                 " is left over on node ", node);
    }
  }
  for (NodeId node : cluster.config().catalogue_nodes) {
    const wire::ReplicaStatus* status =
        FindReplica(view, ToUint(node), ToUint(cluster::kCataloguePartition));
    if (!cluster.IsDead(node) && (status == nullptr || status->failed() || status->copying()))
      return Cat("the catalogue's replica on node ", node, " failed, or is still copied");
  }
  return "";
}

std::string CheckCatalogue(ClusterLoad& load, const ClusterView& view, uint64_t table) {
  const std::optional<cluster::TableInfo> info = load.Table();
  if (!info.has_value()) return "the catalogue could not be read";
  const std::map<std::string, LedPartition> leaders = LedPartitions(view, table);
  if (info->partitions.size() != leaders.size()) return "the catalogue has not these partitions";
  for (const cluster::PartitionInfo& partition : info->partitions) {
    const auto leader = leaders.find(partition.first);
    if (leader == leaders.end() || leader->second.status.partition() != ToUint(partition.id) ||
        leader->second.status.end() != partition.end) {
      return Cat("the catalogue has partition ", partition.id, ", which is not led");
    }
    for (int i = 0; i < leader->second.status.members_size(); ++i) {
      const wire::Member& member = leader->second.status.members(i);
      if (i >= static_cast<int>(partition.members.size()) ||
          ToUint(partition.members[i].node) != member.node() ||
          ToUint(partition.members[i].replica) != member.replica()) {
        return Cat("the catalogue has not the members of partition ", partition.id);
      }
    }
  }
  return "";
}

// Calls from outside, one at a time; nothing if there was no answer.
template <typename Reply>
std::optional<Reply> Call(SimulatedCluster& cluster, sim::World& world, NodeId node,
                          Rpc::Method method, const std::string& request) {
  auto answer = std::make_shared<std::optional<absl::StatusOr<std::string>>>();
  cluster.Call(node, method, request,
               [answer](absl::StatusOr<std::string> bytes) { *answer = std::move(bytes); });
  world.RunUntil([&] { return answer->has_value(); }, std::chrono::seconds(5));
  Reply reply;
  if (!answer->has_value() || !(*answer)->ok() || !reply.ParseFromString(***answer))
    return std::nullopt;
  return reply;
}

// Every metadata node knows who leads each partition, and all have the same map.
std::string CheckMetadata(SimulatedCluster& cluster, sim::World& world, const ClusterView& view,
                          uint64_t table) {
  std::optional<std::string> digest;
  for (NodeId node : cluster.config().metadata_nodes) {
    const auto status = Call<wire::MetadataStatusReply>(cluster, world, node,
                                                        cluster::kMetadataStatus, std::string());
    if (!status.has_value()) return Cat("metadata node ", node, " is silent");
    if (digest.value_or(status->digest()) != status->digest())
      return Cat("metadata node ", node, " is not in step with the others");
    digest = status->digest();
    for (const auto& [first, leader] : LedPartitions(view, table)) {
      wire::LookUpRequest request;
      request.set_table(table);
      request.set_key(first);
      const auto reply = Call<wire::LookUpReply>(cluster, world, node, cluster::kLookUp,
                                                 request.SerializeAsString());
      const std::string what = Cat("metadata node ", node, " does not know who leads partition ",
                                   leader.status.partition());
      if (!reply.has_value() || reply->outcome().code() != 0) return what;
      const auto record = partition_map::DecodePartitionRecord(reply->record());
      if (!record.ok() || ToUint(record->partition) != leader.status.partition() ||
          record->epoch != leader.status.epoch() || record->leader != leader.node) {
        return what;
      }
    }
  }
  return "";
}

constexpr char kNotHere[] = "another node scrubs";

// Empty: all partitions of the table were compared to the end, and nothing differs any more.
std::string ScrubAll(SimulatedCluster& cluster, sim::World& world, NodeId node, uint64_t table) {
  const std::optional<ClusterView> view = Observe(cluster, world);
  if (!view.has_value()) return "the nodes did not answer";
  std::set<uint64_t> wanted;
  for (const auto& [first, leader] : LedPartitions(*view, table))
    wanted.insert(leader.status.partition());
  const auto reply = Call<wire::ScrubNowReply>(cluster, world, node, cluster::kScrubNow,
                                               wire::ScrubNowRequest().SerializeAsString());
  if (!reply.has_value()) return Cat("node ", node, " did not scrub");
  if (reply->outcome().code() == static_cast<int>(absl::StatusCode::kFailedPrecondition))
    return kNotHere;
  if (reply->outcome().code() != 0) return reply->outcome().message();
  for (const wire::ScrubNowReply::Report& report : reply->reports()) {
    if (!wanted.contains(report.partition())) continue;
    const std::string name = Cat("partition ", report.partition());
    if (report.outcome().code() != 0) return Cat(name, ": ", report.outcome().message());
    if (report.unrepaired() > 0 || report.vanished() > 0) return Cat(name, " has differences left");
    wanted.erase(report.partition());
  }
  return wanted.empty() ? "" : Cat("partition ", *wanted.begin(), " was not scrubbed");
}

}  // namespace

std::string CheckWhole(SimulatedCluster& cluster, ClusterLoad& load, sim::World& world,
                       uint64_t table, Duration limit) {
  const Instant deadline = world.Now() + limit;
  for (;;) {
    std::string why = "the nodes did not answer";
    if (std::optional<ClusterView> view = Observe(cluster, world); view.has_value()) {
      why = CheckView(cluster, *view, table);
      if (why.empty()) why = CheckCatalogue(load, *view, table);
      if (why.empty()) why = CheckMetadata(cluster, world, *view, table);
    }
    if (why.empty()) return "";
    if (world.Now() >= deadline)
      return Cat("not whole ", ToMicros(limit) / 1'000'000, " s after healing: ", why,
                 DescribePartitions(cluster, world, table));
    world.RunFor(std::chrono::milliseconds(100));
  }
}

std::string DescribePartitions(SimulatedCluster& cluster, sim::World& world, uint64_t table) {
  std::set<std::string> lines;
  const ClusterView view = Observe(cluster, world).value_or(ClusterView());
  for (const auto& [node, nodes_status] : view) {
    for (const wire::ReplicaStatus& status : nodes_status.replicas()) {
      if (status.table() != table) continue;
      std::string line = Cat("\npartition ", status.partition(), " generation ",
                             status.generation(), " from ", Escape(status.first()), " to ",
                             Escape(status.end()), status.ended() != 0 ? " ended, now" : "");
      for (uint64_t successor : status.successors()) line += Cat(" ", successor);
      lines.insert(std::move(line));
    }
  }
  std::string text;
  for (const std::string& line : lines) text += line;
  return text + cluster.Describe();
}

std::string CheckEqual(SimulatedCluster& cluster, sim::World& world, uint64_t table) {
  const std::optional<ClusterView> view = Observe(cluster, world);
  if (!view.has_value()) return "the nodes did not answer";
  struct Found {
    int pending = 0;
    // By partition and content, where it is so.
    std::map<uint64_t, std::map<std::string, std::vector<NodeId>>> contents;
  };
  auto found = std::make_shared<Found>();
  for (const auto& [node, nodes_status] : *view) {
    for (const wire::ReplicaStatus& status : nodes_status.replicas()) {
      if (status.table() != table || status.ended() != 0 || status.failed()) continue;
      ++found->pending;
      wire::QueryRequest request;
      request.set_partition(status.partition());
      request.set_first(status.first());
      request.set_end(status.end());
      cluster.Call(
          node, cluster::kQuery, request.SerializeAsString(),
          [found, node = node, partition = status.partition()](absl::StatusOr<std::string> answer) {
            wire::QueryReply reply;
            std::string rows = "no answer";
            if (answer.ok() && reply.ParseFromString(*answer)) {
              rows = reply.outcome().code() == 0 ? "" : Cat("error: ", reply.outcome().message());
              for (const wire::QueryReply::Row& row : reply.rows())
                rows += Cat(Escape(row.key()), "=", Escape(row.item(), 200), "\n");
            }
            found->contents[partition][rows].push_back(node);
            --found->pending;
          });
    }
  }
  world.RunUntil([&] { return found->pending == 0; }, std::chrono::seconds(20));
  for (const auto& [partition, variants] : found->contents) {
    if (variants.size() == 1) continue;
    std::string why = Cat("replicas of partition ", partition, " differ:");
    for (const auto& [rows, nodes] : variants)
      why += Cat("\nnode ", nodes.front(), " and ", nodes.size() - 1, " more:\n", rows);
    return why;
  }
  return "";
}

std::string CheckScrubbed(SimulatedCluster& cluster, sim::World& world, uint64_t table,
                          Duration limit) {
  // A scrub may have to wait for its turn, or for a replica that just came.
  const Instant deadline = world.Now() + limit;
  std::string why;
  do {
    why = "no node scrubs";
    for (NodeId node : cluster.config().catalogue_nodes) {
      if (cluster.IsDead(node)) continue;
      if (std::string found = ScrubAll(cluster, world, node, table); found != kNotHere) why = found;
    }
    if (why.empty()) return "";
    world.RunFor(std::chrono::milliseconds(500));
  } while (world.Now() < deadline);
  return Cat("not scrubbed ", ToMicros(limit) / 1'000'000, " s after healing: ", why);
}

}  // namespace dynlib
