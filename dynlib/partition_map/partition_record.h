// What routing knows of one partition and of one table: plain values, with their encoding and their
// order.
//
// A record is learnt from many: storage nodes push those of the partitions that they lead, metadata
// nodes exchange theirs, a node that does not own a key answers with the newest that it has. So
// records arrive in any order, late and twice, and what settles which holds is in the record
// itself:
//
//   generation   a split makes children of generation g+1, a merge of g and h makes max(g, h)+1; so
//   of
//                all partitions that ever held a key, each has a generation of its own
//   epoch        for the same partition: the slot at which its configuration was chosen
//   leader_ballot for the same configuration: orders the hints at who leads
#ifndef DYNLIB_PARTITION_MAP_PARTITION_RECORD_H_
#define DYNLIB_PARTITION_MAP_PARTITION_RECORD_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"

namespace dynlib::partition_map {

enum class MemberKind : uint8_t {
  kStorage = 1,  // keeps log and tree; may lead
  kLog = 2,      // keeps the log alone; votes, never leads
};

struct PartitionMember {
  ReplicaId replica{};
  NodeId node{};
  MemberKind kind = MemberKind::kStorage;
  uint32_t zone = 0;  // the cluster's number for the node's zone; 0 when it is not told
  friend auto operator<=>(const PartitionMember&, const PartitionMember&) = default;
};

inline constexpr size_t kPartitionKeyBytesMax = 8192;
inline constexpr size_t kPartitionMembersMax = 16;
inline constexpr size_t kTableNameBytesMax = 255;
inline constexpr size_t kTableDescriptorBytesMax = 32768;

// The partition of the keys in [first, end) of a table; an empty `end` means no upper bound.
struct PartitionRecord {
  TableId table{};
  PartitionId partition{};
  std::string first;
  std::string end;
  uint64_t generation = 0;
  uint64_t epoch = 0;
  std::vector<PartitionMember> members;
  NodeId leader{};  // a hint; 0 when unknown
  uint64_t leader_ballot = 0;

  bool Contains(std::string_view key) const { return key >= first && (end.empty() || key < end); }
  friend bool operator==(const PartitionRecord&, const PartitionRecord&) = default;
};

// A table's name and what the cluster wants to be told with it (schema, capacity), as bytes that
// only the cluster reads.
struct TableRecord {
  TableId table{};
  std::string name;
  uint64_t version = 0;
  bool dropped = false;  // final: no later record of this table undoes it
  std::string descriptor;
  friend bool operator==(const TableRecord&, const TableRecord&) = default;
};

// kInvalidArgument naming the field, its value and what is allowed: ids not 0, first < end, keys,
// members, name and descriptor within their limits, distinct replicas, known kinds. A record
// without members is refused; a leader need not be a member (a hint may be older than the
// configuration).
absl::Status Validate(const PartitionRecord& record);
absl::Status Validate(const TableRecord& record);

// Which of two records says more of a key that both contain, ranges aside: by generation, partition
// id, epoch, leader ballot, and last by leader and members, so that only equal records are equal.
// Partitions of one generation never share a key, so between different partitions the id decides
// only when someone is wrong; and then everyone decides alike.
std::strong_ordering CompareVersions(const PartitionRecord& a, const PartitionRecord& b);
// Whether `a` is to replace `b` for the keys that both contain.
inline bool IsNewer(const PartitionRecord& a, const PartitionRecord& b) {
  return CompareVersions(a, b) > 0;
}
// Equal but for their ranges: two runs of keys of one partition.
bool SameHolder(const PartitionRecord& a, const PartitionRecord& b);
// By dropped, version, and last by name and descriptor.
std::strong_ordering CompareVersions(const TableRecord& a, const TableRecord& b);
inline bool IsNewer(const TableRecord& a, const TableRecord& b) {
  return CompareVersions(a, b) > 0;
}

// Bytes that begin with the version of their format. Equal records have equal bytes. Decoding is
// safe on any bytes; kDataLoss for all that no valid record encodes to.
std::string Encode(const PartitionRecord& record);
std::string Encode(const TableRecord& record);
absl::StatusOr<PartitionRecord> DecodePartitionRecord(std::string_view bytes);
absl::StatusOr<TableRecord> DecodeTableRecord(std::string_view bytes);

// The same for where table and `first` are said already: in the keys of the map. A partition's
// `end` comes last and as it is, so that the tree need not keep what the next key says
// (perkle_leaf.h). About 17 bytes and the end, for three replicas.
std::string EncodeValue(const PartitionRecord& record);
std::string EncodeValue(const TableRecord& record);
absl::StatusOr<PartitionRecord> DecodePartitionValue(TableId table, std::string_view first,
                                                     std::string_view bytes);
absl::StatusOr<TableRecord> DecodeTableValue(TableId table, std::string_view bytes);
// For values that were validated when they were put where they are: reads all but table and `first`
// into a record, whose memory it uses again. False for what is malformed.
bool ReadPartitionValue(std::string_view bytes, PartitionRecord& record);
// And only whose it is.
PartitionId PartitionOfValue(std::string_view bytes);

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_PARTITION_RECORD_H_
