// storm [FILE.svg] [ROUTERS]   all routers lose their caches at once, then half of the directory
// goes: what a conventional cache makes of it, and what a constant-work cache does. Prints a table,
// and writes the picture where FILE says.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "examples/storm/plot.h"
#include "examples/storm/storm.h"

namespace {

using namespace dynlib::storm;  // An example's liberty.

struct Run {
  std::string name;
  std::string color;
  StormOptions options;
  StormCache cache;
  StormResult result;
};

std::vector<Run> Plan(size_t routers) {
  StormOptions options{.routers = routers};
  const double requests = static_cast<double>(routers) * options.requests_per_second;
  const auto servers = static_cast<double>(options.servers);
  // A directory for a constant load needs no more than some headroom: twice its load. One for a
  // conventional cache is sized by what it usually sees; here it can do ten times that.
  StormOptions small = options;
  small.look_ups_per_second = 10 * requests * options.wrong_share / servers;
  options.look_ups_per_second = 2 * 2 * requests / servers;
  return {
      {"miss-only, fleet for 10x its usual load", "#c0392b", small, StormCache::kConventional, {}},
      {"miss-only, the large fleet", "#e0a030", options, StormCache::kConventional, {}},
      {"constant work, the large fleet", "#2060b0", options, StormCache::kConstantWork, {}}};
}

void PrintPhase(const char* name, const StormResult::Phase& phase) {
  char recovery[32];
  std::snprintf(recovery, sizeof(recovery), phase.recovered ? "%.1f s" : "not in %.1f s",
                phase.recovery_seconds);
  std::printf("  %-10s %12.0f %12.0f %10.4f %10llu %9llu %7.2f %%  %s\n", name,
              phase.look_ups_per_second, phase.look_ups_per_second_max, phase.look_ups_per_get,
              static_cast<unsigned long long>(phase.requests),
              static_cast<unsigned long long>(phase.failed),
              100.0 * static_cast<double>(phase.failed) / static_cast<double>(phase.requests),
              recovery);
}

std::string Draw(const std::vector<Run>& runs) {
  Panel load{"look-ups a second that arrive at the directory (logarithmic)",
             {10, 100, 1'000, 10'000, 100'000},
             true,
             {}};
  Panel failures{"requests that fail, %", {0, 25, 50, 75, 100}, false, {}};
  for (const Run& run : runs) {
    Line load_line{run.name, run.color, {}};
    Line failure_line = load_line;
    for (const StormSlice& slice : run.result.slices) {
      load_line.values.push_back(static_cast<double>(slice.look_ups) /
                                 std::chrono::duration<double>(kSlice).count());
      failure_line.values.push_back(100.0 * static_cast<double>(slice.failed) /
                                    static_cast<double>(slice.requests + (slice.requests == 0)));
    }
    load.lines.push_back(std::move(load_line));
    failures.lines.push_back(std::move(failure_line));
  }
  const auto seconds = [](dynlib::Duration duration) {
    return std::chrono::duration<double>(duration).count();
  };
  const StormOptions& options = runs.front().options;
  return ToSvg(std::to_string(options.routers) + " routers lose their caches, then half of " +
                   std::to_string(options.servers) + " directory servers go",
               seconds(options.end_at),
               {{seconds(options.flush_at), "caches flushed"},
                {seconds(options.loss_at), "half of the directory lost"}},
               {load, failures});
}

}  // namespace

int main(int argc, char** argv) {
  const size_t routers = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1'000;
  if (routers < 1 || routers > 10'000) {
    std::fprintf(stderr, "storm: ROUTERS must be 1 to 10000\n");
    return 2;
  }
  std::vector<Run> runs = Plan(routers);
  for (Run& run : runs) {
    run.result = RunStorm(run.options, run.cache);
    std::printf("%s: %.0f look-ups a second in all\n", run.name.c_str(),
                run.options.look_ups_per_second * static_cast<double>(run.options.servers));
    std::printf("  %-10s %12s %12s %10s %10s %9s %9s  %s\n", "", "look-ups/s", "at most", "a Get",
                "requests", "failed", "", "recovered after");
    PrintPhase("usual", run.result.usual);
    PrintPhase("flushed", run.result.flushed);
    PrintPhase("half lost", run.result.halved);
  }
  if (argc > 1) {
    std::ofstream file(argv[1], std::ios::trunc);
    file << Draw(runs);
    file.close();
    if (!file) {
      std::fprintf(stderr, "storm: cannot write %s\n", argv[1]);
      return 1;
    }
  }
  const StormResult& ours = runs.back().result;
  return ours.flushed.recovered && ours.halved.recovered ? 0 : 1;
}
