#include "dynlib/runtime/tcp/tcp_transport.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/posix/event_loop.h"
#include "dynlib/runtime/posix/posix_status.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/tcp/frame.h"
#include "dynlib/runtime/tcp/outbound.h"
#include "dynlib/runtime/tcp/socket.h"

namespace dynlib {
namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr int kReadsPerTurn = 8;  // then others have their turn

absl::Status CheckOptions(const TcpTransport::Options& options) {
  const auto refuse = [](std::string_view field, auto value, std::string_view want) {
    return absl::InvalidArgumentError(
        Cat("TcpTransport::Options::", field, " is ", value, ": want ", want));
  };
  if (ToUint(options.self) == 0) return refuse("self", 0, "a node's id, not 0");
  if (options.max_queued_messages < 1) return refuse("max_queued_messages", 0, "at least 1");
  if (options.max_queued_bytes < 1) return refuse("max_queued_bytes", 0, "at least 1");
  if (options.max_connections < 1) return refuse("max_connections", 0, "at least 1");
  if (options.reconnect_min <= Duration::zero()) {
    return refuse("reconnect_min", options.reconnect_min.count(), "more than 0 ns");
  }
  if (options.reconnect_max < options.reconnect_min) {
    return refuse("reconnect_max", options.reconnect_max.count(),
                  Cat("at least reconnect_min, ", options.reconnect_min.count(), " ns"));
  }
  return absl::OkStatus();
}

}  // namespace

// Everything: the senders' side, and what the event loop calls.
class TcpTransport::Loop final : public EventLoop::Source {
 public:
  Loop(Options options, MetricsSink* metrics)
      : options_(std::move(options)),
        metrics_(metrics),
        inbox_(options_.inbox, metrics),
        read_buffer_(kReadBytes, '\0') {}
  ~Loop() override;

  absl::Status Start();

  absl::Status AddPeer(NodeId peer, const std::string& address);
  void Send(NodeId to, Channel channel, std::string message);

  NodeId self() const { return options_.self; }
  const std::string& address() const { return address_; }
  Inbox& inbox() { return inbox_; }

 private:
  struct Inbound {
    Inbound(Fd fd, NodeId self) : socket(std::move(fd)), reader(self) {}
    Fd socket;
    FrameReader reader;
  };

  bool Watch(int fd, uint32_t events, uint64_t token);
  void OnReady(uint64_t token, uint32_t events) override;
  Instant EndTurn(Instant now) override;
  void Accept();
  void AcceptAndClose();
  void Read(uint64_t token, Inbound& connection);

  const Options options_;
  MetricsSink* const metrics_;
  SystemClock clock_;
  Inbox inbox_;
  std::string address_;
  std::unique_ptr<EventLoop> own_loop_;
  EventLoop* event_loop_ = nullptr;
  std::atomic<uint64_t> listen_token_{0};  // set before the listener is watched
  Fd listener_;
  Fd spare_;  // given up for a moment to accept and close a connection when descriptors run out

  std::mutex mutex_;
  // Never removed, so pointers to them stay good.
  std::unordered_map<NodeId, std::unique_ptr<Outbound>> peers_;
  std::unordered_map<uint64_t, Outbound*> outbound_;  // by token
  uint64_t next_token_ = 0;                           // one for each connection and peer

  // The loop's.
  std::unordered_map<uint64_t, std::unique_ptr<Inbound>> inbound_;
  std::string read_buffer_;
};

TcpTransport::Loop::~Loop() {
  if (listen_token_ != 0) event_loop_->RemoveSource(this);
  own_loop_ = nullptr;
  inbox_.Close();
}

absl::Status TcpTransport::Loop::Start() {
  DYNLIB_RETURN_IF_ERROR(CheckOptions(options_));
  DYNLIB_ASSIGN_OR_RETURN(const SocketAddress wanted, ResolveAddress(options_.listen));
  DYNLIB_ASSIGN_OR_RETURN(auto listening, ListenOn(wanted));
  listener_ = std::move(listening.first);
  address_ = ShowAddress(listening.second);
  spare_ = Fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!spare_.is_open()) return StatusFromErrno("start transport on", address_);
  event_loop_ = options_.loop;
  if (event_loop_ == nullptr) {
    own_loop_ = std::make_unique<EventLoop>(EventLoop::Options{.name = "dynlib-tcp"});
    event_loop_ = own_loop_.get();
  }
  const uint64_t first_token = event_loop_->AddSource(this);
  {
    std::lock_guard lock(mutex_);
    next_token_ = first_token + 1;
    listen_token_ = first_token;
  }
  for (const auto& [peer, address] : options_.peers) {
    DYNLIB_RETURN_IF_ERROR(AddPeer(peer, address));
  }
  if (!Watch(listener_.get(), EPOLLIN, first_token)) {
    return StatusFromErrno("start transport on", address_);
  }
  return absl::OkStatus();
}

absl::Status TcpTransport::Loop::AddPeer(NodeId peer, const std::string& address) {
  DYNLIB_ASSIGN_OR_RETURN(const SocketAddress resolved, ResolveAddress(address));
  {
    std::lock_guard lock(mutex_);
    std::unique_ptr<Outbound>& outbound = peers_[peer];
    if (outbound == nullptr) {
      const uint64_t token = next_token_++;
      outbound =
          std::make_unique<Outbound>(Outbound::Options{.max_messages = options_.max_queued_messages,
                                                       .max_bytes = options_.max_queued_bytes,
                                                       .reconnect_min = options_.reconnect_min,
                                                       .reconnect_max = options_.reconnect_max},
                                     event_loop_->epoll_fd(), token, metrics_);
      outbound_.emplace(token, outbound.get());
    }
    outbound->SetAddress(resolved);
  }
  event_loop_->Wake();
  return absl::OkStatus();
}

void TcpTransport::Loop::Send(NodeId to, Channel channel, std::string message) {
  if (message.size() > kMaxMessageBytes) {
    metrics_->Count("transport.dropped", 1);
    return;
  }
  if (to == options_.self) {
    inbox_.Deliver(to, channel, std::move(message));
    return;
  }
  Outbound* peer = nullptr;
  {
    std::lock_guard lock(mutex_);
    const auto found = peers_.find(to);
    if (found != peers_.end()) peer = found->second.get();
  }
  const FrameHeader header{.length = static_cast<uint32_t>(message.size()),
                           .from = options_.self,
                           .to = to,
                           .channel = channel,
                           .checksum = Checksum(message)};
  if (peer == nullptr || !peer->Push({EncodeFrameHeader(header), std::move(message)})) {
    metrics_->Count("transport.dropped", 1);
    return;
  }
  event_loop_->Wake();
}

bool TcpTransport::Loop::Watch(int fd, uint32_t events, uint64_t token) {
  epoll_event event{.events = events, .data = {.u64 = token}};
  return epoll_ctl(event_loop_->epoll_fd(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void TcpTransport::Loop::OnReady(uint64_t token, uint32_t events) {
  if (token == listen_token_) return Accept();
  if (const auto found = inbound_.find(token); found != inbound_.end()) {
    return Read(token, *found->second);
  }
  Outbound* peer = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (const auto found = outbound_.find(token); found != outbound_.end()) peer = found->second;
  }
  if (peer != nullptr) peer->OnSocket(events, clock_.Now());
}

Instant TcpTransport::Loop::EndTurn(Instant now) {
  std::vector<Outbound*> peers;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [node, peer] : peers_) peers.push_back(peer.get());
  }
  Instant wakeup = Instant::Infinite();
  for (Outbound* peer : peers) {
    peer->Work(now);
    wakeup = std::min(wakeup, peer->Wakeup());
  }
  return wakeup;
}

void TcpTransport::Loop::Accept() {
  while (true) {
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.is_open()) {
      if (errno == EMFILE || errno == ENFILE) AcceptAndClose();
      return;
    }
    if (inbound_.size() >= options_.max_connections) {
      metrics_->Count("transport.refused_connections", 1);
      continue;
    }
    uint64_t token;
    {
      std::lock_guard lock(mutex_);
      token = next_token_++;
    }
    if (!Watch(socket.get(), EPOLLIN, token)) continue;
    inbound_.emplace(token, std::make_unique<Inbound>(std::move(socket), options_.self));
  }
}

// Out of descriptors: without this the waiting connection would wake the loop again and again.
void TcpTransport::Loop::AcceptAndClose() {
  metrics_->Count("transport.refused_connections", 1);
  spare_.Reset();
  Fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)).Reset();
  spare_ = Fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

void TcpTransport::Loop::Read(uint64_t token, Inbound& connection) {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    const ssize_t got = recv(connection.socket.get(), read_buffer_.data(), read_buffer_.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) {
      inbound_.erase(token);
      return;
    }
    const std::string_view bytes(read_buffer_.data(), static_cast<size_t>(got));
    const bool is_good =
        connection.reader.Consume(bytes, [this](NodeId from, Channel channel, std::string message) {
          inbox_.Deliver(from, channel, std::move(message));
        });
    if (!is_good) {
      metrics_->Count("transport.damaged", 1);
      inbound_.erase(token);
      return;
    }
    if (bytes.size() < read_buffer_.size()) return;
  }
}

TcpTransport::TcpTransport(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}

TcpTransport::~TcpTransport() = default;

absl::StatusOr<std::unique_ptr<TcpTransport>> TcpTransport::Start(Options options,
                                                                  MetricsSink* metrics) {
  auto loop = std::make_unique<Loop>(std::move(options), metrics);
  DYNLIB_RETURN_IF_ERROR(loop->Start());
  return std::unique_ptr<TcpTransport>(new TcpTransport(std::move(loop)));
}

const std::string& TcpTransport::address() const { return loop_->address(); }

absl::Status TcpTransport::AddPeer(NodeId peer, const std::string& address) {
  return loop_->AddPeer(peer, address);
}

NodeId TcpTransport::self() const { return loop_->self(); }

void TcpTransport::Send(NodeId to, Channel channel, std::string message) {
  loop_->Send(to, channel, std::move(message));
}

void TcpTransport::Listen(Channel channel, Executor* executor, Receiver receiver) {
  loop_->inbox().Listen(channel, executor, std::move(receiver));
}

void TcpTransport::StopListening(Channel channel) { loop_->inbox().StopListening(channel); }

}  // namespace dynlib
