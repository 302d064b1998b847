// What the cluster reports of itself: printed if wanted, kept with its time for those who measure,
// and the last trouble remembered, since a client that gets no answer cannot tell that a disk is
// full.
//
//   const size_t before = events.count();
//   ... a node loses its power ...
//   std::optional<Instant> dead = events.FirstSince(before, "admin.node_dead", "node", "7");
//
// Keeps the first 100,000. Threads: any.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_

#include <cstddef>
#include <cstdio>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/metrics.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/posix/system_clock.h"

namespace dynlib::mini_cluster {

class Events final : public MetricsSink {
 public:
  explicit Events(bool print) : print_(print) {}

  void Event(std::string_view name, std::span<const EventField> fields) override {
    const Instant now = clock_.Now();
    // With a space behind each field's value, so that it can be found whole.
    std::string line = Cat(name, " ");
    std::string trouble;
    for (const EventField& field : fields) {
      line += Cat(field.name, "=", field.value, " ");
      // A power cut is no trouble here, it is the point; and what the admin could not do it tries
      // again.
      if (field.name != "why" || field.value.find("lost its power") != std::string::npos) continue;
      if (name != "admin.action_failed") trouble = field.value;
    }
    if (print_) std::fprintf(stderr, "event %s\n", line.c_str());
    std::lock_guard lock(mutex_);
    if (!trouble.empty()) last_trouble_ = std::move(trouble);
    if (kept_.size() < kKeptMax) kept_.push_back({now, std::move(line)});
  }

  // Empty when there was none.
  std::string last_trouble() const {
    std::lock_guard lock(mutex_);
    return last_trouble_;
  }

  size_t count() const {
    std::lock_guard lock(mutex_);
    return kept_.size();
  }
  // When the first such event came, of those after the first `since`.
  std::optional<Instant> FirstSince(size_t since, std::string_view name, std::string_view field,
                                    std::string_view value) const {
    const std::string wanted = Cat(" ", field, "=", value, " ");
    std::lock_guard lock(mutex_);
    for (size_t i = since; i < kept_.size(); ++i) {
      if (kept_[i].line.starts_with(Cat(name, " ")) &&
          kept_[i].line.find(wanted) != std::string::npos) {
        return kept_[i].when;
      }
    }
    return std::nullopt;
  }

 private:
  static constexpr size_t kKeptMax = 100'000;
  struct Kept {
    Instant when;
    std::string line;
  };

  const bool print_;
  const SystemClock clock_;
  mutable std::mutex mutex_;
  std::string last_trouble_;
  std::vector<Kept> kept_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_
