// Token buckets as others write them, each from its published formula: what dynlib's is compared
// with. Units are whole, times in nanoseconds; all are safe from any thread.
#ifndef DYNLIB_BENCHMARKS_BUCKET_PEERS_H_
#define DYNLIB_BENCHMARKS_BUCKET_PEERS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace dynlib::bench {

// The textbook: tokens and the time of the last refill, under a mutex.
class alignas(64) MutexBucket {
 public:
  MutexBucket(double per_ns, double burst, double tokens, int64_t now_ns)
      : per_ns_(per_ns), burst_(burst), tokens_(tokens), refilled_ns_(now_ns) {}

  bool TryTake(int64_t n, int64_t now_ns) {
    const std::lock_guard lock(mutex_);
    if (now_ns > refilled_ns_) {
      tokens_ = std::min(burst_, tokens_ + static_cast<double>(now_ns - refilled_ns_) * per_ns_);
      refilled_ns_ = now_ns;
    }
    if (tokens_ < static_cast<double>(n)) return false;
    tokens_ -= static_cast<double>(n);
    return true;
  }

 private:
  std::mutex mutex_;
  const double per_ns_;
  const double burst_;
  double tokens_;
  int64_t refilled_ns_;
};

// Folly's: a double that says when the bucket would have been empty, changed by compare-and-swap
// (folly/TokenBucket.h, DynamicTokenBucket::consumeImpl).
class alignas(64) DoubleBucket {
 public:
  DoubleBucket(double per_ns, double burst, double tokens, int64_t now_ns)
      : per_ns_(per_ns), burst_(burst), empty_at_(static_cast<double>(now_ns) - tokens / per_ns) {}

  bool TryTake(int64_t n, int64_t now_ns) {
    const auto now = static_cast<double>(now_ns);
    double old = empty_at_.load(std::memory_order_relaxed);
    double next = 0;
    do {
      const double tokens = std::min((now - old) * per_ns_, burst_);
      if (tokens < static_cast<double>(n)) return false;
      next = now - (tokens - static_cast<double>(n)) / per_ns_;
    } while (!empty_at_.compare_exchange_weak(old, next, std::memory_order_relaxed));
    return true;
  }

 private:
  const double per_ns_;
  const double burst_;
  std::atomic<double> empty_at_;
};

// The generic cell rate algorithm in whole nanoseconds (ATM Forum TM 4.1, virtual scheduling): the
// theoretical arrival time, changed by compare-and-swap. Only for rates that divide 10^9.
class alignas(64) GcraBucket {
 public:
  GcraBucket(int64_t ns_per_unit, int64_t burst, int64_t tokens, int64_t now_ns)
      : ns_per_unit_(ns_per_unit),
        tolerance_ns_(burst * ns_per_unit),
        arrival_ns_(now_ns + (burst - tokens) * ns_per_unit) {}

  bool TryTake(int64_t n, int64_t now_ns) {
    int64_t arrival = arrival_ns_.load(std::memory_order_relaxed);
    int64_t next = 0;
    do {
      next = std::max(arrival, now_ns) + n * ns_per_unit_;
      if (next - now_ns > tolerance_ns_) return false;
    } while (!arrival_ns_.compare_exchange_weak(arrival, next, std::memory_order_relaxed));
    return true;
  }

 private:
  const int64_t ns_per_unit_;
  const int64_t tolerance_ns_;
  std::atomic<int64_t> arrival_ns_;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_BUCKET_PEERS_H_
