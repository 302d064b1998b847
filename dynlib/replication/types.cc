#include "dynlib/replication/types.h"

#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

constexpr uint64_t kConfigurationVersion = 1;
constexpr size_t kMembersMax = 7;

}  // namespace

std::string_view KindName(MemberKind kind) { return kind == MemberKind::kLog ? "log" : "storage"; }

const Member* Configuration::Find(ReplicaId replica) const {
  for (const Member& member : members) {
    if (member.replica == replica) return &member;
  }
  return nullptr;
}

const Member* Configuration::FindNode(NodeId node) const {
  for (const Member& member : members) {
    if (member.node == node) return &member;
  }
  return nullptr;
}

absl::Status Validate(const Configuration& configuration) {
  const std::vector<Member>& members = configuration.members;
  if (members.empty() || members.size() > kMembersMax) {
    return absl::InvalidArgumentError(
        Cat("configuration has ", members.size(), " members; allowed: 1 to 7"));
  }
  bool storage = false;
  for (size_t i = 0; i < members.size(); ++i) {
    storage |= members[i].kind == MemberKind::kStorage;
    const uint64_t replica = ToUint(members[i].replica);
    if (replica == 0 || replica > Ballot::kReplicaMax) {
      return absl::InvalidArgumentError(
          Cat("member ", i, " has replica id ", replica, "; allowed: 1 to ", Ballot::kReplicaMax));
    }
    if (ToUint(members[i].node) == 0) {
      return absl::InvalidArgumentError(Cat("member ", i, " has node id 0"));
    }
    for (size_t j = 0; j < i; ++j) {
      if (members[i].replica == members[j].replica || members[i].node == members[j].node) {
        return absl::InvalidArgumentError(
            Cat("members ", j, " and ", i, " share a replica id or a node"));
      }
    }
  }
  if (!storage) {
    return absl::InvalidArgumentError("configuration has no storage replica; allowed: at least 1");
  }
  return absl::OkStatus();
}

std::string EncodeConfiguration(const Configuration& configuration) {
  std::string out;
  PutVarint(out, kConfigurationVersion);
  PutVarint(out, configuration.epoch);
  PutVarint(out, configuration.members.size());
  for (const Member& member : configuration.members) {
    PutVarint(out, ToUint(member.replica));
    PutVarint(out, ToUint(member.node));
    PutVarint(out, static_cast<uint64_t>(member.kind));
  }
  return out;
}

absl::StatusOr<Configuration> DecodeConfiguration(std::string_view bytes) {
  auto bad = [](std::string_view what) {
    return absl::DataLossError(Cat("a configuration of a group ", what));
  };
  ByteReader in(bytes);
  const uint64_t version = in.Varint();
  Configuration configuration{.epoch = in.Varint(), .members = {}};
  const uint64_t count = in.Varint();
  if (!in.ok() || version != kConfigurationVersion || count > kMembersMax) {
    return bad("does not parse");
  }
  for (uint64_t i = 0; i < count; ++i) {
    Member member{.replica = ReplicaId{in.Varint()}, .node = NodeId{in.Varint()}};
    const uint64_t kind = in.Varint();
    if (!in.ok() || kind < static_cast<uint64_t>(MemberKind::kStorage) ||
        kind > static_cast<uint64_t>(MemberKind::kLog)) {
      return bad("does not parse");
    }
    member.kind = static_cast<MemberKind>(kind);
    configuration.members.push_back(member);
  }
  if (!in.done()) return bad("does not parse");
  if (absl::Status status = Validate(configuration); !status.ok()) {
    return bad(Cat("is not valid: ", ToStd(status.message())));
  }
  return configuration;
}

}  // namespace dynlib::replication
