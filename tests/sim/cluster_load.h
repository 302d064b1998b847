// Clients of a simulated cluster: each with a router on a node of its own, reading and writing a
// few keys at random, and keeping a history of what they were told.
#ifndef TESTS_SIM_CLUSTER_LOAD_H_
#define TESTS_SIM_CLUSTER_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/router.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/history.h"
#include "dynlib/sim/world.h"
#include "tests/sim/cluster_simulation.h"

namespace dynlib {

class ClusterLoad {
 public:
  ClusterLoad(const SimulationOptions& options, const ClusterShape& shape,
              const cluster::ClusterConfig& config, sim::World* world, Random* random,
              MetricsSink* metrics);

  absl::Status CreateTable();
  // The table as the catalogue has it; nothing if that cannot be read now.
  std::optional<cluster::TableInfo> Table();

  void Start();
  // False: something is still under way after a while.
  bool Stop();
  // Reads every key, and first writes all or every other one, each until that is acknowledged.
  // False if that took longer than `limit`; nothing can be asked any more then.
  bool EveryKeyWorks(bool write_all, Duration limit);

  // Where a router's knowledge of a key's place became older than it was; empty: nowhere.
  const std::string& RoutesWentBack() const { return routes_went_back_; }

  // Some storage key that is in use.
  std::string AnyStorageKey();
  const sim::History& history() const { return history_; }
  uint64_t operations() const { return operations_; }
  uint64_t acknowledged() const { return acknowledged_; }

 private:
  struct Client {
    ClientId id{};
    sim::Node* node = nullptr;
    Executor* executor = nullptr;
    std::unique_ptr<Rpc> rpc;
    std::unique_ptr<cluster::Router> router;
    std::map<std::string, sim::Register> last_seen;
    bool asks_metadata = false;
    // As seen after the last request for each key.
    std::map<std::string, std::optional<partition_map::PartitionRecord>> routes;
    int busy = 0;
  };

  void RunOne(Client& client);
  void Again(Client& client);
  void CheckRoute(Client& client, const std::string& key);
  void ReadOne(Client& client, const std::string& key, std::function<void(bool ok)> then);
  void WriteOne(Client& client, const std::string& key, bool conditional, bool erase,
                std::function<void(bool ok)> then);
  cluster::Item MakeItem(const std::string& key, const std::string& value);

  const SimulationOptions& options_;
  const ClusterShape shape_;
  const cluster::ClusterConfig& config_;
  sim::World* const world_;
  Random* const random_;
  std::vector<std::unique_ptr<Client>> clients_;
  sim::History history_;
  bool working_ = false;
  std::string routes_went_back_;
  uint64_t values_ = 0;
  uint64_t operations_ = 0;
  uint64_t acknowledged_ = 0;
};

}  // namespace dynlib

#endif  // TESTS_SIM_CLUSTER_LOAD_H_
