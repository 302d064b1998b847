// What the auto admin intends with a partition, kept in the catalogue before it is acted upon.
//
// It counts the replica ids that were ever given out, so that none is used twice (rule R3), whoever
// acts for the admin and however often it is cut short. An item of the catalogue beside the
// tables': its name is "plan/" and the partition's id, which no table can be called.
//
// Threads: values.
#ifndef DYNLIB_CLUSTER_PARTITION_PLAN_H_
#define DYNLIB_CLUSTER_PARTITION_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"

namespace dynlib::cluster {

struct PartitionPlan {
  // A replica being made, and whom it is to replace.
  struct Move {
    PartitionMember learner;
    ReplicaId replaces{};
    friend bool operator==(const Move&, const Move&) = default;
  };

  PartitionId partition{};
  TableId table{};
  uint64_t version = 0;  // counts writes; 0: never written
  ReplicaId last_replica{};
  std::optional<Move> move;
  friend bool operator==(const PartitionPlan&, const PartitionPlan&) = default;
};

bool IsPlanName(std::string_view catalogue_name);
std::string PlanName(PartitionId partition);

// Whether an item of the catalogue is a table: the names of others have a slash.
bool IsTableName(std::string_view catalogue_name);

Item EncodePlanItem(const PartitionPlan& plan);
// Safe on anything. Errors: kDataLoss naming what is wrong.
absl::StatusOr<PartitionPlan> DecodePlanItem(const Item& item);

// Holds of the item that `version` - 1 left there.
Condition FollowsVersion(uint64_t version);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_PARTITION_PLAN_H_
