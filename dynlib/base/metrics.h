// Where the library reports what it counts and what happens: one sink, given by the application.
//
// Pure cores return what happened as data; the drivers around them call the sink. Names are dotted
// and constant
// ("log.sync_us", "replication.elections"), so that a sink can intern them.
//
// Threads: a sink is called from any thread and must not block; it must not call back into the
// object that called it.
#ifndef DYNLIB_BASE_METRICS_H_
#define DYNLIB_BASE_METRICS_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace dynlib {

struct EventField {
  std::string_view name;
  std::string value;
};

class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  // Adds `delta` to a counter.
  virtual void Count(std::string_view name, int64_t delta) {}
  // One sample of a distribution, in the unit that ends the name (`_us`, `_bytes`).
  virtual void Observe(std::string_view name, int64_t value) {}
  // Something rare that a person may want to read: an election, a closed log, a damaged page.
  virtual void Event(std::string_view name, std::span<const EventField> fields) {}

  // A sink that drops everything; lives for ever.
  static MetricsSink* None();
};

}  // namespace dynlib

#endif  // DYNLIB_BASE_METRICS_H_
