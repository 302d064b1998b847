#include "dynlib/replication/types.h"

#include "dynlib/base/strings.h"

namespace dynlib::replication {

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
  if (members.empty() || members.size() > 7) {
    return absl::InvalidArgumentError(
        Cat("configuration has ", members.size(), " members; allowed: 1 to 7"));
  }
  for (size_t i = 0; i < members.size(); ++i) {
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
  return absl::OkStatus();
}

}  // namespace dynlib::replication
