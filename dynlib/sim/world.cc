#include "dynlib/sim/world.h"

#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::sim {
namespace {

// A boot long enough ago, or short, that times of different machines do not look alike.
Duration RandomUptime(Random& random) {
  return std::chrono::milliseconds(random.Between(1, 1'000'000));
}

UnsyncedFate RandomFate(const FaultOptions& faults, Random& random) {
  std::vector<UnsyncedFate> fates = {UnsyncedFate::kAllLost};
  if (faults.disk_torn_writes) fates.push_back(UnsyncedFate::kTorn);
  if (faults.disk_reorders_unsynced) fates.push_back(UnsyncedFate::kRandomSubset);
  if (fates.size() > 1) fates.push_back(UnsyncedFate::kAllKept);
  return fates[random.Below(fates.size())];
}

std::string_view CounterOf(UnsyncedFate fate) {
  switch (fate) {
    case UnsyncedFate::kAllLost:
      return "disk.unsynced_lost";
    case UnsyncedFate::kAllKept:
      return "disk.unsynced_kept";
    case UnsyncedFate::kTorn:
      return "disk.torn_write";
    case UnsyncedFate::kRandomSubset:
      return "disk.unsynced_reordered";
  }
  return "";
}

// What a kNode event is about.
enum NodeEvent : uint64_t { kCrashed, kPoweredOff, kRestarted, kPaused, kDiskPowerFailure };

}  // namespace

Node::Node(World* world, NodeId id, int64_t drift_ppm, Duration since_boot, Duration wall_skew,
           uint64_t disk_seed)
    : world_(world),
      id_(id),
      clock_(&world->engine_, drift_ppm, since_boot, wall_skew),
      disk_(disk_seed, &world->engine_, &world->faults_) {
  disk_.OnPowerOff([this] { OnDiskPowerFailure(); });
  StartProcess();
}

void Node::StartProcess() {
  up_ = true;
  processes_.push_back(std::make_unique<Process>(id_, &world_->engine_, &clock_));
  transports_.push_back(
      std::make_unique<SimTransport>(&world_->network_, processes_.back().get(), world_->metrics_));
  world_->network_.Attach(id_, transports_.back().get());
}

void Node::EndProcess() {
  up_ = false;
  Process& process = *processes_.back();
  process.Doom();
  world_->network_.Attach(id_, nullptr);
  transports_.back()->Close();
  process.Kill();
}

SimTransport* Node::transport() {
  DYNLIB_CHECK(up_);
  return transports_.back().get();
}

SimExecutor* Node::NewExecutor(std::string_view name) {
  DYNLIB_CHECK(up_);
  return processes_.back()->NewExecutor(name, /*blocking=*/false);
}

SimExecutor* Node::NewBlockingExecutor(std::string_view name) {
  DYNLIB_CHECK(up_);
  return processes_.back()->NewExecutor(name, /*blocking=*/true);
}

void Node::Crash() {
  if (!up_) return;
  world_->engine_.Trace(id_, EventKind::kNode, kCrashed);
  world_->engine_.CountFault("node.crash");
  disk_.Crash();
  EndProcess();
}

void Node::PowerOff(std::optional<UnsyncedFate> fate) {
  Engine& engine = world_->engine_;
  engine.Trace(id_, EventKind::kNode, kPoweredOff);
  engine.CountFault("node.power_off");
  if (!fate.has_value()) fate = RandomFate(world_->faults_, engine.random());
  if (disk_.UnsyncedOperations() > 0) engine.CountFault(CounterOf(*fate));
  rebooted_ = true;
  disk_.PowerOff(*fate);
  if (up_) EndProcess();
}

void Node::OnDiskPowerFailure() {
  // On the fiber that made the call: the process has no effect from now on, and ends as soon as the
  // world has its baton back.
  Engine& engine = world_->engine_;
  engine.CountFault("node.power_off");
  rebooted_ = true;
  Process* const process = processes_.back().get();
  if (!up_ || !process->alive()) return;
  process->Doom();
  engine.After(Duration::zero(), id_, EventKind::kNode, kDiskPowerFailure, [this, process] {
    if (!up_ || process != processes_.back().get()) return;
    EndProcess();
    if (world_->on_power_failure_) world_->on_power_failure_(id_);
  });
}

void Node::Restart() {
  DYNLIB_CHECK(!up_);
  Engine& engine = world_->engine_;
  engine.Trace(id_, EventKind::kNode, kRestarted);
  engine.CountFault("node.restart");
  if (rebooted_) clock_.Reboot(RandomUptime(engine.random()));
  rebooted_ = false;
  disk_.StallUntil(Instant());
  disk_.Restart();
  StartProcess();
}

void Node::Pause(Duration duration) {
  if (!up_) return;
  world_->engine_.Trace(id_, EventKind::kNode, kPaused);
  world_->engine_.CountFault("clock.pause");
  processes_.back()->PauseUntil(world_->Now() + duration);
}

void Node::EndPause() {
  if (up_) processes_.back()->EndPause();
}

World::World(uint64_t seed, FaultOptions faults, MetricsSink* metrics)
    : engine_(seed),
      faults_(faults),
      metrics_(metrics),
      network_(&engine_, &faults_, metrics),
      object_store_(engine_.random().Next(), &engine_, &faults_) {
  DYNLIB_CHECK(Validate(faults).ok());
}

World::~World() {
  CrashAll();
  engine_.Clear();
}

Node* World::AddNode(NodeId id, std::optional<int64_t> drift_ppm) {
  DYNLIB_CHECK(ToUint(id) != 0 && !nodes_.contains(id));
  Random& random = engine_.random();
  const int64_t bound = faults_.clock_drift_ppm_max;
  if (!drift_ppm.has_value()) drift_ppm = random.Between(-bound, bound);
  if (*drift_ppm != 0) engine_.CountFault("clock.drift");
  const int64_t skew = faults_.clock_wall_skew_ms_max;
  const Duration wall_skew = std::chrono::milliseconds(random.Between(-skew, skew));
  const Duration uptime = RandomUptime(random);
  auto& node = nodes_[id];
  node = std::make_unique<Node>(this, id, *drift_ppm, uptime, wall_skew, random.Next());
  return node.get();
}

Node* World::node(NodeId id) {
  const auto it = nodes_.find(id);
  DYNLIB_CHECK(it != nodes_.end());
  return it->second.get();
}

std::vector<NodeId> World::nodes() const {
  std::vector<NodeId> ids;
  for (const auto& [id, node] : nodes_) ids.push_back(id);
  return ids;
}

bool World::Step() { return engine_.Step(Instant::Infinite()); }

void World::RunFor(Duration duration) {
  const Instant end = Now() + duration;
  while (engine_.Step(end)) {
  }
  engine_.AdvanceTo(end);
}

bool World::RunUntil(const std::function<bool()>& condition, Duration limit) {
  const Instant end = Now() + limit;
  while (!condition()) {
    if (engine_.Step(end)) continue;
    engine_.AdvanceTo(end);
    return condition();
  }
  return true;
}

void World::RunAs(SimExecutor* executor, const std::function<void()>& action) {
  DYNLIB_CHECK(engine_.current() == nullptr);
  engine_.SetCurrent(executor);
  action();
  engine_.SetCurrent(nullptr);
}

void World::After(Duration delay, Engine::Action action) {
  engine_.After(delay, NodeId{0}, EventKind::kFault, 0, std::move(action));
}

void World::SetFaults(const FaultOptions& faults) {
  DYNLIB_CHECK(Validate(faults).ok());
  faults_ = faults;
}

void World::CrashAll() {
  for (const auto& [id, node] : nodes_) node->Crash();
}

}  // namespace dynlib::sim
