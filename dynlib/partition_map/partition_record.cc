#include "dynlib/partition_map/partition_record.h"

#include <algorithm>
#include <tuple>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::partition_map {
namespace {

constexpr uint8_t kPartitionFormat = 2;
constexpr uint8_t kTableFormat = 1;

absl::Status Bad(std::string_view field, std::string_view value, std::string_view allowed) {
  return absl::InvalidArgumentError(Cat(field, " is ", value, ": ", allowed));
}

absl::Status CheckId(std::string_view field, uint64_t id) {
  return id != 0 ? absl::OkStatus() : Bad(field, "0", "ids begin at 1");
}

absl::Status CheckSize(std::string_view field, size_t size, size_t max) {
  if (size <= max) return absl::OkStatus();
  return Bad(field, Cat(size, " bytes"), Cat("at most ", max));
}

absl::Status CheckMembers(const std::vector<PartitionMember>& members) {
  if (members.empty() || members.size() > kPartitionMembersMax) {
    return Bad("members", Cat(members.size()), Cat("1 to ", kPartitionMembersMax));
  }
  for (size_t i = 0; i < members.size(); ++i) {
    const PartitionMember& member = members[i];
    DYNLIB_RETURN_IF_ERROR(CheckId("replica", ToUint(member.replica)));
    DYNLIB_RETURN_IF_ERROR(CheckId("node", ToUint(member.node)));
    if (member.kind != MemberKind::kStorage && member.kind != MemberKind::kLog) {
      return Bad("kind", Cat(member.kind), "1 (storage) or 2 (log)");
    }
    for (size_t other = 0; other < i; ++other) {
      if (members[other].replica == member.replica) {
        return Bad("replica", Cat(member.replica, " twice"), "replicas are distinct");
      }
    }
  }
  return absl::OkStatus();
}

// A partition in few bytes, as follows; members' nodes take most of them.
//
//   byte     members less 1 (low half); the leader (high half): 0 none, n the node of the n-th
//   member,
//            15 a node that follows
//   varints  partition, generation, epoch, leader ballot, [leader]
//   members  byte: kind (bit 0, set for log), zone (3 bits; 7: what is more follows), replica (4
//   bits:
//            how many it is after the one before and 1; 15: it follows); [zone], [replica], node
constexpr uint64_t kLeaderFollows = 15;
constexpr uint32_t kZoneFollows = 7;
constexpr uint64_t kReplicaFollows = 15;

uint64_t LeaderCode(const PartitionRecord& record) {
  if (record.leader == NodeId{}) return 0;
  for (uint64_t i = 0; i < record.members.size() && i + 1 < kLeaderFollows; ++i) {
    if (record.members[i].node == record.leader) return i + 1;
  }
  return kLeaderFollows;
}

// Wraps around, and is large, when the replica is not after the previous one.
uint64_t ReplicaCode(ReplicaId replica, uint64_t previous) {
  return std::min(ToUint(replica) - previous - 1, kReplicaFollows);
}

void PutRest(std::string& out, const PartitionRecord& record) {
  const uint64_t leader = LeaderCode(record);
  PutFixed8(out, static_cast<uint8_t>((record.members.size() - 1) & 15) |
                     static_cast<uint8_t>(leader << 4));
  PutVarint(out, ToUint(record.partition));
  PutVarint(out, record.generation);
  PutVarint(out, record.epoch);
  PutVarint(out, record.leader_ballot);
  if (leader == kLeaderFollows) PutVarint(out, ToUint(record.leader));
  uint64_t previous = 0;
  for (const PartitionMember& member : record.members) {
    const uint64_t replica = ReplicaCode(member.replica, previous);
    const uint32_t zone = std::min(member.zone, kZoneFollows);
    const bool log = member.kind == MemberKind::kLog;
    PutFixed8(out, static_cast<uint8_t>(replica << 4 | zone << 1 | (log ? 1 : 0)));
    if (zone == kZoneFollows) PutVarint(out, member.zone - kZoneFollows);
    if (replica == kReplicaFollows) PutVarint(out, ToUint(member.replica));
    PutVarint(out, ToUint(member.node));
    previous = ToUint(member.replica);
  }
}

PartitionMember ReadMember(ByteReader& in, uint64_t previous) {
  const uint8_t byte = in.Fixed8();
  PartitionMember member;
  member.kind = (byte & 1) != 0 ? MemberKind::kLog : MemberKind::kStorage;
  uint64_t zone = byte >> 1 & 7;
  if (zone == kZoneFollows) zone += in.Varint();
  if (zone > UINT32_MAX) in.Fail();
  member.zone = static_cast<uint32_t>(zone);
  const uint64_t replica = byte >> 4;
  member.replica = ReplicaId{replica == kReplicaFollows ? in.Varint() : previous + 1 + replica};
  member.node = NodeId{in.Varint()};
  return member;
}

void ReadRest(ByteReader& in, PartitionRecord& record) {
  const uint8_t byte = in.Fixed8();
  record.partition = PartitionId{in.Varint()};
  record.generation = in.Varint();
  record.epoch = in.Varint();
  record.leader_ballot = in.Varint();
  const uint64_t leader = byte >> 4;
  record.leader = NodeId{leader == kLeaderFollows ? in.Varint() : 0};
  const size_t members = (byte & 15) + size_t{1};
  record.members.clear();
  record.members.reserve(members);
  uint64_t previous = 0;
  while (record.members.size() < members && in.ok()) {
    record.members.push_back(ReadMember(in, previous));
    previous = ToUint(record.members.back().replica);
  }
  if (leader == 0 || leader == kLeaderFollows) return;
  if (leader > record.members.size()) return in.Fail();
  record.leader = record.members[leader - 1].node;
}

void PutRest(std::string& out, const TableRecord& record) {
  PutLengthPrefixed(out, record.name);
  PutVarint(out, record.version);
  PutFixed8(out, record.dropped);
  PutLengthPrefixed(out, record.descriptor);
}

void ReadRest(ByteReader& in, TableRecord& record) {
  record.name = in.LengthPrefixed();
  record.version = in.Varint();
  const uint8_t dropped = in.Fixed8();
  if (dropped > 1) in.Fail();
  record.dropped = dropped == 1;
  record.descriptor = in.LengthPrefixed();
}

// What a decoder read is a record only if it is one that could have been encoded.
template <typename Record>
absl::Status Check(const ByteReader& in, const Record& record) {
  if (!in.done()) return absl::DataLossError("record is malformed");
  const absl::Status status = Validate(record);
  if (status.ok()) return status;
  return absl::DataLossError(Cat("record is invalid: ", ToStd(status.message())));
}

// Each record has one encoding: a varint that is longer than it need be is damage.
absl::Status NotCanonical() { return absl::DataLossError("record is not in canonical form"); }

}  // namespace

absl::Status Validate(const PartitionRecord& record) {
  DYNLIB_RETURN_IF_ERROR(CheckId("table", ToUint(record.table)));
  DYNLIB_RETURN_IF_ERROR(CheckId("partition", ToUint(record.partition)));
  DYNLIB_RETURN_IF_ERROR(CheckSize("first", record.first.size(), kPartitionKeyBytesMax));
  DYNLIB_RETURN_IF_ERROR(CheckSize("end", record.end.size(), kPartitionKeyBytesMax));
  if (!record.end.empty() && record.first >= record.end) {
    return Bad("end", Escape(record.end), Cat("greater than first, ", Escape(record.first)));
  }
  return CheckMembers(record.members);
}

absl::Status Validate(const TableRecord& record) {
  DYNLIB_RETURN_IF_ERROR(CheckId("table", ToUint(record.table)));
  DYNLIB_RETURN_IF_ERROR(CheckSize("name", record.name.size(), kTableNameBytesMax));
  if (record.name.empty() && !record.dropped) {
    return Bad("name", "empty", "only a dropped table's may be");
  }
  return CheckSize("descriptor", record.descriptor.size(), kTableDescriptorBytesMax);
}

std::strong_ordering CompareVersions(const PartitionRecord& a, const PartitionRecord& b) {
  const auto version = [](const PartitionRecord& r) {
    return std::tie(r.generation, r.partition, r.epoch, r.leader_ballot, r.leader, r.members);
  };
  return version(a) <=> version(b);
}

bool SameHolder(const PartitionRecord& a, const PartitionRecord& b) {
  return a.table == b.table && CompareVersions(a, b) == 0;
}

std::strong_ordering CompareVersions(const TableRecord& a, const TableRecord& b) {
  const auto version = [](const TableRecord& r) {
    return std::tie(r.dropped, r.version, r.name, r.descriptor);
  };
  return version(a) <=> version(b);
}

std::string Encode(const PartitionRecord& record) {
  std::string out;
  PutFixed8(out, kPartitionFormat);
  PutVarint(out, ToUint(record.table));
  PutLengthPrefixed(out, record.first);
  PutLengthPrefixed(out, record.end);
  PutRest(out, record);
  return out;
}

std::string EncodeValue(const PartitionRecord& record) {
  std::string out;
  out.reserve(64 + record.end.size());
  PutRest(out, record);
  out += record.end;
  return out;
}

absl::StatusOr<PartitionRecord> DecodePartitionRecord(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kPartitionFormat) in.Fail();
  PartitionRecord record{.table = TableId{in.Varint()}};
  record.first = in.LengthPrefixed();
  record.end = in.LengthPrefixed();
  ReadRest(in, record);
  DYNLIB_RETURN_IF_ERROR(Check(in, record));
  if (bytes != Encode(record)) return NotCanonical();
  return record;
}

bool ReadPartitionValue(std::string_view bytes, PartitionRecord& record) {
  ByteReader in(bytes);
  ReadRest(in, record);
  record.end = in.rest();
  return in.ok();
}

PartitionId PartitionOfValue(std::string_view bytes) {
  ByteReader in(bytes);
  in.Fixed8();
  return PartitionId{in.Varint()};
}

absl::StatusOr<PartitionRecord> DecodePartitionValue(TableId table, std::string_view first,
                                                     std::string_view bytes) {
  PartitionRecord record{.table = table};
  record.first = first;
  ByteReader in(bytes);
  ReadRest(in, record);
  if (in.ok()) record.end = in.Bytes(in.rest().size());
  DYNLIB_RETURN_IF_ERROR(Check(in, record));
  return record;
}

std::string Encode(const TableRecord& record) {
  std::string out;
  PutFixed8(out, kTableFormat);
  PutVarint(out, ToUint(record.table));
  PutRest(out, record);
  return out;
}

std::string EncodeValue(const TableRecord& record) {
  std::string out;
  PutFixed8(out, kTableFormat);
  PutRest(out, record);
  return out;
}

absl::StatusOr<TableRecord> DecodeTableRecord(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kTableFormat) in.Fail();
  TableRecord record{.table = TableId{in.Varint()}};
  ReadRest(in, record);
  DYNLIB_RETURN_IF_ERROR(Check(in, record));
  if (bytes != Encode(record)) return NotCanonical();
  return record;
}

absl::StatusOr<TableRecord> DecodeTableValue(TableId table, std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kTableFormat) in.Fail();
  TableRecord record{.table = table};
  ReadRest(in, record);
  DYNLIB_RETURN_IF_ERROR(Check(in, record));
  return record;
}

}  // namespace dynlib::partition_map
