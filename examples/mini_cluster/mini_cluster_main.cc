// The mini-cluster: see run.h for what it does, and --help for its options.

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/strings.h"
#include "examples/mini_cluster/events.h"
#include "examples/mini_cluster/power_switch.h"
#include "examples/mini_cluster/record_source.h"
#include "examples/mini_cluster/run.h"
#include "examples/mini_cluster/switches.h"

ABSL_FLAG(std::string, dir, "mini-cluster-data",
          "Directory of the cluster's files. Made if it is missing; a run on one that is there "
          "goes on with what it holds.");
ABSL_FLAG(uint32_t, nodes, 9, "Storage nodes, as many in each of three zones: 3, 6, ... 30.");
ABSL_FLAG(uint32_t, partitions, 4, "Partitions of the table, 1 to 2,000.");
ABSL_FLAG(std::string, input, dynlib::mini_cluster::kUnicodeDataPath,
          "The file whose records are the items.");
ABSL_FLAG(std::string, format, "auto", "Of the input: auto (by its name), csv, jsonl or unicode.");
ABSL_FLAG(std::string, partition_key, "",
          "The attribute that is the partition key. Needed unless the input is Unicode data.");
ABSL_FLAG(std::string, sort_key, "", "The attribute that is the sort key; empty: none.");
ABSL_FLAG(uint32_t, repeat, 1,
          "Writes each record so many times, under different sort keys: 1 to 1000.");
ABSL_FLAG(uint64_t, generation, 0,
          "Unless 0, every item gets an attribute _generation with this number: so that an "
          "overwrite that was lost shows. For --journal.");
ABSL_FLAG(uint64_t, seed, 1, "Of the load's choices and of election jitter.");
ABSL_FLAG(uint32_t, clients, 256, "Writes in flight while loading: 1 to 4000.");
ABSL_FLAG(uint32_t, mixed_seconds, 6,
          "How long the figures of a stage are measured, together; reads and writes go on all the "
          "time. 0: no stages, no reads and writes.");
ABSL_FLAG(std::string, stages, "routing,admission,power,healing,scrub",
          "Which of these stages are run.");
ABSL_FLAG(
    std::string, without, "",
    "Blocks that are switched off, so that it shows what they are for: any of cache, "
    "admission, log-replicas, scrub, split, with commas. Without scrub the damage that is done "
    "is left to the verification, which fails.");
ABSL_FLAG(bool, reload, false, "Writes all items although they are there already.");
ABSL_FLAG(bool, verify, true, "Compares the directory with the input at the end.");
ABSL_FLAG(bool, verify_only, false, "Compares the directory with the input and does nothing else.");
ABSL_FLAG(std::string, counters_file, "",
          "With --verify-only: a file that says what the counters must be.");
ABSL_FLAG(std::string, journal, "",
          "Notes each acknowledged write in this file, for a check after a kill.");
ABSL_FLAG(std::string, verify_journal, "",
          "Checks that what this journal notes is there and nothing is half written, and does "
          "nothing else.");
ABSL_FLAG(uint32_t, power_off_after_ms, 0,
          "Cuts the power of all nodes after this time and ends with status 42; 0: does not.");
ABSL_FLAG(bool, verbose, false, "Prints what the cluster reports of itself to stderr.");

namespace dynlib::mini_cluster {
namespace {

constexpr int kUsageStatus = 2;

// --partition-key is --partition_key.
std::vector<std::string> WithUnderscores(int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + argc);
  for (std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument.substr(0, 2) != "--") continue;
    for (size_t i = 2; i < argument.size() && argument[i] != '='; ++i) {
      if (argument[i] == '-') argument[i] = '_';
    }
  }
  return arguments;
}

std::optional<RecordFormat> FormatOf(const std::string& name) {
  if (name == "auto") return RecordFormat::kByName;
  if (name == "csv") return RecordFormat::kCsv;
  if (name == "jsonl") return RecordFormat::kJsonLines;
  if (name == "unicode") return RecordFormat::kUnicodeData;
  return std::nullopt;
}

bool IsUnicodeData(const std::string& path, RecordFormat format) {
  constexpr std::string_view kName = "UnicodeData.txt";
  return format == RecordFormat::kUnicodeData ||
         (format == RecordFormat::kByName && path.size() >= kName.size() &&
          path.compare(path.size() - kName.size(), kName.size(), kName) == 0);
}

absl::StatusOr<RunOptions> OptionsFromFlags() {
  RunOptions options;
  options.directory = absl::GetFlag(FLAGS_dir);
  options.nodes = absl::GetFlag(FLAGS_nodes);
  options.partitions = absl::GetFlag(FLAGS_partitions);
  options.data.records.path = absl::GetFlag(FLAGS_input);
  const std::string format = absl::GetFlag(FLAGS_format);
  const std::optional<RecordFormat> known = FormatOf(format);
  if (!known.has_value()) {
    return absl::InvalidArgumentError(
        Cat("--format is '", format, "'; allowed: auto, csv, jsonl, unicode"));
  }
  options.data.records.format = *known;
  options.data.partition_key = absl::GetFlag(FLAGS_partition_key);
  options.data.sort_key = absl::GetFlag(FLAGS_sort_key);
  if (options.data.partition_key.empty() && options.data.sort_key.empty() &&
      IsUnicodeData(options.data.records.path, *known)) {
    options.data.partition_key = kUnicodePartitionKey;
    options.data.sort_key = kUnicodeSortKey;
  }
  options.data.repeat = absl::GetFlag(FLAGS_repeat);
  options.data.generation = absl::GetFlag(FLAGS_generation);
  options.seed = absl::GetFlag(FLAGS_seed);
  options.in_flight = absl::GetFlag(FLAGS_clients);
  options.mixed_load_seconds = absl::GetFlag(FLAGS_mixed_seconds);
  absl::StatusOr<Stages> stages = ParseStages(absl::GetFlag(FLAGS_stages));
  if (!stages.ok()) return stages.status();
  options.stages = *stages;
  absl::StatusOr<Switches> switches = ParseWithout(absl::GetFlag(FLAGS_without));
  if (!switches.ok()) return switches.status();
  options.switches = *switches;
  options.reload = absl::GetFlag(FLAGS_reload);
  options.verify = absl::GetFlag(FLAGS_verify);
  options.counters_file = absl::GetFlag(FLAGS_counters_file);
  options.journal = absl::GetFlag(FLAGS_journal);
  if (options.directory.empty())
    return absl::InvalidArgumentError("--dir is empty; allowed: a directory's path");
  return options;
}

absl::Status WithTrouble(const absl::Status& status, const Events& events) {
  const std::string trouble = events.last_trouble();
  if (trouble.empty()) return status;
  return absl::Status(status.code(),
                      Cat(ToStd(status.message()), "; the cluster reported: ", trouble));
}

int Fail(const absl::Status& status, int exit_status) {
  std::string message(ToStd(status.message()));
  for (char& c : message) c = c == '\n' ? ' ' : c;  // one line
  std::printf("FAILED: %s\n", message.c_str());
  return exit_status;
}

// Wrong options end the process within ParseCommandLine, which says on stderr what is wrong.
bool options_parsed = false;
void SayThatOptionsAreWrong() {
  if (!options_parsed) std::printf("FAILED: wrong options: see above, and --help\n");
}

bool AsksForHelp(const std::vector<std::string>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(), [](const std::string& argument) {
    return argument.substr(0, 6) == "--help" || argument == "--version";
  });
}

int Main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Runs a small dynlib cluster, three zones in one process, on real files: loads a data set, "
      "and under load shows how requests find partitions, how a hot partition is throttled and "
      "split, how power cuts and the loss of a node are survived and healed, and how a damaged "
      "copy "
      "is found and repaired; then verifies every item in a process of its own. The last line is "
      "\"OK: N written, N verified, 0 lost\" or "
      "\"FAILED: ...\".");
  const std::vector<std::string> arguments = WithUnderscores(argc, argv);
  if (!AsksForHelp(arguments)) std::atexit(SayThatOptionsAreWrong);
  std::vector<char*> pointers;
  for (const std::string& argument : arguments)
    pointers.push_back(const_cast<char*>(argument.c_str()));
  const std::vector<char*> rest =
      absl::ParseCommandLine(static_cast<int>(pointers.size()), pointers.data());
  options_parsed = true;
  if (rest.size() > 1) {
    return Fail(absl::InvalidArgumentError(Cat("unexpected argument '", rest[1], "'; see --help")),
                kUsageStatus);
  }
  absl::StatusOr<RunOptions> options = OptionsFromFlags();
  if (!options.ok()) return Fail(options.status(), kUsageStatus);
  Events events(absl::GetFlag(FLAGS_verbose));
  options->events = &events;
  char self[PATH_MAX] = {};
  if (::readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
    return Fail(absl::UnavailableError("/proc/self/exe cannot be read"), 1);
  options->command = arguments;
  options->command[0] = self;

  if (const uint32_t after = absl::GetFlag(FLAGS_power_off_after_ms); after > 0)
    PowerOffAfter(after);
  absl::StatusOr<std::string> last_line;
  if (absl::GetFlag(FLAGS_verify_only)) {
    last_line = RunVerification(*options);
  } else if (!absl::GetFlag(FLAGS_verify_journal).empty()) {
    options->journal = absl::GetFlag(FLAGS_verify_journal);
    last_line = RunJournalVerification(*options);
  } else {
    last_line = Run(*options);
  }
  if (!last_line.ok()) return Fail(WithTrouble(last_line.status(), events), 1);
  std::printf("%s\n", last_line->c_str());
  return last_line->substr(0, 3) == "OK:" ? 0 : 1;
}

}  // namespace
}  // namespace dynlib::mini_cluster

int main(int argc, char** argv) { return dynlib::mini_cluster::Main(argc, argv); }
