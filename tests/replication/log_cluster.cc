#include "tests/replication/log_cluster.h"

#include <algorithm>
#include <set>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {

using std::chrono::milliseconds;

absl::Status TreeMachine::LoadSessions(
    absl::FunctionRef<void(std::string_view, std::string_view)> visit) {
  for (const auto& [key, value] : tree.sessions) visit(key, value);
  return absl::OkStatus();
}

absl::Status TreeMachine::Evaluate(std::span<const AppliedCommand> commands,
                                   std::vector<std::string>* results) {
  for (const AppliedCommand& command : commands) {
    evaluated_.emplace_back(command.command);
    results->push_back(std::to_string(tree.journal.size() + evaluated_.size()));
  }
  return absl::OkStatus();
}

absl::Status TreeMachine::Publish(const PublishedStep& step) {
  for (std::string& command : evaluated_) {
    const size_t equals = command.find('=');
    tree.values[command.substr(0, equals)] = command.substr(equals + 1);
    tree.journal.push_back(std::move(command));
  }
  evaluated_.clear();
  for (const SessionRecord& record : step.sessions) {
    if (record.value.empty()) {
      tree.sessions.erase(record.key);
    } else {
      tree.sessions[record.key] = record.value;
    }
  }
  tree.applied = step.through;
  if (step.configuration != nullptr) tree.configuration = *step.configuration;
  return absl::OkStatus();
}

LogCluster::LogCluster(Options options)
    : options_(std::move(options)), world_(options_.seed, options_.faults) {
  Configuration members;
  for (uint64_t id = 1; id <= options_.nodes; ++id) {
    members.members.push_back({ReplicaId{id}, NodeId{id}});
  }
  for (uint64_t id = 1; id <= options_.nodes; ++id) {
    world_.AddNode(NodeId{id});
    durable_[id].configuration = members;
    metrics_[id] = std::make_unique<CountingSink>();
    reopened_[id] = -1;
    lost_batches_[id] = 0;
    Open(id);
  }
}

void LogCluster::Open(uint64_t id) {
  ++reopened_[id];
  sim::Node* node = world_.node(NodeId{id});
  servers_[id] = std::make_unique<Server>();
  Server* server = servers_[id].get();
  server->executor = node->NewExecutor("main");
  server->apply = node->NewExecutor("apply");
  Executor* log_executor = node->NewBlockingExecutor("log");
  log_executor->Post([this, id, server, log_executor] {
    if (!OpenLog(id, *server, log_executor).ok()) ReopenSoon(id);
  });
}

absl::Status LogCluster::OpenLog(uint64_t id, Server& server, Executor* log_executor) {
  sim::Node* node = world_.node(NodeId{id});
  absl::StatusOr<std::unique_ptr<store::NodeLog>> log = store::NodeLog::Open(
      {.segment_bytes = 64 << 10, .block_bytes = 512, .identity = id}, node->disk(), "log",
      log_executor, node->clock(), MetricsSink::None(), &server.found);
  if (!log.ok()) return log.status();
  lost_batches_[id] += server.found.lost_batches;
  server.log = *std::move(log);
  server.adapter = std::make_unique<cluster::NodeLogAdapter>(server.log.get(), 16 << 10,
                                                             server.executor, [](size_t) {});
  HostOptions host = options_.host;
  host.seed = options_.seed * 31 + id;
  host.group.proposal_bytes_max = 4 << 10;
  server.host = std::make_unique<GroupHost>(host, NodeId{id}, node->transport(), Channel{1},
                                            server.adapter.get(), server.executor, node->clock(),
                                            metrics_[id].get());
  server.host->OnFatal([this, id](absl::Status) { ReopenSoon(id); });
  const Tree& durable = durable_[id];
  server.machine = std::make_unique<TreeMachine>(durable);
  DYNLIB_CHECK(
      server.host
          ->AddGroup(kGroup, {.configuration = durable.configuration, .self = ReplicaId{id}},
                     server.machine.get(), server.apply, cluster::TakeStream(server.found, kGroup))
          .ok());
  server.host->Start(cluster::TakeStream(server.found, PartitionId{0}),
                     [this, id, started = &server.started](absl::Status status) {
                       *started = status.ok();
                       if (!status.ok()) ReopenSoon(id);
                     });
  return absl::OkStatus();
}

// What an owner does when its node cannot go on: end the process, and begin another.
void LogCluster::ReopenSoon(uint64_t id) {
  const Server* failed = servers_[id].get();
  world_.After(options_.reopen_after, [this, id, failed] {
    if (servers_[id].get() != failed || failed == nullptr) return;
    Crash(id);
    Reopen(id);
  });
}

void LogCluster::Crash(uint64_t id) {
  world_.node(NodeId{id})->Crash();
  servers_[id] = nullptr;
}

void LogCluster::PowerOff(uint64_t id, sim::UnsyncedFate fate) {
  world_.node(NodeId{id})->PowerOff(fate);
  servers_[id] = nullptr;
}

void LogCluster::Reopen(uint64_t id) {
  world_.node(NodeId{id})->Restart();
  Open(id);
}

void LogCluster::Restarted(uint64_t id) {
  servers_[id] = nullptr;
  Reopen(id);
}

GroupStatus LogCluster::Status(uint64_t id) const {
  const Server* server = servers_.at(id).get();
  if (server == nullptr || server->host == nullptr) return {};
  return server->host->Status(kGroup).value_or(GroupStatus{});
}

uint64_t LogCluster::Leader() const {
  for (const auto& [id, server] : servers_) {
    const GroupStatus status = Status(id);
    if (status.role == Role::kLeader && status.holds_lease) return id;
  }
  return 0;
}

bool LogCluster::Run(absl::FunctionRef<bool()> done, Duration limit) {
  return world_.RunUntil([&] { return done(); }, limit);
}

uint64_t LogCluster::AwaitLeader(Duration limit, uint64_t not_this) {
  Run([&] { return Leader() != 0 && Leader() != not_this; }, limit);
  return Leader() == not_this ? 0 : Leader();
}

bool LogCluster::Put(const std::string& key, const std::string& value, Duration limit) {
  const Instant deadline = world_.Now() + limit;
  const Command command{.client = ClientId{9},
                        .sequence = ++sequence_,
                        .acknowledged = sequence_ - 1,
                        .command = key + "=" + value};
  while (world_.Now() < deadline) {
    const uint64_t leader = AwaitLeader(deadline - world_.Now());
    if (leader == 0) break;
    auto answer = std::make_shared<std::optional<absl::Status>>();
    On(leader, [&] {
      host(leader).Propose(kGroup, command,
                           [answer](ProposalResult result) { *answer = result.status; });
    });
    // The process may end before it answers.
    Run([&] { return answer->has_value() || !Up(leader); }, milliseconds(500));
    if (answer->has_value() && (*answer)->ok()) {
      acknowledged_.push_back(command.command);
      return true;
    }
    world_.RunFor(milliseconds(20));
  }
  return false;
}

std::optional<std::string> LogCluster::Get(const std::string& key, Duration limit) {
  const Instant deadline = world_.Now() + limit;
  while (world_.Now() < deadline) {
    const uint64_t leader = AwaitLeader(deadline - world_.Now());
    if (leader == 0) break;
    auto answer = std::make_shared<std::optional<absl::Status>>();
    auto value = std::make_shared<std::string>();
    host(leader).Read(
        kGroup,
        [this, leader, key, value] { *value = servers_[leader]->machine->tree.values[key]; },
        [answer](absl::Status status) { *answer = std::move(status); });
    Run([&] { return answer->has_value() || !Up(leader); }, milliseconds(1000));
    if (answer->has_value() && (*answer)->ok()) return *value;
  }
  return std::nullopt;
}

void LogCluster::Checkpoint() {
  for (auto& [id, server] : servers_) {
    if (!Up(id) || server->machine->tree.applied == 0) continue;
    durable_[id] = server->machine->tree;
    On(id, [this, id = id] { host(id).Checkpointed(kGroup, durable_[id].applied); });
  }
}

std::string LogCluster::Check(Duration limit) {
  if (!Put("last", Cat(sequence_), limit)) return "no progress";
  std::string why;
  Run(
      [&] {
        why = Differences();
        return why.empty();
      },
      limit);
  return why;
}

std::string LogCluster::Differences() const {
  const std::vector<std::string>* journal = nullptr;
  for (const auto& [id, server] : servers_) {
    if (!Up(id)) return Cat("node ", id, " is down");
    if (Status(id).failed) return Cat("the replica on node ", id, " failed");
    const std::vector<std::string>& own = server->machine->tree.journal;
    if (journal == nullptr) journal = &own;
    if (own != *journal) return Cat("node ", id, " is not equal to the first");
  }
  const std::set<std::string> once(journal->begin(), journal->end());
  if (once.size() != journal->size()) return "a command was applied twice";
  for (const std::string& command : acknowledged_) {
    if (!once.contains(command)) return Cat(command, " was acknowledged and is lost");
  }
  return "";
}

}  // namespace dynlib::replication
