// What happened to the groups of a host, as JSON lines: elections and their causes, leaderships won
// and lost, changes of members, damaged slots fetched, disks that hang, peers that fall silent.
//
//   EventTrace trace({.bytes_max = 1 << 20}, &clock, &my_metrics);
//   GroupHost host(options, self, &transport, channel, &log, executor, &clock, &trace);
//   ...
//   for (const std::string& line : trace.Take()) std::fputs(line.c_str(), file);
//
// A line, as it is written (docs/impl/replication.md lists the events and their fields):
//
//   {"time_us":1700000000123456,"event":"replication.elected","partition":5,"node":2,"round":7,"slot":41}
//
// "time_us" is the wall clock, from the Unix epoch: for people, and to lay the traces of several
// nodes side by side. A value that is a plain decimal number of at most 15 digits is a number, any
// other a string. A byte that is not printable ASCII is written as \u00xx: names and messages are
// bytes, not text.
//
// A sink between the host and the application's own: everything is passed on, and events are kept.
// Nothing is traced unless an application makes one. Events are rare (none of an idle group, none a
// commit), so that it may stay on.
//
// Bounds: at most bytes_max of lines are kept; beyond, the oldest go, and the next Take begins with
// a line of the event "trace.dropped" that says how many.
//
// Threads: any.
#ifndef DYNLIB_REPLICATION_EVENT_TRACE_H_
#define DYNLIB_REPLICATION_EVENT_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"

namespace dynlib::replication {

// One line, with its newline.
std::string EventLine(WallTime time, std::string_view event, std::span<const EventField> fields);

struct EventTraceOptions {
  size_t bytes_max = 1 << 20;  // of lines kept: 1 KiB to 1 GiB
};
absl::Status Validate(const EventTraceOptions& options);

class EventTrace final : public MetricsSink {
 public:
  // `options` are valid; `next` gets everything too.
  EventTrace(const EventTraceOptions& options, const Clock* clock,
             MetricsSink* next = MetricsSink::None());

  void Count(std::string_view name, int64_t delta) override;
  void Observe(std::string_view name, int64_t value) override;
  void Event(std::string_view name, std::span<const EventField> fields) override;

  // The lines since the last call, oldest first.
  std::vector<std::string> Take();

 private:
  const size_t bytes_max_;
  const Clock* const clock_;
  MetricsSink* const next_;

  std::mutex mutex_;
  std::deque<std::string> lines_;
  size_t bytes_ = 0;
  uint64_t dropped_ = 0;  // Since the last Take.
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_EVENT_TRACE_H_
