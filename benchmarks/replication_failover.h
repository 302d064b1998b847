// How long a group is without writes when its leader dies, hands over, or has a disk that hangs;
// and how long it has one copy too few when a storage replica dies.
//
//   failover/kill                the leader's node falls silent; the longest time between two
//                                acknowledged writes, one after the other, with default options
//   failover/kill/10000groups    all of 10,000 groups are led by it: until each has taken a write
//   failover/elections_at_load   elections at 90 % of the writes that the group takes; --seconds S
//                                says for how long (600 for ten minutes)
//   failover/transfer            the leader is asked to hand over
//   failover/hung_disk           writes and syncs of the leader's disk end no more: until another
//                                leads; and how long the group was without writes
//   log_replica/256MB            a storage replica of a group with a log of 256 MB dies: until a
//   log
//                                replica that is added in its place holds all that was chosen, and
//                                votes; beside a plain copy of that log
#ifndef DYNLIB_BENCHMARKS_REPLICATION_FAILOVER_H_
#define DYNLIB_BENCHMARKS_REPLICATION_FAILOVER_H_

#include "benchmarks/harness.h"

namespace dynlib::bench {

void MeasureFailover(Harness& harness);
void MeasureLogReplica(Harness& harness);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_REPLICATION_FAILOVER_H_
