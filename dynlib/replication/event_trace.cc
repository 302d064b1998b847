#include "dynlib/replication/event_trace.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

constexpr size_t kBytesMin = 1 << 10;
constexpr size_t kBytesMax = 1 << 30;
// So many are exact wherever JSON is read.
constexpr size_t kDigitsMax = 15;

bool IsNumber(std::string_view value) {
  if (value.empty() || value.size() > kDigitsMax) return false;
  if (value[0] == '0' && value.size() > 1) return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void AppendString(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  out += '"';
}

}  // namespace

std::string EventLine(WallTime time, std::string_view event, std::span<const EventField> fields) {
  std::string line = Cat("{\"time_us\":", time.nanos() / 1'000, ",\"event\":");
  AppendString(line, event);
  for (const EventField& field : fields) {
    line += ',';
    AppendString(line, field.name);
    line += ':';
    if (IsNumber(field.value)) {
      line += field.value;
    } else {
      AppendString(line, field.value);
    }
  }
  return line + "}\n";
}

absl::Status Validate(const EventTraceOptions& options) {
  if (options.bytes_max < kBytesMin || options.bytes_max > kBytesMax) {
    return absl::InvalidArgumentError(
        Cat("event_trace.bytes_max is ", options.bytes_max, "; allowed: 1,024 to 1,073,741,824"));
  }
  return absl::OkStatus();
}

EventTrace::EventTrace(const EventTraceOptions& options, const Clock* clock, MetricsSink* next)
    : bytes_max_(options.bytes_max), clock_(clock), next_(next) {
  DYNLIB_CHECK(Validate(options).ok());
}

void EventTrace::Count(std::string_view name, int64_t delta) { next_->Count(name, delta); }
void EventTrace::Observe(std::string_view name, int64_t value) { next_->Observe(name, value); }

void EventTrace::Event(std::string_view name, std::span<const EventField> fields) {
  next_->Event(name, fields);
  std::string line = EventLine(clock_->WallNow(), name, fields);
  std::lock_guard lock(mutex_);
  bytes_ += line.size();
  lines_.push_back(std::move(line));
  while (bytes_ > bytes_max_) {
    bytes_ -= lines_.front().size();
    lines_.pop_front();
    ++dropped_;
  }
}

std::vector<std::string> EventTrace::Take() {
  std::vector<std::string> taken;
  std::lock_guard lock(mutex_);
  if (dropped_ > 0) {
    const EventField fields[] = {{"lines", Cat(std::exchange(dropped_, 0))}};
    taken.push_back(EventLine(clock_->WallNow(), "trace.dropped", fields));
  }
  taken.insert(taken.end(), std::make_move_iterator(lines_.begin()),
               std::make_move_iterator(lines_.end()));
  lines_.clear();
  bytes_ = 0;
  return taken;
}

}  // namespace dynlib::replication
