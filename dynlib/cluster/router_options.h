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
#include "dynlib/cluster/router_admission_options.h"

namespace dynlib::cluster {

// What a router does to know where partitions are; it matters with metadata nodes alone.
enum class CacheMode {
  kConstantWork,  // each request looks its partition up, hit or miss
  kConventional,  // only a miss does: to compare with, for it multiplies the load when it is cold
};

// Known-bad variants, so that the checkers can be checked (rule S3). All off unless a test sets
// them.
struct RouterFaultsForTest {
  bool stale_hint_accepted = false;  // What a storage node says replaces newer records.
};

struct RouterOptions {
  ClientId client{};  // unique to this router object, for ever: 64 random bits, say; not 0
  std::vector<NodeId> catalogue_nodes;  // ClusterConfig's, in its order; 1 to 7
  // ClusterConfig's; up to 16, all different. None: tables and partitions are read in the
  // catalogue.
  std::vector<NodeId> metadata_nodes;
  NodeId near{};  // preferred for eventual reads when it has a replica; 0: any
  Duration timeout = std::chrono::seconds(10);  // of a request, retries included; 1 ms to 10 min
  Duration attempt_timeout = std::chrono::seconds(1);  // of one rpc; 1 ms to 10 min
  // Before a second attempt; doubles with each one up to retry_delay_max. The delay is drawn from
  // its upper half. 1 ms to 10 s, and no more than retry_delay_max.
  Duration retry_delay = std::chrono::milliseconds(10);
  Duration retry_delay_max = std::chrono::milliseconds(200);     // 1 ms to 10 s
  Duration catalogue_interval = std::chrono::milliseconds(100);  // 1 ms to 10 min
  CacheMode cache_mode = CacheMode::kConstantWork;
  // Look-ups of each request, at different metadata nodes (as many as there are, if fewer); 1 to 4.
  size_t look_up_fan_out = 2;
  Duration look_up_timeout = std::chrono::milliseconds(200);  // of one; 1 ms to 10 min
  Duration table_interval =
      std::chrono::seconds(1);  // each known table is asked for; 1 ms to 10 min
  size_t max_routes = 100'000;  // partitions remembered; 1 to 1,000,000
  size_t max_in_flight = 1000;  // requests; 1 to 4,000
  size_t max_batch = 100;       // items of a batch read or write; 1 to 10,000
  uint64_t seed = 1;            // for jitter and for the choice of replicas
  // Of requests to tables with provisioned throughput; by the cluster's metadata nodes.
  RouterAdmissionOptions admission;
  RouterFaultsForTest faults;
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const RouterOptions& options);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_OPTIONS_H_
