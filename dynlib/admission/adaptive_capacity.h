// Adaptive capacity: the older, reactive way to serve a skewed load within a table's limit (USENIX
// ATC '22, "DynamoDB", section 4.1.2), kept so that it can be compared with global admission
// control.
//
// A table's limit is divided evenly among its partitions. Every so often the controller hears what
// each partition admitted and refused. While the table as a whole is within its limit, a partition
// that refused is boosted, by `gain` of what it refused (a proportional controller); boosts that
// are not needed any more decay. It acts after somebody was throttled: that is its weakness.
//
//   auto control = AdaptiveCapacity::Create({.table_units_per_second = 1000}, /*partitions=*/4);
//   // every period:
//   for (double units : control->Step(uses)) ...  // partition i: SetCapacity(units)
//
// What all partitions together may admit exceeds the limit by their boosts, which end when the
// table uses its limit: so the table exceeds it for a period or two.
//
// A pure core; deterministic. Threads: one at a time. Units a second throughout.
#ifndef DYNLIB_ADMISSION_ADAPTIVE_CAPACITY_H_
#define DYNLIB_ADMISSION_ADAPTIVE_CAPACITY_H_

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace dynlib::admission {

class AdaptiveCapacity {
 public:
  struct Options {
    double table_units_per_second = 1000;      // [0.0001, 1e9]
    double partition_units_per_second = 3000;  // the most that one partition can do: the same range
    double gain = 1;                           // of what was refused: (0, 10]
    double decay = 0.1;                        // of an unneeded boost, each step: (0, 1]
  };
  // What a partition did in the last period.
  struct Use {
    double admitted_per_second = 0;
    double refused_per_second = 0;
  };

  // kInvalidArgument naming field, value and range; `partitions` must be from 1 to 1,000,000.
  static absl::StatusOr<AdaptiveCapacity> Create(const Options& options, size_t partitions);

  // One Use for each partition; gives the capacity of each until the next step. Uses that are not
  // numbers from 0 count as 0.
  const std::vector<double>& Step(std::span<const Use> uses);

  const std::vector<double>& capacities() const { return capacities_; }
  // What a partition has without a boost.
  double share() const { return share_; }

 private:
  AdaptiveCapacity(const Options& options, size_t partitions);

  Options options_;
  double share_;
  std::vector<double> capacities_;
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_ADAPTIVE_CAPACITY_H_
