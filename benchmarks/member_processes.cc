#include "benchmarks/member_processes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {

absl::StatusOr<std::vector<int>> FreePorts(int count) {
  std::vector<int> sockets;
  std::vector<int> ports;
  for (int i = 0; i < count; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) sockets.push_back(fd);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (fd < 0 || bind(fd, generic, size) != 0 || getsockname(fd, generic, &size) != 0) break;
    ports.push_back(ntohs(address.sin_port));
  }
  const std::string reason = std::strerror(errno);
  for (const int fd : sockets) close(fd);
  if (ports.size() < static_cast<size_t>(count))
    return absl::UnavailableError(Cat("no free port on the loopback address: ", reason));
  return ports;
}

std::string LoopbackAddress(int port) { return Cat("127.0.0.1:", port); }

std::string Tail(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream contents;
  contents << stream.rdbuf();
  const std::string text = contents.str();
  return text.substr(text.size() - std::min<size_t>(text.size(), 2000));
}

}  // namespace dynlib::bench
