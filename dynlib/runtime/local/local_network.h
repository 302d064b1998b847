// A network inside one process: each node has its Transport, messages go by moving a string.
//
//   LocalNetwork network({});
//   std::unique_ptr<Transport> one = network.Attach(NodeId{1});
//   one->Send(NodeId{2}, kChannel, "hello");
//
// Nothing is lost or reordered but at the bounds, and when a node is not attached.
//
// Ownership: the network and its transports may be destroyed in any order; a transport without a
// network, or whose node was detached, sends nothing and receives nothing.
// Threads: any.
#ifndef DYNLIB_RUNTIME_LOCAL_LOCAL_NETWORK_H_
#define DYNLIB_RUNTIME_LOCAL_LOCAL_NETWORK_H_

#include <cstddef>
#include <memory>

#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/inbox.h"
#include "dynlib/runtime/transport.h"

namespace dynlib {

class LocalNetwork {
 public:
  struct Options {
    Inbox::Options inbox;  // of each node
  };

  explicit LocalNetwork(Options options, MetricsSink* metrics = MetricsSink::None());
  ~LocalNetwork();

  // A node's end. It replaces the node's earlier one, which is detached: so a node that restarts
  // attaches again. Destroying the transport detaches it.
  std::unique_ptr<Transport> Attach(NodeId node);

  // Cuts the node off, as if its process had ended: messages to and from it vanish, those that
  // wait for its receivers too.
  void Detach(NodeId node);

 private:
  class Hub;
  class Endpoint;
  class End;
  std::shared_ptr<Hub> hub_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_LOCAL_LOCAL_NETWORK_H_
