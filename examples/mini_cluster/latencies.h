// How long things took, and what share of them took how long.
//
// Keeps every sample, 4 bytes each. Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_LATENCIES_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_LATENCIES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dynlib/base/time.h"

namespace dynlib::mini_cluster {

class Latencies {
 public:
  void Add(Duration took);
  void Add(const Latencies& others);
  size_t count() const { return micros_.size(); }
  // The least time that `share` of the samples took no longer than; 0 without samples. Share in
  // (0, 1].
  Duration Percentile(double share) const;
  // "p50 1.2 ms, p99 8.0 ms, p99.9 15.3 ms"
  std::string ToString() const;

 private:
  mutable std::vector<uint32_t> micros_;
};

// "12.3 ms"
std::string Milliseconds(Duration d);
// "34,924"
std::string WithCommas(uint64_t number);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_LATENCIES_H_
