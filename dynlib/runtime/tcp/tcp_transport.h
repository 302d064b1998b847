// Transport over plain TCP, between processes that trust each other and their network: no
// encryption, no authentication. Made for loopback and for measuring.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto transport,
//                           TcpTransport::Start({.self = NodeId{1}, .listen = "127.0.0.1:0"}));
//   DYNLIB_RETURN_IF_ERROR(transport->AddPeer(NodeId{2}, "127.0.0.1:7002"));
//
// One thread does all socket work of a transport: its own, or that of the event loop that it is
// given. Receivers whose executor is that loop's run on the same thread, and what they send goes
// out at the end of the turn, so a message costs no hand-over between threads. A node sends over
// the connection that it made and receives over those that its peers made, so a pair of nodes has
// two. Messages that are sent in short order go out in one system call.
//
// A connection is made at the first message. When it fails, what is queued for the peer is dropped
// and counted, and the next attempt waits: reconnect_min, doubled at each failure up to
// reconnect_max. So a message waits for a dead peer for no longer than that.
//
// Each frame carries checksums of its header and of its payload. A frame that is damaged, longer
// than a message may be, or for another node closes the connection it came on.
//
// Counted: "transport.dropped" (bounds, no such peer, broken connection), "transport.damaged",
// "transport.no_receiver", "transport.connects", "transport.connection_failures",
// "transport.refused_connections".
//
// Threads: any.
#ifndef DYNLIB_RUNTIME_TCP_TCP_TRANSPORT_H_
#define DYNLIB_RUNTIME_TCP_TCP_TRANSPORT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/inbox.h"
#include "dynlib/runtime/posix/event_loop.h"
#include "dynlib/runtime/transport.h"

namespace dynlib {

class TcpTransport final : public Transport {
 public:
  struct Options {
    NodeId self{};                        // not zero
    EventLoop* loop = nullptr;            // outlives the transport; null: one of its own
    std::string listen = "127.0.0.1:0";   // "host:port", "[v6]:port"; port 0: one that is free
    std::map<NodeId, std::string> peers;  // as AddPeer
    size_t max_queued_messages = 10'000;  // to one peer, >= 1
    size_t max_queued_bytes = 64 << 20;   // to one peer, >= 1; one message goes whatever its size
    Inbox::Options inbox;                 // what waits for receivers
    size_t max_connections = 1000;        // made by peers, >= 1
    Duration reconnect_min = std::chrono::milliseconds(10);  // > 0
    Duration reconnect_max = std::chrono::seconds(1);        // >= reconnect_min
  };

  static absl::StatusOr<std::unique_ptr<TcpTransport>> Start(
      Options options, MetricsSink* metrics = MetricsSink::None());
  ~TcpTransport() override;

  // Where it listens, as "host:port", with the port that was chosen.
  const std::string& address() const;

  // Adds a peer, or changes its address: then the old connection is closed. Resolves names, so may
  // block for as long as that takes.
  absl::Status AddPeer(NodeId peer, const std::string& address);

  NodeId self() const override;
  void Send(NodeId to, Channel channel, std::string message) override;
  void Listen(Channel channel, Executor* executor, Receiver receiver) override;
  void StopListening(Channel channel) override;

 private:
  class Loop;
  explicit TcpTransport(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_TCP_TCP_TRANSPORT_H_
