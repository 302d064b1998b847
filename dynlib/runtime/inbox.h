// The receiving half of a Transport: who listens on which channel, and how much is waiting for
// them.
//
// For those who implement a Transport: forward Listen and StopListening to it, and call Deliver for
// each message that arrived whole.
//
// Bounds are over all channels of the node and count messages that were delivered and that the
// receiver has not been called with yet. At the bound a message is dropped and counted
// ("transport.dropped"), except that into an empty inbox any one message goes. Messages without a
// receiver are counted as "transport.no_receiver".
//
// Threads: any.
#ifndef DYNLIB_RUNTIME_INBOX_H_
#define DYNLIB_RUNTIME_INBOX_H_

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"

namespace dynlib {

class Inbox {
 public:
  struct Options {
    size_t max_messages = 10'000;
    size_t max_bytes = 64 << 20;
  };

  Inbox(Options options, MetricsSink* metrics);

  void Listen(Channel channel, Executor* executor, Transport::Receiver receiver);
  void StopListening(Channel channel);
  // From then on nothing is delivered, and no receiver runs if this is called on its executor.
  void Close();

  // Posts the message to the channel's receiver.
  void Deliver(NodeId from, Channel channel, std::string message);

 private:
  struct Waiting;
  struct Listener;
  class Charge;

  const Options options_;
  MetricsSink* const metrics_;
  const std::shared_ptr<Waiting> waiting_;
  std::mutex mutex_;
  bool closed_ = false;
  std::unordered_map<Channel, std::shared_ptr<Listener>> listeners_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_INBOX_H_
