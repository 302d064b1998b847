#include "dynlib/cluster/node_statuses.h"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {

void AskNodeStatuses(const std::vector<NodeId>& nodes, Rpc* rpc, Duration timeout,
                     absl::AnyInvocable<void(NodeStatuses)> done) {
  struct Asking {
    size_t open;
    NodeStatuses statuses;
    absl::AnyInvocable<void(NodeStatuses)> done;
  };
  auto asking = std::make_shared<Asking>(Asking{nodes.size(), {}, std::move(done)});
  for (NodeId node : nodes) {
    rpc->Call(node, kNodeStatus, wire::NodeStatusRequest().SerializeAsString(), timeout,
              [asking, node](absl::StatusOr<std::string> result) {
                wire::NodeStatusReply status;
                if (result.ok() && status.ParseFromString(*result) && status.outcome().code() == 0)
                  asking->statuses[node] = std::move(status);
                if (--asking->open == 0) asking->done(std::move(asking->statuses));
              });
  }
}

}  // namespace dynlib::cluster
