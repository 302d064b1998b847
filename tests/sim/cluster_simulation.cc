#include "tests/sim/cluster_simulation.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/sim/linearizability.h"
#include "dynlib/sim/world.h"
#include "tests/sim/cluster_checks.h"
#include "tests/sim/cluster_events.h"
#include "tests/sim/cluster_load.h"
#include "tests/sim/simulated_cluster.h"

namespace dynlib {
namespace {

constexpr Duration kProgressLimit = std::chrono::seconds(90);

class CountingSink : public MetricsSink {
 public:
  explicit CountingSink(const SimulationOptions& options) : trace_(options.trace) {}
  void Count(std::string_view name, int64_t delta) override { counts_[std::string(name)] += delta; }
  void Event(std::string_view name, std::span<const EventField> fields) override {
    ++counts_[std::string(name)];
    if (name == "scrub.difference") NoteDifference(fields);
    if (!trace_) return;
    std::string line = Cat("  event ", name);
    for (const EventField& field : fields) line += Cat(" ", field.name, "=", field.value);
    trace_(line);
  }
  const std::map<std::string, uint64_t, std::less<>>& counts() const { return counts_; }
  // What scrubs found, beside what could not be read on a node of these.
  std::string Differences(const std::set<NodeId>& damaged) const {
    std::string all;
    for (const auto& [node, text] : differences_) {
      if (node.empty() || !damaged.contains(NodeId{std::stoull(node)})) all += text;
    }
    return all;
  }

 private:
  void NoteDifference(std::span<const EventField> fields) {
    std::string line = "\na scrub found:";
    std::string damaged;
    for (const EventField& field : fields) line += Cat(" ", field.name, "=", field.value);
    const auto value = [&](std::string_view name) {
      for (const EventField& field : fields)
        if (field.name == name) return std::string(field.value);
      return std::string();
    };
    if (value("why") == "unreadable") damaged = value("node");
    differences_.emplace_back(std::move(damaged), std::move(line));
  }

  // With the node, if it was unreadable there.
  std::vector<std::pair<std::string, std::string>> differences_;
  const std::function<void(std::string_view)> trace_;
  std::map<std::string, uint64_t, std::less<>> counts_;
};

class Simulation {
 public:
  explicit Simulation(const SimulationOptions& options);
  ~Simulation() { world_.CrashAll(); }

  SimulationResult Run();

 private:
  std::string RunParts();
  void RunFaults();
  std::string CheckHealed(uint64_t table);

  const SimulationOptions options_;
  const ClusterShape shape_;
  CountingSink metrics_;
  sim::World world_;
  Random random_;
  SimulatedCluster cluster_;
  ClusterLoad load_;
  bool harmed_ = false;
  uint64_t disk_calls_ = 0;
};

Simulation::Simulation(const SimulationOptions& options)
    : options_(options),
      shape_(options.shape.value_or(RandomShape(options.seed))),
      metrics_(options),
      world_(options.seed),
      random_(options.seed ^ 0x5eed),
      cluster_(options_, shape_, &world_, &random_, &metrics_),
      load_(options_, shape_, cluster_.config(), &world_, &random_, &metrics_) {
  if (options_.trace) world_.SetTrace(options_.trace);
  if (const auto& chosen = options_.disk_call; chosen.has_value() && chosen->call > 0)
    world_.node(chosen->node)->disk()->FailCall(chosen->call, chosen->fault, chosen->fate);
}

// The replicas are compared before every key is written anew, which would hide what they lack.
std::string Simulation::CheckHealed(uint64_t table) {
  const std::string stuck = Cat("some key could not be written and read within ",
                                ToMicros(kProgressLimit) / 1'000'000, " s after healing");
  if (!load_.EveryKeyWorks(/*write_all=*/false, kProgressLimit))
    return stuck + DescribePartitions(cluster_, world_, table);
  std::string why = CheckWhole(cluster_, load_, world_, table, kProgressLimit);
  if (why.empty()) {
    why = CheckEqual(cluster_, world_, table);
    harmed_ |= !why.empty();
  }
  if (why.empty()) why = CheckScrubbed(cluster_, world_, table, kProgressLimit);
  if (why.empty() && !load_.EveryKeyWorks(/*write_all=*/true, kProgressLimit)) return stuck;
  return why;
}

void Simulation::RunFaults() {
  if (!options_.disk_call.has_value()) return world_.RunFor(options_.fault_time);
  const NodeId node = options_.disk_call->node;
  world_.RunFor(options_.fault_time / 2);
  cluster_.Restart(node);
  world_.RunFor(options_.fault_time / 2);
  disk_calls_ = world_.node(node)->disk()->calls();
  world_.node(node)->disk()->ClearFailCall();
  cluster_.PowerOffAll(options_.disk_call->fate);
}

std::string Simulation::RunParts() {
  if (!world_.RunUntil([this] { return cluster_.AllUp(); }, std::chrono::seconds(30)))
    return "the nodes did not start";
  if (absl::Status created = load_.CreateTable(); !created.ok())
    return Cat("the table was not created: ", std::string(ToStd(created.message())));
  const std::optional<cluster::TableInfo> table = load_.Table();
  if (!table.has_value()) return "the table is not in the catalogue";
  ClusterEvents events(shape_, ToUint(table->id), &cluster_, &load_, &world_, &random_);
  const int64_t drift_bound = replication::LivenessOptions().drift_ppm;
  world_.SetFaults(options_.faults.value_or(sim::RandomFaults(options_.seed, drift_bound)));
  cluster_.injector().Start();
  events.Start();
  load_.Start();
  RunFaults();
  events.Stop();
  cluster_.injector().Heal();
  load_.Stop();
  std::string why = CheckHealed(ToUint(table->id));
  if (!cluster_.Disagreement().empty()) why = Cat(cluster_.Disagreement(), "\n", why);
  const std::string differences = metrics_.Differences(world_.corruptible());
  why += differences + load_.RoutesWentBack();
  // What a client was told wrongly says more than that replicas differ.
  const sim::CheckResult check = sim::CheckLinearizable(load_.history());
  if (!check.ok()) why = why.empty() ? check.explanation : Cat(check.explanation, "\nand ", why);
  harmed_ |= !cluster_.Disagreement().empty() || !differences.empty() ||
             !load_.RoutesWentBack().empty() || !check.ok();
  // Timers of the events end with this.
  world_.CrashAll();
  return why;
}

SimulationResult Simulation::Run() {
  SimulationResult result;
  result.failure = RunParts();
  result.harmed = harmed_;
  result.trace_hash = world_.TraceHash();
  result.operations = load_.operations();
  result.acknowledged = load_.acknowledged();
  result.events = world_.events();
  result.disk_calls = disk_calls_;
  result.faults = world_.FaultCounts();
  result.metrics = metrics_.counts();
  world_.CrashAll();
  return result;
}

}  // namespace

ClusterShape RandomShape(uint64_t seed) {
  Random random(seed ^ 0x5a9e);
  ClusterShape shape;
  const uint64_t dice = random.Below(100);
  if (random.Below(3) > 0)
    shape.scrub_interval = std::chrono::milliseconds(random.Between(200, 4'000));
  if (dice < 50) return shape;
  shape.metadata_nodes = static_cast<int>(random.Below(4));
  if (random.Below(4) > 0) shape.splits_per_minute = random.Between(4, 40);
  if (random.Below(4) > 0) shape.merges_per_minute = random.Between(4, 40);
  shape.padding = random.Below(2) == 0 ? 0 : 400;
  shape.copy_chunk_bytes = random.Below(2) == 0 ? 1 << 10 : 1 << 20;
  if (dice < 75) return shape;
  shape.nodes = dice < 95 ? 6 : 9;
  if (random.Below(4) > 0) shape.outages_per_minute = random.Between(4, 12);
  // Chunks that a copy gets while it waits.
  if (shape.copy_chunk_bytes == 1 << 10) shape.copy_bytes_per_second = 8 << 10;
  return shape;
}

SimulationResult RunClusterSimulation(const SimulationOptions& options) {
  return Simulation(options).Run();
}

}  // namespace dynlib
