#include "benchmarks/harness.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "benchmarks/cleanup.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr char kLimitPrefix[] = "limit:";

std::string Usage(const DefaultSeconds& seconds) {
  return Cat(
      "  --quick          fewer and shorter runs, only the workloads of the quick set; at most 50 "
      "seconds\n"
      "  --json FILE      the figures, a row each\n"
      "  --dir FOLDER     a temporary folder is made there, on the disk that is to be measured "
      "(default /var/tmp)\n"
      "  --pairs N        rounds in which every system runs once, 1 to 1000 (default 10)\n"
      "  --seconds S      measured time of a run, 0.05 to 600 (default ",
      seconds.full,
      ")\n"
      "  --only TEXT      only workloads whose name contains TEXT\n"
      "  --systems A,B    only these systems\n");
}

absl::StatusOr<double> Number(const std::string& flag, const std::string& text, double low,
                              double high) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(number >= low && number <= high)) {
    return absl::InvalidArgumentError(
        Cat(flag, " must be a number from ", low, " to ", high, ", not '", text, "'"));
  }
  return number;
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

absl::Status SetFlag(Flags& flags, const std::string& flag, const std::string& value) {
  if (flag == "--json") {
    flags.json_path = value;
  } else if (flag == "--dir") {
    flags.dir = value;
  } else if (flag == "--only") {
    flags.only = value;
  } else if (flag == "--systems") {
    flags.systems = Split(value);
  } else if (flag == "--pairs") {
    DYNLIB_ASSIGN_OR_RETURN(const double pairs, Number(flag, value, 1, 1000));
    flags.pairs = static_cast<int>(pairs);
  } else if (flag == "--seconds") {
    DYNLIB_ASSIGN_OR_RETURN(flags.seconds, Number(flag, value, 0.05, 600));
  } else {
    return absl::InvalidArgumentError(Cat("unknown option '", flag, "'"));
  }
  return absl::OkStatus();
}

void WarnAboutMemory(const std::filesystem::path& folder) {
  struct statfs info {};
  if (statfs(folder.c_str(), &info) == 0 && info.f_type == TMPFS_MAGIC) {
    std::fprintf(stderr, "warning: %s is in memory; its syncs say nothing about a disk\n",
                 folder.c_str());
  }
}

Row MakeRow(const std::string& workload, const std::string& system, const std::string& unit,
            const std::vector<double>& values, bool higher_is_better) {
  return {workload, system, unit, Median(values), MedianInterval(values), higher_is_better};
}

double Throughput(const RunResult& run) {
  return static_cast<double>(run.operations) / run.seconds;
}

std::vector<double> Throughputs(const std::vector<RunResult>& runs) {
  std::vector<double> values;
  for (const RunResult& run : runs) values.push_back(Throughput(run));
  return values;
}

std::string JsonNumber(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.5g", value);
  return text;
}

}  // namespace

absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments,
                                 const DefaultSeconds& seconds) {
  Flags flags;
  flags.seconds = seconds.full;
  bool sized = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string flag = arguments[i];
    if (flag == "--quick") {
      flags.quick = true;
      continue;
    }
    std::string value;
    if (const size_t equals = flag.find('='); equals != std::string::npos) {
      value = flag.substr(equals + 1);
      flag.resize(equals);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      const absl::Status known = SetFlag(flags, flag, "1");
      return known.ok() ? absl::InvalidArgumentError(Cat("option '", flag, "' needs a value"))
                        : known;
    }
    DYNLIB_RETURN_IF_ERROR(SetFlag(flags, flag, value));
    sized = sized || flag == "--pairs" || flag == "--seconds";
  }
  if (flags.quick && !sized) {
    flags.pairs = 3;
    flags.seconds = seconds.quick;
  }
  return flags;
}

std::vector<Row> Summarize(const std::string& workload, const std::vector<std::string>& systems,
                           std::vector<std::vector<RunResult>> runs) {
  static constexpr std::pair<const char*, double> kQuantiles[] = {
      {"p50_us", 0.5}, {"p99_us", 0.99}, {"p99.9_us", 0.999}};
  std::vector<Row> rows;
  for (size_t i = 0; i < systems.size(); ++i) {
    if (runs[i].empty()) continue;
    rows.push_back(MakeRow(workload, systems[i], "ops/s", Throughputs(runs[i]), true));
    for (const auto& [unit, share] : kQuantiles) {
      if (runs[i].front().latencies_ns.empty()) break;
      std::vector<double> values;
      for (RunResult& run : runs[i])
        values.push_back(static_cast<double>(Quantile(run.latencies_ns, share)) * 1e-3);
      rows.push_back(MakeRow(workload, systems[i], unit, values, false));
    }
  }
  const auto ours = std::find(systems.begin(), systems.end(), kOurs);
  if (ours == systems.end()) return rows;
  const std::vector<RunResult>& our_runs = runs[static_cast<size_t>(ours - systems.begin())];
  for (size_t i = 0; i < systems.size(); ++i) {
    if (systems[i] == kOurs) continue;
    std::vector<double> ratios;
    for (size_t round = 0; round < std::min(our_runs.size(), runs[i].size()); ++round) {
      if (const double theirs = Throughput(runs[i][round]); theirs > 0)
        ratios.push_back(Throughput(our_runs[round]) / theirs);
    }
    if (!ratios.empty())
      rows.push_back(MakeRow(workload, Cat(kOurs, "/", systems[i]), "ratio", ratios, true));
  }
  return rows;
}

std::vector<Row> SummarizeFigures(const std::string& workload, const FigureUnit& unit,
                                  const std::vector<std::string>& systems,
                                  const std::vector<std::vector<double>>& values) {
  std::vector<Row> rows;
  for (size_t i = 0; i < systems.size(); ++i) {
    if (!values[i].empty())
      rows.push_back(MakeRow(workload, systems[i], unit.name, values[i], unit.higher_is_better));
  }
  const auto ours = std::find(systems.begin(), systems.end(), kOurs);
  if (ours == systems.end()) return rows;
  const std::vector<double>& our_values = values[static_cast<size_t>(ours - systems.begin())];
  for (size_t i = 0; i < systems.size(); ++i) {
    if (systems[i].starts_with(kOurs)) continue;  // another figure of ours
    std::vector<double> ratios;
    for (size_t round = 0; round < std::min(our_values.size(), values[i].size()); ++round) {
      const double better = unit.higher_is_better ? our_values[round] : values[i][round];
      const double worse = unit.higher_is_better ? values[i][round] : our_values[round];
      if (worse > 0) ratios.push_back(better / worse);
    }
    if (!ratios.empty())
      rows.push_back(MakeRow(workload, Cat(kOurs, "/", systems[i]), "ratio", ratios, true));
  }
  return rows;
}

std::string ToJson(const std::string& bench, const std::vector<Row>& rows) {
  std::string json = "[";
  for (const Row& row : rows) {
    json +=
        Cat(json.size() == 1 ? "\n" : ",\n", "  {\"bench\": \"", bench, "\", \"workload\": \"",
            row.workload, "\", \"system\": \"", row.system, "\", \"unit\": \"", row.unit,
            "\", \"value\": ", JsonNumber(row.value), ", \"low\": ", JsonNumber(row.interval.low),
            ", \"high\": ", JsonNumber(row.interval.high),
            ", \"higher_is_better\": ", row.higher_is_better ? "true" : "false", "}");
  }
  return json + "\n]\n";
}

Harness::Harness(std::string bench, int argc, char** argv, const DefaultSeconds& seconds)
    : bench_(std::move(bench)) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (std::find(arguments.begin(), arguments.end(), "--help") != arguments.end()) {
    std::printf("tools/bench %s [OPTION...]\n%s", bench_.c_str(), Usage(seconds).c_str());
    std::exit(0);
  }
  absl::StatusOr<Flags> flags = ParseFlags(arguments, seconds);
  if (!flags.ok()) {
    std::fprintf(stderr, "%s: %s\n%s", bench_.c_str(),
                 std::string(ToStd(flags.status().message())).c_str(), Usage(seconds).c_str());
    std::exit(2);
  }
  flags_ = *std::move(flags);
  CleanUpOnSignals();
  WarnAboutMemory(flags_.dir);
}

bool Harness::Wanted(const std::string& system) const {
  return flags_.systems.empty() ||
         std::find(flags_.systems.begin(), flags_.systems.end(), system) != flags_.systems.end();
}

bool Harness::Wanted(const std::string& workload, bool in_quick_set) const {
  return workload.find(flags_.only) != std::string::npos && (in_quick_set || !flags_.quick);
}

void Harness::RunRounds(const std::string& workload, const std::vector<std::string>& systems,
                        const std::function<absl::Status(size_t i, const RunContext&)>& run_once) {
  std::vector<bool> broken(systems.size());
  for (int round = 0; round < flags_.pairs; ++round) {
    for (size_t turn = 0; turn < systems.size(); ++turn) {
      const size_t i = round % 2 == 0 ? turn : systems.size() - 1 - turn;
      if (broken[i]) continue;
      const absl::StatusOr<TemporaryFolder> folder = TemporaryFolder::Create(flags_.dir);
      const absl::Status status =
          folder.ok() ? run_once(i, {folder->path(), flags_.seconds}) : folder.status();
      if (status.ok()) continue;
      Failed(workload, systems[i], status);
      broken[i] = true;
    }
  }
}

void Harness::Measure(const std::string& workload, std::vector<System> systems, bool in_quick_set) {
  if (!Wanted(workload, in_quick_set)) return;
  std::erase_if(systems, [&](const System& s) { return !Wanted(s.name); });
  std::vector<std::string> names;
  for (const System& system : systems) names.push_back(system.name);
  std::vector<std::vector<RunResult>> runs(systems.size());
  RunRounds(workload, names, [&](size_t i, const RunContext& context) {
    absl::StatusOr<RunResult> run = systems[i].run(context);
    if (run.ok()) runs[i].push_back(*std::move(run));
    return run.status();
  });
  const std::vector<Row> rows = Summarize(workload, names, std::move(runs));
  Print(rows);
  rows_.insert(rows_.end(), rows.begin(), rows.end());
}

void Harness::MeasureFigures(const std::string& workload, const FigureUnit& unit,
                             std::vector<FigureSystem> systems, bool in_quick_set) {
  if (!Wanted(workload, in_quick_set)) return;
  std::erase_if(systems, [&](const FigureSystem& s) { return !Wanted(s.name); });
  std::vector<std::string> names;
  for (const FigureSystem& system : systems) names.push_back(system.name);
  std::vector<std::vector<double>> values(systems.size());
  RunRounds(workload, names, [&](size_t i, const RunContext& context) {
    const absl::StatusOr<double> value = systems[i].run(context);
    if (value.ok()) values[i].push_back(*value);
    return value.status();
  });
  std::vector<Figures> figures;
  for (size_t i = 0; i < names.size(); ++i) figures.push_back({names[i], std::move(values[i])});
  Report(workload, unit, figures);
}

void Harness::Report(const std::string& workload, const FigureUnit& unit,
                     const std::vector<Figures>& figures) {
  std::vector<std::string> names;
  std::vector<std::vector<double>> values;
  size_t rounds = 0;
  for (const Figures& of_system : figures) {
    names.push_back(of_system.first);
    values.push_back(of_system.second);
    rounds = std::max(rounds, of_system.second.size());
  }
  const std::vector<Row> rows = SummarizeFigures(workload, unit, names, values);
  if (rows.empty()) return;
  std::printf("\n%s: %zu rounds, medians [95 %% interval]\n", workload.c_str(), rounds);
  for (const Row& row : rows) {
    std::printf("  %-28s %10.5g %-6s [%.5g, %.5g]\n", row.system.c_str(), row.value,
                row.unit.c_str(), row.interval.low, row.interval.high);
  }
  std::fflush(stdout);
  rows_.insert(rows_.end(), rows.begin(), rows.end());
}

void Harness::Failed(const std::string& workload, const std::string& system,
                     const absl::Status& status) {
  std::fprintf(stderr, "%s: %s: %s\n", workload.c_str(), system.c_str(), status.ToString().c_str());
  failed_ = true;
}

void Harness::MeasureQuantity(const std::string& workload, const std::string& system,
                              const std::string& unit, bool higher_is_better,
                              const std::function<absl::StatusOr<double>()>& measure,
                              bool in_quick_set) {
  MeasureFigures(workload, {unit, higher_is_better},
                 {{system, [&](const RunContext&) { return measure(); }}}, in_quick_set);
}

void Harness::Print(const std::vector<Row>& rows) const {
  if (rows.empty()) return;
  std::printf("\n%s: %d rounds of %.3g s, medians [95 %% interval]\n",
              rows.front().workload.c_str(), flags_.pairs, flags_.seconds);
  std::printf("  %-28s %9s  %-20s %8s %8s %8s  us", "", "ops/s", "", "p50", "p99", "p99.9");
  for (const Row& row : rows) {
    char interval[64];
    std::snprintf(interval, sizeof(interval), row.unit == "ratio" ? "[%.2f, %.2f]" : "[%.0f, %.0f]",
                  row.interval.low, row.interval.high);
    if (row.unit == "ops/s") {
      std::printf("\n  %-28s %9.0f  %-20s", row.system.c_str(), row.value, interval);
    } else if (row.unit == "ratio") {
      std::printf("\n  %-28s %8.2fx  %s", row.system.c_str(), row.value, interval);
    } else {
      std::printf(" %8.0f", row.value);
    }
  }
  std::printf("\n");
  std::fflush(stdout);
}

int Harness::Finish() {
  const bool measured = std::any_of(rows_.begin(), rows_.end(), [](const Row& row) {
    return row.system.compare(0, sizeof(kLimitPrefix) - 1, kLimitPrefix) != 0;
  });
  if (!measured) {
    std::fprintf(stderr, "%s: no workload was measured\n", bench_.c_str());
    return 1;
  }
  if (!flags_.json_path.empty()) {
    std::ofstream file(flags_.json_path, std::ios::binary | std::ios::trunc);
    file << ToJson(bench_, rows_);
    file.close();
    if (!file) {
      std::fprintf(stderr, "%s: cannot write %s: %s\n", bench_.c_str(), flags_.json_path.c_str(),
                   std::strerror(errno));
      return 1;
    }
  }
  return failed_ ? 1 : 0;
}

}  // namespace dynlib::bench
