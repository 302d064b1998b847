#include "dynlib/runtime/tcp/outbound.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"

namespace dynlib {
namespace {

constexpr size_t kFramesPerWrite = 64;

}  // namespace

void Outbound::SetAddress(const SocketAddress& address) {
  std::lock_guard lock(mutex_);
  if (address_ == address) return;
  address_ = address;
  address_changed_ = true;
}

bool Outbound::Push(Frame frame) {
  std::lock_guard lock(mutex_);
  const bool is_full = queued_messages_ >= options_.max_messages ||
                       queued_bytes_ + frame.message.size() > options_.max_bytes;
  if (is_full && queued_messages_ > 0) return false;
  ++queued_messages_;
  queued_bytes_ += frame.message.size();
  queue_.push_back(std::move(frame));
  return true;
}

void Outbound::Work(Instant now) {
  TakeNewAddress(now);
  if (state_ == State::kConnecting && now >= next_attempt_) Fail(now);
  if (state_ == State::kIdle && now >= next_attempt_ && Refill()) Connect(now);
  if (state_ == State::kConnected && !is_blocked_) Flush(now);
}

void Outbound::TakeNewAddress(Instant now) {
  {
    std::lock_guard lock(mutex_);
    if (!address_changed_) return;
    address_changed_ = false;
    connect_address_ = address_;
  }
  // What is queued goes to the new address, but for a frame of which a part was written.
  if (written_of_first_ > 0) {
    metrics_->Count("transport.dropped", 1);
    Written(writing_.front().size() - written_of_first_);
  }
  Disconnect();
  backoff_ = Duration::zero();
  next_attempt_ = now;
}

void Outbound::Connect(Instant now) {
  metrics_->Count("transport.connects", 1);
  absl::StatusOr<Fd> socket = ConnectTo(connect_address_);
  if (!socket.ok()) return Fail(now);
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.u64 = token_}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, socket->get(), &event) != 0) return Fail(now);
  socket_ = *std::move(socket);
  state_ = State::kConnecting;
  next_attempt_ = now + options_.reconnect_max;
}

void Outbound::OnSocket(uint32_t events, Instant now) {
  if (state_ == State::kIdle) return;  // Of a socket that is closed by now.
  const bool is_broken = (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0;
  // The peer sends nothing here; if it does, it is no peer.
  if (is_broken || (events & EPOLLIN) != 0) return Fail(now);
  if (state_ == State::kConnecting) {
    if (SocketError(socket_.get()) != 0) return Fail(now);
    state_ = State::kConnected;
    connected_since_ = now;
  }
  is_blocked_ = false;
  Flush(now);
}

Instant Outbound::Wakeup() {
  if (state_ == State::kConnecting) return next_attempt_;
  if (state_ == State::kConnected) return Instant::Infinite();
  std::lock_guard lock(mutex_);
  return queued_messages_ > 0 ? next_attempt_ : Instant::Infinite();
}

// A connection that held for long starts afresh; one that is refused, or broken soon, backs off.
void Outbound::Fail(Instant now) {
  metrics_->Count("transport.connection_failures", 1);
  const bool held = state_ == State::kConnected && now - connected_since_ > options_.reconnect_max;
  backoff_ = held ? Duration::zero()
                  : std::clamp(backoff_ * 2, options_.reconnect_min, options_.reconnect_max);
  next_attempt_ = now + backoff_;
  Disconnect();
  size_t dropped;
  std::deque<Frame> queue;  // destroyed after the lock is
  {
    std::lock_guard lock(mutex_);
    queue.swap(queue_);
    dropped = std::exchange(queued_messages_, 0);
    queued_bytes_ = 0;
  }
  writing_.clear();
  metrics_->Count("transport.dropped", static_cast<int64_t>(dropped));
}

void Outbound::Disconnect() {
  socket_.Reset();
  state_ = State::kIdle;
  written_of_first_ = 0;
}

// True if there is something to write.
bool Outbound::Refill() {
  if (!writing_.empty()) return true;
  std::lock_guard lock(mutex_);
  writing_.swap(queue_);
  return !writing_.empty();
}

void Outbound::Flush(Instant now) {
  while (Refill()) {
    iovec parts[2 * kFramesPerWrite];
    size_t count = 0;
    size_t skip = written_of_first_;
    const auto add = [&](const char* data, size_t size) {
      const size_t skipped = std::min(skip, size);
      skip -= skipped;
      if (skipped == size) return;
      parts[count++] = {const_cast<char*>(data) + skipped, size - skipped};
    };
    for (size_t i = 0; i < std::min(writing_.size(), kFramesPerWrite); ++i) {
      add(writing_[i].header.data(), writing_[i].header.size());
      add(writing_[i].message.data(), writing_[i].message.size());
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const ssize_t put = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      is_blocked_ = true;  // Until epoll says that there is room.
      return;
    }
    if (put < 0) return Fail(now);
    Written(static_cast<size_t>(put));
  }
}

void Outbound::Written(size_t bytes) {
  size_t messages = 0;
  size_t message_bytes = 0;
  written_of_first_ += bytes;
  while (!writing_.empty() && written_of_first_ >= writing_.front().size()) {
    written_of_first_ -= writing_.front().size();
    ++messages;
    message_bytes += writing_.front().message.size();
    writing_.pop_front();
  }
  std::lock_guard lock(mutex_);
  queued_messages_ -= messages;
  queued_bytes_ -= message_bytes;
}

}  // namespace dynlib
