#include "examples/mini_cluster/latencies.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "dynlib/base/strings.h"

namespace dynlib::mini_cluster {

void Latencies::Add(Duration took) {
  micros_.push_back(static_cast<uint32_t>(std::clamp<int64_t>(ToMicros(took), 0, UINT32_MAX)));
}

void Latencies::Add(const Latencies& others) {
  micros_.insert(micros_.end(), others.micros_.begin(), others.micros_.end());
}

Duration Latencies::Percentile(double share) const {
  if (micros_.empty()) return {};
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(micros_.size())));
  const size_t index = std::clamp<size_t>(rank, 1, micros_.size()) - 1;
  const auto nth = micros_.begin() + static_cast<ptrdiff_t>(index);
  std::nth_element(micros_.begin(), nth, micros_.end());
  return std::chrono::microseconds(*nth);
}

std::string Latencies::ToString() const {
  return Cat("p50 ", Milliseconds(Percentile(0.5)), ", p99 ", Milliseconds(Percentile(0.99)),
             ", p99.9 ", Milliseconds(Percentile(0.999)));
}

std::string Milliseconds(Duration d) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f ms", static_cast<double>(ToMicros(d)) / 1000);
  return text;
}

std::string WithCommas(uint64_t number) {
  std::string digits = Cat(number);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

}  // namespace dynlib::mini_cluster
