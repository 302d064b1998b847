#include "examples/mini_cluster/mini_cluster.h"

#include <chrono>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/metadata_node.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/testing/power_loss_disk.h"
#include "examples/mini_cluster/wait.h"

namespace dynlib::mini_cluster {
namespace {

constexpr size_t kZones = 3;
constexpr size_t kNodesMax = 30;
constexpr uint64_t kFirstMetadataNode = 901;

cluster::StorageNodeOptions NodeOptions(NodeId id, const ClusterOptions& cluster) {
  cluster::StorageNodeOptions options;
  options.id = id;
  options.replication.seed = cluster.seed * 1000 + ToUint(id);
  // Small segments: a node is made quickly, and the log of a demo is recycled too.
  options.log.segment_bytes = 8 << 20;
  options.log.max_batch_bytes = 2 << 20;
  options.log.copy_forward_above = 24;
  options.log.max_segments = 96;
  options.checkpoint_log_bytes = 16 << 20;
  options.admission.enabled = cluster.switches.admission;
  options.admission.partition_read_units = kPartitionReadUnits;
  options.admission.partition_write_units = kPartitionWriteUnits;
  // What was not used is not saved for long, so that a hot partition is throttled soon; and heat
  // is judged by seconds, since the demonstration has no minutes.
  options.admission.burst_seconds = 1;
  options.admission.heat.window = std::chrono::seconds(3);
  options.auto_admin.planner.split_for_heat = cluster.switches.split;
  options.auto_admin.planner.log_replicas = cluster.switches.log_replicas;
  options.auto_admin.planner.moves_max = 1000;
  // Only when asked, and then at once.
  options.scrubber.enabled = false;
  options.scrubber.bytes_per_second = 1 << 30;
  options.scrubber.retry_delay = std::chrono::milliseconds(20);
  // A dead node costs each round this long.
  options.auto_admin.call_timeout = std::chrono::milliseconds(250);
  // Longer than a node takes to restart.
  options.auto_admin.death_after = std::chrono::seconds(4);
  return options;
}

cluster::MetadataNodeOptions MetadataOptions(NodeId id) {
  cluster::MetadataNodeOptions options{.id = id};
  // A table's limit is shared out within seconds.
  options.admission.grant_lifetime = std::chrono::seconds(1);
  options.admission.report_after = std::chrono::milliseconds(250);
  return options;
}

}  // namespace

absl::Status ValidateNodes(size_t nodes) {
  if (nodes > 0 && nodes % kZones == 0 && nodes <= kNodesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("nodes is ", nodes, "; allowed: 3, 6, ... ", kNodesMax,
                                        ": as many in each of three zones"));
}

cluster::ClusterConfig ConfigOf(size_t nodes, size_t metadata_nodes) {
  cluster::ClusterConfig config;
  for (size_t i = 0; i < nodes; ++i) {
    const std::string zone(1, static_cast<char>('a' + i % kZones));
    const std::string number = Cat(i / kZones);
    config.nodes.push_back({NodeId{i + 1},
                            {.zone = Cat("zone-", zone),
                             .rack = Cat("rack-", zone, number),
                             .power = Cat("feed-", zone, number)}});
    if (i < kZones) config.catalogue_nodes.push_back(NodeId{i + 1});
  }
  for (size_t i = 0; i < metadata_nodes; ++i)
    config.metadata_nodes.push_back(NodeId{kFirstMetadataNode + i});
  return config;
}

// A storage node and all that it runs on; members in the order in which they depend on each other.
class MiniCluster::Node {
 public:
  Node(NodeId id, LocalNetwork* network)
      : id_(id),
        network_(network),
        transport_(network->Attach(id)),
        main_({.name = Cat("n", id, "-main")}),
        log_({.name = Cat("n", id, "-log")}),
        checkpoint_({.name = Cat("n", id, "-checkpoint")}),
        apply_({.name = Cat("n", id, "-apply")}) {}

  ~Node() {
    PowerOff();
    for (ThreadExecutor* executor : {&main_, &log_, &checkpoint_, &apply_}) executor->ShutDown();
    node_ = nullptr;  // nothing of it runs any more
  }

  absl::Status Open(const ClusterOptions& options, const cluster::ClusterConfig& config,
                    const Clock* clock, MetricsSink* metrics) {
    DYNLIB_ASSIGN_OR_RETURN(below_,
                            PosixDisk::Open({.root = Cat(options.directory, "/node-", id_)}));
    disk_ = std::make_unique<PowerLossDisk>(below_.get());
    cluster::StorageNodeOptions node_options = NodeOptions(id_, options);
    node_options.new_cluster = !std::exchange(opened_, true);
    DYNLIB_ASSIGN_OR_RETURN(node_, cluster::StorageNode::Open(node_options, config,
                                                              {.disk = disk_.get(),
                                                               .transport = transport_.get(),
                                                               .clock = clock,
                                                               .executor = &main_,
                                                               .log_executor = &log_,
                                                               .checkpoint_executor = &checkpoint_,
                                                               .apply_executor = &apply_,
                                                               .metrics = metrics}));
    return absl::OkStatus();
  }

  absl::Status Start() {
    return RunAndWait<absl::Status>(main_, [this](auto done) { node_->Start(std::move(done)); });
  }

  absl::Status Stop() {
    return RunAndWait<absl::Status>(main_, [this](auto done) { node_->Stop(std::move(done)); });
  }

  absl::Status Checkpoint() {
    return RunAndWait<absl::Status>(main_,
                                    [this](auto done) { node_->Checkpoint(std::move(done)); });
  }

  void PowerOff() {
    if (disk_ != nullptr) disk_->PowerOff();
    network_->Detach(id_);
  }
  void PowerOffDisk() { disk_->PowerOff(); }

 private:
  const NodeId id_;
  LocalNetwork* const network_;
  std::unique_ptr<PosixDisk> below_;
  std::unique_ptr<PowerLossDisk> disk_;
  std::unique_ptr<Transport> transport_;
  ThreadExecutor main_, log_, checkpoint_, apply_;
  std::unique_ptr<cluster::StorageNode> node_;
  bool opened_ = false;  // since the cluster was made
};

// A metadata node and its thread.
class MiniCluster::Metadata {
 public:
  Metadata(NodeId id, LocalNetwork* network)
      : id_(id),
        network_(network),
        transport_(network->Attach(id)),
        main_({.name = Cat("m", id)}),
        snapshots_({.name = Cat("m", id, "-disk")}) {}

  ~Metadata() {
    network_->Detach(id_);
    RunThere(main_, [this] { node_ = nullptr; });
    snapshots_.ShutDown();
    main_.ShutDown();
  }

  absl::Status Start(const std::string& directory, const cluster::ClusterConfig& config,
                     const Clock* clock, MetricsSink* metrics) {
    DYNLIB_ASSIGN_OR_RETURN(disk_, PosixDisk::Open({.root = Cat(directory, "/metadata-", id_)}));
    absl::Status status;
    RunThere(snapshots_, [&] {
      absl::StatusOr<std::unique_ptr<cluster::MetadataNode>> made =
          cluster::MetadataNode::Create(MetadataOptions(id_), config,
                                        {.transport = transport_.get(),
                                         .clock = clock,
                                         .executor = &main_,
                                         .metrics = metrics,
                                         .disk = disk_.get(),
                                         .disk_executor = &snapshots_});
      status = made.status();
      if (made.ok()) node_ = *std::move(made);
    });
    return status;
  }

 private:
  const NodeId id_;
  LocalNetwork* const network_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<PosixDisk> disk_;
  ThreadExecutor main_, snapshots_;
  std::unique_ptr<cluster::MetadataNode> node_;
};

MiniCluster::MiniCluster(const ClusterOptions& options, MetricsSink* metrics)
    : options_(options),
      metrics_(metrics),
      config_(ConfigOf(options.nodes, options.metadata_nodes)),
      network_({}) {}

MiniCluster::~MiniCluster() {
  // All at once, so that none goes on while another is being torn down.
  PowerOffAll();
}

absl::StatusOr<std::unique_ptr<MiniCluster>> MiniCluster::Start(const ClusterOptions& options,
                                                                MetricsSink* metrics) {
  DYNLIB_RETURN_IF_ERROR(ValidateNodes(options.nodes));
  std::unique_ptr<MiniCluster> cluster(new MiniCluster(options, metrics));
  // All are opened before one starts: if a directory is refused nothing has changed.
  for (const cluster::NodeInfo& info : cluster->config_.nodes) {
    auto node = std::make_unique<Node>(info.id, &cluster->network_);
    DYNLIB_RETURN_IF_ERROR(node->Open(options, cluster->config_, &cluster->clock_, metrics));
    std::lock_guard lock(cluster->mutex_);
    cluster->nodes_[info.id] = std::move(node);
  }
  DYNLIB_RETURN_IF_ERROR(cluster->StartMetadata());
  for (auto& [id, node] : cluster->nodes_) DYNLIB_RETURN_IF_ERROR(node->Start());
  return cluster;
}

absl::Status MiniCluster::StartMetadata() {
  DYNLIB_CHECK(metadata_.empty());
  for (NodeId id : config_.metadata_nodes) {
    metadata_.push_back(std::make_unique<Metadata>(id, &network_));
    DYNLIB_RETURN_IF_ERROR(metadata_.back()->Start(options_.directory, config_, &clock_, metrics_));
  }
  return absl::OkStatus();
}

void MiniCluster::StopMetadata() { metadata_.clear(); }

absl::Status MiniCluster::Checkpoint(NodeId node) { return nodes_.at(node)->Checkpoint(); }

std::string MiniCluster::PagesPath(NodeId node) const {
  return Cat(options_.directory, "/node-", node, "/pages");
}

void MiniCluster::PowerOff(NodeId node) {
  nodes_.at(node)->PowerOff();
  std::unique_lock lock(mutex_);
  auto off = nodes_.extract(node);
  lock.unlock();  // its end takes a while
}

absl::Status MiniCluster::Restart(NodeId id) {
  DYNLIB_CHECK(!nodes_.contains(id));
  auto node = std::make_unique<Node>(id, &network_);
  DYNLIB_RETURN_IF_ERROR(node->Open(options_, config_, &clock_, metrics_));
  DYNLIB_RETURN_IF_ERROR(node->Start());
  std::lock_guard lock(mutex_);
  nodes_[id] = std::move(node);
  return absl::OkStatus();
}

void MiniCluster::PowerOffAll() {
  std::lock_guard lock(mutex_);
  for (auto& [id, node] : nodes_) node->PowerOffDisk();
}

absl::Status MiniCluster::Stop() {
  absl::Status first;
  for (auto& [id, node] : nodes_) first.Update(node->Stop());
  std::lock_guard lock(mutex_);
  nodes_.clear();
  return first;
}

}  // namespace dynlib::mini_cluster
