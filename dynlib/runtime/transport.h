// Messages between nodes, as unreliable as a network.
//
//   transport->Listen(kReplication, executor, [this](NodeId from, std::string message) { ... });
//   transport->Send(peer, kReplication, bytes);
//
// A Transport is one node's end. A message may be lost, delayed, reordered or repeated; one that
// arrives is whole: each carries a checksum that the receiving end verifies, and a damaged one is
// counted and dropped.
//
// Send never blocks and never calls a receiver inline. Queues are bounded in messages and bytes;
// what does not fit is dropped and counted ("transport.dropped"). Sending to oneself works, also
// asynchronously.
//
// Threads: all methods from any thread. A receiver runs on the executor given with it.
#ifndef DYNLIB_RUNTIME_TRANSPORT_H_
#define DYNLIB_RUNTIME_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/any_invocable.h"
#include "dynlib/base/ids.h"
#include "dynlib/runtime/executor.h"

namespace dynlib {

// What a message is for; each is listened to by one receiver on a node. The application hands out
// the numbers.
enum class Channel : uint32_t {};

class Transport {
 public:
  using Receiver = absl::AnyInvocable<void(NodeId from, std::string message)>;

  // A longer message is dropped and counted, whatever the queues hold.
  static constexpr size_t kMaxMessageBytes = 64 << 20;

  virtual ~Transport() = default;

  virtual NodeId self() const = 0;

  virtual void Send(NodeId to, Channel channel, std::string message) = 0;

  // Replaces the channel's receiver, if any. Messages that arrive on a channel without one are
  // counted and dropped.
  virtual void Listen(Channel channel, Executor* executor, Receiver receiver) = 0;

  // Removes the channel's receiver. Called on the receiver's executor, it never runs again once
  // this returns.
  virtual void StopListening(Channel channel) = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_TRANSPORT_H_
