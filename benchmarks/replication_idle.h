// What groups cost of which nothing is asked.
//
//   idle_groups/1000000             a million groups on three nodes in this process, added at rest
//   idle_groups/1000000/log_stream  what the node log keeps in memory of a group that has written
#ifndef DYNLIB_BENCHMARKS_REPLICATION_IDLE_H_
#define DYNLIB_BENCHMARKS_REPLICATION_IDLE_H_

#include "benchmarks/harness.h"

namespace dynlib::bench {

void MeasureIdleGroups(Harness& harness);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_REPLICATION_IDLE_H_
