// The sending half of TcpTransport towards one peer: a bounded queue and the connection that drains
// it. Private to TcpTransport.
//
// Threads: Push and SetAddress from any; the rest on the event loop.
#ifndef DYNLIB_RUNTIME_TCP_OUTBOUND_H_
#define DYNLIB_RUNTIME_TCP_OUTBOUND_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/tcp/frame.h"
#include "dynlib/runtime/tcp/socket.h"

namespace dynlib {

class Outbound {
 public:
  struct Options {
    size_t max_messages = 0;
    size_t max_bytes = 0;
    Duration reconnect_min{};
    Duration reconnect_max{};
  };
  struct Frame {
    std::array<char, kFrameHeaderBytes> header;
    std::string message;
    size_t size() const { return header.size() + message.size(); }
  };

  // Watches its sockets in `epoll_fd` with `token` as their data, edge-triggered.
  Outbound(const Options& options, int epoll_fd, uint64_t token, MetricsSink* metrics)
      : options_(options), epoll_fd_(epoll_fd), token_(token), metrics_(metrics) {}

  void SetAddress(const SocketAddress& address);
  // False if the queue is full.
  bool Push(Frame frame);

  // Something was pushed, or the address changed, or the time that Wakeup told has come.
  void Work(Instant now);
  // epoll said something about the socket.
  void OnSocket(uint32_t events, Instant now);
  // When to call Work though nothing happens; Infinite for never.
  Instant Wakeup();

 private:
  enum class State { kIdle, kConnecting, kConnected };

  void TakeNewAddress(Instant now);
  void Connect(Instant now);
  void Fail(Instant now);
  void Disconnect();
  void Flush(Instant now);
  bool Refill();
  void Written(size_t bytes);

  const Options options_;
  const int epoll_fd_;
  const uint64_t token_;
  MetricsSink* const metrics_;

  std::mutex mutex_;
  SocketAddress address_;
  bool address_changed_ = false;
  std::deque<Frame> queue_;
  // Of queue_ and writing_.
  size_t queued_messages_ = 0;
  size_t queued_bytes_ = 0;

  // The event loop's.
  State state_ = State::kIdle;
  Fd socket_;
  bool is_blocked_ = false;  // the socket takes no more
  SocketAddress connect_address_;
  Instant connected_since_;
  Instant next_attempt_;  // when idle; when connecting, the time to give up
  Duration backoff_{};
  std::deque<Frame> writing_;
  size_t written_of_first_ = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_TCP_OUTBOUND_H_
