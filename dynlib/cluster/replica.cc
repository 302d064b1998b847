#include "dynlib/cluster/replica.h"

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"

namespace dynlib::cluster {
namespace {

replication::MemberKind ToKind(wire::MemberKind kind) {
  return kind == wire::LOG ? replication::MemberKind::kLog : replication::MemberKind::kStorage;
}

// What its group would refuse is not to be made first: it would be there again at each start.
absl::Status CheckLearner(const wire::CreateReplicaRequest& request,
                          const replication::Configuration& configuration) {
  auto bad = [&](std::string_view name, uint64_t value, std::string_view allowed) {
    return absl::InvalidArgumentError(Cat("partition ", request.partition().id(), ": ", name,
                                          " is ", value, "; allowed: ", allowed));
  };
  constexpr uint64_t kReplicaMax = replication::Ballot::kReplicaMax;
  if (request.replica() == 0 || request.replica() > kReplicaMax) {
    return bad("replica", request.replica(),
               Cat("1 to ", kReplicaMax, " for a learner (an id is never used again; a split or a ",
                   "merge begins them anew)"));
  }
  const replication::Member* member = configuration.Find(ReplicaId{request.replica()});
  if (member != nullptr) {
    return bad("replica", request.replica(),
               Cat("an id that no member has; it is that of the member on node ", member->node));
  }
  if (request.base() > replication::kSlotMax)
    return bad("base", request.base(), Cat("0 to ", replication::kSlotMax));
  if (ToKind(request.kind()) == replication::MemberKind::kLog &&
      configuration.epoch > request.base()) {
    return bad("configuration.epoch", configuration.epoch,
               Cat("0 to base, which is ", request.base()));
  }
  return absl::OkStatus();
}

absl::Status ParseMembers(const wire::CreateReplicaRequest& request, NodeId self,
                          Replica& replica) {
  const wire::Partition& partition = request.partition();
  replica.configuration = {};
  for (const wire::Member& member : partition.members()) {
    replica.configuration.members.push_back(
        {ReplicaId{member.replica()}, NodeId{member.node()}, ToKind(member.kind())});
  }
  if (!request.configuration().empty()) {
    absl::StatusOr<replication::Configuration> newest =
        replication::DecodeConfiguration(request.configuration());
    if (!newest.ok()) {
      return absl::InvalidArgumentError(
          Cat("partition ", partition.id(), ": configuration: ", ToStd(newest.status().message())));
    }
    replica.configuration = *std::move(newest);
  }
  DYNLIB_RETURN_IF_ERROR(replication::Validate(replica.configuration));
  replica.self = ReplicaId{request.replica()};
  if (request.learner()) return CheckLearner(request, replica.configuration);
  const replication::Member* member = replica.configuration.FindNode(self);
  if (member == nullptr) {
    return absl::InvalidArgumentError(
        Cat("partition ", partition.id(), " has no member on node ", self));
  }
  if (request.replica() != 0 && member->replica != replica.self) {
    return absl::InvalidArgumentError(Cat("partition ", partition.id(), ": replica is ",
                                          request.replica(), ", and the member on node ", self,
                                          " is ", member->replica));
  }
  replica.self = member->replica;
  replica.kind = member->kind;
  return absl::OkStatus();
}

}  // namespace

absl::Status Replica::CheckKey(std::string_view storage_key) const {
  if (storage_key >= first && (end.empty() || storage_key < end)) return absl::OkStatus();
  return absl::OutOfRangeError(Cat("key ", Escape(storage_key), " is outside partition ", partition,
                                   ", [", Escape(first), ", ", Escape(end), ")"));
}

absl::Status Replica::CheckRange(std::string_view range_first, std::string_view range_end) const {
  const bool end_inside = end.empty() || (!range_end.empty() && range_end <= end);
  if (range_first >= first && end_inside) return absl::OkStatus();
  return absl::OutOfRangeError(Cat("range [", Escape(range_first), ", ", Escape(range_end),
                                   ") is not within partition ", partition, ", [", Escape(first),
                                   ", ", Escape(end), ")"));
}

std::vector<PartitionId> Replica::Successors() const {
  if (!ended.has_value()) return {};
  if (ended->has_merge()) return {PartitionId{ended->merge().merged()}};
  return {PartitionId{ended->split().left()}, PartitionId{ended->split().right()}};
}

absl::Status ParseDescription(std::string_view description, NodeId self, Replica& replica) {
  if (description.size() > kDescriptionBytesMax) {
    return absl::InvalidArgumentError(Cat("the partition's description is ", description.size(),
                                          " bytes; allowed: up to ", kDescriptionBytesMax));
  }
  wire::CreateReplicaRequest request;
  if (!request.ParseFromArray(description.data(), static_cast<int>(description.size()))) {
    return absl::InvalidArgumentError("the partition's description does not parse");
  }
  const wire::Partition& partition = request.partition();
  // The log numbers its streams from 1, the node's own among them, so the last id has none.
  if (partition.id() == 0 || partition.id() == UINT64_MAX) {
    return absl::InvalidArgumentError(
        Cat("partition.id is ", partition.id(), "; allowed: 1 to ", UINT64_MAX - 1));
  }
  if (!partition.end().empty() && partition.end() <= partition.first()) {
    return absl::InvalidArgumentError(Cat("partition ", partition.id(), " ends at ",
                                          Escape(partition.end()), ", not after its first key ",
                                          Escape(partition.first())));
  }
  replica.partition = PartitionId{partition.id()};
  replica.first = partition.first();
  replica.end = partition.end();
  replica.table = TableId{partition.table()};
  replica.generation = partition.generation();
  replica.kind = ToKind(request.kind());
  replica.learner = request.learner();
  replica.log_begins = request.log_begins();
  DYNLIB_RETURN_IF_ERROR(ParseMembers(request, self, replica));
  absl::StatusOr<TableSchema> schema = DecodeSchema(request.schema());
  if (!schema.ok())
    return absl::InvalidArgumentError(Cat("schema: ", ToStd(schema.status().message())));
  replica.schema = *std::move(schema);
  replica.description = std::string(description);
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
