#include "dynlib/cluster/storage_service.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/item_limits.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/routing_record.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::cluster {
namespace {

template <typename Message>
bool Parse(const std::string& bytes, Message& message) {
  return message.ParseFromString(bytes);
}

template <typename ReplyMessage>
void Send(Rpc::Reply& reply, ReplyMessage message, const absl::Status& status, NodeId leader = {},
          std::string newest = {}, uint64_t consumed_milliunits = 0) {
  wire::Outcome& outcome = *message.mutable_outcome();
  outcome.set_code(static_cast<int>(status.code()));
  outcome.set_message(std::string(ToStd(status.message())));
  outcome.set_leader_node(ToUint(leader));
  outcome.set_newest(std::move(newest));
  if (const std::optional<Duration> wait = RetryAfter(status); wait.has_value())
    outcome.set_retry_after_us(static_cast<uint64_t>(ToMicros(*wait)));
  outcome.set_consumed_milliunits(consumed_milliunits);
  reply(message.SerializeAsString());
}

// The router checked all this; the network may bring something else.
absl::Status CheckWrite(const Replica& replica, const wire::WriteCommand& command) {
  if (command.key().size() > kStorageKeyBytesMax) {
    return absl::InvalidArgumentError(
        Cat("key is ", command.key().size(), " bytes; allowed: up to ", kStorageKeyBytesMax));
  }
  DYNLIB_RETURN_IF_ERROR(replica.CheckKey(command.key()));
  auto as_argument = [](std::string_view field, const absl::Status& status) {
    return absl::InvalidArgumentError(Cat(field, ": ", ToStd(status.message())));
  };
  if (command.change_case() == wire::WriteCommand::kPut) {
    absl::StatusOr<Item> item = DecodeItem(command.put());
    if (!item.ok()) return as_argument("item", item.status());
    DYNLIB_RETURN_IF_ERROR(ValidateItem(replica.schema, *item));
    DYNLIB_ASSIGN_OR_RETURN(std::string key, EncodeItemKey(replica.schema, *item));
    if (key != command.key())
      return absl::InvalidArgumentError("the item's key is not the one that the request names");
  } else {
    absl::StatusOr<PrimaryKey> key = DecodeKey(replica.schema, command.key());
    if (!key.ok()) return as_argument("key", key.status());
    if (command.change_case() != wire::WriteCommand::kErase)
      return absl::InvalidArgumentError("neither put nor erase is given");
  }
  if (!command.condition().empty()) {
    absl::StatusOr<Condition> condition = DecodeCondition(command.condition());
    if (!condition.ok()) return as_argument("condition", condition.status());
  }
  return absl::OkStatus();
}

struct ReadResult {
  absl::Status status;
  wire::ReadReply reply;
  uint64_t bytes = 0;  // of the items read
};

struct QueryResult {
  absl::Status status;
  wire::QueryReply reply;
  uint64_t bytes = 0;
};

// Nothing was logged, so that nothing is paid.
bool NotLogged(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsResourceExhausted(status) ||
         absl::IsInvalidArgument(status);
}

// Answers a read that was carried out, or tried.
template <typename Result>
void SendRead(Rpc::Reply& reply, Result& result, AdmittedRequest& admitted) {
  if (!result.status.ok()) {
    admitted.Undo();
    return Send(reply, std::move(result.reply), result.status);
  }
  const uint64_t cost = admitted.Finish(result.bytes);
  Send(reply, std::move(result.reply), result.status, {}, {}, cost);
}

void ReadItem(const Replica& replica, const std::string& key, ReadResult& result) {
  absl::StatusOr<std::optional<std::string>> item = replica.state_machine.Get(key);
  result.status = item.status();
  if (!item.ok() || !item->has_value()) return;
  result.bytes = (*item)->size();
  result.reply.set_found(true);
  result.reply.set_item(**std::move(item));
}

void RunScan(const Replica& replica, const wire::QueryRequest& request, QueryResult& result) {
  uint64_t& bytes = result.bytes;
  result.status = replica.state_machine.Scan(
      request.first(), request.end(), request.reverse(),
      [&](std::string_view key, std::string_view item) {
        const bool full = request.limit() > 0 &&
                          result.reply.rows_size() >= static_cast<int64_t>(request.limit());
        if (full ||
            (result.reply.rows_size() > 0 && bytes + key.size() + item.size() > kQueryBytesMax)) {
          result.reply.set_more(true);
          return false;
        }
        bytes += key.size() + item.size();
        wire::QueryReply::Row& row = *result.reply.add_rows();
        row.set_key(key.data(), key.size());
        row.set_item(item.data(), item.size());
        return true;
      });
  if (!result.status.ok()) result.reply.Clear();
}

}  // namespace

StorageService::StorageService(const ReplicaSet* replicas, replication::GroupHost* host,
                               const RoutingRecords* records, NodeAdmissionControl* admission,
                               Executor* executor, Executor* apply_executor,
                               bool condition_at_leader_for_test)
    : replicas_(replicas),
      host_(host),
      records_(records),
      admission_(admission),
      executor_(executor),
      apply_executor_(apply_executor),
      condition_at_leader_(condition_at_leader_for_test) {}

void StorageService::Register(Rpc* rpc) {
  rpc->Handle(kWrite, [this](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
    Write(bytes, std::move(reply));
  });
  rpc->Handle(kRead, [this](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
    Read(bytes, std::move(reply));
  });
  rpc->Handle(kQuery, [this](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
    Query(bytes, std::move(reply));
  });
}

absl::StatusOr<std::shared_ptr<Replica>> StorageService::Find(uint64_t partition) const {
  if (stopped_) return absl::CancelledError("shut down");
  std::shared_ptr<Replica> replica = replicas_->Find(PartitionId{partition});
  if (replica == nullptr || replica->copying || replica->failed.has_value())
    return absl::NotFoundError(Cat("partition ", partition, " is not on this node"));
  if (replica->ended.has_value())
    return absl::NotFoundError(Cat("partition ", partition, " was split or merged"));
  if (replica->kind == replication::MemberKind::kLog)
    return absl::NotFoundError(Cat("partition ", partition, " has no items on this node"));
  return replica;
}

// Who has the key, for a router that was led to the wrong node.
std::string StorageService::Newest(uint64_t partition, uint64_t table, std::string_view key) const {
  std::shared_ptr<Replica> replica;
  if (table != 0) replica = replicas_->FindKey(TableId{table}, key);
  if (replica == nullptr) replica = replicas_->Find(PartitionId{partition});
  if (replica == nullptr) return {};
  const std::optional<replication::GroupStatus> status = host_->Status(replica->partition);
  if (!status.has_value()) return {};
  return partition_map::Encode(records_->Of(*replica, *status));
}

NodeId StorageService::LeaderOf(PartitionId partition) const {
  const std::optional<replication::GroupStatus> status = host_->Status(partition);
  return status.has_value() && status->leader.has_value() ? status->leader->node : NodeId{};
}

void StorageService::Write(const std::string& bytes, Rpc::Reply reply) {
  wire::WriteRequest request;
  if (!Parse(bytes, request))
    return Send(reply, wire::WriteReply(),
                absl::InvalidArgumentError("the request does not parse"));
  absl::StatusOr<std::shared_ptr<Replica>> replica = Find(request.partition());
  absl::Status fit = replica.status();
  if (fit.ok()) fit = CheckWrite(**replica, request.command());
  if (!fit.ok()) {
    return Send(reply, wire::WriteReply(), fit, {},
                Newest(request.partition(), request.table(), request.command().key()));
  }
  if (condition_at_leader_ && !request.command().condition().empty()) {
    const absl::StatusOr<std::optional<std::string>> current =
        (*replica)->state_machine.Get(request.command().key());
    const absl::StatusOr<Condition> condition = DecodeCondition(request.command().condition());
    std::optional<Item> item;
    if (current.ok() && current->has_value()) item = *DecodeItem(**current);
    if (!Holds(*condition, item.has_value() ? &*item : nullptr)) {
      return Send(reply, wire::WriteReply(), absl::AbortedError("the condition does not hold"));
    }
    request.mutable_command()->clear_condition();
  }
  absl::StatusOr<AdmittedRequest> admitted = admission_->AdmitWrite(
      (*replica)->partition, request.command().key(), request.command().put().size());
  if (!admitted.ok()) return Send(reply, wire::WriteReply(), admitted.status());
  replication::Command command{.client = ClientId{request.client()},
                               .sequence = request.sequence(),
                               .acknowledged = request.acknowledged(),
                               .issued = WallTime::FromNanos(request.issued_ns()),
                               .command = request.command().SerializeAsString()};
  host_->Propose((*replica)->partition, std::move(command),
                 [admitted = *std::move(admitted),
                  reply = std::move(reply)](replication::ProposalResult result) mutable {
                   wire::WriteResult told;
                   if (result.status.ok() &&
                       (!told.ParseFromString(result.result) || told.condition_failed())) {
                     result.status = absl::AbortedError("the condition does not hold");
                   }
                   const NodeId leader =
                       result.leader_hint.has_value() ? result.leader_hint->node : NodeId{};
                   uint64_t cost = 0;
                   if (NotLogged(result.status)) {
                     admitted.Undo();
                   } else {
                     cost = admitted.Finish();
                   }
                   wire::WriteReply message;
                   if (absl::IsResourceExhausted(result.status) && result.retry_after.has_value()) {
                     result.status = ThrottledError(std::string(ToStd(result.status.message())),
                                                    *result.retry_after);
                     message.mutable_outcome()->set_full(true);
                   }
                   Send(reply, std::move(message), result.status, leader, {}, cost);
                 });
}

void StorageService::Read(const std::string& bytes, Rpc::Reply reply) {
  wire::ReadRequest request;
  if (!Parse(bytes, request))
    return Send(reply, wire::ReadReply(), absl::InvalidArgumentError("the request does not parse"));
  absl::StatusOr<std::shared_ptr<Replica>> found = Find(request.partition());
  absl::Status fit = found.status();
  if (fit.ok()) fit = (*found)->CheckKey(request.key());
  if (!fit.ok()) {
    return Send(reply, wire::ReadReply(), fit, {},
                Newest(request.partition(), request.table(), request.key()));
  }
  std::shared_ptr<Replica> replica = *std::move(found);
  absl::StatusOr<AdmittedRequest> admitted =
      admission_->AdmitRead(replica->partition, request.key(), request.strong());
  if (!admitted.ok()) return Send(reply, wire::ReadReply(), admitted.status());
  auto result = std::make_shared<ReadResult>();
  if (!request.strong()) {
    apply_executor_->Post([replica, key = request.key(), result, admitted = *std::move(admitted),
                           reply = std::move(reply)]() mutable {
      ReadItem(*replica, key, *result);
      SendRead(reply, *result, admitted);
    });
    return;
  }
  host_->Read(
      replica->partition,
      [replica, key = request.key(), result] { ReadItem(*replica, key, *result); },
      [this, partition = replica->partition, result, admitted = *std::move(admitted),
       reply = std::move(reply)](absl::Status status) mutable {
        if (status.ok()) return SendRead(reply, *result, admitted);
        admitted.Undo();
        Send(reply, wire::ReadReply(), status, LeaderOf(partition));
      });
}

void StorageService::Query(const std::string& bytes, Rpc::Reply reply) {
  wire::QueryRequest request;
  if (!Parse(bytes, request))
    return Send(reply, wire::QueryReply(),
                absl::InvalidArgumentError("the request does not parse"));
  absl::StatusOr<std::shared_ptr<Replica>> found = Find(request.partition());
  absl::Status fit = found.status();
  if (fit.ok()) fit = (*found)->CheckRange(request.first(), request.end());
  if (!fit.ok()) {
    return Send(reply, wire::QueryReply(), fit, {},
                Newest(request.partition(), request.table(), request.first()));
  }
  std::shared_ptr<Replica> replica = *std::move(found);
  absl::StatusOr<AdmittedRequest> admitted =
      admission_->AdmitRead(replica->partition, request.first(), request.strong());
  if (!admitted.ok()) return Send(reply, wire::QueryReply(), admitted.status());
  auto result = std::make_shared<QueryResult>();
  if (!request.strong()) {
    apply_executor_->Post([replica, request, result, admitted = *std::move(admitted),
                           reply = std::move(reply)]() mutable {
      RunScan(*replica, request, *result);
      SendRead(reply, *result, admitted);
    });
    return;
  }
  host_->Read(
      replica->partition, [replica, request, result] { RunScan(*replica, request, *result); },
      [this, partition = replica->partition, result, admitted = *std::move(admitted),
       reply = std::move(reply)](absl::Status status) mutable {
        if (status.ok()) return SendRead(reply, *result, admitted);
        admitted.Undo();
        Send(reply, wire::QueryReply(), status, LeaderOf(partition));
      });
}

}  // namespace dynlib::cluster
