#include "examples/mini_cluster/process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"

namespace dynlib::mini_cluster {

absl::StatusOr<ProcessEnd> RunProcess(const std::vector<std::string>& command,
                                      absl::FunctionRef<void(const std::string&)> line) {
  auto fail = [&](const char* call) {
    return absl::UnavailableError(
        Cat("running ", command[0], ": ", call, ": ", std::strerror(errno)));
  };
  // Made before the fork: a child may not allocate.
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];
  if (::pipe(ends) != 0) return fail("pipe");
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child < 0) return fail("fork");
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(ends[1]);

  ProcessEnd end;
  std::optional<std::string> held;  // it may be the last
  std::FILE* output = ::fdopen(ends[0], "r");
  char* buffer = nullptr;
  size_t capacity = 0;
  for (ssize_t length; (length = ::getline(&buffer, &capacity, output)) >= 0;) {
    if (held.has_value()) line(*held);
    held = std::string(buffer, static_cast<size_t>(length));
    if (!held->empty() && held->back() == '\n') held->pop_back();
  }
  std::free(buffer);
  std::fclose(output);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return fail("waitpid");
  }
  end.exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  end.last_line = held.value_or("");
  return end;
}

}  // namespace dynlib::mini_cluster
