#include "dynlib/cluster/storage_node.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/checkpointer.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/metadata_push.h"
#include "dynlib/cluster/node_admission_control.h"
#include "dynlib/cluster/node_directory.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/cluster/replica_service.h"
#include "dynlib/cluster/replica_set.h"
#include "dynlib/cluster/routing_record.h"
#include "dynlib/cluster/scrub_service.h"
#include "dynlib/cluster/scrubber.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/storage_service.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/replication/group_host.h"

namespace dynlib::cluster {
namespace {

constexpr std::string_view kPagesFile = "pages";
constexpr std::string_view kLogDir = "log";

absl::Status Validate(const StorageNodeOptions& options) {
  if (ToUint(options.id) == 0)
    return absl::InvalidArgumentError("node.id is 0; allowed: at least 1");
  DYNLIB_RETURN_IF_ERROR(replication::Validate(options.replication));
  if (options.rpc.max_calls < 1)
    return absl::InvalidArgumentError("rpc.max_calls is 0; allowed: at least 1");
  if (options.rpc.max_serving < 1)
    return absl::InvalidArgumentError("rpc.max_serving is 0; allowed: at least 1");
  const uint64_t proposal = options.replication.group.proposal_bytes_max + 1024;
  if (store::NodeLog::MaxBatchBytes(options.log) < proposal) {
    return absl::InvalidArgumentError(
        Cat("log.max_batch_bytes is ", store::NodeLog::MaxBatchBytes(options.log),
            "; allowed: at least group.proposal_bytes_max + 1,024 = ", proposal));
  }
  DYNLIB_RETURN_IF_ERROR(cluster::Validate(options.admission));
  DYNLIB_RETURN_IF_ERROR(TreeCopier::Validate(options.copier));
  DYNLIB_RETURN_IF_ERROR(TreeCopyService::Validate(options.copy_service));
  DYNLIB_RETURN_IF_ERROR(cluster::Validate(options.scrubber));
  DYNLIB_RETURN_IF_ERROR(Validate(options.push));
  if (options.checkpoint_log_bytes < 4096) {
    return absl::InvalidArgumentError(Cat("node.checkpoint_log_bytes is ",
                                          options.checkpoint_log_bytes,
                                          "; allowed: at least 4,096"));
  }
  if (options.checkpoint_interval < std::chrono::milliseconds(10)) {
    return absl::InvalidArgumentError(Cat("node.checkpoint_interval is ",
                                          ToMicros(options.checkpoint_interval),
                                          " us; allowed: at least 10,000"));
  }
  return absl::OkStatus();
}

absl::Status Validate(const ClusterConfig& config, NodeId self) {
  std::map<NodeId, std::string> zones;
  for (const NodeInfo& node : config.nodes) {
    if (ToUint(node.id) == 0 || !zones.emplace(node.id, node.location.zone).second) {
      return absl::InvalidArgumentError(
          Cat("config.nodes lists node ", node.id, " twice, or node 0"));
    }
  }
  if (!zones.contains(self))
    return absl::InvalidArgumentError(Cat("config.nodes does not list node ", self));
  const size_t count = config.catalogue_nodes.size();
  if (count != 1 && count != 3 && count != 5) {
    return absl::InvalidArgumentError(
        Cat("config.catalogue_nodes lists ", count, " nodes; allowed: 1, 3 or 5"));
  }
  std::set<std::string> used;
  for (NodeId node : config.catalogue_nodes) {
    auto it = zones.find(node);
    if (it == zones.end())
      return absl::InvalidArgumentError(
          Cat("config.catalogue_nodes lists node ", node, ", which config.nodes does not"));
    if (!used.insert(it->second).second) {
      return absl::InvalidArgumentError(
          Cat("config.catalogue_nodes lists two nodes in zone ", it->second));
    }
  }
  return absl::OkStatus();
}

std::string CatalogueDescription(const ClusterConfig& config) {
  wire::CreateReplicaRequest request;
  wire::Partition& partition = *request.mutable_partition();
  partition.set_id(ToUint(kCataloguePartition));
  partition.set_table(ToUint(kCatalogueTable));
  uint64_t replica = 0;
  for (NodeId node : config.catalogue_nodes) {
    wire::Member& member = *partition.add_members();
    member.set_replica(++replica);
    member.set_node(ToUint(node));
  }
  request.set_schema(
      EncodeSchema({.partition_key = {"name", KeyType::kString}, .sort_key = std::nullopt}));
  return request.SerializeAsString();
}

}  // namespace

class StorageNode::Impl : public std::enable_shared_from_this<StorageNode::Impl> {
 public:
  Impl(const StorageNodeOptions& options, const ClusterConfig& config,
       const Environment& environment)
      : options_(options), config_(config), records_(config), env_(environment) {}

  absl::Status Open();
  void Start(absl::AnyInvocable<void(absl::Status)> done);
  void Stop(absl::AnyInvocable<void(absl::Status)> done);
  void Checkpoint(absl::AnyInvocable<void(absl::Status)> done) {
    checkpointer_->Run(std::move(done));
  }
  std::vector<replication::GroupStatus> Groups() const;
  PartitionRange RangeOf(PartitionId partition) const;
  void ScrubNow(PartitionId partition, absl::AnyInvocable<void(ScrubResult)> done);
  void Abandon();
  void Quiesce();
  void CloseRpc();
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback) { on_fatal_ = std::move(callback); }

 private:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  absl::Status LoadReplicas();
  void FinishStart();
  void OnCheckpoint(const absl::Status& status);
  void OnChange(PartitionId partition);
  void StartPush();
  std::optional<partition_map::PartitionRecord> LedRecord(PartitionId partition) const;
  absl::StatusOr<store::Tree*> WholeTree(PartitionId partition) const;
  bool LeadsCatalogue() const;
  absl::Status MakeAutoAdminOptions();
  void ReportFatal(const absl::Status& why);
  void CloseLog(absl::Status checkpointed, Done done);

  const StorageNodeOptions options_;
  const ClusterConfig config_;
  const RoutingRecords records_;
  const Environment env_;

  NodeDirectory directory_;
  store::NodeLog::Recovery recovery_;
  std::unique_ptr<store::NodeLog> log_;
  std::unique_ptr<store::PageFile> pages_;
  std::unique_ptr<NodeLogAdapter> replica_log_;
  std::unique_ptr<replication::GroupHost> host_;
  std::shared_ptr<ReplicaSet> replicas_;
  std::shared_ptr<Checkpointer> checkpointer_;
  std::shared_ptr<ReplicaService> replica_service_;
  std::shared_ptr<NodeAdmissionControl> admission_;
  std::unique_ptr<StorageService> service_;
  std::unique_ptr<Rpc> rpc_;
  std::unique_ptr<TreeCopyService> copy_service_;
  std::unique_ptr<TreeCopier> copier_;
  std::unique_ptr<MetadataPush> push_;
  std::optional<AutoAdminOptions> auto_admin_options_;  // when this node holds the catalogue
  std::unique_ptr<AutoAdmin> auto_admin_;
  std::shared_ptr<ScrubService> scrub_service_;
  std::unique_ptr<Scrubber> scrubber_;  // beside the auto admin
  bool stopping_ = false;
  Done on_fatal_;
};

absl::Status StorageNode::Impl::Open() {
  DYNLIB_RETURN_IF_ERROR(Validate(options_));
  DYNLIB_RETURN_IF_ERROR(Validate(config_, options_.id));
  DYNLIB_RETURN_IF_ERROR(MakeAutoAdminOptions());
  DYNLIB_ASSIGN_OR_RETURN(directory_, OpenNodeDirectory(env_.disk, options_.id));
  store::NodeLog::Options log_options = options_.log;
  log_options.identity = ToUint(options_.id);
  DYNLIB_ASSIGN_OR_RETURN(
      log_, store::NodeLog::Open(log_options, env_.disk, std::string(kLogDir), env_.log_executor,
                                 env_.clock, env_.metrics, &recovery_));
  for (const std::string& note : recovery_.notes) {
    const EventField fields[] = {{"node", Cat(options_.id)}, {"note", note}};
    env_.metrics->Event("node.log_recovery", fields);
  }
  store::PageFile::Options page_options = options_.pages;
  page_options.create_if_missing = directory_.fresh;
  page_options.file_id = {.low = ToUint(options_.id), .high = 1};
  DYNLIB_ASSIGN_OR_RETURN(pages_,
                          store::PageFile::Open(page_options, env_.disk, kPagesFile, env_.metrics));
  replica_log_ = std::make_unique<NodeLogAdapter>(
      log_.get(), store::NodeLog::MaxBatchBytes(options_.log), env_.executor,
      [this](size_t bytes) { checkpointer_->OnWritten(bytes); });
  host_ = std::make_unique<replication::GroupHost>(
      options_.replication, options_.id, env_.transport, kReplicationChannel, replica_log_.get(),
      env_.executor, env_.clock, env_.metrics);
  replicas_ = std::make_shared<ReplicaSet>(
      ReplicaSet::Parts{.self = options_.id,
                        .pages = pages_.get(),
                        .log = log_.get(),
                        .host = host_.get(),
                        .executor = env_.executor,
                        .file_executor = env_.checkpoint_executor,
                        .apply_executor = env_.apply_executor,
                        .metrics = env_.metrics,
                        .checkpoint = [this](Done done) { checkpointer_->Run(std::move(done)); },
                        .changed = [this](PartitionId partition) { OnChange(partition); },
                        .faults = options_.faults.split});
  DYNLIB_RETURN_IF_ERROR(LoadReplicas());
  checkpointer_ = std::make_shared<Checkpointer>(
      Checkpointer::Options{.log_bytes = options_.checkpoint_log_bytes,
                            .interval = options_.checkpoint_interval,
                            .skip_for_test = options_.faults.checkpoint_before_log},
      pages_.get(), env_.executor, env_.checkpoint_executor, env_.clock,
      [this](absl::Status status) { OnCheckpoint(status); });
  replica_service_ = std::make_shared<ReplicaService>(
      ReplicaService::Parts{.self = options_.id,
                            .config = &config_,
                            .incarnation = static_cast<uint64_t>(env_.clock->WallNow().nanos()),
                            .replicas = replicas_.get(),
                            .host = host_.get(),
                            .pages = pages_.get(),
                            .executor = env_.executor,
                            .file_executor = env_.checkpoint_executor,
                            .clock = env_.clock});
  DYNLIB_ASSIGN_OR_RETURN(
      admission_, NodeAdmissionControl::Create(options_.admission, {.self = options_.id,
                                                                    .replicas = replicas_.get(),
                                                                    .host = host_.get(),
                                                                    .executor = env_.executor,
                                                                    .clock = env_.clock,
                                                                    .metrics = env_.metrics}));
  scrub_service_ = std::make_shared<ScrubService>(
      ScrubService::Parts{.self = options_.id,
                          .replicas = replicas_.get(),
                          .host = host_.get(),
                          .executor = env_.executor,
                          .file_executor = env_.checkpoint_executor,
                          .apply_executor = env_.apply_executor,
                          .clock = env_.clock,
                          .metrics = env_.metrics,
                          .checkpoint = [this](Done done) { checkpointer_->Run(std::move(done)); },
                          .changed = [this](PartitionId partition) { OnChange(partition); }});
  replica_service_->SetLoad(
      [admission = admission_.get()](PartitionId partition, wire::ReplicaStatus& to) {
        admission->Describe(partition, to);
      });
  service_ = std::make_unique<StorageService>(replicas_.get(), host_.get(), &records_,
                                              admission_.get(), env_.executor, env_.apply_executor,
                                              options_.faults.condition_at_leader);
  return absl::OkStatus();
}

absl::Status StorageNode::Impl::MakeAutoAdminOptions() {
  const std::vector<NodeId>& holders = config_.catalogue_nodes;
  if (!options_.run_auto_admin ||
      std::find(holders.begin(), holders.end(), options_.id) == holders.end()) {
    return absl::OkStatus();
  }
  AutoAdminOptions options = options_.auto_admin;
  options.router.catalogue_nodes = holders;
  // A session of this life of the node.
  std::string seed("admin");
  PutFixed64(seed, ToUint(options_.id));
  PutFixed64(seed, static_cast<uint64_t>(env_.clock->WallNow().nanos()));
  options.router.client = ClientId{Checksum(seed) | 1};
  DYNLIB_RETURN_IF_ERROR(cluster::Validate(options));
  auto_admin_options_ = std::move(options);
  return absl::OkStatus();
}

// Those of the catalogue are born with the cluster; a directory counts as made when they are
// durable.
absl::Status StorageNode::Impl::LoadReplicas() {
  const std::vector<NodeId>& holders = config_.catalogue_nodes;
  if (directory_.fresh) {
    if (std::find(holders.begin(), holders.end(), options_.id) != holders.end()) {
      if (options_.new_cluster) {
        DYNLIB_RETURN_IF_ERROR(replicas_->MakeDurable(CatalogueDescription(config_)));
      } else {
        const EventField fields[] = {{"node", Cat(options_.id)}};
        env_.metrics->Event("node.without_catalogue", fields);
      }
    }
    DYNLIB_RETURN_IF_ERROR(env_.disk->SyncDir(""));
    DYNLIB_RETURN_IF_ERROR(WriteFormat(env_.disk, options_.id));
  }
  return replicas_->Load();
}

void StorageNode::Impl::Start(Done done) {
  host_->OnFatal([this](absl::Status why) { ReportFatal(why); });
  host_->OnChange([this](PartitionId partition) { OnChange(partition); });
  const replication::RecoveredStream node_stream = TakeStream(recovery_, PartitionId{0});
  if (absl::Status added = replicas_->AddGroups(std::exchange(recovery_, {})); !added.ok()) {
    env_.executor->Post([done = std::move(done), added]() mutable { done(added); });
    return;
  }
  host_->Start(node_stream,
               [self = shared_from_this(), done = std::move(done)](absl::Status status) mutable {
                 if (status.ok() && !self->stopping_) self->FinishStart();
                 done(status);
               });
}

void StorageNode::Impl::FinishStart() {
  rpc_ = std::make_unique<Rpc>(options_.rpc, env_.transport, kRpcChannel, env_.executor, env_.clock,
                               env_.metrics);
  service_->Register(rpc_.get());
  replica_service_->Register(rpc_.get());
  scrub_service_->Register(rpc_.get());
  admission_->Start(rpc_.get());
  TreeCopyService::Options copies = options_.copy_service;
  copies.unpinned_for_test = options_.faults.copies_unpinned;
  copy_service_ = std::make_unique<TreeCopyService>(
      copies, [this](PartitionId partition) { return WholeTree(partition); }, env_.executor,
      env_.checkpoint_executor, env_.clock, env_.metrics);
  copy_service_->Register(rpc_.get());
  TreeCopier::Options copier = options_.copier;
  copier.unpinned_for_test = options_.faults.copies_unpinned;
  copier_ = std::make_unique<TreeCopier>(copier, rpc_.get(), env_.executor,
                                         env_.checkpoint_executor, env_.clock, env_.metrics);
  copier_->OnWritten([this](size_t bytes) { checkpointer_->OnWritten(bytes); });
  replicas_->SetCopier(copier_.get());
  StartPush();
  if (auto_admin_options_.has_value()) {
    auto_admin_ =
        std::make_unique<AutoAdmin>(*auto_admin_options_, config_, rpc_.get(), env_.executor,
                                    env_.clock, env_.metrics, [this] { return LeadsCatalogue(); });
    auto_admin_->Start();
    std::vector<NodeId> nodes;
    for (const NodeInfo& node : config_.nodes) nodes.push_back(node.id);
    scrubber_ =
        std::make_unique<Scrubber>(options_.scrubber, std::move(nodes), rpc_.get(), env_.executor,
                                   env_.clock, env_.metrics, [this] { return LeadsCatalogue(); });
    scrubber_->Register(rpc_.get());
    scrubber_->Start();
  }
}

absl::StatusOr<store::Tree*> StorageNode::Impl::WholeTree(PartitionId partition) const {
  const std::shared_ptr<Replica> replica = replicas_->Find(partition);
  if (replica == nullptr || replica->copying || replica->ended.has_value() ||
      replica->failed.has_value() || replica->damaged.has_value() ||
      replica->kind == replication::MemberKind::kLog) {
    return absl::NotFoundError(Cat("partition ", partition, " has no whole tree on this node"));
  }
  return replica->tree;
}

bool StorageNode::Impl::LeadsCatalogue() const {
  const std::optional<replication::GroupStatus> status = host_->Status(kCataloguePartition);
  if (stopping_ || !status.has_value()) return false;
  if (status->role == replication::Role::kLeader && !status->supported) {
    env_.executor->Post([self = shared_from_this()] {
      if (!self->stopping_) self->host_->CheckLead(kCataloguePartition);
    });
  }
  return status->supported;
}

// A role, a leader, a configuration, an end: whoever keeps track of such things is told.
void StorageNode::Impl::OnChange(PartitionId partition) {
  if (!stopping_ && admission_ != nullptr) admission_->OnChange(partition);
  if (push_ != nullptr) push_->OnChange(partition);
}

void StorageNode::Impl::StartPush() {
  MetadataPush::Source source{
      .led =
          [this] {
            std::vector<PartitionId> led;
            for (const auto& [partition, replica] : replicas_->replicas()) {
              if (LedRecord(partition).has_value()) led.push_back(partition);
            }
            return led;
          },
      .record = [this](PartitionId partition) { return LedRecord(partition); }};
  push_ = std::make_unique<MetadataPush>(options_.push, config_.metadata_nodes, std::move(source),
                                         rpc_.get(), env_.executor, env_.clock, env_.metrics);
}

// Its role is enough: the record of a leader that was deposed and does not know it has the lower
// ballot, and loses wherever it arrives.
std::optional<partition_map::PartitionRecord> StorageNode::Impl::LedRecord(
    PartitionId partition) const {
  const std::shared_ptr<Replica> replica = replicas_->Find(partition);
  const std::optional<replication::GroupStatus> status = host_->Status(partition);
  if (stopping_ || replica == nullptr || !status.has_value()) return std::nullopt;
  if (status->role != replication::Role::kLeader || status->ended != 0) return std::nullopt;
  partition_map::PartitionRecord record = records_.Of(*replica, *status);
  record.leader = options_.id;
  return record;
}

void StorageNode::Impl::OnCheckpoint(const absl::Status& status) {
  if (status.ok()) {
    for (const auto& [partition, replica] : replicas_->replicas()) {
      if (replica->copying) continue;
      const Slot durable = options_.faults.checkpoint_before_log
                               ? replica->tree->position()
                               : replica->tree->fallback_position();
      host_->Checkpointed(partition, durable);
    }
    return;
  }
  const EventField fields[] = {{"node", Cat(options_.id)},
                               {"why", std::string(ToStd(status.message()))}};
  env_.metrics->Event("node.checkpoint_failed", fields);
  // Without space a later checkpoint may succeed; anything else is for good (L3).
  if (!absl::IsResourceExhausted(status) && !absl::IsUnavailable(status)) ReportFatal(status);
}

void StorageNode::Impl::ReportFatal(const absl::Status& why) {
  if (on_fatal_ == nullptr || stopping_) return;
  std::exchange(on_fatal_, nullptr)(why);
}

std::vector<replication::GroupStatus> StorageNode::Impl::Groups() const {
  return host_->AllStatus();
}

void StorageNode::Impl::ScrubNow(PartitionId partition,
                                 absl::AnyInvocable<void(ScrubResult)> done) {
  if (scrubber_ != nullptr) return scrubber_->ScrubNow(partition, std::move(done));
  env_.executor->Post([done = std::move(done)]() mutable {
    done({.status = absl::FailedPreconditionError("no scrubber runs on this node"),
          .partitions = {}});
  });
}

PartitionRange StorageNode::Impl::RangeOf(PartitionId partition) const {
  const std::shared_ptr<Replica> replica = replicas_->Find(partition);
  return replica == nullptr ? PartitionRange{} : PartitionRange{replica->first, replica->end};
}

// In turn: no more requests, what is being applied ends, the trees become durable, the log closes.
void StorageNode::Impl::Stop(Done done) {
  DYNLIB_CHECK(!stopping_);
  Quiesce();
  env_.apply_executor->Post([self = shared_from_this(), done = std::move(done)]() mutable {
    Executor* checkpoint_executor = self->env_.checkpoint_executor;
    checkpoint_executor->Post([self = std::move(self), done = std::move(done)]() mutable {
      absl::Status status = self->pages_->Checkpoint();
      Executor* executor = self->env_.executor;
      executor->Post(
          [self = std::move(self), status = std::move(status), done = std::move(done)]() mutable {
            self->CloseLog(std::move(status), std::move(done));
          });
    });
  });
}

void StorageNode::Impl::CloseLog(absl::Status checkpointed, Done done) {
  CloseRpc();  // Every request was answered by now.
  log_->Close(env_.executor, [self = shared_from_this(), checkpointed = std::move(checkpointed),
                              done = std::move(done)](absl::Status closed) mutable {
    self->directory_.lock = nullptr;
    self->checkpointer_->Cancel();
    done(checkpointed.ok() ? closed : checkpointed);
  });
}

void StorageNode::Impl::Abandon() {
  Quiesce();
  CloseRpc();
}

void StorageNode::Impl::CloseRpc() {
  scrubber_ = nullptr;
  auto_admin_ = nullptr;
  push_ = nullptr;
  if (replicas_ != nullptr) replicas_->SetCopier(nullptr);
  copier_ = nullptr;
  copy_service_ = nullptr;
  rpc_ = nullptr;
}

// What waits is answered, and what comes is refused, for as long as there is an rpc_ to say so.
void StorageNode::Impl::Quiesce() {
  if (stopping_) return;
  stopping_ = true;
  if (checkpointer_ != nullptr) checkpointer_->Stop();
  if (replicas_ != nullptr) replicas_->Stop();
  if (host_ != nullptr) host_->Stop();
  if (service_ != nullptr) service_->Stop();
  if (admission_ != nullptr) admission_->Stop();
  if (replica_service_ != nullptr) replica_service_->Stop();
  if (scrub_service_ != nullptr) scrub_service_->Stop();
  if (copy_service_ != nullptr) copy_service_->Stop();
  if (copier_ != nullptr) copier_->Stop([] {});
  scrubber_ = nullptr;
  auto_admin_ = nullptr;
}

StorageNode::StorageNode(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<StorageNode>> StorageNode::Open(const StorageNodeOptions& options,
                                                               const ClusterConfig& config,
                                                               const Environment& environment) {
  auto impl = std::make_shared<Impl>(options, config, environment);
  DYNLIB_RETURN_IF_ERROR(impl->Open());
  return std::unique_ptr<StorageNode>(new StorageNode(std::move(impl)));
}

StorageNode::~StorageNode() { impl_->Abandon(); }
void StorageNode::Start(absl::AnyInvocable<void(absl::Status)> done) {
  impl_->Start(std::move(done));
}
void StorageNode::Stop(absl::AnyInvocable<void(absl::Status)> done) {
  impl_->Stop(std::move(done));
}
void StorageNode::Checkpoint(absl::AnyInvocable<void(absl::Status)> done) {
  impl_->Checkpoint(std::move(done));
}
void StorageNode::OnFatal(absl::AnyInvocable<void(absl::Status)> callback) {
  impl_->OnFatal(std::move(callback));
}
std::vector<replication::GroupStatus> StorageNode::Groups() const { return impl_->Groups(); }

void StorageNode::ScrubNow(PartitionId partition, absl::AnyInvocable<void(ScrubResult)> done) {
  impl_->ScrubNow(partition, std::move(done));
}

PartitionRange StorageNode::RangeOf(PartitionId partition) const {
  return impl_->RangeOf(partition);
}

}  // namespace dynlib::cluster
