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
#include "dynlib/base/huge_array.h"

namespace dynlib::bench {
namespace {

enum class Phase { kWarmUp, kMeasure, kStop };

class ClosedLoop {
 public:
  // `operations` a call; 0: one, of which the latency is taken.
  ClosedLoop(int clients, uint64_t operations, const std::function<absl::Status(int)>& call)
      : clients_(clients), operations_(operations), operation_(call) {}

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
    if (operations_ == 0) result_.operations = result_.latencies_ns.size();
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
    if (operations_ != 0) {
      RunTight(client);
      return;
    }
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

  void RunTight(int client) {
    uint64_t calls = 0;
    for (Phase phase = phase_; phase != Phase::kStop && !failed_; phase = phase_) {
      if (const absl::Status status = operation_(client); !status.ok()) {
        Fail(status);
        return;
      }
      if (phase == Phase::kMeasure) ++calls;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    result_.operations += calls * operations_;
  }

  void Fail(const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_.ok()) error_ = status;
    failed_ = true;
  }

  const int clients_;
  const uint64_t operations_;
  const std::function<absl::Status(int)>& operation_;
  std::atomic<Phase> phase_{Phase::kWarmUp};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  RunResult result_;
  absl::Status error_;
};

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

void TouchMemory(size_t bytes) {
  constexpr size_t kHugePage = 2 << 20;
  constexpr size_t kSmallPage = 4 << 10;
  char* const memory = static_cast<char*>(AllocateHuge(bytes, kHugePage));
  for (size_t at = 0; at < bytes; at += kSmallPage) *const_cast<volatile char*>(memory + at) = 1;
  FreeHuge(memory, bytes, kHugePage);
}

uint64_t Mix(uint64_t x) {  // the finaliser of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::string_view RandomBytes(uint64_t seed, size_t bytes) {
  return std::string_view(Pool()).substr(Mix(seed) % (Pool().size() - bytes), bytes);
}

double WarmUpSeconds(double seconds) { return std::max(0.1, seconds / 10); }

absl::StatusOr<RunResult> RunClosedLoop(int clients, double seconds,
                                        const std::function<absl::Status(int client)>& operation) {
  return ClosedLoop(clients, 0, operation).Run(seconds);
}

absl::StatusOr<RunResult> RunTightLoop(int clients, double seconds, uint64_t operations,
                                       const std::function<absl::Status(int client)>& batch) {
  return ClosedLoop(clients, operations, batch).Run(seconds);
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

std::string_view PutStream::NextValue() { return RandomBytes(NextRandom(), value_bytes_); }

}  // namespace dynlib::bench
