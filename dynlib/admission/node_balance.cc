#include "dynlib/admission/node_balance.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

absl::Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", low, " to ", high));
}

// One of the two things that a node has so much of.
struct Resource {
  double used = 0;
  double capacity = 0;
  double (*of)(const ReplicaLoad&) = nullptr;

  double share() const { return used / capacity; }
};

}  // namespace

absl::Status Validate(const NodeCapacity& capacity, const NodeBalanceOptions& options) {
  DYNLIB_RETURN_IF_ERROR(CheckRange("units_per_second", capacity.units_per_second,
                                    BucketRate::kUnitsPerSecondMin,
                                    BucketRate::kUnitsPerSecondMax));
  if (capacity.bytes == 0) return absl::InvalidArgumentError("bytes is 0; it must be at least 1");
  DYNLIB_RETURN_IF_ERROR(CheckRange("move_above", options.move_above, 1e-6, 1));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("move_down_to", options.move_down_to, 1e-6, options.move_above));
  DYNLIB_RETURN_IF_ERROR(CheckRange("replica_share_max", options.replica_share_max, 1e-6, 1));
  return CheckRange("candidates_max", static_cast<double>(options.candidates_max), 1, 1000);
}

const char* MoveVerdictName(MoveVerdict verdict) {
  switch (verdict) {
    case MoveVerdict::kBalanced:
      return "balanced";
    case MoveVerdict::kMove:
      return "move";
    case MoveVerdict::kTooLarge:
      return "split before moving";
  }
  return "unknown";
}

MoveAdvice AdviseMoves(std::span<const ReplicaLoad> replicas, const NodeCapacity& capacity,
                       const NodeBalanceOptions& options) {
  Resource throughput{.capacity = capacity.units_per_second, .of = [](const ReplicaLoad& r) {
                        return std::isfinite(r.units_per_second) ? std::max(0.0, r.units_per_second)
                                                                 : 0.0;
                      }};
  Resource space{.capacity = static_cast<double>(capacity.bytes),
                 .of = [](const ReplicaLoad& r) { return static_cast<double>(r.bytes); }};
  for (const ReplicaLoad& replica : replicas) {
    throughput.used += throughput.of(replica);
    space.used += space.of(replica);
  }
  const bool hot = throughput.share() >= space.share();
  const Resource& scarce = hot ? throughput : space;
  MoveAdvice advice;
  if (scarce.share() <= options.move_above) return advice;
  advice.reason = hot ? Cat("throughput: ", std::llround(scarce.used), " of ",
                            std::llround(scarce.capacity), " units a second")
                      : Cat("space: ", std::llround(scarce.used), " of ",
                            std::llround(scarce.capacity), " bytes");
  std::vector<ReplicaLoad> ordered(replicas.begin(), replicas.end());
  std::sort(ordered.begin(), ordered.end(), [&](const ReplicaLoad& a, const ReplicaLoad& b) {
    return std::tuple(-scarce.of(a), a.partition) < std::tuple(-scarce.of(b), b.partition);
  });
  double excess = scarce.used - options.move_down_to * scarce.capacity;
  for (const ReplicaLoad& replica : ordered) {
    if (excess <= 0 || advice.candidates.size() == options.candidates_max) break;
    const bool movable =
        throughput.of(replica) <= options.replica_share_max * throughput.capacity &&
        space.of(replica) <= options.replica_share_max * space.capacity;
    if (!movable || scarce.of(replica) <= 0) continue;
    advice.candidates.push_back(replica.partition);
    excess -= scarce.of(replica);
  }
  advice.verdict = advice.candidates.empty() ? MoveVerdict::kTooLarge : MoveVerdict::kMove;
  return advice;
}

}  // namespace dynlib::admission
