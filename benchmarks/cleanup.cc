#include "benchmarks/cleanup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

// What must not outlive the process. Signals are handled by a thread that waits for them, so
// ordinary locks are safe here.
struct Left {
  std::mutex mutex;
  std::set<std::filesystem::path> folders;
  std::set<pid_t> children;
};

Left& left() {
  static Left* const left = new Left;
  return *left;
}

void KillAndWait(pid_t pid) {
  kill(pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void RemoveAll(const std::filesystem::path& folder) {
  std::error_code ignored;  // nothing is left to be done about a folder that cannot be removed
  std::filesystem::remove_all(folder, ignored);
}

[[noreturn]] void EndBySignal(int number) {
  const std::lock_guard<std::mutex> lock(left().mutex);
  for (const pid_t pid : left().children) KillAndWait(pid);
  for (const std::filesystem::path& folder : left().folders) RemoveAll(folder);
  _exit(128 + number);
}

sigset_t EndingSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  return signals;
}

[[noreturn]] void RunChild(const std::vector<std::string>& arguments,
                           const std::filesystem::path& output, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  const sigset_t signals = EndingSignals();
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
  const int file = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0 || dup2(file, 1) < 0 || dup2(file, 2) < 0) _exit(127);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

}  // namespace

void CleanUpOnSignals() {
  const sigset_t signals = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    int number = 0;
    sigwait(&signals, &number);
    EndBySignal(number);
  }).detach();
}

absl::StatusOr<TemporaryFolder> TemporaryFolder::Create(const std::filesystem::path& parent) {
  std::string name = (parent / "dynlib-bench-XXXXXX").string();
  // Held while the folder is made, so that a signal finds either none or one that it knows.
  const std::lock_guard<std::mutex> lock(left().mutex);
  if (mkdtemp(name.data()) == nullptr) {
    return absl::UnavailableError(
        Cat("cannot make a folder in ", parent.string(), ": ", std::strerror(errno)));
  }
  left().folders.insert(name);
  return TemporaryFolder(name);
}

TemporaryFolder::TemporaryFolder(std::filesystem::path path) : path_(std::move(path)) {}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})) {}

TemporaryFolder& TemporaryFolder::operator=(TemporaryFolder&& other) noexcept {
  if (this != &other) {
    Remove();
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

TemporaryFolder::~TemporaryFolder() { Remove(); }

void TemporaryFolder::Remove() {
  if (path_.empty()) return;
  RemoveAll(path_);
  const std::lock_guard<std::mutex> lock(left().mutex);
  left().folders.erase(path_);
}

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& arguments,
                                                 const std::filesystem::path& output) {
  const std::lock_guard<std::mutex> lock(left().mutex);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0)
    return absl::UnavailableError(Cat("cannot start ", arguments[0], ": ", std::strerror(errno)));
  if (pid == 0) RunChild(arguments, output, parent);
  left().children.insert(pid);
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(pid_t pid) : pid_(pid) {}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    Kill();
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}

ChildProcess::~ChildProcess() { Kill(); }

bool ChildProcess::Running() {
  if (pid_ < 0) return false;
  const std::lock_guard<std::mutex> lock(left().mutex);
  if (waitpid(pid_, nullptr, WNOHANG) == 0) return true;
  left().children.erase(pid_);
  pid_ = -1;
  return false;
}

void ChildProcess::Kill() {
  if (pid_ < 0) return;
  const std::lock_guard<std::mutex> lock(left().mutex);
  KillAndWait(pid_);
  left().children.erase(pid_);
  pid_ = -1;
}

}  // namespace dynlib::bench
