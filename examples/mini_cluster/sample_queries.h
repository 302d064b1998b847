// A few queries on what was loaded, for people to see.
//
// Threads: one that may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_SAMPLE_QUERIES_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_SAMPLE_QUERIES_H_

#include "absl/status/status.h"
#include "dynlib/cluster/catalogue.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/data_set.h"

namespace dynlib::mini_cluster {

// Prints one line each for a range of sort keys, a prefix, and the last items of a partition key;
// for a table without sort keys, for one item. An error if a query fails or finds nothing.
absl::Status PrintSampleQueries(Client& client, const cluster::TableInfo& table,
                                const DataSet& data);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_SAMPLE_QUERIES_H_
