// Which replicas a node ought to give away: when it uses too much of its throughput or its space,
// candidates whose going brings it back below a target (USENIX ATC '22, "DynamoDB", section 4.1.3).
// Whoever places replicas picks among them, since it knows the other nodes and zones.
//
//   MoveAdvice advice = AdviseMoves(replicas, capacity, {});
//   if (advice.verdict == MoveVerdict::kMove) report advice.candidates
//
// Large ones first, so that few have to move; but none that is most of the excess by itself and
// would only make its new node the hot one: that partition is to be split (heat.h).
//
// A pure function. Threads: any.
#ifndef DYNLIB_ADMISSION_NODE_BALANCE_H_
#define DYNLIB_ADMISSION_NODE_BALANCE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"

namespace dynlib::admission {

struct ReplicaLoad {
  PartitionId partition{};
  double units_per_second = 0;
  uint64_t bytes = 0;
};

struct NodeCapacity {
  double units_per_second = 100'000;             // [0.0001, 1e9]
  uint64_t bytes = uint64_t{1'000'000'000'000};  // >= 1
};

struct NodeBalanceOptions {
  double move_above = 0.8;          // of a capacity: (0, 1]
  double move_down_to = 0.7;        // (0, move_above]
  double replica_share_max = 0.25;  // of a capacity that one replica which is moved may use: (0, 1]
  size_t candidates_max = 10;       // [1, 1000]
};

// kInvalidArgument naming field, value and range.
absl::Status Validate(const NodeCapacity& capacity, const NodeBalanceOptions& options);

enum class MoveVerdict : uint8_t {
  kBalanced,  // below both thresholds
  kMove,      // these
  kTooLarge,  // over, but what makes it so is in replicas too hot or too large to be moved: split
};
const char* MoveVerdictName(MoveVerdict verdict);

struct MoveAdvice {
  MoveVerdict verdict = MoveVerdict::kBalanced;
  std::vector<PartitionId> candidates;
  // What is over, such as "throughput: 91000 of 100000 units a second".
  std::string reason;
};

// Capacity and options as Validate demands. The same input, in any order, gives the same advice.
MoveAdvice AdviseMoves(std::span<const ReplicaLoad> replicas, const NodeCapacity& capacity,
                       const NodeBalanceOptions& options);

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_NODE_BALANCE_H_
