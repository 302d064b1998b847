#include "dynlib/cluster/metadata_node.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/digest_coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/gac_service.h"
#include "dynlib/cluster/metadata_snapshot.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/sync_message.h"
#include "dynlib/partition_map/sync_session.h"

namespace dynlib::cluster {
namespace {

using partition_map::LookUpOutcome;
using partition_map::MemDs;
using partition_map::PartitionRecord;
using partition_map::TableRecord;

constexpr Duration kMillisecond = std::chrono::milliseconds(1);
constexpr Duration kTimeMax = std::chrono::minutes(10);
constexpr size_t kPushBytesMax = 4 << 20;
constexpr int kLookUpKeysMax = 1000;
constexpr Duration kSnapshotIntervalMin = std::chrono::seconds(1);
constexpr Duration kSnapshotIntervalMax = std::chrono::hours(24);

absl::Status CheckTime(std::string_view field, Duration value) {
  if (value >= kMillisecond && value <= kTimeMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat(field, " is ", ToMicros(value), " us; allowed: 1000 to ", ToMicros(kTimeMax)));
}

absl::Status Check(const ClusterConfig& config, NodeId self) {
  const std::vector<NodeId>& nodes = config.metadata_nodes;
  if (nodes.size() > kMetadataNodesMax) {
    return absl::InvalidArgumentError(Cat("config.metadata_nodes lists ", nodes.size(),
                                          " nodes; allowed: up to ", kMetadataNodesMax));
  }
  if (std::count(nodes.begin(), nodes.end(), self) != 1) {
    return absl::InvalidArgumentError(
        Cat("config.metadata_nodes does not list node ", self, " once"));
  }
  return absl::OkStatus();
}

template <typename ReplyMessage>
void Send(Rpc::Reply& reply, ReplyMessage message, const absl::Status& status) {
  message.mutable_outcome()->set_code(static_cast<int>(status.code()));
  message.mutable_outcome()->set_message(std::string(ToStd(status.message())));
  reply(message.SerializeAsString());
}

absl::Status DoesNotParse() { return absl::InvalidArgumentError("the request does not parse"); }

}  // namespace

absl::Status Validate(const MetadataNodeOptions& options) {
  if (options.id == NodeId{}) return absl::InvalidArgumentError("id is 0; allowed: at least 1");
  if (options.rpc.max_calls < 1)
    return absl::InvalidArgumentError("rpc.max_calls is 0; allowed: at least 1");
  if (options.rpc.max_serving < 1)
    return absl::InvalidArgumentError("rpc.max_serving is 0; allowed: at least 1");
  DYNLIB_RETURN_IF_ERROR(CheckTime("sync_interval", options.sync_interval));
  DYNLIB_RETURN_IF_ERROR(CheckTime("sync_timeout", options.sync_timeout));
  const Duration snapshots = options.snapshot_interval;
  if (snapshots >= kSnapshotIntervalMin && snapshots <= kSnapshotIntervalMax) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(Cat("snapshot_interval is ", ToMicros(snapshots),
                                        " us; allowed: ", ToMicros(kSnapshotIntervalMin), " to ",
                                        ToMicros(kSnapshotIntervalMax)));
}

class MetadataNode::Impl : public std::enable_shared_from_this<MetadataNode::Impl> {
 public:
  Impl(const MetadataNodeOptions& options, const ClusterConfig& config,
       const Environment& environment, std::shared_ptr<MemDs> map)
      : options_(options),
        env_(environment),
        map_(std::move(map)),
        started_(env_.clock->Now()),
        incarnation_(static_cast<uint64_t>(env_.clock->WallNow().nanos())),
        rpc_(std::make_unique<Rpc>(options.rpc, env_.transport, kRpcChannel, env_.executor,
                                   env_.clock, env_.metrics)) {
    std::copy_if(config.metadata_nodes.begin(), config.metadata_nodes.end(),
                 std::back_inserter(peers_), [&](NodeId node) { return node != options.id; });
  }

  absl::Status Prepare();
  // On the executor.
  void Start();
  void Close();
  Rpc* rpc() { return rpc_.get(); }
  bool ready() const {
    return vouched_for_ || env_.clock->Now() >= started_ + options_.map.warm_up;
  }
  partition_map::MemDsStatus status() const {
    partition_map::MemDsStatus status = map_->status(env_.clock->Now());
    status.ready = ready();
    return status;
  }

 private:
  template <typename Request>
  void Handle(Rpc::Method method, void (Impl::*serve)(NodeId, const Request&, Rpc::Reply));
  void LookUp(NodeId from, const wire::LookUpRequest& request, Rpc::Reply reply);
  void LookUpBatch(NodeId from, const wire::LookUpBatchRequest& request, Rpc::Reply reply);
  void DescribeTable(NodeId from, const wire::DescribeTableRequest& request, Rpc::Reply reply);
  void Push(NodeId from, const wire::PushRequest& request, Rpc::Reply reply);
  void Sync(NodeId from, const wire::MetadataSyncRequest& request, Rpc::Reply reply);
  void Status(NodeId from, const wire::MetadataStatusRequest& request, Rpc::Reply reply);
  std::optional<TableThroughput> ThroughputOf(TableId table) const;
  absl::Status Absent(LookUpOutcome outcome, std::string_view what) const;

  void SyncNext();
  void SyncStep();
  void OnSyncReply(absl::StatusOr<std::string> result);
  absl::Status TakeSyncReply(absl::StatusOr<std::string> result);
  void EndSync(const absl::Status& status);
  void SaveNext();
  void OnSaved(const absl::Status& status);

  const MetadataNodeOptions options_;
  const Environment env_;
  const std::shared_ptr<MemDs> map_;  // also of a snapshot that is being saved
  const Instant started_;
  const uint64_t incarnation_;
  std::vector<NodeId> peers_;
  std::unique_ptr<Rpc> rpc_;
  std::shared_ptr<GacService> admission_;
  bool vouched_for_ = false;  // a peer that was ready has told everything
  uint64_t look_ups_ = 0;
  uint64_t pushes_ = 0;

  Executor::TimerId timer_ = Executor::kNoTimer;
  Executor::TimerId save_timer_ = Executor::kNoTimer;
  bool saving_ = false;
  size_t turn_ = 0;  // of the peers
  NodeId peer_{};    // of session_
  bool peer_ready_ = false;
  std::optional<partition_map::SyncSession> session_;
};

template <typename Request>
void MetadataNode::Impl::Handle(Rpc::Method method,
                                void (Impl::*serve)(NodeId, const Request&, Rpc::Reply)) {
  rpc_->Handle(method, [this, serve](NodeId from, Instant, std::string bytes, Rpc::Reply reply) {
    Request request;
    if (request.ParseFromString(bytes)) return (this->*serve)(from, request, std::move(reply));
    env_.metrics->Count("metadata.malformed", 1);
    // Every reply has its outcome in the same place.
    Send(reply, wire::PushReply(), DoesNotParse());
  });
}

absl::Status MetadataNode::Impl::Prepare() {
  DYNLIB_ASSIGN_OR_RETURN(
      admission_, GacService::Create(
                      options_.admission, [this](TableId table) { return ThroughputOf(table); },
                      env_.executor, env_.clock, env_.metrics));
  return absl::OkStatus();
}

void MetadataNode::Impl::Start() {
  if (rpc_ == nullptr) return;  // closed
  admission_->Register(rpc_.get());
  Handle(kLookUp, &Impl::LookUp);
  Handle(kLookUpBatch, &Impl::LookUpBatch);
  Handle(kDescribeTable, &Impl::DescribeTable);
  Handle(kPush, &Impl::Push);
  Handle(kMetadataSync, &Impl::Sync);
  Handle(kMetadataStatus, &Impl::Status);
  if (!peers_.empty()) SyncNext();
  if (env_.disk != nullptr) SaveNext();
}

std::optional<TableThroughput> MetadataNode::Impl::ThroughputOf(TableId table) const {
  const partition_map::TableAnswer answer = map_->LookUpTable(table, env_.clock->Now());
  if (answer.outcome != LookUpOutcome::kFound) return std::nullopt;
  const absl::StatusOr<TableInfo> info = DecodeDescriptor(answer.record->descriptor);
  if (!info.ok()) return std::nullopt;
  return TableThroughput{answer.record->version, info->throughput};
}

void MetadataNode::Impl::Close() {
  env_.executor->Cancel(timer_);
  env_.executor->Cancel(save_timer_);
  admission_ = nullptr;
  rpc_ = nullptr;
}

absl::Status MetadataNode::Impl::Absent(LookUpOutcome outcome, std::string_view what) const {
  if (outcome == LookUpOutcome::kDropped)
    return absl::NotFoundError(Cat(what, ": the table was deleted"));
  if (ready()) return absl::NotFoundError(Cat(what, " is not known"));
  return absl::UnavailableError(Cat(what, " is not known yet; this node started ",
                                    ToMicros(env_.clock->Now() - started_) / 1000, " ms ago"));
}

void MetadataNode::Impl::LookUp(NodeId, const wire::LookUpRequest& request, Rpc::Reply reply) {
  ++look_ups_;
  env_.metrics->Count("metadata.look_ups", 1);
  const partition_map::LookUpAnswer answer =
      map_->LookUp(TableId{request.table()}, request.key(), env_.clock->Now());
  wire::LookUpReply message;
  if (answer.outcome != LookUpOutcome::kFound)
    return Send(reply, std::move(message), Absent(answer.outcome, "the key's partition"));
  message.set_record(partition_map::Encode(*answer.record));
  Send(reply, std::move(message), absl::OkStatus());
}

void MetadataNode::Impl::LookUpBatch(NodeId, const wire::LookUpBatchRequest& request,
                                     Rpc::Reply reply) {
  wire::LookUpBatchReply message;
  if (request.keys_size() > kLookUpKeysMax) {
    return Send(reply, std::move(message),
                absl::InvalidArgumentError(Cat("the request has ", request.keys_size(),
                                               " keys; allowed: up to ", kLookUpKeysMax)));
  }
  look_ups_ += static_cast<uint64_t>(request.keys_size());
  env_.metrics->Count("metadata.look_ups", request.keys_size());
  std::vector<partition_map::LookUpKey> keys;
  for (const wire::LookUpRequest& key : request.keys()) {
    keys.push_back({TableId{key.table()}, key.key()});
  }
  for (const partition_map::LookUpAnswer& found : map_->LookUpBatch(keys, env_.clock->Now())) {
    wire::LookUpReply& answer = *message.add_answers();
    if (found.outcome == LookUpOutcome::kFound) {
      answer.set_record(partition_map::Encode(*found.record));
      continue;
    }
    const absl::Status status = Absent(found.outcome, "the key's partition");
    answer.mutable_outcome()->set_code(static_cast<int>(status.code()));
    answer.mutable_outcome()->set_message(std::string(ToStd(status.message())));
  }
  Send(reply, std::move(message), absl::OkStatus());
}

void MetadataNode::Impl::DescribeTable(NodeId, const wire::DescribeTableRequest& request,
                                       Rpc::Reply reply) {
  env_.metrics->Count("metadata.describes", 1);
  const partition_map::TableAnswer answer = map_->LookUpTable(request.name(), env_.clock->Now());
  wire::DescribeTableReply message;
  if (answer.outcome != LookUpOutcome::kFound)
    return Send(reply, std::move(message), Absent(answer.outcome, "the table"));
  message.set_table(partition_map::Encode(*answer.record));
  Send(reply, std::move(message), absl::OkStatus());
}

void MetadataNode::Impl::Push(NodeId from, const wire::PushRequest& request, Rpc::Reply reply) {
  ++pushes_;
  env_.metrics->Count("metadata.pushes", 1);
  wire::PushReply message;
  message.set_incarnation(incarnation_);
  if (request.ByteSizeLong() > kPushBytesMax) {
    return Send(reply, std::move(message),
                absl::InvalidArgumentError(Cat("the request has ", request.ByteSizeLong(),
                                               " bytes; allowed: up to ", kPushBytesMax)));
  }
  absl::Status first_refusal;
  size_t refused = 0;
  auto decode = [&](const auto& encoded, auto decoder, auto& records) {
    for (const std::string& bytes : encoded) {
      auto record = decoder(bytes);
      if (record.ok()) {
        records.push_back(*std::move(record));
      } else if (refused++ == 0) {
        first_refusal = record.status();
      }
    }
  };
  std::vector<PartitionRecord> partitions;
  std::vector<TableRecord> tables;
  decode(request.partitions(), partition_map::DecodePartitionRecord, partitions);
  decode(request.tables(), partition_map::DecodeTableRecord, tables);
  // Tables first: tombstones make some of the partitions superfluous.
  for (const partition_map::PushResult& result :
       {map_->PushTables(tables), map_->Push(from, partitions, env_.clock->Now())}) {
    if (result.refused > 0 && refused == 0) first_refusal = result.first_refusal;
    refused += result.refused;
  }
  env_.metrics->Count("metadata.records", request.partitions_size() + request.tables_size());
  if (refused == 0) return Send(reply, std::move(message), absl::OkStatus());
  env_.metrics->Count("metadata.records_refused", static_cast<int64_t>(refused));
  Send(reply, std::move(message),
       absl::InvalidArgumentError(
           Cat(refused, " records are refused; the first: ", ToStd(first_refusal.message()))));
}

void MetadataNode::Impl::Sync(NodeId, const wire::MetadataSyncRequest& request, Rpc::Reply reply) {
  wire::MetadataSyncReply message;
  message.set_ready(ready());
  absl::StatusOr<partition_map::SyncRequest> asked =
      partition_map::DecodeSyncRequest(request.message());
  if (!asked.ok()) {
    env_.metrics->Count("metadata.malformed", 1);
    return Send(reply, std::move(message), DoesNotParse());
  }
  message.set_message(partition_map::Encode(map_->AnswerSync(*asked)));
  Send(reply, std::move(message), absl::OkStatus());
}

void MetadataNode::Impl::Status(NodeId, const wire::MetadataStatusRequest&, Rpc::Reply reply) {
  const partition_map::MemDsStatus now = status();
  wire::MetadataStatusReply message;
  message.set_partitions(now.partitions);
  message.set_tables(now.tables);
  message.set_look_ups(look_ups_);
  message.set_pushes(pushes_);
  std::string digest;
  PutDigest(digest, now.digest);
  message.set_digest(std::move(digest));
  message.set_ready(now.ready);
  if (now.since_in_step.has_value()) {
    message.set_since_in_step_us(static_cast<uint64_t>(ToMicros(*now.since_in_step)));
  }
  if (now.sources > 0) {
    message.set_oldest_source_age_us(static_cast<uint64_t>(ToMicros(now.oldest_source_age)));
  }
  message.set_sources(now.sources);
  message.set_from_snapshot(now.from_snapshot);
  Send(reply, std::move(message), absl::OkStatus());
}

// One session each interval; one that takes longer is not joined by another.
void MetadataNode::Impl::SyncNext() {
  timer_ =
      env_.executor->RunAt(env_.clock->Now() + options_.sync_interval, [weak = weak_from_this()] {
        if (auto self = weak.lock()) self->SyncNext();
      });
  if (session_.has_value()) return;
  peer_ = peers_[turn_++ % peers_.size()];
  peer_ready_ = false;
  session_.emplace(map_->StartSync());
  env_.metrics->Count("metadata.syncs", 1);
  SyncStep();
}

void MetadataNode::Impl::SyncStep() {
  std::optional<partition_map::SyncRequest> request = session_->Next();
  if (!request.has_value()) return EndSync(absl::OkStatus());
  wire::MetadataSyncRequest message;
  message.set_message(partition_map::Encode(*request));
  rpc_->Call(peer_, kMetadataSync, message.SerializeAsString(), options_.sync_timeout,
             [weak = weak_from_this()](absl::StatusOr<std::string> result) {
               auto self = weak.lock();
               if (self != nullptr && self->rpc_ != nullptr) self->OnSyncReply(std::move(result));
             });
}

void MetadataNode::Impl::OnSyncReply(absl::StatusOr<std::string> result) {
  if (absl::Status taken = TakeSyncReply(std::move(result)); !taken.ok()) return EndSync(taken);
  SyncStep();
}

absl::Status MetadataNode::Impl::TakeSyncReply(absl::StatusOr<std::string> result) {
  DYNLIB_RETURN_IF_ERROR(result.status());
  wire::MetadataSyncReply message;
  if (!message.ParseFromString(*result)) return absl::DataLossError("the reply does not parse");
  if (message.outcome().code() != 0) return absl::UnavailableError(message.outcome().message());
  // It must have been ready before it told the first thing.
  if (session_->counts().requests <= 1) peer_ready_ = message.ready();
  DYNLIB_ASSIGN_OR_RETURN(const partition_map::SyncReply reply,
                          partition_map::DecodeSyncReply(message.message()));
  return session_->OnReply(reply);
}

void MetadataNode::Impl::EndSync(const absl::Status& status) {
  if (status.ok() && peer_ready_) vouched_for_ = true;
  if (!status.ok()) env_.metrics->Count("metadata.syncs_failed", 1);
  map_->OnSynced(peer_, *session_, env_.clock->Now());
  session_.reset();
}

// One save each interval; one that takes longer is not joined by another.
void MetadataNode::Impl::SaveNext() {
  save_timer_ = env_.executor->RunAt(env_.clock->Now() + options_.snapshot_interval,
                                     [weak = weak_from_this()] {
                                       if (auto self = weak.lock()) self->SaveNext();
                                     });
  if (saving_ || map_->view()->entries().empty()) return;
  saving_ = true;
  env_.disk_executor->Post(
      [weak = weak_from_this(), map = map_, disk = env_.disk, executor = env_.executor] {
        absl::Status status = SaveMetadataSnapshot(*map, disk);
        executor->Post([weak, status = std::move(status)] {
          if (auto self = weak.lock()) self->OnSaved(status);
        });
      });
}

void MetadataNode::Impl::OnSaved(const absl::Status& status) {
  saving_ = false;
  env_.metrics->Count(status.ok() ? "metadata.snapshots" : "metadata.snapshots_failed", 1);
}

namespace {

// From the snapshot, if there is a sound one.
absl::StatusOr<std::unique_ptr<MemDs>> StartMap(const MetadataNodeOptions& options,
                                                const MetadataNode::Environment& environment) {
  const Instant now = environment.clock->Now();
  if (environment.disk == nullptr) return MemDs::Create(options.map, now);
  const absl::StatusOr<std::string> snapshot = LoadMetadataSnapshot(environment.disk);
  if (snapshot.ok()) {
    absl::StatusOr<std::unique_ptr<MemDs>> map = MemDs::Create(options.map, now, *snapshot);
    // What is wrong with the options is said below.
    if (map.ok()) return map;
  }
  if (snapshot.status().code() != absl::StatusCode::kNotFound) {
    environment.metrics->Count("metadata.snapshots_unusable", 1);
  }
  return MemDs::Create(options.map, now);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataNode>> MetadataNode::Create(
    const MetadataNodeOptions& options, const ClusterConfig& config,
    const Environment& environment) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  DYNLIB_RETURN_IF_ERROR(Check(config, options.id));
  if ((environment.disk == nullptr) != (environment.disk_executor == nullptr)) {
    return absl::InvalidArgumentError("disk and disk_executor: both or none");
  }
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<MemDs> map, StartMap(options, environment));
  auto impl = std::make_shared<Impl>(options, config, environment, std::move(map));
  DYNLIB_RETURN_IF_ERROR(impl->Prepare());
  if (environment.disk == nullptr) {
    impl->Start();
  } else {
    environment.executor->Post([impl] { impl->Start(); });
  }
  return std::unique_ptr<MetadataNode>(new MetadataNode(std::move(impl)));
}

MetadataNode::MetadataNode(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetadataNode::~MetadataNode() { impl_->Close(); }
Rpc* MetadataNode::rpc() { return impl_->rpc(); }
bool MetadataNode::ready() const { return impl_->ready(); }
partition_map::MemDsStatus MetadataNode::status() const { return impl_->status(); }

}  // namespace dynlib::cluster
