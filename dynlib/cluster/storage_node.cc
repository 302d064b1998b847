#include "dynlib/cluster/storage_node.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/node_directory.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/storage_service.h"
#include "dynlib/replication/group_host.h"

namespace dynlib::cluster {
namespace {

constexpr std::string_view kPagesFile = "pages";
constexpr std::string_view kLogDir = "log";

uint64_t LogBatchBytes(const store::NodeLog::Options& log) {
  if (log.max_batch_bytes != 0) return log.max_batch_bytes;
  return std::min<uint64_t>(4 << 20, log.segment_bytes / 4);
}

absl::Status Validate(const StorageNodeOptions& options) {
  if (ToUint(options.id) == 0)
    return absl::InvalidArgumentError("node.id is 0; allowed: at least 1");
  DYNLIB_RETURN_IF_ERROR(replication::Validate(options.replication));
  if (options.rpc.max_calls < 1)
    return absl::InvalidArgumentError("rpc.max_calls is 0; allowed: at least 1");
  if (options.rpc.max_serving < 1)
    return absl::InvalidArgumentError("rpc.max_serving is 0; allowed: at least 1");
  const uint64_t proposal = options.replication.group.proposal_bytes_max + 1024;
  if (LogBatchBytes(options.log) < proposal) {
    return absl::InvalidArgumentError(
        Cat("log.max_batch_bytes is ", LogBatchBytes(options.log),
            "; allowed: at least group.proposal_bytes_max + 1,024 = ", proposal));
  }
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
      : options_(options), config_(config), env_(environment) {}

  absl::Status Open();
  void Start(absl::AnyInvocable<void(absl::Status)> done);
  void Stop(absl::AnyInvocable<void(absl::Status)> done);
  void Checkpoint(absl::AnyInvocable<void(absl::Status)> done);
  std::vector<replication::GroupStatus> Groups() const;
  PartitionRange RangeOf(PartitionId partition) const;
  void Abandon();
  void Quiesce();
  void OnFatal(absl::AnyInvocable<void(absl::Status)> callback) { on_fatal_ = std::move(callback); }

 private:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  absl::Status OpenTrees(bool fresh);
  absl::StatusOr<std::shared_ptr<Replica>> MakeReplica(std::string description);
  void FinishStart();
  void Handle(Rpc::Method method, void (Impl::*handler)(const std::string&, Rpc::Reply));
  void CreateReplica(const std::string& bytes, Rpc::Reply reply);
  void FinishCreateReplica(absl::StatusOr<std::shared_ptr<Replica>> replica, PartitionId partition,
                           Rpc::Reply reply);
  void NodeStatus(const std::string& bytes, Rpc::Reply reply);
  void OnAppended(size_t bytes);
  void RequestCheckpoint();
  void FinishCheckpoint(const absl::Status& status);
  void ReportFatal(const absl::Status& why);
  void CloseLog(absl::Status checkpointed, Done done);

  const StorageNodeOptions options_;
  const ClusterConfig config_;
  const Environment env_;

  NodeDirectory directory_;
  store::NodeLog::Recovery recovery_;
  std::unique_ptr<store::NodeLog> log_;
  std::unique_ptr<store::PageFile> pages_;
  std::unique_ptr<NodeLogAdapter> replica_log_;
  ReplicaMap replicas_;
  std::set<PartitionId> creating_;
  std::unique_ptr<replication::GroupHost> host_;
  std::unique_ptr<StorageService> service_;
  std::unique_ptr<Rpc> rpc_;
  bool stopping_ = false;
  Done on_fatal_;

  uint64_t logged_bytes_ = 0;  // Since the last checkpoint began.
  bool checkpointing_ = false;
  bool checkpoint_again_ = false;
  std::vector<Done> checkpoint_waiters_;
  Executor::TimerId checkpoint_timer_ = Executor::kNoTimer;
};

absl::Status StorageNode::Impl::Open() {
  DYNLIB_RETURN_IF_ERROR(Validate(options_));
  DYNLIB_RETURN_IF_ERROR(Validate(config_, options_.id));
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
  DYNLIB_RETURN_IF_ERROR(OpenTrees(directory_.fresh));
  if (directory_.fresh) {
    DYNLIB_RETURN_IF_ERROR(env_.disk->SyncDir(""));
    DYNLIB_RETURN_IF_ERROR(WriteFormat(env_.disk, options_.id));
  }
  replica_log_ =
      std::make_unique<NodeLogAdapter>(log_.get(), LogBatchBytes(options_.log), env_.executor,
                                       [this](size_t bytes) { OnAppended(bytes); });
  host_ = std::make_unique<replication::GroupHost>(
      options_.replication, options_.id, env_.transport, kReplicationChannel, replica_log_.get(),
      env_.executor, env_.clock, env_.metrics);
  service_ =
      std::make_unique<StorageService>(&replicas_, host_.get(), env_.executor, env_.apply_executor,
                                       options_.faults.condition_at_leader);
  return absl::OkStatus();
}

absl::Status StorageNode::Impl::OpenTrees(bool fresh) {
  const std::vector<NodeId>& holders = config_.catalogue_nodes;
  if (fresh && std::find(holders.begin(), holders.end(), options_.id) != holders.end() &&
      pages_->FindTree(store::TreeId{ToUint(kCataloguePartition)}) == nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(std::shared_ptr<Replica> catalogue,
                            MakeReplica(CatalogueDescription(config_)));
    DYNLIB_RETURN_IF_ERROR(pages_->Checkpoint());
  }
  for (store::TreeId id : pages_->Trees()) {
    auto replica = std::make_shared<Replica>(pages_->FindTree(id));
    DYNLIB_ASSIGN_OR_RETURN(std::string description, TableStateMachine::Describe(*replica->tree));
    if (absl::Status status = ParseDescription(description, *replica); !status.ok()) {
      return absl::DataLossError(Cat("tree ", id, ": ", ToStd(status.message())));
    }
    replicas_[replica->partition] = std::move(replica);
  }
  return absl::OkStatus();
}

// A tree with its description in it; durable with the next checkpoint.
absl::StatusOr<std::shared_ptr<Replica>> StorageNode::Impl::MakeReplica(std::string description) {
  Replica parsed(nullptr);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, parsed));
  const store::TreeId id{ToUint(parsed.partition)};
  store::Tree* tree = pages_->FindTree(id);  // There already if a creation failed midway.
  if (tree == nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(tree, pages_->CreateTree(id));
  }
  auto replica = std::make_shared<Replica>(tree);
  DYNLIB_RETURN_IF_ERROR(ParseDescription(description, *replica));
  DYNLIB_RETURN_IF_ERROR(TableStateMachine::Initialise(*tree, std::move(description)));
  return replica;
}

void StorageNode::Impl::Start(Done done) {
  host_->OnFatal([this](absl::Status why) { ReportFatal(why); });
  for (auto& [partition, replica] : replicas_) {
    const absl::Status added =
        host_->AddGroup(partition, replica->configuration, &replica->state_machine,
                        env_.apply_executor, TakeStream(recovery_, partition));
    if (!added.ok()) {
      env_.executor->Post([done = std::move(done), added]() mutable { done(added); });
      return;
    }
  }
  const replication::RecoveredStream node_stream = TakeStream(recovery_, PartitionId{0});
  recovery_ = {};
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
  Handle(kCreateReplica, &Impl::CreateReplica);
  Handle(kNodeStatus, &Impl::NodeStatus);
}

void StorageNode::Impl::Handle(Rpc::Method method,
                               void (Impl::*handler)(const std::string&, Rpc::Reply)) {
  rpc_->Handle(method, [this, handler](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
    (this->*handler)(bytes, std::move(reply));
  });
}

void StorageNode::Impl::CreateReplica(const std::string& bytes, Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) {
    wire::CreateReplicaReply message;
    message.mutable_outcome()->set_code(static_cast<int>(status.code()));
    message.mutable_outcome()->set_message(std::string(ToStd(status.message())));
    reply(message.SerializeAsString());
  };
  if (stopping_) return answer(absl::CancelledError("shut down"));
  Replica parsed(nullptr);
  if (absl::Status status = ParseDescription(bytes, parsed); !status.ok()) return answer(status);
  if (parsed.configuration.FindNode(options_.id) == nullptr) {
    return answer(absl::InvalidArgumentError(
        Cat("partition ", parsed.partition, " has no member on node ", options_.id)));
  }
  if (auto it = replicas_.find(parsed.partition); it != replicas_.end()) {
    if (it->second->description == bytes) return answer(absl::OkStatus());
    return answer(absl::AlreadyExistsError(
        Cat("partition ", parsed.partition, " is here with another description")));
  }
  if (!creating_.insert(parsed.partition).second) {
    return answer(absl::UnavailableError(Cat("partition ", parsed.partition, " is being made")));
  }
  // Durable before the replica speaks: a vote of a replica that is forgotten would be a lost vote
  // (R3).
  env_.checkpoint_executor->Post([self = shared_from_this(), partition = parsed.partition, bytes,
                                  reply = std::move(reply)]() mutable {
    absl::StatusOr<std::shared_ptr<Replica>> replica = self->MakeReplica(bytes);
    if (replica.ok()) {
      if (absl::Status status = self->pages_->Checkpoint(); !status.ok()) replica = status;
    }
    Executor* executor = self->env_.executor;
    executor->Post([self = std::move(self), partition, replica = std::move(replica),
                    reply = std::move(reply)]() mutable {
      self->FinishCreateReplica(std::move(replica), partition, std::move(reply));
    });
  });
}

void StorageNode::Impl::FinishCreateReplica(absl::StatusOr<std::shared_ptr<Replica>> replica,
                                            PartitionId partition, Rpc::Reply reply) {
  creating_.erase(partition);
  absl::Status status = replica.status();
  if (stopping_) status = absl::CancelledError("shut down");
  if (status.ok()) {
    replicas_[partition] = *replica;
    status = host_->AddGroup(partition, (*replica)->configuration, &(*replica)->state_machine,
                             env_.apply_executor, {});
  }
  wire::CreateReplicaReply message;
  message.mutable_outcome()->set_code(static_cast<int>(status.code()));
  message.mutable_outcome()->set_message(std::string(ToStd(status.message())));
  reply(message.SerializeAsString());
}

void StorageNode::Impl::NodeStatus(const std::string& bytes, Rpc::Reply reply) {
  wire::NodeStatusReply message;
  wire::Outcome& outcome = *message.mutable_outcome();
  if (!wire::NodeStatusRequest().ParseFromString(bytes)) {
    outcome.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
    outcome.set_message("the request does not parse");
    return reply(message.SerializeAsString());
  }
  for (const replication::GroupStatus& group : host_->AllStatus()) {
    wire::ReplicaStatus& replica = *message.add_replicas();
    replica.set_partition(ToUint(group.group));
    replica.set_replica(ToUint(group.self));
    replica.set_role(std::string(replication::RoleName(group.role)));
    if (group.leader.has_value()) replica.set_leader_node(ToUint(group.leader->node));
    replica.set_holds_lease(group.holds_lease);
    replica.set_failed(group.failed);
    replica.set_chosen(group.chosen);
    replica.set_applied(group.applied);
    replica.set_durable(replicas_.at(group.group)->tree->durable_position());
  }
  reply(message.SerializeAsString());
}

void StorageNode::Impl::OnAppended(size_t bytes) {
  logged_bytes_ += bytes;
  if (stopping_) return;
  if (logged_bytes_ >= options_.checkpoint_log_bytes) {
    RequestCheckpoint();
  } else if (checkpoint_timer_ == Executor::kNoTimer) {
    checkpoint_timer_ = env_.executor->RunAt(env_.clock->Now() + options_.checkpoint_interval,
                                             [self = shared_from_this()] {
                                               self->checkpoint_timer_ = Executor::kNoTimer;
                                               if (!self->stopping_) self->RequestCheckpoint();
                                             });
  }
}

void StorageNode::Impl::Checkpoint(Done done) {
  if (stopping_) {  // The directory may be another's by now.
    env_.executor->Post(
        [done = std::move(done)]() mutable { done(absl::CancelledError("shut down")); });
    return;
  }
  checkpoint_waiters_.push_back(std::move(done));
  RequestCheckpoint();
}

void StorageNode::Impl::RequestCheckpoint() {
  if (checkpointing_) {
    checkpoint_again_ = true;
    return;
  }
  checkpointing_ = true;
  logged_bytes_ = 0;
  env_.checkpoint_executor->Post([self = shared_from_this(),
                                  waiters = std::exchange(checkpoint_waiters_, {})]() mutable {
    const absl::Status status =
        self->options_.faults.checkpoint_before_log ? absl::OkStatus() : self->pages_->Checkpoint();
    Executor* executor = self->env_.executor;
    executor->Post([self = std::move(self), status, waiters = std::move(waiters)]() mutable {
      self->FinishCheckpoint(status);
      for (Done& done : waiters) done(status);
    });
  });
}

void StorageNode::Impl::FinishCheckpoint(const absl::Status& status) {
  checkpointing_ = false;
  if (status.ok()) {
    for (auto& [partition, replica] : replicas_) {
      // From the older of the two checkpoints on, so that the loss of the newest superblock loses
      // nothing.
      const Slot durable = options_.faults.checkpoint_before_log
                               ? replica->tree->position()
                               : replica->tree->fallback_position();
      host_->Checkpointed(partition, durable);
    }
  } else {
    const EventField fields[] = {{"node", Cat(options_.id)},
                                 {"why", std::string(ToStd(status.message()))}};
    env_.metrics->Event("node.checkpoint_failed", fields);
    // Without space a later checkpoint may succeed; anything else is for good (L3).
    if (!absl::IsResourceExhausted(status) && !absl::IsUnavailable(status)) ReportFatal(status);
  }
  // After a failure the next one waits for as much log, or as long, as ever.
  const bool again = std::exchange(checkpoint_again_, false);
  if (stopping_ || (!status.ok() && checkpoint_waiters_.empty())) return;
  if (again) RequestCheckpoint();
}

void StorageNode::Impl::ReportFatal(const absl::Status& why) {
  if (on_fatal_ == nullptr || stopping_) return;
  std::exchange(on_fatal_, nullptr)(why);
}

std::vector<replication::GroupStatus> StorageNode::Impl::Groups() const {
  return host_->AllStatus();
}

PartitionRange StorageNode::Impl::RangeOf(PartitionId partition) const {
  auto it = replicas_.find(partition);
  return it == replicas_.end() ? PartitionRange{}
                               : PartitionRange{it->second->first, it->second->end};
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
  rpc_ = nullptr;  // Every request was answered by now.
  log_->Close(env_.executor, [self = shared_from_this(), checkpointed = std::move(checkpointed),
                              done = std::move(done)](absl::Status closed) mutable {
    self->directory_.lock = nullptr;
    for (Done& waiter : std::exchange(self->checkpoint_waiters_, {}))
      waiter(absl::CancelledError("shut down"));
    done(checkpointed.ok() ? closed : checkpointed);
  });
}

void StorageNode::Impl::Abandon() {
  Quiesce();
  rpc_ = nullptr;
}

// What waits is answered, and what comes is refused, for as long as there is an rpc_ to say so.
void StorageNode::Impl::Quiesce() {
  if (stopping_) return;
  stopping_ = true;
  if (checkpoint_timer_ != Executor::kNoTimer) env_.executor->Cancel(checkpoint_timer_);
  if (host_ != nullptr) host_->Stop();
  if (service_ != nullptr) service_->Stop();
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

PartitionRange StorageNode::RangeOf(PartitionId partition) const {
  return impl_->RangeOf(partition);
}

}  // namespace dynlib::cluster
