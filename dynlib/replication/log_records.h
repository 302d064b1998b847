// What replication writes to the log, and what it makes of it after a restart.
//
// docs/format/node_directory.md has the bytes. What must survive damage to a record's payload
// stands in its slot and ballot too, which the log keeps in two more places (rule R4).
#ifndef DYNLIB_REPLICATION_LOG_RECORDS_H_
#define DYNLIB_REPLICATION_LOG_RECORDS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/replica_log.h"

namespace dynlib::replication {

// The node's own stream.
inline constexpr PartitionId kNodeStream{0};

// The node's own durable state: how often it booted, and the longest support that it ever granted.
struct NodeState {
  uint64_t incarnation = 0;
  Duration support{0};
};

LogFrame NodeFrame(const NodeState& state);
LogFrame ToFrame(PartitionId group, GroupCore::Record record);

// kDataLoss if the boot count may be lost: the node must then get a new id (rule R3).
absl::StatusOr<NodeState> RecoverNodeState(const RecoveredStream& stream);
// `applied`: the position of the group's durable tree.
GroupCore::Recovered RecoverGroup(const RecoveredStream& stream, Slot applied);

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_LOG_RECORDS_H_
