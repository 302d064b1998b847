#include "dynlib/base/metrics.h"

namespace dynlib {

MetricsSink* MetricsSink::None() {
  static MetricsSink* const none = new MetricsSink();
  return none;
}

}  // namespace dynlib
