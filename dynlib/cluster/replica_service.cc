#include "dynlib/cluster/replica_service.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_state_machine.h"

namespace dynlib::cluster {
namespace {

using WireMembers = google::protobuf::RepeatedPtrField<wire::Member>;

constexpr Duration kSizeAge = std::chrono::seconds(1);

template <typename Message>
void Send(Rpc::Reply& reply, Message message, const absl::Status& status) {
  wire::Outcome& outcome = *message.mutable_outcome();
  outcome.set_code(static_cast<int>(status.code()));
  outcome.set_message(std::string(ToStd(status.message())));
  reply(message.SerializeAsString());
}

replication::Member ToMember(const wire::Member& member) {
  return {ReplicaId{member.replica()}, NodeId{member.node()},
          member.kind() == wire::LOG ? replication::MemberKind::kLog
                                     : replication::MemberKind::kStorage};
}

const replication::Member& ToMember(const replication::Member& member) { return member; }

void ToWire(const replication::Member& member, wire::Member& to) {
  to.set_replica(ToUint(member.replica));
  to.set_node(ToUint(member.node));
  to.set_kind(member.kind == replication::MemberKind::kLog ? wire::LOG : wire::STORAGE);
}

absl::Status NotHere(uint64_t partition) {
  return absl::NotFoundError(Cat("partition ", partition, " is not on this node"));
}

// As in "1 2 3(log)", in their order.
template <typename Members>
std::string NodesOf(const Members& members) {
  std::string nodes;
  for (const auto& member : members) {
    const replication::Member m = ToMember(member);
    nodes += Cat(nodes.empty() ? "" : " ", m.node,
                 m.kind == replication::MemberKind::kLog ? "(log)" : "");
  }
  return nodes;
}

// Of the members of the merged partition those that are members of this half.
size_t CountHolders(const WireMembers& members, const replication::Configuration& half) {
  return static_cast<size_t>(
      std::count_if(members.begin(), members.end(), [&](const wire::Member& member) {
        const replication::Member* holder = half.FindNode(NodeId{member.node()});
        return holder != nullptr && holder->kind == ToMember(member).kind;
      }));
}

absl::Status CheckMajority(const WireMembers& merged, PartitionId partition,
                           const replication::Configuration& half) {
  const size_t holders = CountHolders(merged, half);
  if (holders > static_cast<size_t>(merged.size()) / 2) return absl::OkStatus();
  return absl::FailedPreconditionError(
      Cat("the merged partition is to be on nodes ", NodesOf(merged), ", of which only ", holders,
          " have partition ", partition, ": it is on nodes ", NodesOf(half.members), " now"));
}

absl::Status CheckSameNodes(const WireMembers& merged, PartitionId partition,
                            const replication::Configuration& half) {
  const size_t count = half.members.size();
  if (static_cast<size_t>(merged.size()) == count && CountHolders(merged, half) == count)
    return absl::OkStatus();
  return absl::FailedPreconditionError(Cat("the merged partition is to be on nodes ",
                                           NodesOf(merged), ", but partition ", partition,
                                           " is on nodes ", NodesOf(half.members), " now"));
}

// By an entry that names the present members. One that waited for others would be too late.
absl::Status MayEnd(const std::optional<replication::GroupStatus>& status) {
  if (!status.has_value() || status->role != replication::Role::kLeader)
    return absl::FailedPreconditionError("not the leader");
  if (status->changing)
    return absl::FailedPreconditionError("its members are being changed, or its log is ending");
  return absl::OkStatus();
}

// A log ends once, whoever asks.
ClientId EndingClient(PartitionId partition) {
  std::string seed("end");
  PutFixed64(seed, ToUint(partition));
  return ClientId{Checksum(seed) | 1};
}

}  // namespace

template <typename Request, typename Reply>
void ReplicaService::Handle(Rpc* rpc, Rpc::Method method,
                            void (ReplicaService::*handler)(const Request&, Rpc::Reply)) {
  rpc->Handle(method, [self = shared_from_this(), handler](NodeId, Instant, std::string bytes,
                                                           Rpc::Reply reply) {
    Request request;
    if (self->stopped_) return Send(reply, Reply(), absl::CancelledError("shut down"));
    if (!request.ParseFromString(bytes))
      return Send(reply, Reply(), absl::InvalidArgumentError("the request does not parse"));
    (self.get()->*handler)(request, std::move(reply));
  });
}

void ReplicaService::Register(Rpc* rpc) {
  Handle<wire::CreateReplicaRequest, wire::CreateReplicaReply>(rpc, kCreateReplica,
                                                               &ReplicaService::CreateReplica);
  Handle<wire::DropReplicaRequest, wire::DropReplicaReply>(rpc, kDropReplica,
                                                           &ReplicaService::DropReplica);
  Handle<wire::AddLearnerRequest, wire::AddLearnerReply>(rpc, kAddLearner,
                                                         &ReplicaService::AddLearner);
  Handle<wire::ChangeMembersRequest, wire::ChangeMembersReply>(rpc, kChangeMembers,
                                                               &ReplicaService::ChangeMembers);
  Handle<wire::RaiseVersionRequest, wire::RaiseVersionReply>(rpc, kRaiseVersion,
                                                             &ReplicaService::RaiseVersion);
  Handle<wire::SplitRequest, wire::SplitReply>(rpc, kSplit, &ReplicaService::Split);
  Handle<wire::MergeRequest, wire::MergeReply>(rpc, kMerge, &ReplicaService::Merge);
  Handle<wire::NodeStatusRequest, wire::NodeStatusReply>(rpc, kNodeStatus,
                                                         &ReplicaService::NodeStatus);
}

void ReplicaService::CreateReplica(const wire::CreateReplicaRequest& request, Rpc::Reply reply) {
  wire::CreateReplicaReply message;
  message.set_was_there(parts_.replicas->Find(PartitionId{request.partition().id()}) != nullptr);
  parts_.replicas->Create(
      request.SerializeAsString(),
      [reply = std::move(reply), message = std::move(message)](absl::Status status) mutable {
        Send(reply, std::move(message), status);
      });
}

void ReplicaService::DropReplica(const wire::DropReplicaRequest& request, Rpc::Reply reply) {
  parts_.replicas->Drop(PartitionId{request.partition()}, ReplicaId{request.replica()},
                        request.force(), [reply = std::move(reply)](absl::Status status) mutable {
                          Send(reply, wire::DropReplicaReply(), status);
                        });
}

void ReplicaService::AddLearner(const wire::AddLearnerRequest& request, Rpc::Reply reply) {
  if (parts_.replicas->Find(PartitionId{request.partition()}) == nullptr)
    return Send(reply, wire::AddLearnerReply(), NotHere(request.partition()));
  parts_.host->AddLearner(
      PartitionId{request.partition()}, ToMember(request.learner()), request.from(),
      [reply = std::move(reply)](absl::StatusOr<replication::LearnerStatus> status) mutable {
        wire::AddLearnerReply message;
        if (status.ok()) {
          message.set_match(status->match);
          message.set_chosen(status->chosen);
          message.set_caught_up(status->caught_up);
        }
        Send(reply, std::move(message), status.status());
      });
}

void ReplicaService::ChangeMembers(const wire::ChangeMembersRequest& request, Rpc::Reply reply) {
  if (parts_.replicas->Find(PartitionId{request.partition()}) == nullptr)
    return Send(reply, wire::ChangeMembersReply(), NotHere(request.partition()));
  std::vector<replication::Member> members;
  for (const wire::Member& member : request.members()) members.push_back(ToMember(member));
  if (const auto status = parts_.host->Status(PartitionId{request.partition()})) {
    const absl::Status zones =
        CheckZonesApart(*parts_.config, status->configuration.members, members);
    if (!zones.ok()) return Send(reply, wire::ChangeMembersReply(), zones);
  }
  parts_.host->ChangeMembers(PartitionId{request.partition()}, request.expected_epoch(),
                             std::move(members),
                             [reply = std::move(reply)](absl::StatusOr<uint64_t> epoch) mutable {
                               wire::ChangeMembersReply message;
                               if (epoch.ok()) message.set_epoch(*epoch);
                               Send(reply, std::move(message), epoch.status());
                             });
}

void ReplicaService::RaiseVersion(const wire::RaiseVersionRequest& request, Rpc::Reply reply) {
  if (parts_.replicas->Find(PartitionId{request.partition()}) == nullptr)
    return Send(reply, wire::RaiseVersionReply(), NotHere(request.partition()));
  parts_.host->RaiseVersion(PartitionId{request.partition()}, request.version(),
                            [reply = std::move(reply)](replication::ProposalResult result) mutable {
                              Send(reply, wire::RaiseVersionReply(), result.status);
                            });
}

template <typename ReplyMessage>
void ReplicaService::ProposeEnd(const Replica& replica, const wire::WriteCommand& command,
                                Rpc::Reply reply) {
  parts_.host->ProposeEnd(replica.partition,
                          {.client = EndingClient(replica.partition),
                           .sequence = 1,
                           .acknowledged = 0,
                           .issued = parts_.clock->WallNow(),
                           .command = command.SerializeAsString()},
                          [reply = std::move(reply)](replication::ProposalResult result) mutable {
                            Send(reply, ReplyMessage(), result.status);
                          });
}

void ReplicaService::Split(const wire::SplitRequest& request, Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) { Send(reply, wire::SplitReply(), status); };
  const std::shared_ptr<Replica> replica = parts_.replicas->Find(PartitionId{request.partition()});
  if (replica == nullptr) return answer(NotHere(request.partition()));
  const std::vector<PartitionId> heirs = {PartitionId{request.left()},
                                          PartitionId{request.right()}};
  if (replica->ended.has_value()) {
    if (replica->Successors() == heirs) return answer(absl::OkStatus());
    return answer(
        absl::FailedPreconditionError(Cat("partition ", request.partition(), " ended otherwise")));
  }
  if (request.at() != HashBoundary(HashOfStorageKey(request.at())) ||
      !replica->CheckKey(request.at()).ok() || request.at() == replica->first) {
    return answer(absl::InvalidArgumentError(
        Cat("at is ", Escape(request.at()), "; allowed: a hash boundary within partition ",
            request.partition(), ", above ", Escape(replica->first), " and below ",
            replica->end.empty() ? std::string("the end") : Escape(replica->end))));
  }
  if (request.left() == 0 || request.right() == 0 || request.left() == request.right() ||
      parts_.replicas->Find(heirs[0]) != nullptr || parts_.replicas->Find(heirs[1]) != nullptr) {
    return answer(
        absl::InvalidArgumentError(Cat("left is ", request.left(), " and right is ",
                                       request.right(), "; allowed: two new ids, not 0")));
  }
  for (const auto& [partition, other] : parts_.replicas->replicas()) {
    if (other->ended.has_value() && other->ended->has_merge() &&
        (other->ended->merge().left() == request.partition() ||
         other->ended->merge().right() == request.partition())) {
      return answer(absl::FailedPreconditionError(
          Cat("partition ", request.partition(), " is half merged with partition ", partition)));
    }
  }
  const std::optional<replication::GroupStatus> status = parts_.host->Status(replica->partition);
  if (absl::Status may = MayEnd(status); !may.ok()) return answer(may);
  wire::WriteCommand command;
  wire::SplitCommand& split = *command.mutable_split();
  split.set_at(request.at());
  split.set_left(request.left());
  split.set_right(request.right());
  // This node leads the children at the start.
  uint64_t id = 0;
  for (bool own : {true, false}) {
    for (const replication::Member& member : status->configuration.members) {
      if ((member.node == parts_.self) != own) continue;
      wire::Member& to = *split.add_members();
      ToWire(member, to);
      to.set_replica(++id);
    }
  }
  ProposeEnd<wire::SplitReply>(*replica, command, std::move(reply));
}

void ReplicaService::Merge(const wire::MergeRequest& request, Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) { Send(reply, wire::MergeReply(), status); };
  const std::shared_ptr<Replica> replica = parts_.replicas->Find(PartitionId{request.partition()});
  if (replica == nullptr) return answer(NotHere(request.partition()));
  const std::vector<PartitionId> heirs = {PartitionId{request.merged()}};
  if (replica->ended.has_value()) {
    if (replica->Successors() == heirs) return answer(absl::OkStatus());
    return answer(
        absl::FailedPreconditionError(Cat("partition ", request.partition(), " ended otherwise")));
  }
  const std::shared_ptr<Replica> left = parts_.replicas->Find(PartitionId{request.left()});
  const std::shared_ptr<Replica> right = parts_.replicas->Find(PartitionId{request.right()});
  if (left == nullptr || right == nullptr || left->table != right->table ||
      left->end != right->first || left->end.empty() ||
      (request.partition() != request.left() && request.partition() != request.right()) ||
      request.merged() == 0 || parts_.replicas->Find(PartitionId{request.merged()}) != nullptr) {
    return answer(absl::InvalidArgumentError(
        Cat("left is ", request.left(), " and right is ", request.right(), ", merged ",
            request.merged(),
            "; allowed: two neighbours of a table, both on this node, and a new id")));
  }
  for (const std::shared_ptr<Replica>& half : {left, right}) {
    if (half->ended.has_value() && half->Successors() != heirs) {
      return answer(
          absl::FailedPreconditionError(Cat("partition ", half->partition, " ended otherwise")));
    }
  }
  const std::optional<replication::GroupStatus> status = parts_.host->Status(replica->partition);
  if (absl::Status may = MayEnd(status); !may.ok()) return answer(may);
  const absl::StatusOr<WireMembers> members =
      MergedMembers(request, status->configuration, *left, *right);
  if (!members.ok()) return answer(members.status());
  wire::WriteCommand command;
  wire::MergeCommand& merge = *command.mutable_merge();
  merge.set_left(request.left());
  merge.set_right(request.right());
  merge.set_merged(request.merged());
  uint64_t id = 0;
  for (const wire::Member& member : *members) {
    wire::Member& to = *merge.add_members();
    to = member;
    to.set_replica(++id);
  }
  ProposeEnd<wire::MergeReply>(*replica, command, std::move(reply));
}

// A member of the merged partition is to have both halves, or there is none to be: so what was
// planned before a member moved is refused, and planned anew. What the left half ended with stands
// (TableStateMachine::Join), whatever happened to the right one since; then it is enough that most
// members have both, and the others are replaced.
absl::StatusOr<WireMembers> ReplicaService::MergedMembers(const wire::MergeRequest& request,
                                                          const replication::Configuration& own,
                                                          const Replica& left,
                                                          const Replica& right) const {
  const bool of_left = PartitionId{request.partition()} == left.partition;
  if (!of_left && left.ended.has_value()) {
    const WireMembers& members = left.ended->merge().members();
    DYNLIB_RETURN_IF_ERROR(CheckMajority(members, right.partition, own));
    return members;
  }
  const Replica& other = of_left ? right : left;
  const std::optional<replication::GroupStatus> status = parts_.host->Status(other.partition);
  DYNLIB_RETURN_IF_ERROR(CheckSameNodes(request.members(), PartitionId{request.partition()}, own));
  DYNLIB_RETURN_IF_ERROR(
      CheckMajority(request.members(), other.partition,
                    status.has_value() ? status->configuration : other.configuration));
  return request.members();
}

void ReplicaService::NodeStatus(const wire::NodeStatusRequest&, Rpc::Reply reply) {
  wire::NodeStatusReply message;
  message.set_incarnation(parts_.incarnation);
  message.set_used_bytes(parts_.pages->stats().used_bytes);
  message.set_log_unhealthy(!parts_.host->Status().log_healthy);
  for (const auto& [partition, replica] : parts_.replicas->replicas())
    Describe(*replica, *message.add_replicas());
  Send(reply, std::move(message), absl::OkStatus());
}

void ReplicaService::Describe(const Replica& replica, wire::ReplicaStatus& to) {
  to.set_partition(ToUint(replica.partition));
  to.set_replica(ToUint(replica.self));
  to.set_kind(replica.kind == replication::MemberKind::kLog ? wire::LOG : wire::STORAGE);
  to.set_table(ToUint(replica.table));
  to.set_first(replica.first);
  to.set_end(replica.end);
  to.set_generation(replica.generation);
  to.set_copying(replica.copying);
  to.set_failed(replica.failed.has_value() || replica.damaged.has_value());
  to.set_durable(replica.tree->durable_position());
  for (PartitionId successor : replica.Successors()) to.add_successors(ToUint(successor));
  if (replica.ended.has_value()) to.set_ended(replica.ended->slot());
  if (replica.copying) to.set_released(replica.log_begins);
  const std::optional<replication::GroupStatus> status = parts_.host->Status(replica.partition);
  if (!status.has_value()) return;
  to.set_role(std::string(replication::RoleName(status->role)));
  if (status->leader.has_value()) to.set_leader_node(ToUint(status->leader->node));
  to.set_leads(status->supported);
  // Whoever plans by this is to know soon who leads a group that is idle.
  if (status->role == replication::Role::kLeader && !status->supported)
    parts_.host->CheckLead(replica.partition);
  to.set_failed(to.failed() || status->failed);
  to.set_chosen(status->chosen);
  to.set_applied(status->applied);
  to.set_released(status->released);
  to.set_epoch(status->configuration.epoch);
  to.set_version(status->version);
  for (const replication::Member& member : status->configuration.members)
    ToWire(member, *to.add_members());
  to.set_removed(status->removed);
  if (!status->supported) return;
  to.set_ended_everywhere(replica.ended.has_value() && status->released >= replica.ended->slot());
  const Size& size = SizeOf(replica);
  to.set_items(size.stats.items);
  to.set_bytes(size.stats.bytes);
  if (size.stats.middle_key.has_value()) {
    // All items of a partition key stay together.
    const std::string middle =
        HashBoundary(HashOfStorageKey(size.stats.middle_key->substr(1) + std::string(8, '\0')));
    if (middle > replica.first && (replica.end.empty() || middle < replica.end))
      to.set_middle(middle);
  }
  if (load_ != nullptr) load_(replica.partition, to);
}

const ReplicaService::Size& ReplicaService::SizeOf(const Replica& replica) {
  Size& size = sizes_[replica.partition];
  const Instant now = parts_.clock->Now();
  if (size.measuring || (size.at != Instant() && now - size.at < kSizeAge)) return size;
  size.measuring = true;
  parts_.file_executor->Post([self = shared_from_this(), partition = replica.partition,
                              snapshot = replica.tree->snapshot()] {
    absl::StatusOr<store::RangeStats> stats = snapshot.ApproximateStats(
        TableStateMachine::FirstItemKey(), TableStateMachine::EndOfItemKeys());
    Executor* executor = self->parts_.executor;
    executor->Post([self, partition, stats = std::move(stats)] {
      Size& size = self->sizes_[partition];
      size.measuring = false;
      size.at = self->parts_.clock->Now();
      if (stats.ok()) size.stats = *stats;
      if (self->parts_.replicas->Find(partition) == nullptr) self->sizes_.erase(partition);
    });
  });
  return size;
}

}  // namespace dynlib::cluster
