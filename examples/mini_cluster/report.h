// What the program says: figures on stdout, progress on stderr.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_REPORT_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_REPORT_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "examples/mini_cluster/latencies.h"

namespace dynlib::mini_cluster {

template <typename... Pieces>
void Say(const Pieces&... pieces) {
  std::printf("%s\n", Cat(pieces...).c_str());
  std::fflush(stdout);
}
template <typename... Pieces>
void Progress(const Pieces&... pieces) {
  std::fprintf(stderr, "%s\n", Cat(pieces...).c_str());
}

// "1.23 s"
inline std::string Seconds(Duration d) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f s", static_cast<double>(ToMicros(d)) / 1e6);
  return text;
}

// "1.234"
inline std::string Decimals(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

// "34,924/s"
inline std::string Rate(uint64_t count, Duration took) {
  const double seconds = static_cast<double>(std::max<int64_t>(ToMicros(took), 1)) / 1e6;
  return Cat(WithCommas(static_cast<uint64_t>(static_cast<double>(count) / seconds)), "/s");
}

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_REPORT_H_
