// A MetricsSink that tests ask what was counted.
#ifndef TESTS_RUNTIME_COUNTING_SINK_H_
#define TESTS_RUNTIME_COUNTING_SINK_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "dynlib/base/metrics.h"

namespace dynlib {

class CountingSink final : public MetricsSink {
 public:
  void Count(std::string_view name, int64_t delta) override {
    std::lock_guard lock(mutex_);
    counts_[std::string(name)] += delta;
  }
  // Counted too.
  void Event(std::string_view name, std::span<const EventField> fields) override { Count(name, 1); }
  int64_t operator[](const std::string& name) const {
    std::lock_guard lock(mutex_);
    const auto found = counts_.find(name);
    return found == counts_.end() ? 0 : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int64_t> counts_;
};

}  // namespace dynlib

#endif  // TESTS_RUNTIME_COUNTING_SINK_H_
