#include "benchmarks/load.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>
#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::bench {
namespace {

enum class Phase { kWarmUp, kMeasure, kStop };

class ClosedLoop {
 public:
  ClosedLoop(int clients, const std::function<absl::Status(int)>& operation)
      : clients_(clients), operation_(operation) {}

  absl::StatusOr<RunResult> Run(double seconds) {
    std::vector<std::thread> threads;
    for (int client = 0; client < clients_; ++client) {
      threads.emplace_back([this, client] { RunClient(client); });
    }
    Wait(WarmUpSeconds(seconds));
    const uint64_t begin = NowNs();
    phase_ = Phase::kMeasure;
    Wait(seconds);
    phase_ = Phase::kStop;
    const uint64_t end = NowNs();
    for (std::thread& thread : threads) thread.join();
    if (!error_.ok()) return error_;
    result_.seconds = static_cast<double>(end - begin) * 1e-9;
    result_.operations = result_.latencies_ns.size();
    return std::move(result_);
  }

 private:
  // A failed run ends within a slice, so that its error is told at once.
  void Wait(double seconds) {
    const uint64_t end = NowNs() + static_cast<uint64_t>(seconds * 1e9);
    while (!failed_ && NowNs() < end) {
      const uint64_t left = end - std::min(end, NowNs());
      std::this_thread::sleep_for(std::chrono::nanoseconds(std::min<uint64_t>(left, 20'000'000)));
    }
  }

  void RunClient(int client) {
    std::vector<uint64_t> latencies_ns;
    while (true) {
      if (phase_ == Phase::kStop || failed_) break;
      const uint64_t begin = NowNs();
      const absl::Status status = operation_(client);
      const uint64_t end = NowNs();
      if (!status.ok()) {
        Fail(status);
        return;
      }
      if (phase_ == Phase::kMeasure) latencies_ns.push_back(end - begin);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    result_.latencies_ns.insert(result_.latencies_ns.end(), latencies_ns.begin(),
                                latencies_ns.end());
  }

  void Fail(const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_.ok()) error_ = status;
    failed_ = true;
  }

  const int clients_;
  const std::function<absl::Status(int)>& operation_;
  std::atomic<Phase> phase_{Phase::kWarmUp};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  RunResult result_;
  absl::Status error_;
};

uint64_t Mix(uint64_t x) {  // the finaliser of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Random bytes that every stream takes its values from, at offsets of its own.
const std::string& Pool() {
  static const std::string* const pool = [] {
    auto* bytes = new std::string(1 << 20, '\0');
    uint64_t state = 1;
    for (char& byte : *bytes) byte = static_cast<char>(Mix(state++));
    return bytes;
  }();
  return *pool;
}

}  // namespace

uint64_t NowNs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

double WarmUpSeconds(double seconds) { return std::max(0.1, seconds / 10); }

absl::StatusOr<RunResult> RunClosedLoop(int clients, double seconds,
                                        const std::function<absl::Status(int client)>& operation) {
  return ClosedLoop(clients, operation).Run(seconds);
}

PutStream::PutStream(int client, size_t value_bytes)
    : state_(static_cast<uint64_t>(client + 1) << 40), value_bytes_(value_bytes) {
  DYNLIB_CHECK(value_bytes < Pool().size());
}

uint64_t PutStream::NextRandom() { return Mix(++state_); }

std::string_view PutStream::NextKey() {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "user%016llx",
                static_cast<unsigned long long>(NextRandom()));
  key_ = text.data();
  return key_;
}

std::string_view PutStream::NextValue() {
  return std::string_view(Pool()).substr(NextRandom() % (Pool().size() - value_bytes_),
                                         value_bytes_);
}

}  // namespace dynlib::bench
