// The story of capacity in DynamoDB, from static limits to global admission control, as one table
// lives through it: uneven traffic over its partitions, whose hottest one changes, a day's swing,
// and a flash crowd beyond the table's limit.
//
//   capacity_story                    one line for each policy
//   capacity_story --svg FILE         the picture of docs/impl/admission.md
//   capacity_story --seconds N        how long the day is (default 120; the picture's has 600)
//
// Exits 0 only if each policy throttled less below the limit than the one before it, and global
// admission control next to nothing there, keeping to the limit above it.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "examples/capacity/capacity_sim.h"
#include "examples/capacity/svg_plot.h"

namespace dynlib::examples {
namespace {

constexpr double kLimit = 3000;
constexpr size_t kSettled = 10;  // seconds until routers know the GAC server

struct Arguments {
  std::string svg;
  double seconds = 120;
};

bool Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--svg") {
      arguments.svg = argv[i + 1];
    } else if (flag == "--seconds") {
      arguments.seconds = std::atof(argv[i + 1]);
    } else {
      return false;
    }
  }
  return argc % 2 == 1 && arguments.seconds >= 60 && arguments.seconds <= 3600;
}

PlotPanel Panel(Policy policy, const Outcome& outcome, double throttled_below_limit) {
  PlotLine offered{"offered", "#999999", {}};
  PlotLine admitted{"admitted", "#1a66cc", {}};
  PlotLine throttled{"throttled", "#cc2222", {}};
  for (const Second& second : outcome.seconds) {
    offered.values.push_back(second.offered);
    admitted.values.push_back(second.admitted);
    throttled.values.push_back(second.throttled());
  }
  char title[96];
  std::snprintf(title, sizeof(title), "%s (below the limit %.2f %%)", PolicyName(policy),
                100 * throttled_below_limit);
  return {title, {offered, admitted, throttled}, kLimit, "the table's limit"};
}

// Of the requests in seconds that asked for less than the limit.
double ThrottledBelowLimit(const Outcome& outcome) {
  double offered = 0;
  double throttled = 0;
  for (size_t s = kSettled; s < outcome.seconds.size(); ++s) {
    if (outcome.seconds[s].offered > 0.95 * kLimit) continue;
    offered += outcome.seconds[s].offered;
    throttled += outcome.seconds[s].throttled();
  }
  return throttled / offered;
}

int Main(const Arguments& arguments) {
  std::vector<PlotPanel> panels;
  double last = 1;
  double below_limit = 1;
  double most = 0;
  bool better = true;
  for (const Policy policy : {Policy::kStatic, Policy::kBurst, Policy::kAdaptive, Policy::kGac}) {
    const double seconds = arguments.seconds;
    const Outcome outcome = Simulate({.policy = policy,
                                      .table_units_per_second = kLimit,
                                      .partition_units_per_second = 3000,
                                      .seconds = seconds,
                                      .offered = DayWithFlash(seconds, 0.8 * kLimit, 1.5 * kLimit),
                                      .hot_moves_every_s = seconds / 4});
    const double share = outcome.ThrottledShare(kSettled);
    below_limit = ThrottledBelowLimit(outcome);
    most = outcome.MostAdmitted(kSettled, outcome.seconds.size(), 10) / kLimit;
    std::printf(
        "%-26s throttled %5.2f %% of all, %5.2f %% below the limit; most in 10 s: %.2f of "
        "the limit\n",
        PolicyName(policy), 100 * share, 100 * below_limit, most);
    panels.push_back(Panel(policy, outcome, below_limit));
    better = better && below_limit < last;
    last = below_limit;
  }
  if (!arguments.svg.empty()) {
    std::ofstream file(arguments.svg);
    file << SvgPlot("One table, one day, four ways to share out its capacity", "seconds",
                    "requests a second, of one unit each", panels);
    if (!file.flush()) return 1;
  }
  // A crowd may use what the routers' buckets had saved up: a second of the limit.
  return better && below_limit <= 0.001 && most <= 1.12 ? 0 : 1;
}

}  // namespace
}  // namespace dynlib::examples

int main(int argc, char** argv) {
  dynlib::examples::Arguments arguments;
  if (!dynlib::examples::Parse(argc, argv, arguments)) {
    std::fprintf(stderr, "capacity_story [--svg FILE] [--seconds N], N from 60 to 3600\n");
    return 2;
  }
  return dynlib::examples::Main(arguments);
}
