// The tables of the mini-cluster.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_NAMES_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_NAMES_H_

namespace dynlib::mini_cluster {

inline constexpr char kRecordsTable[] = "records";    // the data set
inline constexpr char kCountersTable[] = "counters";  // what the mixed load counts in
inline constexpr char kCounterName[] = "name";        // its partition key, a string
inline constexpr char kCounterValue[] = "value";      // a number
inline constexpr int kCounterPartitions = 2;
inline constexpr char kHotTable[] = "hot";          // with more requests than a partition may serve
inline constexpr char kMeteredTable[] = "metered";  // with provisioned throughput
// Partitions have three replicas, one a zone.
inline constexpr int kReplicas = 3;

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_NAMES_H_
