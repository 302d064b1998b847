#include "dynlib/partition_map/partition_record.h"

#include <tuple>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::partition_map {
namespace {

constexpr uint8_t kPartitionFormat = 1;
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

void PutRest(std::string& out, const PartitionRecord& record) {
  PutVarint(out, ToUint(record.partition));
  PutLengthPrefixed(out, record.end);
  PutVarint(out, record.generation);
  PutVarint(out, record.epoch);
  PutVarint(out, record.leader_ballot);
  PutVarint(out, ToUint(record.leader));
  PutVarint(out, record.members.size());
  for (const PartitionMember& member : record.members) {
    PutVarint(out, ToUint(member.replica));
    PutVarint(out, ToUint(member.node));
    PutFixed8(out, static_cast<uint8_t>(member.kind));
  }
}

void ReadRest(ByteReader& in, PartitionRecord& record) {
  record.partition = PartitionId{in.Varint()};
  record.end = in.LengthPrefixed();
  record.generation = in.Varint();
  record.epoch = in.Varint();
  record.leader_ballot = in.Varint();
  record.leader = NodeId{in.Varint()};
  const uint64_t members = in.Varint();
  if (members > kPartitionMembersMax) in.Fail();
  if (in.ok()) record.members.reserve(members);
  for (uint64_t i = 0; i < members && in.ok(); ++i) {
    PartitionMember member;
    member.replica = ReplicaId{in.Varint()};
    member.node = NodeId{in.Varint()};
    member.kind = static_cast<MemberKind>(in.Fixed8());
    record.members.push_back(member);
  }
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
  PutRest(out, record);
  return out;
}

std::string EncodeValue(const PartitionRecord& record) {
  std::string out;
  PutFixed8(out, kPartitionFormat);
  PutRest(out, record);
  return out;
}

absl::StatusOr<PartitionRecord> DecodePartitionRecord(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kPartitionFormat) in.Fail();
  PartitionRecord record{.table = TableId{in.Varint()}};
  record.first = in.LengthPrefixed();
  ReadRest(in, record);
  DYNLIB_RETURN_IF_ERROR(Check(in, record));
  if (bytes != Encode(record)) return NotCanonical();
  return record;
}

absl::StatusOr<PartitionRecord> DecodePartitionValue(TableId table, std::string_view first,
                                                     std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kPartitionFormat) in.Fail();
  PartitionRecord record{.table = table};
  record.first = first;
  ReadRest(in, record);
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
