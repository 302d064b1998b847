#include "dynlib/cluster/partition_plan.h"

#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"

namespace dynlib::cluster {
namespace {

constexpr std::string_view kPrefix = "plan/";
constexpr char kPlanAttribute[] = "plan";

}  // namespace

bool IsPlanName(std::string_view catalogue_name) { return catalogue_name.starts_with(kPrefix); }

std::string PlanName(PartitionId partition) { return Cat(kPrefix, partition); }

bool IsTableName(std::string_view catalogue_name) {
  return catalogue_name.find('/') == std::string_view::npos;
}

Item EncodePlanItem(const PartitionPlan& plan) {
  wire::PartitionPlan to;
  to.set_partition(ToUint(plan.partition));
  to.set_table(ToUint(plan.table));
  to.set_version(plan.version);
  to.set_last_replica(ToUint(plan.last_replica));
  if (plan.move.has_value()) {
    to.mutable_learner()->set_replica(ToUint(plan.move->learner.replica));
    to.mutable_learner()->set_node(ToUint(plan.move->learner.node));
    to.mutable_learner()->set_kind(plan.move->learner.log ? wire::LOG : wire::STORAGE);
    to.set_replaces(ToUint(plan.move->replaces));
  }
  Item item;
  item[std::string(kCatalogueKey)] = Value::String(PlanName(plan.partition));
  item[kPlanAttribute] = Value::Binary(to.SerializeAsString());
  item[std::string(kVersionAttribute)] = Value::Number(static_cast<int64_t>(plan.version));
  return item;
}

absl::StatusOr<PartitionPlan> DecodePlanItem(const Item& item) {
  const auto name = item.find(kCatalogueKey);
  if (name == item.end() || !name->second.is(ValueType::kString))
    return absl::DataLossError("an item of the catalogue has no name");
  auto fail = [&](std::string_view what) {
    return absl::DataLossError(
        Cat("'", Escape(name->second.string()), "' in the catalogue: ", what));
  };
  const auto bytes = item.find(kPlanAttribute);
  wire::PartitionPlan from;
  if (bytes == item.end() || !bytes->second.is(ValueType::kBinary) ||
      !from.ParseFromString(bytes->second.binary())) {
    return fail("no binary attribute 'plan' that parses");
  }
  PartitionPlan plan{.partition = PartitionId{from.partition()},
                     .table = TableId{from.table()},
                     .version = from.version(),
                     .last_replica = ReplicaId{from.last_replica()},
                     .move = {}};
  if (name->second.string() != PlanName(plan.partition) || plan.version == 0)
    return fail("it is the plan of another partition, or has no version");
  if (from.has_learner()) {
    plan.move = {.learner = {ReplicaId{from.learner().replica()}, NodeId{from.learner().node()},
                             from.learner().kind() == wire::LOG},
                 .replaces = ReplicaId{from.replaces()}};
    if (from.learner().replica() == 0 || from.learner().node() == 0)
      return fail("its learner has no id");
  }
  return plan;
}

Condition FollowsVersion(uint64_t version) {
  if (version <= 1) {
    return Condition{
        {{.attribute = std::string(kCatalogueKey), .op = Clause::Op::kNotExists, .operand = {}}}};
  }
  return Condition{{{.attribute = std::string(kVersionAttribute),
                     .op = Clause::Op::kEqual,
                     .operand = Value::Number(static_cast<int64_t>(version - 1))}}};
}

}  // namespace dynlib::cluster
