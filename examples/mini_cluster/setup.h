// What every kind of run begins with: the data set, the directory's manifest, clients, tables.
//
// Threads: the main one.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_SETUP_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_SETUP_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/table_placement.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/data_set.h"
#include "examples/mini_cluster/manifest.h"
#include "examples/mini_cluster/mini_cluster.h"
#include "examples/mini_cluster/run_options.h"

namespace dynlib::mini_cluster {

struct Setup {
  DataSet data;
  cluster::TableSpec spec;  // of the data set's table
  Manifest wanted;
  std::optional<Manifest> found;
};

// Touches nothing. Errors name the option or what is wrong with data set or directory.
absl::StatusOr<Setup> SetUp(const RunOptions& options);

// With routers of their own, which have client ids that were never used.
class Clients {
 public:
  Clients(MiniCluster* cluster, const RunOptions& options, size_t count);
  const std::vector<Client*>& all() const { return all_; }
  Client& first() const { return *all_.front(); }

 private:
  std::vector<std::unique_ptr<Client>> owned_;
  std::vector<Client*> all_;
};

// Makes the tables if they are not there. Waits until each partition of both can be used.
absl::Status CreateTables(Client& client, const cluster::ClusterConfig& config,
                          const cluster::TableSpec& records);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_SETUP_H_
