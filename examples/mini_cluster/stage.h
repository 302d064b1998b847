// What every stage of a run works with. While stages run the load goes on.
//
// Threads: the main one, which may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_STAGE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_STAGE_H_

#include <string>
#include <vector>

#include "dynlib/base/time.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/data_set.h"
#include "examples/mini_cluster/events.h"
#include "examples/mini_cluster/mini_cluster.h"
#include "examples/mini_cluster/mixed_load.h"
#include "examples/mini_cluster/switches.h"

namespace dynlib::mini_cluster {

struct Stage {
  MiniCluster& cluster;
  const Events& events;
  const std::vector<Client*> clients;  // the first for whatever needs only one
  MixedLoad& load;
  const DataSet& data;
  // Storage keys of the data set that the load leaves alone, in [first, end).
  std::string quiet_first;
  std::string quiet_end;
  Switches switches;
  Duration pace;  // how long a figure is measured

  Client& client() const { return *clients.front(); }
  Instant Now() const { return client().clock().Now(); }
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_STAGE_H_
