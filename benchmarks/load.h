// Closed-loop load: so many clients, each with one operation in flight, for so long.
#ifndef DYNLIB_BENCHMARKS_LOAD_H_
#define DYNLIB_BENCHMARKS_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::bench {

// What one timed run of one system gave.
struct RunResult {
  double seconds = 0;
  uint64_t operations = 0;
  std::vector<uint64_t> latencies_ns;  // one for each operation, in any order; or none
};

// Nanoseconds of the monotonic clock.
uint64_t NowNs();

// What runs before a measured time of `seconds`, uncounted.
double WarmUpSeconds(double seconds);

// Runs `operation(client)` in a thread for each client, again and again; counts what ends within
// the `seconds` that follow the warm-up, whenever it began, so that slow operations are not left
// out at the edges. The first error ends the run and is returned.
absl::StatusOr<RunResult> RunClosedLoop(int clients, double seconds,
                                        const std::function<absl::Status(int client)>& operation);

// The same for operations that are too short to look at the clock for each: every call of `batch`
// makes `operations` of them. No latencies.
absl::StatusOr<RunResult> RunTightLoop(int clients, double seconds, uint64_t operations,
                                       const std::function<absl::Status(int client)>& batch);

// Touches so much memory and gives it back. A virtual machine's host takes free memory away after a
// while, and finds it again when it is next touched: 5 ms for 2 MiB here, more than all else that a
// load does with it. Who pays is who happens to take memory that nobody used for two seconds; so
// each run of a short workload begins with this, whoever runs.
void TouchMemory(size_t bytes);

// Scrambles the bits of a number: a pseudo-random one for each.
uint64_t Mix(uint64_t x);

// Bytes that do not compress, the same ones for the same seed; at most 512 KiB. Good for ever.
std::string_view RandomBytes(uint64_t seed, size_t bytes);

// The data of one client: 20-byte keys in no order, and values whose bytes do not compress.
class PutStream {
 public:
  PutStream(int client, size_t value_bytes);

  // The next pair; valid until the call after.
  std::string_view NextKey();
  std::string_view NextValue();

 private:
  uint64_t NextRandom();

  uint64_t state_;
  const size_t value_bytes_;
  std::string key_;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_LOAD_H_
