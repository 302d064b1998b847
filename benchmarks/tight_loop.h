// What one call costs: so many threads call it in a tight loop.
#ifndef DYNLIB_BENCHMARKS_TIGHT_LOOP_H_
#define DYNLIB_BENCHMARKS_TIGHT_LOOP_H_

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace dynlib::bench {

inline double ThreadCpuNs() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

// Threads side by side, not one after the other: each to the next of the processors that we have.
inline void PinThread(int thread) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  int skip = thread % CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || skip-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
    return;
  }
}

// Nanoseconds of processor time a call, over all threads, after a warm-up of a tenth. So a thread
// that waits for a processor does not count, and one that waits for another's cache line does.
// `make(thread)` gives what that thread calls, with the number of its call, from 0.
template <typename Make>
double NsPerCall(int threads, double seconds, const Make& make) {
  constexpr int64_t kBatch = 512;
  enum Phase { kWait, kWarmUp, kMeasure, kStop };
  std::atomic<Phase> phase{kWait};
  std::vector<double> cpu_ns(static_cast<size_t>(threads));
  std::vector<int64_t> calls(static_cast<size_t>(threads));
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      PinThread(t);
      auto call = make(t);
      int64_t i = 0;
      const auto run_until = [&](Phase next) {
        while (phase.load(std::memory_order_relaxed) < next) {
          for (int64_t end = i + kBatch; i < end; ++i) call(i);
        }
      };
      while (phase.load(std::memory_order_relaxed) == kWait) std::this_thread::yield();
      run_until(kMeasure);
      const int64_t first = i;
      const double start = ThreadCpuNs();
      run_until(kStop);
      cpu_ns[static_cast<size_t>(t)] = ThreadCpuNs() - start;
      calls[static_cast<size_t>(t)] = i - first;
    });
  }
  phase = kWarmUp;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds / 10));
  phase = kMeasure;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  phase = kStop;
  for (std::thread& thread : running) thread.join();
  double all_ns = 0;
  double all_calls = 0;
  for (size_t t = 0; t < cpu_ns.size(); ++t) {
    all_ns += cpu_ns[t];
    all_calls += static_cast<double>(calls[t]);
  }
  return all_calls == 0 ? 0 : all_ns / all_calls;
}

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_TIGHT_LOOP_H_
