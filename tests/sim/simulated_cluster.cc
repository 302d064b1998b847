#include "tests/sim/simulated_cluster.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/service.h"
#include "dynlib/replication/host_options.h"

namespace dynlib {
namespace {

constexpr NodeId kObserver{200};
constexpr uint64_t kFirstMetadataNode = 300;
constexpr int kZones = 3;
constexpr int kDamagedOpens = 3;  // so often in a row, and the disk is damaged

}  // namespace

SimulatedCluster::SimulatedCluster(const SimulationOptions& options, const ClusterShape& shape,
                                   sim::World* world, Random* random, MetricsSink* metrics)
    : options_(options), shape_(shape), world_(world), metrics_(metrics) {
  const int64_t drift_bound = replication::LivenessOptions().drift_ppm;
  const sim::FaultOptions faults =
      options_.faults.value_or(sim::RandomFaults(options_.seed, drift_bound));
  auto add_node = [&](NodeId id) {
    return world_->AddNode(
        id, random->Between(-faults.clock_drift_ppm_max, faults.clock_drift_ppm_max));
  };
  std::vector<NodeId> all;
  for (int i = 1; i <= shape_.nodes; ++i) {
    const NodeId id{static_cast<uint64_t>(i)};
    all.push_back(id);
    storage_[id].node = add_node(id);
    config_.nodes.push_back(
        {id,
         {.zone = Cat("zone-", (i - 1) % kZones + 1), .rack = Cat("r", i), .power = Cat("p", i)}});
    if (i <= kZones) config_.catalogue_nodes.push_back(id);
  }
  // What a group survives: damage on one member.
  world_->AllowCorruption(all[random->Below(all.size())]);
  for (int i = 0; i < shape_.metadata_nodes; ++i) {
    const NodeId id{kFirstMetadataNode + static_cast<uint64_t>(i)};
    all.push_back(id);
    metadata_[id].node = add_node(id);
    config_.metadata_nodes.push_back(id);
  }
  // In every third world all nodes may be down at once, as when a building loses its power.
  const size_t nodes_down = options_.seed % 3 == 0 ? all.size() : 1;
  injector_ = std::make_unique<sim::FaultInjector>(
      world_, sim::FaultInjector::Options{.nodes = all, .max_nodes_down = nodes_down},
      [this](NodeId id) { OnDown(id); }, [this](NodeId id) { OnRestart(id); });
  // At a disk call that was chosen to (SimDisk::FailCall).
  world_->OnPowerFailure([this](NodeId id) { ComeBackIn(std::chrono::milliseconds(100), id); });
  for (NodeId id : all) OnRestart(id);
  sim::Node* node = world_->AddNode(kObserver);
  observer_executor_ = node->NewExecutor("observer");
  observer_ = std::make_unique<Rpc>(Rpc::Options{}, node->transport(), cluster::kRpcChannel,
                                    observer_executor_, node->clock());
}

cluster::StorageNodeOptions SimulatedCluster::NodeOptions(NodeId id) {
  using std::chrono::milliseconds;
  cluster::StorageNodeOptions options;
  options.id = id;
  options.new_cluster = !storage_.at(id).made;
  options.replication.seed = options_.seed * 31 + ToUint(id);
  const Duration rest_after[] = {Duration(0), std::chrono::milliseconds(100),
                                 std::chrono::seconds(1)};
  options.replication.rest_after = rest_after[options_.seed % 3];
  options.replication.lease_reads = options_.seed % 4 != 3;
  options.replication.faults = options_.replication_mutant;
  options.replication.group.proposal_bytes_max = 64 << 10;
  options.replication.group.unchosen_bytes_max = 256 << 10;
  options.replication.group.on_chosen = [this, id](PartitionId partition, Slot slot,
                                                   std::string_view payload) {
    OnChosen(id, partition, slot, payload);
  };
  // Small, so that segments are recycled and checkpoints taken often.
  options.log.segment_bytes = 512 << 10;
  options.log.copy_forward_above = 4;
  options.log.max_queued_bytes = 1 << 20;
  options.log.max_segments = 32;
  options.pages.growth_bytes_min = 128 << 10;
  options.pages.growth_bytes_max = 1 << 20;
  options.checkpoint_log_bytes = 96 << 10;
  options.checkpoint_interval = milliseconds(options_.seed % 2 == 0 ? 2000 : 500);
  options.copier.attempt_timeout = milliseconds(500);
  options.copier.retry_delay = milliseconds(50);
  options.copier.chunk_bytes = shape_.copy_chunk_bytes;
  options.copy_service.pin_idle = std::chrono::seconds(5);
  options.copy_service.bytes_per_second = shape_.copy_bytes_per_second;
  options.auto_admin.interval = milliseconds(400);
  options.auto_admin.busy_interval = milliseconds(50);
  options.auto_admin.death_after = milliseconds(1500);
  options.auto_admin.call_timeout = milliseconds(300);
  options.scrubber.enabled = shape_.scrub_interval > Duration(0);
  if (options.scrubber.enabled) options.scrubber.interval = shape_.scrub_interval;
  options.scrubber.call_timeout = milliseconds(500);
  options.scrubber.retry_delay = milliseconds(50);
  options.faults = options_.cluster_mutant;
  return options;
}

void SimulatedCluster::OnChosen(NodeId node, PartitionId partition, Slot slot,
                                std::string_view payload) {
  const auto [at, is_new] = chosen_.try_emplace({partition, slot}, Checksum(payload), node);
  if (is_new || at->second.checksum == Checksum(payload) || !disagreement_.empty()) return;
  disagreement_ = Cat("slot ", slot, " of partition ", partition, " has one value on node ",
                      at->second.node, " and another on node ", node);
}

void SimulatedCluster::OnDown(NodeId id) {
  if (auto it = metadata_.find(id); it != metadata_.end()) {
    it->second.metadata = nullptr;
  } else {
    storage_[id].storage = nullptr;
  }
}

void SimulatedCluster::OnRestart(NodeId id) {
  if (metadata_.contains(id)) {
    OpenMetadata(id);
  } else {
    OpenStorage(id);
  }
}

void SimulatedCluster::OpenMetadata(NodeId id) {
  sim::Node* node = metadata_[id].node;
  cluster::MetadataNodeOptions options;
  options.id = id;
  // Often, so that most of those that start again have one.
  options.snapshot_interval = std::chrono::seconds(2);
  const cluster::MetadataNode::Environment environment{
      .transport = node->transport(),
      .clock = node->clock(),
      .executor = node->NewExecutor("metadata"),
      .metrics = metrics_,
      .disk = node->disk(),
      .disk_executor = node->NewBlockingExecutor("snapshots")};
  environment.disk_executor->Post([this, id, options, environment] {
    auto created = std::make_shared<absl::StatusOr<std::unique_ptr<cluster::MetadataNode>>>(
        cluster::MetadataNode::Create(options, config_, environment));
    DYNLIB_CHECK(created->ok());
    environment.executor->Post(
        [this, id, created] { metadata_[id].metadata = *std::move(*created); });
  });
}

void SimulatedCluster::OpenStorage(NodeId id) {
  Storage& server = storage_[id];
  if (server.dead) return;
  sim::Node* node = server.node;
  const cluster::StorageNode::Environment environment{
      .disk = node->disk(),
      .transport = node->transport(),
      .clock = node->clock(),
      .executor = node->NewExecutor("main"),
      .log_executor = node->NewBlockingExecutor("log"),
      .checkpoint_executor = node->NewBlockingExecutor("checkpoint"),
      .apply_executor = node->NewBlockingExecutor("apply"),
      .metrics = metrics_};
  environment.checkpoint_executor->Post([this, id, environment] {
    auto opened = std::make_shared<absl::StatusOr<std::unique_ptr<cluster::StorageNode>>>(
        cluster::StorageNode::Open(NodeOptions(id), config_, environment));
    environment.executor->Post([this, id, opened] { OnOpened(id, std::move(*opened)); });
  });
}

void SimulatedCluster::OnOpened(NodeId id,
                                absl::StatusOr<std::unique_ptr<cluster::StorageNode>> opened) {
  Storage& server = storage_[id];
  absl::Status status = opened.status();
  world_->Note(id, Cat("opened: ", std::string(ToStd(status.message()))));
  if (!status.ok()) {
    // A damaged disk stays as it is; a device that failed for once may work the next time.
    const bool damaged = absl::IsDataLoss(status) && world_->corruptible().contains(id) &&
                         world_->faults().disk_eio == 0;
    if (damaged && ++server.damaged_opens == kDamagedOpens) {
      server.dead = true;
    } else {
      injector_->RequestRestart(id);
    }
    return;
  }
  server.damaged_opens = 0;
  server.made = true;
  server.storage = *std::move(opened);
  server.storage->OnFatal([this, id](absl::Status why) {
    world_->Note(id, Cat("fatal: ", std::string(ToStd(why.message()))));
    injector_->RequestRestart(id);
  });
  server.storage->Start([this, id](absl::Status started) {
    if (started.ok()) return;
    world_->Note(id, Cat("not started: ", std::string(ToStd(started.message()))));
    injector_->RequestRestart(id);
  });
}

void SimulatedCluster::PowerOff(NodeId id, Duration duration) {
  const Storage& server = storage_.at(id);
  if (!server.node->up() || injector_->nodes_down() > 0 || AnyDead()) return;
  world_->Note(id, "an outage begins");
  server.node->PowerOff();
  ComeBackIn(duration, id);
}

void SimulatedCluster::ComeBackIn(Duration duration, NodeId id) {
  OnDown(id);
  world_->After(duration, [this, id] {
    sim::Node* node = storage_.at(id).node;
    if (node->up()) return;
    node->Restart();
    OnRestart(id);
  });
}

void SimulatedCluster::PowerOffAll(sim::UnsyncedFate fate) {
  for (auto& [id, server] : storage_) {
    if (!server.node->up()) continue;
    server.node->PowerOff(fate);
    ComeBackIn(std::chrono::milliseconds(100), id);
  }
}

bool SimulatedCluster::AllUp() const {
  return std::all_of(storage_.begin(), storage_.end(), [](const auto& entry) {
    return entry.second.dead || entry.second.storage != nullptr;
  });
}

bool SimulatedCluster::AnyDead() const {
  return std::any_of(storage_.begin(), storage_.end(),
                     [](const auto& entry) { return entry.second.dead; });
}

std::vector<NodeId> SimulatedCluster::StorageNodes() const {
  std::vector<NodeId> nodes;
  for (const auto& [id, server] : storage_) nodes.push_back(id);
  return nodes;
}

const std::string& SimulatedCluster::ZoneOf(NodeId node) const {
  return config_.nodes[ToUint(node) - 1].location.zone;
}

std::string SimulatedCluster::Describe() const {
  std::string text;
  for (const auto& [id, server] : storage_) {
    if (server.storage == nullptr) {
      text += Cat("\nnode ", id, server.dead ? " is dead" : " is not open");
      continue;
    }
    for (const replication::GroupStatus& group : server.storage->Groups()) {
      text += Cat("\nnode ", id, " partition ", group.group, " replica ", group.self, " ",
                  replication::RoleName(group.role), " ballot ", group.promised.round(), ".",
                  group.promised.proposer(), group.failed ? " failed" : "",
                  group.holds_lease ? " lease"
                  : group.supported ? " supported"
                                    : "",
                  group.removed ? " removed" : "", group.ended != 0 ? " ended" : "",
                  group.kind == replication::MemberKind::kLog ? " log" : "", " released ",
                  group.released, " applied ", group.applied, " chosen ", group.chosen, " last ",
                  group.last, " epoch ", group.configuration.epoch, " of");
      for (const replication::Member& member : group.configuration.members)
        text += Cat(" ", member.replica, "@", member.node);
    }
  }
  return text;
}

void SimulatedCluster::Call(NodeId node, Rpc::Method method, std::string request,
                            std::function<void(absl::StatusOr<std::string>)> done) {
  observer_executor_->Post(
      [this, node, method, request = std::move(request), done = std::move(done)]() mutable {
        observer_->Call(node, method, std::move(request), std::chrono::seconds(2), std::move(done));
      });
}

void SimulatedCluster::Observe(std::function<void(ClusterView)> done) {
  auto view = std::make_shared<ClusterView>();
  auto left = std::make_shared<size_t>(1);
  auto arrived = [view, left, done = std::move(done)] {
    if (--*left == 0) done(std::move(*view));
  };
  for (const auto& [id, server] : storage_) {
    if (server.storage == nullptr) continue;
    ++*left;
    Call(id, cluster::kNodeStatus, cluster::wire::NodeStatusRequest().SerializeAsString(),
         [view, arrived, id = id](absl::StatusOr<std::string> bytes) {
           cluster::wire::NodeStatusReply status;
           if (bytes.ok() && status.ParseFromString(*bytes) && status.outcome().code() == 0)
             (*view)[id] = std::move(status);
           arrived();
         });
  }
  observer_executor_->Post(arrived);
}

}  // namespace dynlib
