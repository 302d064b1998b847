#include "examples/mini_cluster/run.h"

#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "examples/mini_cluster/admission_stage.h"
#include "examples/mini_cluster/healing_stage.h"
#include "examples/mini_cluster/journal.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/load.h"
#include "examples/mini_cluster/mixed_load.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/power_stage.h"
#include "examples/mini_cluster/power_switch.h"
#include "examples/mini_cluster/process.h"
#include "examples/mini_cluster/report.h"
#include "examples/mini_cluster/routing_stage.h"
#include "examples/mini_cluster/sample.h"
#include "examples/mini_cluster/sample_queries.h"
#include "examples/mini_cluster/scrub_stage.h"
#include "examples/mini_cluster/setup.h"
#include "examples/mini_cluster/stage.h"
#include "examples/mini_cluster/verify.h"

namespace dynlib::mini_cluster {
namespace {

constexpr size_t kRouters = 3;
constexpr size_t kMetadataNodes = 3;

ClusterOptions ClusterOptionsOf(const RunOptions& options) {
  return {.directory = options.directory,
          .nodes = options.nodes,
          .metadata_nodes = kMetadataNodes,
          .seed = options.seed,
          .switches = options.switches};
}

absl::Status WriteCounters(const std::string& path,
                           const std::map<std::string, CounterRange>& counters) {
  std::ofstream file(path, std::ios::trunc);
  for (const auto& [name, range] : counters)
    file << name << ' ' << range.low << ' ' << range.high << '\n';
  file.close();
  if (file.fail()) return absl::UnavailableError(Cat(path, " cannot be written"));
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, CounterRange>> ReadCounters(const std::string& path) {
  std::map<std::string, CounterRange> counters;
  if (path.empty()) return counters;
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(Cat(path, " cannot be read"));
  std::string name;
  CounterRange range;
  while (file >> name >> range.low >> range.high) counters[name] = range;
  return counters;
}

// The run's steps share much: one object.
class Runner {
 public:
  explicit Runner(const RunOptions& options) : options_(options) {}

  absl::StatusOr<std::string> Run() {
    DYNLIB_ASSIGN_OR_RETURN(setup_, SetUp(options_));
    if (!options_.journal.empty()) {
      DYNLIB_ASSIGN_OR_RETURN(journal_, Journal::Open(options_.journal));
    }
    Introduce();
    if (!setup_.found.has_value())
      DYNLIB_RETURN_IF_ERROR(WriteManifest(options_.directory, setup_.wanted));
    DYNLIB_RETURN_IF_ERROR(RunCluster());
    if (!options_.verify) return Judge(Cat("OK: ", setup_.data.rows(), " written, not verified"));
    DYNLIB_ASSIGN_OR_RETURN(std::string verdict, VerifyElsewhere());
    return Judge(std::move(verdict));
  }

 private:
  void Introduce() {
    const DataSet& data = setup_.data;
    Say("directory   ", options_.directory, setup_.found.has_value() ? " (found)" : " (new)");
    Say("cluster     ", options_.nodes, " storage nodes and ", kMetadataNodes,
        " metadata nodes in 3 zones; ", options_.partitions, " partitions of 3 replicas; ",
        kRouters, " routers");
    Say("data        ", WithCommas(data.rows()), " items from ", data.path(), "; partition key '",
        data.schema().partition_key.name, "'",
        data.schema().sort_key.has_value() ? Cat(", sort key '", data.schema().sort_key->name, "'")
                                           : "");
  }

  absl::Status RunCluster() {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PoweredCluster> cluster,
                            PoweredCluster::Start(ClusterOptionsOf(options_), options_.events));
    {
      Clients clients(&**cluster, options_, kRouters);
      DYNLIB_RETURN_IF_ERROR(CreateTables(clients.first(), (*cluster)->config(), setup_.spec));
      DYNLIB_RETURN_IF_ERROR(LoadAll(clients.all()));
      DYNLIB_RETURN_IF_ERROR(RunStages(**cluster, clients.all()));
      DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table,
                              clients.first().ReadTable(kRecordsTable));
      DYNLIB_RETURN_IF_ERROR(PrintSampleQueries(clients.first(), table, setup_.data));
    }
    return (*cluster)->Stop();
  }

  absl::Status LoadAll(const std::vector<Client*>& clients) {
    const uint64_t rows = setup_.data.rows();
    if (setup_.found.has_value() && setup_.found->loaded == rows && !options_.reload) {
      Say("load        all ", WithCommas(rows),
          " items are there from an earlier run; nothing to write");
      return absl::OkStatus();
    }
    if (setup_.found.has_value()) Say("load        writing all items again over what is there");
    DYNLIB_ASSIGN_OR_RETURN(
        LoadResult loaded,
        Load(clients, setup_.data, options_.in_flight, journal_.get(), [&](uint64_t written) {
          Progress("loaded ", WithCommas(written), " of ", WithCommas(rows), " (",
                   written * 100 / rows, "%)");
        }));
    Say("load        ", WithCommas(loaded.written), " items written in ", Seconds(loaded.took),
        ": ", Rate(loaded.written, loaded.took), "; ", loaded.latencies.ToString(),
        loaded.throttled > 0 ? Cat("; throttled ", WithCommas(loaded.throttled), " times") : "");
    Manifest manifest = setup_.wanted;
    manifest.loaded = rows;
    return WriteManifest(options_.directory, manifest);
  }

  absl::Status RunStages(MiniCluster& cluster, const std::vector<Client*>& clients) {
    if (options_.mixed_load_seconds == 0) return absl::OkStatus();
    DYNLIB_ASSIGN_OR_RETURN(Sample sample, TakeSample(setup_.data));
    if (sample.items.empty()) return absl::OkStatus();
    DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table,
                            clients.front()->ReadTable(kRecordsTable));
    Progress("reads and writes go on from here to the end of the stages");
    MixedLoad load(
        clients, table, sample.items,
        {.seed = options_.seed, .journal = journal_.get(), .generation = options_.data.generation});
    Stage stage{.cluster = cluster,
                .events = *options_.events,
                .clients = clients,
                .load = load,
                .data = setup_.data,
                .quiet_first = sample.quiet_first,
                .quiet_end = sample.quiet_end,
                .switches = options_.switches,
                .pace = std::chrono::seconds(options_.mixed_load_seconds) / 3};
    load.Start();
    const absl::Status status = RunEach(stage);
    load_ = load.Stop();
    DYNLIB_RETURN_IF_ERROR(status);
    SayLoad();
    return absl::OkStatus();
  }

  absl::Status RunEach(Stage& stage) {
    const Stages& stages = options_.stages;
    if (stages.routing) DYNLIB_RETURN_IF_ERROR(ShowRouting(stage));
    if (stages.admission) DYNLIB_RETURN_IF_ERROR(ShowAdmission(stage));
    if (stages.power) DYNLIB_RETURN_IF_ERROR(ShowPowerCut(stage));
    if (stages.healing) DYNLIB_RETURN_IF_ERROR(ShowHealing(stage));
    if (stages.scrub) DYNLIB_RETURN_IF_ERROR(ShowScrub(stage));
    return absl::OkStatus();
  }

  void SayLoad() const {
    Say("meanwhile   ", WithCommas(load_.writes), " writes: ", load_.write_latencies.ToString());
    Say("            ", WithCommas(load_.reads),
        " strong reads: ", load_.read_latencies.ToString());
    if (load_.throttled > 0) Say("            ", load_.throttled, " were throttled");
    if (load_.unknown > 0)
      Say("            ", load_.unknown, " writes timed out; whether they took effect is unknown");
    for (const std::string& what : load_.failures) Say("            WRONG: ", what);
  }

  // In a process of its own, which knows nothing but the directory and the input.
  absl::StatusOr<std::string> VerifyElsewhere() {
    std::vector<std::string> command = options_.command;
    const std::string counters = Cat(options_.directory, "/counters.expected");
    DYNLIB_RETURN_IF_ERROR(WriteCounters(counters, load_.counters));
    for (const std::string& argument :
         {std::string("--verify_only"), Cat("--counters_file=", counters),
          std::string("--power_off_after_ms=0"), std::string("--verify_journal=")}) {
      command.push_back(argument);
    }
    Progress("verifying in a separate process");
    DYNLIB_ASSIGN_OR_RETURN(ProcessEnd end,
                            RunProcess(command, [](const std::string& line) { Say(line); }));
    const bool said_ok = end.last_line.substr(0, 3) == "OK:";
    if (said_ok != (end.exit_status == 0) || end.last_line.empty()) {
      return absl::InternalError(Cat("the verification ended with status ", end.exit_status,
                                     " and '", Escape(end.last_line, 256), "'"));
    }
    return end.last_line;
  }

  std::string Judge(std::string verdict) const {
    if (load_.failures.empty() || verdict.substr(0, 3) != "OK:") return verdict;
    return Cat("FAILED: ", load_.failures.front());
  }

  const RunOptions& options_;
  Setup setup_;
  std::unique_ptr<Journal> journal_;
  MixedLoad::Report load_;
};

// Whatever it has to repair now is a difference that nobody made on purpose.
absl::Status ScrubLast(Client& client, VerifyResult& result) {
  const Instant start = client.clock().Now();
  DYNLIB_ASSIGN_OR_RETURN(const ScrubReport report, client.ScrubNow(PartitionId{}));
  Say("scrubbed    ", WithCommas(report.items), " items of ", report.partitions,
      " partitions, their replicas read from disk and compared, in ",
      Seconds(client.clock().Now() - start), ": ", report.differences, " differences");
  result.different += report.differences;
  for (const std::string& failure : report.failures) {
    result.damaged++;
    result.examples.push_back(Cat("not scrubbed: ", failure));
  }
  return absl::OkStatus();
}

absl::StatusOr<VerifyResult> VerifyDirectory(const RunOptions& options, const Setup& setup,
                                             VerifyOptions verify) {
  ClusterOptions cluster_options = ClusterOptionsOf(options);
  cluster_options.switches.admission = false;  // It reads as fast as it can.
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PoweredCluster> cluster,
                          PoweredCluster::Start(cluster_options, options.events));
  absl::StatusOr<VerifyResult> result;
  {
    Clients clients(&**cluster, options, 1);
    // A run that was killed at its beginning has no tables yet.
    DYNLIB_RETURN_IF_ERROR(CreateTables(clients.first(), (*cluster)->config(), setup.spec));
    verify.in_flight = options.in_flight;
    verify.progress = [&](uint64_t read) {
      Progress("verified ", WithCommas(read), " of ", WithCommas(setup.data.rows()));
    };
    result = Verify(clients.first(), setup.data, std::move(verify));
    if (result.ok() && options.switches.scrub)
      DYNLIB_RETURN_IF_ERROR(ScrubLast(clients.first(), *result));
  }
  DYNLIB_RETURN_IF_ERROR(result.status());
  DYNLIB_RETURN_IF_ERROR((*cluster)->Stop());
  Say("verified    ", WithCommas(result->verified), " items in ", Seconds(result->took),
      ", by strong reads and in ", result->replicas, " replicas; ", result->counters, " counters");
  Say("            strong reads: ", result->read_latencies.ToString());
  for (const std::string& example : result->examples) Say("            WRONG: ", example);
  return result;
}

std::string Losses(const VerifyResult& result) {
  return Cat(result.verified, " verified, ", result.lost, " lost, ", result.different,
             " different, ", result.unexpected, " unexpected, ", result.counters_wrong,
             " counters wrong, ", result.damaged, " replicas damaged");
}

absl::StatusOr<Setup> SetUpToVerify(const RunOptions& options) {
  DYNLIB_ASSIGN_OR_RETURN(Setup setup, SetUp(options));
  if (!setup.found.has_value())
    return absl::NotFoundError(Cat("there is no mini-cluster in ", options.directory));
  return setup;
}

}  // namespace

absl::StatusOr<std::string> Run(const RunOptions& options) { return Runner(options).Run(); }

absl::StatusOr<std::string> RunVerification(const RunOptions& options) {
  DYNLIB_ASSIGN_OR_RETURN(Setup setup, SetUpToVerify(options));
  VerifyOptions verify;
  DYNLIB_ASSIGN_OR_RETURN(verify.counters, ReadCounters(options.counters_file));
  DYNLIB_ASSIGN_OR_RETURN(VerifyResult result, VerifyDirectory(options, setup, std::move(verify)));
  if (!result.ok()) return Cat("FAILED: ", result.expected, " written, ", Losses(result));
  return Cat("OK: ", result.expected, " written, ", result.verified, " verified, 0 lost");
}

absl::StatusOr<std::string> RunJournalVerification(const RunOptions& options) {
  DYNLIB_ASSIGN_OR_RETURN(JournalContents acknowledged, ReadJournal(options.journal));
  DYNLIB_ASSIGN_OR_RETURN(Setup setup, SetUpToVerify(options));
  VerifyOptions verify;
  verify.rows = std::move(acknowledged.rows);
  for (const auto& [name, value] : acknowledged.counters)
    verify.counters[name] = {.low = value, .high = UINT64_MAX};
  DYNLIB_ASSIGN_OR_RETURN(VerifyResult result, VerifyDirectory(options, setup, std::move(verify)));
  if (!result.ok()) return Cat("FAILED: ", result.expected, " acknowledged, ", Losses(result));
  return Cat("OK: ", result.expected, " acknowledged, ", result.verified, " verified, 0 lost; ",
             result.present, " present");
}

}  // namespace dynlib::mini_cluster
