// The nouns of a replication group: ballots, members, configurations, log entries.
#ifndef DYNLIB_REPLICATION_TYPES_H_
#define DYNLIB_REPLICATION_TYPES_H_

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/shared_bytes.h"

namespace dynlib::replication {

// A ballot orders proposers: by round, then by the replica that owns it. Packed into 64 bits, so
// that a log frame's header carries it: 48 bits of round, 16 of replica id (ids of a group count up
// from 1 and are never reused, rule R3; past the last one the group gets no new replica).
class Ballot {
 public:
  static constexpr uint64_t kReplicaMax = 0xffff;
  static constexpr uint64_t kRoundMax = (uint64_t{1} << 48) - 1;

  constexpr Ballot() = default;  // Less than every proposer's.
  constexpr Ballot(uint64_t round, ReplicaId proposer) : packed_(round << 16 | ToUint(proposer)) {}
  static constexpr Ballot FromPacked(uint64_t packed) {
    Ballot ballot;
    ballot.packed_ = packed;
    return ballot;
  }
  constexpr uint64_t packed() const { return packed_; }
  constexpr uint64_t round() const { return packed_ >> 16; }
  constexpr ReplicaId proposer() const { return ReplicaId{packed_ & kReplicaMax}; }
  friend constexpr auto operator<=>(Ballot, Ballot) = default;

 private:
  uint64_t packed_ = 0;
};

// No log gets so far: at a million entries a second it takes 146,000 years. What is past it is
// refused wherever a slot is taken at its word, so that sums of slots and windows do not overflow.
inline constexpr Slot kSlotMax = (Slot{1} << 62) - 1;

// A log replica votes and keeps the log, has no tree, and never leads (rule R9).
enum class MemberKind : uint8_t { kStorage = 1, kLog = 2 };
std::string_view KindName(MemberKind kind);

struct Member {
  ReplicaId replica{};
  NodeId node{};
  MemberKind kind = MemberKind::kStorage;
  friend bool operator==(const Member&, const Member&) = default;
};

// Who votes. `epoch` is the slot at which this configuration was chosen (rule R2); the first one,
// with which the group is made on every member, has epoch 0.
struct Configuration {
  uint64_t epoch = 0;
  std::vector<Member> members;

  size_t quorum() const { return members.size() / 2 + 1; }
  const Member* Find(ReplicaId replica) const;
  const Member* FindNode(NodeId node) const;
  friend bool operator==(const Configuration&, const Configuration&) = default;
};

// kInvalidArgument unless there are 1 to 7 members, at least one of them a storage replica, with
// distinct, valid replicas on distinct, valid nodes.
absl::Status Validate(const Configuration& configuration);

// For state records, trees and the log: docs/format/node_directory.md. Decoding bytes that are not
// a valid configuration is kDataLoss.
std::string EncodeConfiguration(const Configuration& configuration);
absl::StatusOr<Configuration> DecodeConfiguration(std::string_view bytes);

// How far a replica is that the leader feeds and that has no vote yet.
struct LearnerStatus {
  Member member;
  Slot match = 0;          // durable there
  Slot chosen = 0;         // of the group, as the leader knows it
  bool caught_up = false;  // near enough to be made a member
};

// An entry's bytes, shared by the log, the messages and the applier. Entries that came in one
// message, or were proposed in one turn, lie in one block.
using Payload = SharedBytes;

struct Entry {
  Slot slot = 0;
  Ballot ballot;
  Payload payload;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_TYPES_H_
