// Runs the cluster simulation over many seeds, and replays one.
//
//   cluster_sim --seeds=300 --first=1 --jobs=2
//   cluster_sim --minutes=30
//   cluster_sim --seed=17          # that seed alone, with its trace on standard output
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "dynlib/base/strings.h"
#include "tests/sim/cluster_simulation.h"

ABSL_FLAG(uint64_t, seeds, 100, "how many seeds to run");
ABSL_FLAG(uint64_t, first, 1, "the first of them");
ABSL_FLAG(double, minutes, 0, "run seeds for this long instead of a number of them");
ABSL_FLAG(uint64_t, seed, 0, "replay this seed and print its trace");
ABSL_FLAG(int, jobs, 2, "processes, 1 to 64");
ABSL_FLAG(double, fault_seconds, 15, "virtual time under faults, a seed");

namespace dynlib {
namespace {

using SteadyClock = std::chrono::steady_clock;

SimulationOptions OptionsFor(uint64_t seed) {
  SimulationOptions options;
  options.seed = seed;
  options.fault_time =
      std::chrono::milliseconds(static_cast<int64_t>(absl::GetFlag(FLAGS_fault_seconds) * 1000));
  return options;
}

int Replay(uint64_t seed) {
  SimulationOptions options = OptionsFor(seed);
  options.trace = [](std::string_view line) {
    std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
  };
  const SimulationResult result = RunClusterSimulation(options);
  std::printf("seed %llu: %s, trace hash %s, %llu operations, %llu acknowledged\n",
              static_cast<unsigned long long>(seed), result.ok() ? "ok" : result.failure.c_str(),
              Hex(result.trace_hash).c_str(), static_cast<unsigned long long>(result.operations),
              static_cast<unsigned long long>(result.acknowledged));
  return result.ok() ? 0 : 1;
}

// Runs every jobs-th seed; writes what it found as lines to `out`.
void RunShare(int job, int jobs, FILE* out) {
  const auto start = SteadyClock::now();
  const double minutes = absl::GetFlag(FLAGS_minutes);
  std::map<std::string, uint64_t> counts;
  uint64_t runs = 0;
  for (uint64_t i = job;; i += jobs) {
    const std::chrono::duration<double> elapsed = SteadyClock::now() - start;
    if (minutes > 0 ? elapsed.count() >= minutes * 60 : i >= absl::GetFlag(FLAGS_seeds)) break;
    const uint64_t seed = absl::GetFlag(FLAGS_first) + i;
    SimulationResult result = RunClusterSimulation(OptionsFor(seed));
    if (result.ok() && seed % 100 == 0) {
      const SimulationResult again = RunClusterSimulation(OptionsFor(seed));
      if (again.trace_hash != result.trace_hash)
        result.failure = "a second run of the seed went another way";
      ++counts["seeds run twice"];
    }
    ++runs;
    if (!result.ok())
      std::fprintf(out, "FAIL seed %llu: %s\nreplay: tools/sim --seed %llu\n",
                   static_cast<unsigned long long>(seed), result.failure.c_str(),
                   static_cast<unsigned long long>(seed));
    std::fflush(out);
    counts["operations"] += result.operations;
    counts["acknowledged writes"] += result.acknowledged;
    counts["events"] += result.events;
    for (const auto& [name, count] : result.faults) counts["fault " + name] += count;
    for (const auto& [name, count] : result.metrics) counts["count " + name] += count;
  }
  std::fprintf(out, "RUNS %llu\n", static_cast<unsigned long long>(runs));
  for (const auto& [name, count] : counts)
    std::fprintf(out, "COUNT %llu %s\n", static_cast<unsigned long long>(count), name.c_str());
  std::fflush(out);
}

int RunMany(int jobs) {
  std::vector<FILE*> pipes;
  for (int job = 0; job < jobs; ++job) {
    int ends[2];
    if (pipe(ends) != 0) return 2;
    const pid_t child = fork();
    if (child < 0) return 2;
    if (child == 0) {
      close(ends[0]);
      RunShare(job, jobs, fdopen(ends[1], "w"));
      _exit(0);
    }
    close(ends[1]);
    pipes.push_back(fdopen(ends[0], "r"));
  }
  std::map<std::string, uint64_t> counts;
  uint64_t runs = 0;
  uint64_t failures = 0;
  int finished = 0;
  for (FILE* in : pipes) {
    char line[8192];
    while (std::fgets(line, sizeof(line), in) != nullptr) {
      std::istringstream words(line);
      std::string word;
      uint64_t number = 0;
      words >> word;
      if (word == "RUNS" && words >> number) {
        runs += number;
        ++finished;
      } else if (word == "COUNT" && words >> number) {
        std::string name;
        std::getline(words >> std::ws, name);
        counts[name] += number;
      } else {
        if (word == "FAIL") ++failures;
        std::fputs(line, stdout);
        std::fflush(stdout);
      }
    }
    std::fclose(in);
  }
  int status = 0;
  bool died = finished != jobs;
  while (wait(&status) > 0) died = died || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  for (const auto& [name, count] : counts)
    std::printf("%12llu  %s\n", static_cast<unsigned long long>(count), name.c_str());
  if (died) std::printf("a process of the simulation died\n");
  std::printf("%llu seeds, %llu failed\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(failures));
  return failures == 0 && !died && runs > 0 ? 0 : 1;
}

}  // namespace
}  // namespace dynlib

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("simulates a cluster under faults, by seed");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::fprintf(stderr, "unknown argument \"%s\"\n", rest[1]);
    return 2;
  }
  const int jobs = absl::GetFlag(FLAGS_jobs);
  if (jobs < 1 || jobs > 64) {
    std::fprintf(stderr, "--jobs is %d; allowed: 1 to 64\n", jobs);
    return 2;
  }
  if (absl::GetFlag(FLAGS_seed) != 0) return dynlib::Replay(absl::GetFlag(FLAGS_seed));
  return dynlib::RunMany(jobs);
}
