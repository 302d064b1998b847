#include "examples/mini_cluster/run.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/table_admin.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/failure.h"
#include "examples/mini_cluster/journal.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/load.h"
#include "examples/mini_cluster/manifest.h"
#include "examples/mini_cluster/mini_cluster.h"
#include "examples/mini_cluster/mixed_load.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/process.h"
#include "examples/mini_cluster/sample_queries.h"
#include "examples/mini_cluster/verify.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kStartLimit = std::chrono::seconds(60);
constexpr uint64_t kSampleItems = 2000;

template <typename... Pieces>
void Say(const Pieces&... pieces) {
  std::printf("%s\n", Cat(pieces...).c_str());
  std::fflush(stdout);
}
template <typename... Pieces>
void Progress(const Pieces&... pieces) {
  std::fprintf(stderr, "%s\n", Cat(pieces...).c_str());
}

std::string Seconds(Duration d) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f s", static_cast<double>(ToMicros(d)) / 1e6);
  return text;
}

std::string Rate(uint64_t count, Duration took) {
  const double seconds = static_cast<double>(std::max<int64_t>(ToMicros(took), 1)) / 1e6;
  return Cat(WithCommas(static_cast<uint64_t>(static_cast<double>(count) / seconds)), "/s");
}

// The power switch of PowerOffAfter.
std::mutex power_mutex;
MiniCluster* powered = nullptr;

// A cluster that the power switch knows while it lives.
class PoweredCluster {
 public:
  static absl::StatusOr<std::unique_ptr<PoweredCluster>> Start(const RunOptions& options) {
    DYNLIB_ASSIGN_OR_RETURN(
        std::unique_ptr<MiniCluster> cluster,
        MiniCluster::Start(
            {.directory = options.directory, .nodes = options.nodes, .seed = options.seed},
            options.metrics));
    return std::unique_ptr<PoweredCluster>(new PoweredCluster(std::move(cluster)));
  }
  ~PoweredCluster() {
    std::lock_guard lock(power_mutex);
    powered = nullptr;
  }
  MiniCluster& operator*() { return *cluster_; }
  MiniCluster* operator->() { return cluster_.get(); }

 private:
  explicit PoweredCluster(std::unique_ptr<MiniCluster> cluster) : cluster_(std::move(cluster)) {
    std::lock_guard lock(power_mutex);
    powered = cluster_.get();
  }
  const std::unique_ptr<MiniCluster> cluster_;
};

// Different in each run, whatever the seed: a client id is never used twice in a directory.
ClientId NewClientId() {
  std::random_device device;
  return ClientId{(uint64_t{device()} << 32 | device()) | 2};
}

// What every kind of run needs.
struct Setup {
  DataSet data;
  cluster::TableSpec spec;
  cluster::TableInfo table;
  Manifest wanted;
  std::optional<Manifest> found;
};

absl::StatusOr<Setup> SetUp(const RunOptions& options) {
  if (options.in_flight < 1 || options.in_flight > 4000) {
    return absl::InvalidArgumentError(
        Cat("--clients is ", options.in_flight, "; allowed: 1 to 4000"));
  }
  DYNLIB_RETURN_IF_ERROR(ValidateNodes(options.nodes));
  Setup setup;
  DYNLIB_ASSIGN_OR_RETURN(setup.data, DataSet::Open(options.data));
  setup.spec = {
      .name = kRecordsTable, .schema = setup.data.schema(), .partitions = options.partitions};
  DYNLIB_ASSIGN_OR_RETURN(setup.table, cluster::PlaceTable(ConfigOf(options.nodes), setup.spec));
  const Digest128 digest = setup.data.digest();
  setup.wanted = {.nodes = options.nodes,
                  .partitions = options.partitions,
                  .data = Cat(Hex(digest.high).substr(2), Hex(digest.low).substr(2)),
                  .loaded = 0};
  DYNLIB_ASSIGN_OR_RETURN(setup.found, ReadManifest(options.directory));
  if (setup.found.has_value())
    DYNLIB_RETURN_IF_ERROR(CheckManifest(options.directory, *setup.found, setup.wanted));
  return setup;
}

Client::Options ClientOptions(const RunOptions& options) {
  return {.client = NewClientId(), .max_in_flight = 4000, .seed = options.seed};
}

cluster::TableSpec CountersSpec() {
  return {.name = kCountersTable,
          .schema = {.partition_key = {kCounterName, cluster::KeyType::kString}, .sort_key = {}},
          .partitions = kCounterPartitions};
}

// Waits until each partition of both can be used.
absl::Status CreateTables(Client& client, uint64_t nodes, const cluster::TableSpec& records) {
  DYNLIB_RETURN_IF_ERROR(client.WaitUntilCaughtUp(
      cluster::CatalogueTable(ConfigOf(nodes).catalogue_nodes), kStartLimit));
  DYNLIB_RETURN_IF_ERROR(client.CreateTable(records));
  DYNLIB_RETURN_IF_ERROR(client.CreateTable(CountersSpec()));
  for (const cluster::TableSpec& spec : {records, CountersSpec()}) {
    DYNLIB_ASSIGN_OR_RETURN(cluster::TableInfo table, cluster::PlaceTable(ConfigOf(nodes), spec));
    DYNLIB_RETURN_IF_ERROR(client.WaitUntilCaughtUp(table, kStartLimit));
  }
  return absl::OkStatus();
}

std::vector<SampleItem> TakeSample(const DataSet& data) {
  std::vector<SampleItem> sample;
  const uint64_t step = data.rows() / kSampleItems + 1;
  data.ForEach([&](uint64_t row, cluster::Item item) {
        if (row % step == 0) sample.push_back({row, std::move(item)});
        return true;
      })
      .IgnoreError();  // It was read whole before; a shorter sample is one too.
  return sample;
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
    Say("cluster     ", options_.nodes, " nodes in 3 zones; ", options_.partitions,
        " partitions of 3 replicas");
    Say("data        ", WithCommas(data.rows()), " items from ", data.path(), "; partition key '",
        data.schema().partition_key.name, "'",
        data.schema().sort_key.has_value() ? Cat(", sort key '", data.schema().sort_key->name, "'")
                                           : "");
  }

  absl::Status RunCluster() {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PoweredCluster> cluster,
                            PoweredCluster::Start(options_));
    {
      Client client(&**cluster, ClientOptions(options_));
      DYNLIB_RETURN_IF_ERROR(CreateTables(client, options_.nodes, setup_.spec));
      DYNLIB_RETURN_IF_ERROR(LoadAll(client));
      DYNLIB_RETURN_IF_ERROR(FailOnce(**cluster, client));
      DYNLIB_RETURN_IF_ERROR(PrintSampleQueries(client, setup_.table, setup_.data));
    }
    return (*cluster)->Stop();
  }

  absl::Status LoadAll(Client& client) {
    const uint64_t rows = setup_.data.rows();
    if (setup_.found.has_value() && setup_.found->loaded == rows && !options_.reload) {
      Say("load        all ", WithCommas(rows),
          " items are there from an earlier run; nothing to write");
      return absl::OkStatus();
    }
    if (setup_.found.has_value()) Say("load        writing all items again over what is there");
    DYNLIB_ASSIGN_OR_RETURN(
        LoadResult loaded,
        Load(client, setup_.data, options_.in_flight, journal_.get(), [&](uint64_t written) {
          Progress("loaded ", WithCommas(written), " of ", WithCommas(rows), " (",
                   written * 100 / rows, "%)");
        }));
    Say("load        ", WithCommas(loaded.written), " items written in ", Seconds(loaded.took),
        ": ", Rate(loaded.written, loaded.took), "; ", loaded.latencies.ToString());
    Manifest manifest = setup_.wanted;
    manifest.loaded = rows;
    return WriteManifest(options_.directory, manifest);
  }

  absl::Status FailOnce(MiniCluster& cluster, Client& client) {
    if (options_.mixed_load_seconds == 0) return absl::OkStatus();
    Progress("reads and writes go on; the power of a leader is cut among them");
    DYNLIB_ASSIGN_OR_RETURN(failure_,
                            FailUnderLoad(cluster, client, setup_.table, TakeSample(setup_.data),
                                          {.seed = options_.seed,
                                           .journal = journal_.get(),
                                           .generation = options_.data.generation},
                                          std::chrono::seconds(options_.mixed_load_seconds)));
    const MixedLoad::Report& load = failure_.load;
    Say("power cut   node ", failure_.node, ", leader of partition ",
        Hex(ToUint(failure_.partition)), ": its writes were unavailable for ",
        Milliseconds(failure_.unavailable), "; without power for ", Seconds(failure_.down),
        "; caught up ", Seconds(failure_.caught_up), " after its return");
    Say("meanwhile   ", WithCommas(load.writes), " writes: ", load.write_latencies.ToString());
    Say("            ", WithCommas(load.reads), " strong reads: ", load.read_latencies.ToString());
    if (load.unknown > 0)
      Say("            ", load.unknown, " writes timed out; whether they took effect is unknown");
    for (const std::string& what : load.failures) Say("            WRONG: ", what);
    return absl::OkStatus();
  }

  // In a process of its own, which knows nothing but the directory and the input.
  absl::StatusOr<std::string> VerifyElsewhere() {
    std::vector<std::string> command = options_.command;
    const std::string counters = Cat(options_.directory, "/counters.expected");
    DYNLIB_RETURN_IF_ERROR(WriteCounters(counters, failure_.load.counters));
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
    if (failure_.load.failures.empty() || verdict.substr(0, 3) != "OK:") return verdict;
    return Cat("FAILED: ", failure_.load.failures.front());
  }

  const RunOptions& options_;
  Setup setup_;
  std::unique_ptr<Journal> journal_;
  FailureReport failure_;
};

absl::StatusOr<VerifyResult> VerifyDirectory(const RunOptions& options, const Setup& setup,
                                             VerifyOptions verify) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PoweredCluster> cluster, PoweredCluster::Start(options));
  absl::StatusOr<VerifyResult> result;
  {
    Client client(&**cluster, ClientOptions(options));
    // A run that was killed at its beginning has no tables yet.
    DYNLIB_RETURN_IF_ERROR(CreateTables(client, options.nodes, setup.spec));
    verify.in_flight = options.in_flight;
    verify.progress = [&](uint64_t read) {
      Progress("verified ", WithCommas(read), " of ", WithCommas(setup.data.rows()));
    };
    result = Verify(client, setup.data, setup.table, std::move(verify));
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
             " counters wrong");
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

void PowerOffAfter(uint64_t milliseconds) {
  std::thread([milliseconds] {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    std::lock_guard lock(power_mutex);
    if (powered != nullptr) powered->PowerOffAll();
    ::_exit(kPoweredOffStatus);
  }).detach();
}

}  // namespace dynlib::mini_cluster
