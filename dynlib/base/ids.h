// Identifiers that cannot be mistaken for one another.
//
// Every identifier is an enum class over uint64_t: it costs nothing, prints as a number, hashes
// with absl::Hash, and a NodeId cannot be passed where a TableId is wanted. Zero is never a valid
// identifier.
#ifndef DYNLIB_BASE_IDS_H_
#define DYNLIB_BASE_IDS_H_

#include <cstdint>
#include <type_traits>

namespace dynlib {

enum class NodeId : uint64_t {};   // A process that stores, routes or decides.
enum class TableId : uint64_t {};  // A table of the cluster.
enum class PartitionId : uint64_t {
};  // A contiguous range of a table's keys, and the group that replicates it.
enum class ReplicaId : uint64_t {
};  // A member of a replication group; never used again once lost (rule R3).
enum class ClientId : uint64_t {
};  // A proposer of commands, for exactly-once by (client, sequence).

// A position in a replication group's log. The first entry is at slot 1; 0 means "none".
using Slot = uint64_t;

// The underlying number of an identifier.
template <typename Id>
requires std::is_enum_v<Id>
constexpr uint64_t ToUint(Id id) { return static_cast<uint64_t>(id); }

}  // namespace dynlib

#endif  // DYNLIB_BASE_IDS_H_
