// Counts what it is told, by name.
//
// Threads: any.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_COUNTERS_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_COUNTERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "dynlib/base/metrics.h"

namespace dynlib::mini_cluster {

class Counters final : public MetricsSink {
 public:
  void Count(std::string_view name, int64_t delta) override {
    std::lock_guard lock(mutex_);
    const auto found = counts_.find(name);
    if (found != counts_.end()) {
      found->second += delta;
    } else {
      counts_.emplace(name, delta);
    }
  }

  int64_t Value(std::string_view name) const {
    std::lock_guard lock(mutex_);
    const auto found = counts_.find(name);
    return found == counts_.end() ? 0 : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int64_t, std::less<>> counts_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_COUNTERS_H_
