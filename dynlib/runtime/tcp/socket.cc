#include "dynlib/runtime/tcp/socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "dynlib/base/strings.h"
#include "dynlib/runtime/posix/posix_status.h"

namespace dynlib {
namespace {

// After which bytes that the peer's host does not acknowledge break the connection.
constexpr int kUserTimeoutMs = 10'000;

sockaddr* Raw(SocketAddress& address) { return reinterpret_cast<sockaddr*>(&address.bytes); }
const sockaddr* Raw(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr*>(&address.bytes);
}

void SetOption(int fd, int level, int option, int value) {
  // None that is set here can fail on a TCP socket; without them it works, but slower.
  setsockopt(fd, level, option, &value, sizeof(value));
}

absl::StatusOr<Fd> NewSocket(int family) {
  Fd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) return StatusFromErrno("socket", "");
  return fd;
}

}  // namespace

void Fd::Reset() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

bool operator==(const SocketAddress& a, const SocketAddress& b) {
  return a.length == b.length && std::memcmp(&a.bytes, &b.bytes, a.length) == 0;
}

absl::StatusOr<SocketAddress> ResolveAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == address.npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(
        Cat("address \"", Escape(address), "\": want host:port or [v6]:port"));
  }
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (port.size() > 5 ||
      !std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; }) ||
      std::stoi(port) > 65535) {
    return absl::InvalidArgumentError(
        Cat("address \"", Escape(address), "\": want a port from 0 to 65535"));
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(Cat("address \"", Escape(address), "\": ", gai_strerror(error)));
  }
  SocketAddress result;
  std::memcpy(&result.bytes, found->ai_addr, found->ai_addrlen);
  result.length = found->ai_addrlen;
  freeaddrinfo(found);
  return result;
}

std::string ShowAddress(const SocketAddress& address) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(Raw(address), address.length, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "(unknown)";
  }
  return address.bytes.ss_family == AF_INET6 ? Cat("[", host, "]:", port) : Cat(host, ":", port);
}

absl::StatusOr<std::pair<Fd, SocketAddress>> ListenOn(const SocketAddress& address) {
  absl::StatusOr<Fd> fd = NewSocket(address.bytes.ss_family);
  if (!fd.ok()) return fd.status();
  SetOption(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1);
  SocketAddress bound;
  bound.length = sizeof(bound.bytes);
  if (bind(fd->get(), Raw(address), address.length) != 0 || listen(fd->get(), 128) != 0 ||
      getsockname(fd->get(), Raw(bound), &bound.length) != 0) {
    return StatusFromErrno("listen on", ShowAddress(address));
  }
  return std::pair(*std::move(fd), bound);
}

absl::StatusOr<Fd> ConnectTo(const SocketAddress& address) {
  absl::StatusOr<Fd> fd = NewSocket(address.bytes.ss_family);
  if (!fd.ok()) return fd.status();
  SetOption(fd->get(), IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd->get(), IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  if (connect(fd->get(), Raw(address), address.length) != 0 && errno != EINPROGRESS) {
    return StatusFromErrno("connect to", ShowAddress(address));
  }
  return fd;
}

int SocketError(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

}  // namespace dynlib
