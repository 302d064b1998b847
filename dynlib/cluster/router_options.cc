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

absl::Status CheckTime(std::string_view field, Duration value, Duration max) {
  if (value >= kMillisecond && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat(field, " is ", ToMicros(value), " us; allowed: 1000 to ", ToMicros(max)));
}

absl::Status CheckCount(std::string_view field, size_t value, size_t min, size_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed: ", min, " to ", max));
}

absl::Status CheckCatalogueNodes(const std::vector<NodeId>& nodes) {
  if (absl::Status status =
          CheckCount("catalogue_nodes.size()", nodes.size(), 1, kCatalogueNodesMax);
      !status.ok()) {
    return status;
  }
  std::set<NodeId> seen;
  for (NodeId node : nodes) {
    if (node == NodeId{} || !seen.insert(node).second) {
      return absl::InvalidArgumentError(
          Cat("catalogue_nodes has node ", node, "; allowed: different ones, not 0"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const RouterOptions& options) {
  if (options.client == ClientId{})
    return absl::InvalidArgumentError("client is 0; allowed: 1 to 2^64 - 1");
  for (absl::Status status : {
           CheckCatalogueNodes(options.catalogue_nodes),
           CheckTime("timeout", options.timeout, kTimeMax),
           CheckTime("attempt_timeout", options.attempt_timeout, kTimeMax),
           CheckTime("retry_delay", options.retry_delay, kDelayMax),
           CheckTime("retry_delay_max", options.retry_delay_max, kDelayMax),
           CheckTime("catalogue_interval", options.catalogue_interval, kTimeMax),
           CheckCount("max_in_flight", options.max_in_flight, 1, 4000),
           CheckCount("max_batch", options.max_batch, 1, 10'000),
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
