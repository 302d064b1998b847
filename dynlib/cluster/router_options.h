// Options of a router.
#ifndef DYNLIB_CLUSTER_ROUTER_OPTIONS_H_
#define DYNLIB_CLUSTER_ROUTER_OPTIONS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::cluster {

struct RouterOptions {
  ClientId client{};  // unique to this router object, for ever: 64 random bits, say; not 0
  std::vector<NodeId> catalogue_nodes;  // ClusterConfig's, in its order; 1 to 7
  NodeId near{};  // preferred for eventual reads when it has a replica; 0: any
  Duration timeout = std::chrono::seconds(10);  // of a request, retries included; 1 ms to 10 min
  Duration attempt_timeout = std::chrono::seconds(1);  // of one rpc; 1 ms to 10 min
  // Before a second attempt; doubles with each one up to retry_delay_max. The delay is drawn from
  // its upper half. 1 ms to 10 s, and no more than retry_delay_max.
  Duration retry_delay = std::chrono::milliseconds(10);
  Duration retry_delay_max = std::chrono::milliseconds(200);     // 1 ms to 10 s
  Duration catalogue_interval = std::chrono::milliseconds(100);  // 1 ms to 10 min
  size_t max_in_flight = 1000;                                   // requests; 1 to 4,000
  size_t max_batch = 100;  // items of a batch read or write; 1 to 10,000
  uint64_t seed = 1;       // for jitter and for the choice of replicas
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const RouterOptions& options);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_OPTIONS_H_
