// One replica of a partition on a storage node: its description, its tree, and its state machine.
//
// Internal to the cluster.
#ifndef DYNLIB_CLUSTER_REPLICA_H_
#define DYNLIB_CLUSTER_REPLICA_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {

struct Replica {
  PartitionId partition{};
  TableId table{};
  uint64_t generation = 0;
  ReplicaId self{};
  replication::MemberKind kind = replication::MemberKind::kStorage;
  bool learner = false;  // it was made as one
  // As the description says. The newest that is known to be chosen is the group's.
  replication::Configuration configuration;
  TableSchema schema;
  std::string first;        // storage keys in [first, end)
  std::string end;          // empty: no end
  std::string description;  // encoded wire::CreateReplicaRequest
  store::Tree* tree = nullptr;
  TableStateMachine state_machine;
  bool copying = false;                // the tree is not whole yet; there is no group
  uint64_t log_begins = 0;             // what is copied must be of this position, or a later one
  size_t copies = 0;                   // that came to their end before
  std::optional<absl::Status> failed;  // it could not be made, or be added; there is no group
  // It takes part, but has lost what cannot be repaired, and is to be replaced by another.
  std::optional<absl::Status> damaged;
  std::optional<wire::EndRecord> ended;  // the log did, here: the successors have the items

  explicit Replica(store::Tree* t) : tree(t), state_machine(t) {}

  // kOutOfRange naming the range.
  absl::Status CheckKey(std::string_view storage_key) const;
  absl::Status CheckRange(std::string_view range_first, std::string_view range_end) const;
  // The partitions that an ended one gave way to, in key order.
  std::vector<PartitionId> Successors() const;
};

// A description is one value in the replica's tree.
inline constexpr size_t kDescriptionBytesMax = 64 << 10;

// Parses and checks a description (encoded wire::CreateReplicaRequest) of a replica on node `self`:
// kInvalidArgument naming what is wrong.
absl::Status ParseDescription(std::string_view description, NodeId self, Replica& replica);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_REPLICA_H_
