// What the cluster reports of itself: printed if wanted, and the last trouble remembered, since a
// client that gets no answer cannot tell that a disk is full.
//
// Threads: any.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_

#include <cstdio>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "dynlib/base/metrics.h"
#include "dynlib/base/strings.h"

namespace dynlib::mini_cluster {

class Events final : public MetricsSink {
 public:
  explicit Events(bool print) : print_(print) {}

  void Event(std::string_view name, std::span<const EventField> fields) override {
    std::string line = Cat("event ", name);
    for (const EventField& field : fields) {
      line += Cat(" ", field.name, "=", field.value);
      // A power cut is no trouble here, it is the point.
      if (field.name != "why" || field.value.find("lost its power") != std::string::npos) continue;
      std::lock_guard lock(mutex_);
      last_trouble_ = field.value;
    }
    if (print_) std::fprintf(stderr, "%s\n", line.c_str());
  }

  // Empty when there was none.
  std::string last_trouble() const {
    std::lock_guard lock(mutex_);
    return last_trouble_;
  }

 private:
  const bool print_;
  mutable std::mutex mutex_;
  std::string last_trouble_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_
