// A table whose owner states no limit, through a day on which its traffic grows tenfold: capacity
// that is ahead of traffic, beside a table that is split only once it was throttled.
//
//   on_demand_story                   one line for each
//   on_demand_story --svg FILE        the picture of docs/impl/admission.md
//
// Keys are even here, so that a table can do what its partitions can do together. A split takes a
// minute. Exits 0 only if the on-demand table throttled next to nothing, and the other one much
// more.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "dynlib/admission/on_demand.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "examples/capacity/svg_plot.h"

namespace dynlib::examples {
namespace {

using admission::BucketRate;
using admission::OnDemandCapacity;
using admission::TokenBucket;

constexpr int kSeconds = 3600;
constexpr int kSplitSeconds = 60;
constexpr double kPartitionUnits = 1000;
constexpr double kFirstPeak = 1000;
constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);

// From 800 a second to 8,000 and more, with noise and with jumps of seven tenths.
double Offered(int second, Random& random) {
  const double growth = 800 * std::pow(10, static_cast<double>(second) / kSeconds);
  const bool jump = second % 900 >= 600 && second % 900 < 660;
  return growth * (jump ? 1.7 : 1) * (0.97 + 0.06 * random.Unit());
}

struct Day {
  std::vector<double> offered, admitted, limit;
  double throttled_percent = 0;
};

Day Live(bool ahead) {
  Random random(1);
  Day day;
  auto capacity = *OnDemandCapacity::Create(
      {.initial_peak_units_per_second = kFirstPeak, .partition_units_per_second = kPartitionUnits},
      kStart);
  size_t partitions = ahead ? capacity.PartitionsWanted() : 1;
  size_t coming = partitions;  // once the split that is under way is done
  int split_done = 0;
  const auto rate = [](double units) {
    return BucketRate::Clamped(units, static_cast<int64_t>(units));
  };
  TokenBucket bucket(rate(capacity.UnitsPerSecond(partitions)), TokenBucket::Fill::kFull, kStart);
  double offered_sum = 0;
  double throttled_sum = 0;
  for (int second = 0; second < kSeconds; ++second) {
    const Instant now = kStart + std::chrono::seconds(second);
    if (second == split_done) partitions = coming;
    const double limit = capacity.UnitsPerSecond(partitions);
    bucket.SetRate(rate(limit), now);
    const double offered = Offered(second, random);
    const auto admitted = static_cast<double>(bucket.TakeUpTo(static_cast<int64_t>(offered), now));
    capacity.Observe(static_cast<int64_t>(admitted), now);
    const bool throttled = admitted < std::floor(offered);
    const size_t wanted = ahead ? capacity.PartitionsWanted() : partitions + (throttled ? 1 : 0);
    if (wanted > partitions && second >= split_done) {
      coming = wanted;
      split_done = second + kSplitSeconds;
    }
    day.offered.push_back(offered);
    day.admitted.push_back(admitted);
    day.limit.push_back(limit);
    offered_sum += std::floor(offered);
    throttled_sum += std::floor(offered) - admitted;
  }
  day.throttled_percent = 100 * throttled_sum / offered_sum;
  return day;
}

PlotPanel Panel(const std::string& name, const Day& day) {
  char title[96];
  std::snprintf(title, sizeof(title), "%s: %.2f %% throttled", name.c_str(), day.throttled_percent);
  return {title,
          {{"limit", "#33aa33", day.limit},
           {"offered", "#999999", day.offered},
           {"admitted", "#1a66cc", day.admitted}},
          0,
          ""};
}

int Main(const std::string& svg) {
  const Day ahead = Live(true);
  const Day behind = Live(false);
  std::printf("splits ahead of traffic: %.2f %% throttled; splits after throttling: %.2f %%\n",
              ahead.throttled_percent, behind.throttled_percent);
  if (!svg.empty()) {
    std::ofstream file(svg);
    file << SvgPlot(
        "A table without a stated limit", "seconds", "units a second",
        {Panel("twice the previous peak", ahead), Panel("split when throttled", behind)});
    if (!file.flush()) return 1;
  }
  return ahead.throttled_percent < 0.01 && behind.throttled_percent > 2 ? 0 : 1;
}

}  // namespace
}  // namespace dynlib::examples

int main(int argc, char** argv) {
  const bool svg = argc == 3 && std::string(argv[1]) == "--svg";
  if (argc != 1 && !svg) {
    std::fprintf(stderr, "on_demand_story [--svg FILE]\n");
    return 2;
  }
  return dynlib::examples::Main(svg ? argv[2] : "");
}
