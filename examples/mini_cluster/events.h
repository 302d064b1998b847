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
#include <functional>
#include <map>
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
    Kept kept{.when = clock_.Now(), .name = std::string(name), .fields = {}};
    std::string line = Cat("event ", name);
    for (const EventField& field : fields) {
      line += Cat(" ", field.name, "=", field.value);
      kept.fields[std::string(field.name)] = field.value;
    }
    if (print_) std::fprintf(stderr, "%s\n", line.c_str());
    std::lock_guard lock(mutex_);
    if (const auto why = kept.fields.find("why"); why != kept.fields.end() && IsTrouble(kept))
      last_trouble_ = why->second;
    if (kept_.size() < kKeptMax) kept_.push_back(std::move(kept));
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
  struct Kept {
    Instant when;
    std::string name;
    std::map<std::string, std::string, std::less<>> fields;

    // Empty when it has none of the name.
    std::string Field(std::string_view field) const {
      const auto found = fields.find(field);
      return found == fields.end() ? "" : found->second;
    }
  };
  // Those of the name after the first `since` of all, in order.
  std::vector<Kept> Since(size_t since, std::string_view name) const {
    std::vector<Kept> found;
    std::lock_guard lock(mutex_);
    for (size_t i = since; i < kept_.size(); ++i) {
      if (kept_[i].name == name) found.push_back(kept_[i]);
    }
    return found;
  }
  // When the first of them came that has this field.
  std::optional<Instant> FirstSince(size_t since, std::string_view name, std::string_view field,
                                    std::string_view value) const {
    for (const Kept& kept : Since(since, name)) {
      if (kept.Field(field) == value) return kept.when;
    }
    return std::nullopt;
  }

 private:
  static constexpr size_t kKeptMax = 100'000;
  // A power cut is no trouble here, it is the point, as damage is that a scrub finds; and what the
  // admin could not do it tries again.
  static bool IsTrouble(const Kept& kept) {
    return kept.name != "admin.action_failed" && !kept.name.starts_with("scrub.") &&
           kept.Field("why").find("lost its power") == std::string::npos;
  }

  const bool print_;
  const SystemClock clock_;
  mutable std::mutex mutex_;
  std::string last_trouble_;
  std::vector<Kept> kept_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_EVENTS_H_
