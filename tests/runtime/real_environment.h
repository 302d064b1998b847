// Parts of conformance environments for the implementations that run in real time.
#ifndef TESTS_RUNTIME_REAL_ENVIRONMENT_H_
#define TESTS_RUNTIME_REAL_ENVIRONMENT_H_

#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/testing/environment.h"

namespace dynlib {

// RunUntil by looking again and again: no condition variable is to be had of what is tested.
template <typename Base>
class RealTime : public Base {
 public:
  Clock* clock() override { return &clock_; }

  bool RunUntil(std::function<bool()> condition, Duration limit) override {
    const Instant deadline = clock_.Now() + limit;
    while (!condition()) {
      if (clock_.Now() >= deadline) return condition();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return true;
  }

 private:
  SystemClock clock_;
};

// File calls may be made anywhere.
template <typename Base>
class RealFiles : public RealTime<Base> {
 public:
  void RunBlocking(std::function<void()> body) override { body(); }
};

// An empty folder that goes with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "dynlib-XXXXXX";
    DYNLIB_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Executors of nodes; the transports are for those who derive from it.
class RealNetwork : public RealTime<TransportEnvironment> {
 public:
  Executor* executor(NodeId node) override {
    auto& executor = executors_[node];
    if (executor == nullptr) executor = std::make_unique<ThreadExecutor>();
    return executor.get();
  }

 protected:
  // For destructors: transports go after the last task, executors after the transports.
  void ShutDownExecutors() {
    for (auto& [node, executor] : executors_) executor->ShutDown();
  }

 private:
  std::map<NodeId, std::unique_ptr<ThreadExecutor>> executors_;
};

}  // namespace dynlib

#endif  // TESTS_RUNTIME_REAL_ENVIRONMENT_H_
