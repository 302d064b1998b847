// The socket calls that TcpTransport needs, with Status for errors.
#ifndef DYNLIB_RUNTIME_TCP_SOCKET_H_
#define DYNLIB_RUNTIME_TCP_SOCKET_H_

#include <sys/socket.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib {

// Closes a descriptor when it goes.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    other.Reset();
    return *this;
  }
  ~Fd() { Reset(); }

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void Reset();

 private:
  int fd_ = -1;
};

struct SocketAddress {
  sockaddr_storage bytes{};
  socklen_t length = 0;

  friend bool operator==(const SocketAddress& a, const SocketAddress& b);
};

// "host:port" or "[v6]:port"; kInvalidArgument for another form, kUnavailable for a name that does
// not resolve. Blocks while it asks.
absl::StatusOr<SocketAddress> ResolveAddress(const std::string& address);

// "host:port" in numbers.
std::string ShowAddress(const SocketAddress& address);

// A non-blocking socket that listens there, and where that is.
absl::StatusOr<std::pair<Fd, SocketAddress>> ListenOn(const SocketAddress& address);

// A non-blocking socket on its way to there.
absl::StatusOr<Fd> ConnectTo(const SocketAddress& address);

// The error that the socket came to, 0 if none.
int SocketError(int fd);

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_TCP_SOCKET_H_
