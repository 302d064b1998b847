#include "benchmarks/member_processes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "benchmarks/load.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr uint64_t kStartLimitNs = 30'000'000'000;

}  // namespace

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

absl::Status MemberProcesses::Start(const std::filesystem::path& folder,
                                    const std::vector<std::vector<std::string>>& commands) {
  folder_ = folder;
  for (const std::vector<std::string>& command : commands) {
    DYNLIB_ASSIGN_OR_RETURN(ChildProcess process,
                            ChildProcess::Start(command, Output(processes_.size())));
    processes_.push_back(std::move(process));
  }
  for (size_t member = 0; member < processes_.size(); ++member)
    DYNLIB_RETURN_IF_ERROR(AwaitReady(member));
  return absl::OkStatus();
}

absl::Status MemberProcesses::CheckAll(const absl::Status& status) {
  for (size_t member = 0; member < processes_.size(); ++member) {
    if (!processes_[member].Running()) return Ended(member);
  }
  return status;
}

std::filesystem::path MemberProcesses::Output(size_t member) const {
  return folder_ / Cat("node-", member + 1, ".out");
}

absl::Status MemberProcesses::Ended(size_t member) const {
  return absl::UnavailableError(Cat("node ", member + 1, " ended: ", Tail(Output(member))));
}

absl::Status MemberProcesses::AwaitReady(size_t member) {
  const uint64_t limit_ns = NowNs() + kStartLimitNs;
  while (Tail(Output(member)).find(kMemberReady) == std::string::npos) {
    if (!processes_[member].Running()) return Ended(member);
    if (NowNs() > limit_ns)
      return absl::DeadlineExceededError(Cat("node ", member + 1, " does not start within 30 s"));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return absl::OkStatus();
}

}  // namespace dynlib::bench
