// Measures several systems side by side, so that their ratio means something on a machine whose
// speed changes by the minute.
//
// In each round every system runs once, for the same time, in a new folder; the order turns around
// from round to round. A figure is the median over the rounds, with an interval that holds the true
// median with 95 % probability; a ratio is taken within each round and is the median of those.
// Limits of the machine are measured as systems named "limit:...", in the same rounds.
//
//   int main(int argc, char** argv) {
//     Harness harness("store", argc, argv);
//     harness.Measure("durable_put/900/1", {{"dynlib", RunOurs}, {"leveldb", RunLevelDb},
//     {"limit:zeroed_sync", RunSyncs}}); return harness.Finish();
//   }
//
// Command line: --quick, --json FILE, --dir FOLDER, --pairs N, --seconds S, --only TEXT, --systems
// A,B,...; see Usage(). The constructor ends the process for --help and for wrong arguments (status
// 2).
//
// JSON: an array of rows {bench, workload, system, unit, value, low, high, higher_is_better}; units
// are "ops/s", "p50_us", "p99_us", "p99.9_us" where latencies were taken (or what a workload of
// figures names), and "ratio" for rows of system "dynlib/PEER" (throughput of the first by that of
// the second).
#ifndef DYNLIB_BENCHMARKS_HARNESS_H_
#define DYNLIB_BENCHMARKS_HARNESS_H_

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/load.h"
#include "benchmarks/stats.h"

namespace dynlib::bench {

// The system whose ratio to each peer is reported.
inline constexpr char kOurs[] = "dynlib";

struct RunContext {
  std::filesystem::path folder;  // new and empty; removed after the run
  double seconds = 0;            // how long to measure
};

using Runner = std::function<absl::StatusOr<RunResult>(const RunContext&)>;

struct System {
  std::string name;
  Runner run;
};

// A system whose run gives one figure, in the workload's unit.
struct FigureSystem {
  std::string name;
  std::function<absl::StatusOr<double>(const RunContext&)> run;
};

struct FigureUnit {
  std::string name;  // such as "ns"
  bool higher_is_better = false;
};

struct Row {
  std::string workload;
  std::string system;
  std::string unit;
  double value = 0;
  Interval interval;
  bool higher_is_better = false;
};

struct Flags {
  bool quick = false;
  std::string json_path;  // empty: none
  std::filesystem::path dir =
      "/var/tmp";  // on the disk that is measured; many systems keep /tmp in memory
  int pairs = 10;
  double seconds = 2;
  std::string only;                  // workloads whose name contains it
  std::vector<std::string> systems;  // empty: all
};

// Measured time of a run where the command line says nothing.
struct DefaultSeconds {
  double full = 2;
  double quick = 0.5;
};

// kInvalidArgument naming the argument that is wrong.
absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments,
                                 const DefaultSeconds& seconds = {});

// The rows of one workload: runs[i] are the results of systems[i], one a round.
std::vector<Row> Summarize(const std::string& workload, const std::vector<std::string>& systems,
                           std::vector<std::vector<RunResult>> runs);

// The rows of one workload of figures: values[i] are those of systems[i], one a round. A ratio
// above 1 says that ours is the better one, in either kind of unit.
std::vector<Row> SummarizeFigures(const std::string& workload, const FigureUnit& unit,
                                  const std::vector<std::string>& systems,
                                  const std::vector<std::vector<double>>& values);

// The rows as a JSON array, a row a line.
std::string ToJson(const std::string& bench, const std::vector<Row>& rows);

class Harness {
 public:
  Harness(std::string bench, int argc, char** argv, const DefaultSeconds& seconds = {});

  const Flags& flags() const { return flags_; }

  // Runs all rounds of a workload and prints its part of the table. With --quick, workloads not in
  // the quick set are left out. A system that fails is named, with its error, left out of the
  // rounds that follow, and fails Finish().
  void Measure(const std::string& workload, std::vector<System> systems, bool in_quick_set = true);

  // The same for runs that give a figure.
  void MeasureFigures(const std::string& workload, const FigureUnit& unit,
                      std::vector<FigureSystem> systems, bool in_quick_set = true);

  // A figure of one system.
  void MeasureQuantity(const std::string& workload, const std::string& system,
                       const std::string& unit, bool higher_is_better,
                       const std::function<absl::StatusOr<double>()>& measure,
                       bool in_quick_set = true);

  // For measurements that the rounds do not fit: one run that gives figures of several systems or
  // workloads, or one that is too long to be repeated. Wants says whether to make it.
  using Figures = std::pair<std::string, std::vector<double>>;  // of a system, one a round
  bool Wants(const std::string& workload, bool in_quick_set) const {
    return Wanted(workload, in_quick_set);
  }
  bool Wants(const std::string& system) const { return Wanted(system); }
  // Prints and keeps the rows, as MeasureFigures does; systems without a figure are left out.
  void Report(const std::string& workload, const FigureUnit& unit,
              const std::vector<Figures>& figures);
  // Says so, and fails Finish().
  void Failed(const std::string& workload, const std::string& system, const absl::Status& status);

  // Writes the JSON file. The exit status of the process: 0, or 1 when a system or the file failed
  // or nothing was measured.
  int Finish();

 private:
  bool Wanted(const std::string& system) const;
  bool Wanted(const std::string& workload, bool in_quick_set) const;
  // Runs systems[i] of each round through `run_once(i)`, which gives what became of it.
  void RunRounds(const std::string& workload, const std::vector<std::string>& systems,
                 const std::function<absl::Status(size_t i, const RunContext&)>& run_once);
  void Print(const std::vector<Row>& rows) const;

  const std::string bench_;
  Flags flags_;
  std::vector<Row> rows_;
  bool failed_ = false;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_HARNESS_H_
