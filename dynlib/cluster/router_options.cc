#include "dynlib/cluster/router_options.h"

#include <set>
#include <string_view>

#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

constexpr Duration kMillisecond = std::chrono::milliseconds(1);
constexpr Duration kTimeMax = std::chrono::minutes(10);
constexpr Duration kDelayMax = std::chrono::seconds(10);
constexpr size_t kCatalogueNodesMax = 7;
constexpr size_t kMetadataNodesMax = 16;

absl::Status CheckTime(std::string_view field, Duration value, Duration max) {
  if (value >= kMillisecond && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat(field, " is ", ToMicros(value), " us; allowed: 1000 to ", ToMicros(max)));
}

absl::Status CheckCount(std::string_view field, size_t value, size_t min, size_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed: ", min, " to ", max));
}

absl::Status CheckNodes(std::string_view field, const std::vector<NodeId>& nodes, size_t min,
                        size_t max) {
  if (absl::Status status = CheckCount(Cat(field, ".size()"), nodes.size(), min, max);
      !status.ok()) {
    return status;
  }
  std::set<NodeId> seen;
  for (NodeId node : nodes) {
    if (node == NodeId{} || !seen.insert(node).second) {
      return absl::InvalidArgumentError(
          Cat(field, " has node ", node, "; allowed: different ones, not 0"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const RouterOptions& options) {
  if (options.client == ClientId{})
    return absl::InvalidArgumentError("client is 0; allowed: 1 to 2^64 - 1");
  for (absl::Status status : {
           CheckNodes("catalogue_nodes", options.catalogue_nodes, 1, kCatalogueNodesMax),
           CheckNodes("metadata_nodes", options.metadata_nodes, 0, kMetadataNodesMax),
           CheckTime("timeout", options.timeout, kTimeMax),
           CheckTime("attempt_timeout", options.attempt_timeout, kTimeMax),
           CheckTime("retry_delay", options.retry_delay, kDelayMax),
           CheckTime("retry_delay_max", options.retry_delay_max, kDelayMax),
           CheckTime("catalogue_interval", options.catalogue_interval, kTimeMax),
           CheckCount("look_up_fan_out", options.look_up_fan_out, 1, 4),
           CheckTime("look_up_timeout", options.look_up_timeout, kTimeMax),
           CheckTime("table_interval", options.table_interval, kTimeMax),
           CheckCount("max_routes", options.max_routes, 1, 1'000'000),
           CheckCount("max_in_flight", options.max_in_flight, 1, 4000),
           CheckCount("max_batch", options.max_batch, 1, 10'000),
           Validate(options.admission),
       }) {
    if (!status.ok()) return status;
  }
  if (options.retry_delay > options.retry_delay_max) {
    return absl::InvalidArgumentError(Cat("retry_delay is ", ToMicros(options.retry_delay),
                                          " us; allowed: up to retry_delay_max, ",
                                          ToMicros(options.retry_delay_max)));
  }
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
